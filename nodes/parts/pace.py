"""How soon the parts that protocols share do their work; see `nodes.contract.pace`."""

from __future__ import annotations

from nodes.contract.pace import UNKNOWN_S, Pace, Price
from nodes.contract.replica import OperationKind
from nodes.parts.failure_detector import HeartbeatParameters
from nodes.parts.forwarding import ForwardingParameters
from nodes.parts.recovery import PlacementParameters

EXCHANGES = 20
"""Exchanges with random peers that each node makes until all have heard of everything, as far as
chance allows."""
BEATS = 12
"""Heartbeats of each node that are watched, to see whether there are enough of them."""
FEW_BYTES = 1000
"""A message of a batch so small holds an entry or two."""
_AGREE_S = 3.0
"""Proposals of several nodes, each of which gives way to the others a few times, and a copy."""
_LOOKS_S = 0.4
"""So long after there is something to propose its node has looked."""
_MOVE_S = 1.5
"""One range moves, and all have heard that its new member is ready."""


def suspects_s(parameters: HeartbeatParameters) -> float:
    """By then after its last heartbeat arrived a node is suspected. What phi has learned may be
    anything up to what it would call an outage."""
    if parameters.detector == "phi":
        return UNKNOWN_S
    counting = parameters.counting
    return counting.timeout_s + (counting.checks_to_suspect + 1) * parameters.check_every_s


def trusts_s(parameters: HeartbeatParameters) -> float:
    """By then after it sends again a node is trusted."""
    checks = 2 if parameters.detector == "phi" else 2 + round(1 / parameters.counting.fall + 0.5)
    return 2 * parameters.heartbeat_every_s + checks * parameters.check_every_s


def pace_of_recovery(parameters: PlacementParameters, nodes: tuple[str, ...]) -> Pace:
    """What comes on top for a protocol that places keys on fewer nodes than there are. The last
    member in turn proposes a new one; and when all are back, ranges move one after another."""
    if not parameters.is_partial(nodes):
        return Pace(serves_s=0.0, settles_s=0.0)
    heartbeat, count = parameters.heartbeat, len(nodes)
    lost_s = suspects_s(heartbeat) + parameters.recover_after_s * (
        parameters.replication_factor + 1
    )
    back_s = trusts_s(heartbeat) + parameters.recover_after_s + _MOVE_S * parameters.ranges
    heartbeats = {"Heartbeat": count * (count - 1) / heartbeat.heartbeat_every_s}
    return Pace(
        serves_s=suspects_s(heartbeat) + _AGREE_S,
        settles_s=_AGREE_S + max(lost_s, back_s),
        idle={**heartbeats, "PlacementNumbers": 2.0 * count},
        least=heartbeats,
        watch_s=BEATS * heartbeat.heartbeat_every_s,
        replaces_s=parameters.recover_after_s + _LOOKS_S,
    )


def repeats_s(parameters: ForwardingParameters) -> float | None:
    """So long after it came a request that was lost on its way to the leader is handed on again;
    None: it ends before."""
    again_s = 2 * parameters.retry_s
    return again_s if parameters.request_timeout_s > again_s else None


def prices(nodes: int, ask: str, answer: str) -> dict[tuple[OperationKind, bool], Price]:
    """Who leads asks all others, by ``ask``, and goes on when a majority has answered; what is
    written it writes itself meanwhile. What came to another node is handed on, and back."""
    others = nodes - 1
    round_ = {ask: others, answer: others}
    away = {"Forward": 1, "Forwarded": 1, **round_}
    here = {"Forward": 0, "Forwarded": 0, **round_}
    return {
        ("read", True): Price(hops=2, messages=here, full={ask: 0}),
        ("read", False): Price(hops=4, messages=away, full={ask: 0}),
        ("write", True): Price(hops=2, fsyncs=1, messages=here, full={ask: others}),
        ("write", False): Price(hops=4, fsyncs=1, messages=away, full={ask: others}),
    }
