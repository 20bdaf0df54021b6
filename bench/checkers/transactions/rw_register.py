"""Transactions of reads and writes of registers: dependencies, and the verdict.

Here no read tells the order of the versions. What is certain of it: the initial value is before all
others; a transaction that read a version before it wrote one put its own behind that; and a version
that a reader knows otherwise is before the one that it read. What contradicts that is refuted. For
the rest an order is proposed, by the times at which versions were seen, and a level that it fits is
not refuted. Where neither holds, nothing is stated: to decide it is NP-hard (Papadimitriou, JACM
26(4), 1979). Read committed, read atomic and causal are decided exactly, see `weak`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from bench.checkers.budget import Budget, OverBudget
from bench.checkers.transactions.anti import before_all
from bench.checkers.transactions.cycles import Search, Step
from bench.checkers.transactions.findings import Findings
from bench.checkers.transactions.graph import (
    PROCESS,
    REALTIME,
    RW,
    WR,
    WW,
    Edges,
    Graph,
    edges,
    joined,
    on_cycles,
    without_two_rw,
)
from bench.checkers.transactions.judge import Judged, check_of, judge, spend, undecided
from bench.checkers.transactions.registers import Registers, registers_of
from bench.checkers.transactions.versions import proposed_orders
from bench.checkers.transactions.weak import (
    Inferred,
    Known,
    TooManySessions,
    causal,
    known_of,
    read_atomic,
    read_committed,
)
from bench.record.columns import NEVER, Int64s
from bench.record.transactions.columns import Transactions
from bench.record.transactions.verdict import WEAKER, Level, TransactionsCheck

LEVELS: Final[tuple[Level, ...]] = tuple(WEAKER)
STRONG: Final[tuple[Level, ...]] = (
    "repeatable-read",
    "snapshot-isolation",
    "serializable",
    "strong-session-serializable",
    "strict-serializable",
)
_SHARE: Final = 0.75
"""Of the time, for the levels whose decision may take for ever; the rest is for the others."""
LEFT_OUT: Final = "keys to which a value was written twice are left out"


def check_rw_register(
    t: Transactions,
    level: Level = "strict-serializable",
    budget_s: float = 60.0,
    memory_bytes: int = 4 << 30,
    clock_error_ns: int = 0,
    *,
    levels: Iterable[Level] = LEVELS,
    initial_state: bool = True,
    writes_follow_reads: bool = True,
    real_time: bool = True,
) -> TransactionsCheck:
    """Which levels a history of reads and writes of registers does not refute.

    ``level``: the one that the verdict is about. ``levels``: those that are looked at, if not all.
    Over the budget of time or memory they are *unknown*. ``clock_error_ns``: transactions that are
    no further apart count as concurrent. ``initial_state``: null is before all that was written;
    ``writes_follow_reads``: what a transaction wrote is behind what it had read of that key;
    ``real_time``: for strict serializability, what was written after another write had ended is
    behind it.

    Raises BadHistory for other operations.
    """
    began = time.perf_counter()
    budget = Budget(budget_s, memory_bytes)
    findings = Findings()
    asked = tuple(each for each in LEVELS if each in {*levels, level})
    weak: list[Level] = [each for each in asked if each in _NAMES]
    judged, graph = Judged(findings), None
    try:
        with budget.watched():
            r = registers_of(t, findings)
            known = known_of(r)
            graph = Graph(t, r.committed, _wr(r), len(t), clock_error_ns)
            if set(weak) != set(asked):
                graph = dependencies(
                    r, known, clock_error_ns, initial=initial_state, follow=writes_follow_reads
                )
                judged = judge(graph, findings, budget)
                if real_time:
                    _note_stale(r, judged, clock_error_ns)
                most = budget.part(_SHARE * budget.left_s())
                if "strong-session-serializable" in _propose(r, graph, judged, most, asked):
                    weak = []  # That order is one for them, too.
            else:
                judged.refute_by_findings()
            for each in weak:
                _weak(r, known, each, judged, budget)
    except OverBudget as over:
        if graph is None:
            return undecided(t, "rw-register", level, asked, str(over))
        judged.stop(asked, str(over))
    if r.left_out:
        for each in asked:
            judged.undecided[each] = LEFT_OUT
    seconds = time.perf_counter() - began
    return check_of(graph, r.owner, judged, "rw-register", level, asked, seconds)


def _wr(r: Registers) -> Edges:
    some = r.source >= 0
    source, reads = r.source[some], r.reads[some]
    return edges(WR, r.owner[source], r.owner[reads], source, reads)


def dependencies(
    r: Registers, known: Known, clock_error: int = 0, *, initial: bool = True, follow: bool = True
) -> Graph:
    """The dependencies that are certain."""
    t, owner = r.transactions, r.owner
    count = len(t)
    parts = [_wr(r)]
    if initial:
        parts += before_all(t, owner, r.reads[r.source == -1], r.finals, count)
        count += 2 * len(t.keys)
    if follow:
        parts += _follow(r, known)
    inferred = [read_committed(known), read_atomic(known, sessions=False)]
    parts += [_behind_source(r, each) for each in inferred]
    told = _teller(inferred)
    return Graph(t, r.committed, joined(parts), count, clock_error, told, order_is_told=False)


def _teller(
    inferred: list[Inferred], path: Callable[[int, int], list[int]] = lambda one, two: []
) -> Callable[[int, int], list[int]]:
    """Finds the read for which one write is before another, and the ``path`` from the write to the
    reader."""

    def told_by(one: int, two: int) -> list[int]:
        for each in inferred:
            found = np.flatnonzero((each.write == one) & (each.source == two))
            if len(found):
                read = int(each.read[found[0]])
                return [read, *path(one, read)]
        return []

    return told_by


def _follow(r: Registers, known: Known) -> list[Edges]:
    """What a transaction wrote is behind what it read: that, and who else read the same comes
    before it."""
    owner = r.owner
    write = known.write_of(r.pair(r.reads))
    order = np.lexsort((owner[r.reads], r.source))
    order = order[(write[order] >= 0) & (r.source[order] >= 0)]
    source = r.source[order]
    parts = [edges(WW, owner[source], owner[write[order]], source, write[order])]
    first = np.searchsorted(source, r.source)
    for place in (first, first + 1):
        there = place < len(source)
        there[there] &= source[place[there]] == r.source[there]
        there &= r.source >= 0
        target = write[order[place[there]]]
        reads = r.reads[there]
        parts.append(edges(RW, owner[reads], owner[target], reads, target))
    return parts


def _behind_source(r: Registers, inferred: Inferred) -> Edges:
    """Writes before the one that was read; what is before the initial value is told elsewhere."""
    some = inferred.source >= 0
    write, source = inferred.write[some], inferred.source[some]
    return edges(WW, r.owner[write], r.owner[source], write, source)


def _note_stale(r: Registers, judged: Judged, clock_error: int) -> None:
    """Reads of what had been overwritten, in real time, before their transaction began."""
    t, owner, key = r.transactions, r.owner, r.transactions.key
    ended = r.finals[t.completed[owner[r.finals]] != NEVER]
    ended = ended[np.lexsort((t.completed[owner[ended]], key[ended]))]
    if len(ended) == 0 or len(r.reads) == 0:
        return
    ends = np.unique(t.completed[owner[ended]])
    size = np.int64(len(ends) + 1)
    code = key[ended] * size + np.searchsorted(ends, t.completed[owner[ended]])
    begins = t.invoked[owner[ended]]
    latest = _running_latest(key[ended], begins)
    asked = key[r.reads] * size + np.searchsorted(ends, t.invoked[owner[r.reads]] - clock_error)
    place = np.searchsorted(code, asked) - 1
    there = place >= 0
    there[there] &= key[ended[place[there]]] == key[r.reads[there]]
    wrote = np.where(
        r.source >= 0, t.completed[owner[np.maximum(r.source, 0)]], np.iinfo(np.int64).min // 2
    )
    wrote = np.where(wrote == NEVER, NEVER - clock_error, wrote) + clock_error
    other = latest[np.maximum(place, 0)]
    stale = np.flatnonzero(there & (wrote < begins[other]))
    if len(stale):
        row, write = int(r.reads[stale[0]]), int(ended[other[stale[0]]])
        reader, writer = int(owner[row]), int(owner[write])
        judged.cycles["G-single-realtime"] = [
            Step(writer, reader, REALTIME, -1, -1),
            Step(reader, writer, RW, row, write),
        ]
        if r.source[stale[0]] >= 0:
            judged.others["G-single-realtime"] = [int(owner[r.source[stale[0]]])]
        judged.refuted.add("strict-serializable")


def _running_latest(key: Int64s, begins: Int64s) -> Int64s:
    """For each place the one up to it, of the same key, with the latest beginning."""
    ranks = np.argsort(np.argsort(begins, kind="stable"), kind="stable")
    size = np.int64(len(key) + 1)
    best = np.maximum.accumulate(key.astype(np.int64) * size + ranks) % size
    place = np.empty(len(key), np.int64)
    place[ranks] = np.arange(len(key))
    found: Int64s = place[best]
    return found


def _propose(
    r: Registers, graph: Graph, judged: Judged, budget: Budget, asked: tuple[Level, ...]
) -> set[Level]:
    """Levels that some order of the versions fits; the others are not decided."""
    open_levels = {each for each in STRONG if each in asked and each not in judged.refuted}
    fitting: set[Level] = set()
    tried, keys = 0, 0
    try:
        for order in proposed_orders(r, graph, budget) if open_levels else ():
            key = r.transactions.key[order]
            tried, keys = tried + 1, len(np.unique(key[1:][key[1:] == key[:-1]]))
            spend(budget, 2 * len(graph.data))
            fitting |= _fitting(r, graph, order)
            if open_levels <= fitting:
                return fitting
        why = (
            f"reads do not tell the order of all writes (keys written several times: {keys}), no "
            f"order that was tried ({tried}) explains all reads, and no contradiction is certain; "
            "list-append tells the order"
        )
    except OverBudget as over:
        why = str(over)
    for each in open_levels - fitting:
        judged.undecided.setdefault(each, why)
    return fitting


def _fitting(r: Registers, graph: Graph, order: Int64s) -> set[Level]:
    """The levels that an order of the versions fits. ``order``: final writes, by key."""
    t, owner = r.transactions, r.owner
    key = t.key[order]
    same = np.flatnonzero(key[1:] == key[:-1])
    following = np.full(len(t.kind), -1, np.int64)
    following[order[same]] = order[same + 1]
    first = np.full(len(t.keys), -1, np.int64)
    first[key[::-1]] = order[::-1]
    known = r.source >= 0
    behind = np.where(known, following[np.maximum(r.source, 0)], first[t.key[r.reads]])
    some = behind >= 0
    one, two = order[same], order[same + 1]
    data = joined(
        [
            _wr(r),
            edges(WW, owner[one], owner[two], one, two),
            edges(RW, owner[r.reads[some]], owner[behind[some]], r.reads[some], behind[some]),
        ]
    )
    whole = Graph(t, r.committed, data, len(t), graph.clock_error)
    process = whole.process_edges()
    realtime, count = whole.realtime_edges()
    if not len(on_cycles(count, joined([data, process, realtime]))[1]):
        return set(STRONG)
    if not len(on_cycles(len(t), joined([data, process]))[1]):
        return {*STRONG} - {"strict-serializable"}
    if not len(on_cycles(len(t), data)[1]):
        return {"repeatable-read", "snapshot-isolation", "serializable"}
    if not len(without_two_rw(len(t), data)[1]):
        return {"snapshot-isolation"}
    return set()


_NAMES: Final[dict[Level, str]] = {
    "read-committed": "non-monotonic read",
    "read-atomic": "fractured read",
    "causal": "causality violation",
}


def _weak(r: Registers, known: Known, level: Level, judged: Judged, budget: Budget) -> None:
    """Read committed, read atomic or causal, with session order."""
    if level in judged.refuted:
        return
    try:
        _decide_weak(r, known, level, judged, budget)
    except (OverBudget, TooManySessions) as over:
        judged.stop([level], str(over))


def _decide_weak(r: Registers, known: Known, level: Level, judged: Judged, budget: Budget) -> None:
    spend(budget, 4 * len(r.reads))
    graph = Graph(r.transactions, r.committed, _wr(r), len(r.transactions))
    base = joined([graph.data, graph.process_edges()])
    _, cyclic = on_cycles(graph.count, base)
    if len(cyclic):
        _note_cycle(graph, cyclic, "G1c (session)", judged, budget)
        return
    inferred = _inferred(known, level, base, budget)
    search = Search(graph, time.monotonic() + budget.left_s())

    def path(one: int, two: int) -> list[int]:
        source, target = int(r.owner[one]), int(r.owner[two])
        rows = search.path(base, source, target)
        return [row for row in rows if row >= 0]

    too_new = np.flatnonzero(inferred.source < 0)
    if len(too_new):
        write, read = int(inferred.write[too_new[0]]), int(inferred.read[too_new[0]])
        words = "a transaction read null, and knew of a write to that key"
        others = [graph.owner(row) for row in path(write, read)]
        judged.findings.note(_NAMES[level], [write, read], words, len(too_new), others)
    else:
        _, cyclic = on_cycles(graph.count, joined([base, _behind_source(r, inferred)]))
        if len(cyclic):
            judged.told_by[_NAMES[level]] = _teller([inferred], path)
            _note_cycle(graph, cyclic, _NAMES[level], judged, budget)
    judged.refute_by_findings()


def _inferred(known: Known, level: Level, base: Edges, budget: Budget) -> Inferred:
    if level == "read-committed":
        return read_committed(known)
    if level == "read-atomic":
        return read_atomic(known)
    return causal(known, _in_order(known, base), budget.left_bytes())


def _in_order(known: Known, base: Edges) -> list[int]:
    """The transactions, each after those before it; there is no cycle."""
    t = known.r.transactions
    by_end = np.argsort(np.where(t.completed == NEVER, t.invoked, t.completed), kind="stable")
    place = np.empty(len(t), np.int64)
    place[by_end] = np.arange(len(t))
    if not (place[base.source] > place[base.target]).any():
        return [int(each) for each in by_end]
    order = np.argsort(base.source, kind="stable")
    targets = base.target[order].tolist()
    first = np.searchsorted(base.source[order], np.arange(len(t) + 1)).tolist()
    missing = np.bincount(base.target, minlength=len(t)).tolist()
    free = [number for number in range(len(t)) if not missing[number]]
    for each in free:
        for target in targets[first[each] : first[each + 1]]:
            missing[target] -= 1
            if not missing[target]:
                free.append(target)
    return free


def _note_cycle(graph: Graph, cyclic: Edges, name: str, judged: Judged, budget: Budget) -> None:
    search = Search(graph, time.monotonic() + budget.left_s())
    kind = next(kind for kind in (WW, WR, PROCESS) if (cyclic.kind == kind).any())
    search.anyhow(cyclic, graph.count, kind)
    judged.cycles[name] = min(search.found.values(), key=len)
    judged.refute(name)
