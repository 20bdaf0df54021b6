"""Where the runs are: a run folder, or a folder with runs anywhere below it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bench.run_folder import BadRunFolder

MANIFEST = "manifest.json"


def find_runs(folder: Path) -> list[Path]:
    """The run folders in ``folder``, itself included, by name. A run is not looked into, symbolic
    links are not followed. Raises BadRunFolder if there is no such folder, or no run in it."""
    if not folder.is_dir():
        raise BadRunFolder(f"{folder}: there is no such folder; give a run folder, or one of runs")
    found = []
    for path, below, files in os.walk(folder):
        below.sort()
        if MANIFEST in files:
            found.append(Path(path))
            below.clear()
    if not found:
        raise BadRunFolder(
            f"{folder}: no run in it (no {MANIFEST}); `capbench run` and `capbench compare` "
            "make some"
        )
    return found


def find_all(folders: Iterable[Path]) -> list[Path]:
    """The runs of several folders, each once, in the order given. Raises BadRunFolder."""
    return list(dict.fromkeys(run for folder in folders for run in find_runs(folder)))


def run_name(run: Path, folder: Path) -> str:
    """What a run is called within ``folder``: its path below it without the folder ``runs`` (unless
    another run has that path), or its own name."""
    if run == folder:
        return run.resolve().name
    path = run.relative_to(folder)
    short = Path(*(part for part in path.parts if part != "runs"))
    if short != path and (folder / short / MANIFEST).exists():
        return path.as_posix()
    return short.as_posix() if short.parts else run.name
