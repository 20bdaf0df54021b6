"""Locks between commands: a file held by one process, and removed when released."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from pathlib import Path
from typing import IO


def directory() -> Path:
    """The folder of notes and locks, this user's alone: one for all commands, or what
    CAPBENCH_NOTES names. Raises PermissionError if another user made it, since notes are acted
    upon."""
    named = os.environ.get("CAPBENCH_NOTES")
    path = Path(named or Path(tempfile.gettempdir()) / f"capbench-held-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            errno.EACCES, "must be a folder that only you can open; remove it", str(path)
        )
    return path


def take(path: Path) -> IO[bytes] | None:
    """Hold the lock; None if another process has it. It is held until `give_back`, or until the
    process ends, however it does. Raises OSError."""
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        # Whoever held it may have removed it between our two steps: then this one locks nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()


def give_back(path: Path, file: IO[bytes]) -> None:
    """Let go, and leave no file behind."""
    path.unlink(missing_ok=True)
    file.close()
