"""A queue: elements are enqueued, and each is dequeued once. A dequeue that finds the queue empty
answers null; a ``drain`` dequeues until it does, and answers all that it took.

An element is certainly in the queue from when its enqueue was answered until the dequeue that took
it began (if none did, for ever).

- *unexpected*: an element was dequeued that nobody can have enqueued by then.
- *duplicated*: it was dequeued more often than it was enqueued.
- *lost*: it was enqueued, nobody took it, and the queue was found empty later.
- *not empty*: the queue was found empty while all the time one element or another certainly was in
  it.
- *reordered*: of two elements of one producer the later was taken before the earlier: its dequeue
  had ended before that of the earlier began, or nobody took the earlier at all.

(Jepsen's `total-queue` has the first three; the characterization of queues by such pairs is that of
Henzinger, Sezgin and Vafeiadis, "Aspect-Oriented Linearizability Proofs", CONCUR 2013.) A
``total-queue`` may be *reordered* and has no other of these, a ``queue`` has none: then it is
linearizable, as a bag, or as one queue for each producer.

A dequeue that ended ``info`` may have taken any one element: so many elements are not lost. That a
``dequeue`` ended ``fail`` says nothing. Where elements are not unique, or some dequeue of unknown
outcome could explain it, what is not refuted is *unknown* as far as it depends on that.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from bench.checkers.models.findings import Findings, keys_of
from bench.record.columns import FAIL, INFO, NEVER, OK, value_key
from bench.record.models.operations import Operations
from bench.record.quantities import plural

_MOST_ROWS: Final = 1000


@dataclass(slots=True)
class _Element:
    """One element that was enqueued once. ``taken``: the row of its dequeue, -1 if nobody took
    it."""

    value: Any
    row: int
    taken: int = -1


@dataclass(slots=True)
class _Queue:
    """What happened to one queue. ``taken``: pairs of a value and the row that took it;
    ``unsure``: rows of dequeues of unknown outcome; ``empty``: rows that found it empty."""

    enqueues: list[int] = field(default_factory=list)
    taken: list[tuple[Any, int]] = field(default_factory=list)
    unsure: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)


def check_queue(o: Operations, findings: Findings) -> None:
    """What contradicts a queue, key by key."""
    left = 0
    for key, rows in keys_of(o):
        queue = _sorted_out(o, rows.tolist())
        left += _Check(o, f" of {key}" if key else "", queue, findings).run()
    findings.details["left_in_queue"] = left
    if left:
        findings.details["note"] = (
            f"{plural(left, 'element')} nobody took, and nobody found the queue empty afterwards"
        )


def _sorted_out(o: Operations, rows: list[int]) -> _Queue:
    queue = _Queue()
    for row in rows:
        name, outcome, value = o.names[o.op[row]], int(o.outcome[row]), o.value_of(row)
        if outcome == FAIL:
            continue
        if name == "enqueue":
            if value is None or isinstance(value, list | dict):
                raise o.refused(row, "what is enqueued is a boolean, a number or a text")
            queue.enqueues.append(row)
        elif outcome == INFO:
            queue.unsure.append(row)
        elif name == "dequeue":
            if isinstance(value, list | dict):
                raise o.refused(row, "what is dequeued is a boolean, a number or a text")
            if value is None:
                if o.null_is_told:
                    queue.empty.append(row)
            else:
                queue.taken.append((value, row))
        else:
            if not isinstance(value, list):
                raise o.refused(row, "a drain answers a list of elements")
            queue.taken.extend((each, row) for each in value)
            queue.empty.append(row)
    return queue


class _Check:
    def __init__(self, o: Operations, of: str, queue: _Queue, findings: Findings) -> None:
        self.o, self.of, self.queue, self.findings = o, of, queue, findings
        self.elements: dict[Any, list[_Element]] = {}
        for row in queue.enqueues:
            value = o.value_of(row)
            self.elements.setdefault(value_key(value), []).append(_Element(value, row))
        self.is_unique = all(len(each) == 1 for each in self.elements.values())
        self.is_passed_over = False
        self.unsure = sorted(queue.unsure, key=lambda row: int(o.invoked[row]))
        self.unsure_since = [int(o.invoked[row]) for row in self.unsure]
        drains = (int(o.invoked[row]) for row in self.unsure if o.names[o.op[row]] == "drain")
        self.drained_since = min(drains, default=NEVER)

    def run(self) -> int:
        """Note all anomalies. How many elements may still be in the queue."""
        o = self.o
        self._note_taken()
        every = [each for some in self.elements.values() for each in some]
        waiting = [e for e in every if e.taken < 0 and o.outcome[e.row] == OK]
        if not self.is_unique:
            self._not_unique()
            return len(waiting)
        lost = self._note_lost(waiting)
        self._note_reordered(every)
        sure = [e for e in every if o.outcome[e.row] == OK]
        if self.queue.unsure or lost:
            sure = [e for e in sure if e.taken >= 0]
        self._note_not_empty(sure)
        if self.queue.unsure and waiting and (self.queue.empty or self.is_passed_over):
            self.findings.undecided = (
                "elements that nobody took may have been taken by dequeues of unknown outcome"
            )
        return len(waiting) - lost

    def _not_unique(self) -> None:
        if self.queue.empty or self.queue.taken:
            self.findings.undecided = (
                "values are enqueued more than once, so nobody knows which of them was taken"
            )

    def _note_taken(self) -> None:
        """Give each element that was taken to the enqueue that began first; note what cannot be."""
        o, findings = self.o, self.findings
        by_value: dict[Any, list[int]] = {}
        for value, row in self.queue.taken:
            by_value.setdefault(value_key(value), []).append(row)
        for key, rows in by_value.items():
            elements = self.elements.get(key, [])
            elements.sort(key=lambda each: int(o.invoked[each.row]))
            rows.sort(key=lambda row: int(o.completed[row]))
            for element, row in zip(elements, rows, strict=False):
                element.taken = row
                if o.completed[row] < o.invoked[element.row]:
                    words = f"{element.value!r}{self.of} was dequeued before its enqueue began"
                    findings.add("unexpected", [element.row, row], words)
            value = key[1] if isinstance(key, tuple) else key
            if not elements:
                words = f"{value!r}{self.of} was dequeued, and nobody enqueued it"
                findings.add("unexpected", rows[:1], words, len(rows))
            elif len(rows) > len(elements):
                words = (
                    f"{value!r}{self.of} was dequeued {len(rows)} times, and enqueued "
                    f"{len(elements)}"
                )
                all_rows = [*(each.row for each in elements), *dict.fromkeys(rows)]
                findings.add("duplicated", all_rows, words, len(rows) - len(elements))

    def _taken_by_the_unsure(self, until: int) -> int:
        """How many elements dequeues of unknown outcome can have taken by then."""
        if self.drained_since <= until:
            return NEVER
        return bisect_right(self.unsure_since, until)

    def _note_lost(self, waiting: list[_Element]) -> int:
        """Elements that nobody took, though the queue was found empty. Each dequeue of unknown
        outcome that had begun by then may have taken one."""
        o = self.o
        most, worst = 0, -1
        since = sorted(int(o.completed[e.row]) for e in waiting)
        for row in self.queue.empty:
            gone = bisect_left(since, int(o.invoked[row]))
            if gone - self._taken_by_the_unsure(int(o.completed[row])) > most:
                most, worst = gone - self._taken_by_the_unsure(int(o.completed[row])), row
        if worst < 0:
            return 0
        thieves = self.unsure[: self._taken_by_the_unsure(int(o.completed[worst]))]
        gone_rows = [e.row for e in waiting if o.completed[e.row] < o.invoked[worst]]
        value = o.value_of(gone_rows[0])
        also = (
            f", {plural(len(thieves), 'dequeue')} of unknown outcome counted in" if thieves else ""
        )
        words = f"{value!r}{self.of} was enqueued, nobody took it, and the queue was empty{also}"
        rows = [*gone_rows[: len(thieves) + 1], *thieves, worst]
        self.findings.add("lost", rows[:_MOST_ROWS], words, most)
        return most

    def _note_reordered(self, every: list[_Element]) -> None:
        """Per producer, in the order of its enqueues: the latest begin of a dequeue so far must not
        be after the end of the next one."""
        o = self.o
        by_producer: dict[int, list[_Element]] = {}
        for element in every:
            by_producer.setdefault(int(o.process[element.row]), []).append(element)
        for elements in by_producer.values():
            elements.sort(key=lambda e: (int(o.invoked[e.row]), int(o.gave_up[e.row]), e.row))
            latest: _Element | None = None
            waiting: list[_Element] = []
            for element in elements:
                if element.taken >= 0:
                    ended = int(o.completed[element.taken])
                    if latest is not None and o.invoked[latest.taken] > ended:
                        self._add_reordered(latest, element)
                    self._note_passed_over(waiting, element, ended)
                if o.outcome[element.row] != OK:
                    continue  # it may have been enqueued at any time after
                if element.taken < 0:
                    waiting.append(element)
                elif latest is None or o.invoked[element.taken] > o.invoked[latest.taken]:
                    latest = element

    def _add_reordered(self, earlier: _Element, later: _Element) -> None:
        words = (
            f"{later.value!r}{self.of} was dequeued before {earlier.value!r}, which its producer "
            "had enqueued before it"
        )
        rows = [earlier.row, later.row, later.taken, earlier.taken]
        self.findings.add("reordered", rows, words)

    def _note_passed_over(self, waiting: list[_Element], later: _Element, ended: int) -> None:
        """Elements that nobody took, though a later one was: too many for the dequeues of unknown
        outcome to have taken them all."""
        count = self._taken_by_the_unsure(ended)
        self.is_passed_over |= len(waiting) > 0
        if len(waiting) <= count:
            return
        earlier, unsure = waiting[0], self.unsure[:count]
        words = (
            f"{later.value!r}{self.of} was dequeued, and nobody took {earlier.value!r}, which its "
            "producer had enqueued before it"
        )
        rows = [*(each.row for each in waiting[: count + 1]), later.row, later.taken, *unsure]
        self.findings.add("reordered", rows[:_MOST_ROWS], words)

    def _note_not_empty(self, sure: list[_Element]) -> None:
        """Found empty while at each instant some element of ``sure`` was in."""
        o = self.o
        ends = [NEVER if e.taken < 0 else int(o.invoked[e.taken]) for e in sure]
        spans = [
            (int(o.completed[element.row]), end, element)
            for element, end in zip(sure, ends, strict=True)
            if end > o.completed[element.row]
        ]
        joined = _union([(begin, end) for begin, end, _ in spans])
        rows = [row for row in self.queue.empty if self._within(joined, row)]
        if not rows:
            return
        begin, end = int(o.invoked[rows[0]]), int(o.completed[rows[0]])
        over = [each for low, high, each in spans if low < end and high > begin]
        words = f"the queue{self.of} was found empty, and always something was in it"
        shown = [each for e in over for each in (e.row, e.taken) if each >= 0]
        self.findings.add("not empty", [*shown[: _MOST_ROWS - 1], rows[0]], words, len(rows))

    def _within(self, joined: tuple[Any, Any], row: int) -> bool:
        """Whether an operation lies inside one of the open intervals."""
        begins, ends = joined
        place = int(np.searchsorted(begins, self.o.invoked[row], "left")) - 1
        return place >= 0 and bool(ends[place] > self.o.completed[row])


def _union(spans: list[tuple[int, int]]) -> tuple[Any, Any]:
    """The union of open intervals as begins and ends, in order; those that only touch stay
    apart."""
    begins: list[int] = []
    ends: list[int] = []
    for begin, end in sorted(spans):
        if ends and begin < ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            begins.append(begin)
            ends.append(end)
    return np.array(begins, np.int64), np.array(ends, np.int64)
