"""How tests wait: for a condition, never for a time, and longer where the machine is busy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

WITHIN_S = 280.0
"""Below the time-out of a test in pyproject.toml, which would not say what was waited for."""
MOST = 4.0
"""Times the patience of a quiet machine, at most; a test that hangs ends by pytest's time-out."""


def patience(seconds: float) -> float:
    """``seconds`` of a quiet machine here and now: more where more processes want to run than there
    are cores, or where CAPBENCH_PATIENCE, a factor, says so."""
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    factor = min(MOST, max(1.0, busy, float(os.environ.get("CAPBENCH_PATIENCE", "1"))))
    return max(seconds, min(seconds * factor, WITHIN_S))


def wait_for(
    condition: Callable[[], T], what: str, timeout_s: float = 60.0, every_s: float = 0.01
) -> T:
    """The first true value of ``condition``; fails by name where none comes in good time."""
    began_s = time.monotonic()
    while not (value := condition()):
        waited_s = time.monotonic() - began_s
        assert waited_s < patience(timeout_s), f"waited {waited_s:.0f} s in vain for {what}"
        time.sleep(every_s)
    return value
