"""A shape of `bench.load.shapes` for Locust: how many closed-loop users there are at a time.

An open loop needs none: its plan follows the shape exactly, and its users only divide it.
"""

from __future__ import annotations

import math
import time

from locust import LoadTestShape

from bench.load.shapes import Shape

USERS_PER_S = 100.0
"""How fast users start and stop when the level jumps: Locust warns above that."""


class UsersShape(LoadTestShape):
    """As many users as the level (rounded), for ``duration_s``. Locust asks once a second."""

    abstract = True  # Chosen by --shape, not from Locust's own list.
    use_common_options = True

    def __init__(self, shape: Shape, duration_s: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shape = shape
        self._duration_s = duration_s

    def tick(self) -> tuple[int, float] | None:
        """The number of users, and how many may start or stop per second. None: the end."""
        at_s = time.perf_counter() - self.start_time
        if at_s >= self._duration_s:
            return None
        return math.floor(self._shape.level(at_s) + 0.5), USERS_PER_S
