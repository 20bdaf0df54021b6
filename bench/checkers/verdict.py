"""The verdict on a run: the claim compared with the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from bench.checkers.availability import FINAL_PROCESS_PREFIX, check_availability
from bench.checkers.budget import Budget
from bench.checkers.causal import check_causal
from bench.checkers.convergence import check_convergence
from bench.checkers.linearizability import check_linearizable
from bench.checkers.models.run import check_workload
from bench.checkers.sequential import CUT_SHORT, check_sequential
from bench.checkers.sessions.guarantees import check_sessions
from bench.checkers.staleness import check_staleness, stale_reads
from bench.record.columns import NULL, Columns, Int64s
from bench.record.models.run import by_transactions
from bench.record.run_folder import LoadSummary, Manifest, RunFolder
from bench.record.verdict import (
    AvailabilityCheck,
    Claim,
    ConvergenceCheck,
    LinearizabilityCheck,
    Model,
    Verdict,
    VerdictValue,
    WeakerCheck,
    WorkloadCheck,
)
from nodes.contract.replica import Version

LOAD_FLOOR = 0.7
"""The share of the offered load that must end ok before the first fault for a *valid* verdict: a
run without load refutes nothing."""

FORBIDS_WRONG_TOTALS: Final[tuple[Claim, ...]] = (
    "repeatable-read",
    "snapshot-isolation",
    "serializable",
    "strong-session-serializable",
    "strict-serializable",
)
"""The levels at which a transaction that reads all accounts sees one state of them."""

SHORTEST_BASELINE_S = 0.5
"""If the time before the first fault is shorter, the whole load counts instead."""


def check_run(folder: RunFolder) -> Verdict:
    """Run every checker over a run folder and compare the claim with what was measured.

    Raises BadRunFolder and BadHistory for invalid files. Writes nothing.
    """
    manifest = folder.manifest()
    if by_transactions(manifest.kind, manifest.operations):
        return _check_transactions(folder, manifest)
    records = folder.operations()
    faults = folder.faults()
    gone = folder.gone()
    clients_cut = folder.clients_cut_short()
    cut = bool(clients_cut)
    incomplete = _incomplete(manifest, folder.loads())
    columns = Columns.from_records(records)
    columns.has_final_reads = True

    linearizable = check_linearizable(
        columns, history_is_cut=cut, clock_error_ns=manifest.clock_error_ns
    )
    widened = columns.widened(manifest.clock_error_ns)
    stale = stale_reads(widened, NULL, history_is_cut=cut)
    healed = [fault.healed_ns for fault in faults if fault.healed_ns is not None]
    convergence = check_convergence(
        records,
        [node for node in manifest.nodes if node not in gone],
        healed_ns=max(healed, default=None),
        last_stale_ns=_last_invoked(columns, stale.rows),
        history_is_cut=cut,
        final_reads_are_cut=any(name.startswith(FINAL_PROCESS_PREFIX) for name in clients_cut),
        clock_error_ns=manifest.clock_error_ns,
    )
    availability = _as_far_as_known(
        check_availability(manifest, records, faults, folder.loads(), folder.lost_clients()),
        CUT_SHORT if cut else incomplete,
    )
    weaker: list[WeakerCheck] = []
    if linearizable.verdict != "valid":
        versions = [record.version for record in records]
        weaker = weaker_models(columns, history_is_cut=cut, versions=versions)
    sessions = check_sessions(widened, history_is_cut=cut)
    staleness = check_staleness(widened, history_is_cut=cut)
    workload = check_workload(folder, history_is_cut=cut)
    of_kind = [] if workload is None else [workload]
    checks = [linearizable, *of_kind, *weaker, sessions, staleness, convergence, availability]

    measured = strongest(linearizable, weaker, convergence)
    verdict, reason = _compare(manifest.claim, linearizable, weaker, convergence)
    verdict, reason = _with_workload(manifest.claim, verdict, reason, workload, convergence)
    if verdict == "valid":
        doubt = _doubt(
            manifest,
            availability,
            incomplete,
            cut=cut,
            operations=len(columns),
            steps=steps_of_an_operation(folder.loads()),
        )
        if doubt is not None:
            verdict, reason = "unknown", doubt
    if verdict == "unknown" and cut and CUT_SHORT not in reason:
        reason = f"{CUT_SHORT}; {reason}"
    return Verdict(
        claim=manifest.claim,
        verdict=verdict,
        measured_model=measured,
        reason=reason,
        converged=convergence.details.converged,
        checks=checks,
    )


def _check_transactions(folder: RunFolder, manifest: Manifest) -> Verdict:
    """The same for a workload of transactions, of which nothing is a history of registers."""
    records, loads = folder.operations(), folder.loads()
    cut = bool(folder.clients_cut_short())
    incomplete = _incomplete(manifest, loads)
    availability = _as_far_as_known(
        check_availability(manifest, records, folder.faults(), loads, folder.lost_clients()),
        CUT_SHORT if cut else incomplete,
    )
    workload = check_workload(folder, history_is_cut=cut)
    assert workload is not None, "transactions are no registers"
    verdict, reason = workload.verdict, workload.summary
    measured: Claim = "unknown"
    if (told := workload.details.transactions) is not None:
        some_unknown = "unknown" in told.levels.values()
        measured = next(iter(told.strongest), "unknown" if some_unknown else "none")
    elif verdict == "invalid" and manifest.claim not in FORBIDS_WRONG_TOTALS:
        verdict, reason = "valid", f"{manifest.claim} allows what was found: {reason}"
    if verdict == "valid":
        doubt = _doubt(
            manifest, availability, incomplete, cut=cut, operations=len(records), steps=1.0
        )
        verdict, reason = ("valid", reason) if doubt is None else ("unknown", doubt)
    return Verdict(
        claim=manifest.claim,
        verdict=verdict,
        measured_model=measured,
        reason=reason,
        checks=[workload, availability],
    )


def _as_far_as_known(check: AvailabilityCheck, incomplete: str | None) -> AvailabilityCheck:
    """Unknown if operations are missing, for the reason ``incomplete``."""
    if not incomplete:
        return check
    summary = f"{incomplete}: {check.summary}"
    return msgspec.structs.replace(check, verdict="unknown", summary=summary)


def _last_invoked(c: Columns, rows: Int64s) -> int | None:
    """When the last of ``rows`` was sent, by the history's clock; None if there are none."""
    return c.times.of_history(int(c.invoked[rows].max())) if len(rows) else None


def weaker_models(
    c: Columns,
    initial: int = NULL,
    *,
    history_is_cut: bool = False,
    budget: Budget | None = None,
    versions: Sequence[Version] = (),
) -> list[WeakerCheck]:
    """The verdicts on the models weaker than linearizable, strongest first. They need no clock:
    ``c`` has the times of the history without a clock error. ``versions``: see
    `check_sequential`."""
    return [
        check_sequential(c, initial, history_is_cut=history_is_cut, versions=versions),
        check_causal(c, initial, history_is_cut=history_is_cut, budget=budget),
    ]


def _is_impossible(linearizable: LinearizabilityCheck, weaker: Sequence[WeakerCheck]) -> bool:
    """Whether the contradiction refutes every model: no replica may ever answer like that."""
    return linearizable.details.kind in ("never-written", "refused-match") or any(
        check.details.impossible for check in weaker
    )


def strongest(
    linearizable: LinearizabilityCheck,
    weaker: Sequence[WeakerCheck],
    convergence: ConvergenceCheck | None,
) -> Model:
    """The strongest model that the history does not refute, as far as known.

    A model counts only if its check is *valid*. Below linearizable, a model here also requires
    convergence.
    """
    if linearizable.verdict == "valid":
        return "linearizable"
    if _is_impossible(linearizable, weaker):
        return "none"
    if convergence is not None and convergence.verdict == "invalid":
        return "none"
    if linearizable.verdict == "unknown":
        return "unknown"
    for check in weaker:
        if check.verdict == "valid":
            return "sequential" if check.model == "sequential" else "causal"
    if convergence is None or convergence.verdict == "unknown":
        return "unknown"
    return "eventual"


def _compare(
    claim: Claim,
    linearizable: LinearizabilityCheck,
    weaker: Sequence[WeakerCheck],
    convergence: ConvergenceCheck,
) -> tuple[VerdictValue, str]:
    if claim == "linearizable":
        return linearizable.verdict, linearizable.summary
    if claim == "eventual":
        if _is_impossible(linearizable, weaker):
            return "invalid", linearizable.summary
        return convergence.verdict, convergence.summary
    if claim == "none":
        return "valid", "nothing is claimed"
    if linearizable.verdict == "valid":
        return "valid", f"stronger than {claim}: {linearizable.summary}"
    for check in weaker:
        if check.model == claim:
            return check.verdict, check.summary
    return "unknown", f"{claim} was not checked"


def _with_workload(
    claim: Claim,
    verdict: VerdictValue,
    reason: str,
    workload: WorkloadCheck | None,
    convergence: ConvergenceCheck,
) -> tuple[VerdictValue, str]:
    """The verdict on the claim, with what the workload's own operations say. A linearizable
    register makes linearizable counters, sets and locks. A weaker claim promises no more than that
    what was acknowledged is there in the end: that elements of a set, each written once, are not
    lost once all nodes agree."""
    if workload is None:
        return verdict, reason
    converged = convergence.details.converged is True
    kept = claim not in ("none", "unknown") and workload.model == "set" and converged
    if claim != "linearizable" and not kept:
        return verdict, reason
    words = f"as a {workload.model}, {workload.summary}"
    if workload.verdict == "invalid":
        also = f"; as registers, {reason}" if verdict == "invalid" else ""
        return "invalid", f"{words}{also}"
    if verdict != "valid":
        return verdict, reason
    return workload.verdict, f"{reason}; {words}"


def _incomplete(manifest: Manifest, loads: Sequence[LoadSummary]) -> str | None:
    """Why the run is not as planned; None if it reached its end."""
    if not manifest.complete:
        why = f" ({manifest.cut_short_by})" if manifest.cut_short_by else ""
        return f"the run did not reach its planned end{why}"
    if any(load.stopped_early for load in loads):
        return "the load was stopped before its planned end"
    return None


def _doubt(
    manifest: Manifest,
    availability: AvailabilityCheck,
    incomplete: str | None,
    *,
    cut: bool,
    operations: int,
    steps: float,
) -> str | None:
    """Why a *valid* verdict does not count; None if it does. ``steps``: operations of registers for
    each that was offered."""
    if operations == 0:
        return "there are no operations"
    if cut:
        return CUT_SHORT
    if incomplete:
        return incomplete
    if availability.verdict == "unknown":
        return "there was too little load: no operation was invoked"
    if manifest.offered_per_s:
        offered = manifest.offered_per_s * steps
        ok_per_s, what = _ok_per_s(availability)
        if ok_per_s < LOAD_FLOOR * offered:
            return (
                f"there was too little load: {ok_per_s:.0f} of {offered:.0f} offered operations/s "
                f"ended ok {what}"
            )
    return None


def steps_of_an_operation(loads: Sequence[LoadSummary]) -> float:
    """How many operations of registers each offered operation of the workload's kind took. The
    reads at the end, which nobody offered, take other numbers."""
    offered = [load for load in loads if load.offered_per_s is not None and load.model_operations]
    wanted = sum(load.intended for load in offered)
    done = sum(load.model_operations for load in offered)
    return max(1.0, wanted / done) if done else 1.0


def _ok_per_s(availability: AvailabilityCheck) -> tuple[float, str]:
    parts = availability.details.windows
    before = parts.get("before")
    is_enough = before is not None and before.seconds >= SHORTEST_BASELINE_S
    if before is not None and is_enough and availability.details.faults:
        return before.served / before.seconds, "before the first fault"
    whole = parts["all"]
    return (whole.served / whole.seconds if whole.seconds else 0.0), "in the whole load"
