"""The numbers as CSV and the charts as PNG and SVG, for papers, spreadsheets and slides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench.record.files import write_whole
from reports.data.metrics import RunTables
from reports.data.tables import combine

TABLES = ("runs", "windows", "faults", "verdicts", "nodes", "operations")


def write_csv(runs: Sequence[tuple[str, RunTables]], folder: Path) -> list[Path]:
    """Write the tables of `reports.data.tables.Tables` (``runs.csv`` ...) and the numbers of each
    chart as ``<run>-<chart>.csv``. Returns the files."""
    from reports.charts.charts import charts

    folder.mkdir(parents=True, exist_ok=True)
    tables = combine(runs)
    written = []
    for name in TABLES:
        path = folder / f"{name}.csv"
        getattr(tables, name).to_csv(path, index=False)
        written.append(path)
    for name, run in runs:
        for view in charts(run):
            path = folder / f"{file_name(name)}-{file_name(view.name)}.csv"
            view.data.to_csv(path, index=False)
            written.append(path)
    return written


def write_charts(runs: Sequence[tuple[str, RunTables]], folder: Path) -> list[Path]:
    """Write each chart as ``<run>-<chart>.png`` and ``.svg``. Returns the files."""
    from reports.charts.charts import charts

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, run in runs:
        for view in charts(run):
            path = folder / f"{file_name(name)}-{file_name(view.name)}.png"
            write_whole(path, view.png())
            write_whole(path.with_suffix(".svg"), view.svg().encode())
            written += [path, path.with_suffix(".svg")]
    return written


def file_name(text: str) -> str:
    """``text`` as part of a file name: only letters, digits, dots, dashes and underscores, and
    short enough for a file system."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip(".-")[:100] or "run"
