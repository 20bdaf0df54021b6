"""Anomalies as they are told: transactions, edges and words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.checkers.transactions.cycles import Step
from bench.checkers.transactions.findings import Finding
from bench.checkers.transactions.graph import PROCESS, REALTIME, RW, WR, WW, Graph
from bench.checkers.transactions.levels import refuted_by
from bench.record.columns import NEVER, OUTCOMES, Int32s
from bench.record.printable import printable
from bench.record.transactions.columns import Transactions
from bench.record.transactions.verdict import Anomaly, Edge, EdgeKind, Level, Operation, Vertex
from bench.record.witness import shown
from nodes.contract.replica import Value

_KIND_NAMES: dict[int, EdgeKind] = {
    WW: "ww",
    WR: "wr",
    RW: "rw",
    PROCESS: "process",
    REALTIME: "realtime",
}


def anomaly_of_cycle(
    graph: Graph,
    name: str,
    cycle: list[Step],
    asked: tuple[Level, ...],
    told_by: Callable[[int, int], list[int]],
    others: Sequence[int] = (),
) -> Anomaly:
    """A cycle: each transaction comes before the next one, and the last before the first. Behind
    them those whose reads tell the order of two writes (``told_by``), and ``others``."""
    t = graph.transactions
    order = [step.source for step in cycle]
    told: dict[int, list[int]] = {}
    for place, step in enumerate(cycle):
        rows = told_by(*step[3:]) if step.kind == WW else []
        if rows:
            told[place] = rows
            order += [graph.owner(row) for row in rows]
    order = list(dict.fromkeys([*order, *others]))
    vertices = [_vertex(t, number) for number in order]
    edges = []
    for place, step in enumerate(cycle):
        before, after = _values(t, step)
        row = max(step.source_row, step.target_row)
        edges.append(
            Edge(
                source=order.index(step.source),
                target=order.index(step.target),
                kind=_KIND_NAMES[step.kind],
                key=t.keys[t.key[row]] if row >= 0 else None,
                before=before,
                after=after,
                told_by=order.index(graph.owner(told[place][0])) if place in told else None,
            )
        )
    words = [_sentence(vertices, edge) for edge in edges]
    told_rows = dict.fromkeys(row for rows in told.values() for row in rows)
    words += [f"T{int(t.id[graph.owner(row)])} {_deed(t.operation(row))}" for row in told_rows]
    words.append(f"so T{vertices[0].id} comes before itself: {name}")
    return Anomaly(
        name=name,
        refutes=[level for level in refuted_by(name) if level in asked],
        count=None,
        transactions=vertices,
        edges=edges,
        words=words,
    )


def anomaly_of_finding(
    t: Transactions, owner: Int32s, name: str, finding: Finding, asked: tuple[Level, ...]
) -> Anomaly:
    """Operations that contradict each other."""
    involved = list(dict.fromkeys([*(int(owner[row]) for row in finding.rows), *finding.others]))
    told = [
        f"T{int(t.id[owner[row]])} {_deed(t.operation(row))}" for row in dict.fromkeys(finding.rows)
    ]
    return Anomaly(
        name=name,
        refutes=[level for level in refuted_by(name) if level in asked],
        count=finding.count,
        transactions=[_vertex(t, number) for number in involved],
        edges=[],
        words=[*told, f"{finding.words}: {name}"],
    )


def _vertex(t: Transactions, number: int) -> Vertex:
    completed = int(t.completed[number])
    return Vertex(
        id=int(t.id[number]),
        process=t.processes[t.process[number]],
        outcome=OUTCOMES[t.outcome[number]],
        invoked_ns=t.times.of_history(int(t.invoked[number])),
        completed_ns=None if completed == NEVER else t.times.of_history(completed),
        operations=t.operations(number),
    )


def _values(t: Transactions, step: Step) -> tuple[Value | list[Value], Value | list[Value]]:
    """What was there before, and what came of it."""
    if step.source_row < 0 or step.target_row < 0:
        return None, None
    source, target = t.operation(step.source_row)[2], t.operation(step.target_row)[2]
    return (None, target) if step.kind == WR else (source, target)


def _deed(operation: Operation) -> str:
    name, key, value = operation
    done = {"append": "appended", "write": "wrote", "read": "read"}[name]
    if name == "append":
        return f"{done} {shown(value)} to {printable(key)}"
    return f"{done} {printable(key)}={shown(value)}"


def _sentence(vertices: list[Vertex], edge: Edge) -> str:
    one, two = vertices[edge.source], vertices[edge.target]
    key = printable(edge.key or "")
    if edge.kind == "wr":
        return f"T{two.id} read {key}={shown(edge.after)}, which T{one.id} wrote"
    if edge.kind == "ww":
        before, after = shown(edge.before), shown(edge.after)
        return f"T{two.id} wrote {after} to {key} after T{one.id} had written {before}"
    if edge.kind == "rw":
        return (
            f"T{one.id} read {key}={shown(edge.before)}, without {shown(edge.after)}, which "
            f"T{two.id} wrote"
        )
    if edge.kind == "process":
        return f"T{two.id} came after T{one.id} in process {printable(one.process)}"
    return f"T{two.id} began after T{one.id} had ended"
