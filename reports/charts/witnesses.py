"""What contradicts a model, drawn: operations as intervals, transactions as a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench.record.models.verdict import ModelCheck
from bench.record.printable import printable
from bench.record.transactions.verdict import Anomaly, TransactionsCheck
from bench.record.verdict import WorkloadCheck
from bench.record.witness import Line, shown
from reports.charts.drawing import Axis, Drawing, Style
from reports.charts.graph import Graph
from reports.charts.view import LONG_NAMES, OUTCOMES, ChartView
from reports.data.metrics import RunTables
from reports.data.summary import cut, explained_check, witness_of

MOST_OPERATIONS = 40
"""Of a model's witness that are drawn."""
VERY_SHORT = "Very short operations are drawn wider than they are."


def witnesses(run: RunTables) -> Iterator[ChartView]:
    """That of the check which is explained, and that of the workload's kind."""
    lines = witness_of(run.verdict)
    if lines:
        names = [f"{line.operation.process} → {line.operation.node or '?'}" for line in lines]
        check = explained_check(run.verdict)
        yield _intervals(
            run,
            lines,
            names,
            name="witness",
            title="The witness, drawn",
            how="Each row is one operation from its start to its end, in order: "
            + (
                "at the end, the nodes must agree and hold what was acknowledged."
                if check is not None and check.model == "eventual"
                else "no single order of all of them explains what they returned."
            ),
            note=VERY_SHORT,
        )
    for check in run.verdict.checks if run.verdict else ():
        if isinstance(check, WorkloadCheck) and check.verdict == "invalid":
            if check.details.model is not None:
                yield _of_model(run, check.details.model)
            if check.details.transactions is not None:
                yield from _of_transactions(check.details.transactions)


def _of_model(run: RunTables, check: ModelCheck) -> ChartView:
    lines = check.witness[:MOST_OPERATIONS]
    more = len(check.witness) - len(lines)
    return _intervals(
        run,
        lines,
        [line.operation.process for line in lines],
        name="workload-witness",
        title=f"What contradicts a {check.model}",
        how=f"{cut(check.summary, 300)}. Each row is one operation from its start to its end.",
        note=f"{VERY_SHORT}{f' {more} more are not drawn.' if more else ''}",
    )


def _of_transactions(check: TransactionsCheck) -> Iterator[ChartView]:
    """The first anomaly that the level forbids and that is a graph."""
    forbidden = [each for each in check.anomalies if check.level in each.refutes]
    for anomaly in [each for each in forbidden if each.edges][:1]:
        yield ChartView(
            name="workload-witness",
            title=f"What contradicts {check.level}: {anomaly.name}",
            how=f"{cut('; '.join(anomaly.words), 400)}. An arrow says which transaction comes "
            "before which, by what key and values: ww, the one wrote over (or behind) what the "
            "other wrote; wr, it read it; rw, it read what the other then changed. No order has "
            "all arrows forwards.",
            note="",
            chart=Graph(anomaly),
            data=_edges(anomaly),
        )


def _edges(anomaly: Anomaly) -> pd.DataFrame:
    ids = [vertex.id for vertex in anomaly.transactions]
    return pd.DataFrame(
        [
            {
                "from": f"T{ids[edge.source]}",
                "edge": edge.kind,
                "to": f"T{ids[edge.target]}",
                "key": "" if edge.key is None else printable(edge.key),
                "before": "" if edge.key is None or edge.kind == "wr" else shown(edge.before),
                "after": "" if edge.key is None else shown(edge.after),
            }
            for edge in anomaly.edges
        ]
    )


def _intervals(
    run: RunTables,
    lines: Sequence[Line],
    names: Sequence[str],
    *,
    name: str,
    title: str,
    how: str,
    note: str,
) -> ChartView:
    """Operations as intervals, one per row, by invocation."""
    stamps = [line.operation.invoked_ns for line in lines]
    ends = [line.operation.completed_ns for line in lines]
    first, last = min(stamps), max([*stamps, *(end for end in ends if end is not None)])
    unit_ns, unit = (1e9, "s") if last - first > 2e9 else (1e6, "ms")
    span = max((last - first) / unit_ns, 1e-3)
    margin = span * 0.05
    rows: list[dict[str, Any]] = []
    for number, (line, who) in enumerate(zip(lines, names, strict=True), 1):
        record = line.operation
        ended_ns = record.completed_ns
        rows.append(
            {
                "row": f"{number}. {who}",
                "operation": cut(line.role, 90),
                f"begin_{unit}": (record.invoked_ns - first) / unit_ns,
                f"end_{unit}": span + margin if ended_ns is None else (ended_ns - first) / unit_ns,
                "outcome": "open" if ended_ns is None else record.outcome,
            }
        )
    data = pd.DataFrame(rows)
    axis = f"{unit} after the first began, {run.seconds(first):.3f} s into the load"
    # A row for text, then a row with the bar: an empty name above each bar.
    labels = [label for row in data["row"] for label in ("", cut(row, 28))]
    drawing = Drawing(Axis(-margin, span + margin, axis), labels, left=LONG_NAMES)
    for number, row in enumerate(rows):
        begin, end = row[f"begin_{unit}"], row[f"end_{unit}"]
        style = OUTCOMES.get(row["outcome"], Style("grey"))
        # Operations a thousand times shorter than the whole chart must stay visible.
        drawing.bar(2 * number + 1, begin, end, style.colour, thickness=10, least=3)
        at_end = begin > span * 0.5
        words = cut(row["operation"], 80)
        drawing.note(2 * number, end if at_end else begin, words, end=at_end, dy=10)
    return ChartView(name=name, title=title, how=how, note=note, chart=drawing, data=data.round(6))
