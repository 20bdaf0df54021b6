"""The disks of a lab's nodes: small ones that can be full, and files that can be damaged."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from chaos.clusters.lab.network import run_command
from chaos.errors import TargetFailed
from nodes.errors import Unsupported

SMALL_BYTES = 256 << 20
"""Of a small disk, which is memory: room for what the systems allocate in advance."""
_FILLER = "fills-this-disk"
_PAGE_BYTES = 4096
_BIT = 0x10
_LEAST_BYTES = 1000
"""In shorter files there is only configuration."""


class Flip(NamedTuple):
    """Which byte of which file has a bit flipped; the byte is ``now`` this."""

    path: Path
    offset: int
    now: int


class Disks:
    """Of the nodes whose data lies in ``directory``. ``small``: each has a small one of its own,
    which can be filled."""

    def __init__(self, directory: Path, *, small: bool) -> None:
        self._directory = directory
        self._small = small
        self._mounted: set[str] = set()
        self._full: set[str] = set()
        self._flipped: dict[str, Flip] = {}

    @property
    def bad(self) -> set[str]:
        """The nodes that may end, since their disk is full or damaged."""
        return self._full | self._flipped.keys()

    def is_damaged(self, node: str) -> bool:
        """Whether a bit of it is flipped."""
        return node in self._flipped

    def make(self, node: str) -> None:
        """For a node that has not been started yet. Raises NoLab."""
        if self._small:
            options = f"size={SMALL_BYTES},mode=700"
            run_command("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._directory / node))
            self._mounted.add(node)

    def remove(self) -> None:
        """Take all disks away again, with what is on them."""
        for node in self._mounted:
            with contextlib.suppress(TargetFailed):
                run_command("umount", "--lazy", str(self._directory / node))
        self._mounted.clear()

    def fill(self, node: str) -> None:
        """Nothing more fits on it. Raises Unsupported where it is not small, OSError."""
        if not self._small:
            raise Unsupported("full-disk: only in runs, where nodes have small disks of their own")
        self._full.add(node)
        with (self._directory / node / _FILLER).open("wb") as filler:
            piece, filled = SMALL_BYTES, 0
            while piece >= _PAGE_BYTES:
                try:
                    os.posix_fallocate(filler.fileno(), filled, piece)
                    filled += piece
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece //= 2

    def empty(self, node: str) -> None:
        """There is room again."""
        (self._directory / node / _FILLER).unlink(missing_ok=True)
        self._full.discard(node)

    def flip(self, node: str, where: float) -> str:
        """Flip a bit in a file of a node that is down, ``where`` (0 to 1) in what all of them have.
        Returns what was done. Raises TargetFailed."""
        folder = self._directory / node
        files = [(path, length) for path in _files(folder) if (length := _used(path))]
        place = int(where * sum(length for _, length in files))
        for path, length in files:
            if place < length:
                self._flipped[node] = Flip(path, place, _set(path, place))
                return f"bit-flip: a bit of byte {place} of {path.relative_to(self._directory)}"
            place -= length
        raise TargetFailed(f"{node} has no file of {_LEAST_BYTES} bytes to damage")

    def unflip(self, node: str) -> None:
        """Flip it back, unless the node, which is down, has written something else there."""
        flip = self._flipped.pop(node)
        with contextlib.suppress(FileNotFoundError), flip.path.open("r+b") as file:
            if file.seek(flip.offset) == flip.offset and file.read(1) == bytes((flip.now,)):
                file.seek(flip.offset)
                file.write(bytes((flip.now ^ _BIT,)))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size >= _LEAST_BYTES:
            yield path


def _used(path: Path) -> int:
    """How long it is without the zeros at its end: room that was allocated in advance."""
    return len(path.read_bytes().rstrip(b"\0"))


def _set(path: Path, offset: int) -> int:
    with path.open("r+b") as file:
        file.seek(offset)
        now = file.read(1)[0] ^ _BIT
        file.seek(offset)
        file.write(bytes((now,)))
    return now
