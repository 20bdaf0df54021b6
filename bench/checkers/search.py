"""Linearizability of one register by search: for histories that the zones do not decide.

Theory of operation
-------------------
The just-in-time search (Lowe, "Testing for linearizability", Concurrency and Computation 29(4),
2017, section 6, after Wing and Gong, JPDC 17, 1993): go through the invocations and answers by
time, with a *configuration*: which of the open operations have taken effect, and the value of the
register. An operation need not take effect before some answer requires it. At the answer of an
operation that has not, some open operation takes effect: each that can be is tried, depth first,
what the answer asks for before all else; a configuration that was tried before is not tried again.
Nothing is left to try: the history is not linearizable, and what was invoked by the latest answer
that was reached shows it.

What keeps it small:

- An operation that only looks takes effect as soon as it fits, since waiting cannot help.
- Of open operations that do the same, the one that is answered first takes effect first: whatever
  follows if another one does, follows as well with the two exchanged.
- Operations that ended ``info`` stay open for ever, so those whose value nobody sees are left out,
  and of two configurations that differ only in how many of them were spent, the thriftier one does
  for both.

The search is exponential in the kinds of operations that are open at once. It stops at a budget of
time or memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np

from bench.checkers.budget import Budget, OverBudget
from bench.record.columns import CAS, DELETE, FAIL, INFO, NEVER, NULL, OK, READ, Columns, Int64s

LOOK: Final = 0
_LOOK_OTHER: Final = 1
SET: Final = 2
_SWAP: Final = 3
APPEND: Final = 4
_NO_VALUE: Final = -3

Outcome: TypeAlias = Literal["valid", "invalid", "time", "memory"]


@dataclass(frozen=True, slots=True)
class Step:
    """An operation as the search sees it. ``kind``: it sees ``value``, sees anything but ``value``,
    sets ``value``, swaps ``expected`` for ``value``, or appends ``value`` to what is there.
    ``returns``: None if it stays open."""

    row: int
    kind: int
    value: int
    expected: int
    invoked: int
    returns: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """``time`` and ``memory``: undecided, that budget was spent. ``rows``: for *invalid*, the rows
    that were invoked before it showed. ``configurations``: how many were tried."""

    outcome: Outcome
    rows: list[int]
    configurations: int


def steps(c: Columns, rows: Int64s) -> list[Step]:
    """The operations of ``rows``, all of one key, that see or change something."""
    found: list[Step] = []
    for row in rows.tolist():
        op, outcome = int(c.op[row]), int(c.outcome[row])
        if outcome == FAIL or (op == READ and (outcome == INFO or c.value[row] < 0)):
            continue
        invoked, completed = int(c.invoked[row]), int(c.completed[row])
        returns = None if outcome == INFO or completed == NEVER else completed
        value, expected, seen = int(c.value[row]), int(c.expected[row]), int(c.seen[row])
        if op == READ:
            step = Step(row, LOOK, value, 0, invoked, returns)
        elif op == CAS and outcome == OK and not c.applied[row]:
            if seen == expected:
                step = Step(row, LOOK, _NO_VALUE, 0, invoked, returns)
            elif seen >= 0:
                step = Step(row, LOOK, seen, 0, invoked, returns)
            else:
                step = Step(row, _LOOK_OTHER, expected, 0, invoked, returns)
        elif op == CAS:
            step = Step(row, _SWAP, value, expected, invoked, returns)
        else:
            step = Step(row, SET, NULL if op == DELETE else value, 0, invoked, returns)
        found.append(step)
    return _without_unseen(found)


def _without_unseen(found: list[Step]) -> list[Step]:
    """Leave out operations that may not have taken effect and whose value nobody sees."""
    if any(step.kind == _LOOK_OTHER for step in found):
        return found  # a refused CAS may have seen anything
    while True:
        seen = {step.value for step in found if step.kind == LOOK}
        seen |= {step.expected for step in found if step.kind == _SWAP}
        kept = [
            step
            for step in found
            if step.returns is not None or step.kind == LOOK or step.value in seen
        ]
        if len(kept) == len(found):
            return kept
        found = kept


class Texts:
    """The texts of a key that is appended to, by number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._joined: dict[tuple[int, int], int] = {}

    def number(self, text: str) -> int:
        """The number of a text."""
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def joined(self, before: int, behind: int) -> int:
        """The number of two texts, one behind the other."""
        number = self._joined.get((before, behind))
        if number is None:
            number = self.number(self.texts[before] + self.texts[behind])
            self._joined[before, behind] = number
        return number

    def begins(self, whole: int, part: int) -> bool:
        """Whether a text begins with another."""
        return self.texts[whole].startswith(self.texts[part])


def search(found: list[Step], initial: int, budget: Budget, texts: Texts | None = None) -> Result:
    """Whether the operations of one key are linearizable, within the budget."""
    never = _never_written(found, initial)
    if never is not None:
        return Result("invalid", [never.row], 0)
    machine = _Search(found, initial, budget, texts or Texts())
    try:
        return machine.run()
    except OverBudget as over:
        return Result(over.what, [], machine.tried)


def _never_written(found: list[Step], initial: int) -> Step | None:
    """An operation that saw a value that no other can have left; not where texts grow."""
    if any(step.kind == APPEND for step in found):
        return None
    written = {initial, *(step.value for step in found if step.kind in (SET, _SWAP))}
    return next((s for s in found if s.kind == LOOK and s.value not in written), None)


class _Open(NamedTuple):
    """A step as the search keeps it. ``begin`` and ``end``: the places of its events; ``bit``: what
    stands for it in a configuration while it is open."""

    end: int
    begin: int
    bit: int
    step: Step


class _Search:
    def __init__(self, found: list[Step], initial: int, budget: Budget, texts: Texts) -> None:
        self.found = found
        self.texts = texts
        self.initial = initial
        self.budget = budget
        self.tried = 0
        self.known: dict[tuple[int, int, int], list[int]] = {}
        self.stays_open = 0  # bits of the changers that never answer
        self.events: list[tuple[bool, _Open]] = []  # whether it is an answer, and of whom
        self.lookers: dict[
            int, list[_Open]
        ] = {}  # by the value they want, the first answered first
        self.pickers: list[_Open] = []  # that want any but one value
        self.changers: dict[tuple[int, int, int], list[_Open]] = {}  # by what they do
        self.looking: dict[tuple[int, int], int] = {}
        self._place_events()

    def _place_events(self) -> None:
        moments: list[tuple[int, int, int]] = []
        for number, step in enumerate(self.found):
            moments.append((step.invoked, 0, number))
            if step.returns is not None:
                moments.append((step.returns, 1, number))
        moments.sort()  # at the same time, invocations come first: a tie counts as concurrent
        ends = {number: place for place, (_, answers, number) in enumerate(moments) if answers}
        free: list[int] = []  # bits of what was answered; what stays open never had them
        bits = 0
        opened: dict[int, _Open] = {}
        for place, (_, answers, number) in enumerate(moments):
            if answers:
                free.append(opened[number].bit)
                self.events.append((True, opened[number]))
                continue
            step = self.found[number]
            if step.returns is not None and free:
                bit = free.pop()
            else:
                bit = 1 << bits
                bits += 1
            this = _Open(ends.get(number, len(moments)), place, bit, step)
            opened[number] = this
            self.events.append((False, this))
            if step.kind == LOOK:
                self.lookers.setdefault(step.value, []).append(this)
            elif step.kind == _LOOK_OTHER:
                self.pickers.append(this)
            else:
                does = (step.kind, step.value, step.expected)
                self.changers.setdefault(does, []).append(this)
                self.stays_open |= this.bit if step.returns is None else 0
        for some in (*self.lookers.values(), *self.changers.values(), self.pickers):
            some.sort()

    def run(self) -> Result:
        events, latest = self.events, 0
        stack = [(0, 0, self.initial)]
        while stack:
            place, mask, value = stack.pop()
            while place < len(events):
                is_answer, this = events[place]
                if not is_answer:
                    if this.step.kind in (LOOK, _LOOK_OTHER) and _fits(this.step, value):
                        mask |= this.bit
                elif mask & this.bit:
                    mask ^= this.bit
                else:
                    break
                place += 1
            else:
                return Result("valid", [], self.tried)
            latest = max(latest, place)
            if self._is_new(place, mask, value):
                stack += self._following(place, mask, value)
        rows = [this.step.row for is_answer, this in events[: latest + 1] if not is_answer]
        return Result("invalid", rows, self.tried)

    def _is_new(self, place: int, mask: int, value: int) -> bool:
        """False if this, or what is as good, was tried before. Notes it."""
        self.budget.spend(2)
        spent = mask & self.stays_open
        others = self.known.setdefault((place, mask ^ spent, value), [])
        if any(less & spent == less for less in others):
            return False
        others.append(spent)
        self.tried += 1
        self.budget.hold(self.tried)
        return True

    def _following(self, place: int, mask: int, value: int) -> list[tuple[int, int, int]]:
        """The configurations after one more operation, the one to try first at the end."""
        asked = self.events[place][1]
        wanted = asked.step.expected if asked.step.kind == _SWAP else asked.step.value
        found: list[tuple[bool, bool, int, int, int]] = []
        for (kind, leaves, expected), some in self.changers.items():
            if kind == _SWAP and expected != value:
                continue
            this = self._first_open(some, place, mask)
            if this is None:
                continue
            leads_there = leaves == wanted
            if kind == APPEND:
                leaves = self.texts.joined(value, leaves)
                leads_there = asked.step.kind == LOOK and self.texts.begins(wanted, leaves)
            after = mask | this.bit | self._lookers_of(place, leaves)
            found.append((this is asked, leads_there, -this.end, after, leaves))
        found.sort()
        return [(place, after, leaves) for _, _, _, after, leaves in found]

    def _first_open(self, some: list[_Open], place: int, mask: int) -> _Open | None:
        """Of operations that do the same, the open one that is answered first."""
        at = bisect_left(some, (place,))
        self.budget.spend()
        while at < len(some):
            this = some[at]
            if this.begin < place and not mask & this.bit:
                return this
            self.budget.spend()
            at += 1
        return None

    def _lookers_of(self, place: int, value: int) -> int:
        """The bits of the open operations that only look, and that fit."""
        bits = self.looking.get((place, value))
        if bits is None:
            bits = 0
            some = self.lookers.get(value, [])
            for this in some[bisect_left(some, (place,)) :]:
                bits |= this.bit if this.begin < place else 0
            for this in self.pickers[bisect_left(self.pickers, (place,)) :]:
                if this.begin < place and _fits(this.step, value):
                    bits |= this.bit
            self.budget.spend(len(some) + len(self.pickers))
            self.looking[place, value] = bits
        return bits


def _fits(step: Step, value: int) -> bool:
    return (step.value == value) == (step.kind == LOOK)


def smaller(c: Columns, rows: list[int], initial: int, budget: Budget) -> list[int]:
    """As few of ``rows`` (a contradiction on one key) as can be found in the time that are a
    contradiction by themselves.

    Only such operations are left out whose absence cannot make a contradiction: those that only
    look, and those that change the register to something that no operation left can have seen from
    them.
    """
    left = sorted(steps(c, np.array(sorted(rows), np.int64)), key=lambda step: step.invoked)
    latest = 8  # it mostly shows in what was seen last
    while latest < len(left):
        fewer = _unseen_left_out(
            [
                step
                for place, step in enumerate(left)
                if step.kind in (SET, _SWAP) or place >= len(left) - latest
            ]
        )
        if search(fewer, initial, budget).outcome == "invalid":
            left = fewer
            break
        latest *= 8
    block = max(1, len(left) // 2)
    while budget.left_s():
        changed = False
        place = 0
        while place < len(left) and budget.left_s():
            fewer = _without(left, left[place : place + block])
            if len(fewer) < len(left) and search(fewer, initial, budget).outcome == "invalid":
                left, changed = fewer, True
            else:
                place += block
        if block == 1 and not changed:
            break
        block = max(1, block // 2)
    return [step.row for step in left]


def _unseen_left_out(left: list[Step]) -> list[Step]:
    """``left`` (by time) without all changes that nobody has seen."""
    while True:
        if any(step.kind == _LOOK_OTHER for step in left):
            return left
        first_look: dict[int, int] = {}
        for step in left:
            seen = step.value if step.kind == LOOK else step.expected
            if step.kind in (LOOK, _SWAP):
                first_look.setdefault(seen, step.invoked)
        changes = [step for step in left if step.kind in (SET, _SWAP)]
        times = [step.invoked for step in changes]
        # By place: the first answer to a change from there on.
        answered = [np.inf] * (len(changes) + 1)
        for place in range(len(changes) - 1, -1, -1):
            returns = changes[place].returns
            answered[place] = answered[place + 1]
            if returns is not None:
                answered[place] = min(answered[place], returns)
        writers = Counter(step.value for step in changes)
        kept = []
        for step in left:
            if step.kind in (SET, _SWAP):
                looked = first_look.get(step.value)
                covered = (
                    step.returns is not None
                    and looked is not None
                    and answered[bisect_right(times, step.returns)] < looked
                    and writers[step.value] > 1
                )
                if looked is None or covered:
                    writers[step.value] -= 1
                    continue
            kept.append(step)
        if len(kept) == len(left):
            return kept
        left = kept


def _without(left: list[Step], unwanted: list[Step]) -> list[Step]:
    """``left`` without those of ``unwanted`` that are safe to leave out."""
    gone = {step.row for step in unwanted if step.kind in (LOOK, _LOOK_OTHER)}
    looking = [step for step in left if step.row not in gone]
    for step in unwanted:
        if step.kind in (SET, _SWAP) and not _can_be_seen(step, looking):
            looking = [other for other in looking if other.row != step.row]
    return looking


def _can_be_seen(step: Step, left: list[Step]) -> bool:
    """Whether some operation may have seen the value of ``step``. If another operation wrote the
    same value, those after a further change that began after ``step`` had ended do not count."""
    changes = [other for other in left if other.kind in (SET, _SWAP) and other.row != step.row]
    end = step.returns
    covered_from = min(
        (
            other.returns
            for other in changes
            if end is not None and other.returns is not None and other.invoked > end
        ),
        default=None,
    )
    if not any(other.value == step.value for other in changes):
        covered_from = None  # the witness would not tell where the value came from
    for other in left:
        if other.row == step.row:
            continue
        looks = (
            other.kind == _LOOK_OTHER
            or (other.kind == LOOK and other.value == step.value)
            or (other.kind == _SWAP and other.expected == step.value)
        )
        if looks and (covered_from is None or other.invoked <= covered_from):
            return True
    return False
