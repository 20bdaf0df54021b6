"""The figures of a run, small enough to print and to compare."""

from __future__ import annotations

import msgspec

from bench.record.printable import escaped
from bench.record.verdict import (
    VERDICT_VERSION,
    AnyCheck,
    FaultFigures,
    Latencies,
    Latency,
    Outcomes,
    Phases,
    Shares,
    StalenessCheck,
    Verdict,
    WitnessLine,
)
from bench.record.witness import sentence
from reports.data.cost import Cost
from reports.data.objectives import MODELS, Result
from reports.data.plan import Plan


class StaleReads(msgspec.Struct, kw_only=True):
    """Reads that returned a value after a newer one was acknowledged. ``fraction``: of all reads;
    and how long the newer value had been acknowledged, in the median and at worst (seconds)."""

    fraction: float
    median_s: float | None = None
    worst_s: float | None = None


class Setup(msgspec.Struct, kw_only=True):
    """The setup of the measurement. ``system``: the version of a system of others."""

    nodes: int
    offered_per_s: float | None = None
    cores: int | None = None
    broker: str | None = None
    system: str | None = None


class RunSummary(msgspec.Struct, kw_only=True):
    """The figures of a run, as ``--json`` prints them.

    ``throughput``: served operations/s. ``recovery_s``: the longest *back in* of its ``faults``;
    None: there was no fault, service did not come back after one, or *during* is cut short. These
    are defined in `bench.checkers.availability`; ``definitions`` is the version.

    Beyond the documented core: ``latency_ms`` (that of *during* if there is one, else of *before*);
    ``latency_p10_ms`` (in the same window: a busy machine slows the fastest operations least);
    ``window_latency_ms``; ``within_1s`` (served within a second / wanted); ``service_s`` (what
    counts as served); ``elections`` (leaders that came up after the load began; None for a protocol
    without leaders); ``simulated``; ``dropped`` (operations that the
    workload wanted and could not send); ``stale_reads``; ``lost_writes`` (at least so many
    acknowledged writes are gone; None: unknown); ``converged_s`` (after the heal, an upper
    bound); ``counterexample`` (the witness in a line); ``reason`` (of the verdict); ``setup``;
    ``missing`` (what the folder does not have); ``fault_lateness_ms`` (how late the faults began,
    at the median; None without faults); ``objectives`` (of its experiment, and what became of
    each); ``cut_windows`` (not what was planned, since the run did not come to its end: their
    figures decide nothing); ``plan`` (runs of equal plans are repeats of each other);
    ``cost`` (what a served operation cost the nodes; None if they did not count).
    """

    experiment: str
    protocol: str
    target: str
    seed: int
    folder: str
    claim: str
    verdict: str
    measured_model: str
    throughput: Phases
    availability: Shares
    recovery_s: float | None
    operations: Outcomes
    converged: bool | None
    latency_ms: Latency
    elections: int | None
    simulated: bool
    dropped: int
    stale_reads: StaleReads | None
    converged_s: float | None
    counterexample: str | None
    reason: str
    setup: Setup
    missing: list[str]
    lost_writes: int | None = None
    fault_lateness_ms: float | None = None
    definitions: int = VERDICT_VERSION
    service_s: float
    within_1s: Shares
    window_latency_ms: Latencies
    faults: list[FaultFigures]
    objectives: list[Result] = []
    cut_windows: list[str] = []
    plan: Plan = Plan()
    cost: Cost | None = None
    latency_p10_ms: float | None = None

    def missed(self) -> list[Result]:
        """The objectives that were not met."""
        return [result for result in self.objectives if result.met is False]


SHOWN = 60
"""The most characters of a value that are shown."""


def cut(text: str, most: int = SHOWN) -> str:
    """``text`` on one line, shortened with an ellipsis if too long."""
    text = escaped(text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def refuting_check(verdict: Verdict | None) -> AnyCheck | None:
    """The check that refutes the claim: the one whose summary is the verdict's reason, else one of
    a model that the claim includes. None if the claim was not refuted."""
    if verdict is None or verdict.verdict != "invalid":
        return None
    invalid = [check for check in verdict.checks if check.verdict == "invalid"]
    named = [check for check in invalid if check.summary == verdict.reason]
    included = [check for check in invalid if _includes(verdict.claim, check.model)]
    return next(iter([*named, *included]), None)


def explained_check(verdict: Verdict | None) -> AnyCheck | None:
    """The check whose witness is shown: if the claim is refuted, only what refutes it; else the
    first anomaly that the claim allows, else any other.
    """
    if verdict is None or verdict.verdict == "invalid":
        check = refuting_check(verdict)
        return check if check and check.witness else None
    found = [check for check in verdict.checks if check.verdict == "invalid" and check.witness]
    allowed = [check for check in found if not _includes(verdict.claim, check.model)]
    return next(iter([*allowed, *found]), None)


def explanation(verdict: Verdict) -> str:
    """The heading above the witness of `explained_check`."""
    check = explained_check(verdict)
    if verdict.verdict == "invalid":
        return "Why the claim is refuted"
    if check is None or _includes(verdict.claim, check.model):
        return f"What does not decide the claim ({verdict.claim})"
    if check.model in MODELS:
        return f"Why it is not {check.model} (its claim, {verdict.claim}, allows this)"
    return f"Which {check.model} it does not keep (its claim, {verdict.claim}, allows this)"


def _includes(claim: str, model: str) -> bool:
    """Whether ``claim`` implies ``model``."""
    return claim in MODELS and model in MODELS[MODELS.index(claim) :]


def witness_of(verdict: Verdict | None) -> list[WitnessLine]:
    """The witness of `explained_check`, by invocation."""
    check = explained_check(verdict)
    return sorted(check.witness, key=lambda each: each.operation.invoked_ns) if check else []


def counterexample(verdict: Verdict | None) -> str | None:
    """Why the claim is refuted, in one sentence; if it is not, why the history is not linearizable:
    the stalest read if there is one, which says more than the smallest witness, else the witness.
    None if there is neither, or it is unknown."""
    if verdict is None:
        return None
    if verdict.verdict != "invalid":
        if not any(c.model == "linearizable" and c.verdict == "invalid" for c in verdict.checks):
            return None
        for check in verdict.checks:
            if isinstance(check, StalenessCheck) and check.details.worst:
                return cut(check.details.worst, 400)
    lines = witness_of(verdict)
    return cut(sentence(lines), 400) if lines else None
