"""Histories of other tools: strict JSONL, read straight into columns (docs/HISTORY_FORMAT.md).

Strict, because a misread history gives a wrong verdict. A field that is unknown, missing, given
twice or meaningless for its operation is an error that names file, line and field; so is a process
with two open operations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import msgspec
import numpy as np

from bench.record.columns import (
    CAS,
    DELETE,
    INFO,
    KIND_CODES,
    NEVER,
    NOT_TOLD,
    NULL,
    OK,
    OUTCOME_CODES,
    SIBLINGS,
    Bools,
    Columns,
    Int8s,
    Int32s,
    Int64s,
    Numbering,
    distinct_values,
    shifted,
)
from bench.record.files import shown
from bench.record.history import ABSENT, MAX_LINE_BYTES, STANDARD_INPUT, BadHistory, why_bad
from bench.record.jsonl_lines import Integers, Lines, Names, read_lines
from bench.record.models.source import Source, opened
from bench.record.well_formed import Given, misfit_together
from nodes.contract.replica import OperationKind, Outcome, Value, Version

_PIECE_BYTES: Final = 1 << 18
"""What is decoded line by line: small enough for the processor's cache."""

_TRIES: Final = 8
"""After so many blocks of another layout, capbench's own layout is no longer tried."""

_NEWLINE: Final = ord("\n")

_COLON: Final = ord(":")

Integer64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class PlainLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One line without the fields of a CAS: blocks of such lines are read faster. ``process`` and
    ``key`` may be numbers. ``intended_ns``, ``version`` and ``error`` come from capbench's own
    histories; a verdict does not need them.

    The fields are in the order in which capbench writes them: the decoder is faster so."""

    process: str | Integer64
    id: Integer64 | None = None
    op: OperationKind
    key: str | Integer64
    outcome: Outcome
    invoked_ns: Integer64
    completed_ns: Integer64 | None = None
    intended_ns: Integer64 | None = None
    value: Value | list[Value] | msgspec.UnsetType = msgspec.UNSET
    node: str | None = None
    version: Version = None
    error: str | None = None


class Line(PlainLine, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One line."""

    expected: Value | msgspec.UnsetType = msgspec.UNSET
    applied: bool | None = None
    seen: Value | msgspec.UnsetType = msgspec.UNSET


def read_columns(given: Path | Source) -> Columns:
    """The operations of one file: row i is line i + 1. ``-`` is standard input.

    Raises BadHistory, which names the file, the line and the reason.
    """
    reader = _Reader(given if isinstance(given, Path) else given.path)
    for block in blocks(given):
        reader.take(block)
    return reader.columns()


def file_name(path: Path) -> str:
    """The name of the file in messages."""
    return "standard input" if path == STANDARD_INPUT else shown(path)


def blocks(given: Path | Source) -> Iterator[bytes]:
    """The file in blocks of whole lines. An overlong line is cut, but still too long. The last line
    may lack its newline."""
    if isinstance(given, Source):
        yield from given.blocks(MAX_LINE_BYTES)
        return
    with opened(given) as source:
        yield from source.blocks(MAX_LINE_BYTES)


def refuse(path: Path, line: int, reason: str) -> NoReturn:
    """Raise BadHistory, which names file, line and reason."""
    raise BadHistory(f"{file_name(path)}:{line}: {reason}")


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
        """Append a block of whole lines."""
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
        value: list[Any] = [line.value for line in lines]
        kinds = set(map(type, value))
        given = self._given(lines, np.frombuffer(op_codes, np.int8), value, kinds)
        self._refuse_misfits(given)
        completed = [line.completed_ns for line in lines]
        node = [line.node for line in lines]
        ids = [line.id for line in lines]
        rare = [
            [getattr(line, name) for line in lines]
            for name in ("intended_ns", "version", "error")
            if f'"{name}"'.encode() in block
        ]
        self._refuse_fields_given_twice(block, given, [completed, node, ids, *rare])
        if msgspec.UnsetType in kinds:
            value = [None if v is ABSENT else v for v in value]
            kinds = set(map(type, value))
        if list in kinds:
            value = self._without_lists(op, value)
            kinds = set(map(type, value))
        self.parts.append(
            (
                _numbered(self.processes, [line.process for line in lines]),
                np.frombuffer(op_codes, np.int8),
                _numbered(self.keys, [line.key for line in lines]),
                given.outcome,
                np.fromiter([line.invoked_ns for line in lines], np.int64, n),
                *_times(completed),
                self._ids(ids),
                self.values.take(value, kinds, None, NULL),
                *self._of_cas(lines),
                _numbered(self.nodes, node) if any(node) else np.zeros(n, np.int32),
            )
        )
        self.count += n

    def _take_columns(self, lines: Lines) -> None:
        n = len(lines.op)
        self._refuse_misfits(
            Given(
                op=lines.op,
                outcome=lines.outcome,
                value=lines.value.has_field,
                is_null=~lines.value.there,
                expected=lines.expected.has_field,
                applied=lines.has_applied,
                refused=lines.refused,
                seen=lines.seen.has_field,
            )
        )
        seen = np.where(lines.seen.has_field, NULL, NOT_TOLD).astype(np.int32)
        self.parts.append(
            (
                lines.process,
                lines.op,
                lines.key,
                lines.outcome,
                lines.invoked,
                np.where(lines.completed.there, lines.completed.numbers, NEVER),
                ~lines.completed.there,
                lines.id,
                self.values.take_integers(lines.value, np.full(n, NULL, np.int32)),
                self.values.take_integers(lines.expected, np.full(n, NULL, np.int32)),
                ~lines.refused,
                self.values.take_integers(lines.seen, seen),
                np.zeros(n, np.int32) if lines.node is None else lines.node,
            )
        )
        self.count += n

    def _given(self, lines: list[Any], op: Int8s, value: list[Any], kinds: set[type]) -> Given:
        n = len(lines)
        none, every = np.zeros(n, np.bool_), np.ones(n, np.bool_)
        outcome = bytes(map(OUTCOME_CODES.__getitem__, [line.outcome for line in lines]))
        expected = applied = refused = seen = none
        if not self.is_plain:
            expected = np.array([line.expected is not ABSENT for line in lines], np.bool_)
            applied = np.array([line.applied is not None for line in lines], np.bool_)
            refused = np.array([line.applied is False for line in lines], np.bool_)
            seen = np.array([line.seen is not ABSENT for line in lines], np.bool_)
        return Given(
            op=op,
            outcome=np.frombuffer(outcome, np.int8),
            value=np.array([v is not ABSENT for v in value], np.bool_)
            if msgspec.UnsetType in kinds
            else every,
            is_null=np.array([v is None for v in value], np.bool_)
            if (op == DELETE).any()
            else none,
            expected=expected,
            applied=applied,
            refused=refused,
            seen=seen,
        )

    def _refuse_misfits(self, given: Given) -> None:
        misfit = given.misfit()
        if misfit is not None:
            refuse(self.path, self.count + misfit.row + 1, misfit.reason)

    def _refuse_fields_given_twice(
        self, block: bytes, given: Given, others: list[list[Any]]
    ) -> None:
        """The decoder would take the last one. Every field has a colon: a line with as many colons
        as fields has no duplicate. Other lines are examined one by one."""
        codes = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(codes == _NEWLINE)
        ends = np.append(ends, len(block))[: len(given.op)]
        upto = np.searchsorted(np.flatnonzero(codes == _COLON), ends)
        colons = np.diff(upto, prepend=0)
        fields = 5 + given.value.astype(np.int64) + given.expected + given.applied + given.seen
        for column in others:
            if None in column:
                fields += np.array([field is not None for field in column], np.bool_)
            else:
                fields += 1
        starts = np.concatenate(([0], ends[:-1] + 1))
        for row in np.flatnonzero(colons != fields).tolist():
            twice = given_twice(block[starts[row] : ends[row]])
            if twice is not None:
                refuse(self.path, self.count + row + 1, f"field `{twice}` is given twice")

    def _decoded(self, block: bytes) -> list[PlainLine]:
        """The decoded lines of a block, as `Line` unless ``is_plain``."""
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
        expected = [None if line.expected is ABSENT else line.expected for line in lines]
        seen = [line.seen for line in lines]
        return (
            self.values.take(expected, set(map(type, expected)), None, NULL),
            np.array([line.applied is not False for line in lines], np.bool_),
            self.values.take(seen, set(map(type, seen)), msgspec.UNSET, NOT_TOLD),
        )

    def _without_lists(self, op: list[OperationKind], value: list[Any]) -> list[Any]:
        """Replace the lists of reads that saw several values; a list of one is that value, an empty
        list null."""
        plain = []
        for place, (name, some) in enumerate(zip(op, value, strict=True)):
            if isinstance(some, list):
                if name != "read":
                    refuse(self.path, self.count + place + 1, "only a read may have several values")
                distinct = distinct_values(some)
                if len(distinct) > 1:
                    self.siblings[self.count + place] = [
                        self.values.numbering.code(v) for v in distinct
                    ]
                plain.append(distinct[0] if len(distinct) == 1 else None)
            else:
                plain.append(some)
        return plain

    def _ids(self, ids: list[int | None]) -> Int64s:
        """An operation without an id gets the number of its line."""
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
                refuse(self.path, number, f"line of more than {MAX_LINE_BYTES} bytes")
            if not line.strip():
                refuse(self.path, number, "empty line")
            try:
                self.decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                refuse(self.path, number, why_bad(line, error))
        raise AssertionError("every line of a bad block is good")

    def columns(self) -> Columns:
        """All lines as columns. Raises BadHistory for what no single line can show."""
        if not self.parts:
            return Columns.from_records([])
        self.values.resolve()
        columns = list(zip(*self.parts, strict=True))
        self.parts.clear()
        joined = [np.concatenate(columns.pop(0)) for _ in range(len(columns))]
        process, op, key, outcome, invoked, completed, endless, ids, value, expected = joined[:10]
        applied, seen, node = joined[10:]
        value[list(self.siblings)] = SIBLINGS
        c = Columns(
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
            takes_time=completed > invoked,  # `NEVER` if there was no end
            processes=self._names_once(self.processes, process, "process"),
            keys=self._names_once(self.keys, key, "key"),
            nodes=[name or "" for name in self.nodes],
            values=self.values.numbering.values,
            siblings=self.siblings,
        )
        misfit = misfit_together(c, endless)
        if misfit is not None:
            refuse(self.path, misfit.row + 1, misfit.reason)
        endless |= outcome == INFO
        c.invoked, c.completed, c.times = shifted(invoked, completed, endless)
        c.applied |= (op != CAS) | (outcome != OK)
        return c

    def _names_once(self, known: dict[Any, int], column: Int32s, what: str) -> list[str]:
        """Names as text. A history with both 1 and "1" is rejected: they may or may not mean the
        same."""
        names = [str(name) for name in known]
        if len(set(names)) < len(names):
            name = next(name for place, name in enumerate(names) if name in names[:place])
            row = int(np.argmax(column == max(known.get(name, 0), known.get(int(name), 0))))
            refuse(
                self.path, row + 1, f"{what} {name} is both a number and a text: use one of them"
            )
        return names


def given_twice(line: bytes) -> str | None:
    """A field that occurs twice in a line; the decoder would take the last one."""
    names: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        names[:] = [name for name, _ in pairs]  # the outermost object ends last

    json.loads(line, object_pairs_hook=note)
    return next((name for place, name in enumerate(names) if name in names[:place]), None)


def _numbered(known: dict[Any, int], names: list[Any]) -> Int32s:
    try:  # most blocks have no new names
        return np.fromiter(map(known.__getitem__, names), np.int32, len(names))
    except KeyError:
        for name in dict.fromkeys(names):
            known.setdefault(name, len(known))
    return np.fromiter(map(known.__getitem__, names), np.int32, len(names))


class _Values:
    """Numbers the values of all columns. Pieces of only integers, as most are, are numbered all at
    once at the end."""

    def __init__(self) -> None:
        self.numbering = Numbering()
        self.waiting: list[tuple[Int32s, Bools | None, Int64s]] = []

    def take(
        self, values: list[Any], kinds: set[type], absent: object, code_of_absent: int
    ) -> Int32s:
        """The numbers of ``values`` of the types ``kinds``; `resolve` may fill them in later."""
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
        """The same for a column of integers. ``codes``: the numbers of rows without an integer."""
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
        """Fill in the numbers left open by `take`."""
        if not self.waiting:
            return
        raw = np.concatenate([part for _, _, part in self.waiting])
        distinct, numbered = _distinct(raw)
        del raw
        values = self.numbering.values
        if len(values) == 1:  # only null so far: all are new
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
    """The distinct numbers in ascending order, and the index of each number among them."""
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


def _times(completed: list[int | None]) -> tuple[Int64s, Bools]:
    """A column of times, `NEVER` if missing, and which are missing."""
    some = _integers(completed)
    if some is not None:
        return some, np.zeros(len(some), np.bool_)
    some = np.array([NEVER if t is None else t for t in completed], np.int64)
    return some, np.array([t is None for t in completed], np.bool_)
