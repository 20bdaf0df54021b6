"""How the load changes over time: ramps, steps and spikes.

    ramp:0-500/30s               from 0 to 500 within 30 s, then the end
    steps:100,200,400/10s        100 for 10 s, then 200, then 400
    spike:100,1000/10s,5s,20s    100 for 10 s, 1000 for 5 s, 100 again for 20 s

A level is operations/s in an open loop and users in a closed loop. Times are in s or have a unit:
ms, s, m, h.

*Arrivals* of an open loop stay Poisson, with a changing rate: the points of a Poisson process of
rate 1 are moved to where the expected number of operations reaches them (inversion of the
expectation function: Çinlar, Introduction to Stochastic Processes, 1975, chapter 4). So the
intended time of each operation is known before the load begins, as without a shape.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from bench.record.printable import quoted
from bench.record.quantities import (
    ABOVE_ZERO_S,
    MAX_DURATION_S,
    MAX_RATE_PER_S,
    BadQuantity,
    Bounds,
    read_duration,
    read_number,
)
from nodes.errors import InvalidInput

MAX_LEVEL = MAX_RATE_PER_S
MAX_PARTS = 1000
HOW = "use ramp:0-500/30s, steps:100,200,400/10s or spike:100,1000/10s,5s,20s"


class BadShape(InvalidInput):
    """An invalid shape. One line that says what is valid."""


class Part(NamedTuple):
    """A level that changes linearly from ``begin`` to ``end`` within ``duration_s``."""

    duration_s: float
    begin: float
    end: float


class Shape:
    """A sequence of parts. ``duration_s``: of all parts. ``mean``: of the level."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self._ends_s = list(accumulate(part.duration_s for part in parts))
        areas = [part.duration_s * (part.begin + part.end) / 2 for part in parts]
        self._areas = list(accumulate(areas))
        self.duration_s = self._ends_s[-1]
        self.mean = self._areas[-1] / self.duration_s

    def level(self, at_s: float) -> float:
        """The level at a time after the start; 0 before the start and from the end on."""
        if not 0 <= at_s < self.duration_s:
            return 0.0
        index = bisect_right(self._ends_s, at_s)
        part = self.parts[index]
        since_s = at_s - (self._ends_s[index] - part.duration_s)
        return part.begin + (part.end - part.begin) * since_s / part.duration_s

    def when(self, expected: float) -> float | None:
        """The time at which so many operations are expected to have arrived; None: never."""
        index = bisect_right(self._areas, expected)
        if index == len(self.parts):
            return None
        part = self.parts[index]
        rest = expected - (self._areas[index - 1] if index else 0.0)
        # begin*t + slope*t*t/2 = rest, in the form that is also exact for a slope of 0.
        slope = (part.end - part.begin) / part.duration_s
        root = math.sqrt(max(part.begin**2 + 2 * slope * rest, 0.0))
        since_s = 2 * rest / (part.begin + root) if rest else 0.0
        return self._ends_s[index] - part.duration_s + min(since_s, part.duration_s)


def parse_shape(text: str) -> Shape:
    """Parse a shape. Raises BadShape."""
    kind, _, rest = text.strip().partition(":")
    levels, _, times = rest.partition("/")
    try:
        parts = _PARSERS[kind](levels, times)
    except BadQuantity as error:
        raise BadShape(f"shape {quoted(text)}: {error}; {HOW}") from None
    except (KeyError, ValueError):
        raise BadShape(f"no shape {quoted(text)}: {HOW}") from None
    if len(parts) > MAX_PARTS:
        raise BadShape(f"shape {text[:40]!r}... has {len(parts)} parts: at most {MAX_PARTS:,}")
    if any(not 0 < part.duration_s <= MAX_DURATION_S for part in parts):
        raise BadShape(
            f"shape {text!r}: a time must be more than 0, at most {MAX_DURATION_S:,.0f} s"
        )
    highest = max(max(part.begin, part.end) for part in parts)
    if not 0 < highest <= MAX_LEVEL:
        raise BadShape(
            f"shape {text!r}: its highest level must be more than 0, at most {MAX_LEVEL:,.0f}"
        )
    return Shape(parts)


def _ramp(levels: str, times: str) -> list[Part]:
    begin, end = map(_level, levels.split("-"))
    return [Part(_seconds(times), begin, end)]


def _steps(levels: str, times: str) -> list[Part]:
    duration_s = _seconds(times)
    return [Part(duration_s, level, level) for level in map(_level, levels.split(","))]


def _spike(levels: str, times: str) -> list[Part]:
    base, peak = map(_level, levels.split(","))
    before_s, peak_s, after_s = map(_seconds, times.split(","))
    return [Part(before_s, base, base), Part(peak_s, peak, peak), Part(after_s, base, base)]


_PARSERS = {"ramp": _ramp, "steps": _steps, "spike": _spike}


def _level(text: str) -> float:
    return read_number(text.strip(), Bounds(0, MAX_LEVEL))


def _seconds(text: str) -> float:
    text = text.strip()
    return read_duration(f"{text}s" if text[-1:].isdecimal() else text, ABOVE_ZERO_S)
