"""Transactions of appends to lists and reads of them: dependencies, and the verdict.

After Adya's generalized isolation levels ("Weak Consistency: A Generalized Theory and Optimistic
Implementations", MIT 1999), found from what clients saw as in Elle (Kingsbury and Alvaro, VLDB
14(3), 2020). The order of the versions of a key follows from its lists. A committed append that is
in no list comes behind the longest one. In which order several of them are is not told: whatever
order agrees with all other dependencies will do for every level that is decided by whether these
have a cycle of any kind, so nothing has to be tried.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from bench.checkers.budget import Budget, OverBudget
from bench.checkers.transactions.anti import before_all
from bench.checkers.transactions.findings import Findings
from bench.checkers.transactions.graph import RW, WR, WW, Edges, Graph, edges, joined
from bench.checkers.transactions.internal import (
    groups,
    note_internal_of_lists,
    note_lost_updates,
)
from bench.checkers.transactions.judge import Judged, check_of, judge, undecided
from bench.checkers.transactions.levels import LEVELS, refuted_by
from bench.checkers.transactions.lists import (
    Versions,
    external_reads,
    number_of_appends,
    versions_of,
)
from bench.record.columns import FAIL, INFO, NEVER, Int32s, Int64s
from bench.record.transactions.columns import EMPTY, Transactions
from bench.record.transactions.verdict import Level, TransactionsCheck


def check_list_append(
    t: Transactions,
    level: Level = "strict-serializable",
    budget_s: float = 60.0,
    memory_bytes: int = 4 << 30,
    clock_error_ns: int = 0,
) -> TransactionsCheck:
    """Which levels a history of appends and reads of lists does not refute.

    ``level``: the one that the verdict is about; all are in ``levels``. Over the budget of time or
    memory they are *unknown*. ``clock_error_ns``: transactions that are no further apart count as
    concurrent.

    Raises BadHistory for other operations, and for a value that is appended to one key twice.
    """
    began = time.perf_counter()
    budget = Budget(budget_s, memory_bytes)
    findings = Findings()
    try:
        with budget.watched():
            versions = versions_of(t, findings)
            graph = dependencies(t, versions, findings, clock_error_ns)
            judged = judge(graph, findings, budget, _unordered(t, versions))
            if "read-uncommitted" in judged.refuted and (t.outcome == INFO).any():
                try:
                    _without_unknown(t, judged, budget)
                except OverBudget as over:
                    _spare(judged, str(over))
    except OverBudget as over:
        return undecided(t, "list-append", level, LEVELS, str(over))
    seconds = time.perf_counter() - began
    return check_of(graph, versions.owner, judged, "list-append", level, LEVELS, seconds)


def _without_unknown(t: Transactions, judged: Judged, budget: Budget) -> None:
    """Read uncommitted may be saved by what ended `INFO` not having been committed: to see it is
    nothing that this level forbids. That less was committed never refutes it. If it is not saved,
    only what is still there without these transactions proves it."""
    lost = replace(t, outcome=np.where(t.outcome == INFO, FAIL, t.outcome).astype(np.int8))
    findings = Findings()
    graph = dependencies(lost, versions_of(lost, findings), findings)
    left = judge(graph, findings, budget)
    if "read-uncommitted" not in left.refuted and left.undecided:
        _spare(judged, left.undecided["read-uncommitted"])
        return
    if "read-uncommitted" not in left.refuted:
        judged.refuted.discard("read-uncommitted")
    # All else keeps its example: what is unknown was committed there, once somebody saw it.
    names = [*judged.cycles, *judged.findings.by_name]
    for name in [each for each in names if "read-uncommitted" in refuted_by(each)]:
        if name in left.cycles:
            judged.cycles[name] = left.cycles[name]
            judged.told_by[name] = graph.order_told_by
        elif name in left.findings.by_name:
            finding = judged.findings.by_name[name]
            judged.findings.by_name[name] = replace(
                left.findings.by_name[name], count=finding.count
            )
        else:
            judged.spared.add(name)


def _spare(judged: Judged, why: str) -> None:
    """Read uncommitted is not decided."""
    judged.refuted.discard("read-uncommitted")
    judged.undecided.setdefault("read-uncommitted", why)
    judged.spared.update(judged.cycles, judged.findings.by_name)


def dependencies(
    t: Transactions, versions: Versions, findings: Findings, clock_error: int = 0
) -> Graph:
    """The graph, and what else is wrong with the operations of transactions."""
    grouped = groups(t, versions.owner, versions.committed)
    note_internal_of_lists(t, versions, grouped, findings)
    note_lost_updates(t, versions.owner, grouped, findings)
    reads = external_reads(t, versions.owner)
    seen = np.where(t.value[reads] > 0, t.value[reads], EMPTY)
    seen = versions.of_list[seen]
    parts = [_ww(versions), _wr(versions, reads, seen), _rw(t, versions, reads, seen)]
    _note_intermediate(t, versions, reads, seen, findings)
    count = len(t)
    if len(versions.unseen):
        behind, count = _behind(t, versions, reads, seen)
        _note_lost_elements(t, versions, reads, findings, clock_error)
        parts += behind
    number_of = number_of_appends(t, versions)

    def order_told_by(one: int, two: int) -> list[int]:
        """A read of a list with both appends; or, if the later is in none, of the last list."""
        fits = (t.key[reads] == t.key[two]) & (versions.is_in_order[seen] | (seen == EMPTY))
        of_key = np.flatnonzero(fits)
        if len(of_key) == 0:
            return []
        wanted = number_of[two] if number_of[two] < len(versions.parent) else seen[of_key].max()
        return [int(reads[of_key[np.argmax(seen[of_key] >= wanted)]])]

    return Graph(t, versions.committed, joined(parts), count, clock_error, order_told_by)


def _unordered(t: Transactions, v: Versions) -> list[Int64s]:
    """Appends in no list, one of each transaction and key, where a key has several."""
    pair = v.owner[v.unseen] * np.int64(len(t.keys)) + t.key[v.unseen]
    rows = v.unseen[np.unique(pair, return_index=True)[1]]
    rows = rows[np.argsort(t.key[rows], kind="stable")]
    groups = np.split(rows, np.flatnonzero(np.diff(t.key[rows])) + 1)
    return [group for group in groups if len(group) > 1]


def _ww(v: Versions) -> Edges:
    later = np.flatnonzero(v.is_in_order & (v.parent != EMPTY))
    before, after = v.writer[v.parent[later]], v.writer[later]
    return edges(WW, v.owner[before], v.owner[after], before, after)


def _wr(v: Versions, reads: Int64s, seen: Int32s) -> Edges:
    some = seen != EMPTY
    append = v.writer[seen[some]]
    return edges(WR, v.owner[append], v.owner[reads[some]], append, reads[some])


def _rw(t: Transactions, v: Versions, reads: Int64s, seen: Int32s) -> Edges:
    following = np.where(seen == EMPTY, v.first[t.key[reads]], v.following[seen])
    some = following > 0
    append = v.writer[following[some]]
    return edges(RW, v.owner[reads[some]], v.owner[append], reads[some], append)


def _note_intermediate(
    t: Transactions, v: Versions, reads: Int64s, seen: Int32s, findings: Findings
) -> None:
    """G1b: a list that ends with an append behind which its transaction put another one."""
    by_transaction = v.appends[
        np.argsort(
            v.owner[v.appends].astype(np.int64) * len(t.keys) + t.key[v.appends], kind="stable"
        )
    ]
    same = (v.owner[by_transaction][1:] == v.owner[by_transaction][:-1]) & (
        t.key[by_transaction][1:] == t.key[by_transaction][:-1]
    )
    is_last = np.ones(len(t.kind) + 1, np.bool_)
    is_last[by_transaction[:-1][same]] = False
    append = v.writer[seen]
    found = ~is_last[append] & (v.owner[append] != v.owner[reads])
    if found.any():
        place = int(np.argmax(found))
        row, other = int(reads[place]), int(append[place])
        findings.note(
            "G1b",
            [other, row],
            f"{t.values[t.value[other]]!r} of {t.keys[t.key[row]]} was read as the last value, and "
            "its transaction appended another one",
            int(found.sum()),
        )


def _behind(t: Transactions, v: Versions, reads: Int64s, seen: Int32s) -> tuple[list[Edges], int]:
    """The dependencies of appends that are in no list, one of each transaction and key; and how
    many vertices there are with the helpers, one for each key."""
    pair = v.owner[v.unseen] * np.int64(len(t.keys)) + t.key[v.unseen]
    place = np.unique(pair, return_index=True)[1]
    unseen = v.unseen[np.sort(place)]
    last = np.full(len(t.keys), EMPTY, np.int32)
    ends = np.flatnonzero(v.is_in_order & (v.following < 0))
    last[v.key[ends]] = ends
    written = v.writer[last[t.key[unseen]]]
    has = written >= 0
    parts = [edges(WW, v.owner[written[has]], v.owner[unseen[has]], written[has], unseen[has])]
    at_end = reads[seen == last[t.key[reads]]]
    parts += before_all(t, v.owner, at_end, unseen, len(t))
    return parts, len(t) + 2 * len(t.keys)


def _note_lost_elements(
    t: Transactions, v: Versions, reads: Int64s, findings: Findings, clock_error: int
) -> None:
    """Acknowledged appends that no list has, although one was read after the acknowledgement."""
    last_read = np.full(len(t.keys), np.iinfo(np.int64).min)
    np.maximum.at(last_read, t.key[reads], t.invoked[v.owner[reads]])
    ended = t.completed[v.owner[v.unseen]]
    there = ended != NEVER
    unseen = v.unseen[there]
    lost = unseen[ended[there] + clock_error < last_read[t.key[unseen]]]
    if len(lost) == 0:
        return
    append = int(lost[0])
    of_key = reads[t.key[reads] == t.key[append]]
    row = int(of_key[np.argmax(t.invoked[v.owner[of_key]])])
    findings.note(
        "lost elements",
        [append, row],
        f"{t.values[t.value[append]]!r} was appended to {t.keys[t.key[append]]}, acknowledged, and "
        "is in no list, although one was read later",
        len(lost),
    )
