"""`make bench`: measure everything in one run, write the figures, print them as a table.

    python -m bench [--only NAME ...] [FOLDER]

Writes to ``results/bench`` (or the folder given):

- ``latest.json``: the list of figures (`bench.measure.figures`), all of one run.
- ``hardware.json``: the machine. Absolute figures hold only for it.
- ``suites.json``: everything that pytest-benchmark measured.

Rates are per second of CPU time on one core, of the median round, unless the unit says otherwise.
Exit code 0, even if goals are missed: that is a finding; 1: a benchmark failed; 2: invalid input;
3: no cluster could be started.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.children import environment, python
from bench.measure.figures import figures_of, hardware, is_met, table, with_ratios
from bench.paths import ROOT
from bench.record.files import write_whole
from nodes.errors import CapbenchError

SUITES = ("micro", "protocol", "e2e")
"""Folders of pytest-benchmark suites."""

PARTS = ("throughput", "capacity")
"""Modules of `bench.measure` whose ``rows()`` are figures."""

_PYTEST = (
    "-q",
    *("-o", "addopts=", "-o", "python_files=bench_*.py", "-o", "python_functions=bench_*"),
    *(
        "--rootdir",
        str(ROOT),
        "--import-mode=importlib",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
    ),
    *("--benchmark-timer=time.process_time", "--benchmark-disable-gc", "--benchmark-quiet"),
)


def run(folder: Path, only: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Run the named suites and parts (all by default) and write the files. Raises
    CalledProcessError if a benchmark failed, and NoCluster."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = only or (*SUITES, *PARTS)
    figures: list[dict[str, Any]] = []
    if suites := [name for name in SUITES if name in wanted]:
        figures += figures_of(run_suites(suites, folder / "suites.json"))
    for name in PARTS:
        rows = rows_of(name) if name in wanted else None
        if rows is not None:
            figures += rows()
    figures = with_ratios(figures)
    _write(folder / "hardware.json", hardware())
    _write(folder / "latest.json", figures)
    return figures


def run_suites(suites: list[str], raw: Path) -> list[dict[str, Any]]:
    """Run suites, given by name or path, and return what pytest-benchmark measured, which is also
    in the file ``raw``. Raises CalledProcessError."""
    ids = [str(ROOT / "bench" / "suites" / name) if name in SUITES else name for name in suites]
    command = [*python("pytest"), *ids, *_PYTEST, f"--benchmark-json={raw}"]
    subprocess.run(command, check=True, cwd=ROOT, env=environment(), stdout=sys.stderr)
    benchmarks: list[dict[str, Any]] = json.loads(raw.read_text())["benchmarks"]
    return benchmarks


def rows_of(part: str) -> Callable[[], list[dict[str, Any]]] | None:
    """The function that measures a part; None if there is no such module."""
    if importlib.util.find_spec(f"bench.measure.{part}") is None:
        return None
    rows: Callable[[], list[dict[str, Any]]] = importlib.import_module(f"bench.measure.{part}").rows
    return rows


def _write(path: Path, data: object) -> None:
    write_whole(path, (json.dumps(data, indent=2) + "\n").encode())


def main(arguments: list[str] | None = None) -> int:
    """Run, write and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="All benchmarks.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("results/bench"))
    parser.add_argument("--only", action="append", choices=(*SUITES, *PARTS), default=[])
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    try:
        figures = run(folder, tuple(options.only))
    except subprocess.CalledProcessError:
        print("bench: a benchmark failed, see above; no figures were written", file=sys.stderr)
        return 1
    except (CapbenchError, OSError) as error:
        print(f"bench: {error}; no figures were written", file=sys.stderr)
        return getattr(error, "exit_code", 3)
    machine = hardware()
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(figures))
    missed = sum(is_met(figure) is False for figure in figures)
    goals = sum(is_met(figure) is not None for figure in figures)
    console.print(
        f"{missed} of {goals} goals missed · {machine['cores']} cores, {machine['processor']}, "
        f"load {machine['load']} · {folder / 'latest.json'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
