"""What the simulator varies of Paxos from seed to seed, and when it strikes."""

from __future__ import annotations

from nodes.contract.knobs import DEFAULT, Knobs
from nodes.parts.knobs import LOG_LIMITS

KNOBS: Knobs = [
    [
        DEFAULT,
        {
            "heartbeat_s": 0.03,
            "election_timeout_min_s": 0.1,
            "election_timeout_max_s": 0.2,
            "retry_s": 0.1,
        },
        {"heartbeat_s": 0.02, "election_timeout_min_s": 0.05, "election_timeout_max_s": 0.3},
        {"heartbeat_s": 0.02, "election_timeout_min_s": 0.06, "election_timeout_max_s": 0.065},
        {"heartbeat_s": 0.03, "election_timeout_min_s": 0.07, "election_timeout_max_s": 0.9},
    ],
    [
        DEFAULT,
        {"snapshot_entries": 3, "snapshot_tail": 0},
        # More is kept than lies between two snapshots: no two nodes have dropped equally much, and
        # a promise tells of several votes.
        {"snapshot_entries": 3, "snapshot_tail": 5},
        {"snapshot_entries": 20, "snapshot_tail": 5},
    ],
    # Three in a message: what a promise tells is cut at another place when it is asked from another
    # slot on.
    [DEFAULT, {"batch_entries": 1}, {"batch_entries": 3}, {"batch_bytes": 100}],
    [DEFAULT, {"request_timeout_s": 0.6}],
    [DEFAULT, {"backoff_s": 0.002}, {"backoff_max_s": 0.1}],
    *LOG_LIMITS,
]

MOMENTS = (
    *("become_leader", "become_leader", "become_proposer", "become_follower"),
    *("follow", "catch_up", "compact"),
)
