"""The recorded operations of a run.

One JSON object per line, appended as operations complete; one file per client process. The format
is small on purpose: a dozen lines convert a history from another tool.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, Final, Literal, TypeAlias, get_args

import msgspec

from bench.record.files import NotReadable, naming, open_regular, shown, whole_lines
from bench.record.printable import escaped
from nodes.contract.replica import OperationKind, Outcome, Value, Version
from nodes.errors import InvalidInput

ABSENT: Final[Any] = msgspec.UNSET
"""Of a field that the record does not have. None is the value null."""


Stamp: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
"""A time or an id in a run folder; the difference of two fits into 64 bits."""

RecordedOperation: TypeAlias = OperationKind | Literal["transaction"]
"""What an operation of a run may be. Of a transaction, ``key`` names all keys that it may touch,
with spaces between; what it did is in the history of the workload's kind."""

BITS_64: Final = range(-(1 << 63), 1 << 63)
_TOO_LARGE: Final = "an integer has more than 64 bits"
_LIMIT_OF_64_BITS = re.compile(r"Expected `int` (<= 9223372036854775807|>= -9223372036854775808)")

STANDARD_INPUT: Final = Path("-")
"""As the path of a history: standard input."""


class OperationRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One operation of a history.

    ``process``: a logical client; it has one operation open at a time and is not used again after
    one that ended ``info``. ``id``: unique in the history. ``intended_ns``: when the workload
    wanted it sent; ``invoked_ns``: when it was sent; ``completed_ns``: when its outcome was known
    (None: never); all `time.monotonic_ns()` of one host. ``value``: written, or read (a list if a
    read saw siblings). ``expected``: of a CAS. ``applied``: of a CAS that ended ok; if it was
    refused (False), ``seen`` is the value that it found, or `ABSENT` if the reply did not say.
    ``node``: the node that was asked. ``version``: as the replica returned it.

    None is a value: the key was missing. A ``value``, ``expected`` or ``seen`` that the record does
    not have is `ABSENT`.
    """

    process: str
    id: Stamp
    op: RecordedOperation
    key: str
    outcome: Outcome
    invoked_ns: Stamp
    completed_ns: Stamp | None = None
    intended_ns: Stamp | None = None
    value: Value | list[Value] = ABSENT
    expected: Value = ABSENT
    applied: bool | None = None
    seen: Value | msgspec.UnsetType = ABSENT
    node: str | None = None
    version: Version = None
    error: str | None = None


class BadHistory(InvalidInput):
    """An invalid history file: names file, line and reason, in one line whatever the file says."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_BYTES = 2 << 30


class HistoryWriter:
    """Appends records to a file, and flushes it at least every ``flush_every_s`` seconds if
    `append` or `flush` is called that often. Use it as a context manager."""

    def __init__(self, path: Path, *, flush_every_s: float = 0.2) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file: BinaryIO = path.open("ab", buffering=1 << 20)
        self._encode = msgspec.json.Encoder().encode
        self._flush_every_ns = int(flush_every_s * 1e9)
        self._flushed_ns = time.monotonic_ns()
        self.count = 0

    def append(self, record: OperationRecord) -> None:
        """Append a completed or abandoned operation. Raises OSError."""
        self.append_model(_in_format(record))

    def append_model(self, record: msgspec.Struct) -> None:
        """Append an operation of another kind than registers, as it is. Raises OSError."""
        line = self._encode(record) + b"\n"
        try:
            self._file.write(line)
        except OSError as error:
            error.filename = str(self._path)
            raise
        self.count += 1
        now = time.monotonic_ns()
        if now - self._flushed_ns > self._flush_every_ns:
            self._flushed_ns = now
            self.flush()

    def flush(self) -> None:
        """Write out what is buffered. Raises OSError."""
        with naming(self._path):
            self._file.flush()

    def close(self) -> None:
        """Flush and close. Raises OSError."""
        with naming(self._path):
            self._file.close()

    def __enter__(self) -> HistoryWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def _in_format(record: OperationRecord) -> OperationRecord:
    """``record`` without the fields that its operation does not have: readers reject them."""
    if record.op == "cas" and record.outcome == "ok" and record.applied is False:
        return record
    is_cas = record.op == "cas"
    has_applied = record.applied is not None and not (is_cas and record.outcome == "ok")
    has_expected = record.expected is not ABSENT and not is_cas
    if not has_applied and not has_expected and record.seen is ABSENT:
        return record
    return msgspec.structs.replace(
        record,
        expected=record.expected if is_cas else ABSENT,
        applied=None if has_applied else record.applied,
        seen=ABSENT,
    )


def why_unfit(value: Any) -> str | None:
    """What a history may not have anywhere in a value: its numbers must be finite, its integers of
    64 bits. None if there is nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a number is NaN or infinite"
    if isinstance(value, int) and value not in BITS_64:
        return _TOO_LARGE
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        return next(filter(None, map(why_unfit, value)), None)
    return None


def why_bad(line: bytes, error: Exception) -> str:
    """Why the decoder rejected a line, for an error message."""
    try:
        line.decode()
    except UnicodeDecodeError as bad:
        return f"byte {bad.start + 1} of the line, 0x{line[bad.start]:02x}, is not UTF-8"
    said = str(error)
    for field, choices in (("op", get_args(OperationKind)), ("outcome", get_args(Outcome))):
        if said.startswith("Invalid enum value") and said.endswith(f"`$.{field}`"):
            said += f"; it is one of {', '.join(choices)}"
    if _LIMIT_OF_64_BITS.match(said):
        return f"{_TOO_LARGE} - at {said.rpartition(' ')[2]}"
    return said


def read_history(path: Path) -> Iterator[OperationRecord]:
    """The records of one file of a run folder, in file order.

    capbench wrote this file: a line without a value has the value null. A last line without a
    newline was cut off by a crash and is left out.
    Raises BadHistory for any other invalid line.
    """
    decode = msgspec.json.Decoder(OperationRecord).decode
    try:
        file = open_regular(path, MAX_BYTES)
    except NotReadable as error:
        raise BadHistory(str(error)) from None
    with file:
        for number, line in enumerate(whole_lines(file, MAX_LINE_BYTES), 1):
            if len(line) > MAX_LINE_BYTES:
                raise BadHistory(f"{shown(path)}:{number}: line over {MAX_LINE_BYTES} bytes")
            try:
                record = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise BadHistory(f"{shown(path)}:{number}: {why_bad(line, error)}") from None
            if record.completed_ns is not None and record.completed_ns < record.invoked_ns:
                raise BadHistory(f"{shown(path)}:{number}: completed_ns is before invoked_ns")
            if record.value is ABSENT:
                record.value = None
            if record.expected is ABSENT and record.op == "cas":
                record.expected = None
            yield record


def read_histories(paths: Iterable[Path]) -> list[OperationRecord]:
    """All records of several files, by invocation time."""
    records = [record for path in sorted(paths) for record in read_history(path)]
    records.sort(key=lambda record: (record.invoked_ns, record.id))
    return records
