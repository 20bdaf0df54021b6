"""What the simulator varies of Raft from seed to seed, and when it strikes."""

from __future__ import annotations

from functools import partial

from nodes.contract.administration import Administration
from nodes.contract.knobs import DEFAULT, Knobs
from nodes.parts.knobs import LOG_LIMITS
from nodes.protocols.raft.messages import ChangeMembership, TransferLeadership

KNOBS: Knobs = [
    [
        DEFAULT,
        {
            "heartbeat_s": 0.03,
            "election_timeout_min_s": 0.1,
            "election_timeout_max_s": 0.2,
            "retry_s": 0.1,
        },
        {
            "heartbeat_s": 0.05,
            "election_timeout_min_s": 0.15,
            "election_timeout_max_s": 0.155,
            "retry_s": 0.1,
        },
        {"heartbeat_s": 0.02, "election_timeout_min_s": 0.05, "election_timeout_max_s": 0.3},
        {"heartbeat_s": 0.02, "election_timeout_min_s": 0.06, "election_timeout_max_s": 0.065},
        {"heartbeat_s": 0.03, "election_timeout_min_s": 0.07, "election_timeout_max_s": 0.9},
    ],
    [
        DEFAULT,
        {"snapshot_entries": 3, "snapshot_tail": 0},
        {"snapshot_entries": 20, "snapshot_tail": 5},
    ],
    [DEFAULT, {"batch_entries": 1}, {"batch_bytes": 100}],
    [DEFAULT, {"request_timeout_s": 0.6}],
    [DEFAULT, {"snapshot_chunk_bytes": 50}, {"snapshot_chunk_bytes": 400}],
    *LOG_LIMITS,
]

MOMENTS = (
    *("become_leader", "become_leader", "ready", "ready", "become_candidate"),
    *("become_follower", "follow", "install_snapshot", "compact"),
)

ADMINISTRATION = Administration(
    {
        "add": partial(ChangeMembership, "add"),
        "remove": partial(ChangeMembership, "remove"),
        "transfer": TransferLeadership,
    },
    moments=("change_membership", "confirm_membership", "transfer"),
)
