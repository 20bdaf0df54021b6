"""The durable log of a node: batches of writes, appended to a file, made durable by group commit.

File format: the magic bytes, then records ``length (4) | CRC-32 (4) | synced (8) | batch``, big
endian. The checksum covers ``synced`` and the batch. ``synced`` is the file offset up to which the
log was known to be durable when the record was written. It tells a torn tail from corruption: a
damaged record that a later intact record calls synced was once whole, so somebody acknowledged it,
and going on without it would break promises. A damaged record that nobody calls synced is a write
that the crash cut off: it was never acknowledged, and is removed. (Damage to the very last synced
batch cannot be told from a torn write.)

A file that has grown much beyond its content is rewritten: a new file holds the shortest writes
that lead to the same state, then the old one is removed. So disk use stays bounded.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from nodes.contract.disk import Disk, Write
from nodes.wire.codec import BadFrame, WriteCodec

MAGIC = b"capbench log 1\r\n"
_HEAD = struct.Struct(">IIQ")
_MIN_REWRITE_BYTES = 16 * 1024 * 1024
_REWRITE_FACTOR = 4
_MAX_BATCH_BYTES = 1 << 30


class CorruptLog(Exception):
    """The log is damaged in a place that was durable. Names the file and the byte offset."""


class DurableLog:
    """One node's log in ``directory``. `append` buffers; `commit` writes and syncs, and may run in
    another thread while `append` goes on; one `commit` at a time.

    `open` raises CorruptLog, or OSError if the directory cannot be used.
    """

    def __init__(self, directory: Path, codec: WriteCodec) -> None:
        self._directory = directory
        self._codec = codec
        self._buffer: list[bytes] = []
        self._rewrite: bytes | None = None
        self._fd = -1
        self._path = directory / "log"
        self._size = 0
        self._written_bytes = 0
        self._rewrite_at = _MIN_REWRITE_BYTES
        self.cut_bytes = 0
        """Bytes of a torn tail that `open` removed."""
        self.commits = 0
        self.commit_ns = self.last_commit_ns = 0
        """How long all commits have taken, and the last one."""

    def open(self) -> list[Write]:
        """Read what is there, cut a torn tail, and get ready to append."""
        _make_directory(self._directory)
        with contextlib.suppress(FileNotFoundError):
            # The rewriting of the log was cut off by a crash, the old file still counts.
            self._path.with_name("log.new").unlink()
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            content = b""
        writes, good = self._scan(content)
        self.cut_bytes = len(content) - good
        if good < len(MAGIC):
            # By way of another name: a power cut may leave zeros where the first bytes should be,
            # and then nobody could tell the log from somebody else's file.
            self._fd = self._write_new(MAGIC)
            good = len(MAGIC)
        else:
            self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND)
            if self.cut_bytes:
                os.ftruncate(self._fd, good)
            os.fsync(self._fd)
            _sync_directory(self._directory)
        self._size = good
        self._rewrite_at = max(_MIN_REWRITE_BYTES, _REWRITE_FACTOR * good)
        return writes

    def append(self, writes: Sequence[Write]) -> None:
        """Add a batch: after a crash it is there whole or not at all, and never without the batches
        before it."""
        self._buffer.append(self._codec.encode(writes))

    @property
    def pending(self) -> bool:
        """Whether there is something to commit."""
        return bool(self._buffer) or self._rewrite is not None

    @property
    def is_outgrown(self) -> bool:
        """Whether the next commit has to rewrite the file."""
        return self._size >= self._rewrite_at

    def maybe_rewrite(self, disk: Disk) -> None:
        """If the file has outgrown its content, let the next commit replace it by ``disk``'s
        present state, which must include every batch appended so far. Call it with no commit under
        way."""
        if not self.is_outgrown:
            return
        self._rewrite = self._codec.encode(disk.checkpoint())
        self._buffer.clear()

    def take(self) -> tuple[bytes | None, list[bytes]]:
        """What the next `commit` shall write."""
        taken = (self._rewrite, self._buffer)
        self._rewrite, self._buffer = None, []
        return taken

    def commit(
        self,
        taken: tuple[bytes | None, list[bytes]],
        before_sync: Callable[[], None] | None = None,
    ) -> None:
        """Write and sync. After an OSError nobody knows what the disk holds: the node must stop,
        and read its log again when it starts. ``before_sync``: called when the batches are written
        and not yet synced."""
        started_ns = time.perf_counter_ns()
        rewrite, batches = taken
        if rewrite is not None:
            self._replace(rewrite)
        if batches:
            synced = self._size
            out = bytearray()
            for batch in batches:
                out += _record(synced, batch)
            _write_all(self._fd, out)
            if before_sync is not None:
                before_sync()
            os.fdatasync(self._fd)
            self._size += len(out)
            self._written_bytes += len(out)
        self.commits += 1
        self.last_commit_ns = time.perf_counter_ns() - started_ns
        self.commit_ns += self.last_commit_ns

    @property
    def written_bytes(self) -> int:
        """Bytes written since `open`, rewriting counted."""
        return self._written_bytes

    def close(self) -> None:
        """Close the file. What was not committed is lost."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _replace(self, checkpoint: bytes) -> None:
        content = MAGIC + _record(0, checkpoint)
        fd = self._write_new(content)
        os.close(self._fd)
        self._fd = fd
        self._size = len(content)
        self._written_bytes += len(content)
        self._rewrite_at = max(_MIN_REWRITE_BYTES, _REWRITE_FACTOR * self._size)

    def _write_new(self, content: bytes) -> int:
        """Let the log be ``content``, or leave it as it is. Returns the new file, open."""
        new = self._path.with_name("log.new")
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        _write_all(fd, content)
        os.fsync(fd)
        os.replace(new, self._path)
        _sync_directory(self._directory)
        return fd

    def _scan(self, content: bytes) -> tuple[list[Write], int]:
        """The writes of the intact prefix, and its length in bytes."""
        if not content.startswith(MAGIC):
            if MAGIC.startswith(content[: len(MAGIC)]):
                return [], 0  # Cut off while it was created: nothing was ever acknowledged.
            raise CorruptLog(f"{self._path}: byte 0: this is not a capbench log")
        writes: list[Write] = []
        offset = len(MAGIC)
        view = memoryview(content)
        while offset < len(content):
            record = _parse(view, offset)
            if record is None:
                self._refuse_corruption(view, offset)
                break
            try:
                writes.extend(self._codec.decode(record[1]))
            except BadFrame as error:
                raise CorruptLog(
                    f"{self._path}: byte {offset}: unreadable batch: {error}"
                ) from None
            offset = record[2]
        return writes, offset

    def _refuse_corruption(self, view: memoryview, bad: int) -> None:
        """Raise if any intact record behind the damage says that the damaged place was durable."""
        for offset in range(bad + 1, len(view) - _HEAD.size):
            synced = _HEAD.unpack_from(view, offset)[2]
            # The cheap test first: a checksum at each offset would take hours on a large file.
            if bad < synced <= offset and _parse(view, offset) is not None:
                raise CorruptLog(
                    f"{self._path}: byte {bad}: damaged, though it was durable (the record at byte "
                    f"{offset} says so); restore this node's data from a copy, or remove its "
                    "directory so that it starts empty as a new node"
                )


def _record(synced: int, batch: bytes) -> bytes:
    body = synced.to_bytes(8, "big") + batch
    return len(batch).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def _parse(view: memoryview, offset: int) -> tuple[int, memoryview, int] | None:
    """(synced, batch, end) of the record at ``offset``; None if it is damaged or cut off."""
    if offset + _HEAD.size > len(view):
        return None
    length, checksum, synced = _HEAD.unpack_from(view, offset)
    end = offset + _HEAD.size + length
    if length == 0 or length > _MAX_BATCH_BYTES or end > len(view):
        return None
    if zlib.crc32(view[offset + 8 : end]) != checksum:
        return None
    return synced, view[offset + _HEAD.size : end], end


def _write_all(fd: int, content: bytes | bytearray) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _make_directory(directory: Path) -> None:
    """Make it and those above it, so that a power cut cannot take them away again."""
    missing = [directory, *directory.parents]
    while missing and missing[-1].exists():
        there = missing.pop()
    # Perhaps whoever made it died before he had synced it. Where we may not read we have made
    # nothing.
    with contextlib.suppress(PermissionError):
        _sync_directory(there.parent)
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
        _sync_directory(made.parent)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
