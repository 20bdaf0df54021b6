"""Transactions as columns: what the checkers of `bench.checkers.transactions` compute on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bench.record.columns import NOT_TOLD, NULL, Bools, Int8s, Int32s, Int64s, Times
from bench.record.transactions.verdict import Operation
from nodes.contract.replica import Value

READ: Final = 0
"""A read of a register, or of null; or one that nobody was told the result of."""
READ_LIST: Final = 1
"""A read of a list."""
WRITE: Final = 2
APPEND: Final = 3

EMPTY: Final = 0
"""The number of the empty list in `Lists`."""


@dataclass(slots=True)
class Lists:
    """The distinct lists that were read. List i is list ``parent[i]`` and behind it the value
    ``last[i]``; a parent is numbered before its children. List `EMPTY` is of every key; any other
    is of the one key ``key[i]``. Most reads of a key see prefixes of one list, so that is far less
    than all elements of all reads."""

    parent: Int32s
    last: Int32s
    key: Int32s

    def __len__(self) -> int:
        return len(self.parent)

    def elements(self, number: int) -> list[int]:
        """The values of a list, by their numbers."""
        found = []
        while number != EMPTY:
            found.append(int(self.last[number]))
            number = int(self.parent[number])
        return found[::-1]


@dataclass(slots=True)
class Transactions:
    """A history of transactions, in the order they were given.

    Of transaction t: ``process``, ``outcome`` and ``id``; ``invoked`` and ``completed`` are times
    as `Times` has them, ``completed`` is `NEVER` for one that ended `INFO`; ``takes_time`` as in
    `bench.record.columns.Columns`. Its operations are rows ``first[t]`` to ``first[t + 1]`` of
    ``kind``, ``key`` and ``value``. ``value`` is the number of a value in ``values``, `NULL` for
    null; for `READ_LIST` that of a list in ``lists``; `NOT_TOLD` for a read in a transaction that
    did not end `OK`, since nobody knows what it saw.
    """

    process: Int32s
    outcome: Int8s
    id: Int64s
    invoked: Int64s
    completed: Int64s
    takes_time: Bools
    first: Int64s
    kind: Int8s
    key: Int32s
    value: Int32s
    lists: Lists
    processes: list[str]
    keys: list[str]
    values: list[Value]
    times: Times = field(default_factory=Times)

    def __len__(self) -> int:
        return len(self.process)

    def owner(self) -> Int32s:
        """The transaction of each operation."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.first))

    def operations(self, transaction: int) -> list[Operation]:
        """What a transaction did, in order."""
        first, end = self.first[transaction : transaction + 2].tolist()
        return [self.operation(row) for row in range(first, end)]

    def operation(self, row: int) -> Operation:
        """One operation. A read that nobody was told the result of has null."""
        kind, code = int(self.kind[row]), int(self.value[row])
        key = self.keys[self.key[row]]
        if kind == READ_LIST:
            return "read", key, [self.values[each] for each in self.lists.elements(code)]
        if kind == READ:
            return "read", key, self.values[NULL if code == NOT_TOLD else code]
        return "write" if kind == WRITE else "append", key, self.values[code]
