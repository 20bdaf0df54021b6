"""Is the history causally consistent?

Causal order is the transitive closure of program order and of reads-from, a write before the
operations that saw it (Ahamad, Neiger, Burns, Kohli, Hutto, "Causal Memory", Distributed Computing
9(1), 1995). Of the variants that Bouajjani, Enea, Guerraoui and Hamza distinguish ("On Verifying
Causal Consistency", POPL 2017) this is the weakest, CC: some order of its causal past explains each
operation. Ahamad's causal memory (CM) also requires one order for all answers of a process, and
causal convergence (CCv) one order for all processes: neither is decided here. With unique written
values a history is CC if and only if it has none of these patterns (theorem 5.1):

- a value that nobody wrote was read;
- causal order has a cycle;
- a read saw write w1, although another write w2 on the key is causally after w1 and before the read
  (or saw the initial value, although a write on the key is causally before the read).

An applied CAS is a read of what it expected and a write; a refused CAS is a read. CC does not
require the two to be adjacent: concurrent CAS on one value do not contradict it.

Causal order is computed from the operations alone, as one vector clock per operation with an entry
per process: O(operations x processes). No clock of a replica is trusted. A read of siblings is fine
if one of them is not outdated. Final reads are left out: no process made them. Reads with unknown
outcome say nothing. A write with unknown outcome counts once it was seen: it is causally after what
its process did before, but what the process does next does not depend on it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.checkers.budget import Budget, OverBudget
from bench.checkers.reads_from import (
    Impossible,
    ReadsFrom,
    impossible,
    program_order,
    reads_from,
)
from bench.checkers.sequential import doubts, refuted
from bench.record.columns import INFO, NULL, Columns, Int32s
from bench.record.verdict import CausalCheck, VerdictValue, WeakerModel, WitnessLine

_NOT_YET = np.iinfo(np.int32).max
_TICKS = 8
"""What an operation costs, in steps of the budget."""


def check_causal(
    c: Columns,
    initial: int = NULL,
    *,
    history_is_cut: bool = False,
    budget: Budget | None = None,
) -> CausalCheck:
    """The verdict; *unknown* if keys had to be left out or the clocks exceed the ``budget``.
    ``history_is_cut``: operations may be missing, so the verdict is never *valid*."""
    began = time.perf_counter()
    seen = reads_from(c, initial, history_is_cut=history_is_cut)
    never = impossible(c, seen, initial, history_is_cut=history_is_cut)
    verdict: VerdictValue = "unknown"
    found, undecided = never, ""
    if found is None:
        try:
            found = _Closure(c, seen, budget or Budget()).run()
        except OverBudget as over:
            undecided = str(over)
    witness: list[WitnessLine] = []
    if found is not None:
        verdict, summary, witness = refuted(c, seen, found)
    elif doubt := undecided or doubts(c, seen, history_is_cut=history_is_cut):
        summary = doubt
    else:
        verdict, summary = "valid", "no operation contradicts what its process knew"
    return CausalCheck(
        verdict=verdict,
        model="causal",
        algorithm="vector clocks of the processes",
        operations=len(c),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=witness,
        details=WeakerModel(keys_left_out=seen.keys_left_out, impossible=never is not None),
    )


class _Closure:
    """Walks the lanes side by side; a lane waits for a write that it saw and that is still to come.

    A *lane* is a process. A write with unknown outcome after which its process went on has its own
    lane, which begins with what the process knew then.

    ``clock[p][q]``: how many writes of lane q are causally before what lane p does next.
    ``overtaken[w][q]``: the number of the first write of q on the key of w that is causally after
    w: a reader whose clock has reached it must no longer see w.
    """

    def __init__(self, c: Columns, seen: ReadsFrom, budget: Budget) -> None:
        self.c, self.budget = c, budget
        is_write = np.zeros(len(c), np.bool_)
        is_write[seen.writes] = True
        observes = np.zeros(len(c), np.bool_)
        observes[seen.rows] = True
        takes_part = (is_write | observes) & ~seen.is_final
        rows = np.flatnonzero(takes_part)
        rows = rows[program_order(c, rows)]
        # Rows, or ~lane where that lane begins.
        self.lanes: list[list[int]] = []
        self.parent: dict[int, int] = {}
        self.lane_of: dict[int, int] = {}
        self._make_lanes(rows.tolist(), c.process[rows].tolist(), c.outcome[rows].tolist())
        self.width = len(self.lanes)
        writes = int(is_write[rows].sum())
        if (2 * writes + len(c.keys) * self.width) * self.width * 4 > budget.left_bytes():
            raise OverBudget("memory")  # for the clocks, which are not made then
        self.is_write = is_write
        self.saw: dict[int, list[int]] = {}
        for row, write in zip(seen.rows.tolist(), seen.write.tolist(), strict=True):
            if takes_part[row]:
                self.saw.setdefault(row, []).append(write)
        self.clock = np.zeros((self.width, self.width), np.int32)
        self.clock_of: dict[int, Int32s] = {}
        self.number_of: dict[int, int] = {}
        self.overtaken: dict[int, Int32s] = {}
        self.by_number: dict[tuple[int, int], int] = {}
        # Per key and lane: its writes there, and how far each lane has marked them overtaken.
        self.on_key: dict[int, list[list[int]]] = {}
        self.marked: dict[int, Any] = {}
        self.from_start: dict[int, Int32s] = {}

    def _make_lanes(self, rows: list[int], process: list[int], outcome: list[int]) -> None:
        alone: list[tuple[int, int, int]] = []  # lane of the process, place there, row
        for place, row in enumerate(rows):
            if place == 0 or process[place] != process[place - 1]:
                self.lanes.append([])
            here = len(self.lanes) - 1
            goes_on = place + 1 < len(rows) and process[place + 1] == process[place]
            if outcome[place] == INFO and goes_on:
                alone.append((here, len(self.lanes[here]), row))
            else:
                self.lane_of[row] = here
            self.lanes[here].append(row)
        for here, place, row in alone:
            lane = len(self.lanes)
            self.lanes[here][place] = ~lane
            self.lanes.append([row])
            self.lane_of[row], self.parent[lane] = lane, here

    def run(self) -> Impossible | None:
        """A forbidden pattern, None if there is none. Raises OverBudget."""
        waiting: dict[int, list[int]] = {}
        todo = [lane for lane in range(self.width) if lane not in self.parent]
        at = [0] * self.width
        while todo:
            p = todo.pop()
            while at[p] < len(self.lanes[p]):
                row = self.lanes[p][at[p]]
                self.budget.spend(_TICKS)
                if row < 0:
                    self.clock[~row] = self.clock[p]
                    todo.append(~row)
                    at[p] += 1
                    continue
                missing = self._missing(row)
                if missing is not None:
                    assert missing in self.lane_of, "a final read wrote"
                    waiting.setdefault(missing, []).append(p)
                    break
                if row in self.saw:
                    found = self._read(p, row)
                    if found is not None:
                        return found
                if self.is_write[row]:
                    self._write(p, row)
                    todo.extend(waiting.pop(row, ()))
                at[p] += 1
        stuck = [p for p in range(self.width) if at[p] < len(self.lanes[p])]
        if stuck:
            return self._cycle(stuck[0], at)
        return None

    def _missing(self, row: int) -> int | None:
        """A write that ``row`` saw and that is still to come."""
        return next((w for w in self.saw.get(row, ()) if w >= 0 and w not in self.clock_of), None)

    def _read(self, p: int, row: int) -> Impossible | None:
        key = int(self.c.key[row])
        clock = self.clock[p]
        writes = self.saw[row]
        for write in writes:
            if write >= 0:
                np.maximum(clock, self.clock_of[write], out=clock)
        newer = -1
        for write in writes:
            limit = self.from_start.get(key) if write < 0 else self.overtaken[write]
            if limit is None:
                return None
            beyond = np.flatnonzero(clock >= limit)
            if len(beyond) == 0:
                return None
            q = int(beyond[0])
            newer = self.by_number[q, int(limit[q])]
        rows = [*(w for w in writes if w >= 0), newer, row]
        return Impossible(rows, "a read saw a value that its process knew to be overwritten")

    def _write(self, p: int, row: int) -> None:
        key = int(self.c.key[row])
        clock = self.clock[p]
        if key not in self.on_key:
            self.on_key[key] = [[] for _ in range(self.width)]
            self.marked[key] = np.zeros((self.width, self.width), np.int32)
            self.from_start[key] = np.full(self.width, _NOT_YET, np.int32)
        clock[p] += 1
        number = int(clock[p])
        if self.from_start[key][p] == _NOT_YET:
            self.from_start[key][p] = number
        marked = self.marked[key][p]
        for q in np.flatnonzero(marked < clock).tolist():
            for write in self._between(key, q, int(marked[q]), int(clock[q])):
                if write != row:
                    self.overtaken[write][p] = number
        marked[:] = clock
        marked[p] = number - 1  # its next write there comes after this one, too
        self.clock_of[row] = clock.copy()
        self.number_of[row] = number
        self.by_number[p, number] = row
        self.overtaken[row] = np.full(self.width, _NOT_YET, np.int32)
        self.on_key[key][p].append(row)

    def _between(self, key: int, q: int, low: int, high: int) -> list[int]:
        """The writes of q on the key with numbers in (low, high]."""
        found = []
        for write in reversed(self.on_key[key][q]):
            number = self.number_of[write]
            if number <= low:
                break
            if number <= high:
                found.append(write)
        return found

    def _cycle(self, p: int, at: list[int]) -> Impossible:
        """Follow which lane waits for which until one repeats."""
        rows: list[int] = []
        visited: dict[int, int] = {}
        while p not in visited:
            visited[p] = len(rows)
            row = self.lanes[p][at[p]]
            missing = self._missing(row)
            parent = self.parent.get(p)
            if parent is not None and ~p in self.lanes[parent][at[parent] :]:
                rows.append(row)  # it has not begun
                p = parent
                continue
            assert missing is not None, "a lane that waits for nothing"
            rows.extend((row, missing))
            p = self.lane_of[missing]
        return Impossible(
            list(dict.fromkeys(rows[visited[p] :])), "operations are causally before themselves"
        )
