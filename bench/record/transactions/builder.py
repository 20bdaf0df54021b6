"""From rows to columns: what every reader of transactions feeds."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from bench.record.columns import (
    INFO,
    NEVER,
    NOT_TOLD,
    NULL,
    OUTCOME_CODES,
    Columns,
    Numbering,
    shifted,
)
from bench.record.history import BadHistory
from bench.record.transactions.columns import (
    APPEND,
    EMPTY,
    READ,
    READ_LIST,
    WRITE,
    Lists,
    Transactions,
)
from bench.record.well_formed import Misfit, misfit_together
from nodes.contract.replica import Outcome, Value

_KINDS: Final = {"read": READ, "write": WRITE, "append": APPEND}


class Builder:
    """Takes transactions one by one, gives columns at the end."""

    def __init__(self) -> None:
        self._numbering = Numbering()
        self._keys: dict[str | int, int] = {}
        self._processes: dict[str | int, int] = {}
        self._process, self._outcome = array("i"), array("b")
        self._id, self._invoked, self._completed = array("q"), array("q"), array("q")
        self._first = array("q", [0])
        self._kind, self._key, self._value = array("b"), array("i"), array("i")
        self._lists = _ListsOfKeys(self._numbering)

    def __len__(self) -> int:
        return len(self._process)

    def add(
        self,
        process: str | int,
        invoked_ns: int,
        completed_ns: int | None,
        outcome: Outcome,
        operations: Iterable[tuple[str, str | int, Any]],
        id: int | None = None,
    ) -> None:
        """One more transaction. ``operations``: ``append``, ``write`` or ``read``, the key, and the
        value: a JSON scalar, or the list that was read. What a transaction that did not end ``ok``
        read is not looked at. ``id``: unique; None: the number of the transaction, from 1.

        Raises BadHistory, which does not say where, for a null that is written, for a list that is
        none of a read, and for what has more than 64 bits.
        """
        is_ok = outcome == "ok"
        keys, numbering = self._keys, self._numbering
        kinds, key_column, values = self._kind, self._key, self._value
        for name, key, value in operations:
            kind = _KINDS[name]
            key_code = keys.get(key, -1)
            if key_code < 0:
                key_code = keys[key] = len(keys)
            if kind != READ:
                if value is None or isinstance(value, list):
                    raise BadHistory(f"{name} of {'null' if value is None else 'a list'}")
                code = numbering.code(value)
            elif not is_ok:
                code = NOT_TOLD
            elif isinstance(value, list):
                kind, code = READ_LIST, self._lists.number(key_code, value)
            else:
                code = NULL if value is None else numbering.code(value)
            kinds.append(kind)
            key_column.append(key_code)
            values.append(code)
        try:
            self._id.append(len(self._process) + 1 if id is None else id)
            self._invoked.append(invoked_ns)
            self._completed.append(NEVER if completed_ns is None else completed_ns)
        except OverflowError:
            raise BadHistory("a time or an id is no integer of 64 bits") from None
        self._process.append(self._processes.setdefault(process, len(self._processes)))
        self._outcome.append(OUTCOME_CODES[outcome])
        self._first.append(len(kinds))

    def columns(self) -> tuple[Transactions, Misfit | None]:
        """All that was added, and the first transaction that does not fit to the others."""
        outcome = np.frombuffer(self._outcome, np.int8) if self._outcome else np.zeros(0, np.int8)
        completed = np.array(self._completed, np.int64)
        endless = completed == NEVER
        t = Transactions(
            process=np.array(self._process, np.int32),
            outcome=outcome,
            id=np.array(self._id, np.int64),
            invoked=np.array(self._invoked, np.int64),
            completed=completed,
            takes_time=completed > np.array(self._invoked, np.int64),
            first=np.array(self._first, np.int64),
            kind=np.array(self._kind, np.int8),
            key=np.array(self._key, np.int32),
            value=np.array(self._value, np.int32),
            lists=self._lists.columns(),
            processes=[str(name) for name in self._processes],
            keys=[str(name) for name in self._keys],
            values=self._numbering.values,
        )
        misfit = misfit_together(_as_operations(t), endless) or self._named_twice(t)
        endless |= outcome == INFO
        t.invoked, t.completed, t.times = shifted(t.invoked, t.completed, endless)
        return t, misfit

    def _named_twice(self, t: Transactions) -> Misfit | None:
        """The number 1 and the text "1" in one history: nobody knows whether they are meant to be
        the same."""
        if len(set(t.processes)) < len(t.processes):
            code = _second(t.processes)
            row = int(np.argmax(t.process == code))
            return Misfit(row, f"process {t.processes[code]} is both a number and a text")
        if len(set(t.keys)) < len(t.keys):
            code = _second(t.keys)
            row = int(t.owner()[np.argmax(t.key == code)])
            return Misfit(row, f"key {t.keys[code]} is both a number and a text")
        return None


def transactions_of(
    rows: Iterable[tuple[str | int, int, int | None, Outcome, Iterable[tuple[str, str, Any]]]],
) -> Transactions:
    """Columns of rows as `Builder.add` takes them. Raises BadHistory, which counts from 1."""
    builder = Builder()
    for row in rows:
        try:
            builder.add(*row)
        except BadHistory as error:
            raise BadHistory(f"transaction {len(builder) + 1}: {error}") from None
    t, misfit = builder.columns()
    if misfit is not None:
        raise BadHistory(f"transaction {misfit.row + 1}: {misfit.reason}")
    return t


def _second(names: list[str]) -> int:
    return next(code for code, name in enumerate(names) if name in names[:code])


def _as_operations(t: Transactions) -> Columns:
    """The transactions as if each were one operation."""
    n = len(t)
    no_code, nothing = np.zeros(n, np.int32), np.zeros(n, np.int8)
    return Columns(
        process=t.process,
        id=t.id,
        op=nothing,
        outcome=t.outcome,
        key=no_code,
        value=no_code,
        expected=no_code,
        seen=no_code,
        applied=np.ones(n, np.bool_),
        node=no_code,
        invoked=t.invoked,
        completed=t.completed,
        takes_time=t.takes_time,
        processes=t.processes,
        keys=[],
        nodes=[],
        values=[],
    )


class _ListsOfKeys:
    """Numbers lists. The longest list of each key is kept as it is: most others are its prefixes,
    which one comparison tells."""

    def __init__(self, numbering: Numbering) -> None:
        self._numbering = numbering
        self._parent, self._last, self._key = array("i", [0]), array("i", [0]), array("i", [-1])
        self._longest: dict[int, _Longest] = {}

    def number(self, key: int, values: list[Value]) -> int:
        """The number of a list that was read of a key."""
        if not values:
            return EMPTY
        longest = self._longest.get(key)
        if longest is None:
            longest = self._longest[key] = _Longest([], [EMPTY], [], {})
        count, known = len(values), len(longest.values)
        if count <= known:
            if values == longest.values[:count] and _same_booleans(values, longest):
                return longest.numbers[count]
        elif values[:known] == longest.values and _same_booleans(values, longest):
            for value in values[known:]:
                self._extend(key, longest, value)
            return longest.numbers[count]
        return self._walk(key, longest, values)

    def _extend(self, key: int, longest: _Longest, value: Value) -> None:
        parent = longest.numbers[-1]
        code = self._numbering.code(value)
        number = longest.branches.get((parent, code)) if longest.branches else None
        if number is None:
            number = self._add(key, parent, code)
            if longest.branches:
                longest.branches[parent, code] = number
        if value is True or value is False or value == 0 or value == 1:
            longest.zeros_and_ones.append(len(longest.values))
        longest.values.append(value)
        longest.numbers.append(number)

    def _walk(self, key: int, longest: _Longest, values: list[Value]) -> int:
        """A list that is no prefix of the longest, nor the other way round."""
        codes = [self._numbering.code(value) for value in values]
        branches = longest.branches
        if not branches:
            for place, value in enumerate(longest.values):
                code = self._numbering.code(value)
                branches[longest.numbers[place], code] = longest.numbers[place + 1]
        number = EMPTY
        for code in codes:
            parent = number
            number = branches.get((parent, code), -1)
            if number < 0:
                number = branches[parent, code] = self._add(key, parent, code)
        return number

    def _add(self, key: int, parent: int, code: int) -> int:
        self._parent.append(parent)
        self._last.append(code)
        self._key.append(key)
        return len(self._parent) - 1

    def columns(self) -> Lists:
        """The lists, as columns."""
        return Lists(
            parent=np.array(self._parent, np.int32),
            last=np.array(self._last, np.int32),
            key=np.array(self._key, np.int32),
        )


class _Longest:
    """The longest list of a key, the numbers of its prefixes, and where it holds 0, 1, false or
    true, which Python takes for the same. ``branches``: parent and value to list, once two lists of
    the key were no prefixes of each other."""

    __slots__ = ("branches", "numbers", "values", "zeros_and_ones")

    def __init__(
        self,
        values: list[Value],
        numbers: list[int],
        zeros_and_ones: list[int],
        branches: dict[tuple[int, int], int],
    ) -> None:
        self.values = values
        self.numbers = numbers
        self.zeros_and_ones = zeros_and_ones
        self.branches = branches


def _same_booleans(values: list[Value], longest: _Longest) -> bool:
    """Whether two lists that are equal in Python are equal in JSON."""
    for place in longest.zeros_and_ones:
        if place >= len(values):
            break
        if isinstance(values[place], bool) != isinstance(longest.values[place], bool):
            return False
    return True
