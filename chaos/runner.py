"""One run: set up -> load -> faults -> heal -> final reads -> check -> report.

Everything that is observed goes into the run folder as it happens, so that a run that is cut short
leaves what it had, and checking and reporting work from the folder alone.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import msgspec

from bench.checkers import check_run
from bench.run_folder import Manifest, NodeRecord, RunFolder, Verdict
from bench.workload import Workload
from chaos.broker import find_mosquitto
from chaos.experiment import Experiment
from chaos.final_reads import final_reads
from chaos.nemesis import Nemesis
from chaos.targets.local import LocalCluster, TargetFailed
from nodes.registry import Protocol as ReplicationProtocol

ROOT = Path(__file__).resolve().parent.parent
LOAD_START_TIMEOUT_S = 30.0
CONVERGENCE_TIMEOUT_S = 15.0
KEPT_TAIL_S = 10.0
"""How long after its planned end the load may take to finish before the run counts as failed."""


class Preset(msgspec.Struct, frozen=True):
    """What a comparison runs: every protocol in every experiment."""

    protocols: tuple[str, ...]
    experiments: tuple[str, ...]


PRESETS = {
    "quick": Preset(("raft", "gossip"), ("healthy", "leader-partition", "latency-50ms")),
}


class Progress(Protocol):
    """Who is told how far a run is."""

    def phase(self, text: str) -> None:
        """A new part of the run has begun."""

    def tick(self, done_s: float, total_s: float) -> None:
        """So much of the load is done."""


class RunResult(msgspec.Struct, frozen=True):
    """How a run ended. ``failure``: what went wrong with the infrastructure or a fault, one line;
    the verdict then covers what was recorded until then (None if nothing was)."""

    folder: Path
    verdict: Verdict | None
    failure: str | None = None
    interrupted: bool = False


def run_experiment(
    experiment: Experiment,
    protocol: ReplicationProtocol,
    *,
    folder_path: Path,
    seed: int,
    parameters: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
    progress: Progress,
) -> RunResult:
    """Run ``experiment`` on ``protocol`` on this machine, and judge it.

    Raises InvalidConfiguration before anything is started. Whatever happens later is in the result.
    """
    ids = experiment.node_ids()
    workload = experiment.workload(seed=seed)
    folder = RunFolder.create(
        folder_path,
        make_manifest(experiment, protocol, ids, seed, workload, parameters or {}, command),
    )
    lock = threading.Lock()

    def record(line: NodeRecord) -> None:
        with lock:
            folder.append_node(line)

    failure: str | None = None
    interrupted = False
    cluster = LocalCluster(
        protocol,
        ids,
        folder.path / "cluster",
        cluster=f"run-{os.getpid()}-{time.time_ns() % 1_000_000}",
        parameters=parameters,
        record=record,
        seed=seed,
    )
    try:
        progress.phase(f"start {len(ids)} nodes, a broker and {len(ids) * (len(ids) + 1)} links")
        with cluster:
            _update(folder, notes=list(cluster.notes), versions=_versions(cluster))
            failure = _load_and_faults(experiment, workload, cluster, folder, seed, progress)
            progress.phase("read every key at every node")
            converged = cluster.monitor.converged(ids, CONVERGENCE_TIMEOUT_S)
            if converged is None and failure is None:
                failure = "a node did not answer after the load"
            keys = [f"k{number}" for number in range(workload.keys)]
            final_reads(cluster.cluster_file, keys, folder)
            cluster.check()
            _update(folder, complete=failure is None)
        cluster.discard_data()
    except TargetFailed as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure, interrupted = "interrupted: what was recorded until then is kept", True
    if failure is not None:
        _note(folder, failure)
    progress.phase("check")
    verdict = judge(folder)
    return RunResult(folder.path, verdict, failure, interrupted)


def _load_and_faults(
    experiment: Experiment,
    workload: Workload,
    cluster: LocalCluster,
    folder: RunFolder,
    seed: int,
    progress: Progress,
) -> str | None:
    """Load and nemesis side by side. Returns what went wrong, None if nothing did."""
    client = "load-1"
    workload_path = folder.path / "workload.json"
    workload_path.write_bytes(msgspec.json.format(msgspec.json.encode(workload), indent=2))
    argv = [
        sys.executable,
        "-m",
        "locust",
        *("-f", str(ROOT / "bench" / "locustfile.py"), "--headless", "-u", "1"),
        *("--cluster-file", str(cluster.cluster_path)),
        *("--workload", str(workload_path)),
        *("--run-folder", str(folder.path), "--client-name", client),
    ]
    progress.phase("start the load")
    # Its timers: epoll rounds to 1 ms, select does not.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GEVENT_BACKEND": "select"}
    locust = cluster.processes.spawn(
        "locust", argv, stdout_path=folder.path / "locust.log", env=env
    )
    started = folder.load_dir / f"{client}.started"
    if (
        not cluster.monitor.wait(
            lambda: started.exists() or locust.poll() is not None, LOAD_START_TIMEOUT_S
        )
        or not started.exists()
    ):
        return f"the load did not start; its log is {folder.path / 'locust.log'}"
    start_ns = int(msgspec.json.decode(started.read_bytes())["started_ns"])
    duration_s = workload.duration_s
    _update(folder, load_started_ns=start_ns, load_ended_ns=start_ns + int(duration_s * 1e9))
    progress.phase(f"load for {duration_s:.0f} s")
    with Nemesis(experiment.plan(), cluster, folder, seed=seed) as nemesis:
        nemesis.start(start_ns)
        deadline = start_ns + int((duration_s + workload.timeout_s + KEPT_TAIL_S) * 1e9)
        while locust.poll() is None:
            now_ns = time.monotonic_ns()
            progress.tick(min(duration_s, (now_ns - start_ns) / 1e9), duration_s)
            if now_ns > deadline:
                return f"the load did not end in time; its log is {folder.path / 'locust.log'}"
            cluster.check()
            cluster.monitor.wait(lambda: locust.poll() is not None, 0.25)
    if nemesis.failed:
        return f"a fault failed: {'; '.join(nemesis.errors)}"
    # Locust exits with 1 when operations failed, which under faults is what is being measured.
    if locust.returncode not in (0, 1):
        return (
            f"the load ended with code {locust.returncode}; its log: {folder.path / 'locust.log'}"
        )
    return None


def judge(folder: RunFolder) -> Verdict:
    """Check what lies in the folder, and write the verdict there."""
    verdict = check_run(folder)
    folder.write_verdict(verdict)
    return verdict


# --- the manifest ---


def make_manifest(
    experiment: Experiment,
    protocol: ReplicationProtocol,
    nodes: Sequence[str],
    seed: int,
    workload: Workload,
    parameters: Mapping[str, Any],
    command: Sequence[str],
) -> Manifest:
    """What is known before the run."""
    return Manifest(
        capbench_version=metadata.version("capbench"),
        commit=_commit(),
        experiment_name=experiment.name,
        experiment=experiment.as_data(),
        protocol=protocol.name,
        claim=protocol.claim,
        operations=list(protocol.operations),
        parameters=dict(parameters),
        nodes=list(nodes),
        target="local",
        seed=seed,
        started_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=list(command),
        hardware=_hardware(),
        offered_per_s=workload.rate_per_s,
    )


def _hardware() -> dict[str, Any]:
    import psutil

    return {
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _versions(cluster: LocalCluster) -> dict[str, str]:
    versions = {"python": platform.python_version(), "toxiproxy": cluster.toxiproxy.version()}
    for package in ("aiomqtt", "paho-mqtt", "locust", "msgspec", "uvloop", "pandas"):
        versions[package] = metadata.version(package)
    mosquitto = find_mosquitto()
    if mosquitto is not None:
        # Mosquitto prints its version as the first line of its help, and exits with 3.
        said = subprocess.run([mosquitto, "-h"], capture_output=True, text=True, check=False)
        versions["broker"] = said.stdout.splitlines()[0] if said.stdout else "mosquitto"
    else:
        versions["broker"] = f"amqtt {metadata.version('amqtt')} (embedded)"
    return versions


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


def _update(folder: RunFolder, **changes: Any) -> None:
    folder.write_manifest(msgspec.structs.replace(folder.manifest(), **changes))


def _note(folder: RunFolder, text: str) -> None:
    manifest = folder.manifest()
    _update(folder, notes=[*manifest.notes, text])
