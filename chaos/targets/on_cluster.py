"""The targets with real nodes: running an experiment on a cluster."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec

from bench.children import environment, python
from bench.load.losses import LOG, losses
from bench.paths import LOCUSTFILE
from bench.record.files import no_space
from bench.record.run_folder import NodeRecord, write_json
from chaos.clusters.attached import AttachedCluster
from chaos.clusters.containers.compose import ComposeCluster
from chaos.clusters.elsewhere import ElsewhereCluster, parse_endpoints
from chaos.clusters.live import RunningCluster
from chaos.clusters.local import LocalCluster
from chaos.clusters.monitor import MOST_RECORDED_BYTES
from chaos.systems.system import System
from chaos.targets.final_reads import final_reads
from chaos.targets.nemesis import Nemesis
from chaos.targets.run import CONVERGENCE_TIMEOUT_S, Run

LOAD_START_TIMEOUT_S = 30.0
KEPT_TAIL_S = 10.0
"""How long after its planned end the load may take to finish before the run counts as failed."""
LOAD_END_S = 5.0

Record: TypeAlias = Callable[[NodeRecord], None]
Owned = TypeVar("Owned", LocalCluster, ComposeCluster)


def local(run: Run, record: Record) -> LocalCluster:
    """The cluster of a run with the target local."""
    nodes = len(run.experiment.node_ids())
    run.progress.phase(f"start {nodes} nodes, a broker and {nodes * (nodes + 1)} links")
    return _owned(LocalCluster, run, record)


def compose(run: Run, record: Record) -> ComposeCluster:
    """The cluster of a run with the target compose."""
    run.progress.phase(f"take {len(run.experiment.node_ids())} containers")
    return _owned(ComposeCluster, run, record)


def attached(run: Run, record: Record) -> AttachedCluster | ElsewhereCluster:
    """The cluster of a run with the target attached."""
    run.progress.phase("attach to the cluster")
    if isinstance(run.subject, System):
        return ElsewhereCluster(
            run.system,
            parse_endpoints(run.endpoints, run.system),
            run.folder.path / "cluster",
            run.folder,
            record=record,
        )
    cluster = AttachedCluster(
        Path(os.environ.get("CAPBENCH_CLUSTER_FILE", "/clients/cluster.json")),
        Path(os.environ.get("CAPBENCH_RUNNER_LOGIN", "/runner/login.json")),
        record=record,
        seed=run.seed,
    )
    cluster.refuse(run.protocol.name, len(run.experiment.node_ids()))
    return cluster


def _owned(kind: type[Owned], run: Run, record: Record) -> Owned:
    return kind(
        run.protocol,
        run.experiment.node_ids(),
        run.folder.path / "cluster",
        cluster=f"run-{os.getpid()}-{time.time_ns() % 1_000_000}",
        parameters=run.parameters,
        record=record,
        seed=run.seed,
        recorded=run.folder.path,
    )


def conduct(run: Run, make: Callable[[Run, Record], RunningCluster]) -> str | None:
    """See `chaos.targets`. The cluster that ``make`` makes is stopped when this returns."""
    folder = run.folder
    lock = threading.Lock()

    def record(line: NodeRecord) -> None:
        with lock:
            folder.append_node(line)

    with make(run, record) as cluster:
        cluster.warm_up(run.workload)
        run.update_manifest(notes=list(cluster.notes), versions=_versions(cluster))
        failure = _load_and_faults(run, cluster)
        run.progress.phase("read every key at every node")
        if cluster.monitor.converged(run.left, CONVERGENCE_TIMEOUT_S) is None and failure is None:
            failure = "a node did not answer after the load"
        left_out = _left_out(cluster.monitor.unrecorded)
        run.update_manifest(notes=[*cluster.notes, *cluster.observed(), *left_out])
        failure = failure or cluster.disproved()
        workload = run.workload
        keys, kind = workload.key_names(), workload.kind
        final_reads(cluster.cluster_file, run.left, keys, folder, kind=kind)
        cluster.check()
    return failure


def _left_out(unrecorded: Mapping[str, int]) -> list[str]:
    """What a report must say of nodes that reported more than is recorded."""
    return [
        f"{node} reported over {MOST_RECORDED_BYTES >> 20} MB; the last {count} lines are missing"
        for node, count in sorted(unrecorded.items())
    ]


def _load_and_faults(run: Run, cluster: RunningCluster) -> str | None:
    """Load and nemesis side by side. Returns what went wrong, None if nothing did."""
    folder, workload, progress = run.folder, run.workload, run.progress
    client = "load-1"
    workload_path = folder.path / "workload.json"
    write_json(workload_path, workload)
    argv = [
        *python("locust"),
        *("-f", str(LOCUSTFILE), "--headless", "-u", "1"),
        *("--cluster-file", str(cluster.cluster_path)),
        *("--workload", str(workload_path.resolve())),
        *("--run-folder", str(folder.path.resolve()), "--client-name", client),
    ]
    progress.phase("start the load")
    locust = cluster.processes.spawn(
        "locust",
        argv,
        stdout_path=folder.path / LOG,
        # Its timers: epoll rounds to 1 ms, select does not.
        env=environment(GEVENT_BACKEND="select"),
        # Locust takes settings from its working folder: there are none in ours.
        cwd=folder.path,
    )
    started = folder.load_dir / f"{client}.started"
    if (
        not cluster.monitor.wait(
            lambda: started.exists() or locust.poll() is not None, LOAD_START_TIMEOUT_S
        )
        or not started.exists()
    ):
        return f"the load did not start; its log is {folder.path / LOG}"
    start_ns = int(msgspec.json.decode(started.read_bytes())["started_ns"])
    duration_s = workload.duration_s
    run.load_started(start_ns)
    progress.phase(f"load for {duration_s:.0f} s")
    cluster.monitor.announce([])
    nemesis = Nemesis(
        run.experiment.plan(),
        cluster,
        folder,
        seed=run.seed,
        on_fault=lambda _: cluster.monitor.announce(nemesis.on),
    )
    with nemesis, _ended_first(cluster):
        nemesis.start(start_ns)
        deadline = start_ns + int((duration_s + workload.timeout_s + KEPT_TAIL_S) * 1e9)
        while locust.poll() is None:
            now_ns = time.monotonic_ns()
            progress.tick(min(duration_s, (now_ns - start_ns) / 1e9), duration_s)
            if now_ns > deadline:
                return f"the load did not end in time; its log is {folder.path / LOG}"
            cluster.check()
            cluster.monitor.wait(lambda: locust.poll() is not None, 0.25)
    cluster.notes += nemesis.late
    if nemesis.failed:
        return f"a fault failed: {'; '.join(nemesis.errors)}"
    # Locust exits with 1 if operations failed, which is what we measure under faults.
    failures = losses(folder)
    if locust.returncode not in (0, 1) and not failures:
        failures = [f"the load ended with code {locust.returncode}; its log: {folder.path / LOG}"]
    return f"{'; '.join(failures)}{no_space(folder.path)}" if failures else None


@contextlib.contextmanager
def _ended_first(cluster: RunningCluster) -> Iterator[None]:
    """Whatever ends a run, the load ends first: that nodes are stopped then is no outage of the
    run's."""
    try:
        yield
    except BaseException:
        if cluster.processes.signal("locust", signal.SIGTERM):
            cluster.monitor.wait(lambda: not cluster.processes.running("locust"), LOAD_END_S)
        raise


def _versions(cluster: RunningCluster) -> dict[str, str]:
    versions = {"python": platform.python_version(), "toxiproxy": cluster.toxiproxy.version()}
    for package in ("aiomqtt", "paho-mqtt", "locust", "msgspec", "uvloop", "pandas"):
        versions[package] = metadata.version(package)
    return {**versions, **cluster.versions()}
