"""A comparison in Markdown, for the summary of a CI job or a pull request.

Keys, values and names come from outside, so they are all escaped: HTML and Markdown in them have no
effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bench.record.printable import escaped
from reports.data import choose, compare, cost, repeats
from reports.data.cases import RunCases
from reports.data.summary import RunSummary

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~!])")
_ENDINGS = {"broken": "missed", "unknown": "unknown", "not measured": "not measured"}


def markdown(runs: Sequence[RunCases], title: str = "Replication protocols compared") -> str:
    """The document: the verdicts as a table, their meaning in sentences, missed objectives, and
    missing data."""
    summaries = [run.summary for run in runs]
    grid = compare.matrix(summaries)
    head = ["protocol", "claims", *(escape(name) for name in grid.experiments)]
    rows = []
    for protocol in grid.protocols:
        row = grid.row(protocol)
        cells = [grid.cells.get((protocol, experiment)) for experiment in grid.experiments]
        rows.append([f"**{escape(protocol)}**", escape(row[0].claim), *map(_cell, cells)])
    lines = [f"## {escape(title)}", "", escape(compare.heading(summaries)), ""]
    lines += table(head, rows)
    lines += ["", escape(f"{compare.COLUMNS}. {compare.LEGEND}."), ""]
    lines += [f"- {escape(choice.words)}" for choice in choose.choices(grid)]
    for protocol in grid.protocols:
        lines.append(f"- **{escape(protocol)}** {escape(compare.plain_line(grid.row(protocol)))}")
    if grid.plans:
        lines.append("")
    lines += [*(f"- no repeats of each other: {escape(text)}" for text in grid.plans)]
    lines += _costs(grid)
    lines += _repeats(summaries)
    notes = [(cell, note) for cell in grid.cells.values() if (note := cell.note())]
    if notes:
        lines += ["", "### Notes on single cells", ""]
        lines += [f"- {escape(f'{c.experiment}, {c.protocol}: {note}')}" for c, note in notes]
    lines += _objectives(runs)
    return "\n".join(lines) + "\n"


def _cell(cell: compare.Cell | None) -> str:
    """The verdict in words, then rate, availability during the fault, and the measured model."""
    if cell is None:
        return "–"
    word = escape(cell.word)
    parts = [word if cell.verdict == "valid" else f"**{word}**"]
    parts.append(f"measured {escape(compare.MODEL_WORDS.get(cell.measured, cell.measured))}")
    simulated = " (simulated)" if cell.simulated else ""
    parts.append(f"{compare.per_second(cell.rate)} op/s{simulated}")
    if cell.has_fault:
        parts.append(f"available {compare.ratio(cell.figure('availability.during'))}")
        if cell.has_sides:
            sides = [
                compare.ratio(cell.figure(f"availability.{side}"))
                for side in ("majority", "minority")
            ]
            parts.append(f"majority {sides[0]}, minority {sides[1]}")
        parts.append(cell.back_words)
    parts.append(f"p99 {escape(cell.latency('p99'))}")
    return "<br>".join(parts)


def _costs(grid: compare.Matrix) -> list[str]:
    """What was counted of the nodes, a table for all cells."""
    cells = list(grid.cells.values())
    columns = cost.counted(cells)
    if not columns:
        return []
    head = ["experiment", "protocol", *(column.name for column in columns)]
    rows = [
        [escape(text) for text in (cell.experiment, cell.protocol, *cost.row(cell, columns))]
        for cell in cells
    ]
    return ["", "### Costs", "", f"{cost.EXPLAINED.capitalize()}.", "", *table(head, rows)]


def _repeats(summaries: Sequence[RunSummary]) -> list[str]:
    repeated = [
        [escape(cell) for cell in (one.column, one.row, *map(str, row))]
        for one in repeats.repeats(summaries)
        for row in repeats.rows(one)
    ]
    if not repeated:
        return []
    head = ["experiment", "protocol", "figure", "n", "median", "mean", "95% interval of the mean"]
    return ["", "### Repeats", "", *table(head, repeated)]


def _objectives(runs: Sequence[RunCases]) -> list[str]:
    cases = [(run, case) for run in runs for case in run.cases if case.name.startswith("objective")]
    if not cases:
        return []
    kept = sum(case.ending == "kept" for _, case in cases)
    lines = ["", "### Objectives", "", f"{kept} of {len(cases)} met."]
    rest = [
        f"- **{_ENDINGS[case.ending]}** {escape(run.name)}: {escape(case.evidence)}"
        for run, case in cases
        if case.ending != "kept"
    ]
    return [*lines, "", *rest] if rest else lines


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table of escaped cells."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def escape(text: str) -> str:
    """``text`` on one line, escaped so that Markdown shows it literally."""
    flat = escaped(" ".join(text.split()))
    shown = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", shown)
