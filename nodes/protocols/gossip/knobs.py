"""What the simulator varies of gossip from seed to seed."""

from __future__ import annotations

from nodes.contract.knobs import DEFAULT, Knobs

KNOBS: Knobs = [
    [DEFAULT, {"gossip_interval_s": 0.02}, {"gossip_interval_s": 1.0}],
    [DEFAULT, {"anti_entropy_interval_s": 0.1}, {"anti_entropy_interval_s": 3.0}],
    [DEFAULT, {"fanout": 1}, {"rounds": 1}, {"buckets": 1}],
]
