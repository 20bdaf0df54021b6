"""From a run folder to tidy pandas tables, and to the figures of a run.

Times in the tables are seconds after the load began (``_s``; before that they are negative),
latencies are milliseconds from the *intended* send time, so that a stall counts for every operation
that it held up. pandas is imported when a table is built: the console command starts without it.

Availability, phases and sides are those of `bench.checkers.availability`: computed once.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from bench.checkers.availability import (
    FINAL_PROCESS_PREFIX,
    Windows,
    check_availability,
    sides,
    windows,
)
from bench.checkers.witness import shown
from bench.files import shown as shown_path
from bench.history import BadHistory, OperationRecord, read_history
from bench.run_folder import (
    SCHEMA_VERSION,
    BadRunFolder,
    FaultRecord,
    LoadSummary,
    Manifest,
    NodeRecord,
    RunFolder,
    Verdict,
)
from reports import objectives
from reports.plan import plan_of
from reports.summary import (
    Availability,
    Latency,
    Operations,
    Phases,
    RunSummary,
    Setup,
    StaleReads,
    counterexample,
    cut,
)

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
WINDOW_COLUMNS = [
    "phase",
    "side",
    "seconds",
    "ok",
    "total",
    "straddlers",
    "dropped",
    "availability",
    "ok_per_s",
    "latency_ms_p50",
    "latency_ms_p99",
]


@dataclass(frozen=True)
class RunTables:
    """A run as tidy tables. Seconds count from the begin of the load.

    ``operations``, one row per operation of the load (final reads are left out): process, id, op,
    key, node, outcome (ok / fail / info), error, value (as text, cut if long), intended_s,
    invoked_s, completed_s, latency_ms, phase (before / during / after / None: between them),
    straddles (in flight when its phase was over), overdue (open for too long when its phase was
    over: not served in it, whatever came later), side (majority / minority / None: by the
    partition that was on, or was last, or comes first).

    ``faults``: number, fault, label, nodes, planned_s, applied_s, heal_started_s, healed_s, error.

    ``windows``, one row per phase and side, as `bench.checkers.availability` counts them: phase,
    side (all / majority / minority), seconds, ok, total, straddlers, dropped, availability (0..1),
    ok_per_s, latency_ms_p50, latency_ms_p99 (of ok operations).

    ``verdicts``, one row per checker: check, model, verdict, algorithm, operations, seconds,
    summary.

    ``nodes``, one row per record: t_s, node, kind (status / event), name, role, term, leader,
    details (JSON text).

    ``counters``: name -> what all nodes together counted during the load (messages, syncs, bytes;
    see `nodes.runtime.driver`); a node that was restarted counts from 0 again, which is seen.

    ``origin_ns``: the stamp of second 0 (the load began). ``end_s``: when the load ended, or the
    last operation was wanted. ``dropped_s``: when the operations were wanted that were not sent.
    ``missing``: what the folder lacks or what could not be read, in sentences.
    """

    folder: Path
    manifest: Manifest
    verdict: Verdict | None
    operations: pd.DataFrame
    faults: pd.DataFrame
    windows: pd.DataFrame
    verdicts: pd.DataFrame
    nodes: pd.DataFrame
    summary: RunSummary
    counters: dict[str, int]
    origin_ns: int
    end_s: float
    dropped_s: list[float]
    missing: list[str]

    def seconds(self, stamp_ns: int) -> float:
        """A stamp of the run as seconds after the load began."""
        return (stamp_ns - self.origin_ns) / 1e9


def summarise(folder: RunFolder) -> RunSummary:
    """The figures of a run. Raises BadRunFolder if it has no manifest that can be read."""
    return load(folder.path).summary


def load(path: Path) -> RunTables:
    """The tables of the run in ``path``. Raises BadRunFolder if it has no manifest that can be
    read; anything else that is missing or broken is named in `RunTables.missing`."""
    folder = RunFolder(path)
    manifest = folder.manifest()
    missing: list[str] = []
    if manifest.schema_version != SCHEMA_VERSION:
        missing.append(
            f"the folder has schema version {manifest.schema_version}, this capbench reads "
            f"{SCHEMA_VERSION}: figures may be missing"
        )
    if not manifest.complete:
        missing.append("the run was cut short: it did not come to its planned end")
    records = _read_load(folder, missing)
    if not records:
        missing.append("no operations: the load left no history")
    verdict = _or_else(None, folder.verdict, missing)
    if verdict is None:
        missing.append("no verdict: the run was not checked; `capbench check` does it")
    faults: list[FaultRecord] = _or_else([], folder.faults, missing)
    loads: list[LoadSummary] = _or_else([], folder.loads, missing)
    node_records: list[NodeRecord] = _or_else([], folder.node_records, missing)
    if not node_records:
        missing.append("nothing from the nodes: no roles, no elections")
    cut_short: bool = _or_else(False, folder.cut_short, missing)
    if records and cut_short:
        missing.append(
            "a client process left no summary: operations that were open when it ended are missing"
        )
    missing += [
        f"fault {fault.number} ({fault.fault}): {fault.error}" for fault in faults if fault.error
    ]
    origin_ns = _origin(manifest, records, faults)
    operations = _operations_table(records, origin_ns)
    end_s = _end(manifest, operations, origin_ns)
    last_ns = max((_intended(record) for record in records), default=0)
    spans = windows(manifest, faults, last_ns)
    _place(operations, manifest, faults, spans, origin_ns)
    measured = check_availability(manifest, records, faults, loads).details
    table = _windows_table(operations, measured)
    elections = _elections(node_records, origin_ns)
    summary = _summary(path, manifest, verdict, measured, table, elections, missing)
    summary.fault_lateness_ms = _lateness_ms(faults)
    summary.plan = plan_of(manifest)
    asked = objectives.of_experiment(manifest.experiment)
    summary.objectives = objectives.results(asked, msgspec.to_builtins(summary))
    return RunTables(
        folder=path,
        manifest=manifest,
        verdict=verdict,
        operations=operations,
        faults=_faults_table(faults, origin_ns),
        windows=table,
        verdicts=_verdicts_table(verdict),
        nodes=_nodes_table(node_records, origin_ns),
        summary=summary,
        counters=_counted(node_records, origin_ns, origin_ns + int(end_s * 1e9)),
        origin_ns=origin_ns,
        end_s=end_s,
        dropped_s=[(t - origin_ns) / 1e9 for load in loads for t in load.dropped_intended_ns],
        missing=missing,
    )


def fault_label(fault: FaultRecord) -> str:
    """A fault in a few words: ``partition n1 | n2 n3``, ``latency latency_ms=50``."""
    if fault.groups:
        return f"{fault.fault} {' | '.join(' '.join(group) for group in fault.groups)}"
    words = [f"{name}={value}" for name, value in fault.parameters.items()]
    if fault.nodes and not fault.links:
        words.append(" ".join(fault.nodes))
    return " ".join([fault.fault, *words])


def _or_else(default: T, read: Callable[[], T], missing: list[str]) -> T:
    try:
        return read()
    except (BadRunFolder, BadHistory) as error:
        missing.append(str(error))
        return default


def _read_load(folder: RunFolder, missing: list[str]) -> list[OperationRecord]:
    """The operations of the load; a broken file is left out from the broken line on."""
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


def _intended(record: OperationRecord) -> int:
    return record.invoked_ns if record.intended_ns is None else record.intended_ns


def _origin(
    manifest: Manifest, records: Sequence[OperationRecord], faults: Sequence[FaultRecord]
) -> int:
    if manifest.load_started_ns is not None:
        return manifest.load_started_ns
    if records:
        return min(_intended(record) for record in records)
    return min((fault.planned_ns for fault in faults), default=0)


def _end(manifest: Manifest, operations: pd.DataFrame, origin_ns: int) -> float:
    if manifest.load_ended_ns is not None:
        return (manifest.load_ended_ns - origin_ns) / 1e9
    return float(operations["intended_s"].max()) if len(operations) else 1.0


def _operations_table(records: Sequence[OperationRecord], origin_ns: int) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    def stamps(values: list[int]) -> Any:
        return (np.array(values, dtype=np.int64) - origin_ns) / 1e9

    open_ns = -1
    intended_s = stamps([_intended(r) for r in records])
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


def _place(
    operations: pd.DataFrame,
    manifest: Manifest,
    faults: Sequence[FaultRecord],
    spans: Windows | None,
    origin_ns: int,
) -> None:
    """Add the columns ``phase``, ``straddles``, ``overdue`` and ``side``, by the intended time."""
    import numpy as np
    import pandas as pd

    intended_s = operations["intended_s"].to_numpy()
    completed_s = operations["completed_s"].to_numpy()
    phase = np.full(len(operations), None, dtype=object)
    late = np.zeros(len(operations), dtype=bool)
    left_s = np.full(len(operations), np.nan)
    side = np.full(len(operations), None, dtype=object)
    if spans is not None:
        named = [("before", spans.before), *(("during", window) for window in spans.during)]
        for name, window in [*named, *([("after", spans.after)] if spans.after else [])]:
            start_s, stop_s = ((t - origin_ns) / 1e9 for t in (window.start_ns, window.end_ns))
            here = (intended_s >= start_s) & (intended_s < stop_s)
            phase[here] = name
            late |= here & window.changes_at_end & (completed_s > stop_s)
            left_s[here] = stop_s - intended_s[here]
    node = operations["node"].astype(object).to_numpy()
    begins_s = -math.inf
    for fault in faults:
        groups = sides(manifest, fault)
        if groups is None or fault.applied_ns is None:
            continue
        majority, minority = groups
        here = intended_s >= begins_s
        side[here & np.isin(node, np.array(majority or [], dtype=object))] = "majority"
        side[here & np.isin(node, np.array(minority, dtype=object))] = "minority"
        begins_s = (fault.applied_ns - origin_ns) / 1e9
    operations["phase"] = pd.Categorical(phase, ["before", "during", "after"])
    # As `bench.checkers.availability` has it: in flight at the end of the phase, or overdue.
    straddles = np.zeros(len(operations), dtype=bool)
    answered = (operations["outcome"] == "ok").to_numpy() & ~late
    for name in ("before", "during", "after"):
        for of in ("majority", "minority", None):
            here = (phase == name) & (side == of)
            took_s = (completed_s - intended_s)[here & answered]
            usual_s = float(np.quantile(took_s, 0.99)) if len(took_s) else 0.0
            straddles |= here & late & (left_s <= usual_s)
    operations["straddles"] = straddles
    operations["overdue"] = late & ~straddles
    operations["side"] = pd.Categorical(side, ["majority", "minority"])


def _windows_table(operations: pd.DataFrame, measured: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for name, counts in measured["windows"].items():
        side = name if name in ("majority", "minority") else "all"
        phase = name if side == "all" else "during"
        inside = operations[operations["phase"] == phase]
        if side != "all":
            inside = inside[inside["side"] == side]
        done = inside.loc[inside["outcome"] == "ok", "latency_ms"].dropna()
        rows.append(
            {
                "phase": phase,
                "side": side,
                **{key: counts[key] for key in ("seconds", "ok", "total", "straddlers", "dropped")},
                "availability": measured["availability"][name],
                "ok_per_s": counts["ok"] / counts["seconds"] if counts["seconds"] else None,
                "latency_ms_p50": float(done.quantile(0.5)) if len(done) else None,
                "latency_ms_p99": float(done.quantile(0.99)) if len(done) else None,
            }
        )
    return pd.DataFrame(rows, columns=WINDOW_COLUMNS)


def _faults_table(faults: Sequence[FaultRecord], origin_ns: int) -> pd.DataFrame:
    import pandas as pd

    def seconds(stamp_ns: int | None) -> float | None:
        return None if stamp_ns is None else (stamp_ns - origin_ns) / 1e9

    return pd.DataFrame(
        [
            {
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
            for f in faults
        ],
        columns=[
            "number",
            "fault",
            "label",
            "nodes",
            "planned_s",
            "applied_s",
            "heal_started_s",
            "healed_s",
            "error",
        ],
    )


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


_GAUGES = frozenset(("links_down", "requests_open"))
"""Counters of nodes that go up and down."""


def _counted(records: Sequence[NodeRecord], begin_ns: int, end_ns: int) -> dict[str, int]:
    """What the nodes counted between two stamps."""
    total: dict[str, int] = {}
    before: dict[str, dict[str, int]] = {}
    for record in sorted(records, key=lambda each: each.t_ns):
        if not record.counters or record.t_ns > end_ns:
            continue
        then = before.get(record.node)
        before[record.node] = record.counters
        if then is None or record.t_ns < begin_ns:
            continue
        # Less than before: it was restarted, and counts from 0.
        restarted = any(
            record.counters.get(name, 0) < value
            for name, value in then.items()
            if name not in _GAUGES
        )
        for name, value in record.counters.items():
            if name not in _GAUGES:
                total[name] = total.get(name, 0) + value - (0 if restarted else then.get(name, 0))
    return total


def role_of(record: NodeRecord) -> str | None:
    """The role that a record tells of: by its status, or by an event ``become_<role>``."""
    if record.kind == "status":
        return record.probe.get("role")
    name = record.name or ""
    if name.startswith("become_"):
        return name.removeprefix("become_").replace("_", "-")
    return "stopped" if name in ("killed", "exited") else None


def _elections(records: Sequence[NodeRecord], origin_ns: int) -> int | None:
    """Leaders that came up after the load began; None where no node ever led."""
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
    measured: dict[str, Any],
    table: pd.DataFrame,
    elections: int | None,
    missing: list[str],
) -> RunSummary:
    phases = list(table.loc[table["side"] == "all", "phase"])
    phase = "during" if "during" in phases else "before"
    row = table[(table["side"] == "all") & (table["phase"] == phase)]
    p50, p99 = (
        None if row[name].isna().all() else float(row[name].iloc[0])
        for name in ("latency_ms_p50", "latency_ms_p99")
    )
    return RunSummary(
        experiment=manifest.experiment_name,
        protocol=manifest.protocol,
        target=manifest.target,
        seed=manifest.seed,
        folder=shown_path(path),
        claim=manifest.claim,
        verdict=verdict.verdict if verdict else "unknown",
        measured_model=verdict.measured_model if verdict else "unknown",
        throughput=Phases(**measured["throughput"]),
        availability=Availability(**measured["availability"]),
        recovery_s=measured["recovery_s"],
        operations=Operations(**measured["operations"]),
        converged=verdict.converged if verdict else None,
        latency_ms=Latency(p50=p50, p99=p99),
        elections=elections,
        simulated=manifest.simulated,
        dropped=measured["dropped"],
        stale_reads=_stale_reads(verdict),
        converged_s=_converged_s(verdict),
        counterexample=counterexample(verdict),
        reason=verdict.reason if verdict else "the run was not checked",
        setup=Setup(
            nodes=len(manifest.nodes),
            offered_per_s=manifest.offered_per_s,
            cores=_cores(manifest),
            broker=manifest.versions.get("broker"),
        ),
        missing=missing,
    )


def _stale_reads(verdict: Verdict | None) -> StaleReads | None:
    """From the staleness checker, if it ran and there were reads."""
    for check in verdict.checks if verdict else []:
        if check.name == "staleness" and check.details.get("share") is not None:
            age_s = check.details.get("age_s") or {}
            return StaleReads(
                fraction=check.details["share"],
                median_s=age_s.get("p50"),
                worst_s=age_s.get("max"),
            )
    return None


def _converged_s(verdict: Verdict | None) -> float | None:
    for check in verdict.checks if verdict else []:
        if check.name == "convergence":
            return check.details.get("converged_within_s")
    return None


def _cores(manifest: Manifest) -> int | None:
    for name in ("cores", "cpus", "cpu_count", "logical_cores"):
        value = manifest.hardware.get(name)
        if isinstance(value, int):
            return value
    return None
