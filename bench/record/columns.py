"""A history as columns: what the checkers compute on.

Strings and values are numbered once (`keys`, `values`, ...); everything else is NumPy on integers.
Two JSON values are the same if they are equal and both or neither are booleans: ``true`` is not 1,
but 1 and 1.0 are the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.record.history import ABSENT, OperationRecord
from nodes.contract.replica import OperationKind, Outcome, Value

Int64s: TypeAlias = NDArray[np.int64]
Int32s: TypeAlias = NDArray[np.int32]
Int8s: TypeAlias = NDArray[np.int8]
Bools: TypeAlias = NDArray[np.bool_]

READ: Final = 0
WRITE: Final = 1
CAS: Final = 2
DELETE: Final = 3
KINDS: Final[tuple[OperationKind, ...]] = ("read", "write", "cas", "delete")
KIND_CODES: Final[dict[str, int]] = {name: code for code, name in enumerate(KINDS)}

OK: Final = 0
FAIL: Final = 1
INFO: Final = 2
OUTCOMES: Final[tuple[Outcome, ...]] = ("ok", "fail", "info")
OUTCOME_CODES: Final = {name: code for code, name in enumerate(OUTCOMES)}

NULL: Final = 0
"""The code of the value null."""
NOT_TOLD: Final = -1
"""In `Columns.seen`: the reply did not say what the CAS found."""
SIBLINGS: Final = -2
"""In `Columns.value`: the read returned several values, see `Columns.siblings`."""
NEVER: Final = np.iinfo(np.int64).max
"""In `Columns.completed`: it is unknown when, or whether, the operation ended."""


def value_key(value: Value) -> Value | tuple[str, bool]:
    """A dictionary key for a JSON value: ``True == 1`` in Python, but not in JSON."""
    return ("bool", value) if value is True or value is False else value


def distinct_values(values: Iterable[Value]) -> list[Value]:
    """The values of a list without duplicates."""
    return list({value_key(value): value for value in values}.values())


class Numbering:
    """Numbers distinct values from 0 on; null is 0."""

    def __init__(self) -> None:
        self.values: list[Value] = [None]
        self._codes: dict[Value | tuple[str, bool], int] = {None: NULL}

    def code(self, value: Value) -> int:
        """The number of a value, a new one for a new value."""
        key = value_key(value)
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = len(self.values)
            self.values.append(value)
        return code

    def plain_codes(self, values: Iterable[Value]) -> list[int]:
        """The numbers of many values, none of them a boolean."""
        codes = self._codes
        found = []
        for value in values:
            code = codes.get(value)
            if code is None:
                code = codes[value] = len(self.values)
                self.values.append(value)
            found.append(code)
        return found


@dataclass(frozen=True, slots=True)
class Times:
    """How the times of `Columns` relate to those of the history: offsets from ``origin_ns``, or,
    if they span too much for that, ranks in ``instants``."""

    origin_ns: int = 0
    instants: Int64s | None = None

    def of_history(self, time: int) -> int:
        """A time as recorded in the history."""
        return self.origin_ns + time if self.instants is None else int(self.instants[time])

    def apart(self, later: Int64s, earlier: Int64s) -> Int64s:
        """``later - earlier`` in the unit of the history, capped at 63 bits. No ``later`` is before
        its ``earlier``."""
        if self.instants is None:
            return later - earlier
        differences = self.instants[later].view(np.uint64) - self.instants[earlier].view(np.uint64)
        return np.minimum(differences, np.uint64(NEVER)).view(np.int64)


SPAN_LIMIT: Final = 1 << 61
"""Times that span less are kept to the nanosecond; a century is 2^61.5 ns."""


def shifted(invoked: Int64s, completed: Int64s, endless: Bools) -> tuple[Int64s, Int64s, Times]:
    """Shift 64-bit times so that their sums and differences also fit into 64 bits. Their order is
    kept, and so are their differences if they span less than `SPAN_LIMIT`. ``endless``: rows
    without a ``completed``, which becomes `NEVER`."""
    if len(invoked) == 0:
        return invoked, completed, Times()
    ended = completed[~endless] if endless.any() else completed
    low = min(int(invoked.min()), int(ended.min(initial=NEVER)))
    high = max(int(invoked.max()), int(ended.max(initial=low)))
    times = Times()
    if high - low >= SPAN_LIMIT:
        instants = np.unique(np.concatenate((invoked, ended)))
        times = Times(0, instants)
        invoked, completed = (
            np.searchsorted(instants, invoked),
            np.searchsorted(instants, completed),
        )
    elif low <= -SPAN_LIMIT or high >= SPAN_LIMIT:
        times = Times(low)
        invoked = invoked - low
        completed = np.where(endless, 0, completed) - np.where(endless, 0, low)
    completed[endless] = NEVER
    return invoked, completed, times


@dataclass(slots=True)
class Columns:
    """The operations of a history, one row each, in the given order.

    ``invoked`` and ``completed`` are times as in `Times`; ``completed`` is `NEVER` for an operation
    that ended `INFO`, since it may still take effect. ``takes_time``: whether the client saw the
    operation end after it began, or not end at all, whatever the outcome: of the operations that a
    process invoked at one instant, it was the last. ``value``, ``expected`` and ``seen`` are
    indices into ``values``. ``applied`` is False only for a CAS that ended `OK` and was refused.
    ``records``: the rows as given, if the caller kept them.
    """

    process: Int32s
    id: Int64s
    op: Int8s
    outcome: Int8s
    key: Int32s
    value: Int32s
    expected: Int32s
    seen: Int32s
    applied: Bools
    node: Int32s
    invoked: Int64s
    completed: Int64s
    takes_time: Bools
    processes: list[str]
    keys: list[str]
    nodes: list[str]
    values: list[Value]
    siblings: dict[int, list[int]] = field(default_factory=dict)
    records: Sequence[OperationRecord] | None = None
    times: Times = field(default_factory=Times)
    touches: bool | None = None
    """Whether operations of one process touch in time; None: not computed yet."""
    has_final_reads: bool = False
    """Whether reads of processes named ``final...`` are the runner's, at the end of a run."""

    def __len__(self) -> int:
        return len(self.op)

    @classmethod
    def from_records(cls, records: Sequence[OperationRecord]) -> Columns:
        """Columns of ``records``: row i is record i. Raises OverflowError if a time or an id is not
        a 64-bit integer."""
        numbering = Numbering()
        code = numbering.code
        siblings: dict[int, list[int]] = {}
        values: list[int] = []
        for row, record in enumerate(records):
            value = record.value
            if record.op == "delete" or value is ABSENT:
                values.append(NULL)
            elif isinstance(value, list):
                distinct = distinct_values(value)
                if len(distinct) > 1:
                    siblings[row] = [code(v) for v in distinct]
                    values.append(SIBLINGS)
                else:
                    values.append(code(distinct[0]) if distinct else NULL)
            else:
                values.append(code(value))
        seen = [_code_of_seen(r, code) for r in records]
        expected = [NULL if r.expected is ABSENT else code(r.expected) for r in records]
        processes, process = _number(r.process for r in records)
        keys, key = _number(r.key for r in records)
        nodes, node = _number(r.node or "" for r in records)
        invoked, completed, times = shifted(
            np.array([r.invoked_ns for r in records], np.int64),
            np.array(
                [NEVER if r.completed_ns is None else r.completed_ns for r in records], np.int64
            ),
            np.array([r.completed_ns is None or r.outcome == "info" for r in records], np.bool_),
        )
        return cls(
            process=process,
            id=np.array([r.id for r in records], np.int64),
            op=np.array([KIND_CODES[r.op] for r in records], np.int8),
            outcome=np.array([OUTCOME_CODES[r.outcome] for r in records], np.int8),
            key=key,
            value=np.array(values, np.int32),
            expected=np.array(expected, np.int32),
            seen=np.array(seen, np.int32),
            applied=np.array(
                [r.applied is not False or r.op != "cas" or r.outcome != "ok" for r in records],
                np.bool_,
            ),
            node=node,
            invoked=invoked,
            completed=completed,
            takes_time=np.array(
                [r.completed_ns is None or r.completed_ns > r.invoked_ns for r in records], np.bool_
            ),
            processes=processes,
            keys=keys,
            nodes=nodes,
            values=numbering.values,
            siblings=siblings,
            records=records,
            times=times,
        )

    def take(self, rows: Int64s) -> Columns:
        """Only the given rows. The numbers of keys and values stay the same."""
        records = self.records
        return Columns(
            process=self.process[rows],
            id=self.id[rows],
            op=self.op[rows],
            outcome=self.outcome[rows],
            key=self.key[rows],
            value=self.value[rows],
            expected=self.expected[rows],
            seen=self.seen[rows],
            applied=self.applied[rows],
            node=self.node[rows],
            invoked=self.invoked[rows],
            completed=self.completed[rows],
            takes_time=self.takes_time[rows],
            processes=self.processes,
            keys=self.keys,
            nodes=self.nodes,
            values=self.values,
            siblings={
                new: self.siblings[old]
                for new, old in enumerate(rows.tolist())
                if old in self.siblings
            },
            records=None if records is None else [records[row] for row in rows.tolist()],
            times=self.times,
            has_final_reads=self.has_final_reads,
        )

    def code_of(self, value: Value) -> int:
        """The number of ``value``, -1 if it does not occur."""
        if value is None:
            return NULL
        wanted = value_key(value)
        for code, known in enumerate(self.values):
            if value_key(known) == wanted:
                return code
        return -1

    def record(self, row: int) -> OperationRecord:
        """Row ``row`` as a record."""
        if self.records is not None:
            return self.records[row]
        completed = int(self.completed[row])
        op = KINDS[self.op[row]]
        seen = int(self.seen[row])
        is_ok_cas = op == "cas" and self.outcome[row] == OK
        value = (
            [self.values[code] for code in self.siblings[row]]
            if self.value[row] == SIBLINGS
            else self.values[self.value[row]]
        )
        return OperationRecord(
            process=self.processes[self.process[row]],
            id=int(self.id[row]),
            op=op,
            key=self.keys[self.key[row]],
            outcome=OUTCOMES[self.outcome[row]],
            invoked_ns=self.times.of_history(int(self.invoked[row])),
            completed_ns=None if completed == NEVER else self.times.of_history(completed),
            value=value,
            expected=self.values[self.expected[row]] if op == "cas" else ABSENT,
            applied=bool(self.applied[row]) if is_ok_cas else None,
            seen=self.values[seen] if seen >= 0 else ABSENT,
            node=self.nodes[self.node[row]] or None,
        )

    def widened(self, clock_error_ns: int) -> Columns:
        """The same operations with their intervals widened, so that two that are no further apart
        than the clock error count as concurrent. This is right between processes only: a process
        has one clock (see `takes_time` and `bench.checkers.reads_from.program_order`)."""
        if clock_error_ns == 0 or len(self) == 0:
            return self
        copy = self.take(np.arange(len(self)))
        before = clock_error_ns // 2
        after = clock_error_ns - before
        finite = self.completed != NEVER
        if self.times.instants is None and clock_error_ns < SPAN_LIMIT:
            copy.invoked = self.invoked - before
            copy.completed[finite] += after
            return copy
        # Ranks, or times that would overflow 64 bits: widen first, then rank.
        told = np.unique(np.concatenate((self.invoked, self.completed[finite])))
        instants = [self.times.of_history(time) for time in told.tolist()]
        earlier, later = [t - before for t in instants], [t + after for t in instants]
        distinct = sorted({*earlier, *later})
        rank = {instant: number for number, instant in enumerate(distinct)}
        begins = np.array([rank[t] for t in earlier], np.int64)
        ends = np.array([rank[t] for t in later], np.int64)
        copy.invoked = begins[np.searchsorted(told, self.invoked)]
        copy.completed[finite] = ends[np.searchsorted(told, self.completed[finite])]
        least, most = np.iinfo(np.int64).min, NEVER
        copy.times = Times(0, np.array([min(max(t, least), most) for t in distinct], np.int64))
        return copy


def _code_of_seen(record: OperationRecord, code: Callable[[Value], int]) -> int:
    is_refused = record.op == "cas" and record.outcome == "ok" and record.applied is False
    if not is_refused or isinstance(record.seen, msgspec.UnsetType):
        return NOT_TOLD
    return code(record.seen)


def _number(names: Iterable[str]) -> tuple[list[str], Int32s]:
    codes: dict[str, int] = {}
    numbered = [codes.setdefault(name, len(codes)) for name in names]
    return list(codes), np.array(numbered, np.int32)
