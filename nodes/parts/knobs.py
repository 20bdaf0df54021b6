"""What the simulator varies of the parts that protocols share, from seed to seed."""

from __future__ import annotations

from typing import Any

from nodes.contract.knobs import DEFAULT, Knobs

KEY_LIMITS: Knobs = [
    [DEFAULT, DEFAULT, {"message_characters": 1}, {"message_characters": 300}],
    [DEFAULT, DEFAULT, {"digest_keys": 1}],
    [DEFAULT, DEFAULT, {"digest_touched": 1}, {"digest_touched": 3}],
]
"""Of `nodes.parts.limits.KeyLimits`: a message holds a key or two."""

FORGETFUL_KEYS: Knobs = [
    [
        *[DEFAULT] * 5,
        {"remembered_results": 1},
        {"remembered_clients": 1},
        {"remembered_clients": 3},
    ],
    [*[DEFAULT] * 14, {"remembered_in_all": 2}, {"remembered_in_all": 4}],
]
"""Only for those who never repeat a request (`nodes.simulator.simulate.FORGETFUL`)."""

LOG_LIMITS: Knobs = [
    [DEFAULT, DEFAULT, {"window_batches": 1}],
    [*[DEFAULT] * 14, {"client_entries": 4}, {"client_entries": 40}],
    [*[DEFAULT] * 14, {"remembered_refusals": 1}, {"remembered_refusals": 3}],
]
"""Of `nodes.parts.limits.LOG_LIMITS`, those that are no limit of a batch or a snapshot. Not
``client_replies``: a client of whose answers some were forgotten is told that it has acknowledged
them."""


def _watching(recover_after_s: float, heartbeat_every_s: float, timeout_s: float) -> dict[str, Any]:
    return {
        "recover_after_s": recover_after_s,
        "heartbeat": {
            "heartbeat_every_s": heartbeat_every_s,
            "check_every_s": timeout_s / 4,
            "counting": {"timeout_s": timeout_s, "rise": 0.5, "fall": 0.5},
        },
    }


COPIES: Knobs = [[{"replication_factor": 2}, *[{"replication_factor": 3}] * 3]]
"""Of a key, where quorums are majorities."""

PLACED: Knobs = [
    [{"ranges": count, "buckets": 16} for count in (1, 2, 4, 4)],
    [_watching(0.1, 0.15, 0.3), _watching(0.3, 0.1, 0.25), _watching(0.5, 0.25, 1.0)],
    [DEFAULT, {"page_keys": 1}, {"page_keys": 2}, {"page_bytes": 1}],
]
"""Of `nodes.parts.recovery.PlacementParameters`: what moves does so soon and in small pages."""

PLACED_MOMENTS = ("under_replicated", "placed", "copying", "copying", "re_replicated")
