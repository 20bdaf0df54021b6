"""Quantities as people write them: the only parser of durations, rates, sizes and numbers.

A parser returns a finite number within its bounds, or raises BadQuantity with one line that says
what is valid. Infinities, NaN and numbers out of bounds get no further than this module. Values
that are numbers already (defaults, JSON) must keep the same bounds.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from bench.record.printable import quoted
from nodes.errors import InvalidInput

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
UNITS_BYTES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
MAX_DURATION_S = 1e7
MAX_RATE_PER_S = 1e6
MAX_COUNT = 2**63 - 1
"""The largest integer that all our formats can hold."""


# Of bounded length: Python reads hundreds of digits as infinity.
_COUNT = re.compile(r"[+-]?\d{1,30}", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?(e[+-]?\d{1,3})?", re.ASCII)
_WITH_UNIT = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)([a-zA-Z/]+)", re.ASCII)


class BadQuantity(InvalidInput):
    """An invalid quantity. One line that says what is valid."""


class Bounds(NamedTuple):
    """``least`` to ``most``; ``least`` itself is out of bounds if ``excluded``."""

    least: float
    most: float
    excluded: bool = False

    def hold(self, number: float) -> bool:
        """Whether the number is within bounds. Infinity and NaN never are."""
        # A comparison with NaN is False.
        return self.least <= number <= self.most and not (self.excluded and number == self.least)

    def in_words(self, unit: str = "") -> str:
        """``1 to 15``, ``more than 0s, at most 60s``."""
        least, most = f"{_short(self.least)}{unit}", f"{_short(self.most)}{unit}"
        return f"more than {least}, at most {most}" if self.excluded else f"{least} to {most}"


ABOVE_ZERO_S = Bounds(0, MAX_DURATION_S, excluded=True)
FROM_ZERO_S = Bounds(0, MAX_DURATION_S)


def read_duration(value: Any, bounds: Bounds = FROM_ZERO_S) -> float:
    """``10s``, ``200ms``, ``1.5m``, ``2h`` in seconds. Raises BadQuantity."""
    text, unit = _split(value)
    if unit not in UNITS_S:
        raise BadQuantity(
            f"{quoted(value)} is not a duration; use a number with a unit: 10s, 200ms, 1m"
        )
    seconds = float(text) * UNITS_S[unit]
    if not bounds.hold(seconds):
        raise BadQuantity(f"{quoted(value)} is out of bounds: use {bounds.in_words('s')}")
    return seconds


def read_rate(value: Any) -> float:
    """``300/s`` in operations per second, more than 0. Raises BadQuantity."""
    text, unit = _split(value)
    if unit != "/s" or not (math.isfinite(float(text)) and float(text) > 0):
        raise BadQuantity(f"{quoted(value)} is not a rate; use operations per second: 300/s")
    return float(text)


def read_bytes(value: Any) -> int:
    """``500M``, ``4G`` in bytes, at least one. Raises BadQuantity."""
    text, unit = _split(value)
    if unit not in UNITS_BYTES or not Bounds(1, MAX_COUNT).hold(float(text) * UNITS_BYTES[unit]):
        raise BadQuantity(f"{quoted(value)} is not a size; use a number with a unit: 500M, 4G")
    return int(float(text) * UNITS_BYTES[unit])


def read_number(value: Any, bounds: Bounds) -> float:
    """``0.5``, ``60``, ``1e3``. Raises BadQuantity."""
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = value if -(2**64) < value < 2**64 else math.inf
    elif isinstance(value, str) and _NUMBER.fullmatch(value):
        number = float(value)
    if not bounds.hold(number):
        raise BadQuantity(f"{quoted(value)}: use {bounds.in_words()}")
    return float(number)


def read_count(value: Any, bounds: Bounds) -> int:
    """A whole number. Raises BadQuantity."""
    number = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and _COUNT.fullmatch(value):
        number = int(value)
    if number is None:
        raise BadQuantity(f"{quoted(value)} is not a whole number; use {bounds.in_words()}")
    if not bounds.least <= number <= bounds.most:
        raise BadQuantity(f"{quoted(value)}: use {bounds.in_words()}")
    return number


def format_duration(seconds: float) -> str:
    """The way `read_duration` reads it: ``10s``, ``0.2s`` as ``200ms``."""
    if seconds and seconds < 1:
        return f"{_plain(seconds * 1000)}ms"
    return f"{_plain(seconds)}s"


def format_rate(per_s: float) -> str:
    """The way `read_rate` reads it."""
    return f"{_plain(per_s)}/s"


def format_share(share: float) -> str:
    """A share, 0..1, for people: three digits, rounded down, so that 1.000 means all and 0.000
    nothing (``<0.001``: little). CSV and JSON have the exact number."""
    if 0 < share < 0.001:
        return "<0.001"
    return f"{math.floor(share * 1000 + 1e-9) / 1000:.3f}"


def plural(count: int, what: str) -> str:
    """``3 elements``, ``1 element``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _split(value: Any) -> tuple[str, str]:
    """A number and its unit; the unit is empty if the text is not a quantity."""
    found = _WITH_UNIT.fullmatch(value) if isinstance(value, str) else None
    return (found[1], found[2]) if found else ("0", "")


def _plain(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _short(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:g}"
