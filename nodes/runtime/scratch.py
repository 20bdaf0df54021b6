"""Temporary folders that do not outlive us, however we end.

Such a folder carries our mark (`nodes.runtime.own_folder`), and whoever uses it holds a lock on the
mark, which the system drops when that process ends. So a folder whose mark nobody has locked is of
a process that was killed; the next command removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nodes.runtime import own_folder

_PREFIX = "capbench-tmp-"


@contextlib.contextmanager
def scratch(what: str, where: Path | None = None) -> Iterator[Path]:
    """A temporary folder named after ``what``, gone at the end; in ``where`` (None: where the
    system has them)."""
    sweep(where)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{what}-", dir=where))
    unmarked = path / "mark"
    with unmarked.open("wb") as mark:
        # The mark appears with its lock: before that nobody else looks at the folder.
        fcntl.flock(mark, fcntl.LOCK_EX)
        unmarked.rename(path / own_folder.MARK)
        try:
            yield path
        finally:
            own_folder.remove(path)


def sweep(where: Path | None = None) -> None:
    """Remove what processes of this user that were killed have left there."""
    for path in sorted((where or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):  # It goes away by itself, or is not this user's.
            if path.lstat().st_uid == os.getuid() and own_folder.is_ours(path):
                _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    with (path / own_folder.MARK).open("rb") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        own_folder.remove(path)
