"""Folders that we made, and which may be removed: nothing else ever is.

Such a folder carries a mark, a file that lies in it from its first moment to its last.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

MARK = ".made-by-capbench"


class NotOurs(FileExistsError):
    """There is something that we did not make: one line that names it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: is there already and not of capbench's making; move it away")


def make(path: Path) -> None:
    """Make the folder and mark it; one of ours stays as it is. Raises NotOurs."""
    if is_ours(path):
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        empty = not any(path.iterdir())
    except (FileExistsError, NotADirectoryError):
        empty = False
    if path.is_symlink() or not empty:
        raise NotOurs(path)
    (path / MARK).touch()


def is_ours(path: Path) -> bool:
    """Whether it carries our mark. What a link leads to is never ours."""
    return not path.is_symlink() and (path / MARK).is_file()


def empty(path: Path) -> None:
    """Remove what lies in a folder of ours, but not the mark. What cannot be removed stays."""
    assert is_ours(path), path
    for entry in path.iterdir():
        if entry.name == MARK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                entry.unlink()


def remove(path: Path) -> bool:
    """Remove a folder of ours; False, and nothing happens, if it is none."""
    if not is_ours(path):
        return False
    empty(path)
    with contextlib.suppress(OSError):  # Not empty yet: it keeps its mark, and can be tried again.
        if [entry.name for entry in path.iterdir()] == [MARK]:
            (path / MARK).unlink()
            path.rmdir()
    return True
