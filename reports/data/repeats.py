"""Repeats of an experiment on a protocol: means with confidence intervals.

The interval is the percentile bootstrap of the mean (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13): it assumes no distribution, which latencies and recovery times do not
have. With few runs it tends to be too narrow; a single run has no interval.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np

from bench.record.quantities import format_share
from reports.data import compare, cost, difference
from reports.data.summary import RunSummary

CONFIDENCE = 0.95
RESAMPLES = 10_000
_SEED = 1
"""The same runs give the same interval."""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """The mean and median of a figure over the ``runs`` that have it, and the confidence interval
    of the mean (None with fewer than two)."""

    median: float
    mean: float
    low: float | None
    high: float | None
    runs: int


class Repeats(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one protocol in one experiment, all of one plan. ``row`` and ``column``: their
    place in the table of a report. ``throughput`` and ``availability``: by phase and side, as in
    `RunSummary`; figures that no run has are left out. ``recovery_s``: over the runs that
    recovered; ``never_back``: how many had a fault and did not. ``latency_ms_p99``: over the runs
    in which it did not exceed the service time; ``over_time_out``: in how many it did.
    ``cost``: figures of `reports.data.cost.Cost`. ``verdicts``: how many of each."""

    experiment: str
    protocol: str
    row: str
    column: str
    target: str
    simulated: bool
    runs: int
    seeds: list[int]
    verdicts: dict[str, int]
    throughput: dict[str, Interval]
    availability: dict[str, Interval]
    recovery_s: Interval | None
    never_back: int
    latency_ms_p99: Interval | None
    over_time_out: int
    cost: dict[str, Interval]


def interval(values: Sequence[float]) -> Interval | None:
    """Mean and confidence interval. None without values."""
    if not values:
        return None
    data = np.asarray(values, dtype=float)
    if len(data) < 2:
        return Interval(median=float(data[0]), mean=float(data[0]), low=None, high=None, runs=1)
    rng = np.random.default_rng(_SEED)
    means = rng.choice(data, size=(RESAMPLES, len(data))).mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(
        median=float(np.median(data)),
        mean=float(data.mean()),
        low=float(low),
        high=float(high),
        runs=len(data),
    )


def repeats(summaries: Iterable[RunSummary]) -> list[Repeats]:
    """The repeated runs, in order of first appearance."""
    cells = compare.matrix(summaries).cells.values()
    return [of(cell) for cell in cells if len(cell.runs) > 1]


def of(cell: compare.Cell) -> Repeats:
    """The intervals of a cell with several runs."""
    runs = cell.runs
    first = runs[0]
    phases = ("before", "during", "after")

    def each(
        names: Iterable[str], get: Callable[[RunSummary, str], float | None]
    ) -> dict[str, Interval]:
        found = {
            name: _present([get(run, name) for run in runs if name not in run.cut_windows])
            for name in names
        }
        return {name: one for name, one in found.items() if one is not None}

    back = [run.recovery_s for run in runs]
    p99 = [run.latency_ms.at("p99") for run in runs if "during" not in run.cut_windows]
    verdicts: dict[str, int] = {}
    for run in runs:
        verdicts[run.verdict] = verdicts.get(run.verdict, 0) + 1
    return Repeats(
        experiment=first.experiment,
        protocol=first.protocol,
        row=cell.protocol,
        column=cell.experiment,
        target=first.target,
        simulated=first.simulated,
        runs=len(runs),
        seeds=[run.seed for run in runs],
        verdicts=verdicts,
        throughput=each(phases, lambda run, name: getattr(run.throughput, name)),
        availability=each(
            (*phases, "majority", "minority"), lambda run, name: getattr(run.availability, name)
        ),
        recovery_s=_present(back),
        never_back=sum(
            run.recovery_s is None
            and run.availability.during is not None
            and "during" not in run.cut_windows
            for run in runs
        ),
        latency_ms_p99=_present(value for value in p99 if value != math.inf),
        over_time_out=p99.count(math.inf),
        cost=_costs(cell),
    )


def _costs(cell: compare.Cell) -> dict[str, Interval]:
    found = {
        column.figure: interval(cell.values(f"cost.{column.figure}"))
        for column in cost.counted([cell])
    }
    return {name: one for name, one in found.items() if one is not None}


def _present(values: Iterable[float | None]) -> Interval | None:
    return interval([value for value in values if value is not None])


def rows(one: Repeats) -> list[tuple[str, int, str, str, str]]:
    """The table of repeats, one row per figure: in how many runs it was measured, its median, its
    mean, and the interval of the mean."""
    found = [(f"ok op/s {phase}", each, 0, False) for phase, each in one.throughput.items()] + [
        (f"availability {part}", each, 3, True) for part, each in one.availability.items()
    ]
    if one.recovery_s is not None:
        found.append(("back in, s", one.recovery_s, 1, False))
    if one.latency_ms_p99 is not None:
        found.append(("p99, ms", one.latency_ms_p99, 0, False))
    rows = []
    for name, each, digits, floor in found:
        middle, mean = (_number(value, digits, floor=floor) for value in (each.median, each.mean))
        between = "–"
        if each.low is not None and each.high is not None:
            low, high = (_number(value, digits, floor=floor) for value in (each.low, each.high))
            between = f"{low} to {high}"
        rows.append((name, each.runs, middle, mean, between))
    if one.over_time_out:
        rows.append(("p99", one.over_time_out, "> time-out", "–", "–"))
    for column in cost.COLUMNS:
        if (spent := one.cost.get(column.figure)) is not None:
            middle, mean = (cost.quantity(value) for value in (spent.median, spent.mean))
            rows.append((column.words, spent.runs, middle, mean, between_costs(spent) or "–"))
    return rows


def between_costs(one: Interval) -> str:
    """The interval of a cost, without its unit; nothing where there is none."""
    if one.low is None or one.high is None:
        return ""
    return f"{cost.quantity(one.low)} to {cost.quantity(one.high)}"


_DIGITS = {"rate": 0, "p99": 0, "back_in": 1}


def between(name: str, one: Interval | None) -> str:
    """The interval of a figure in words: ``38 to 45``; nothing where there is none. Shares are
    those that have no digits of their own."""
    if one is None or one.low is None or one.high is None:
        return ""
    digits = _DIGITS.get(name)
    floor = digits is None
    low, high = (_number(v, digits or 0, floor=floor) for v in (one.low, one.high))
    return f"{low} to {high}"


_COMPARED: dict[str, Callable[[RunSummary], float | None]] = {
    "served op/s while faults were on": lambda run: run.throughput.during,
    "served op/s": lambda run: run.throughput.before if not run.faults else None,
    "availability while faults were on": lambda run: run.availability.during,
    "p99": lambda run: run.latency_ms.at("p99"),
    "back in": lambda run: (
        (math.inf if run.recovery_s is None else run.recovery_s) if run.faults else None
    ),
    "messages per operation": lambda run: run.cost.messages if run.cost else None,
}


def differences(cells: Sequence[compare.Cell]) -> list[str]:
    """Between which protocols a difference is shown, and between which it is not, a sentence for
    each figure. Nothing where nobody was run more than once."""
    repeated = [cell for cell in cells if len(cell.runs) > 1]
    if len(repeated) < 2:
        return []
    sizes = [len(cell.runs) for cell in repeated]
    if not any(difference.is_possible(*pair) for pair in itertools.combinations(sizes, 2)):
        return [f"With {min(sizes)} runs, this test can show none: four of each are needed."]
    found = []
    for name, get in _COMPARED.items():
        values = {
            cell.protocol: [
                value
                for run in cell.runs
                if not run.cut_windows and (value := get(run)) is not None
            ]
            for cell in repeated
        }
        pairs = [
            (one, other)
            for one, other in itertools.combinations(values, 2)
            if values[one] and values[other]
        ]
        differing = [
            _compared(one, other, values)
            for one, other in pairs
            if difference.shown(values[one], values[other])
        ]
        alike = [
            f"{one} and {other}"
            for one, other in pairs
            if not difference.shown(values[one], values[other])
        ]
        parts = [*differing, *([f"no difference shown between {', '.join(alike)}"] * bool(alike))]
        if parts:
            found.append(f"{name}: {'; '.join(parts)}.")
    return found


def _compared(one: str, other: str, values: dict[str, list[float]]) -> str:
    p = difference.p_value(values[one], values[other])
    less, more = sorted((one, other), key=lambda name: statistics.median(values[name]))
    return f"{less} less than {more} (p = {p:.3f})"


def lines(summaries: Iterable[RunSummary]) -> list[str]:
    """One line for the terminal for each repeated protocol and experiment."""
    lines = []
    for one in repeats(summaries):
        phase = "during" if "during" in one.throughput else "before"
        parts = []
        if phase in one.throughput:
            parts.append(f"{_shown(one.throughput[phase], 0)} op/s {phase}")
        if phase in one.availability:
            parts.append(f"availability {_shown(one.availability[phase], 3, floor=True)}")
        if one.recovery_s is not None:
            parts.append(f"back in {_shown(one.recovery_s, 1)} s")
        if one.never_back:
            parts.append(f"not back in {one.never_back} of {one.runs}")
        if one.over_time_out:
            parts.append(f"p99 longer than the time-out in {one.over_time_out} of {one.runs}")
        simulated = compare.SIMULATED if one.simulated else ""
        column = one.column.removesuffix(compare.SIMULATED)
        lines.append(f"{column} {one.row}{simulated}, {one.runs} runs: " + ", ".join(parts))
    return lines


def _shown(one: Interval, digits: int, *, floor: bool = False) -> str:
    mean = _number(one.mean, digits, floor=floor)
    if one.low is None or one.high is None:
        return mean
    low, high = (_number(value, digits, floor=floor) for value in (one.low, one.high))
    return f"{mean} [{low} to {high}]"


def _number(value: float, digits: int, *, floor: bool) -> str:
    """A number with so many digits. ``floor``: round down, since it is a share."""
    return format_share(value) if floor else f"{value:.{digits}f}"
