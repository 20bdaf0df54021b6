"""How a benchmark of the suites declares what it measures, for `bench.measure.figures`.

A benchmark is an ordinary pytest-benchmark test. `measure` runs it and stores in ``extra_info``
what pytest-benchmark does not know: the operations per round, the unit, the goal, and the figure of
the same run to compare with.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

SCALE = float(os.environ.get("CAPBENCH_BENCH_SCALE", "1"))
"""Scales everything down, to test the benchmarks themselves."""


def scaled(count: int, least: int = 1) -> int:
    """``count`` times `SCALE`."""
    return max(least, round(count * SCALE))


def measure(
    benchmark: Any,
    name: str,
    run: Callable[[], object],
    *,
    operations: int = 1,
    rounds: int = 20,
    unit: str = "operations/CPU s",
    goal: float | None = None,
    compared_with: str | None = None,
) -> None:
    """Call ``run``, which does ``operations`` operations, ``rounds`` times after an uncounted first
    call. The figure is the rate in the median round, or, if ``unit`` is in
    `bench.measure.figures.COSTS`, the time of one operation. ``compared_with``: the name of another
    figure."""
    benchmark.extra_info.update(
        figure=name,
        ops_per_round=operations,
        unit=unit,
        goal=goal,
        compared_with=compared_with,
    )
    benchmark.pedantic(run, rounds=scaled(rounds), iterations=1, warmup_rounds=1)
