"""One order of all transactions, by carrying them out one by one.

Nothing is proven by the search alone: the order of the versions that it ends with is held against
all dependencies, like any other that is proposed. What it rules out is certain, so that few choices
are left, and a wrong one shows soon:

- A version is in place from its write until the next one, so its readers come between the two. If
  on one key somebody of version v (writer or reader) must be done before somebody of version u may
  begin, all of v come before the writer of u. That moves ends and beginnings, and these order more.
- Who only reads, and sees what is there, goes at once; so does who overwrites what nobody still has
  to read, if no other write to the same keys can come first. Only between the others there is a
  choice, which is taken back where it leads to nothing. A state that led to nothing is known again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from bench.checkers.budget import Budget
from bench.checkers.transactions.graph import Graph
from bench.checkers.transactions.registers import Registers
from bench.record.columns import NEVER, Int64s

ROUNDS: Final = 8
"""So often ends and beginnings are moved."""
WRONG_CHOICES: Final = 200_000
"""After so many the search gives up, and after as many more as there are transactions."""


class _Versions:
    """Final writes and the initial value of each key, numbered: ``written`` first, then the keys.
    ``early`` and ``late``: between which times each transaction takes effect. ``first_end`` and
    ``last_begin``: of all who wrote or read a version."""

    def __init__(self, r: Registers, clock_error: int) -> None:
        t, owner = r.transactions, r.owner
        self.count = len(r.finals)
        self.keys = len(t.keys)
        number = np.full(len(t.kind), -1, np.int64)
        number[r.finals] = np.arange(self.count)
        of_read = np.where(
            r.source >= 0, number[np.maximum(r.source, 0)], self.count + t.key[r.reads]
        )
        some = of_read >= 0
        size = np.int64(self.count + self.keys)
        code = np.unique(owner[r.reads][some] * size + of_read[some])
        self.reader, self.of_read = code // size, code % size
        self.writer = owner[r.finals].astype(np.int64)
        self.key: Int64s = np.concatenate((t.key[r.finals].astype(np.int64), np.arange(self.keys)))
        self.early = t.invoked.copy()
        late = np.where(t.completed == NEVER, NEVER - clock_error, t.completed)
        self.late = late + clock_error
        self.first_end = np.zeros(0, np.int64)
        self.last_begin = np.zeros(0, np.int64)
        self._narrow()

    def _narrow(self) -> None:
        for _ in range(ROUNDS):
            before = (self.early.copy(), self.late.copy())
            self._by_reads()
            self._zones()
            self._by_key()
            if (before[0] == self.early).all() and (before[1] == self.late).all():
                break
        self._zones()

    def _by_reads(self) -> None:
        written = self.of_read < self.count
        writer, reader = self.writer[self.of_read[written]], self.reader[written]
        np.minimum.at(self.late, writer, self.late[reader])
        np.maximum.at(self.early, reader, self.early[writer])

    def _zones(self) -> None:
        lowest = np.iinfo(np.int64).min
        end = np.append(self.late[self.writer], np.full(self.keys, lowest))
        begin = np.append(self.early[self.writer], np.full(self.keys, lowest))
        np.minimum.at(end, self.of_read, self.late[self.reader])
        np.maximum.at(begin, self.of_read, self.early[self.reader])
        self.first_end, self.last_begin = end, begin

    def _by_key(self) -> None:
        """Of versions that are in order, the writer of the later is behind all of the earlier."""
        end, begin = self.first_end, self.last_begin
        ranks = _ranks(np.concatenate((end, begin)))
        end_rank, begin_rank = ranks[: len(end)], ranks[len(end) :]
        size = np.int64(len(ranks) + 1)
        # The latest beginning of those that end before all of a version has begun.
        order = np.lexsort((end_rank, self.key))
        code = self.key[order] * size + end_rank[order]
        best = np.maximum.accumulate(self.key[order] * size + begin_rank[order])
        asked = self.key * size + np.minimum(end_rank, begin_rank)
        place = np.searchsorted(code, asked) - 1
        there = place >= 0
        there[there] &= self.key[order[place[there]]] == self.key[there]
        there[self.count :] = False
        which = np.flatnonzero(there)
        by_rank = np.empty(len(ranks) + 1, np.int64)
        by_rank[ranks] = np.concatenate((end, begin))
        behind = by_rank[best[place[which]] % size]
        np.maximum.at(self.early, self.writer[which], behind)
        # The earliest end of a writer among those that begin after a version.
        order = np.lexsort((begin_rank, self.key))
        code = self.key[order] * size + begin_rank[order]
        late = np.append(self.late[self.writer], np.full(self.keys, NEVER))
        late_rank = _ranks(late)
        by_late = np.empty(len(late) + 1, np.int64)
        by_late[late_rank] = late
        width = np.int64(len(late) + 1)
        backward = (self.keys - 1 - self.key[order]) * width + (width - 1 - late_rank[order])
        least = np.maximum.accumulate(backward[::-1])[::-1]
        asked = self.key * size + np.maximum(end_rank, begin_rank)
        place = np.searchsorted(code, asked, side="right")
        there = place < len(code)
        there[there] &= self.key[order[place[there]]] == self.key[there]
        before = np.full(len(end), NEVER, np.int64)
        before[there] = by_late[width - 1 - least[place[there]] % width]
        np.minimum.at(self.late, self.writer, before[: self.count])
        np.minimum.at(self.late, self.reader, before[self.of_read])


def _ranks(values: Int64s) -> Int64s:
    """Equal values have equal ranks."""
    ordered = np.sort(values)
    found: Int64s = np.searchsorted(ordered, values)
    return found


class _Queues:
    """Of each key the versions in the order of some times, and how far they are done."""

    def __init__(self, v: _Versions, times: Int64s, done: list[bool]) -> None:
        key = v.key[: v.count]
        order = np.lexsort((times[: v.count], key))
        place = np.empty(v.count, np.int64)
        place[order] = np.arange(v.count)
        ends = np.searchsorted(key[order], np.arange(v.keys + 1))
        self.order: list[int] = order.tolist()
        self.writers: list[int] = v.writer[order].tolist()
        self.place: list[int] = place.tolist()
        self.at: list[int] = ends[:-1].tolist()
        self.until: list[int] = ends[1:].tolist()
        self.done = done

    def first_but(self, key: int, version: int) -> int:
        """The first version of a key that is not done, and is not this one; -1 if there is none."""
        at, until, done, writers = self.at[key], self.until[key], self.done, self.writers
        while at < until and done[writers[at]]:
            at += 1
        self.at[key] = at
        if at < until and self.order[at] == version:
            at += 1
            while at < until and done[writers[at]]:
                at += 1
        return self.order[at] if at < until else -1

    def undo(self, key: int, version: int) -> None:
        """A version is not done after all."""
        self.at[key] = min(self.at[key], self.place[version])


class _Choice(NamedTuple):
    """What was so before one of several was chosen: how many were done, and the ``others``."""

    state: int
    number: int
    at: int
    first: int
    active: list[int]
    others: list[int]


class Schedule:
    """Carries the transactions out, each between the times that were found for it."""

    def __init__(self, r: Registers, graph: Graph, budget: Budget) -> None:
        self.budget = budget
        v = _Versions(r, graph.clock_error)
        count, key = len(r.transactions), v.key.tolist()
        self.reads: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        self.writes: list[list[tuple[int, int, int]]] = [[] for _ in range(count)]
        """Key, version, and 1 if the transaction read that key, else 0."""
        for txn, version in zip(v.reader.tolist(), v.of_read.tolist(), strict=True):
            self.reads[txn].append((key[version], version))
        keys = np.int64(v.keys)
        own = np.isin(v.writer * keys + v.key[: v.count], v.reader * keys + v.key[v.of_read])
        for version, (txn, reads) in enumerate(zip(v.writer.tolist(), own.tolist(), strict=True)):
            self.writes[txn].append((key[version], version, int(reads)))
        self.left: list[int] = np.bincount(v.of_read, minlength=len(key)).tolist()
        self.now = list(range(v.count, v.count + v.keys))
        self.end: list[int] = v.first_end.tolist()
        self.begin: list[int] = v.last_begin.tolist()
        rows = np.flatnonzero(r.committed)
        self.waiting: list[int] = rows[np.argsort(v.early[rows], kind="stable")].tolist()
        self.deadlines: list[int] = rows[np.argsort(v.late[rows], kind="stable")].tolist()
        self.early: list[int] = v.early.tolist()
        self.late: list[int] = v.late.tolist()
        self.before = [-1] * count
        process = graph.process_edges()
        for one, two in zip(process.source.tolist(), process.target.tolist(), strict=True):
            self.before[two] = one
        self.done = [not each for each in r.committed.tolist()]
        self.by_end = _Queues(v, v.first_end, self.done)
        self.by_begin = _Queues(v, v.last_begin, self.done)
        self.order: list[tuple[int, list[int]]] = []
        """What is done, and which versions it overwrote."""
        self.active: list[int] = []
        self.at = self.first = 0
        rng = random.Random(1)
        self.marks = [rng.getrandbits(62) for _ in range(count + len(key))]
        self.state = 0
        """What is done, and which versions are in place, as one number."""

    def run(self) -> Int64s | None:
        """The place of each transaction, None if no order was found. Raises OverBudget."""
        dead: set[int] = set()
        choices: list[_Choice] = []
        most = WRONG_CHOICES + len(self.waiting)
        while len(self.order) < len(self.waiting):
            self._wake()
            self.budget.spend(1 + len(self.active))
            options = [] if self.state in dead else self._options()
            if options:
                if len(options) > 1:
                    active = self.active.copy()
                    choices.append(
                        _Choice(self.state, len(self.order), self.at, self.first, active, options)
                    )
                self._carry_out(options.pop())
                continue
            dead.add(self.state)
            while choices and not choices[-1].others:
                dead.add(choices.pop().state)
            if not choices or len(dead) > most:
                return None
            self._go_back(choices[-1])
            self._carry_out(choices[-1].others.pop())
        place = np.full(len(self.done), -1, np.int64)
        place[[txn for txn, _ in self.order]] = np.arange(len(self.order))
        return place

    def _wake(self) -> None:
        """Those that may begin before the next one has to be done."""
        while self.done[self.deadlines[self.first]]:
            self.first += 1
        until = self.late[self.deadlines[self.first]]
        while self.at < len(self.waiting) and self.early[self.waiting[self.at]] <= until:
            self.active.append(self.waiting[self.at])
            self.at += 1

    def _options(self) -> list[int]:
        """What may come next, the likeliest last; one alone if that is never wrong."""
        free = []
        for txn in self.active:
            if self._is_free(txn):
                if self._is_safe(txn):
                    return [txn]
                free.append(txn)
        if len(free) > 1:
            free.sort(key=self._urgency(), reverse=True)
        return free

    def _is_free(self, txn: int) -> bool:
        now, left, end, begin = self.now, self.left, self.end, self.begin
        for key, version in self.reads[txn]:
            if now[key] != version:
                return False
        for key, version, own in self.writes[txn]:
            if left[now[key]] != own:
                return False
            other = self.by_end.first_but(key, version)
            if other >= 0 and end[other] < begin[version]:
                return False
        before = self.before[txn]
        return before < 0 or self.done[before]

    def _is_safe(self, txn: int) -> bool:
        for key, version, _ in self.writes[txn]:
            other = self.by_begin.first_but(key, version)
            if other >= 0 and self.begin[other] <= self.end[version]:
                return False
        return True

    def _urgency(self) -> Callable[[int], tuple[int, int]]:
        """Of two writes to a key the one in the middle of its time before comes first."""
        middles: dict[int, list[int]] = {}
        for txn in self.active:
            for key, version, _ in self.writes[txn]:
                middles.setdefault(key, []).append(self.begin[version] + self.end[version])

        def urgency(txn: int) -> tuple[int, int]:
            earlier = sum(
                other < self.begin[version] + self.end[version]
                for key, version, _ in self.writes[txn]
                for other in middles[key]
            )
            return earlier, self.late[txn]

        return urgency

    def _carry_out(self, txn: int) -> None:
        overwritten = []
        self.state ^= self.marks[txn]
        for _, version in self.reads[txn]:
            self.left[version] -= 1
        for key, version, _ in self.writes[txn]:
            overwritten.append(self.now[key])
            self._put(key, version)
        self.done[txn] = True
        self.active.remove(txn)
        self.order.append((txn, overwritten))

    def _put(self, key: int, version: int) -> None:
        first = len(self.done)
        self.state ^= self.marks[first + self.now[key]] ^ self.marks[first + version]
        self.now[key] = version

    def _go_back(self, choice: _Choice) -> None:
        while len(self.order) > choice.number:
            txn, overwritten = self.order.pop()
            self.state ^= self.marks[txn]
            self.done[txn] = False
            for _, version in self.reads[txn]:
                self.left[version] += 1
            for (key, version, _), old in zip(self.writes[txn], overwritten, strict=True):
                self._put(key, old)
                self.by_end.undo(key, version)
                self.by_begin.undo(key, version)
        self.at, self.first = choice.at, choice.first
        self.active = choice.active.copy()
