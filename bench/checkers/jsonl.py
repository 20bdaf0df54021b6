"""Histories of other tools: strict JSONL, read straight into columns (docs/HISTORY_FORMAT.md).

Strict, because a history that is read wrongly gives a wrong verdict: an unknown field, a missing
time or a process with two operations open at once is an error that names the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import msgspec
import numpy as np

from bench.checkers.columns import (
    KIND_CODES,
    NEVER,
    NOT_TOLD,
    NULL,
    OUTCOME_CODES,
    SIBLINGS,
    Columns,
    Int32s,
    Int64s,
    Numbering,
)
from bench.history import MAX_LINE_BYTES, BadHistory
from nodes.effects import OperationKind, Outcome, Value, Version

_BLOCK_BYTES: Final = 1 << 20

Nanoseconds = Annotated[int, msgspec.Meta(ge=-(2**60), le=2**60)]
Identity = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class Line(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One line. ``process`` and ``key`` may be numbers. The last four fields are those of
    capbench's own histories and are not needed for a verdict."""

    process: str | int
    op: OperationKind
    key: str | int
    outcome: Outcome
    invoked_ns: Nanoseconds
    completed_ns: Nanoseconds | None = None
    id: Identity | None = None
    value: Value | list[Value] = None
    expected: Value = None
    applied: bool | None = None
    seen: Value | msgspec.UnsetType = msgspec.UNSET
    node: str | None = None
    intended_ns: int | None = None
    version: Version = None
    error: str | None = None


def read_columns(path: Path) -> Columns:
    """The operations of one file, row i is line i + 1.

    Raises BadHistory with the line number and the reason; OSError where the file cannot be read.
    """
    reader = _Reader(path)
    for first, block in _blocks(path):
        reader.take(first, block)
    c = reader.columns()
    _check(path, c)
    return c


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines, and the number of the first of them. The last line may lack its newline."""
    first = 1
    rest = b""
    with path.open("rb") as file:
        while True:
            chunk = file.read(_BLOCK_BYTES)
            whole, newline, tail = chunk.rpartition(b"\n")
            if newline:
                block = rest + whole + newline
                yield first, block
                first += block.count(b"\n")
                rest = tail
            else:
                rest += chunk
            if len(rest) > MAX_LINE_BYTES:
                _refuse(path, first, f"line of more than {MAX_LINE_BYTES} bytes")
            if not chunk:
                break
    if rest:
        yield first, rest


def _refuse(path: Path, line: int, reason: str) -> NoReturn:
    raise BadHistory(f"{path}:{line}: {reason}")


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.decoder = msgspec.json.Decoder(Line)
        self.values = Numbering()
        self.processes: dict[str | int, int] = {}
        self.keys: dict[str | int, int] = {}
        self.nodes: dict[str | None, int] = {None: 0}
        self.siblings: dict[int, list[int]] = {}
        self.parts: list[list[Any]] = []
        self.count = 0

    def take(self, first: int, block: bytes) -> None:
        """Add a block of lines, the first of which has number ``first``."""
        try:
            lines = self.decoder.decode_lines(block)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            lines = []
        if len(lines) != block.count(b"\n") + (not block.endswith(b"\n")) or (
            len(block) > MAX_LINE_BYTES and max(map(len, block.split(b"\n"))) > MAX_LINE_BYTES
        ):
            self._find_the_bad_line(first, block)
        n = len(lines)
        op = [line.op for line in lines]
        value = [line.value for line in lines]
        applied = [line.applied for line in lines]
        node = [line.node for line in lines]
        codes = _codes(self.values, value)
        if codes is None:
            codes = self._odd_values(op, value)
        elif "delete" in op:
            codes[np.array(op) == "delete"] = NULL
        self.parts.append(
            [
                _numbered(self.processes, [line.process for line in lines]),
                np.array([KIND_CODES[name] for name in op], np.int8),
                _numbered(self.keys, [line.key for line in lines]),
                np.array([OUTCOME_CODES[line.outcome] for line in lines], np.int8),
                np.array([line.invoked_ns for line in lines], np.int64),
                _times([line.completed_ns for line in lines]),
                self._ids(first, [line.id for line in lines]),
                codes,
                _codes_of_few(self.values, [line.expected for line in lines], None, NULL),
                np.fromiter((a is not False for a in applied), np.bool_, n)
                if False in applied
                else np.ones(n, np.bool_),
                _codes_of_few(self.values, [line.seen for line in lines], msgspec.UNSET, NOT_TOLD),
                _numbered(self.nodes, node) if any(node) else np.zeros(n, np.int32),
            ]
        )
        self.count += n

    def _odd_values(self, op: list[OperationKind], value: list[Any]) -> Int32s:
        """Values among which are lists."""
        codes = np.empty(len(value), np.int32)
        code = self.values.code
        for place, some in enumerate(value):
            if isinstance(some, list):
                if op[place] != "read":
                    _refuse(
                        self.path, self.count + place + 1, "only a read may have several values"
                    )
                if len(some) > 1:
                    self.siblings[self.count + place] = [code(v) for v in some]
                    codes[place] = SIBLINGS
                else:
                    codes[place] = code(some[0]) if some else NULL
            else:
                codes[place] = NULL if op[place] == "delete" else code(some)
        return codes

    def _ids(self, first: int, ids: list[int | None]) -> Int64s:
        """An operation without an id has the number of its line."""
        if None not in ids:
            return np.array(ids, np.int64)
        return np.array([first + i if x is None else x for i, x in enumerate(ids)], np.int64)

    def _find_the_bad_line(self, first: int, block: bytes) -> NoReturn:
        lines = block.removesuffix(b"\n").split(b"\n")
        for number, line in enumerate(lines, first):
            if len(line) > MAX_LINE_BYTES:
                _refuse(self.path, number, f"line of {len(line)} bytes, limit {MAX_LINE_BYTES}")
            if not line.strip():
                _refuse(self.path, number, "empty line")
            try:
                self.decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                _refuse(self.path, number, str(error))
        raise AssertionError("every line of a bad block is good")

    def columns(self) -> Columns:
        """All that was taken."""
        if not self.parts:
            return Columns.from_records([])
        joined = [np.concatenate(column) for column in zip(*self.parts, strict=True)]
        self.parts.clear()
        process, op, key, outcome, invoked, completed, ids, value, expected = joined[:9]
        applied, seen, node = joined[9:]
        return Columns(
            process=process,
            id=ids,
            op=op,
            outcome=outcome,
            key=key,
            value=value,
            expected=expected,
            seen=seen,
            applied=applied,
            node=node,
            invoked=invoked,
            completed=completed,
            processes=[str(name) for name in self.processes],
            keys=[str(name) for name in self.keys],
            nodes=[name or "" for name in self.nodes],
            values=self.values.values,
            siblings=self.siblings,
        )


def _numbered(known: dict[Any, int], names: list[Any]) -> Int32s:
    for name in dict.fromkeys(names):
        if name in known:
            continue
        known[name] = len(known)
    return np.array([known[name] for name in names], np.int32)


def _codes(numbering: Numbering, values: list[Any]) -> Int32s | None:
    """The numbers of values, None if there are lists among them."""
    kinds = set(map(type, values))
    if list in kinds:
        return None
    if bool in kinds:
        return np.fromiter(map(numbering.code, values), np.int32, len(values))
    return np.array(numbering.plain_codes(values), np.int32)


def _codes_of_few(
    numbering: Numbering, values: list[Any], absent: object, code_of_absent: int
) -> Int32s:
    """The numbers of a column in which most lines have nothing."""
    if set(map(id, values)) == {id(absent)}:
        return np.full(len(values), code_of_absent, np.int32)
    code = numbering.code
    return np.fromiter(
        (code_of_absent if v is absent else code(v) for v in values), np.int32, len(values)
    )


def _times(completed: list[int | None]) -> Int64s:
    if None in completed:
        return np.array([NEVER if t is None else t for t in completed], np.int64)
    return np.array(completed, np.int64)


def _check(path: Path, c: Columns) -> None:
    """What no single line can show. ``completed`` still has the end that the client saw;
    afterwards an operation of unknown outcome never ended."""
    if len(c) == 0:
        return
    order = np.argsort(c.id, kind="stable")
    twice = np.flatnonzero(c.id[order][1:] == c.id[order][:-1])
    if len(twice):
        row = int(order[twice + 1].min())
        _refuse(path, row + 1, f"id {int(c.id[row])} was there before")
    early = np.flatnonzero(c.completed < c.invoked)
    if len(early):
        _refuse(path, int(early[0]) + 1, "completed_ns is before invoked_ns")
    info = OUTCOME_CODES["info"]
    endless = np.flatnonzero((c.completed == NEVER) & (c.outcome != info))
    if len(endless):
        _refuse(path, int(endless[0]) + 1, "completed_ns may be null only where outcome is info")

    order = np.lexsort((c.completed, c.invoked, c.process))
    same = c.process[order][1:] == c.process[order][:-1]
    still_open = c.completed[order][:-1] > c.invoked[order][1:]
    both = np.flatnonzero(same & still_open)
    if len(both):
        later = int(order[both + 1].min())
        name = c.processes[c.process[later]]
        _refuse(path, later + 1, f"process {name!r} has another operation open at this time")
    c.completed[c.outcome == info] = NEVER
    c.applied |= (c.op != KIND_CODES["cas"]) | (c.outcome != OUTCOME_CODES["ok"])
