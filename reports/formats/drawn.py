"""A chart for the page: the drawing, and its numbers as text."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from reports.data import compare

if TYPE_CHECKING:
    import pandas as pd

    from reports.charts.view import ChartView


CELL = 10
"""Characters around a number in a table."""


@dataclass(frozen=True)
class Figure:
    """A chart on the page; ``plot``: its values for `explore.js`, in which nothing ends a script
    element; ``rows``: its numbers under ``columns``. Both only if the page has room."""

    view: ChartView
    svg: Markup
    plot: Markup
    columns: list[str]
    rows: list[list[str]]

    @property
    def size(self) -> int:
        """About how many characters it takes on the page."""
        numbers = sum(len(cell) + CELL for row in self.rows for cell in row)
        return len(self.svg) + len(self.plot) + numbers


def figure(view: ChartView, *, numbers: bool, explored: bool = True) -> Figure:
    """The chart, with its numbers if wanted, and with its values if it can be ``explored``."""
    columns, rows = _numbers(view.data, view.shares) if numbers else ([], [])
    plot = (view.plot() or "") if explored else ""
    return Figure(view, Markup(view.inline()), Markup(plot.replace("<", "\\u003c")), columns, rows)


def _numbers(data: pd.DataFrame, shares: Collection[str]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            compare.ratio(value) if name in shares else plain(value)
            for name, value in zip(data, row, strict=True)
        ]
        for row in data.itertuples(index=False)
    ]
    return [column_words(str(column)) for column in data.columns], rows


_UNITS = ("ms", "s")
_NAMES = {
    "t_s": "s after the load began",
    "ok_per_s": "served op/s",
    "served_per_s": "served op/s",
    "within_1s": "within 1 s",
    "per_ok_operation": "per ok operation",
}


def column_words(name: str) -> str:
    """The heading of a table column: ``latency p50, ms`` for ``latency_ms_p50``."""
    if name in _NAMES:
        return _NAMES[name]
    words = name.split("_")
    unit = next((word for word in words[1:] if word in _UNITS), None)
    if unit:
        words.remove(unit)
    return " ".join(words) + (f", {unit}" if unit else "")


def plain(value: Any) -> str:
    """A table cell as text; a dash if missing."""
    if value is None or value != value or str(value) in ("", "None", "NaT"):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
