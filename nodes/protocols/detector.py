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
from nodes.contract.replica import (
    Config,
    Env,
    Invariant,
    InvariantBroken,
    Parameters,
    Replica,
    Reply,
    Request,
    Value,
    Version,
)
from nodes.parts.failure_detector import (
    CountingDetector,
    CountingParameters,
    FailureDetector,
    Heartbeat,
    HeartbeatParameters,
    Heartbeats,
    PhiDetector,
    PhiParameters,
)


class DetectorParameters(Parameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One detector for each entry of ``counting`` and ``phi``, named by `labels`."""

    heartbeat_every_s: float = 2.0
    check_every_s: float = 1.0
    counting: tuple[CountingParameters, ...] = (CountingParameters(),)
    phi: tuple[PhiParameters, ...] = (PhiParameters(),)

    def __post_init__(self) -> None:
        if not self.counting and not self.phi:
            raise ValueError("at least one detector is needed: counting or phi")
        for counting in self.counting:
            HeartbeatParameters(heartbeat_every_s=self.heartbeat_every_s, counting=counting)
        self.heartbeat()

    def heartbeat(self) -> HeartbeatParameters:
        """When to send and to check. Raises ValueError for times that cannot be."""
        return HeartbeatParameters(
            heartbeat_every_s=self.heartbeat_every_s,
            check_every_s=self.check_every_s,
            detector="phi",
        )


def labels(kind: str, count: int) -> list[str]:
    """The names of ``count`` detectors of a kind: ``phi``, ``phi2``, ``phi3`` ..."""
    return [kind if number == 1 else f"{kind}{number}" for number in range(1, count + 1)]


class SuspicionFallsSlowly(Invariant):
    """A counting detector takes back at most one ``fall`` per check, whatever arrives."""

    name = "suspicion falls slowly"

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Detector, dict[str, float]]] = {}

    def observe(self, node: str, replica: Detector) -> None:
        """Raises InvariantBroken."""
        # The level of a counting detector is that of its last check, whatever the time.
        detector = replica.counting
        if detector is None:
            return
        levels = {peer: detector.level(peer, 0.0) for peer in replica.config.peers}
        before = self._seen.get(node)
        self._seen[node] = (replica, levels)
        if before is None or before[0] is not replica or before[1] == levels:
            return
        assert isinstance(replica.config.parameters, DetectorParameters)
        fall = replica.config.parameters.counting[0].fall
        for peer, level in levels.items():
            if level < before[1][peer] - fall - 1e-9:
                raise InvariantBroken(
                    f"{node}: suspicion of {peer} fell from {before[1][peer]} to {level} at once"
                )


class Detector(Replica):
    """A replica without data that suspects silent nodes."""

    MESSAGES = (Heartbeat,)
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
