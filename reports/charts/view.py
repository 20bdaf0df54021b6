"""What all charts share."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from reports.charts.drawing import Axis, Drawing, Style
from reports.charts.plot import as_json
from reports.data.metrics import RunTables

LONG_NAMES = 190
"""Pixels for row names longer than a node's id."""


LEAST_MS = 0.01


OUTCOMES = {
    "ok": Style("blue"),
    "fail": Style("orange", 1, "square"),
    "info": Style("purple", 2, "cross"),
}


def log_ms(values: pd.Series[float]) -> Axis:
    """An axis for latencies."""
    known = values.dropna().clip(lower=LEAST_MS)
    low, high = (known.min(), known.max()) if len(known) else (1.0, 10.0)
    return Axis(low, high, "ms, logarithmic", "log")


@dataclass(frozen=True)
class ChartView:
    """A chart with its texts and numbers. ``how``: one sentence on how to read it. ``note``: what
    was binned or sampled. ``data``: the numbers, in few enough rows to read; ``shares``: the
    columns that are shares."""

    name: str
    title: str
    how: str
    note: str
    chart: Drawing
    data: pd.DataFrame
    shares: tuple[str, ...] = ()

    def inline(self) -> str:
        """The chart for the page, in the colours of its theme."""
        return self.chart.inline(self.title)

    def plot(self) -> str | None:
        """The values for the interactive chart, as JSON; None if it has none."""
        return as_json(self.chart)

    def svg(self) -> str:
        """The chart as an SVG document, in the light theme's colours."""
        return self.chart.document(self.title)

    def png(self, scale: float = 2.0) -> bytes:
        """The chart as a PNG."""
        return self.chart.png(self.title, scale)


def simulated(run: RunTables) -> str:
    """The end of a title, if the run is simulated."""
    return " (simulated)" if run.manifest.simulated else ""
