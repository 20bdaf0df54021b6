"""The durable log of a node: batches of writes, appended to a file, made durable by group commit.

File format: the magic bytes, then records ``length (4) | CRC-32 (4) | synced (8) | batch``, big
endian. The checksum covers ``synced`` and the batch. ``synced`` is the file offset up to which the
log was known to be durable when the record was written. It tells a torn tail from corruption: a
damaged record that a later intact record calls synced was once whole, so somebody acknowledged it,
and going on without it would break promises. A damaged record that nobody calls synced is a write
that the crash cut off: it was never acknowledged, and is removed. (Damage to the very last synced
batch cannot be told from a torn write.)

A file that has grown much beyond its content is rewritten: a new file holds the shortest writes
that lead to the same state, and takes the place of the old one. So disk use stays bounded. The new
file is written in pieces, one with each commit to the old one, and behind the pieces goes what was
committed meanwhile, so that no commit waits for much more than its own writes. A file of which more
than half still counts is left alone until it is twice as long.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from nodes.contract.disk import Compact, Disk, Write
from nodes.wire.codec import BadFrame, WriteCodec

MAGIC = b"capbench log 1\r\n"
_HEAD = struct.Struct(">IIQ")
_MIN_REWRITE_BYTES = 16 * 1024 * 1024
_REWRITE_FACTOR = 4
"""A file is rewritten when it is so much longer than the checkpoint with which it began."""
_WORTH_WHILE = 0.5
"""At most this share of a file may still count, or it is not rewritten."""
_PIECE_BYTES = 1024 * 1024
"""About so much of a new file is written with a commit, or three times as much as the commit
itself: it catches up before half of its checkpoint's length has been committed meanwhile."""
_FIRST_WRITES = 16
"""So many writes of a checkpoint are the first piece; how long they are is seen then."""
_SAMPLE = 100
"""Writes by which a checkpoint's length is estimated: to encode them all may take a second."""
_MAX_BATCH_BYTES = 1 << 30


Taken: TypeAlias = tuple[tuple[list[Write], int] | None, list[bytes]]
"""What a commit shall write: a checkpoint, if a new file is to be begun, with the number of batches
that are in it, and the batches."""


class CorruptLog(Exception):
    """The log is damaged in a place that was durable. Names the file and the byte offset."""


class _Successor:
    """The file that is to take the place of an outgrown one. ``size``: what is written and synced
    of it. ``content_bytes``: how much of that is the checkpoint."""

    def __init__(self, fd: int, checkpoint: list[Write], codec: WriteCodec) -> None:
        self.fd = fd
        self.size = len(MAGIC)
        self.content_bytes = 0
        self._codec = codec
        self._checkpoint = checkpoint
        self._next = 0
        self._count = _FIRST_WRITES
        self._batches: deque[bytes] = deque()

    def follow(self, batches: Sequence[bytes]) -> None:
        """These were committed to the old file."""
        self._batches.extend(batches)

    @property
    def is_complete(self) -> bool:
        """Whether it holds what the old file does."""
        return self._next >= len(self._checkpoint) and not self._batches

    def go_on(self, most_bytes: int) -> None:
        """Write, and sync, about so much more."""
        out = bytearray()
        while len(out) < most_bytes and not self.is_complete:
            out += _record(self.size + len(out), self._take())
        _write_all(self.fd, out)
        os.fdatasync(self.fd)
        self.size += len(out)

    def _take(self) -> bytes:
        if self._next >= len(self._checkpoint):
            return self._batches.popleft()
        piece = self._codec.encode(self._checkpoint[self._next : self._next + self._count])
        self._next += self._count
        self.content_bytes += len(piece)
        fitting = self._count * _PIECE_BYTES // len(piece)
        self._count = max(1, min(2 * self._count, fitting))
        return piece


class DurableLog:
    """One node's log in ``directory``. `append` buffers; `commit` writes and syncs, and may run in
    another thread while `append` goes on; one `commit` at a time.

    `open` raises CorruptLog, or OSError if the directory cannot be used.
    """

    def __init__(self, directory: Path, codec: WriteCodec) -> None:
        self._directory = directory
        self._codec = codec
        self._buffer: list[bytes] = []
        self._rewrite: tuple[list[Write], int] | None = None
        self._successor: _Successor | None = None
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
            self._fd = self._create()
            self._install()
            good = len(MAGIC)
        else:
            self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND)
            if self.cut_bytes:
                os.ftruncate(self._fd, good)
            os.fsync(self._fd)
            _sync_directory(self._directory)
        self._size = good
        # How much of it still counts is not known: the next `maybe_rewrite` looks.
        self._rewrite_at = _MIN_REWRITE_BYTES
        return writes

    def append(self, writes: Sequence[Write]) -> None:
        """Add a batch: after a crash it is there whole or not at all, and never without the batches
        before it."""
        self._buffer.append(self._codec.encode(writes))

    @property
    def pending(self) -> bool:
        """Whether there is something to commit, or a new file to go on with."""
        return bool(self._buffer) or self._rewrite is not None or self._successor is not None

    @property
    def is_outgrown(self) -> bool:
        """Whether the next commit has to do with the rewriting of the file."""
        return self._size >= self._rewrite_at

    def maybe_rewrite(self, disk: Disk) -> None:
        """If the file has outgrown its content, let the next commit begin to replace it by
        ``disk``'s present state, which must include every batch appended so far. Call it with no
        commit under way."""
        if not self.is_outgrown or self._rewrite is not None or self._successor is not None:
            return
        checkpoint = disk.checkpoint()
        if self._length_of(checkpoint) > _WORTH_WHILE * self._size:
            self._rewrite_at = 2 * self._size
            return
        self._rewrite = checkpoint, len(self._buffer)

    def _length_of(self, checkpoint: Sequence[Write]) -> float:
        """About how long it is, encoded."""
        # A snapshot is like no other write.
        snapshots = [write for write in checkpoint if type(write) is Compact]
        others = [write for write in checkpoint if type(write) is not Compact]
        sample = others[:: 1 + len(others) // _SAMPLE]
        mean = len(self._codec.encode(sample)) / max(1, len(sample))
        return len(self._codec.encode(snapshots)) + mean * len(others)

    def take(self) -> Taken:
        """What the next `commit` shall write."""
        taken = (self._rewrite, self._buffer)
        self._rewrite, self._buffer = None, []
        return taken

    def commit(
        self,
        taken: Taken,
        before_sync: Callable[[], None] | None = None,
    ) -> None:
        """Write and sync. After an OSError nobody knows what the disk holds: the node must stop,
        and read its log again when it starts. ``before_sync``: called when the batches are written
        and not yet synced."""
        started_ns = time.perf_counter_ns()
        rewrite, batches = taken
        out = bytearray()
        if batches:
            synced = self._size
            for batch in batches:
                out += _record(synced, batch)
            _write_all(self._fd, out)
            if before_sync is not None:
                before_sync()
            os.fdatasync(self._fd)
            self._size += len(out)
            self._written_bytes += len(out)
        if rewrite is not None:
            checkpoint, counted = rewrite
            self._successor = _Successor(self._create(), checkpoint, self._codec)
            batches = batches[counted:]
        if self._successor is not None:
            self._successor.follow(batches)
            self._succeed(self._successor, max(_PIECE_BYTES, 3 * len(out)))
        self.commits += 1
        self.last_commit_ns = time.perf_counter_ns() - started_ns
        self.commit_ns += self.last_commit_ns

    @property
    def written_bytes(self) -> int:
        """Bytes written since `open`, rewriting counted."""
        return self._written_bytes

    def close(self) -> None:
        """Close the file. What was not committed is lost."""
        if self._successor is not None:
            os.close(self._successor.fd)
            self._successor = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _succeed(self, successor: _Successor, most_bytes: int) -> None:
        """Go on with the new file; if it holds all, it is the log from now on."""
        before = successor.size
        successor.go_on(most_bytes)
        self._written_bytes += successor.size - before
        if not successor.is_complete:
            return
        self._install()
        os.close(self._fd)
        self._fd, self._size = successor.fd, successor.size
        self._successor = None
        # By its checkpoint, not by its length: else each rewriting under load would let the next
        # file grow longer.
        self._rewrite_at = max(_MIN_REWRITE_BYTES, _REWRITE_FACTOR * successor.content_bytes)

    def _create(self) -> int:
        """A new file, open, under another name."""
        new = self._path.with_name("log.new")
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        _write_all(fd, MAGIC)
        os.fsync(fd)
        return fd

    def _install(self) -> None:
        """Let the new file, which is synced, be the log."""
        os.replace(self._path.with_name("log.new"), self._path)
        _sync_directory(self._directory)

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
