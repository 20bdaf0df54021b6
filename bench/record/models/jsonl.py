"""Histories of sets, queues, locks and the like as JSON lines (docs/HISTORY_FORMAT.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from bench.record.columns import INFO, NEVER, OK, OUTCOME_CODES, shifted
from bench.record.history import BadHistory, why_bad, why_unfit
from bench.record.jsonl import Integer64, given_twice
from bench.record.models.operations import Operations
from bench.record.models.source import Source
from bench.record.well_formed import misfit_together
from nodes.contract.replica import Outcome

MOST_LINE_BYTES: Final = 64 << 20
"""A read may hold a whole set."""


class ModelLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One line. ``value`` is whatever its model says."""

    process: str | Integer64
    id: Integer64 | None = None
    op: str
    key: str | Integer64 | None = None
    outcome: Outcome
    invoked_ns: Integer64
    completed_ns: Integer64 | None = None
    intended_ns: Integer64 | None = None
    value: Any = msgspec.UNSET
    node: str | None = None
    error: str | None = None


_FIELDS: Final = 5
"""That every line has."""
_OPTIONAL: Final = ("id", "key", "completed_ns", "intended_ns", "node", "error")
_MANY_DIGITS: Final = re.compile(rb"[0-9]{19}")
_decode = msgspec.json.Decoder(ModelLine).decode


def read_lines(source: Source) -> Operations:
    """The operations of a file, row i is line i + 1. Raises BadHistory, which names file and
    line."""
    lines = list(_lines(source))
    n = len(lines)
    processes, process = _numbered([line.process for line in lines])
    names, op = _numbered([line.op for line in lines])
    with_key = [place for place, line in enumerate(lines) if line.key is not None]
    keys, key = _numbered([lines[place].key for place in with_key])
    key_of = np.full(n, -1, np.int32)
    key_of[with_key] = key
    given = [place for place, line in enumerate(lines) if line.value is not msgspec.UNSET]
    value = np.full(n, -1, np.int32)
    value[given] = np.arange(len(given))
    outcome = np.array([OUTCOME_CODES[line.outcome] for line in lines], np.int8)
    ends = [NEVER if line.completed_ns is None else line.completed_ns for line in lines]
    invoked, completed = np.array([x.invoked_ns for x in lines], np.int64), np.array(ends, np.int64)
    endless = np.array([line.completed_ns is None for line in lines], np.bool_)
    ids = [number if x.id is None else x.id for number, x in enumerate(lines, 1)]
    operations = Operations(
        name=source.name,
        process=process,
        id=np.array(ids, np.int64),
        op=op,
        key=key_of,
        value=value,
        outcome=outcome,
        invoked=invoked,
        completed=completed,
        gave_up=completed,
        line=np.arange(1, n + 1),
        processes=[str(name) for name in processes],
        names=[str(name) for name in names],
        keys=[str(name) for name in keys],
        values=[lines[place].value for place in given],
    )
    misfit = misfit_together(operations.as_columns(), endless)
    if misfit is not None:
        raise operations.refused(misfit.row, misfit.reason)
    _refuse_missing_values(operations)
    begins, gave_up, times = shifted(invoked, completed.copy(), endless)
    operations.invoked, operations.gave_up, operations.times = begins, gave_up, times
    operations.completed = np.where(outcome == INFO, NEVER, gave_up)
    return operations


def _lines(source: Source) -> Iterator[ModelLine]:
    number = 0
    for block in source.blocks(MOST_LINE_BYTES):
        for line in block.removesuffix(b"\n").split(b"\n"):
            number += 1
            where = f"{source.name}:{number}"
            if len(line) > MOST_LINE_BYTES:
                raise BadHistory(f"{where}: line of more than {MOST_LINE_BYTES} bytes")
            if not line.strip():
                raise BadHistory(f"{where}: empty line")
            try:
                read = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise BadHistory(f"{where}: {why_bad(line, error)}") from None
            fields = _FIELDS + sum(getattr(read, name) is not None for name in _OPTIONAL)
            if line.count(b":") != fields and (twice := given_twice(line)) is not None:
                raise BadHistory(f"{where}: field `{twice}` is given twice")
            # A walk through each set that was read would cost more than all else.
            if _MANY_DIGITS.search(line) and (unfit := why_unfit(read.value)) is not None:
                raise BadHistory(f"{where}: {unfit} - at `$.value`")
            yield read


def _numbered(names: list[Any]) -> tuple[list[Any], Any]:
    known: dict[Any, int] = {}
    numbers = [known.setdefault(name, len(known)) for name in names]
    return list(known), np.array(numbers, np.int32)


def _refuse_missing_values(operations: Operations) -> None:
    missing = np.flatnonzero((operations.value < 0) & (operations.outcome == OK))
    for row in missing.tolist():
        name = operations.names[operations.op[row]]
        if name not in ("acquire", "release"):
            raise operations.refused(row, "field `value` is missing (null is a value)")
