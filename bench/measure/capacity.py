"""How many requests per second one Locust process sends, and what recording them costs.

The nodes only echo (`bench.measure.echo_node`), so this measures the load generator as a user
starts it: Locust with `bench/load/locustfile.py`, as fast as the answers allow. Rates are per
second of the Locust process's own CPU time, since broker and nodes share its machine. Rounds with
and without a history alternate, and the median round counts.

Requests to one node in the same turn of the event loop leave as one PUBLISH. With many users turns
are long and requests cheap; one request at a time costs most.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from bench.children import environment, python
from bench.load.workload import Workload
from bench.measure.figures import figure
from bench.measure.live import LoadFailed, live_cluster
from bench.measure.measuring import SCALE, scaled
from bench.paths import ROOT
from bench.record.cluster_file import ClusterFile, write_cluster_file
from bench.record.run_folder import write_json
from nodes.runtime.scratch import scratch

GOAL_PER_CPU_S = 8000
COST_OF_RECORDING = 0.1
"""The goal: at most this share of the rate without a history."""

USERS = 256
IN_FLIGHT = 10_000
"""High enough that an open loop drops nothing."""

SECONDS = 2.0
ROUNDS = 5
_TIMEOUT_S = 60.0


class Driven(msgspec.Struct, frozen=True, kw_only=True):
    """What one Locust process did from the start of its load until everything was recorded:
    operations that ended, how many of them are in the history (0: there is none) and how many did
    not end ok; seconds, and CPU seconds of the process."""

    operations: int
    recorded: int = 0
    failures: int
    seconds: float
    cpu_s: float


def rows() -> list[dict[str, Any]]:
    """The figures, see `bench.measure.figures`. Raises NoCluster, LoadFailed."""
    recorded, unrecorded, one, open_loop = [], [], [], []
    with _echo_cluster() as cluster:
        for _ in range(scaled(ROUNDS)):
            unrecorded.append(drive(cluster, record=False))
            recorded.append(drive(cluster))
        for _ in range(scaled(ROUNDS // 2)):
            one.append(drive(cluster, users=1))
            open_loop.append(drive(cluster, users=1, rate_per_s=GOAL_PER_CPU_S))
    name, unit = "load: one Locust process", "requests/CPU s"
    value, base = _per_cpu_s(recorded), _per_cpu_s(unrecorded)
    wall = statistics.median(each.operations / each.seconds for each in recorded)
    return [
        figure(name, value, unit, goal=GOAL_PER_CPU_S),
        figure(f"{name}, beside broker and nodes", wall, "requests/s"),
        figure(f"{name}, not recorded", base, unit),
        figure(
            f"{name}, of what it drives not recorded",
            value,
            unit,
            compared_with=f"{name}, not recorded",
            goal=(1 - COST_OF_RECORDING) * base,
        ),
        figure(f"{name}, one request at a time", _per_cpu_s(one), unit, compared_with=name),
        figure(
            f"{name}, open loop at {GOAL_PER_CPU_S:,}/s",
            _per_cpu_s(open_loop),
            unit,
            compared_with=name,
            goal=GOAL_PER_CPU_S,
        ),
    ]


def _per_cpu_s(rounds: list[Driven]) -> float:
    return statistics.median(each.operations / each.cpu_s for each in rounds)


@contextmanager
def _echo_cluster() -> Iterator[ClusterFile]:
    """Three echo nodes behind the broker of an otherwise idle cluster."""
    with live_cluster("quorum", nodes=1) as live:
        broker, nodes = live.cluster.broker, ["n1", "n2", "n3"]
        cluster = msgspec.structs.replace(
            live.cluster,
            cluster="echo",
            protocol="echo",
            nodes=nodes,
            request_links=dict.fromkeys(nodes, broker),
        )
        command = [*python("bench.measure.echo_node"), "--cluster", cluster.cluster]
        command += ["--port", str(broker.port), "--nodes", ",".join(nodes)]
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as echo:
            try:
                assert echo.stdout is not None
                if echo.stdout.readline() != b"ready\n":
                    raise LoadFailed("the echo node did not start")
                yield cluster
            finally:
                echo.kill()


def drive(
    cluster: ClusterFile,
    *,
    users: int = USERS,
    rate_per_s: float | None = None,
    record: bool = True,
) -> Driven:
    """Let one Locust process send at this rate (None: as fast as answers allow). Raises
    LoadFailed."""
    workload = Workload(
        rate_per_s=rate_per_s,
        in_flight=IN_FLIGHT,
        mix={"read": 1.0, "write": 1.0},
        duration_s=max(0.3, SECONDS * SCALE),
        seed=1,
    )
    with scratch("capacity") as directory:
        write_cluster_file(directory / "cluster.json", cluster)
        write_json(directory / "workload.json", workload)
        command = [
            *python("locust"),
            *("-f", str(ROOT / "bench" / "measure" / "capacity_probe.py")),
            *("--headless", "--only-summary", "-u", str(users), "-r", str(users)),
            *("--workload", "workload.json", "--cluster-file", "cluster.json"),
            *(("--run-folder", ".") if record else ()),
        ]
        try:
            run = subprocess.run(
                command,
                env=environment(CAPBENCH_PROBE="driven.json"),
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise LoadFailed("Locust did not finish") from None
        try:
            driven = msgspec.json.decode((directory / "driven.json").read_bytes(), type=Driven)
        except FileNotFoundError:
            lines = run.stderr.strip().splitlines()
            raise LoadFailed(lines[-1] if lines else "Locust said nothing") from None
        history = list(directory.glob("history/*.jsonl"))
        lines_written = sum(path.read_bytes().count(b"\n") for path in history)
        driven = msgspec.structs.replace(driven, recorded=lines_written)
    if record and driven.recorded != driven.operations:
        raise LoadFailed(f"{driven.recorded} of {driven.operations} operations were recorded")
    if driven.failures or not driven.operations:
        raise LoadFailed(
            f"{driven.failures} of {driven.operations} operations failed without a fault"
        )
    return driven
