"""The rules of docs/HISTORY_FORMAT.md that types cannot express: one set for every reader, and for
records made in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from bench.record.columns import (
    CAS,
    DELETE,
    INFO,
    KIND_CODES,
    NEVER,
    OK,
    OUTCOME_CODES,
    READ,
    WRITE,
    Bools,
    Columns,
    Int8s,
    Int64s,
)
from bench.record.history import ABSENT, BadHistory, OperationRecord


class Misfit(NamedTuple):
    """The first row that breaks a rule, and the reason."""

    row: int
    reason: str


@dataclass(slots=True)
class Given:
    """Which fields the operations have, by row. ``value``, ``expected`` ...: the field is present,
    even if null; ``is_null``: the value is null; ``applied``: it is true or false, not null;
    ``refused``: it is false."""

    op: Int8s
    outcome: Int8s
    value: Bools
    is_null: Bools
    expected: Bools
    applied: Bools
    refused: Bools
    seen: Bools

    def misfit(self) -> Misfit | None:
        """A field that is missing, or that its operation does not have."""
        is_cas, is_ok = self.op == CAS, self.outcome == OK
        needs_value = (self.op == WRITE) | is_cas | ((self.op == READ) & is_ok)
        rules = (
            (needs_value & ~self.value, "field `value` is missing (null is a value)"),
            (
                (self.op == DELETE) & self.value & ~self.is_null,
                "field `value` means nothing for a delete",
            ),
            (is_cas & ~self.expected, "field `expected` of a cas is missing (null is a value)"),
            (self.expected & ~is_cas, "field `expected` is for a cas only"),
            (self.applied & ~(is_cas & is_ok), "field `applied` is for a cas that ended ok only"),
            (
                self.seen & ~(is_cas & is_ok & self.refused),
                "field `seen` is for a refused cas only: outcome ok, applied false",
            ),
        )
        broken = [Misfit(int(np.argmax(where)), reason) for where, reason in rules if where.any()]
        return min(broken, key=lambda misfit: misfit.row, default=None)


def misfit_together(c: Columns, endless: Bools) -> Misfit | None:
    """Rules on several operations: ids and times. ``c.completed`` still is the end that the client
    saw; ``endless``: there was none."""
    if len(c) == 0:
        return None
    if not (c.id[1:] > c.id[:-1]).all():
        order = np.argsort(c.id, kind="stable")
        twice = np.flatnonzero(c.id[order][1:] == c.id[order][:-1])
        if len(twice):
            row = int(order[twice + 1].min())
            return Misfit(row, f"id {int(c.id[row])} occurs twice")
    early = np.flatnonzero(c.completed < c.invoked)
    if len(early):
        return Misfit(int(early[0]), "completed_ns is before invoked_ns")
    unknown_end = np.flatnonzero(endless & (c.outcome != INFO))
    if len(unknown_end):
        return Misfit(int(unknown_end[0]), "completed_ns may be null only where outcome is info")
    return _open_twice(c)


def _open_twice(c: Columns) -> Misfit | None:
    """Also sets ``touches``: whether operations of one process touch."""
    order = np.argsort(c.invoked, kind="stable")
    process = c.process[order]
    if len(c.processes) < 1 << 15:
        process = process.astype(np.int16)  # NumPy has a radix sort for these
    order = order[np.argsort(process, kind="stable")]
    c.touches = len(_meeting(c, order, np.greater_equal)) > 0
    if not c.touches or len(_meeting(c, order, np.greater)) == 0:
        return None
    order = np.lexsort((c.completed, c.invoked, c.process))  # operations that take no time
    both = _meeting(c, order, np.greater)
    if len(both) == 0:
        return None
    later = int(both.min())
    name = c.processes[c.process[later]]
    return Misfit(later, f"process {name!r} has another operation open at this time")


def _meeting(c: Columns, order: Int64s, compare: np.ufunc) -> Int64s:
    """Rows that begin while the previous row of the same process is open."""
    process = c.process[order]
    still_open = compare(c.completed[order[:-1]], c.invoked[order[1:]])
    found: Int64s = order[1:][(process[1:] == process[:-1]) & still_open]
    return found


def columns_of(records: Sequence[OperationRecord]) -> Columns:
    """Columns of ``records``, which must keep the same rules as the lines of a file. Raises
    BadHistory, which counts records from 1."""
    try:
        c = Columns.from_records(records)
        ends = [NEVER if r.completed_ns is None else r.completed_ns for r in records]
        as_told = c.take(np.arange(len(c)))
        as_told.invoked = np.array([r.invoked_ns for r in records], np.int64)
        as_told.completed = np.array(ends, np.int64)
    except OverflowError:
        raise BadHistory("a time or an id of a record is not a 64-bit integer") from None
    misfit = _given(records).misfit() or _misplaced_list(records)
    if misfit is None:
        endless = np.array([r.completed_ns is None for r in records], np.bool_)
        misfit = misfit_together(as_told, endless)
    if misfit is not None:
        raise BadHistory(f"record {misfit.row + 1}: {misfit.reason}")
    return c


def _misplaced_list(records: Sequence[OperationRecord]) -> Misfit | None:
    return next(
        (
            Misfit(row, "only a read may have several values")
            for row, record in enumerate(records)
            if isinstance(record.value, list) and record.op != "read"
        ),
        None,
    )


def _given(records: Sequence[OperationRecord]) -> Given:
    def column(values: list[bool]) -> Bools:
        return np.array(values, np.bool_)

    return Given(
        op=np.array([KIND_CODES[r.op] for r in records], np.int8),
        outcome=np.array([OUTCOME_CODES[r.outcome] for r in records], np.int8),
        value=column([r.value is not ABSENT for r in records]),
        is_null=column([r.value is None for r in records]),
        expected=column([r.expected is not ABSENT for r in records]),
        applied=column([r.applied is not None for r in records]),
        refused=column([r.applied is False for r in records]),
        seen=column([not isinstance(r.seen, msgspec.UnsetType) for r in records]),
    )
