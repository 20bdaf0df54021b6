"""A run for CI: its claim and its objectives, each kept, broken, or unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bench.checkers.availability import WINDOWS
from bench.checkers.windows import SIDES
from bench.record.verdict import Latency
from reports.data import compare
from reports.data.metrics import RunTables
from reports.data.summary import RunSummary

Ending: TypeAlias = Literal["kept", "broken", "unknown", "not measured"]


@dataclass(frozen=True)
class Case:
    """A claim or an objective of a run. ``unknown``: not enough evidence, which never counts as
    kept. ``not measured``: the run has no such figure. ``evidence``: in words."""

    name: str
    ending: Ending
    evidence: str


@dataclass(frozen=True)
class RunCases:
    """A run with its figures as text and its cases: the claim, then the objectives of its
    experiment."""

    name: str
    summary: RunSummary
    started_utc: str
    seconds: float
    figures: dict[str, str]
    cases: list[Case]


def cases_of(runs: Sequence[tuple[str, RunTables]]) -> list[RunCases]:
    """The cases of named runs."""
    return [
        RunCases(
            name=name,
            summary=run.summary,
            started_utc=run.manifest.started_utc,
            seconds=run.end_s,
            figures=figures(run.summary),
            cases=[_claim(run.summary), *_objectives(run.summary)],
        )
        for name, run in runs
    ]


def figures(summary: RunSummary) -> dict[str, str]:
    """The figures of a run, under the names that objectives use."""
    found: dict[str, str] = {}
    for window in WINDOWS:
        on_side = window in SIDES
        phase, side = ("during", f".{window}") if on_side else (window, "")
        share = getattr(summary.availability, window)
        if share is None:
            continue
        found[f"{phase} availability{side}"] = compare.ratio(share)
        found[f"{phase} within 1 s{side}"] = compare.ratio(getattr(summary.within_1s, window))
        if not on_side:
            rate = compare.per_second(getattr(summary.throughput, window))
            found[f"{phase} throughput"] = f"{rate} op/s"
        latency: Latency = getattr(summary.window_latency_ms, window)
        for name in ("p50", "p99"):
            shown = compare.milliseconds(latency.at(name), latency.bound_ms)
            found[f"{phase} {name}{side}"] = shown
    if summary.faults:
        cell = compare.Cell(summary.protocol, summary.experiment, [summary])
        found["back in"] = cell.back_in
        found["outages"] = str(sum(fault.outages for fault in summary.faults))
        longest_s = max(fault.longest_silence_s for fault in summary.faults)
        found["longest silence"] = compare.seconds(longest_s)
    if summary.cut_windows:
        found["cut short"] = " ".join(summary.cut_windows)
    return found


def _claim(summary: RunSummary) -> Case:
    endings: dict[str, Ending] = {"valid": "kept", "invalid": "broken"}
    measured = f"measured: {summary.measured_model}"
    shown = summary.counterexample or ""
    # Most reasons include their witness.
    is_said = summary.verdict != "invalid" or shown in summary.reason
    return Case(
        name=f"claim: {summary.claim}",
        ending=endings.get(summary.verdict, "unknown"),
        evidence=f"{summary.reason}; {measured}{'' if is_said else f'; {shown}'}",
    )


def _objectives(summary: RunSummary) -> list[Case]:
    cases = []
    for result in summary.objectives:
        ending: Ending = "kept" if result.met else "broken"
        if result.met is None:
            ending = "unknown" if result.measured else "not measured"
        cases.append(Case(f"objective: {result.asked}", ending, result.words))
    return cases
