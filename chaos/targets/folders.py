"""Generated names of results: the time, made unique.

Two commands within one second generate the same name; the first to make the folder has it, the
other one appends a number.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from pathlib import Path


def stamp() -> str:
    """The UTC time, in the form of results' names."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")


def new_folder(path: Path) -> Path:
    """Make the folder, or if it exists, one with ``-2``, ``-3`` ... appended. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for each in _numbered(path):
        try:
            each.mkdir()
        except FileExistsError:
            continue
        return each
    raise AssertionError("numbers have no end")


def empty_folder(path: Path) -> Path:
    """Make the folder, unless it is there and empty. Raises FileExistsError."""
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise FileExistsError(f"{path} is there already, and not empty; name another folder")
    return path


def new_file(path: Path) -> Path:
    """The same for an empty file."""
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
