"""Nothing but heartbeats: every node watches all others, with several detectors side by side.

This is how detectors are measured: all of them judge the same arrivals, so that a difference
between two is theirs alone (`chaos.seeds.detector_sweep`). It is also the smallest example of a
protocol that embeds `nodes.parts.failure_detector.Heartbeats`. It holds no data, and every request
fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nodes.contract.disk import Disk
from nodes.contract.replica import Config, Env, Replica, Reply, Request, Value, Version
from nodes.parts.failure_detector import (
    CountingDetector,
    FailureDetector,
    Heartbeat,
    Heartbeats,
    PhiDetector,
)
from nodes.protocols.detector.invariants import SuspicionFallsSlowly
from nodes.protocols.detector.parameters import DetectorParameters, labels


class Detector(Replica):
    """A replica without data that suspects silent nodes."""

    MESSAGES = (Heartbeat,)
    EARLY = (Heartbeat,)
    INVARIANTS = (SuspicionFallsSlowly,)
    PARAMETERS = DetectorParameters

    def __init__(self, config: Config, env: Env, disk: Disk) -> None:
        super().__init__(config, env, disk)
        parameters = config.parameters
        assert isinstance(parameters, DetectorParameters)
        detectors: dict[str, FailureDetector] = {}
        now, every_s = env.now(), parameters.heartbeat_every_s
        names = labels("counting", len(parameters.counting))
        for name, counting in zip(names, parameters.counting, strict=True):
            detectors[name] = CountingDetector(config.peers, now, counting)
        first = detectors.get("counting")
        self.counting = first if isinstance(first, CountingDetector) else None
        names = labels("phi", len(parameters.phi))
        for name, phi in zip(names, parameters.phi, strict=True):
            detectors[name] = PhiDetector(config.peers, now, phi, every_s)
        self.heartbeats = Heartbeats(config, env, self.out, parameters.heartbeat(), detectors)

    def on_heartbeat(self, src: str, msg: Heartbeat) -> None:
        """A node is alive."""
        self.heartbeats.on_heartbeat(src, msg)

    def on_timer(self, name: str) -> None:
        """Time to send, or to check."""
        self.heartbeats.on_timer(name)

    def on_request(self, request: Request) -> None:
        """There is no data."""
        self.out.reply(Reply(request.client, request.sequence, "fail", error="unsupported"))

    def probe(self) -> dict[str, Any]:
        """The suspicions of every detector; see `Heartbeats.probe`."""
        return {"role": "replica", "leader": None, "ready": True, **self.heartbeats.probe()}

    def state(self) -> Mapping[str, tuple[tuple[Value, ...], Version]]:
        """Nothing."""
        return {}
