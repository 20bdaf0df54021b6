"""From a graph of dependencies to levels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from bench.checkers.budget import Budget, OverBudget
from bench.checkers.transactions.cycles import Search, Step
from bench.checkers.transactions.findings import Findings
from bench.checkers.transactions.graph import (
    PROCESS,
    REALTIME,
    WR,
    WW,
    Edges,
    Graph,
    joined,
    on_cycles,
    without_two_rw,
)
from bench.checkers.transactions.levels import LEVELS, refuted_by, strongest
from bench.checkers.transactions.unseen import Orders, Undecided
from bench.checkers.transactions.witness import anomaly_of_cycle, anomaly_of_finding
from bench.record.columns import OK, Int32s, Int64s
from bench.record.transactions.columns import Transactions
from bench.record.transactions.verdict import Level, TransactionModel, TransactionsCheck
from bench.record.verdict import VerdictValue

_BYTES_PER_EDGE: Final = 70
"""What the graph needs at its peak."""
_SEARCH_SHARE: Final = 0.2
"""Of the time, for cycles that are smaller than the first."""


def spend(budget: Budget, edges: int) -> None:
    """Raises OverBudget if the time is over, or so many edges are too many."""
    budget.look()
    if edges * _BYTES_PER_EDGE > budget.left_bytes():
        raise OverBudget("memory")


@dataclass(slots=True)
class Judged:
    """``refuted``: levels; ``undecided``: why the others are not known, empty if they are.
    ``told_by``: by the name of a cycle, the rows that tell that one write is before another, where
    it is not the graph that knows. ``others``: further transactions of a cycle's witness.
    ``spared``: anomalies that do not refute read uncommitted, since what they are made of may not
    have been committed."""

    findings: Findings
    refuted: set[Level] = field(default_factory=set)
    undecided: dict[Level, str] = field(default_factory=dict)
    cycles: dict[str, list[Step]] = field(default_factory=dict)
    told_by: dict[str, Callable[[int, int], list[int]]] = field(default_factory=dict)
    others: dict[str, list[int]] = field(default_factory=dict)
    spared: set[str] = field(default_factory=set)

    def refute(self, name: str) -> None:
        """Refute the levels that forbid an anomaly."""
        self.refuted.update(refuted_by(name))

    def refute_by_findings(self) -> None:
        """Refute what the anomalies that are no cycles do."""
        for name in self.findings.by_name:
            self.refute(name)

    def stop(self, asked: Iterable[Level], why: str) -> None:
        """Nothing more is looked for: what is refuted without an example yet is not known."""
        names = [*self.findings.by_name, *self.cycles]
        self.refuted &= {level for name in names for level in refuted_by(name)}
        for level in asked:
            self.undecided.setdefault(level, why)

    def levels(self, asked: tuple[Level, ...]) -> dict[Level, VerdictValue]:
        """The verdict on each level."""
        return {
            level: "invalid"
            if level in self.refuted
            else "unknown"
            if level in self.undecided
            else "valid"
            for level in asked
        }


def check_of(
    graph: Graph,
    owner: Int32s,
    judged: Judged,
    model: TransactionModel,
    level: Level,
    asked: tuple[Level, ...],
    seconds: float,
) -> TransactionsCheck:
    """What is told of a history. ``asked``: the levels of the model."""
    t = graph.transactions
    levels = judged.levels(asked)
    forbidden = tuple(level for level in asked if level in judged.refuted)
    anomalies = [
        anomaly_of_finding(t, owner, name, finding, forbidden)
        for name, finding in judged.findings.by_name.items()
    ]
    anomalies += [
        anomaly_of_cycle(
            graph,
            name,
            cycle,
            forbidden,
            judged.told_by.get(name, graph.order_told_by),
            judged.others.get(name, []),
        )
        for name, cycle in judged.cycles.items()
    ]
    anomalies = [
        msgspec.structs.replace(
            each, refutes=[level for level in each.refutes if level != "read-uncommitted"]
        )
        if each.name in judged.spared
        else each
        for each in anomalies
    ]
    anomalies.sort(key=lambda anomaly: (-len(anomaly.refutes), anomaly.name))
    verdict = levels[level]
    if not (t.outcome == OK).any() and verdict == "valid":
        verdict, levels = "unknown", dict.fromkeys(levels, "unknown")
        summary = "no transaction was committed: nothing is refuted"
    elif verdict == "invalid":
        why = next(anomaly for anomaly in anomalies if level in anomaly.refutes)
        summary = f"not {level}: {why.name}: {'; '.join(why.words)}"
    elif verdict == "unknown":
        summary = f"{level} is not decided: {judged.undecided[level]}"
    else:
        summary = f"nothing contradicts {level}"
    return TransactionsCheck(
        verdict=verdict,
        model=model,
        level=level,
        levels=levels,
        strongest=strongest(levels),
        algorithm="dependency graph",
        transactions=len(t),
        operations=len(t.kind),
        seconds=seconds,
        summary=summary,
        anomalies=anomalies,
    )


def judge(
    graph: Graph, findings: Findings, budget: Budget, unordered: Sequence[Int64s] = ()
) -> Judged:
    """Look for cycles, from the strictest level on, in what the stricter one left. ``unordered``:
    writes of one key each, the order of which is not told."""
    judged = Judged(findings)
    judged.refute_by_findings()
    try:
        _cycles(graph, judged, budget)
        if unordered and _is_open(judged):
            _try_orders(graph, judged, budget, unordered)
    except OverBudget as over:
        judged.stop(LEVELS, str(over))
    return judged


def undecided(
    t: Transactions, model: TransactionModel, level: Level, asked: tuple[Level, ...], why: str
) -> TransactionsCheck:
    """What is told where there was not even enough for the graph."""
    return TransactionsCheck(
        verdict="unknown",
        model=model,
        level=level,
        levels=dict.fromkeys(asked, "unknown"),
        strongest=[],
        algorithm="dependency graph",
        transactions=len(t),
        operations=len(t.kind),
        seconds=0.0,
        summary=f"{level} is not decided: {why}",
        anomalies=[],
    )


def _is_open(judged: Judged) -> bool:
    """Whether snapshot isolation is all that is left to decide."""
    return "serializable" in judged.refuted and "snapshot-isolation" not in judged.refuted


def _try_orders(graph: Graph, judged: Judged, budget: Budget, unordered: Sequence[Int64s]) -> None:
    spend(budget, 2 * len(graph.data))
    search = Search(graph, time.monotonic() + _SEARCH_SHARE * budget.left_s())
    orders = Orders(graph, list(unordered), search)
    try:
        if orders.fits():
            return
    except Undecided:
        judged.undecided["snapshot-isolation"] = (
            "writes that nobody saw could be in too many different orders"
        )
        return
    rows = [row for step in orders.refuting for row in step[3:] if row >= 0]
    for step in orders.refuting:
        if step.kind == WW and (step.source_row, step.target_row) not in orders.tried:
            rows += graph.order_told_by(step.source_row, step.target_row)
    judged.findings.note(
        "G-single (any order)",
        list(dict.fromkeys(rows)),
        "in whichever order the writes are that nobody saw, one comes before itself",
    )
    judged.refuted.update(refuted_by("G-single (any order)"))


def _cycles(graph: Graph, judged: Judged, budget: Budget) -> None:
    search = Search(graph, time.monotonic() + _SEARCH_SHARE * budget.left_s())
    try:
        _strictest_first(graph, judged, search, budget)
    finally:
        judged.cycles = _telling(search.found)


def _strictest_first(graph: Graph, judged: Judged, search: Search, budget: Budget) -> None:
    process = graph.process_edges()
    realtime, count = graph.realtime_edges()
    spend(budget, len(graph.data) + len(process) + len(realtime))
    every = joined([graph.data, process, realtime])
    label, inside = on_cycles(count, every)
    if not len(inside):
        return
    judged.refuted.add("strict-serializable")
    data, process = _within(graph.data, label), _within(process, label)
    session_label, session = on_cycles(graph.count, joined([data, process]))
    if len(session):
        judged.refuted.update(("strong-session-serializable", "strict-serializable"))
        _without_sessions(graph, _within(data, session_label), judged, search, budget)
        search.process(_within(data, session_label), _within(process, session_label), session_label)
    search.realtime(data, process, label)
    if not search.found:
        search.anyhow(inside, count, REALTIME)
    if len(session) and not any("realtime" not in name for name in search.found):
        search.anyhow(session, graph.count, PROCESS)
    for name in search.found:
        judged.refuted.update(refuted_by(name))


def _without_sessions(
    graph: Graph, data: Edges, judged: Judged, search: Search, budget: Budget
) -> None:
    label, inside = on_cycles(graph.count, data)
    if not len(inside):
        return
    spend(budget, 2 * len(inside))
    judged.refuted.update(refuted_by("G2-item"))
    written, ww = on_cycles(graph.count, inside.take(inside.kind == WW))
    search.plain(ww, written, WW, (WW,))
    flow, informed = on_cycles(graph.count, inside.take((inside.kind == WW) | (inside.kind == WR)))
    search.plain(informed, flow, WR, (WW, WR))
    if not graph.order_is_told:
        _, read = on_cycles(graph.count, inside.take(inside.kind == WR))
        judged.refute("G1c" if len(read) else "G-single" if len(informed) else "G2-item")
    elif len(informed):
        judged.refute("G0" if len(ww) else "G1c")
    apart, no_two = without_two_rw(graph.count, inside)
    if len(no_two):
        judged.refuted.update(refuted_by("G-single"))
        search.single(no_two, apart)
        search.apart(no_two, apart)
    search.any(inside, label)


def _within(some: Edges, label: Int32s) -> Edges:
    component = label[some.source]
    return some.take((component >= 0) & (component == label[some.target]))


def _telling(found: dict[str, list[Step]]) -> dict[str, list[Step]]:
    """Without variants of what is there without process order or real time."""
    kept = {}
    for name, cycle in found.items():
        base = name.removesuffix("-process").removesuffix("-realtime")
        worse = [base, base + "-process"][: 2 if name.endswith("-realtime") else 1]
        if name == base or not any(other in found for other in worse):
            kept[name] = cycle
    return kept
