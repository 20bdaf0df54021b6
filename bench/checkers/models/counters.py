"""A counter: numbers are added, also negative ones, and reads return the sum.

For each read: what was added, ended ok, before it began has been counted; what began after it ended
has not; of all else any part may have been.

- *too low*, *too high*: the read is out of the bounds that this gives.
- *impossible*: it is within, but no part of what may have been counted makes that sum.
- *went back*: it is below what a read saw that ended before it began, though nobody subtracts.

(Jepsen's `counter` judges the bounds.) Reads are judged one by one, so a *valid* does not say that
one order explains all of them.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from bench.checkers.budget import Budget, OverBudget
from bench.checkers.models.findings import Findings, ended_ok, keys_of, named
from bench.record.columns import FAIL, NEVER, Bools, Int64s
from bench.record.models.operations import Operations

_MOST_BITS: Final = 1 << 22
"""Sums that are kept as bits."""
_MOST_SUMS: Final = 1 << 20
"""That are kept one by one, for one read."""
_SUM_BYTES: Final = 200
"""Of a sum, while there are twice as many of them."""
_MOST_ROWS: Final = 1000
"""Of a witness."""


def check_counter(
    o: Operations, findings: Findings, initial: int = 0, budget: Budget | None = None
) -> None:
    """What contradicts a counter that begins at ``initial``, key by key. ``budget``: for the sums
    that reads may have seen, by default without an end."""
    reads = 0
    budget = budget or Budget(math.inf)
    for key, rows in keys_of(o):
        one = _Counter(o, key, rows, initial)
        reads += len(one.reads)
        try:
            one.note(findings, budget)
        except OverBudget as over:
            findings.undecided = (
                f"reads are within their bounds; whether a sum makes them is {over}"
            )
    findings.details["reads"] = reads
    if reads == 0:
        findings.undecided = "the counter was never read"


class _Counter:
    def __init__(self, o: Operations, key: str, rows: Int64s, initial: int) -> None:
        self.o, self.of, self.initial = o, f" of {key}" if key else "", initial
        adds, reads = named(o, rows, "add"), ended_ok(o, named(o, rows, "read"))
        self.adds = adds[o.outcome[adds] != FAIL]
        self.reads = np.array([r for r in reads.tolist() if o.value_of(r) is not None], np.int64)
        self.amount = self._numbers(self.adds, "what is added")
        self.value = self._numbers(self.reads, "what is read")

    def _numbers(self, rows: Int64s, what: str) -> Int64s:
        some = [self.o.value_of(row) for row in rows.tolist()]
        for row, value in zip(rows.tolist(), some, strict=True):
            if type(value) is not int:
                raise self.o.refused(row, f"{what} of a counter is an integer")
            if abs(value) >= 1 << 40:
                raise self.o.refused(row, f"{what} of a counter is less than 2^40, either way")
        return np.array(some, np.int64)

    def note(self, findings: Findings, budget: Budget) -> None:
        """Note all anomalies. Raises OverBudget."""
        o, amount = self.o, self.amount
        begins, ends = o.invoked[self.reads], o.completed[self.reads]
        invoked, completed = o.invoked[self.adds], o.completed[self.adds]
        certain = self.initial + _sums(completed, amount, begins, inclusive=False)
        bounds = []
        for sign in (-1, 1):
            part = np.where(amount * sign > 0, amount, 0)
            begun = _sums(invoked, part, ends, inclusive=True)
            bounds.append(certain + begun - _sums(completed, part, begins, inclusive=False))
        low, high = bounds
        for name, wrong in (("too low", self.value < low), ("too high", self.value > high)):
            places = np.flatnonzero(wrong)
            if len(places):
                place = int(places[0])
                words = (
                    f"a read{self.of} saw {self.value[place]}, and it is between "
                    f"{low[place]} and {high[place]}"
                )
                findings.add(
                    name, self._evidence(place, too_low=name == "too low"), words, len(places)
                )
        self._note_went_back(findings)
        inside = np.flatnonzero((self.value >= low) & (self.value <= high))
        if (np.abs(amount) == 1).all():
            return
        self._note_impossible(findings, inside, certain, budget)

    def _open(self, place: int) -> Bools:
        """Adds that a read may count or not."""
        o, read = self.o, int(self.reads[place])
        begun = o.invoked[self.adds] <= o.completed[read]
        still: Bools = begun & (o.completed[self.adds] >= o.invoked[read])
        return still

    def _evidence(self, place: int, *, too_low: bool) -> list[int]:
        """The adds that a read must have counted and cannot have, as few as possible; or all that
        it can have counted. The read alone where these are too many to be shown."""
        o, read = self.o, int(self.reads[place])
        over = o.completed[self.adds] < o.invoked[read]
        sign = 1 if too_low else -1
        must = np.flatnonzero(over & (self.amount * sign > 0))
        may = np.flatnonzero((over | self._open(place)) & (self.amount * sign < 0))
        missing = (self.initial + int(self.amount[may].sum()) - int(self.value[place])) * sign
        must = must[np.argsort(-self.amount[must] * sign, kind="stable")]
        enough = np.searchsorted(missing + np.cumsum(self.amount[must] * sign), 1) + 1
        rows = np.concatenate((self.adds[may], self.adds[must[:enough]])).tolist()
        return [*rows, read] if len(rows) <= _MOST_ROWS else [read]

    def _note_went_back(self, findings: Findings) -> None:
        if (self.amount < 0).any() or len(self.reads) == 0:
            return
        o = self.o
        order = np.argsort(o.completed[self.reads], kind="stable")
        highest = np.maximum.accumulate(self.value[order])
        before = np.searchsorted(o.completed[self.reads][order], o.invoked[self.reads], "left")
        seen = np.where(before > 0, highest[np.maximum(before - 1, 0)], self.value)
        places = np.flatnonzero(self.value < seen)
        if len(places):
            place = int(places[0])
            earlier = int(order[np.argmax(self.value[order][: before[place]])])
            words = f"a read{self.of} saw {self.value[place]}, after one that saw {seen[place]}"
            rows = [int(self.reads[earlier]), int(self.reads[place])]
            findings.add("went back", rows, words, len(places))

    def _note_impossible(
        self, findings: Findings, inside: Int64s, certain: Int64s, budget: Budget
    ) -> None:
        """Try the sums that may have been seen, for as many reads as the budget allows."""
        for place in inside.tolist():
            budget.spend(8 + len(self.adds) // 512)
            amounts = self.amount[self._open(place)].tolist()
            if _makes(amounts, int(self.value[place] - certain[place]), budget):
                continue
            words = f"a read{self.of} saw {self.value[place]}, which no sum makes"
            over = self.o.completed[self.adds] < self.o.invoked[self.reads[place]]
            rows = self.adds[over | self._open(place)].tolist()[:_MOST_ROWS]
            findings.add("impossible", [*rows, int(self.reads[place])], words)


def _makes(amounts: list[int], wanted: int, budget: Budget) -> bool:
    """Whether some of the amounts make a sum. Raises OverBudget."""
    below = sum(-amount for amount in amounts if amount < 0)
    above = sum(amount for amount in amounts if amount > 0)
    if below + above <= _MOST_BITS:
        # Bit i: some make the sum i - below.
        made = 1 << below
        for amount in amounts:
            budget.spend(1 + (below + above >> 12))
            made |= made << amount if amount > 0 else made >> -amount
        return -below <= wanted and bool(made >> (below + wanted) & 1)
    sums = {0}
    for amount in amounts:
        budget.spend(len(sums))
        if len(sums) > _MOST_SUMS or len(sums) * _SUM_BYTES > budget.left_bytes():
            raise OverBudget("memory")
        sums |= {each + amount for each in sums}
    return wanted in sums


def _sums(times: Int64s, amounts: Int64s, until: Int64s, *, inclusive: bool) -> Int64s:
    """What was added before each of ``until``, or at it."""
    finite = times != NEVER
    order = np.argsort(times[finite], kind="stable")
    total = np.concatenate(([0], np.cumsum(amounts[finite][order])))
    side = "right" if inclusive else "left"
    found: Int64s = total[np.searchsorted(times[finite][order], until, side)]  # type: ignore[call-overload]
    return found
