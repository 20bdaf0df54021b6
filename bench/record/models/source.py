"""A history as it comes: a file, or standard input, of which the beginning says what it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias

from bench.record.files import is_named_pipe, shown
from bench.record.history import STANDARD_INPUT, BadHistory

BLOCK_BYTES: Final = 1 << 21
"""So large that the calls of NumPy, some 300 a block, are cheap."""

Format: TypeAlias = Literal["jsonl", "edn"]

_OTHER_FORMATS: Final = {
    b"\xef\xbb\xbf": "begins with a byte order mark: save it as UTF-8 without one",
    b"\xff\xfe\0\0": "is UTF-32: convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)",
    b"\0\0\xfe\xff": "is UTF-32: convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)",
    b"{\0\0\0": "is UTF-32: convert it to UTF-8 (iconv -f UTF-32LE -t UTF-8)",
    b"\0\0\0{": "is UTF-32: convert it to UTF-8 (iconv -f UTF-32BE -t UTF-8)",
    b"\xff\xfe": "is UTF-16: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "is UTF-16: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"{\0": "is UTF-16: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\0{": "is UTF-16: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\x1f\x8b": "is compressed with gzip: unpack it first (gunzip)",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd: unpack it first (unzstd)",
    b"\xfd7zXZ": "is compressed with xz: unpack it first (unxz)",
    b"BZh": "is compressed with bzip2: unpack it first (bunzip2)",
    b"PK\x03\x04": "is a zip archive: unpack it first (unzip)",
}
"""How files begin that are no text in UTF-8, and what to do then; the longer beginning first."""


@dataclass(slots=True)
class Source:
    """``path``; ``name``: what messages call it; ``beginning``: its first block of whole lines, to
    be judged by."""

    path: Path
    name: str
    beginning: bytes
    _file: BinaryIO

    @property
    def format(self) -> Format:
        """EDN, or JSON lines (whatever is not EDN)."""
        begin = self.beginning.lstrip(b" \t\r\n,")
        if begin[:1] in (b";", b"#", b"("):
            return "edn"
        opened = begin[1:].lstrip(b" \t\r\n,") if begin[:1] == b"[" else begin
        # A line of JSON is an object, so what only opens a list, or an empty one, is EDN.
        if opened[:1] in (b";", b"#") or (begin[:1] == b"[" and opened[:1] in (b"", b"]")):
            return "edn"
        inside = opened[1:].lstrip(b" \t\r\n,")
        return "edn" if opened[:1] == b"{" and inside[:1] in (b":", b"#", b";") else "jsonl"

    def blocks(self, longest_line: int) -> Iterator[bytes]:
        """The whole of it in pieces of whole lines; of a line that is longer than allowed, enough
        to see that it is. The last line may lack its newline. To be read once. Raises
        BadHistory."""
        chunk = self.beginning
        try:
            while chunk:
                if not chunk.endswith(b"\n"):
                    chunk += self._file.readline(longest_line + 1)
                yield chunk
                chunk = self._file.read(BLOCK_BYTES)
        except OSError as error:
            why = error.strerror or error
            raise BadHistory(f"{self.name}: cannot be read: {why}") from None


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """A history to read; ``-`` is standard input. Raises BadHistory for what cannot be one."""
    name = "standard input" if path == STANDARD_INPUT else shown(path)
    if path == STANDARD_INPUT:
        yield _begun(path, name, sys.stdin.buffer)
        return
    if is_named_pipe(path):
        raise BadHistory(
            f"{name}: is a named pipe, and nobody may ever write to it; use standard input: "
            f"cat {name} | capbench check -"
        )
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadHistory(f"{name}: cannot be read: {error.strerror or error}") from None
    with file:
        yield _begun(path, name, file)


def _begun(path: Path, name: str, file: BinaryIO) -> Source:
    try:
        beginning = file.read(BLOCK_BYTES)
    except OSError as error:
        raise BadHistory(f"{name}: cannot be read: {error.strerror or error}") from None
    for magic, what in _OTHER_FORMATS.items():
        if beginning.startswith(magic):
            raise BadHistory(f"{name}: the file {what}")
    return Source(path, name, beginning, file)
