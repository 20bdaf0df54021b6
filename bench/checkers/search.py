"""Linearizability of one register by search, for histories that zones do not decide.

Theory of operation
-------------------
The just-in-time search (Lowe, "Testing for linearizability", Concurrency and Computation 29(4),
2017, section 6, after Wing and Gong, JPDC 17, 1993) goes through the invocations and answers by
time and keeps every possible *configuration*: which open operations have taken effect, and the
value of the register. No operation need take effect before some answer requires it; at the answer
of operation i, every configuration must apply i, after any sequence of open operations. If none
can, the history is not linearizable, and the operations invoked so far show it.

To keep the search small, an operation that only looks takes effect as soon as it fits: waiting
cannot help. Operations that ended ``info`` stay open for ever, so those whose value nobody sees are
left out, equal ones take effect in order, and of two configurations that differ only in how many of
them they have spent, only the thriftier is kept.

The search is exponential in the number of operations open at once. It stops when its budget of time
or memory is spent.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from bench.record.columns import CAS, DELETE, FAIL, INFO, NEVER, NULL, OK, READ, Columns, Int64s

BYTES_PER_CONFIGURATION: Final = 200
"""A rough upper bound on the size of a configuration in a Python set."""
_CHECK_EVERY: Final = 512

_LOOK: Final = 0
_LOOK_OTHER: Final = 1
_SET: Final = 2
_SWAP: Final = 3
_NO_VALUE: Final = -3

Outcome: TypeAlias = Literal["valid", "invalid", "time", "memory"]
Configuration: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Step:
    """An operation as the search sees it. ``kind``: it sees ``value``, sees anything but ``value``,
    sets ``value``, or swaps ``expected`` for ``value``. ``returns``: None if it stays open."""

    row: int
    kind: int
    value: int
    expected: int
    invoked: int
    returns: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """``time`` and ``memory``: undecided, that budget was spent. ``rows``: for *invalid*, the rows
    invoked before the contradiction. ``configurations``: the most kept at once."""

    outcome: Outcome
    rows: list[int]
    configurations: int


class _OverBudget(Exception):
    def __init__(self, what: Literal["time", "memory"]) -> None:
        super().__init__(what)
        self.what: Literal["time", "memory"] = what


class Budget:
    """The limits of a search, shared by the searches of all keys."""

    def __init__(self, seconds: float, memory_bytes: int) -> None:
        self._deadline = time.monotonic() + seconds
        self._most = max(1, memory_bytes // BYTES_PER_CONFIGURATION)
        self._spent = 0

    def is_spent(self) -> bool:
        """Whether the time is spent."""
        return time.monotonic() > self._deadline

    def spend(self, configurations: int) -> None:
        """Count one step that holds so many configurations. Raises _OverBudget."""
        if configurations > self._most:
            raise _OverBudget("memory")
        self._spent += 1
        if self._spent % _CHECK_EVERY == 1 and time.monotonic() > self._deadline:
            raise _OverBudget("time")


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
            step = Step(row, _LOOK, value, 0, invoked, returns)
        elif op == CAS and outcome == OK and not c.applied[row]:
            if seen == expected:
                step = Step(row, _LOOK, _NO_VALUE, 0, invoked, returns)
            elif seen >= 0:
                step = Step(row, _LOOK, seen, 0, invoked, returns)
            else:
                step = Step(row, _LOOK_OTHER, expected, 0, invoked, returns)
        elif op == CAS:
            step = Step(row, _SWAP, value, expected, invoked, returns)
        else:
            step = Step(row, _SET, NULL if op == DELETE else value, 0, invoked, returns)
        found.append(step)
    return _without_unseen(found)


def _without_unseen(found: list[Step]) -> list[Step]:
    """Leave out operations that may not have taken effect and whose value nobody sees."""
    if any(step.kind == _LOOK_OTHER for step in found):
        return found  # a refused CAS may have seen anything
    while True:
        seen = {step.value for step in found if step.kind == _LOOK}
        seen |= {step.expected for step in found if step.kind == _SWAP}
        kept = [
            step
            for step in found
            if step.returns is not None or step.kind == _LOOK or step.value in seen
        ]
        if len(kept) == len(found):
            return kept
        found = kept


def search(found: list[Step], initial: int, budget: Budget) -> Result:
    """Whether the operations of one key are linearizable, within the budget."""
    machine = _Search(found, initial, budget)
    try:
        return machine.run()
    except _OverBudget as over:
        return Result(over.what, [], machine.most)


class _Search:
    def __init__(self, found: list[Step], initial: int, budget: Budget) -> None:
        self.found = found
        self.budget = budget
        self.configurations: set[Configuration] = {(0, initial)}
        self.most = 1
        self.lookers: dict[int, Step] = {}  # open operations, by their bit
        self.changers: dict[int, Step] = {}
        self.stays_open = 0  # bits of the changers that never answer
        self.free: list[int] = []
        self.bits = 0

    def run(self) -> Result:
        events: list[tuple[int, int, int]] = []
        for number, step in enumerate(self.found):
            events.append((step.invoked, 0, number))
            if step.returns is not None:
                events.append((step.returns, 1, number))
        events.sort()  # at the same time, invocations come first: a tie counts as concurrent
        bit_of: dict[int, int] = {}
        for place, (_, is_return, number) in enumerate(events):
            step = self.found[number]
            if not is_return:
                bit_of[number] = self._invoke(step)
                continue
            bit = bit_of.pop(number)
            self._answer(bit)
            (self.lookers if bit in self.lookers else self.changers).pop(bit)
            self.free.append(bit)
            if not self.configurations:
                rows = [self.found[n].row for _, kind, n in events[: place + 1] if kind == 0]
                return Result("invalid", rows, self.most)
        return Result("valid", [], self.most)

    def _invoke(self, step: Step) -> int:
        bit = self.free.pop() if self.free else 1 << self.bits
        if bit == 1 << self.bits:
            self.bits += 1
        if step.kind in (_LOOK, _LOOK_OTHER):
            self.lookers[bit] = step
            self.configurations = {
                (mask | bit, value) if _fits(step, value) else (mask, value)
                for mask, value in self.configurations
            }
        else:
            self.changers[bit] = step
            if step.returns is None:
                self.stays_open |= bit
        return bit

    def _answer(self, bit: int) -> None:
        """Apply the operation in every configuration; drop those in which it cannot apply."""
        after: set[Configuration] = set()
        todo: list[Configuration] = []
        for configuration in self.configurations:
            if configuration[0] & bit:
                after.add((configuration[0] & ~bit, configuration[1]))
            else:
                todo.append(configuration)
        known = set(todo)
        while todo:
            mask, value = todo.pop()
            self.budget.spend(len(known) + len(after))
            tried: set[tuple[int, int]] = set()
            for other, step in self.changers.items():
                if mask & other or (step.kind == _SWAP and step.expected != value):
                    continue
                if other & self.stays_open:
                    alike = (step.value, step.expected if step.kind == _SWAP else _NO_VALUE)
                    if alike in tried:
                        continue
                    tried.add(alike)
                following = self._settle(mask | other, step.value)
                if following[0] & bit:
                    after.add((following[0] & ~bit, following[1]))
                elif following not in known:
                    known.add(following)
                    todo.append(following)
        self.configurations = self._thrifty(after)
        self.most = max(self.most, len(self.configurations))

    def _settle(self, mask: int, value: int) -> Configuration:
        """Apply every open operation that only looks and that fits."""
        for bit, step in self.lookers.items():
            if not mask & bit and _fits(step, value):
                mask |= bit
        return mask, value

    def _thrifty(self, configurations: set[Configuration]) -> set[Configuration]:
        """Drop each configuration that another one covers with fewer spent ``info`` operations."""
        if not self.stays_open or len(configurations) < 2:
            return configurations
        groups: dict[Configuration, list[int]] = {}
        for mask, value in configurations:
            groups.setdefault((mask & ~self.stays_open, value), []).append(mask & self.stays_open)
        kept: set[Configuration] = set()
        for (mask, value), spent in groups.items():
            spent.sort(key=int.bit_count)
            least: list[int] = []
            for some in spent:
                if not any(fewer & some == fewer for fewer in least):
                    least.append(some)
            kept.update((mask | some, value) for some in least)
        return kept


def _fits(step: Step, value: int) -> bool:
    return (step.value == value) == (step.kind == _LOOK)


def smaller(
    c: Columns, rows: list[int], initial: int, *, seconds: float = 2.0, memory_bytes: int = 1 << 28
) -> list[int]:
    """A subset of ``rows`` (a contradiction on one key) that is still a contradiction, as small as
    can be found in the given time.

    An operation is left out only if its absence cannot cause a contradiction: if it only looks, or
    if no remaining operation can have seen its value.
    """
    budget = Budget(seconds, memory_bytes)
    left = sorted(steps(c, np.array(sorted(rows), np.int64)), key=lambda step: step.invoked)
    latest = 8  # the contradiction is mostly among the latest
    while latest < len(left):
        fewer = _unseen_left_out(
            [
                step
                for place, step in enumerate(left)
                if step.kind in (_SET, _SWAP) or place >= len(left) - latest
            ]
        )
        if search(fewer, initial, budget).outcome == "invalid":
            left = fewer
            break
        latest *= 8
    block = max(1, len(left) // 2)
    while not budget.is_spent():
        changed = False
        place = 0
        while place < len(left) and not budget.is_spent():
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
            seen = step.value if step.kind == _LOOK else step.expected
            if step.kind in (_LOOK, _SWAP):
                first_look.setdefault(seen, step.invoked)
        changes = [step for step in left if step.kind in (_SET, _SWAP)]
        times = [step.invoked for step in changes]
        # By index: the first answer to a change from there on.
        answered = [np.inf] * (len(changes) + 1)
        for place in range(len(changes) - 1, -1, -1):
            returns = changes[place].returns
            answered[place] = answered[place + 1]
            if returns is not None:
                answered[place] = min(answered[place], returns)
        writers = Counter(step.value for step in changes)
        kept = []
        for step in left:
            if step.kind in (_SET, _SWAP):
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
    gone = {step.row for step in unwanted if step.kind in (_LOOK, _LOOK_OTHER)}
    looking = [step for step in left if step.row not in gone]
    for step in unwanted:
        if step.kind in (_SET, _SWAP) and not _can_be_seen(step, looking):
            looking = [other for other in looking if other.row != step.row]
    return looking


def _can_be_seen(step: Step, left: list[Step]) -> bool:
    """Whether some operation may have seen the value of ``step``. If another operation wrote the
    same value, those after a further change that began after ``step`` had ended do not count."""
    changes = [other for other in left if other.kind in (_SET, _SWAP) and other.row != step.row]
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
        covered_from = None  # the witness would not show where the value came from
    for other in left:
        if other.row == step.row:
            continue
        looks = (
            other.kind == _LOOK_OTHER
            or (other.kind == _LOOK and other.value == step.value)
            or (other.kind == _SWAP and other.expected == step.value)
        )
        if looks and (covered_from is None or other.invoked <= covered_from):
            return True
    return False
