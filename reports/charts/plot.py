"""The values of a drawing, for the interactive chart that the page makes of it (`explore.js`)."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from reports.charts.drawing import Axis, Drawing, Series


def as_json(drawing: Drawing) -> str | None:
    """The values as JSON; None if the drawing has no lines, marks or areas.

    ``x``: kind, title, lowest and highest value of the axis; ``y``: the same, or the names of rows;
    ``bands``: begin, end, label; ``at``: the xs, if all series have the same, else each has its
    own. Shares are rounded down: no loss becomes none.
    """
    if not drawing.series:
        return None
    shared = all(each.xs == drawing.series[0].xs for each in drawing.series)
    values: dict[str, Any] = {
        "x": _axis(drawing.x),
        "y": _axis(drawing.y) if isinstance(drawing.y, Axis) else list(drawing.y),
        "bands": [[_short(begin), _short(end), label] for begin, end, label in drawing.bands],
        "series": [_series(each, shared=shared) for each in drawing.series],
    }
    if shared:
        values["at"] = [_place(x) for x in drawing.series[0].xs]
    return msgspec.json.encode(values).decode()


def _axis(axis: Axis) -> list[Any]:
    return [axis.kind, axis.title, _short(axis.low), _short(axis.high)]


def _series(each: Series, *, shared: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": each.name,
        "colour": each.style.colour,
        "dash": each.style.dash,
        "how": each.how,
        "ys": [_short(y) for y in each.ys],
    }
    if not shared:
        found["xs"] = [_place(x) for x in each.xs]
    return found


def _place(x: float) -> float | int:
    x = round(float(x), 5)
    return int(x) if x == int(x) else x


def _short(value: float) -> float | int | None:
    """Four digits: more than a screen shows."""
    if math.isnan(value) or math.isinf(value):
        return None
    if 0 < value < 1:
        return max(math.floor(value * 1e4 + 1e-9) / 1e4, 1e-4)
    short = float(f"{value:.4g}")
    return int(short) if short == int(short) else short
