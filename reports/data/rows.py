"""The windows, faults and checks of a run as rows of text, for the page.

Shares are rounded down, so that 1 means all. Times that exceed the service time, or outlast the
load, are given in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.record.quantities import format_share
from reports.data import compare
from reports.data.summary import cut

if TYPE_CHECKING:
    import pandas as pd

    from reports.data.metrics import RunTables


def window_rows(run: RunTables) -> list[list[str]]:
    """Rows with the columns of `RunTables.windows`."""
    return _rows(run, run.windows)


def fault_rows(run: RunTables) -> list[list[str]]:
    """Rows with the columns of `RunTables.faults`."""
    return _rows(run, run.faults)


MOST_LETTERS = 500
CHECK_COLUMNS = ("check", "model", "verdict", "algorithm", "operations", "took, s", "summary")


def check_rows(run: RunTables) -> list[list[Any]]:
    """Rows of `RunTables.verdicts`, under `CHECK_COLUMNS`. A check may be of no model; verdict.json
    has what it found at full length."""
    rows = run.verdicts.assign(summary=run.verdicts["summary"].map(_short)).to_dict("records")
    return [["" if value == "none" else value for value in row.values()] for row in rows]


def _short(text: str) -> str:
    return cut(text, MOST_LETTERS)


def _rows(run: RunTables, table: pd.DataFrame) -> list[list[str]]:
    bound_ms = run.summary.service_s * 1e3
    open_ended = "unknown" if "during" in run.summary.cut_windows else "not back"
    words: dict[str, Callable[[float], str]] = {
        "availability": format_share,
        "within_1s": format_share,
        "latency_ms_p50": lambda value: _latency(value, bound_ms),
        "latency_ms_p99": lambda value: _latency(value, bound_ms),
        "back_in_s": lambda value: open_ended if math.isinf(value) else _number(value),
    }
    return [
        [_cell(value, words.get(str(name), _number)) for name, value in row.items()]
        for row in table.to_dict("records")
    ]


def _cell(value: Any, in_words: Callable[[float], str]) -> str:
    if value is None or value != value:
        return "–"
    return in_words(value) if isinstance(value, int | float) else str(value) or "–"


def _number(value: float) -> str:
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _latency(value: float, bound_ms: float) -> str:
    return compare.milliseconds(value, bound_ms) if math.isinf(value) else _number(value)
