"""The figures of `make bench`: their format, their goals, and a table of them.

A figure is ``{"name", "value", "unit", "compared_with", "ratio", "goal"}``. ``compared_with``: the
name of another figure of the same run, or null; ``ratio``: the value divided by that figure's.
``goal``: the least value, or the greatest for the units in `COSTS`; or null.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

COSTS = frozenset(("CPU s", "bytes/operation", "ms", "bytes"))
"""Units in which less is better."""


def figure(
    name: str,
    value: float,
    unit: str,
    *,
    compared_with: str | None = None,
    goal: float | None = None,
) -> dict[str, Any]:
    """One figure, without its ratio: see `with_ratios`."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "compared_with": compared_with,
        "ratio": None,
        "goal": goal,
    }


def with_ratios(figures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures with their ratios; none if the figure to compare with was not measured."""
    values = {each["name"]: each["value"] for each in figures}
    assert len(values) == len(figures), "two figures have one name"
    for each in figures:
        other = values.get(each["compared_with"])
        if other:
            each["ratio"] = each["value"] / other
    return list(figures)


def figures_of(benchmarks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures from pytest-benchmark's output, without ratios. Rates are of the median round."""
    figures = []
    for benchmark in benchmarks:
        info = benchmark["extra_info"]
        per_operation = benchmark["stats"]["median"] / info["ops_per_round"]
        value = info.get("value", per_operation if info["unit"] in COSTS else 1 / per_operation)
        compared_with, goal = info["compared_with"], info["goal"]
        figures.append(
            figure(info["figure"], value, info["unit"], compared_with=compared_with, goal=goal)
        )
    return figures


def is_met(each: dict[str, Any]) -> bool | None:
    """Whether the goal is met; None if there is none."""
    if each["goal"] is None:
        return None
    if each["unit"] in COSTS:
        return bool(each["value"] <= each["goal"])
    return bool(each["value"] >= each["goal"])


def hardware() -> dict[str, Any]:
    """What the figures depend on. ``load``: the load average of the last minute at the end of the
    run: on a busy machine CPU times grow, too."""
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
    """The figures as a table."""
    shown = Table()
    shown.add_column("figure")
    for name in ("value", "goal", "ratio"):
        shown.add_column(name, justify="right")
    shown.add_column("unit")
    shown.add_column("")
    for each in figures:
        goal, ratio = each["goal"], each["ratio"]
        verdict = {None: "", True: "reached", False: "below the goal"}[is_met(each)]
        if verdict == "below the goal" and each["unit"] in COSTS:
            verdict = "above the goal"
        shown.add_row(
            each["name"],
            _number(each["value"]),
            "" if goal is None else _number(goal),
            "" if ratio is None else f"{ratio:.2f} of {_short(each['compared_with'])}",
            each["unit"],
            verdict,
        )
    return shown


def _short(name: str) -> str:
    """The name without its group, which both figures of a comparison share."""
    return name.partition(": ")[2]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
