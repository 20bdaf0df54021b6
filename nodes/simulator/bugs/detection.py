"""Failure detection with one mistake."""

from __future__ import annotations

from collections import deque
from typing import Any

from nodes.parts.failure_detector import CountingDetector, Heartbeat, PhiDetector
from nodes.protocols.detector import Detector
from nodes.simulator.bugs import Bug


class HeartbeatWipesSuspicion(Detector):
    """A heartbeat wipes all suspicion, so that flapping links look healthy."""

    def on_heartbeat(self, src: str, msg: Heartbeat) -> None:
        super().on_heartbeat(src, msg)
        for detector in self.heartbeats._detectors.values():
            if isinstance(detector, CountingDetector):
                detector._units[src] = 0


class _WallEnv:
    def __init__(self, env: Any) -> None:
        self.rng = env.rng
        self.now = self.wall = env.wall


class WallClock(Detector):
    """Silence is measured by the wall clock, which may step."""

    def __init__(self, config: Any, env: Any, disk: Any) -> None:
        super().__init__(config, _WallEnv(env), disk)


class OldIncarnationCounts(Detector):
    """Heartbeats are numbered without an incarnation: a restarted node seems to be late copies."""

    def on_heartbeat(self, src: str, msg: Heartbeat) -> None:
        super().on_heartbeat(src, Heartbeat(0, msg.sequence))


class NeverTrustsAgain(Detector):
    """Suspicion never falls."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for detector in self.heartbeats._detectors.values():
            if isinstance(detector, CountingDetector):
                detector._fall = 0


class OutageIsLearned(Detector):
    """Phi takes an outage for one of the intervals at which heartbeats come."""

    def on_heartbeat(self, src: str, msg: Heartbeat) -> None:
        for detector in self.heartbeats._detectors.values():
            if isinstance(detector, PhiDetector):
                arrivals = detector._arrivals[src]
                now = self.env.now()
                if detector.level(src, now) >= detector._parameters.threshold:
                    arrivals.add(now - arrivals.heard)
                    detector._normal[src] = detector._distribution(src)
        super().on_heartbeat(src, msg)


class WindowForgetsNothing(Detector):
    """Phi goes by all intervals since the start."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for detector in self.heartbeats._detectors.values():
            if isinstance(detector, PhiDetector):
                for arrivals in detector._arrivals.values():
                    arrivals.intervals = deque(arrivals.intervals)


_SKETCH = "protocols.md, failure detection, wrong there"

BUGS = (
    Bug(
        name="detection-heartbeat-wipes-suspicion",
        protocol="heartbeat",
        replica=HeartbeatWipesSuspicion,
        source=_SKETCH + ": a heartbeat wipes all suspicion",
    ),
    Bug(
        name="detection-wall-clock",
        protocol="heartbeat",
        replica=WallClock,
        source=_SKETCH + ": wall-clock time",
    ),
    Bug(
        name="detection-no-incarnation",
        protocol="heartbeat",
        replica=OldIncarnationCounts,
        source="a restarted process counts from 1",
    ),
    Bug(
        name="detection-never-trusts-again",
        protocol="heartbeat",
        replica=NeverTrustsAgain,
        source="Chandra and Toueg 1996: eventual accuracy",
    ),
    Bug(
        name="detection-outage-is-learned",
        protocol="heartbeat",
        replica=OutageIsLearned,
        source="Hayashibara et al. 2004: the window holds intervals between heartbeats",
    ),
    Bug(
        name="detection-window-forgets-nothing",
        protocol="heartbeat",
        replica=WindowForgetsNothing,
        source="Hayashibara et al. 2004: the window holds the last intervals",
    ),
)
