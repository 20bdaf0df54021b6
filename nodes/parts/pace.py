"""How soon the parts that protocols share do their work; see `nodes.contract.pace`."""

from __future__ import annotations

from nodes.contract.pace import UNKNOWN_S, Pace
from nodes.parts.failure_detector import HeartbeatParameters
from nodes.parts.recovery import PlacementParameters

EXCHANGES = 20
"""Exchanges with random peers that each node makes until all have heard of everything, as far as
chance allows."""
BEATS = 12
"""Heartbeats of each node that are watched, to see whether there are enough of them."""
_AGREE_S = 3.0
"""Proposals of several nodes, each of which gives way to the others a few times, and a copy."""
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
    )
