"""How often the failure detectors' protocol sends."""

from __future__ import annotations

from nodes.contract.pace import Pace
from nodes.parts.pace import BEATS
from nodes.protocols.detector.parameters import DetectorParameters

_HEARTBEATS = 8
"""So many must arrive in a row until trust is back for certain."""


def pace(parameters: DetectorParameters, nodes: tuple[str, ...]) -> Pace:
    """Heartbeats, and nothing else. What is suspected is judged by a model of its own
    (`nodes.simulator.oracles.detection`)."""
    count = len(nodes)
    every_s = parameters.heartbeat_every_s
    heartbeats = {"Heartbeat": count * (count - 1) / every_s}
    return Pace(
        settles_s=_HEARTBEATS * every_s, idle=heartbeats, least=heartbeats, watch_s=BEATS * every_s
    )
