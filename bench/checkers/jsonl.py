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
    DELETE,
    KIND_CODES,
    NEVER,
    NOT_TOLD,
    NULL,
    OUTCOME_CODES,
    SIBLINGS,
    Bools,
    Columns,
    Int32s,
    Int64s,
    Numbering,
)
from bench.checkers.jsonl_lines import Integers, Lines, Names, read_lines
from bench.history import MAX_LINE_BYTES, BadHistory
from nodes.effects import OperationKind, Outcome, Value, Version

_BLOCK_BYTES: Final = 1 << 21
"""So large that the calls of NumPy, some 300 a block, are cheap."""

_PIECE_BYTES: Final = 1 << 18
"""What is decoded line by line, so small that the lines stay in the processor's cache."""

_TRIES: Final = 8
"""So many blocks of another layout than capbench's, and no further one is tried as such."""

_NEWLINE: Final = ord("\n")

Nanoseconds = Annotated[int, msgspec.Meta(ge=-(2**60), le=2**60)]
Identity = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class PlainLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One line without the fields of a CAS: a block of such lines is read faster. ``process`` and
    ``key`` may be numbers. ``intended_ns``, ``version`` and ``error`` are those of capbench's own
    histories and are not needed for a verdict.

    The order is that in which capbench writes them, which the decoder expects."""

    process: str | int
    id: Identity | None = None
    op: OperationKind
    key: str | int
    outcome: Outcome
    invoked_ns: Nanoseconds
    completed_ns: Nanoseconds | None = None
    intended_ns: int | None = None
    value: Value | list[Value] = None
    node: str | None = None
    version: Version = None
    error: str | None = None


class Line(PlainLine, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One line."""

    expected: Value = None
    applied: bool | None = None
    seen: Value | msgspec.UnsetType = msgspec.UNSET


def read_columns(path: Path) -> Columns:
    """The operations of one file, row i is line i + 1.

    Raises BadHistory with the line number and the reason; OSError where the file cannot be read.
    """
    reader = _Reader(path)
    for block in _blocks(path):
        reader.take(block)
    c = reader.columns()
    _check(path, c)
    return c


def _blocks(path: Path) -> Iterator[bytes]:
    """The file in pieces of whole lines; of a line that is too long, enough to see that it is. The
    last line may lack its newline."""
    with path.open("rb") as file:
        while chunk := file.read(_BLOCK_BYTES):
            yield chunk if chunk.endswith(b"\n") else chunk + file.readline(MAX_LINE_BYTES + 1)


def _refuse(path: Path, line: int, reason: str) -> NoReturn:
    raise BadHistory(f"{path}:{line}: {reason}")


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.decoder = msgspec.json.Decoder(Line)
        self.plain_decoder = msgspec.json.Decoder(PlainLine)
        self.is_plain = True
        self.values = _Values()
        self.processes: dict[str | int, int] = {}
        self.keys: dict[str | int, int] = {}
        self.nodes: dict[str | None, int] = {None: 0, "": 0}
        self.names = [Names(known) for known in (self.processes, self.keys, self.nodes)]
        self.other_layout = 0
        self.siblings: dict[int, list[int]] = {}
        self.parts: list[tuple[Any, ...]] = []
        self.count = 0

    def take(self, block: bytes) -> None:
        """Add a block of whole lines."""
        if self.other_layout < _TRIES:
            quickly = read_lines(block, *self.names)
            if quickly is not None:
                self._take_columns(quickly)
                return
            self.other_layout += 1
        begin = 0
        while begin < len(block):
            end = block.find(b"\n", begin + _PIECE_BYTES) + 1 or len(block)
            self._take_piece(block[begin:end])
            begin = end

    def _take_piece(self, block: bytes) -> None:
        lines = self._decoded(block)
        n = len(lines)
        op = [line.op for line in lines]
        op_codes = bytes(map(KIND_CODES.__getitem__, op))
        value = [line.value for line in lines]
        kinds = set(map(type, value))
        if list in kinds:
            value = self._without_lists(op, value)
            kinds = set(map(type, value))
        elif DELETE in op_codes:
            value = [None if name == "delete" else v for name, v in zip(op, value, strict=True)]
            kinds = set(map(type, value))
        node = [line.node for line in lines]
        self.parts.append(
            (
                _numbered(self.processes, [line.process for line in lines]),
                np.frombuffer(op_codes, np.int8),
                _numbered(self.keys, [line.key for line in lines]),
                np.frombuffer(
                    bytes(map(OUTCOME_CODES.__getitem__, [line.outcome for line in lines])), np.int8
                ),
                np.fromiter([line.invoked_ns for line in lines], np.int64, n),
                _times([line.completed_ns for line in lines]),
                self._ids([line.id for line in lines]),
                self.values.take(value, kinds, None, NULL),
                *self._of_cas(lines),
                _numbered(self.nodes, node) if any(node) else np.zeros(n, np.int32),
            )
        )
        self.count += n

    def _take_columns(self, lines: Lines) -> None:
        n = len(lines.op)
        lines.value.there &= lines.op != DELETE
        seen = np.where(lines.was_told, NULL, NOT_TOLD).astype(np.int32)
        self.parts.append(
            (
                lines.process,
                lines.op,
                lines.key,
                lines.outcome,
                lines.invoked,
                np.where(lines.completed.there, lines.completed.numbers, NEVER),
                lines.id,
                self.values.take_integers(lines.value, np.full(n, NULL, np.int32)),
                self.values.take_integers(lines.expected, np.full(n, NULL, np.int32)),
                lines.applied,
                self.values.take_integers(lines.seen, seen),
                np.zeros(n, np.int32) if lines.node is None else lines.node,
            )
        )
        self.count += n

    def _decoded(self, block: bytes) -> list[PlainLine]:
        """The lines of a block, of type Line unless ``is_plain``."""
        newlines = np.count_nonzero(np.frombuffer(block, np.uint8) == _NEWLINE)
        count = int(newlines) + (not block.endswith(b"\n"))
        if len(block) > MAX_LINE_BYTES and max(map(len, block.split(b"\n"))) > MAX_LINE_BYTES:
            self._find_the_bad_line(block)
        if self.is_plain:
            try:
                lines = self.plain_decoder.decode_lines(block)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if len(lines) == count:
                    return lines
            self.is_plain = False
        try:
            lines = list[PlainLine](self.decoder.decode_lines(block))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            lines = []
        if len(lines) != count:
            self._find_the_bad_line(block)
        return lines

    def _of_cas(self, lines: list[Any]) -> tuple[Int32s, Bools, Int32s]:
        """The columns ``expected``, ``applied`` and ``seen``."""
        n = len(lines)
        if self.is_plain:
            return np.full(n, NULL, np.int32), np.ones(n, np.bool_), np.full(n, NOT_TOLD, np.int32)
        expected = [line.expected for line in lines]
        seen = [line.seen for line in lines]
        return (
            self.values.take(expected, set(map(type, expected)), None, NULL),
            np.array([line.applied is not False for line in lines], np.bool_),
            self.values.take(seen, set(map(type, seen)), msgspec.UNSET, NOT_TOLD),
        )

    def _without_lists(self, op: list[OperationKind], value: list[Any]) -> list[Any]:
        """Take out the reads that saw several values; a list of one is that one, an empty one
        null."""
        plain = []
        for place, (name, some) in enumerate(zip(op, value, strict=True)):
            if isinstance(some, list):
                if name != "read":
                    _refuse(
                        self.path, self.count + place + 1, "only a read may have several values"
                    )
                if len(some) > 1:
                    self.siblings[self.count + place] = [
                        self.values.numbering.code(v) for v in some
                    ]
                plain.append(some[0] if len(some) == 1 else None)
            else:
                plain.append(None if name == "delete" else some)
        return plain

    def _ids(self, ids: list[int | None]) -> Int64s:
        """An operation without an id has the number of its line."""
        some = _integers(ids)
        if some is None:
            some = np.array(
                [i if x is None else x for i, x in enumerate(ids, self.count + 1)], np.int64
            )
        return some

    def _find_the_bad_line(self, block: bytes) -> NoReturn:
        lines = block.removesuffix(b"\n").split(b"\n")
        for number, line in enumerate(lines, self.count + 1):
            if len(line) > MAX_LINE_BYTES:
                _refuse(self.path, number, f"line of more than {MAX_LINE_BYTES} bytes")
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
        self.values.resolve()
        columns = list(zip(*self.parts, strict=True))
        self.parts.clear()
        joined = [np.concatenate(columns.pop(0)) for _ in range(len(columns))]
        process, op, key, outcome, invoked, completed, ids, value, expected = joined[:9]
        applied, seen, node = joined[9:]
        value[list(self.siblings)] = SIBLINGS
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
            values=self.values.numbering.values,
            siblings=self.siblings,
        )


def _numbered(known: dict[Any, int], names: list[Any]) -> Int32s:
    try:  # most blocks name nobody new
        return np.fromiter(map(known.__getitem__, names), np.int32, len(names))
    except KeyError:
        for name in dict.fromkeys(names):
            known.setdefault(name, len(known))
    return np.fromiter(map(known.__getitem__, names), np.int32, len(names))


class _Values:
    """Numbers the values of all columns. Where a piece of a column holds integers only, as they
    mostly do, they are numbered all at once at the end."""

    def __init__(self) -> None:
        self.numbering = Numbering()
        self.waiting: list[tuple[Int32s, Bools | None, Int64s]] = []

    def take(
        self, values: list[Any], kinds: set[type], absent: object, code_of_absent: int
    ) -> Int32s:
        """The numbers of ``values``, which are of the types ``kinds``; they may be filled in only
        by `resolve`."""
        n = len(values)
        codes = np.full(n, code_of_absent, np.int32)
        some_absent = type(absent) in kinds
        kinds = kinds - {type(absent)}
        if not kinds:
            return codes
        if kinds == {int}:
            try:
                self._later(values, absent, some_absent, codes)
            except OverflowError:
                pass
            else:
                return codes
        if some_absent:
            code = self.numbering.code
            codes[:] = [code_of_absent if v is absent else code(v) for v in values]
        elif bool in kinds:
            codes[:] = list(map(self.numbering.code, values))
        else:
            codes[:] = self.numbering.plain_codes(values)
        return codes

    def take_integers(self, column: Integers, codes: Int32s) -> Int32s:
        """The same for a column of integers. ``codes``: what holds where there are none."""
        if column.there.all():
            self.waiting.append((codes, None, column.numbers))
        elif column.there.any():
            self.waiting.append((codes, column.there, column.numbers[column.there]))
        return codes

    def _later(self, values: list[Any], absent: object, some: bool, codes: Int32s) -> None:
        there = None
        if some:
            there = np.array([v is not absent for v in values], np.bool_)
            values = [v for v in values if v is not absent]
        self.waiting.append((codes, there, np.fromiter(values, np.int64, len(values))))

    def resolve(self) -> None:
        """Fill in what is waiting."""
        if not self.waiting:
            return
        raw = np.concatenate([part for _, _, part in self.waiting])
        distinct, numbered = _distinct(raw)
        del raw
        values = self.numbering.values
        if len(values) == 1:  # nothing but null yet: all are new
            values.extend(distinct.tolist())
            found = (numbered + 1).astype(np.int32)
        else:
            code_of = np.array(self.numbering.plain_codes(distinct.tolist()), np.int32)
            found = code_of[numbered]
        place = 0
        for codes, there, part in self.waiting:
            here = found[place : place + len(part)]
            place += len(part)
            if there is None:
                codes[:] = here
            else:
                codes[there] = here
        self.waiting.clear()


def _distinct(raw: Int64s) -> tuple[Int64s, Int64s]:
    """The distinct numbers in ascending order, and of each number its place among them."""
    low, high = int(raw.min()), int(raw.max())
    if high - low < 4 * len(raw) + 1000:  # dense: a table is faster than sorting
        there = np.zeros(high - low + 1, np.bool_)
        there[raw - low] = True
        return np.flatnonzero(there) + low, (np.cumsum(there) - 1)[raw - low]
    distinct, numbered = np.unique(raw, return_inverse=True)
    return distinct, numbered


def _integers(numbers: list[int | None]) -> Int64s | None:
    """A column of integers, None if one is missing."""
    try:
        return np.fromiter(numbers, np.int64, len(numbers))
    except TypeError:
        return None


def _times(completed: list[int | None]) -> Int64s:
    some = _integers(completed)
    if some is None:
        some = np.array([NEVER if t is None else t for t in completed], np.int64)
    return some


def _check(path: Path, c: Columns) -> None:
    """What no single line can show. ``completed`` still has the end that the client saw;
    afterwards an operation of unknown outcome never ended."""
    if len(c) == 0:
        return
    if not (c.id[1:] > c.id[:-1]).all():
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

    order = np.argsort(c.invoked, kind="stable")
    process = c.process[order]
    if len(c.processes) < 1 << 15:
        process = process.astype(np.int16)  # for these NumPy has a radix sort
    order = order[np.argsort(process, kind="stable")]
    if len(_open_twice(c, order)):
        order = np.lexsort((c.completed, c.invoked, c.process))  # operations that take no time
        both = _open_twice(c, order)
        if len(both):
            later = int(both.min())
            name = c.processes[c.process[later]]
            _refuse(path, later + 1, f"process {name!r} has another operation open at this time")
    c.completed[c.outcome == info] = NEVER
    c.applied |= (c.op != KIND_CODES["cas"]) | (c.outcome != OUTCOME_CODES["ok"])


def _open_twice(c: Columns, order: Int64s) -> Int64s:
    """Rows that begin while the row before them, of the same process, is open."""
    process = c.process[order]
    still_open = c.completed[order[:-1]] > c.invoked[order[1:]]
    found: Int64s = order[1:][(process[1:] == process[:-1]) & still_open]
    return found
