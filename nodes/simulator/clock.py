"""The clocks and the randomness of one simulated node (an `Env`)."""

from __future__ import annotations

import random

from nodes.simulator.timeline import Timeline

EPOCH_S = 1_700_000_000.0
"""The wall clock at virtual time 0."""


class Clock:
    """A monotonic clock with an offset of its own, which may jump forwards, and a wall clock that
    may be wrong and jump either way. ``rate``: seconds that both count per virtual second."""

    __slots__ = ("_base_s", "_drifted_s", "_since_s", "rate", "rng", "timeline", "wall_error_s")

    def __init__(self, timeline: Timeline, rng: random.Random, offset_s: float = 0.0) -> None:
        self.timeline = timeline
        self._base_s = offset_s
        self._since_s = timeline.now
        self._drifted_s = 0.0
        self.rate = 1.0
        self.wall_error_s = 0.0
        self.rng = rng

    def now(self) -> float:
        """Seconds on the monotonic clock. Two nodes' readings have nothing in common."""
        return self._base_s + (self.timeline.now - self._since_s) * self.rate

    def wall(self) -> float:
        """Seconds since the epoch, as this node believes."""
        return EPOCH_S + self.timeline.now + self.wall_error_s + self._drift_s()

    def _drift_s(self) -> float:
        return self._drifted_s + (self.timeline.now - self._since_s) * (self.rate - 1)

    def set_rate(self, rate: float) -> None:
        """Run faster or slower from now on; at the rate 1 the wall clock is set right."""
        assert rate > 0
        self._drifted_s = self._drift_s() if rate != 1 else 0.0
        self._base_s = self.now()
        self._since_s = self.timeline.now
        self.rate = rate

    def jump(self, seconds: float) -> None:
        """Step the monotonic clock forwards (a suspended virtual machine)."""
        assert seconds >= 0, "a monotonic clock does not go back"
        self._base_s += seconds
