"""What a power cut may leave of files, from the system calls that were made: after Pillai et al.,
"All File Systems Are Not Created Equal: On the Complexity of Crafting Crash-Consistent
Applications" (OSDI 2014), section 3, with all that POSIX allows and no file system forbids here.

Until a file is synced, each write to it may be there or not, or in part: any of its pieces, with
zeros in the place of missing ones. Until a directory is synced, each file that was created, renamed
or removed in it, and each directory made in it, may have been or not. Each of these choices is free
of the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

AnyPath: TypeAlias = str | os.PathLike[str]

PIECES = 5
"""Of a write, each of which may survive on its own."""


class Call(msgspec.Struct, frozen=True):
    """A system call. ``file``: a number of its own; ``name``: within ``directory``."""

    kind: str
    file: int = 0
    directory: str = ""
    name: str = ""
    to: str = ""
    offset: int = 0
    data: bytes = b""


class State(msgspec.Struct, frozen=True):
    """What is on the disk: the directories, and what is in the files, by path."""

    directories: frozenset[str]
    files: tuple[tuple[str, bytes], ...]

    def write_to(self, root: Path) -> None:
        """Make it so, below ``root``."""
        for directory in sorted(self.directories):
            (root / directory).mkdir()
        for path, content in self.files:
            (root / path).write_bytes(content)


class Recorder:
    """The calls that change something below ``root``, in order. ``mark`` adds one of the test's own
    between them. What is there at the beginning is durable."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Call] = []
        self._root = str(root)
        self._files: dict[str, int] = {}
        self._fds: dict[int, tuple[str, int]] = {}
        self.before: dict[int, bytes] = {}
        self.entries: dict[str, int] = {}
        """Path -> file, at the beginning."""
        self.directories: set[str] = set()
        for directory, directories, names in os.walk(root):
            self.directories.update(
                self._below(os.path.join(directory, name)) for name in directories
            )
            for name in names:
                path = os.path.join(directory, name)
                number = self._new(self._below(path))
                self.before[number] = Path(path).read_bytes()
        self.entries = dict(self._files)
        for name in ("open", "close", "write", "ftruncate", "fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._hook(getattr(self, f"_{name}"), getattr(os, name)))
        for name in ("replace", "rename", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self._hook(getattr(self, f"_{name}"), getattr(os, name)))

    def mark(self, kind: str, number: int) -> None:
        """A moment of the test."""
        self.calls.append(Call(kind, number))

    def _hook(self, hook: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: hook(real, *arguments, **options)

    def _new(self, path: str) -> int:
        self._files[path] = number = len(self.before) + 1
        self.before[number] = b""
        return number

    def _below(self, path: AnyPath) -> str:
        return os.path.relpath(os.fspath(path), self._root)

    def _inside(self, path: AnyPath) -> bool:
        return os.fspath(path).startswith(self._root + os.sep) or os.fspath(path) == self._root

    def _add(self, kind: str, path: str, **fields: Any) -> None:
        directory, name = os.path.split(path)
        self.calls.append(Call(kind, directory=directory, name=name, **fields))

    def _open(self, real: Any, path: AnyPath, flags: int, *mode: Any, **options: Any) -> int:
        there = os.path.exists(path)
        fd: int = real(path, flags, *mode, **options)
        if self._inside(path):
            below = self._below(path)
            if os.path.isdir(path):
                self._fds[fd] = ("" if below == "." else below, 0)
                return fd
            if not there:
                self._add("create", below, file=self._new(below))
            elif flags & os.O_TRUNC:
                self.calls.append(Call("truncate", self._files[below], offset=0))
            self._fds[fd] = (below, self._files[below])
        return fd

    def _close(self, real: Any, fd: int) -> None:
        self._fds.pop(fd, None)
        real(fd)

    def _write(self, real: Any, fd: int, data: Any) -> int:
        count: int = real(fd, data)
        if fd in self._fds:
            end = os.fstat(fd).st_size  # All is appended.
            written = bytes(data[:count])
            self.calls.append(
                Call("write", self._fds[fd][1], offset=end - len(written), data=written)
            )
        return count

    def _ftruncate(self, real: Any, fd: int, size: int) -> None:
        real(fd, size)
        if fd in self._fds:
            self.calls.append(Call("truncate", self._fds[fd][1], offset=size))

    def _fsync(self, real: Any, fd: int) -> None:
        # What the machine's own disk does is none of the test's business, and slow.
        if fd in self._fds:
            path, number = self._fds[fd]
            if number:
                self.calls.append(Call("sync", number))
            else:
                self.calls.append(Call("sync directory", directory=path))

    _fdatasync = _fsync

    def _replace(self, real: Any, source: Any, target: Any) -> None:
        real(source, target)
        if self._inside(source):
            below, to = self._below(source), self._below(target)
            number = self._files.pop(below)
            self._files[to] = number
            self._add("rename", below, file=number, to=os.path.basename(to))

    _rename = _replace

    def _unlink(self, real: Any, path: Any, **options: Any) -> None:
        real(path, **options)
        if self._inside(path):
            below = self._below(path)
            self._add("unlink", below, file=self._files.pop(below))

    def _mkdir(self, real: Any, path: Any, *mode: Any, **options: Any) -> None:
        real(path, *mode, **options)
        if self._inside(path):
            self._add("mkdir", self._below(path))

    def crashes(self) -> Iterator[tuple[int, State]]:
        """Each number of calls after which the power may fail, with each state that may leave.
        States that were there before since the last mark are left out."""
        seen: set[State] = set()
        for count in range(len(self.calls) + 1):
            if count and self.calls[count - 1].kind not in _CHANGES:
                seen.clear()
            for state in self._states(self.calls[:count]):
                if state not in seen:
                    seen.add(state)
                    yield count, state

    def _states(self, calls: Sequence[Call]) -> Iterator[State]:
        data: dict[int, list[Call]] = {number: [] for number in self.before}
        content = dict(self.before)
        names: dict[str, list[Call]] = {}
        settled: list[Call] = []
        for call in calls:
            if call.kind in ("write", "truncate"):
                data[call.file].append(call)
            elif call.kind == "sync":
                content[call.file] = _after(content[call.file], data[call.file], None)
                data[call.file] = []
            elif call.kind == "sync directory":
                settled += names.pop(call.directory, [])
            elif call.kind in _CHANGES:
                names.setdefault(call.directory, []).append(call)
        open_names = [call for pending in names.values() for call in pending]
        variants = {number: list(_variants(content[number], data[number])) for number in content}
        for chosen in product((False, True), repeat=len(open_names)):
            kept = [c for c, is_there in zip(open_names, chosen, strict=True) if is_there]
            directories, entries = self._names([*settled, *kept])
            numbers = sorted(set(entries.values()))
            for contents in product(*(variants[number] for number in numbers)):
                by_number = dict(zip(numbers, contents, strict=True))
                yield State(
                    frozenset(directories),
                    tuple(sorted((path, by_number[n]) for path, n in entries.items())),
                )

    def _names(self, calls: Iterable[Call]) -> tuple[set[str], dict[str, int]]:
        directories, entries = set(self.directories), dict(self.entries)
        for call in calls:
            path = os.path.join(call.directory, call.name)
            if call.kind == "mkdir":
                directories.add(path)
            elif call.kind == "create":
                entries[path] = call.file
            elif entries.get(path) == call.file:
                del entries[path]
            if call.kind == "rename":
                entries[os.path.join(call.directory, call.to)] = call.file
        # What is in a directory that is not there is lost with it.
        there = {d for d in directories if all(above in directories for above in _above(d))}
        return there, {
            path: n for path, n in entries.items() if all(d in there for d in _above(path))
        }


_CHANGES = frozenset(
    {"write", "truncate", "sync", "sync directory", "create", "rename", "unlink", "mkdir"}
)


def _above(path: str) -> list[str]:
    return [str(parent) for parent in Path(path).parents if str(parent) != "."]


def _after(content: bytes, calls: Sequence[Call], chosen: Sequence[bytes | None] | None) -> bytes:
    """``content`` after the calls. ``chosen``: what is there of each (None: nothing)."""
    for number, call in enumerate(calls):
        data = call.data if chosen is None else chosen[number]
        if data is None:
            continue
        if call.kind == "truncate":
            content = content[: call.offset].ljust(call.offset, b"\0")
        elif data or chosen is None:
            content = content.ljust(call.offset, b"\0")
            content = content[: call.offset] + data + content[call.offset + len(data) :]
    return content


def _variants(content: bytes, calls: Sequence[Call]) -> Iterator[bytes]:
    """What may be in a file."""
    seen: set[bytes] = set()
    alone = sum(call.kind == "write" for call in calls) == 1
    choices = [
        [None, b""] if call.kind == "truncate" else list(_torn(call.data, alone)) for call in calls
    ]
    for chosen in product(*choices):
        variant = _after(content, calls, chosen)
        if variant not in seen:
            seen.add(variant)
            yield variant


def _torn(data: bytes, alone: bool) -> Iterator[bytes | None]:
    """What may be there of a write; fewer possibilities if there are others to combine with."""
    yield None
    yield data
    yield b"\0" * len(data)
    if not alone:
        half = len(data) // 2
        yield data[:half]
        yield b"\0" * half + data[half:]
        return
    yield from (data[:length] for length in range(1, len(data), 3))
    size = -(-len(data) // PIECES)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    for kept in product((False, True), repeat=len(pieces)):
        torn = b"".join(
            piece if is_there else b"\0" * len(piece)
            for piece, is_there in zip(pieces, kept, strict=True)
        )
        yield torn
        last = max((n for n, is_there in enumerate(kept) if is_there), default=-1)
        yield torn[: (last + 1) * size]
