"""What a CI wants of a run: its claim and its objectives, each kept, broken, or not to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from reports.data.metrics import RunTables
from reports.data.summary import RunSummary

Ending: TypeAlias = Literal["kept", "broken", "unknown", "not measured"]


@dataclass(frozen=True)
class Case:
    """One thing that a run had to show. ``unknown``: there was not enough evidence, which is never
    the same as kept. ``not measured``: the run has no such figure. ``evidence``: in words."""

    name: str
    ending: Ending
    evidence: str


@dataclass(frozen=True)
class Judged:
    """A run with its cases: the claim first, then the objectives of its experiment."""

    name: str
    summary: RunSummary
    started_utc: str
    seconds: float
    cases: list[Case]


def judge(runs: Sequence[tuple[str, RunTables]]) -> list[Judged]:
    """The cases of runs, each given with its name."""
    return [
        Judged(
            name=name,
            summary=run.summary,
            started_utc=run.manifest.started_utc,
            seconds=run.end_s,
            cases=[_claim(run.summary), *_objectives(run.summary)],
        )
        for name, run in runs
    ]


def _claim(summary: RunSummary) -> Case:
    endings: dict[str, Ending] = {"valid": "kept", "invalid": "broken"}
    measured = f"measured: {summary.measured_model}"
    shown = summary.counterexample or ""
    # Most reasons have their witness in them.
    told = summary.verdict != "invalid" or shown in summary.reason
    return Case(
        name=f"claim: {summary.claim}",
        ending=endings.get(summary.verdict, "unknown"),
        evidence=f"{summary.reason}; {measured}{'' if told else f'; {shown}'}",
    )


def _objectives(summary: RunSummary) -> list[Case]:
    cases = []
    for result in summary.objectives:
        ending: Ending = "kept" if result.met else "broken"
        if result.met is None:
            ending = "unknown" if result.measured else "not measured"
        cases.append(Case(f"objective: {result.asked}", ending, result.words))
    return cases
