"""Orders in which the versions of registers may have been written."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from itertools import permutations, product

import numpy as np

from bench.checkers.transactions.graph import Graph
from bench.checkers.transactions.registers import Registers
from bench.record.columns import NEVER, Int64s

MOST_SORTED = 500_000
"""Transactions for which dependencies are sorted, too: that is a loop in Python."""
MOST_ORDERS = 120
"""That are all tried, if there are no more."""


def proposed_orders(r: Registers, graph: Graph) -> Iterator[Int64s]:
    """The final writes by key, each time in another order."""
    t, key = r.transactions, r.transactions.key
    instant = _instants(r)
    yield r.finals[np.lexsort((instant, key[r.finals]))]
    ends = t.completed[r.owner[r.finals]]
    yield r.finals[np.lexsort((ends, key[r.finals]))]
    if len(t) <= MOST_SORTED:
        places = [_Schedule(r).run(), _sorted(r, graph, instant)]
        for place in places:
            if place is not None:
                yield r.finals[np.lexsort((place[r.owner[r.finals]], key[r.finals]))]
    yield from _every_order(r)


def _every_order(r: Registers) -> Iterator[Int64s]:
    """All orders of the final writes by key, if they are few."""
    key = r.transactions.key[r.finals]
    order = np.argsort(key, kind="stable")
    by_key = np.split(r.finals[order], np.flatnonzero(np.diff(key[order])) + 1)
    several = [len(each) for each in by_key if len(each) > 1]
    # Two orders of each key at least.
    if 2 ** min(len(several), MOST_ORDERS) > MOST_ORDERS or max(several, default=0) > MOST_ORDERS:
        return
    if math.prod(map(math.factorial, several)) > MOST_ORDERS:
        return
    for chosen in product(*(permutations(each.tolist()) for each in by_key)):
        yield np.array([row for rows in chosen for row in rows], np.int64)


def _instants(r: Registers) -> Int64s:
    """When each final write was certainly in place, or certainly still to be seen, whichever is
    earlier: sorted by that, versions of a register that is linearizable are in order."""
    t, owner = r.transactions, r.owner
    place = np.full(len(t.kind), -1, np.int64)
    place[r.finals] = np.arange(len(r.finals))
    known = place[np.maximum(r.source, 0)]
    seen = (r.source >= 0) & (known >= 0)
    ends = t.completed[owner[r.finals]].copy()
    begins = t.invoked[owner[r.finals]].copy()
    np.minimum.at(ends, known[seen], t.completed[owner[r.reads[seen]]])
    np.maximum.at(begins, known[seen], t.invoked[owner[r.reads[seen]]])
    return np.minimum(ends, np.where(begins == NEVER, NEVER - 1, begins))


def _sorted(r: Registers, graph: Graph, by_time: Int64s) -> Int64s | None:
    """The place of each transaction in an order that agrees with all dependencies; what is free
    goes by time. None if there is no such order."""
    t = r.transactions
    instant = t.invoked.copy()
    np.maximum.at(instant, r.owner[r.finals], np.minimum(by_time, NEVER - 1))
    data = graph.data
    order = np.argsort(data.source, kind="stable")
    targets = data.target[order].tolist()
    first = np.searchsorted(data.source[order], np.arange(graph.count + 1)).tolist()
    missing = np.bincount(data.target, minlength=graph.count).tolist()
    when = [*instant.tolist(), *[-(1 << 62)] * (graph.count - len(t))]
    free = [(when[each], each) for each in range(graph.count) if not missing[each]]
    heapq.heapify(free)
    place = np.full(len(t), -1, np.int64)
    done = 0
    while free:
        _, each = heapq.heappop(free)
        if each < len(t):
            place[each] = done
        done += 1
        for target in targets[first[each] : first[each + 1]]:
            missing[target] -= 1
            if not missing[target]:
                heapq.heappush(free, (when[target], target))
    return place if done == graph.count else None


class _Schedule:
    """Carries the transactions out one by one, none after a deadline of its own or before it began:
    one that reads what is there now, and overwrites nothing that is still to be read. Of several
    the one whose versions are to be overwritten first."""

    def __init__(self, r: Registers) -> None:
        t, owner = r.transactions, r.owner
        self.r = r
        self.now: dict[int, int] = {}
        self.reads: dict[int, list[tuple[int, int]]] = {}
        self.writes: dict[int, list[tuple[int, int]]] = {}
        self.readers: dict[tuple[int, int], int] = {}
        self.needed: dict[int, int] = {}
        once = dict.fromkeys(
            zip(owner[r.reads].tolist(), t.key[r.reads].tolist(), r.source.tolist(), strict=True)
        )
        invoked = t.invoked.tolist()
        last: dict[int, int] = {}
        for txn, key, source in once:
            self.reads.setdefault(txn, []).append((key, source))
            self.readers[key, source] = self.readers.get((key, source), 0) + 1
            last[source] = max(last.get(source, invoked[txn]), invoked[txn])
        finals = r.finals.tolist()
        for txn, key, row in zip(
            owner[r.finals].tolist(), t.key[r.finals].tolist(), finals, strict=True
        ):
            self.writes.setdefault(txn, []).append((key, row))
            self.needed[row] = last.get(row, invoked[txn])

    def run(self) -> Int64s:
        """The place of each transaction."""
        t = self.r.transactions
        rows = np.flatnonzero(self.r.committed)
        waiting = rows[np.argsort(t.invoked[rows], kind="stable")].tolist()
        deadlines = rows[np.argsort(t.completed[rows], kind="stable")].tolist()
        invoked, completed = t.invoked.tolist(), t.completed.tolist()
        place = np.full(len(t), -1, np.int64)
        is_done = [False] * len(t)
        active: list[int] = []
        at = first = 0
        for count in range(len(rows)):
            while is_done[deadlines[first]]:
                first += 1
            until = completed[deadlines[first]]
            while at < len(waiting) and invoked[waiting[at]] <= until:
                active.append(waiting[at])
                at += 1
            free = [each for each in active if self._is_free(each)] or active
            chosen = min(self._first_of_their_keys(free) or free, key=completed.__getitem__)
            active.remove(chosen)
            self._carry_out(chosen)
            is_done[chosen] = True
            place[chosen] = count
        return place

    def _is_free(self, txn: int) -> bool:
        reads = self.reads.get(txn, ())
        if any(self.now.get(key, -1) != source for key, source in reads):
            return False
        for key, _ in self.writes.get(txn, ()):
            there = self.now.get(key, -1)
            if self.readers.get((key, there), 0) > ((key, there) in reads):
                return False
        return True

    def _first_of_their_keys(self, free: list[int]) -> list[int]:
        """Those whose versions are all to be overwritten before those of the others."""
        least: dict[int, int] = {}
        for each in free:
            for key, row in self.writes.get(each, ()):
                least[key] = min(least.get(key, NEVER), self.needed[row])
        return [
            each
            for each in free
            if all(self.needed[row] <= least[key] for key, row in self.writes.get(each, ()))
        ]

    def _carry_out(self, txn: int) -> None:
        for read in self.reads.get(txn, ()):
            self.readers[read] -= 1
        for key, row in self.writes.get(txn, ()):
            self.now[key] = row
