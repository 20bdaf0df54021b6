"""From a run folder to tidy pandas tables and to the figures of a run.

Times in the tables are seconds after the start of the load (``_s``; negative before it). Latencies
are milliseconds from the *intended* send time, so that a stall counts for every operation that it
delayed. pandas is imported only when a table is built.

Availability, percentiles, outages, windows and sides come from `bench.checkers.availability`; they
are not computed here.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from bench.checkers import check_run
from bench.checkers.availability import FINAL_PROCESS_PREFIX, Labels, Measured, measure, wanted_ns
from bench.checkers.windows import PHASES, SIDES
from bench.record.files import shown as shown_path
from bench.record.history import BadHistory, OperationRecord, read_history
from bench.record.run_folder import (
    SCHEMA_VERSION,
    BadRunFolder,
    FaultRecord,
    LoadSummary,
    Manifest,
    NodeRecord,
    RunFolder,
)
from bench.record.verdict import (
    VERDICT_VERSION,
    Availability,
    AvailabilityCheck,
    ConvergenceCheck,
    FaultFigures,
    StalenessCheck,
    Verdict,
    Window,
)
from bench.record.witness import shown
from reports.data import objectives
from reports.data.cost import cost
from reports.data.plan import SYSTEM, plan_of
from reports.data.proof import Proof, doubt, proofs
from reports.data.summary import RunSummary, Setup, StaleReads, counterexample, cut

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
WINDOW_COLUMNS = [
    "phase",
    "side",
    "seconds",
    "wanted",
    "served",
    "dropped",
    "availability",
    "within_1s",
    "served_per_s",
    "latency_ms_p50",
    "latency_ms_p99",
]
FAULT_COLUMNS = [
    "number",
    "fault",
    "label",
    "nodes",
    "planned_s",
    "applied_s",
    "heal_started_s",
    "healed_s",
    "wanted",
    "served",
    "availability",
    "back_in_s",
    "outages",
    "longest_silence_s",
    "error",
]


@dataclass(frozen=True)
class RunTables:
    """A run as tidy tables. Seconds count from the start of the load.

    ``operations``, one row per operation of the load (final reads are left out): process, id, op,
    key, node, outcome (ok / fail / info), error, value (as text, cut if long), intended_s,
    invoked_s, completed_s, latency_ms, phase (before / during / after: when it was wanted), side
    (majority / minority of the active partition / none), served (ok within the service time).

    ``dropped``, the same for operations wanted but not sent: intended_s, phase, side.

    ``faults``: number, fault, label, nodes, planned_s, applied_s, heal_started_s, healed_s, wanted,
    served, availability, back_in_s (infinite: not within the load), outages, longest_silence_s,
    error.

    ``windows``, one row per phase and side: phase (before / during / after / all), side (all, and
    majority / minority / none if there was a partition), seconds, wanted, served, dropped,
    availability and within_1s (0..1), served_per_s, latency_ms_p50, latency_ms_p99 (infinite:
    longer than the service time).

    ``proofs``: what was seen of each fault.

    ``silences``: intervals in which no client got an answer, in seconds.

    ``verdicts``, one row per checker: check, model, verdict, algorithm, operations, seconds,
    summary.

    ``nodes``, one row per record: t_s, node, kind (status / event), name, role, term, leader,
    details (JSON text).

    ``counters``: name -> the sum over all nodes during the load (messages, syncs, bytes; see
    `nodes.runtime.driver`). Restarts, which reset a node's counters, are taken into account.

    ``origin_ns``: the timestamp of second 0, the start of the load. ``end_s``: when the load ended,
    or the last operation was wanted. ``missing``: what the folder lacks or what could not be read,
    in sentences.
    """

    folder: Path
    manifest: Manifest
    verdict: Verdict | None
    operations: pd.DataFrame
    dropped: pd.DataFrame
    faults: pd.DataFrame
    windows: pd.DataFrame
    verdicts: pd.DataFrame
    nodes: pd.DataFrame
    summary: RunSummary
    counters: dict[str, int]
    origin_ns: int
    end_s: float
    silences: list[tuple[float, float]]
    proofs: list[Proof]
    missing: list[str]

    def seconds(self, stamp_ns: int) -> float:
        """A timestamp of the run as seconds after the start of the load."""
        return (stamp_ns - self.origin_ns) / 1e9


def summarise(folder: RunFolder) -> RunSummary:
    """The figures of a run. Raises BadRunFolder if it has no readable manifest."""
    return load(folder.path).summary


def load(path: Path) -> RunTables:
    """The tables of the run in ``path``. Raises BadRunFolder if it has no readable manifest;
    anything else that is missing or broken is listed in `RunTables.missing`."""
    folder = RunFolder(path)
    manifest = folder.manifest()
    missing: list[str] = []
    if manifest.schema_version != SCHEMA_VERSION:
        missing.append(
            f"the folder has schema version {manifest.schema_version}, this capbench reads "
            f"{SCHEMA_VERSION}: figures may be missing"
        )
    if not manifest.complete:
        missing.append("the run was cut short: it did not reach its planned end")
    records = _read_load(folder, missing)
    if not records:
        missing.append("no operations: the load left no history")
    verdict = _up_to_date(folder, _or_else(None, folder.verdict, missing), missing)
    if verdict is None:
        missing.append("no verdict: the run was not checked; run `capbench check`")
    faults: list[FaultRecord] = _or_else([], folder.faults, missing)
    loads: list[LoadSummary] = _or_else([], folder.loads, missing)
    lost: list[str] = _or_else([], folder.lost_clients, missing)
    node_records: list[NodeRecord] = _or_else([], folder.node_records, missing)
    if not node_records:
        missing.append("no reports from the nodes: no roles, no elections")
    cut_short: bool = _or_else(False, folder.cut_short, missing)
    if records and cut_short:
        missing.append(
            "a client process left no summary: operations that were open when it ended are missing"
        )
    missing += [
        f"fault {each.number} ({each.fault}): {each.error}" for each in faults if each.error
    ]
    origin_ns = _origin(manifest, records, faults)
    operations = _operations_table(records, origin_ns)
    measured = measure(manifest, records, faults, loads, lost)
    end_s = _end(manifest, operations, origin_ns, measured.details.ended_s)
    if (stopped_s := measured.details.stopped_s) is not None:
        missing.append(
            f"the load stopped after {stopped_s:.1f} s, before its planned end: figures cover the "
            "time until then, and operations still open count as not served"
        )
    _place(operations, measured.operations)
    elections = _elections(node_records, origin_ns)
    summary = _summary(path, manifest, verdict, measured.details, elections, missing)
    counters = _counted(node_records, origin_ns, origin_ns + int(end_s * 1e9))
    memory_kb = _peak_memory_kb(node_records, origin_ns)
    summary.cost = cost(counters, int(operations["served"].sum()), memory_kb)
    summary.fault_lateness_ms = _lateness_ms(faults)
    shown_by = proofs(faults, node_records, operations, origin_ns, simulated=manifest.simulated)
    doubt(summary, shown_by)
    _hold_against_plan(summary, manifest)
    return RunTables(
        folder=path,
        manifest=manifest,
        verdict=verdict,
        operations=operations,
        dropped=_dropped_table(loads, measured.dropped, origin_ns),
        faults=_faults_table(faults, measured.details.faults, origin_ns),
        windows=_windows_table(measured.details.windows),
        verdicts=_verdicts_table(verdict),
        nodes=_nodes_table(node_records, origin_ns),
        summary=summary,
        counters=counters,
        origin_ns=origin_ns,
        end_s=end_s,
        silences=_silences(measured, origin_ns),
        proofs=shown_by,
        missing=missing,
    )


def at_rest(folder: RunFolder) -> RunSummary | None:
    """The figures of a run from its verdict alone, without its history: for lists of many runs.
    None if the verdict has none, or is of an older version. Raises BadRunFolder."""
    manifest, verdict = folder.manifest(), folder.verdict()
    if verdict is None or verdict.schema_version < VERDICT_VERSION:
        return None
    measured = next((c.details for c in verdict.checks if isinstance(c, AvailabilityCheck)), None)
    if measured is None:
        return None
    summary = _summary(folder.path, manifest, verdict, measured, None, [])
    _hold_against_plan(summary, manifest)
    return summary


def _hold_against_plan(summary: RunSummary, manifest: Manifest) -> None:
    summary.plan = plan_of(manifest)
    asked = objectives.of_experiment(manifest.experiment)
    summary.objectives = objectives.results(asked, msgspec.to_builtins(summary))


_NO_LABEL = frozenset(("chosen_by", "seed", "groups", "node", "nodes"))
"""Parameters of faults that say how it was chosen, not what it is."""


def fault_label(fault: FaultRecord) -> str:
    """A fault in a few words: ``partition n1 | n2 n3``, ``latency 50 ms``."""
    if fault.groups:
        return f"{fault.fault} {' | '.join(' '.join(group) for group in fault.groups)}"
    words = [
        _parameter(fault.fault, name, value)
        for name, value in fault.parameters.items()
        if name not in _NO_LABEL and value not in (None, "all")
    ]
    if fault.nodes and (not fault.links or "node" in fault.parameters):
        words.append(" ".join(fault.nodes))
    return " ".join([fault.fault, *words])


def _parameter(fault: str, name: str, value: Any) -> str:
    """``latency_ms`` 50 of latency as ``50 ms``, ``every_ms`` 500 as ``every 500 ms``, ``restart``
    false as ``no restart``."""
    if isinstance(value, bool):
        words = name.replace("_", " ")
        return words if value else f"no {words}"
    stem, _, unit = name.rpartition("_")
    if unit in ("ms", "s", "bytes") and stem:
        return f"{value} {unit}" if stem in (fault, "delay") else f"{stem} {value} {unit}"
    return f"{name} {value}" if isinstance(value, int | float | str) else f"{name} {shown(value)}"


def _or_else(default: T, read: Callable[[], T], missing: list[str]) -> T:
    try:
        return read()
    except (BadRunFolder, BadHistory) as error:
        missing.append(str(error))
        return default


def _up_to_date(folder: RunFolder, verdict: Verdict | None, missing: list[str]) -> Verdict | None:
    """The verdict; if it is of an older version, the run is checked again and the file stays as it
    is."""
    if verdict is None or verdict.schema_version >= VERDICT_VERSION:
        return verdict
    old = f"verdict.json is of version {verdict.schema_version}, before the current definitions"
    try:
        anew = check_run(folder)
    except (BadRunFolder, BadHistory) as error:
        missing.append(f"{old}, and the run cannot be checked again: {error}")
        return verdict
    missing.append(
        f"{old} ({VERDICT_VERSION}): figures and verdict were recomputed for this report; "
        "`capbench check` saves them"
    )
    return anew


def _read_load(folder: RunFolder, missing: list[str]) -> list[OperationRecord]:
    """The operations of the load; an invalid file is read up to the invalid line."""
    records: list[OperationRecord] = []
    paths: list[Path] = _or_else([], folder.histories, missing)
    for path in paths:
        try:
            records.extend(r for r in read_history(path) if not _is_final(r))
        except BadHistory as error:
            missing.append(f"{error}; the lines after it were not read")
    records.sort(key=lambda record: (record.invoked_ns, record.id))
    return records


def _is_final(record: OperationRecord) -> bool:
    return record.process.startswith(FINAL_PROCESS_PREFIX)


def _origin(
    manifest: Manifest, records: Sequence[OperationRecord], faults: Sequence[FaultRecord]
) -> int:
    if manifest.load_started_ns is not None:
        return manifest.load_started_ns
    if records:
        return min(wanted_ns(record) for record in records)
    return min((fault.planned_ns for fault in faults), default=0)


def _end(
    manifest: Manifest, operations: pd.DataFrame, origin_ns: int, ended_s: float | None
) -> float:
    if ended_s is not None:
        return ended_s
    if manifest.load_ended_ns is not None:
        return (manifest.load_ended_ns - origin_ns) / 1e9
    return float(operations["intended_s"].max()) if len(operations) else 1.0


def _operations_table(records: Sequence[OperationRecord], origin_ns: int) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    def stamps(values: list[int]) -> Any:
        return (np.array(values, dtype=np.int64) - origin_ns) / 1e9

    open_ns = -1
    intended_s = stamps([wanted_ns(r) for r in records])
    ended_ns = np.array(
        [open_ns if r.completed_ns is None else r.completed_ns for r in records], dtype=np.int64
    )
    completed_s = np.where(ended_ns == open_ns, np.nan, (ended_ns - origin_ns) / 1e9)
    return pd.DataFrame(
        {
            "process": pd.Categorical([r.process for r in records]),
            "id": np.array([r.id for r in records], dtype=np.int64),
            "op": pd.Categorical([r.op for r in records]),
            "key": pd.Categorical([r.key for r in records]),
            "node": pd.Categorical([r.node for r in records]),
            "outcome": pd.Categorical([r.outcome for r in records], ["ok", "fail", "info"]),
            "error": pd.Categorical([r.error for r in records]),
            "value": pd.Series([cut(shown(r.value)) for r in records], dtype=object),
            "intended_s": intended_s,
            "invoked_s": stamps([r.invoked_ns for r in records]),
            "completed_s": completed_s,
            "latency_ms": (completed_s - intended_s) * 1e3,
        }
    )


def _place(operations: pd.DataFrame, labels: Labels | None) -> None:
    """Add the columns ``phase``, ``side`` and ``served`` from the checker's labels."""
    import pandas as pd

    if labels is None:
        nowhere = [None] * len(operations)
        operations["phase"] = pd.Categorical(nowhere, PHASES)
        operations["side"] = pd.Categorical(nowhere, SIDES)
        operations["served"] = False
        return
    operations["phase"] = pd.Categorical.from_codes(labels.phase, pd.Index(PHASES))
    operations["side"] = pd.Categorical.from_codes(labels.side, pd.Index(SIDES))
    operations["served"] = labels.served


def _dropped_table(
    loads: Sequence[LoadSummary], labels: Labels | None, origin_ns: int
) -> pd.DataFrame:
    import pandas as pd

    times = [(t - origin_ns) / 1e9 for load in loads for t in load.dropped_intended_ns]
    table = pd.DataFrame({"intended_s": pd.Series(times, dtype=float)})
    _place(table, labels)
    return table.drop(columns="served")


def _silences(measured: Measured, origin_ns: int) -> list[tuple[float, float]]:
    if measured.silent is None:
        return []
    starts, ends = (
        (stamps - origin_ns) / 1e9 for stamps in (measured.silent.starts, measured.silent.ends)
    )
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _windows_table(windows: Mapping[str, Window]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for name, window in windows.items():
        is_side = name in SIDES
        wanted, served, seconds = window.wanted, window.served, window.seconds
        rows.append(
            {
                "phase": "during" if is_side else name,
                "side": name if is_side else "all",
                "seconds": seconds,
                "wanted": wanted,
                "served": served,
                "dropped": window.dropped,
                "availability": served / wanted if wanted else None,
                "within_1s": window.served_1s / wanted if wanted else None,
                "served_per_s": served / seconds if seconds else None,
                "latency_ms_p50": window.latency_ms.at("p50"),
                "latency_ms_p99": window.latency_ms.at("p99"),
            }
        )
    return pd.DataFrame(rows, columns=WINDOW_COLUMNS)


def _faults_table(
    faults: Sequence[FaultRecord], measured: Sequence[FaultFigures], origin_ns: int
) -> pd.DataFrame:
    import pandas as pd

    def seconds(stamp_ns: int | None) -> float | None:
        return None if stamp_ns is None else (stamp_ns - origin_ns) / 1e9

    figures = {each.number: each for each in measured}
    rows: list[dict[str, Any]] = []
    for f in faults:
        row: dict[str, Any] = {
            "number": f.number,
            "fault": f.fault,
            "label": fault_label(f),
            "nodes": " ".join(f.nodes),
            "planned_s": seconds(f.planned_ns),
            "applied_s": seconds(f.applied_ns),
            "heal_started_s": seconds(f.heal_started_ns),
            "healed_s": seconds(f.healed_ns),
            "error": f.error,
        }
        if (found := figures.get(f.number)) is not None:
            row |= {
                "wanted": found.wanted,
                "served": found.served,
                "availability": found.availability,
                "back_in_s": math.inf if found.back_in_s is None else found.back_in_s,
                "outages": found.outages,
                "longest_silence_s": found.longest_silence_s,
            }
        rows.append(row)
    table = pd.DataFrame(rows, columns=FAULT_COLUMNS)
    # Where nothing was healed, None would stay None.
    seconds_of = [name for name in FAULT_COLUMNS if name.endswith("_s")]
    return table.astype(dict.fromkeys(seconds_of, float))


def _verdicts_table(verdict: Verdict | None) -> pd.DataFrame:
    import pandas as pd

    columns = ["check", "model", "verdict", "algorithm", "operations", "seconds", "summary"]
    rows = [
        (c.name, c.model, c.verdict, c.algorithm, c.operations, c.seconds, c.summary)
        for c in (verdict.checks if verdict else [])
    ]
    return pd.DataFrame(rows, columns=columns)


def _nodes_table(records: Sequence[NodeRecord], origin_ns: int) -> pd.DataFrame:
    import pandas as pd

    columns = ["t_s", "node", "kind", "name", "role", "term", "leader", "details"]
    rows = [
        (
            (r.t_ns - origin_ns) / 1e9,
            r.node,
            r.kind,
            r.name,
            role_of(r),
            r.probe.get("term", r.details.get("term")),
            r.probe.get("leader"),
            json.dumps(r.details, default=str) if r.details else "",
        )
        for r in records
    ]
    return pd.DataFrame(rows, columns=columns)


_PEAK = "memory_peak_kb"
_GAUGES = frozenset(("links_down", "requests_open", _PEAK))
"""Node counters that are no sums over time."""


def _counted(records: Sequence[NodeRecord], begin_ns: int, end_ns: int) -> dict[str, int]:
    """What the nodes counted between two timestamps; of what they counted between two reports, the
    share that lies in between."""
    total: dict[str, float] = {}
    before: dict[str, NodeRecord] = {}
    for record in sorted(records, key=lambda each: each.t_ns):
        if not record.counters:
            continue
        then = before.get(record.node)
        before[record.node] = record
        if then is None or record.t_ns <= begin_ns or then.t_ns >= end_ns:
            continue
        within = min(record.t_ns, end_ns) - max(then.t_ns, begin_ns)
        share = within / max(1, record.t_ns - then.t_ns)
        # Less than before: the node was restarted and counts from 0.
        restarted = any(
            record.counters.get(name, 0) < value
            for name, value in then.counters.items()
            if name not in _GAUGES
        )
        for name, value in record.counters.items():
            if name not in _GAUGES:
                more = value - (0 if restarted else then.counters.get(name, 0))
                total[name] = total.get(name, 0) + share * more
    return {name: round(value) for name, value in total.items()}


def _peak_memory_kb(records: Sequence[NodeRecord], begin_ns: int) -> int | None:
    """The sum of the nodes' peaks; None if none told one."""
    peaks: dict[str, int] = {}
    for record in records:
        if record.t_ns >= begin_ns and (peak := record.counters.get(_PEAK)):
            peaks[record.node] = max(peak, peaks.get(record.node, 0))
    return sum(peaks.values()) or None


def role_of(record: NodeRecord) -> str | None:
    """The role in a record: of a status, or of an event ``become_<role>``."""
    if record.kind == "status":
        return record.probe.get("role")
    name = record.name or ""
    if name.startswith("become_"):
        return name.removeprefix("become_").replace("_", "-")
    return "stopped" if name in ("killed", "exited") else None


def _elections(records: Sequence[NodeRecord], origin_ns: int) -> int | None:
    """How many leaders were elected after the start of the load; None if no node ever led."""
    led = [r for r in records if role_of(r) == "leader"]
    if not led:
        return None
    return sum(r.kind == "event" and r.t_ns >= origin_ns for r in led)


def _lateness_ms(faults: Sequence[FaultRecord]) -> float | None:
    late = [(f.started_ns - f.planned_ns) / 1e6 for f in faults if f.started_ns is not None]
    return statistics.median(late) if late else None


def _summary(
    path: Path,
    manifest: Manifest,
    verdict: Verdict | None,
    measured: Availability,
    elections: int | None,
    missing: list[str],
) -> RunSummary:
    latencies = measured.latency_ms
    where = measured.windows
    fastest = where.get("during") or where.get("before")
    return RunSummary(
        experiment=manifest.experiment_name,
        protocol=manifest.protocol,
        target=manifest.target,
        seed=manifest.seed,
        folder=shown_path(path),
        claim=manifest.claim,
        verdict=verdict.verdict if verdict else "unknown",
        measured_model=verdict.measured_model if verdict else "unknown",
        throughput=measured.throughput,
        availability=measured.availability,
        recovery_s=measured.recovery_s,
        operations=measured.operations,
        converged=verdict.converged if verdict else None,
        latency_ms=latencies.during if "during" in measured.windows else latencies.before,
        latency_p10_ms=fastest.p10_ms if fastest else None,
        window_latency_ms=latencies,
        within_1s=measured.within_1s,
        service_s=measured.service_s,
        faults=measured.faults,
        cut_windows=measured.cut_windows,
        elections=elections,
        simulated=manifest.simulated,
        dropped=measured.dropped,
        stale_reads=_stale_reads(verdict),
        converged_s=_converged_s(verdict),
        counterexample=counterexample(verdict),
        reason=verdict.reason if verdict else "the run was not checked",
        setup=Setup(
            nodes=len(manifest.nodes),
            offered_per_s=manifest.offered_per_s,
            cores=_cores(manifest),
            broker=manifest.versions.get("broker"),
            system=manifest.versions.get(SYSTEM),
        ),
        missing=missing,
        lost_writes=_lost_writes(verdict),
    )


def _lost_writes(verdict: Verdict | None) -> int | None:
    for check in verdict.checks if verdict else []:
        if isinstance(check, ConvergenceCheck) and check.verdict != "unknown":
            return check.details.lost_writes
    return None


def _stale_reads(verdict: Verdict | None) -> StaleReads | None:
    """The staleness figures, if the checker ran, saw reads, and no operation is missing."""
    for check in verdict.checks if verdict else []:
        if isinstance(check, StalenessCheck) and check.verdict == "valid":
            found = check.details
            if found.share is not None:
                return StaleReads(
                    fraction=found.share,
                    median_s=found.age_s.p50 if found.age_s else None,
                    worst_s=found.age_s.max if found.age_s else None,
                )
    return None


def _converged_s(verdict: Verdict | None) -> float | None:
    for check in verdict.checks if verdict else []:
        if isinstance(check, ConvergenceCheck):
            return check.details.converged_within_s
    return None


def _cores(manifest: Manifest) -> int | None:
    for name in ("cores", "cpus", "cpu_count", "logical_cores"):
        value = manifest.hardware.get(name)
        if isinstance(value, int):
            return value
    return None
