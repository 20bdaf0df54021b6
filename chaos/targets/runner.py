"""One run: set up -> load -> faults -> heal -> final reads -> check -> report.

All observations go into the run folder as they happen, so that a run that is cut short leaves what
it had, and checks and reports need only the folder.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from bench.checkers import check_run
from bench.load.workload import Workload
from bench.paths import ROOT
from bench.record.run_folder import Manifest, RunFolder
from bench.record.verdict import Verdict
from chaos.clusters.capabilities import TargetName
from chaos.experiments.experiment import Experiment
from chaos.interrupted import Interrupted, by_what, recorded, was_ended
from chaos.targets import final_reads
from chaos.targets.replay import keep_messages
from chaos.targets.run import Progress, Run
from chaos.targets.subjects import Subject, claimed, findable, offered
from chaos.targets.table import TARGETS, refuse_kind, refuse_unsupported
from nodes.errors import InfrastructureFailed

"""All targets."""


class Preset(msgspec.Struct, frozen=True):
    """What a comparison runs: every protocol in every experiment. Empty: all of them."""

    protocols: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()


PRESETS = {
    "quick": Preset(("raft", "gossip"), ("healthy", "leader-partition", "latency-50ms")),
    "full": Preset(),
    "systems": Preset(
        (
            *("raft", "quorum", "etcd", "etcd-serializable"),
            *("redis-sentinel", "redis-sentinel-wait", "zookeeper", "zookeeper-sync", "nats-kv"),
            "postgres",
        ),
        ("acknowledged-writes", "leader-partition"),
    ),
}


class RunResult(msgspec.Struct, frozen=True):
    """How a run ended. ``failure``: what went wrong with the infrastructure or a fault, one line;
    the verdict then covers what was recorded until then (None if nothing was)."""

    folder: Path
    verdict: Verdict | None
    failure: str | None = None
    interrupted: bool = False


def run_experiment(
    experiment: Experiment,
    protocol: Subject,
    *,
    folder_path: Path,
    seed: int,
    parameters: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
    progress: Progress,
    target: TargetName = "local",
    endpoints: str = "",
) -> RunResult:
    """Run ``experiment`` on ``protocol``, or a system, at ``target``, and judge it. ``endpoints``:
    of a system that runs elsewhere (target attached).

    Raises InvalidConfiguration and Unsupported before anything is started. Whatever happens later
    is in the result, except SystemExit (`chaos.interrupted.signals_as_exit`), and Interrupted if
    nobody would wait until it was healed and checked.
    """
    ids = experiment.node_ids()
    parameters = {**experiment.parameters, **(parameters or {})}
    refuse_unsupported(experiment, target, protocol)
    refuse_kind(experiment.load.kind, protocol.name, offered(protocol))
    for node in ids:
        protocol.configure(node, ids, parameters)
    workload = experiment.workload(seed=seed)
    folder = RunFolder.create(
        folder_path,
        make_manifest(experiment, protocol, target, seed, workload, parameters, command, endpoints),
    )
    run = Run(experiment, protocol, workload, folder, seed, parameters, progress, endpoints)
    failure: str | None = None
    interrupted = False
    try:
        failure = TARGETS[target].conduct(run)
        loads = [load for load in folder.loads() if load.client != final_reads.NAME]
        if failure is None and not any(load.invoked for load in loads):
            failure = "the history has no operations: the load invoked none"
        run.update_manifest(complete=failure is None)
    except InfrastructureFailed as error:
        failure = str(error)
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt.__context__, KeyboardInterrupt):
            # The second one, while we were healing after the first.
            what = f"{experiment.name} {protocol.name}, stopped at once"
            then = f"check it: capbench check {folder.path}"
            raise Interrupted(what, recorded(folder.path), then) from None
        failure, interrupted = f"{by_what()}: what was recorded so far is kept", True
    except SystemExit as end:
        if was_ended(end):
            _cut_short(run, by_what())
        raise
    if failure is not None:
        _cut_short(run, failure)
    progress.phase("check")
    verdict = judge(folder)
    if target == "sim" and failure is None:
        keep_messages(run, verdict)
    return RunResult(folder.path, verdict, failure, interrupted)


def _cut_short(run: Run, why: str) -> None:
    run.update_manifest(cut_short_by=why, notes=[*run.folder.manifest().notes, why])


def judge(folder: RunFolder) -> Verdict:
    """Check the run in the folder, and write its verdict there."""
    verdict = check_run(folder)
    folder.write_verdict(verdict)
    return verdict


# --- the manifest ---


def make_manifest(
    experiment: Experiment,
    protocol: Subject,
    target: TargetName,
    seed: int,
    workload: Workload,
    parameters: Mapping[str, Any],
    command: Sequence[str],
    endpoints: str = "",
) -> Manifest:
    """What is known before the run."""
    return Manifest(
        **describe_machine(),
        experiment_name=experiment.name,
        experiment=experiment.as_data(),
        protocol=protocol.name,
        found_by=findable(protocol),
        endpoints=endpoints,
        claim=claimed(protocol, workload.kind),
        kind=workload.kind,
        operations=offered(protocol),
        parameters=dict(parameters),
        nodes=list(experiment.node_ids()),
        target=target,
        simulated=target == "sim",
        seed=seed,
        command=list(command),
        offered_per_s=workload.rate_per_s,
    )


def describe_machine() -> dict[str, Any]:
    """The fields of a `Manifest` that describe the machine, and when the run began."""
    return {
        "capbench_version": metadata.version("capbench"),
        "commit": _commit(),
        "started_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": _hardware(),
    }


def _hardware() -> dict[str, Any]:
    import psutil

    return {
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _commit() -> str | None:
    if not (ROOT / ".git").exists():
        return None
    try:
        said = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None
