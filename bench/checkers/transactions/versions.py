"""Orders in which the versions of registers may have been written."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from itertools import permutations, product

import numpy as np

from bench.checkers.budget import Budget, OverBudget
from bench.checkers.transactions.graph import Graph
from bench.checkers.transactions.registers import Registers
from bench.checkers.transactions.schedule import Schedule
from bench.record.columns import NEVER, Int64s

MOST_SORTED = 500_000
"""Transactions for which dependencies are sorted, too: that is a loop in Python."""
_BYTES_PER_OPERATION = 450
"""What a schedule takes."""
MOST_ORDERS = 120
"""That are all tried, if there are no more."""


def proposed_orders(r: Registers, graph: Graph, budget: Budget) -> Iterator[Int64s]:
    """The final writes by key, each time in another order. Raises OverBudget."""
    t, key = r.transactions, r.transactions.key
    instant = _instants(r)
    yield r.finals[np.lexsort((instant, key[r.finals]))]
    if len(t) <= MOST_SORTED:
        # Loops in Python, the second only if the first led to nothing.
        if budget.left_bytes() < _BYTES_PER_OPERATION * len(t.kind):
            raise OverBudget("memory")
        # No name for the schedule: it must not stay while its order is looked at.
        yield from _by_place(r, Schedule(r, graph, budget).run())
        yield from _by_place(r, _sorted(r, graph, instant))
    ends = t.completed[r.owner[r.finals]]
    yield r.finals[np.lexsort((ends, key[r.finals]))]
    yield from _every_order(r)


def _by_place(r: Registers, place: Int64s | None) -> Iterator[Int64s]:
    if place is not None:
        yield r.finals[np.lexsort((place[r.owner[r.finals]], r.transactions.key[r.finals]))]


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
