"""Finds runs: a run folder, or a folder with runs anywhere below it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.record.files import shown
from bench.record.run_folder import BadRunFolder

if TYPE_CHECKING:
    from reports.data.metrics import RunTables

MANIFEST = "manifest.json"
PARTS = {"history", "load", "nodes"}
"""Folders of every run."""
SENSELESS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading or drawing a run may raise if its files are well-formed but have impossible
content."""


def find_runs(folder: Path) -> list[Path]:
    """The run folders in ``folder`` (itself included), by name: those with a manifest, valid or
    not, and those that have lost theirs. Runs inside a run are not searched for; symbolic links are
    not followed. Raises BadRunFolder if the folder is missing or has no run."""
    if not folder.is_dir():
        raise BadRunFolder(
            f"{shown(folder)}: no such folder; give a run folder, or a folder of runs"
        )
    found = []
    for path, below, files in os.walk(folder):
        below.sort()
        if MANIFEST in files or MANIFEST in below or {*below} >= PARTS:
            found.append(Path(path))
            below.clear()
    if not found:
        raise BadRunFolder(
            f"{shown(folder)}: no run in it (no {MANIFEST}); `capbench run` and `capbench compare` "
            "make some"
        )
    return found


def run_name(run: Path, folder: Path) -> str:
    """The name of a run within ``folder``: its path below it without the part ``runs`` (unless
    another run has that path), or its own name. Bytes that are not UTF-8 are escaped."""
    return shown(_name(run, folder))


def _name(run: Path, folder: Path) -> str:
    if run == folder:
        return run.resolve().name
    path = run.relative_to(folder)
    short = Path(*(part for part in path.parts if part != "runs"))
    if short != path and (folder / short / MANIFEST).exists():
        return path.as_posix()
    return short.as_posix() if short.parts else run.name


def load_run(path: Path) -> RunTables:
    """Like `reports.data.metrics.load`, but also raises BadRunFolder for impossible content: run
    folders may come from anywhere, and one bad folder must not stop a page of many."""
    from reports.data.compare import first_screen
    from reports.data.metrics import load

    try:
        run = load(path)
        # A run that cannot be reported alone cannot be reported with others.
        first_screen([run.summary])
        msgspec.json.encode(run.summary)
        return run
    except BadRunFolder:
        raise
    except SENSELESS as error:
        said = f"{shown(path)}: makes no sense: {type(error).__name__}: {error}"
        raise BadRunFolder(said) from error
