"""How a benchmark of the suites says what it measures, and what `bench.measure.figures` reads.

A benchmark is an ordinary pytest-benchmark test. `measure` runs it and leaves in ``extra_info``
what pytest-benchmark does not know: how many operations a round has, the unit, the goal, and which
other figure of the same run to compare with.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

SCALE = float(os.environ.get("CAPBENCH_BENCH_SCALE", "1"))
"""Makes everything smaller, to test the benchmarks themselves."""


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
    """Call ``run``, which does ``operations`` operations, ``rounds`` times after a first call that
    does not count. The figure is the rate in the median round; if ``unit`` is one of
    `bench.measure.figures.COSTS`, the time of one operation instead. ``compared_with``: the name of
    another figure."""
    benchmark.extra_info.update(
        figure=name,
        ops_per_round=operations,
        unit=unit,
        goal=goal,
        compared_with=compared_with,
    )
    benchmark.pedantic(run, rounds=scaled(rounds), iterations=1, warmup_rounds=1)
