"""A set that grows: elements are added, and reads return all of them.

An element is *known* from when its add was answered ok, or a read that has it ended, whichever was
first.

- *unexpected*: a read has an element of which no add can have taken effect by then.
- *duplicated*: a read has an element twice.
- *lost*: of the reads that began after it was known, the one that began last misses it, and began
  after all that have it.
- *resurrected*: not lost, but a read misses it that began after another that has it had ended.
- *stale*: not lost, but a read misses it that began after it was known.
- *incomparable*: of two reads each has an element that the other misses.
- *skipped*: a read has an element and misses another, whose add had ended before the add of the
  first began.

(Jepsen's `set-full` has the first five.) A ``set`` has none of the first three, a ``set-full`` none
at all: then it is linearizable, and not otherwise. Reads that are ordered by inclusion put each add
between two of them, so there is nothing left to search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bench.checkers.models.findings import Findings, ended_ok, keys_of, named
from bench.record.columns import FAIL, NEVER, Bools, Int64s, Numbering
from bench.record.models.operations import Operations

_NONE: Final = np.iinfo(np.int64).min
_MISSED: Final = {
    "lost": "was known, and is missing from the last reads",
    "resurrected": "was read, then missing, then there again",
    "stale": "was known, and a read that began later misses it",
}


def check_set(o: Operations, findings: Findings) -> None:
    """What contradicts a set, key by key."""
    reads = 0
    staleness: list[Int64s] = []
    for key, rows in keys_of(o):
        one = _Set.made(o, key, rows)
        reads += len(one.reads)
        if len(one.reads):
            staleness.append(one.note(findings))
    findings.details["reads"] = reads
    ages = np.concatenate(staleness) if staleness else np.zeros(0, np.int64)
    if len(ages):
        quantiles = np.quantile(ages / 1e9, (0.5, 0.99, 1.0)).tolist()
        findings.details["stale_s"] = dict(zip(("p50", "p99", "max"), quantiles, strict=True))
    if reads == 0:
        findings.undecided = "the set was never read"


@dataclass(slots=True)
class _Set:
    """One set. Of its adds that did not fail: ``adds`` are their rows, ``added`` the numbers of
    what they add. Of elements by number: ``begun`` and ``acknowledged``, when their first add
    began, and when the first add that ended ok did. Reads by number, the one that began last first:
    ``reads`` are their rows. ``element`` and ``read``: which read has which element, once.
    ``twice``: places in these of what a read has more than once."""

    o: Operations
    of: str
    elements: list[Any]
    adds: Int64s
    added: Int64s
    begun: Int64s
    acknowledged: Int64s
    reads: Int64s
    element: Int64s
    read: Int64s
    twice: Int64s

    @classmethod
    def made(cls, o: Operations, key: str, rows: Int64s) -> _Set:
        """The set that ``rows`` are operations on."""
        adds, reads = _adds_and_reads(o, rows)
        contents = [o.value_of(row) for row in reads.tolist()]
        added = [o.value_of(row) for row in adds.tolist()]
        codes, elements = _numbered([*added, *(each for some in contents for each in some)])
        mine, theirs = codes[: len(adds)], codes[len(adds) :]
        read = np.repeat(np.arange(len(reads)), [len(content) for content in contents])
        count = max(1, len(reads))
        pairs, counts = np.unique(theirs * count + read, return_counts=True)
        begun, acknowledged = np.full(len(elements), NEVER), np.full(len(elements), NEVER)
        np.minimum.at(begun, mine, o.invoked[adds])
        np.minimum.at(acknowledged, mine, o.completed[adds])
        return cls(
            o=o,
            of=f" of {key}" if key else "",
            elements=elements,
            adds=adds,
            added=mine,
            begun=begun,
            acknowledged=acknowledged,
            reads=reads,
            element=pairs // count,
            read=pairs % count,
            twice=np.flatnonzero(counts > 1),
        )

    def note(self, findings: Findings) -> Int64s:
        """Note all anomalies. For how long elements were missed that were not lost, in ns."""
        o, n = self.o, len(self.elements)
        begins, ends = o.invoked[self.reads], o.completed[self.reads]
        first_seen, last_present = np.full(n, NEVER), np.full(n, _NONE)
        np.minimum.at(first_seen, self.element, ends[self.read])
        np.maximum.at(last_present, self.element, begins[self.read])
        for place in self.twice[:1].tolist():
            row = int(self.reads[self.read[place]])
            words = f"a read has {self._shown(int(self.element[place]))} more than once"
            findings.add("duplicated", [row], words, len(self.twice))
        self._note_unexpected(findings, first_seen)
        known = np.minimum(self.acknowledged, first_seen)
        # Reads are numbered from the last: the first number that an element does not have is the
        # last read that misses it.
        starts = np.searchsorted(self.element, np.arange(n))
        place = np.arange(len(self.element)) - starts[self.element]
        absent = np.bincount(self.element[self.read == place], minlength=n)
        is_missed = absent < len(self.reads)
        missed = np.where(is_missed, begins[np.where(is_missed, absent, 0)], _NONE)
        late = is_missed & (known < missed)
        lost = late & (last_present < missed)
        again = late & ~lost & (first_seen < missed)
        stale = late & ~lost & ~again
        self._note_missed(findings, "lost", lost, absent, first_seen)
        self._note_missed(findings, "resurrected", again, absent, first_seen)
        self._note_missed(findings, "stale", stale, absent, first_seen)
        self._note_order(findings)
        return o.times.apart(missed[again | stale], known[again | stale])

    def _shown(self, element: int) -> str:
        return f"{self.elements[element]!r}{self.of}"

    def _first_read_of(self, element: int) -> int:
        """The row of the read that had the element and ended first."""
        rows = self.reads[self.read[self.element == element]]
        return int(rows[np.argmin(self.o.completed[rows])])

    def _first_add(self, element: int) -> list[int]:
        """The row of the add that began first; none if there is no add."""
        rows = self.adds[self.added == element]
        return [int(rows[np.argmin(self.o.invoked[rows])])] if len(rows) else []

    def _first_acknowledged(self, element: int) -> int:
        """The row of the add that was answered first."""
        rows = self.adds[self.added == element]
        return int(rows[np.argmin(self.o.completed[rows])])

    def _note_unexpected(self, findings: Findings, first_seen: Int64s) -> None:
        early = np.flatnonzero(first_seen < self.begun)
        if len(early):
            element = int(early[0])
            rows = [*self._first_add(element), self._first_read_of(element)]
            by_then = " by then" if len(rows) > 1 else ""
            words = f"{self._shown(element)} was read, and nobody can have added it{by_then}"
            findings.add("unexpected", rows, words, len(early))

    def _note_missed(
        self, findings: Findings, name: str, which: Bools, absent: Int64s, first_seen: Int64s
    ) -> None:
        places = np.flatnonzero(which)
        if len(places) == 0:
            return
        element = int(places[0])
        if name == "resurrected" or self.acknowledged[element] > first_seen[element]:
            rows = [*self._first_add(element), self._first_read_of(element)]
        else:
            rows = [self._first_acknowledged(element)]
        rows.append(int(self.reads[absent[element]]))
        words = f"{self._shown(element)} {_MISSED[name]}"
        findings.add(name, rows, words, len(places))

    def _note_order(self, findings: Findings) -> None:
        """What contradicts one order, though no read is late."""
        sizes = np.bincount(self.read, minlength=len(self.reads))
        by_size = np.argsort(sizes, kind="stable")
        rank = np.empty(len(by_size), np.int64)
        rank[by_size] = np.arange(len(by_size))
        first = np.full(len(self.elements), len(by_size))
        np.minimum.at(first, self.element, rank[self.read])
        union = np.cumsum(np.bincount(first, minlength=len(by_size) + 1)[: len(by_size)])
        torn = np.flatnonzero(union != sizes[by_size])
        if len(torn):
            larger = int(by_size[torn[0]])
            outside = self._not_in(larger, np.flatnonzero(first < torn[0]))
            smaller = int(by_size[first[outside]])
            inside = self._not_in(smaller, self.element[self.read == larger])
            rows = [*self._first_add(outside), *self._first_add(inside)]
            rows += [int(self.reads[smaller]), int(self.reads[larger])]
            words = "each of two reads has an element that the other misses"
            findings.add("incomparable", rows, words, len(torn))
            return
        self._note_skipped(findings, first, by_size)

    def _not_in(self, read: int, elements: Int64s) -> int:
        """The first of some elements that a read does not have."""
        having = self.element[self.read == read]
        return int(elements[~np.isin(elements, having)][0])

    def _note_skipped(self, findings: Findings, slot: Int64s, by_size: Int64s) -> None:
        """``slot``: the first read, by size, that has an element."""
        order = np.argsort(-slot, kind="stable")
        order = order[self.begun[order] != NEVER]
        if len(order) == 0:
            return
        earliest = np.minimum.accumulate(self.acknowledged[order])
        # Those of a later slot come before where this slot begins.
        begin = np.searchsorted(-slot[order], -slot[order], "left")
        before = np.where(begin > 0, earliest[np.maximum(begin - 1, 0)], NEVER)
        skipped = np.flatnonzero(before < self.begun[order])
        if len(skipped) == 0:
            return
        place = int(skipped[0])
        element = int(order[place])
        other = int(order[np.argmin(self.acknowledged[order[: begin[place]]])])
        read = int(self.reads[by_size[slot[element]]])
        words = (
            f"a read has {self._shown(element)} and misses {self._shown(other)}, which had been "
            "added before"
        )
        rows = [self._first_acknowledged(other), *self._first_add(element), read]
        findings.add("skipped", rows, words, len(skipped))


def _adds_and_reads(o: Operations, rows: Int64s) -> tuple[Int64s, Int64s]:
    """The rows of adds that did not fail, and of reads that were told something, the one that began
    last first."""
    adds = named(o, rows, "add")
    for row in adds.tolist():
        if isinstance(o.value_of(row), list | dict | None):
            raise o.refused(row, "an element is a boolean, a number or a text")
    reads = ended_ok(o, named(o, rows, "read"))
    told = []
    for row in reads.tolist():
        value = o.value_of(row)
        if value is not None and not isinstance(value, list):
            raise o.refused(row, "a read of a set is a list of its elements")
        if value is not None:
            told.append(row)
    found = np.array(told, np.int64)
    return adds[o.outcome[adds] != FAIL], found[np.argsort(-o.invoked[found], kind="stable")]


def _numbered(values: list[Any]) -> tuple[Int64s, list[Any]]:
    """Elements by number, and which they are."""
    if all(type(value) is int for value in values):
        try:
            distinct, codes = np.unique(np.array(values, np.int64), return_inverse=True)
        except OverflowError:
            pass
        else:
            return codes.astype(np.int64), distinct.tolist()
    numbering = Numbering()
    codes = np.array([numbering.code(_scalar(value)) for value in values], np.int64)
    return codes, numbering.values


def _scalar(value: Any) -> Any:
    return str(value) if isinstance(value, list | dict) else value
