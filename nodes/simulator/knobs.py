"""Which parameters of a protocol vary from seed to seed (swarm testing).

Rare code runs often only if a knob makes it common: tiny snapshots, batches of one, election
timeouts so close together that votes split. Each entry is a list of alternatives, each a few
parameters that fit together; a seed takes one of each list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from nodes.contract.replica import Replica

Knobs: TypeAlias = Sequence[Sequence[Mapping[str, Any]]]

_DEFAULT: Mapping[str, Any] = {}

KNOBS: dict[str, Knobs] = {
    "RaftParameters": [
        [
            _DEFAULT,
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
            _DEFAULT,
            {"snapshot_entries": 3, "snapshot_tail": 0},
            {"snapshot_entries": 20, "snapshot_tail": 5},
        ],
        [_DEFAULT, {"batch_entries": 1}, {"batch_bytes": 100}],
        [_DEFAULT, {"request_timeout_s": 0.6}],
    ],
    "PaxosParameters": [
        [
            _DEFAULT,
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
            _DEFAULT,
            {"snapshot_entries": 3, "snapshot_tail": 0},
            {"snapshot_entries": 20, "snapshot_tail": 5},
        ],
        [_DEFAULT, {"batch_entries": 1}, {"batch_bytes": 100}],
        [_DEFAULT, {"request_timeout_s": 0.6}],
        [_DEFAULT, {"backoff_s": 0.002}, {"backoff_max_s": 0.1}],
    ],
    "DetectorParameters": [
        [
            _DEFAULT,
            {
                "heartbeat_every_s": 0.2,
                "check_every_s": 0.1,
                "counting": [{"timeout_s": 0.5}],
                "phi": [{"min_deviation_s": 0.02, "acceptable_pause_s": 0.3}],
            },
        ],
    ],
    "GossipParameters": [
        [_DEFAULT, {"gossip_interval_s": 0.02}, {"gossip_interval_s": 1.0}],
        [_DEFAULT, {"anti_entropy_interval_s": 0.1}, {"anti_entropy_interval_s": 3.0}],
        [_DEFAULT, {"fanout": 1}, {"rounds": 1}, {"buckets": 1}],
    ],
    "QuorumParameters": [
        [_DEFAULT, {"retransmit_interval_s": 0.05}, {"retransmit_interval_s": 1.0}],
        [_DEFAULT, {"anti_entropy_interval_s": 0.1}, {"anti_entropy_interval_s": 5.0}],
        [_DEFAULT, {"timeout_s": 0.5}],
    ],
}
"""By the name of the class in `Replica.PARAMETERS`; variants and mutants share it."""

MOMENTS: dict[str, Sequence[str]] = {
    "RaftParameters": (
        *("become_leader", "become_leader", "ready", "ready", "become_candidate"),
        *("become_follower", "follow", "install_snapshot", "compact"),
    ),
    "PaxosParameters": (
        *("become_leader", "become_leader", "become_proposer", "become_follower"),
        *("follow", "catch_up", "compact"),
    ),
}
"""Marks (`Out.mark`) at which something rare has just begun, by the name of the class in
`Replica.PARAMETERS`: faults strike there."""

RETRY_AT_THE_SAME_NODE = frozenset({"QuorumParameters"})
"""Protocols that say that they apply a request at most once only if its client retries at the node
it asked first. Their clients do."""


def knobs_of(replica: type[Replica]) -> Knobs:
    """The knobs of a protocol: its own ``KNOBS``, if it has any, in the form {parameter:
    alternatives}, else those of this file."""
    own: Mapping[str, Sequence[Any]] | None = getattr(replica, "KNOBS", None)
    if own is not None:
        return [[{name: value} for value in values] for name, values in own.items()]
    return KNOBS.get(replica.PARAMETERS.__name__, [])


def moments_of(replica: type[Replica]) -> Sequence[str]:
    """The marks of a protocol at which faults may strike; none, if it is not known."""
    return MOMENTS.get(replica.PARAMETERS.__name__, ())
