"""Small cycles, as witnesses, and what they are called."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from bench.checkers.transactions.graph import (
    ONWARD,
    PROCESS,
    REALTIME,
    RW,
    WR,
    WW,
    Edges,
    Graph,
    joined,
)
from bench.record.columns import NEVER, Int32s

TRIES: Final = 300
"""So many places are tried for a smaller cycle of each kind."""
MOST_STEPS: Final = 2_000_000
"""Edges that one search may follow."""


class Step(NamedTuple):
    """One edge of a witness: transactions, and the operations that say so (-1: none)."""

    source: int
    target: int
    kind: int
    source_row: int
    target_row: int


def name_of(cycle: list[Step], order_is_told: bool = True) -> str:
    """What a cycle is called. That of a long fork is a cycle of two rw edges that are apart.
    ``order_is_told``: ww edges are certain at every level."""
    kinds = [step.kind for step in cycle]
    rw = [place for place, kind in enumerate(kinds) if kind == RW]
    if not rw and WW in kinds and not order_is_told:
        base = "cyclic versions"
    elif not rw:
        base = "G1c" if WR in kinds else "G0"
    elif len(rw) == 1:
        base = "G-single"
    elif any(kinds[(place + 1) % len(kinds)] == RW for place in rw):
        base = "G2-item"
    elif kinds in ([RW, WR, RW, WR], [WR, RW, WR, RW]):
        base = "long fork"
    else:
        base = "G-nonadjacent"
    if REALTIME in kinds:
        return base + "-realtime"
    return base + "-process" if PROCESS in kinds else base


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which paths count. ``most_rw``: so many rw edges at most, None for any number;
    ``apart``: no two of them adjacent."""

    most_rw: int | None
    apart: bool = False

    def after(self, state: int, kind: int) -> int:
        """The state behind one more edge, -1 if the path must not go on so."""
        if kind == ONWARD:
            return state
        if kind != RW:
            return 0 if self.apart else state
        if self.apart:
            return -1 if state else 1
        if self.most_rw is None:
            return 0
        return state + 1 if state < self.most_rw else -1


_ANY: Final = _Rule(None)
_APART: Final = _Rule(None, apart=True)


class _Paths:
    """The edges by their source."""

    def __init__(self, some: Edges, count: int) -> None:
        order = np.argsort(some.source, kind="stable")
        self.edges = some.take(order)
        self.first = np.searchsorted(self.edges.source, np.arange(count + 1))
        self.steps = 0

    def shortest(
        self, start: int, state: int, rule: _Rule, is_goal: Callable[[int, int], bool]
    ) -> list[int] | None:
        """The edges of a shortest path, by their places; None if there is none, or it is far."""
        came: dict[tuple[int, int], tuple[tuple[int, int], int] | None] = {(start, state): None}
        front = [(start, state)]
        target, kind, first = self.edges.target, self.edges.kind, self.first
        steps = 0
        while front and steps < MOST_STEPS:
            following = []
            for at in front:
                vertex, now = at
                for edge in range(int(first[vertex]), int(first[vertex + 1])):
                    steps += 1
                    then = rule.after(now, int(kind[edge]))
                    if then < 0:
                        continue
                    there = (int(target[edge]), then)
                    if there in came:
                        continue
                    came[there] = (at, edge)
                    if is_goal(*there):
                        return _way(came, there)
                    following.append(there)
            front = following
        return None


def _way(
    came: dict[tuple[int, int], tuple[tuple[int, int], int] | None], there: tuple[int, int]
) -> list[int]:
    path = []
    at = came[there]
    while at is not None:
        path.append(at[1])
        at = came[at[0]]
    return path[::-1]


class Search:
    """Looks for a small cycle of each name. ``deadline``: when to be content with what was found
    (`time.monotonic`)."""

    def __init__(self, graph: Graph, deadline: float) -> None:
        self.graph = graph
        self.deadline = deadline
        self.found: dict[str, list[Step]] = {}

    def plain(self, some: Edges, label: Int32s, start_kind: int, kinds: tuple[int, ...]) -> None:
        """Cycles with an edge of ``start_kind`` and otherwise of ``kinds``. Every such edge in
        ``some`` has to be inside a component of these."""
        self._around(some, label, start_kind, kinds, _ANY)

    def single(self, some: Edges, label: Int32s) -> None:
        """Cycles with one rw edge."""
        self._around(some, label, RW, (WW, WR), _ANY)

    def apart(self, some: Edges, label: Int32s) -> None:
        """Cycles without two adjacent rw edges."""
        self._around(some, label, RW, (WW, WR, RW, ONWARD), _APART)

    def one_apart(self, some: Edges, label: Int32s) -> list[Step]:
        """One cycle without two adjacent rw edges, which is not kept."""
        before, self.found = self.found, {}
        kind = RW if (some.kind == RW).any() else int(some.kind[0])
        self._around(some, label, kind, (WW, WR, RW, ONWARD), _APART)
        found, self.found = self.found, before
        return min(found.values(), key=len)

    def any(self, some: Edges, label: Int32s) -> None:
        """Cycles with an rw edge."""
        self._around(some, label, RW, (WW, WR, RW, ONWARD), _ANY)

    def process(self, data: Edges, process: Edges, label: Int32s) -> None:
        """Cycles with an edge of process order, of each kind."""
        both = joined([data, process])
        for kinds, rule in _KINDS:
            self._around(both, label, PROCESS, (*kinds, PROCESS), rule)

    def _around(
        self,
        some: Edges,
        label: Int32s,
        start_kind: int,
        kinds: tuple[int, ...],
        rule: _Rule,
    ) -> None:
        allowed = some.take(np.isin(some.kind, kinds))
        starts = some.take(some.kind == start_kind)
        paths = _Paths(allowed, self.graph.count)
        for place in _small_first(label[starts.source]):
            edge = starts.take(np.array([place]))
            source, start = int(edge.source[0]), int(edge.target[0])
            rw_first = rule.apart and start_kind == RW
            path = paths.shortest(
                start,
                int(rw_first),
                rule,
                lambda vertex, state, goal=source, bad=rw_first: (  # type: ignore[misc]
                    vertex == goal and not (bad and state)
                ),
            )
            if path is not None:
                self._keep(_steps(joined([edge, paths.edges.take(np.array(path, np.int64))])))
            if self._is_enough(path):
                return

    def realtime(self, data: Edges, process: Edges, label: Int32s) -> None:
        """Cycles with one edge of real time. More than one is never needed: of two, either the
        earlier end is before the later beginning of the other or the other way round."""
        t, error = self.graph.transactions, self.graph.clock_error
        both = joined([data, process])
        vertices = np.flatnonzero(label[: len(t)] >= 0)
        short = np.zeros(len(t), np.bool_)
        direct = both.take((both.source < len(t)) & (both.target < len(t)))
        ended = t.completed[direct.target]
        at_once = (ended != NEVER) & (ended + error < t.invoked[direct.source])
        short[direct.source[at_once]] = True
        vertices = vertices[np.argsort(~short[vertices], kind="stable")]
        invoked = t.invoked
        latest = np.where(t.completed == NEVER, NEVER - error, t.completed) + error
        for kinds, rule in _KINDS:
            allowed = both.take(np.isin(both.kind, (*kinds, PROCESS)))
            paths = _Paths(allowed, self.graph.count)
            for start in vertices[:TRIES].tolist():
                begin = int(invoked[start])
                path = paths.shortest(
                    start,
                    0,
                    rule,
                    lambda vertex, _, begin=begin: (  # type: ignore[misc]
                        vertex < len(t) and bool(latest[vertex] < begin)
                    ),
                )
                if path is not None:
                    steps = _steps(paths.edges.take(np.array(path, np.int64)))
                    self._keep([Step(steps[-1].target, start, REALTIME, -1, -1), *steps])
                if self._is_enough(path):
                    break

    def anyhow(self, some: Edges, count: int, kind: int) -> None:
        """One cycle through an edge of ``kind``, as it comes. ``count``: of vertices."""
        paths = _Paths(some, count)
        start = int(np.flatnonzero(some.kind == kind)[0])
        edge = some.take(np.array([start]))
        goal = int(edge.source[0])
        path = paths.shortest(int(edge.target[0]), 0, _ANY, lambda vertex, _: vertex == goal)
        if path is not None:
            self._keep(_steps(joined([edge, paths.edges.take(np.array(path, np.int64))])))

    def path(self, some: Edges, start: int, goal: int) -> list[int]:
        """The rows of the edges of a shortest path, as far as they have any."""
        paths = _Paths(some, self.graph.count)
        found = paths.shortest(start, 0, _ANY, lambda vertex, _: vertex == goal) or []
        return [int(paths.edges.target_row[edge]) for edge in found]

    def _keep(self, cycle: list[Step]) -> None:
        name = name_of(cycle, self.graph.order_is_told)
        best = self.found.get(name)
        if best is None or len(cycle) < len(best):
            self.found[name] = cycle

    def _is_enough(self, path: list[int] | None) -> bool:
        return (path is not None and len(path) == 1) or (
            bool(self.found) and time.monotonic() > self.deadline
        )


_KINDS: Final[tuple[tuple[tuple[int, ...], _Rule], ...]] = (
    ((WW,), _ANY),
    ((WW, WR), _ANY),
    ((WW, WR, RW, ONWARD), _Rule(1)),
    ((WW, WR, RW, ONWARD), _APART),
    ((WW, WR, RW, ONWARD), _ANY),
)
"""What cycles of process order and real time may have besides, the worst first."""


def _small_first(component: Int32s) -> Iterable[int]:
    """Places in small components before those in large ones, a few of each."""
    if len(component) == 0:
        return []
    sizes = np.bincount(component[component >= 0])
    size = np.where(component >= 0, sizes[component], len(component) + 1)
    places: list[int] = np.argsort(size, kind="stable")[:TRIES].tolist()
    return places


def _steps(path: Edges) -> list[Step]:
    """A path without helpers: two edges or more through them become one."""
    steps: list[Step] = []
    for source, target, kind, source_row, target_row in zip(
        path.source.tolist(),
        path.target.tolist(),
        path.kind.tolist(),
        path.source_row.tolist(),
        path.target_row.tolist(),
        strict=True,
    ):
        if kind == ONWARD and steps:
            last = steps[-1]
            steps[-1] = Step(last.source, target, last.kind, last.source_row, target_row)
        else:
            steps.append(Step(source, target, kind, source_row, target_row))
    return steps
