"""Names of results that the tool makes up: by the time, and nobody else's.

Two commands in one second make up the same name; whoever makes the folder has it, and the other one
takes a number more.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from pathlib import Path


def stamp() -> str:
    """The UTC time, as results are named."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")


def new_folder(path: Path) -> Path:
    """Make the folder, or one with ``-2``, ``-3`` ... behind its name if there is one. Raises
    OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for each in _numbered(path):
        try:
            each.mkdir()
        except FileExistsError:
            continue
        return each
    raise AssertionError("numbers have no end")


def new_file(path: Path) -> Path:
    """The same for a file, which is empty then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for each in _numbered(path):
        try:
            each.touch(exist_ok=False)
        except FileExistsError:
            continue
        return each
    raise AssertionError("numbers have no end")


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
