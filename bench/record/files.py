"""The only place where files of a run folder, and small files elsewhere, are read and replaced.

A run folder may come from anybody. Only regular files of bounded size inside the folder are read:
links are not followed, pipes not waited for, devices not read. Writing replaces a file and never
follows a link.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from nodes.errors import InvalidInput

_EXPECTED = "a regular file is expected"
MOST_FILES: Final = 1000
"""The most files in one directory of a run."""

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotReadable(InvalidInput):
    """A file that capbench refuses to read: names it and says why."""


def shown(path: Path | str) -> str:
    """A path as printable text; bytes that are not UTF-8 appear as ``\\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_regular(path: Path, most_bytes: int) -> BinaryIO:
    """Open a regular file of at most ``most_bytes``. Raises FileNotFoundError; NotReadable for
    anything else."""
    try:
        # Without O_NONBLOCK, opening a pipe waits for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise NotReadable(f"{shown(path)}: {_kind(path) or _reason(error)}; {_EXPECTED}") from None
    status = os.fstat(descriptor)
    why = None
    if not stat.S_ISREG(status.st_mode):
        why = f"{_kind(path)}; {_EXPECTED}"
    elif status.st_size > most_bytes:
        why = f"{status.st_size} bytes, limit {most_bytes}"
    if why is not None:
        os.close(descriptor)
        raise NotReadable(f"{shown(path)}: {why}")
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of such a file. Raises what `open_regular` raises."""
    with open_regular(path, most_bytes) as file:
        return file.read(most_bytes)


def read_named(path: Path, most_bytes: int) -> bytes:
    """The same for a file named by the user: here links are followed."""
    try:
        followed = path.resolve()
    except (RuntimeError, OSError):  # Before Python 3.13 a loop is a RuntimeError.
        raise NotReadable(f"{shown(path)}: a link that leads nowhere but to links") from None
    return read_regular(followed, most_bytes)


def is_named_pipe(path: Path) -> bool:
    """Whether it is a named pipe: opening one waits for a writer that may never come. The pipes of
    the shell (``/dev/fd/63``) have no name."""
    try:
        return stat.S_ISFIFO(os.lstat(os.path.realpath(path)).st_mode)
    except (OSError, ValueError):
        return False


def whole_lines(file: BinaryIO, most_bytes: int) -> Iterator[bytes]:
    """The lines that end with a newline, up to and including the first one longer than
    ``most_bytes``, which is cut. A last line without a newline is left out: its writer was stopped
    halfway."""
    while line := file.readline(most_bytes + 1):
        if len(line) > most_bytes or line.endswith(b"\n"):
            yield line
        if len(line) > most_bytes or not line.endswith(b"\n"):
            return


def listed(directory: Path, suffix: str, most_bytes: int) -> list[Path]:
    """The files in ``directory`` with this suffix, sorted by name; none if the directory is
    missing. Raises NotReadable if it is not a directory, or if the files are too many or too large
    together."""
    try:
        mode = directory.lstat().st_mode
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NotReadable(f"{shown(directory)}: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        what = _kind(directory) or "is a file"
        raise NotReadable(f"{shown(directory)}: {what}; a directory is expected")
    found, size = [], 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(suffix):
                    found.append(directory / entry.name)
                    size += entry.stat(follow_symlinks=False).st_size
                if len(found) > MOST_FILES:
                    raise NotReadable(f"{shown(directory)}: more than {MOST_FILES} files")
    except OSError as error:
        raise NotReadable(f"{shown(directory)}: {error.strerror}") from None
    if size > most_bytes:
        raise NotReadable(f"{shown(directory)}: {size} bytes, limit {most_bytes}")
    return sorted(found)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside this context an OSError names the file. A failed write alone does not, and the user
    could not tell which disk is full."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def no_space(path: Path) -> str:
    """The end of an error line if the disk is full, which may be why a log is empty; empty text if
    there is space."""
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        return ""
    return "" if free else f" (no space left on the device of {shown(path)})"


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file atomically: a reader sees the old content or the new one. A link in its place
    is replaced, not followed."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with naming(path), open(os.open(partial, flags, 0o666), "wb") as file:
        file.write(content)
    os.replace(partial, path)


def _kind(path: Path) -> str | None:
    """What kind of file it is; None: a regular one, or none at all."""
    try:
        mode = stat.S_IFMT(path.lstat().st_mode)
    except (OSError, ValueError):
        return None
    return None if mode == stat.S_IFREG else f"is {_KINDS.get(mode, 'something else')}"


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
