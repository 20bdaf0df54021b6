"""What the simulator varies of the quorum register from seed to seed."""

from __future__ import annotations

from nodes.contract.knobs import DEFAULT, Knobs
from nodes.parts.knobs import FORGETFUL_KEYS, KEY_LIMITS, PLACED

COPIES: Knobs = [
    [
        # Where a member is lost, the others are enough to copy from, whatever the quorums.
        *[{"replication_factor": 2}] * 4,
        {"replication_factor": 4},
        {"replication_factor": 4, "read_quorum": 2},
        {"replication_factor": 4, "write_quorum": 2},
        *[{"replication_factor": 3}] * 8,
        {"replication_factor": 3, "write_quorum": 3},
    ]
]
"""Of a key. A quorum that is not named is a majority: two of two or three, three of four."""

KNOBS: Knobs = [
    [DEFAULT, {"retransmit_interval_s": 0.05}, {"retransmit_interval_s": 1.0}],
    [DEFAULT, {"anti_entropy_interval_s": 0.1}, {"anti_entropy_interval_s": 5.0}],
    [DEFAULT, {"timeout_s": 0.5}],
    *KEY_LIMITS,
]

PLACED_KNOBS: Knobs = [*KNOBS, *COPIES, *PLACED]
KNOBS = [
    *KNOBS,
    *FORGETFUL_KEYS,
    [DEFAULT, DEFAULT, {"buckets": 1}],
    # Of four nodes (`nodes.simulator.simulate.UNEVEN`): the other quorum is a majority.
    [*[DEFAULT] * 6, {"read_quorum": 2}, {"write_quorum": 2}],
]
