"""`make bench`: run the micro-benchmarks, write their figures, print them as a table.

Into ``results/bench`` (or the folder given):

- ``latest.json``: a list of ``{"name", "value", "unit", "compared_with", "ratio", "goal"}``, all of
  one run. ``compared_with``: the name of another figure of the list, or null; ``ratio``: value
  divided by that figure's. ``goal``: at least this, for bytes and CPU seconds at most; or null.
- ``hardware.json``: the machine that it ran on. Absolute figures hold for it alone.
- ``micro.json``: everything that pytest-benchmark measured.

Rates are per second of CPU time on one core, of the median round, unless the unit says otherwise.
Exit code 0 also if goals are missed: that is a finding. Exit code 1: a benchmark failed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.micro.figures import COSTS

_PYTEST = (
    "-q",
    *("-o", "addopts=", "-o", "python_files=bench_*.py", "-o", "python_functions=bench_*"),
    *("--import-mode=importlib", "-p", "no:xdist", "-p", "no:cacheprovider"),
    *("--benchmark-timer=time.process_time", "--benchmark-disable-gc", "--benchmark-quiet"),
)


def run(folder: Path) -> list[dict[str, Any]]:
    """Run all suites and write the files. Raises CalledProcessError if a benchmark failed."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "micro.json"
    suites = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", str(suites), *_PYTEST, f"--benchmark-json={raw}"]
    subprocess.run(command, check=True, cwd=suites.parents[1], stdout=sys.stderr)
    figures = figures_of(json.loads(raw.read_text())["benchmarks"])
    _write(folder / "latest.json", figures)
    _write(folder / "hardware.json", hardware())
    return figures


def figures_of(benchmarks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The list of figures from what pytest-benchmark wrote."""
    figures = []
    for benchmark in benchmarks:
        info = benchmark["extra_info"]
        per_operation = benchmark["stats"]["median"] / info["ops_per_round"]
        value = info.get("value", per_operation if info["unit"] in COSTS else 1 / per_operation)
        figures.append(
            {
                "name": info["figure"],
                "value": value,
                "unit": info["unit"],
                "compared_with": info["compared_with"],
                "ratio": None,
                "goal": info["goal"],
            }
        )
    values = {figure["name"]: figure["value"] for figure in figures}
    assert len(values) == len(figures), "two figures have one name"
    for figure in figures:
        if figure["compared_with"] is not None:
            figure["ratio"] = figure["value"] / values[figure["compared_with"]]
    return figures


def is_met(figure: dict[str, Any]) -> bool | None:
    """Whether the goal is reached, None where there is none."""
    if figure["goal"] is None:
        return None
    if figure["unit"] in COSTS:
        return bool(figure["value"] <= figure["goal"])
    return bool(figure["value"] >= figure["goal"])


def hardware() -> dict[str, Any]:
    """What the figures depend on. ``load``: of the last minute, as the run ends: on a busy machine
    CPU time gets longer too."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "processor": model,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(psutil.getloadavg()[0], 2),
    }


def table(figures: list[dict[str, Any]]) -> Table:
    """The figures, as people read them."""
    shown = Table()
    shown.add_column("figure")
    for name in ("value", "goal", "ratio"):
        shown.add_column(name, justify="right")
    shown.add_column("unit")
    shown.add_column("")
    for figure in figures:
        goal, ratio = figure["goal"], figure["ratio"]
        verdict = {None: "", True: "reached", False: "below the goal"}[is_met(figure)]
        if verdict == "below the goal" and figure["unit"] in COSTS:
            verdict = "above the goal"
        shown.add_row(
            figure["name"],
            _number(figure["value"]),
            "" if goal is None else _number(goal),
            "" if ratio is None else f"{ratio:.2f} of {_short(figure['compared_with'])}",
            figure["unit"],
            verdict,
        )
    return shown


def _short(name: str) -> str:
    """Without the group, which is that of the figure it is compared with."""
    return name.partition(": ")[2]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _write(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")


def main() -> int:
    """Run, write, print."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results/bench")
    try:
        figures = run(folder)
    except subprocess.CalledProcessError:
        print("bench: a benchmark failed, see above; no figures were written", file=sys.stderr)
        return 1
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
