"""The clocks and the randomness of one simulated node (an `Env`)."""

from __future__ import annotations

import random

from nodes.simulator.timeline import Timeline

EPOCH_S = 1_700_000_000.0
"""The wall clock at virtual time 0."""


class Clock:
    """A monotonic clock with an offset of its own, which may drift and jump forwards, and a wall
    clock that may be wrong and jump either way. ``rate``: seconds of this node per virtual
    second."""

    __slots__ = ("_base_s", "_since_s", "_timeline", "rate", "rng", "wall_error_s")

    def __init__(self, timeline: Timeline, rng: random.Random, offset_s: float = 0.0) -> None:
        self._timeline = timeline
        self._base_s = offset_s
        self._since_s = timeline.now
        self.rate = 1.0
        self.wall_error_s = 0.0
        self.rng = rng

    def now(self) -> float:
        """Seconds on the monotonic clock. Two nodes' readings have nothing in common."""
        return self._base_s + (self._timeline.now - self._since_s) * self.rate

    def wall(self) -> float:
        """Seconds since the epoch, as this node believes."""
        return EPOCH_S + self._timeline.now + self.wall_error_s

    def set_rate(self, rate: float) -> None:
        """Run faster or slower from now on."""
        assert rate > 0
        self._base_s = self.now()
        self._since_s = self._timeline.now
        self.rate = rate

    def jump(self, seconds: float) -> None:
        """Step the monotonic clock forwards (a suspended virtual machine)."""
        assert seconds >= 0, "a monotonic clock does not go back"
        self._base_s += seconds
