"""Objectives of an experiment: each compares a figure of a run's summary with a value.

before: {availability: ">= 0.999", p99: "<= 100ms"}
during: {availability.majority: ">= 0.8", p99.majority: "<= 1s"}
after:  {recovery: "<= 5s"}
always: {consistency: claimed}

A percentile that exceeds the service time misses every upper bound.
"""

from __future__ import annotations

import contextlib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from bench.record.quantities import format_share
from nodes.errors import InvalidInput

Phase: TypeAlias = Literal["before", "during", "after", "always"]
Comparison: TypeAlias = Literal[">=", "<=", ">", "<"]

_COMPARE: dict[Comparison, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
MODELS = ("linearizable", "sequential", "causal", "eventual")
"""Consistency models, strongest first."""


class BadObjective(InvalidInput):
    """An invalid objective: says what is valid."""


class _Metric(msgspec.Struct, frozen=True):
    """The path of a metric in a run's summary (``{phase}``: of the objective), the phases that have
    it, and its unit."""

    path: tuple[str, ...]
    phases: tuple[Phase, ...]
    unit: Literal["", "s", "ms", "op/s"]


_PHASES: tuple[Phase, ...] = ("before", "during", "after")
_METRICS: dict[str, _Metric] = {
    "availability": _Metric(("availability", "{phase}"), _PHASES, ""),
    "availability.majority": _Metric(("availability", "majority"), ("during",), ""),
    "availability.minority": _Metric(("availability", "minority"), ("during",), ""),
    "throughput": _Metric(("throughput", "{phase}"), _PHASES, "op/s"),
    "p50": _Metric(("window_latency_ms", "{phase}", "p50"), _PHASES, "ms"),
    "p50.majority": _Metric(("window_latency_ms", "majority", "p50"), ("during",), "ms"),
    "p50.minority": _Metric(("window_latency_ms", "minority", "p50"), ("during",), "ms"),
    "p99": _Metric(("window_latency_ms", "{phase}", "p99"), _PHASES, "ms"),
    "p99.majority": _Metric(("window_latency_ms", "majority", "p99"), ("during",), "ms"),
    "p99.minority": _Metric(("window_latency_ms", "minority", "p99"), ("during",), "ms"),
    "recovery": _Metric(("recovery_s",), ("after",), "s"),
}


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """One expectation. ``comparison`` and ``value`` for a figure, in the summary's unit; ``model``
    for consistency: ``claimed``, or the weakest acceptable model."""

    phase: Phase
    metric: str
    text: str
    comparison: Comparison | None = None
    value: float | None = None
    model: str | None = None


def parse_objective(phase: Phase, metric: str, text: str) -> Objective:
    """One entry of ``objectives``. Raises BadObjective."""
    if phase == "always":
        if metric != "consistency":
            raise BadObjective(f"unknown metric {metric!r}; always has: consistency")
        if text != "claimed" and text not in MODELS:
            raise BadObjective(
                f"{text!r} is not a consistency model; use claimed, {', '.join(MODELS)}"
            )
        return Objective(phase=phase, metric=metric, text=text, model=text)
    known = [name for name, each in _METRICS.items() if phase in each.phases]
    if metric not in known:
        raise BadObjective(f"unknown metric {metric!r}; {phase} has: {', '.join(known)}")
    unit = _METRICS[metric].unit
    match = re.fullmatch(r"(>=|<=|>|<)\s*(\d{1,30}(?:\.\d{1,30})?)\s*(ms|s|/s|)", text.strip())
    units = {"": ("",), "op/s": ("/s", ""), "s": ("s", "ms"), "ms": ("s", "ms")}[unit]
    if match is None or match[3] not in units:
        example = {"": '">= 0.999"', "op/s": '">= 250/s"'}.get(unit, '"<= 100ms"')
        raise BadObjective(f"{text!r} is not a comparison; write it as {example}")
    value = float(match[2])
    if not unit and value > 1:
        raise BadObjective(f"{text!r}: {metric} is a share, from 0 to 1; 99.9 percent is 0.999")
    if unit == "s" and match[3] == "ms":
        value /= 1000
    if unit == "ms" and match[3] == "s":
        value *= 1000
    comparison: Comparison = match[1]  # type: ignore[assignment]
    return Objective(phase=phase, metric=metric, text=text, comparison=comparison, value=value)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an objective. ``met``: None if it was not measured, which never counts as met.
    ``measured``: in words, empty if not measured."""

    phase: Phase
    metric: str
    wanted: str
    met: bool | None
    measured: str

    @property
    def word(self) -> str:
        """``met``, ``missed``, or why it is unknown."""
        untold = "unknown" if self.measured else "not measured"
        return {True: "met", False: "missed", None: untold}[self.met]

    @property
    def asked(self) -> str:
        """The objective: ``during availability >= 0.9``."""
        return f"{self.phase} {self.metric} {self.wanted}"

    @property
    def words(self) -> str:
        """``during availability >= 0.9: missed, 0.7``."""
        return f"{self.asked}: {self.word}" + (f", {self.measured}" if self.measured else "")


def results(objectives: Iterable[Objective], summary: Mapping[str, Any]) -> list[Result]:
    """Whether a run met each objective. ``summary``: in the format of ``--json``."""
    found = []
    for each in objectives:
        met, measured = _evaluate(each, summary)
        result = Result(
            phase=each.phase, metric=each.metric, wanted=each.text, met=met, measured=measured
        )
        found.append(result)
    return found


def evaluate(
    objectives: Iterable[Objective], summary: Mapping[str, Any]
) -> list[tuple[Objective, bool | None, str]]:
    """Like `results`, in words."""
    asked = list(objectives)
    return [
        (objective, result.met, result.words)
        for objective, result in zip(asked, results(asked, summary), strict=True)
    ]


def _evaluate(objective: Objective, summary: Mapping[str, Any]) -> tuple[bool | None, str]:
    if objective.model is not None:
        return _evaluate_model(objective.model, summary)
    assert objective.comparison is not None
    assert objective.value is not None
    metric = _METRICS[objective.metric]
    found, bound_ms = _look_up(metric, objective.phase, summary)
    if _is_cut(metric, objective.phase, summary):
        shown = "" if found is None else f" ({_shown(found, metric.unit, bound_ms)} until then)"
        return None, f"the run was cut short{shown}"
    if found is None and metric.path == ("recovery_s",) and _had_fault(summary):
        return False, "never back during the run"
    if found is None:
        return None, ""
    met = _COMPARE[objective.comparison](found, objective.value)
    return met, _shown(found, metric.unit, bound_ms)


def _shown(value: float, unit: str, bound_ms: float | None) -> str:
    if not unit:
        return format_share(value)
    return f"> {bound_ms:g} {unit}" if math.isinf(value) else f"{value:.4g} {unit}"


def _look_up(
    metric: _Metric, phase: Phase, summary: Mapping[str, Any]
) -> tuple[float | None, float | None]:
    """The figure; for a percentile that exceeds the service time, also that time."""
    *outer, last = metric.path
    found: Any = summary
    for part in outer:
        found = (found or {}).get(part.format(phase=phase))
    value = (found or {}).get(last.format(phase=phase))
    bound_ms = (found or {}).get("bound_ms") if metric.unit == "ms" else None
    return (math.inf if value is None and bound_ms is not None else value), bound_ms


def _evaluate_model(model: str, summary: Mapping[str, Any]) -> tuple[bool | None, str]:
    verdict, measured = summary.get("verdict"), summary.get("measured_model")
    found = "not even eventual" if measured == "none" else measured
    shown = f"{summary.get('claim')} claimed, {found} measured"
    met: bool | None
    if model == "claimed":
        met = {"valid": True, "invalid": False}.get(str(verdict))
    elif measured is None or measured == "unknown":
        met = None
    else:
        met = measured in MODELS[: MODELS.index(model) + 1]
        if met and verdict == "unknown":  # not enough evidence
            met = None
    return met, shown


def _is_cut(metric: _Metric, phase: Phase, summary: Mapping[str, Any]) -> bool:
    """Whether the window is not as planned, so that its figures decide nothing."""
    named = {part.format(phase=phase) for part in metric.path} | {phase}
    return not named.isdisjoint(summary.get("cut_windows") or ())


def _had_fault(summary: Mapping[str, Any]) -> bool:
    """Whether operations were wanted during a fault, and their outcomes are known."""
    return (summary.get("availability") or {}).get("during") is not None


def of_experiment(experiment: Mapping[str, Any]) -> tuple[Objective, ...]:
    """The objectives of an experiment in a manifest. Unreadable ones (of another version) are left
    out."""
    found = []
    phases = experiment.get("objectives")
    for phase, expected in phases.items() if isinstance(phases, dict) else ():
        for metric, text in expected.items() if isinstance(expected, dict) else ():
            with contextlib.suppress(BadObjective):
                found.append(parse_objective(phase, str(metric), str(text)))
    return tuple(found)
