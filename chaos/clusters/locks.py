"""Locks between commands: a file that one process holds, and that is gone when nobody does."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO


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
