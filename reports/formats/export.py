"""The numbers as CSV and the charts as PNG and SVG, for papers, spreadsheets and slides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.record.files import write_whole
from reports.data import compare
from reports.data.metrics import RunTables
from reports.data.tables import combine

if TYPE_CHECKING:
    from reports.charts.view import ChartView

TABLES = ("runs", "windows", "faults", "verdicts", "nodes", "operations")


def write_csv(runs: Sequence[tuple[str, RunTables]], folder: Path) -> list[Path]:
    """Write the tables of `reports.data.tables.Tables` (``runs.csv`` ...) and the numbers of each
    chart as ``<run or experiment>-<chart>.csv``. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = combine(runs)
    written = []
    for name in TABLES:
        path = folder / f"{name}.csv"
        getattr(tables, name).to_csv(path, index=False)
        written.append(path)
    for name, view in _views(runs):
        path = folder / f"{name}.csv"
        view.data.to_csv(path, index=False)
        written.append(path)
    return written


def write_charts(runs: Sequence[tuple[str, RunTables]], folder: Path) -> list[Path]:
    """Write each chart as ``<run or experiment>-<chart>.png`` and ``.svg``. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, view in _views(runs):
        image, drawing = (folder / f"{name}.{suffix}" for suffix in ("png", "svg"))
        write_whole(image, view.png())
        write_whole(drawing, view.svg().encode())
        written += [image, drawing]
    return written


def _views(runs: Sequence[tuple[str, RunTables]]) -> Iterator[tuple[str, ChartView]]:
    """All charts of the page, each with the name of its files: of runs, then of the comparison."""
    from reports.charts import cap_map, charts, side_by_side

    for name, run in runs:
        for view in charts.charts(run):
            yield f"{file_name(name)}-{file_name(view.name)}", view
    grid = compare.matrix([run.summary for _, run in runs])
    styles = side_by_side.style_of(grid.protocols)
    if len(grid.cells) > 1 and (cap := cap_map.cap_map(grid, styles)) is not None:
        yield file_name(cap.name), cap
    tables = {id(run.summary): run for _, run in runs}
    for name in grid.experiments:
        for view in side_by_side.charts(side_by_side.group_of(grid, name, tables), styles):
            yield f"{file_name(name)}-{file_name(view.name)}", view


def file_name(text: str) -> str:
    """``text`` as part of a file name: only letters, digits, dots, dashes and underscores, and
    short enough for a file system."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip(".-")[:100] or "run"
