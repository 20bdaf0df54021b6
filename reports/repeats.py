"""Repeats of one experiment on one protocol: means with confidence intervals.

The interval is the percentile bootstrap of the mean (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13): it assumes no distribution, which latencies and recovery times do not
have. With few runs it is too narrow rather than too wide; one run has no interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np

from reports.summary import RunSummary

CONFIDENCE = 0.95
RESAMPLES = 10_000
_SEED = 1
"""The same runs give the same interval."""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """The mean of a figure over ``runs`` runs that have it, and its confidence interval (None with
    fewer than two)."""

    mean: float
    low: float | None
    high: float | None
    runs: int


class Repeats(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one protocol in one experiment. ``throughput`` and ``availability``: by phase
    and side, as in `RunSummary`; what no run has is left out. ``recovery_s``: over the runs that
    recovered; ``never_back``: how many had a fault and did not. ``verdicts``: how many of each."""

    experiment: str
    protocol: str
    target: str
    simulated: bool
    runs: int
    seeds: list[int]
    verdicts: dict[str, int]
    throughput: dict[str, Interval]
    availability: dict[str, Interval]
    recovery_s: Interval | None
    never_back: int


def interval(values: Sequence[float]) -> Interval | None:
    """Mean and confidence interval. None without values."""
    if not values:
        return None
    data = np.asarray(values, dtype=float)
    if len(data) < 2:
        return Interval(mean=float(data[0]), low=None, high=None, runs=1)
    rng = np.random.default_rng(_SEED)
    means = rng.choice(data, size=(RESAMPLES, len(data))).mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean=float(data.mean()), low=float(low), high=float(high), runs=len(data))


def repeats(summaries: Iterable[RunSummary]) -> list[Repeats]:
    """What was run more than once, in the order in which it first comes."""
    groups: dict[tuple[str, str, str, bool], list[RunSummary]] = {}
    for run in summaries:
        key = (run.experiment, run.protocol, run.target, run.simulated)
        groups.setdefault(key, []).append(run)
    return [_of(runs) for runs in groups.values() if len(runs) > 1]


def _of(runs: Sequence[RunSummary]) -> Repeats:
    first = runs[0]
    phases = ("before", "during", "after")

    def each(
        names: Iterable[str], get: Callable[[RunSummary, str], float | None]
    ) -> dict[str, Interval]:
        found = {name: _present([get(run, name) for run in runs]) for name in names}
        return {name: one for name, one in found.items() if one is not None}

    back = [run.recovery_s for run in runs]
    verdicts: dict[str, int] = {}
    for run in runs:
        verdicts[run.verdict] = verdicts.get(run.verdict, 0) + 1
    return Repeats(
        experiment=first.experiment,
        protocol=first.protocol,
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
            run.recovery_s is None and run.availability.during is not None for run in runs
        ),
    )


def _present(values: Iterable[float | None]) -> Interval | None:
    return interval([value for value in values if value is not None])


def lines(summaries: Iterable[RunSummary]) -> list[str]:
    """One line for each protocol and experiment that was repeated, for the terminal."""
    told = []
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
        simulated = " (simulated)" if one.simulated else ""
        told.append(
            f"{one.experiment} {one.protocol}{simulated}, {one.runs} runs: " + ", ".join(parts)
        )
    return told


def _shown(one: Interval, digits: int, *, floor: bool = False) -> str:
    """``floor``: never rounded to a better share."""

    def number(value: float) -> str:
        scale = 10**digits
        return f"{math.floor(value * scale) / scale if floor else value:.{digits}f}"

    if one.low is None or one.high is None:
        return number(one.mean)
    return f"{number(one.mean)} [{number(one.low)} to {number(one.high)}]"
