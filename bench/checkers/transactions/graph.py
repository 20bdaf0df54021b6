"""Dependencies between transactions as a graph, in arrays; and which of its cycles there are.

Vertices are transactions, and helpers that stand for many edges at once. With realtime, every
transaction that ended comes before every one that began later: n^2 edges, or a chain of helpers in
the order of time, which each transaction enters when it ends and leaves when it begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.record.columns import INFO, NEVER, Bools, Int8s, Int32s, Int64s
from bench.record.transactions.columns import Transactions

WW: Final = 0
WR: Final = 1
RW: Final = 2
PROCESS: Final = 3
REALTIME: Final = 4
ONWARD: Final = 5
"""From a helper to a transaction: the second half of an edge whose kind its first half has."""


@dataclass(slots=True)
class Edges:
    """``source`` comes before ``target``. ``source_row`` and ``target_row``: the operations that
    say so, -1 at a helper and where there are none."""

    source: Int32s
    target: Int32s
    kind: Int8s
    source_row: Int32s
    target_row: Int32s

    def __len__(self) -> int:
        return len(self.source)

    def take(self, which: Bools | Int64s) -> Edges:
        """Some of the edges."""
        return Edges(
            self.source[which],
            self.target[which],
            self.kind[which],
            self.source_row[which],
            self.target_row[which],
        )


def joined(parts: list[Edges]) -> Edges:
    """All edges of several sets."""
    return Edges(
        np.concatenate([part.source for part in parts]),
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.kind for part in parts]),
        np.concatenate([part.source_row for part in parts]),
        np.concatenate([part.target_row for part in parts]),
    )


def edges(
    kind: int,
    source: Int32s | Int64s,
    target: Int32s | Int64s,
    source_row: Int32s | Int64s | None = None,
    target_row: Int32s | Int64s | None = None,
) -> Edges:
    """Edges of one kind, without those from a transaction to itself."""
    nothing = np.full(len(source), -1, np.int32)
    found = Edges(
        source.astype(np.int32),
        target.astype(np.int32),
        np.full(len(source), kind, np.int8),
        nothing if source_row is None else source_row.astype(np.int32),
        nothing if target_row is None else target_row.astype(np.int32),
    )
    return found.take(found.source != found.target)


@dataclass(slots=True)
class Graph:
    """``data``: ww, wr and rw, with ``count`` vertices, transactions first. ``committed``: which
    transactions are in it at all. ``order_told_by``: the reads that say that the one write
    comes before the other. ``order_is_told``: ww edges are certain at every level,
    not only where transactions are atomic."""

    transactions: Transactions
    committed: Bools
    data: Edges
    count: int
    clock_error: int = 0
    order_told_by: Callable[[int, int], list[int]] = lambda one, two: []
    order_is_told: bool = True

    def owner(self, row: int) -> int:
        """The transaction of an operation."""
        return int(np.searchsorted(self.transactions.first, row, side="right")) - 1

    def process_edges(self) -> Edges:
        """The order of each process: what ended, then what the process did next. What ended `INFO`
        may take effect later, so nothing needs to come after it."""
        t = self.transactions
        rows = np.flatnonzero(self.committed)
        rows = rows[np.lexsort((rows, t.takes_time[rows], t.invoked[rows], t.process[rows]))]
        places = np.arange(len(rows))
        ended = np.where(t.outcome[rows] == INFO, -1, places)
        before = np.concatenate(([-1], np.maximum.accumulate(ended)[:-1])) if len(rows) else ended
        there = before >= 0
        there[there] &= t.process[rows[before[there]]] == t.process[rows[there]]
        return edges(PROCESS, rows[before[there]], rows[there])

    def realtime_edges(self) -> tuple[Edges, int]:
        """Edges through a chain of helpers, and how many vertices there are with them."""
        t = self.transactions
        rows = np.flatnonzero(self.committed)
        finished = rows[t.completed[rows] != NEVER]
        if len(finished) == 0:
            nobody = np.zeros(0, np.int32)
            return edges(REALTIME, nobody, nobody), self.count
        by_end = finished[np.argsort(t.completed[finished], kind="stable")]
        ends = t.completed[by_end]
        # Of the ends between two beginnings one helper is enough.
        enters = np.searchsorted(np.sort(t.invoked[rows]), ends + self.clock_error, side="right")
        link, helper = np.unique(enters, return_inverse=True)
        count = len(link)
        last_end = np.searchsorted(ends, t.invoked[rows] - self.clock_error, side="left") - 1
        begins = last_end >= 0
        first = self.count
        parts = [
            edges(REALTIME, by_end, first + helper),
            edges(ONWARD, first + np.arange(count - 1), first + np.arange(1, count)),
            edges(ONWARD, first + helper[last_end[begins]], rows[begins]),
        ]
        return joined(parts), self.count + count


def on_cycles(count: int, some: Edges) -> tuple[Int32s, Edges]:
    """The component of each vertex, -1 for those on no cycle; and the edges inside components."""
    nobody = np.full(count, -1, np.int32)
    if len(some) == 0:
        return nobody, some
    # Here, since it takes half a second to import, and few histories are of transactions.
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    matrix = csr_array(
        (np.ones(len(some), np.int8), (some.source, some.target)), shape=(count, count)
    )
    number, label = connected_components(matrix, directed=True, connection="strong")
    if number == count:
        return nobody, some.take(np.zeros(0, np.int64))
    sizes = np.bincount(label, minlength=number)
    label = np.where(sizes[label] > 1, label, -1).astype(np.int32)
    inside = (label[some.source] == label[some.target]) & (label[some.source] >= 0)
    return label, some.take(inside)


def without_two_rw(count: int, some: Edges) -> tuple[Int32s, Edges]:
    """The same for closed walks without two adjacent rw edges: they are the cycles of the graph in
    which each vertex stands twice, the second one for having come by rw."""
    is_rw, is_onward = some.kind == RW, some.kind == ONWARD
    plain = some.take(~is_rw & ~is_onward)
    anti, onward = some.take(is_rw), some.take(is_onward)
    source = np.concatenate(
        (plain.source, plain.source + count, anti.source, onward.source, onward.source + count)
    )
    target = np.concatenate(
        (plain.target, plain.target, anti.target + count, onward.target, onward.target + count)
    )
    nothing = np.zeros(len(source), np.int32)
    doubled = Edges(source, target, nothing.astype(np.int8), nothing, nothing)
    label, _ = on_cycles(2 * count, doubled)
    inside = _inside(label, count, some)
    return label, some.take(inside)


def _inside(label: Int32s, count: int, some: Edges) -> Bools:
    """Edges of which some copy is inside a component."""
    came = (some.kind == RW).astype(np.int64) * count
    found = (label[some.source] == label[some.target + came]) & (label[some.source] >= 0)
    plain = some.kind != RW
    second = np.where(some.kind == ONWARD, count, 0)
    again = label[some.source + count] == label[some.target + second]
    result: Bools = found | (plain & again & (label[some.source + count] >= 0))
    return result
