"""Registers, from operations that were read without knowing that they are some."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np

from bench.record.columns import (
    CAS,
    INFO,
    KIND_CODES,
    NEVER,
    NOT_TOLD,
    NULL,
    OK,
    READ,
    Bools,
    Columns,
    Int32s,
    Numbering,
)
from bench.record.models.operations import Operations
from nodes.contract.replica import Value

NilReads: TypeAlias = Literal["unknown", "null"]
"""What a read that was answered nil saw: nobody knows, or that the key was missing."""

_ONE_KEY: Final = "register"
_PLAIN: Final = {int, str, type(None)}
_CODES: Final[dict[str, int]] = {str(name): code for name, code in KIND_CODES.items()}


def register_columns(operations: Operations, nil_reads: NilReads) -> Columns:
    """The columns of a history of reads, writes, deletes and ``cas``, whose value is a list of what
    was expected and what is to be written. Raises BadHistory for what is none of these."""
    o = operations
    kinds = np.array([_CODES.get(name, -1) for name in o.names], np.int8)
    op = kinds[o.op] if len(o) else np.zeros(0, np.int8)
    other = np.flatnonzero(op < 0)
    if len(other):
        row = int(other[0])
        raise o.refused(row, f"a register has no operation {o.names[o.op[row]]!r}")
    numbering = Numbering()
    value, expected = _values(o, op == CAS, numbering)
    outcome = o.outcome.copy()
    if nil_reads == "unknown":
        outcome[(op == READ) & (outcome == OK) & (value == NULL)] = INFO
    without_key = bool((o.key < 0).any())
    return Columns(
        process=o.process,
        id=o.id,
        op=op,
        outcome=outcome,
        key=np.where(o.key < 0, len(o.keys), o.key).astype(np.int32),
        value=value,
        expected=expected,
        seen=np.full(len(o), NOT_TOLD, np.int32),
        applied=np.ones(len(o), np.bool_),
        node=np.zeros(len(o), np.int32),
        invoked=o.invoked,
        completed=np.where(outcome == INFO, NEVER, o.completed),
        takes_time=np.ones(len(o), np.bool_),
        processes=o.processes,
        keys=[*o.keys, _ONE_KEY] if without_key else o.keys,
        nodes=[""],
        values=numbering.values,
        times=o.times,
    )


def _values(o: Operations, is_cas: Bools, numbering: Numbering) -> tuple[Int32s, Int32s]:
    """The numbers of what was read or written, and of what a ``cas`` expected."""
    value, expected = np.full(len(o), NULL, np.int32), np.full(len(o), NULL, np.int32)
    for those in (~is_cas & (o.value >= 0), is_cas):
        rows = np.flatnonzero(those)
        codes, places = np.unique(o.value[rows], return_inverse=True)
        some: list[Any] = [o.values[code] if code >= 0 else None for code in codes.tolist()]
        if those is is_cas:
            pairs = [isinstance(each, list) and len(each) == 2 for each in some]
            if not all(pairs):
                row = int(rows[np.argmax(~np.array(pairs)[places])])
                raise o.refused(row, "the value of a cas is [expected new]")
            before = _codes_of([each[0] for each in some], numbering)
            expected[rows] = before[places]
            some = [each[1] for each in some]
        numbers = _codes_of(some, numbering)
        value[rows] = numbers[places]
    return value, expected


def _codes_of(values: list[Any], numbering: Numbering) -> Int32s:
    if set(map(type, values)) <= _PLAIN:
        return np.array(numbering.plain_codes(values), np.int32)
    return np.array([numbering.code(_plain(each)) for each in values], np.int32)


def _plain(value: Any) -> Value:
    """A value of JSON without parts; a list or a map is compared as a whole, as a text."""
    if isinstance(value, list | dict):
        return msgspec.json.encode(value).decode()
    plain: Value = str(value) if isinstance(value, str) else value
    return plain
