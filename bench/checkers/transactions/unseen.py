"""Snapshot isolation where the order of some versions is not told.

For the other levels an order that agrees with all dependencies can always be chosen. Snapshot
isolation also forbids that of two transactions that change a key one has not seen the other, so
there the order matters: it is tried, two appends after the other, as long as they are in the way.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from bench.checkers.transactions.cycles import Search, Step
from bench.checkers.transactions.graph import WW, Edges, Graph, edges, joined, without_two_rw
from bench.record.columns import Int64s

MOST_TRIES: Final = 64
Pair = tuple[int, int]


class Undecided(Exception):
    """More orders than are tried."""


class Orders:
    """``rows``: appends in no list, one of each transaction and key, those of one key together."""

    def __init__(self, graph: Graph, groups: list[Int64s], search: Search) -> None:
        self.graph = graph
        self.groups = groups
        self.search = search
        self.owner = graph.transactions.owner()
        self.tries = 0
        self.refuting: list[Step] = []
        self.tried: set[Pair] = set()

    def fits(self, fixed: tuple[Pair, ...] = ()) -> bool:
        """Whether some order with the pairs ``fixed`` has no forbidden cycle. Raises Undecided."""
        self.tries += 1
        if self.tries > MOST_TRIES:
            raise Undecided
        cycle = self._forbidden(fixed)
        if cycle:
            self.refuting += cycle
            return False
        chosen = [pair for group in self.groups for pair in self._pairs(group, fixed)]
        cycle = self._forbidden(chosen)
        if not cycle:
            return True
        rows = {(step.source_row, step.target_row) for step in cycle if step.kind == WW}
        loose = [pair for pair in chosen if pair in rows and pair not in fixed]
        if not loose:
            loose = [pair for pair in chosen if pair not in fixed]
        one, two = loose[0]
        return self.fits((*fixed, (two, one))) or self.fits((*fixed, (one, two)))

    def _forbidden(self, pairs: tuple[Pair, ...] | list[Pair]) -> list[Step]:
        """A small forbidden cycle, with these appends in this order; empty if there is none."""
        self.tried.update(pairs)
        some = joined([self.graph.data, self._edges(pairs)])
        label, inside = without_two_rw(self.graph.count, some)
        return self.search.one_apart(inside, label) if len(inside) else []

    def _edges(self, pairs: tuple[Pair, ...] | list[Pair]) -> Edges:
        both = np.array(pairs, np.int64).reshape(-1, 2)
        one, two = both[:, 0], both[:, 1]
        return edges(WW, self.owner[one], self.owner[two], one, two)

    def _pairs(self, group: Int64s, fixed: tuple[Pair, ...]) -> list[Pair]:
        """The appends of a key in the order in which they ended, but for what is fixed: each with
        the next one."""
        t = self.graph.transactions
        left = sorted(group.tolist(), key=lambda row: int(t.completed[self.owner[row]]))
        order: list[int] = []
        while left:
            free = [row for row in left if not any(b == row and a in left for a, b in fixed)]
            row = free[0] if free else left[0]
            order.append(row)
            left.remove(row)
        return list(pairwise(order))
