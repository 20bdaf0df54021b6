"""What the simulator varies of gossip from seed to seed."""

from __future__ import annotations

from nodes.contract.knobs import DEFAULT, Knobs
from nodes.parts.knobs import COPIES, FORGETFUL_KEYS, KEY_LIMITS, PLACED

KNOBS: Knobs = [
    [DEFAULT, {"gossip_interval_s": 0.02}, {"gossip_interval_s": 1.0}],
    [DEFAULT, {"anti_entropy_interval_s": 0.1}, {"anti_entropy_interval_s": 3.0}],
    [DEFAULT, {"fanout": 1}, {"rounds": 1}, {"buckets": 1}],
    [DEFAULT, DEFAULT, DEFAULT, {"max_siblings": 1}, {"max_siblings": 3}],
    *KEY_LIMITS,
]

PLACED_KNOBS: Knobs = [*KNOBS, *COPIES, *PLACED]
KNOBS = [*KNOBS, *FORGETFUL_KEYS]
