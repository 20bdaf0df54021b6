"""Operations of any model as columns: what a reader knows before it is said what they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.record.columns import NEVER, OK, OUTCOMES, Columns, Int8s, Int32s, Int64s, Times
from bench.record.history import BadHistory
from bench.record.models.verdict import Operation


@dataclass(slots=True)
class Operations:
    """The operations of a history, by invocation. ``op``, ``key`` and ``value`` are indices into
    ``names``, ``keys`` and ``values``; the key is -1 where there is none. ``value``: of an
    operation that ended `OK` its answer, of another what it was asked, -1 where there is none.
    ``invoked`` and ``completed`` are times as `Times` has them; ``completed`` is `NEVER` for an
    operation that ended `INFO`; then ``gave_up`` still says when its process went on. ``line``:
    where it stands in the file ``name``. ``null_is_told``: a null that was answered means null, and
    not that nobody knows.
    """

    name: str
    process: Int32s
    id: Int64s
    op: Int32s
    key: Int32s
    value: Int32s
    outcome: Int8s
    invoked: Int64s
    completed: Int64s
    gave_up: Int64s
    line: Int64s
    processes: list[str]
    names: list[str]
    keys: list[str]
    values: list[Any]
    times: Times = field(default_factory=Times)
    null_is_told: bool = True

    def __len__(self) -> int:
        return len(self.op)

    def ops(self) -> set[str]:
        """The names of all operations that occur."""
        return {self.names[code] for code in np.unique(self.op).tolist()}

    def rows_of(self, *names: str) -> Int64s:
        """The rows of the operations of these names."""
        codes = [code for code, name in enumerate(self.names) if name in names]
        return np.flatnonzero(np.isin(self.op, codes))

    def value_of(self, row: int) -> Any:
        """The value of one row, None where there is none."""
        code = int(self.value[row])
        return None if code < 0 else self.values[code]

    def told(self, *names: str) -> list[Any]:
        """The distinct values that operations of these names were answered, without null."""
        rows = self.rows_of(*names)
        rows = rows[(self.outcome[rows] == OK) & (self.value[rows] >= 0)]
        some = (self.values[code] for code in np.unique(self.value[rows]).tolist())
        return [value for value in some if value is not None]

    def operation(self, row: int) -> Operation:
        """One row, to be shown."""
        completed, key = int(self.completed[row]), int(self.key[row])
        return Operation(
            process=self.processes[self.process[row]],
            id=int(self.id[row]),
            op=self.names[self.op[row]],
            key=None if key < 0 else self.keys[key],
            value=self.value_of(row),
            outcome=OUTCOMES[self.outcome[row]],
            invoked_ns=self.times.of_history(int(self.invoked[row])),
            completed_ns=None if completed == NEVER else self.times.of_history(completed),
        )

    def as_columns(self) -> Columns:
        """As much of them as the rules look at that hold for all histories: who, and when."""
        n = len(self)
        nothing = np.zeros(n, np.int32)
        return Columns(
            process=self.process,
            id=self.id,
            op=np.zeros(n, np.int8),
            outcome=self.outcome,
            key=nothing,
            value=nothing,
            expected=nothing,
            seen=nothing,
            applied=np.ones(n, np.bool_),
            node=nothing,
            invoked=self.invoked,
            completed=self.completed,
            takes_time=self.gave_up > self.invoked,
            processes=self.processes,
            keys=[],
            nodes=[],
            values=[],
        )

    def refused(self, row: int, reason: str) -> BadHistory:
        """The error that an operation is."""
        return BadHistory(f"{self.name}:{int(self.line[row])}: {reason}")
