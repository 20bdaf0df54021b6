"""Is the history causally consistent?

Causal order is what the processes knew: program order, and a write before the operations that saw
it, closed transitively. With unique written values the history is causally consistent iff none of
these patterns is in it (Bouajjani, Enea, Guerraoui, Hamza, "On Verifying Causal Consistency", POPL
2017, theorem 5.1: "CC"):

- a value that nobody wrote was read;
- causal order has a cycle;
- a read saw write w1, although another write w2 on the key is causally after w1 and before the read
  (or saw the initial value, although a write on the key is causally before the read).

Causal order is computed from the operations alone, as one vector clock per operation with an entry
per process: O(operations x processes). No clock of a replica is trusted. Of siblings it is enough
that one is not outdated. Final reads are left out: no process made them. Reads of which the
outcome is unknown say nothing; writes of which it is unknown count once they were seen, as they
are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.checkers import witness as words
from bench.checkers.columns import NULL, Columns, Int32s
from bench.checkers.reads_from import ReadsFrom, lanes, reads_from
from bench.run_folder import Check, VerdictValue

_NOT_YET = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class _Found:
    """A pattern: the rows that show it, and what it is."""

    rows: list[int]
    what: str


class _TooMuch(Exception):
    """More memory or time than allowed."""


def check_causal(
    c: Columns, initial: int = NULL, *, memory_bytes: int = 1 << 30, budget_s: float = 30.0
) -> Check:
    """The verdict; *unknown* where keys had to be left out or the clocks do not fit in the
    memory."""
    began = time.perf_counter()
    seen = reads_from(c, initial)
    verdict: VerdictValue = "valid"
    found: _Found | None = None
    if len(seen.unknown):
        found = _Found([int(seen.unknown[0])], "a value was read that nobody wrote")
    else:
        try:
            found = _Closure(c, seen, memory_bytes).run(time.monotonic() + budget_s)
        except _TooMuch as too_much:
            verdict, summary = "unknown", str(too_much)
    witness = words.lines([c.record(row) for row in found.rows]) if found else []
    if found is not None:
        verdict, summary = "invalid", f"{found.what}: {words.sentence(witness)}"
    elif verdict == "valid":
        summary = "no operation contradicts what its process knew"
        if len(c) == 0:
            verdict, summary = "unknown", "there are no operations"
        elif seen.keys_left_out:
            verdict = "unknown"
            summary = f"{seen.keys_left_out} keys left out, their values are not unique"
    return Check(
        name="causal",
        verdict=verdict,
        model="causal",
        algorithm="vector clocks of the processes",
        operations=len(c),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=witness,
        details={"keys_left_out": seen.keys_left_out},
    )


class _Closure:
    """Goes through the processes side by side; a process waits where it saw a write to come.

    ``clock[p][q]``: how many writes of q are causally before what p does next.
    ``overtaken[w][q]``: the number of the first write of q on the key of w that is causally after
    w: a reader whose clock has reached it must not see w any more.
    """

    def __init__(self, c: Columns, seen: ReadsFrom, memory_bytes: int) -> None:
        self.c = c
        is_write = np.zeros(len(c), np.bool_)
        is_write[seen.writes] = True
        observes = np.zeros(len(c), np.bool_)
        observes[seen.rows] = True
        takes_part = (is_write | observes) & ~seen.is_final
        rows = np.flatnonzero(takes_part)
        lane = lanes(c, rows)
        order = np.lexsort((c.completed[rows], c.invoked[rows], lane))
        rows = rows[order]
        processes, self.process = np.unique(lane[order], return_inverse=True)
        self.width = len(processes)
        self.rows: list[int] = rows.tolist()
        self.place = np.full(len(c), -1, np.int64)
        self.place[rows] = np.arange(len(rows))
        writes = int(is_write[rows].sum())
        if (2 * writes + len(c.keys) * self.width) * self.width * 4 > memory_bytes:
            raise _TooMuch(
                f"the clocks of {writes} writes and {self.width} processes need too much memory"
            )
        self.is_write = is_write
        self.saw: dict[int, list[int]] = {}
        for row, write in zip(seen.rows.tolist(), seen.write.tolist(), strict=True):
            if takes_part[row]:
                self.saw.setdefault(row, []).append(write)
        self.first = np.searchsorted(self.process, np.arange(self.width)).tolist()
        self.last = np.searchsorted(self.process, np.arange(self.width), "right").tolist()
        self.clock = np.zeros((self.width, self.width), np.int32)
        self.clock_of: dict[int, Int32s] = {}
        self.number_of: dict[int, int] = {}
        self.overtaken: dict[int, Int32s] = {}
        self.by_number: dict[tuple[int, int], int] = {}
        # Per key and process: its writes there, and how far each process has marked them overtaken.
        self.on_key: dict[int, list[list[int]]] = {}
        self.marked: dict[int, Any] = {}
        self.from_start: dict[int, Int32s] = {}

    def run(self, deadline: float) -> _Found | None:
        """A pattern, None if there is none. Raises _TooMuch after ``deadline`` (monotonic
        seconds)."""
        waiting: dict[int, list[int]] = {}
        todo = list(range(self.width))
        at = list(self.first)
        while todo:
            p = todo.pop()
            while at[p] < self.last[p]:
                row = self.rows[at[p]]
                missing = next(
                    (w for w in self.saw.get(row, ()) if w >= 0 and w not in self.clock_of), None
                )
                if missing is not None:
                    assert self.place[missing] >= 0, "a final read wrote"
                    waiting.setdefault(missing, []).append(p)
                    break
                if row in self.saw:
                    found = self._read(p, row)
                    if found is not None:
                        return found
                if self.is_write[row]:
                    self._write(p, row)
                    if len(self.clock_of) % 256 == 0 and time.monotonic() > deadline:
                        raise _TooMuch("undecided: out of time")
                    todo.extend(waiting.pop(row, ()))
                at[p] += 1
        stuck = [p for p in range(self.width) if at[p] < self.last[p]]
        if stuck:
            return self._cycle(stuck, at)
        return None

    def _read(self, p: int, row: int) -> _Found | None:
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
        return _Found(rows, "a read saw a value that its process knew to be overwritten")

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
        marked[p] = number - 1  # its next write there comes after this one too
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

    def _cycle(self, stuck: list[int], at: list[int]) -> _Found:
        """Follow who waits for whom until somebody comes again."""
        rows: list[int] = []
        seen: dict[int, int] = {}
        p = stuck[0]
        while p not in seen:
            seen[p] = len(rows)
            row = self.rows[at[p]]
            write = next(w for w in self.saw[row] if w >= 0 and w not in self.clock_of)
            rows.extend((row, write))
            p = int(self.process[self.place[write]])
        return _Found(
            list(dict.fromkeys(rows[seen[p] :])), "operations are causally before themselves"
        )
