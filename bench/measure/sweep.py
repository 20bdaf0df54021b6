"""``capbench sweep``: the cost of an operation on live clusters, and how it grows.

Each point is a new cluster (`bench.measure.live`), loaded by a closed loop
(`bench.measure.closed_loop`) in this process. The nodes' counters come from their status messages
before and after the load, when nothing is in flight; CPU times are read at the start and end of the
measured time.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil

from bench.load.mqtt_client import BrokerUnreachable
from bench.measure.ceiling import messages_per_s
from bench.measure.closed_loop import ClosedLoop, Measured, drive
from bench.measure.figures import hardware
from bench.measure.live import Live, NoCluster, live_cluster
from bench.record.sweep_file import (
    DIMENSIONS,
    BadSweep,
    Calibration,
    Point,
    Sweep,
    SweepRow,
    read_sweep,
    write_sweep,
)
from chaos.clusters.monitor import BrokerSilent, Monitor
from chaos.progress import Bar, Lines
from nodes.errors import InfrastructureFailed

PROTOCOLS = ("raft", "paxos", "quorum", "gossip")
VALUES: dict[str, tuple[int, ...]] = {
    "nodes": (3, 5, 7),
    "value_bytes": (100, 1024, 16 * 1024, 64 * 1024),
    "clients": (1, 16, 128, 1000),
    "proxied": (False, True),
    "coalesced": (True, False),
}
QUICK_VALUES: dict[str, tuple[int, ...]] = {
    "nodes": (3, 5),
    "value_bytes": (100, 16 * 1024),
    "clients": (1, 128),
    "proxied": (False, True),
    "coalesced": (True, False),
}

START_AND_STOP_S = 5.0
"""About how long a point takes besides its load."""
STATUS_TIMEOUT_S = 10.0
_ALL = "all of the machine"
_COUNTERS = (
    *("messages_sent", "frames_sent", "bytes_sent"),
    *("log_commits", "log_commit_us", "log_bytes_written"),
)
CALIBRATION_BYTES = (100, 16 * 1024)


class NodesSilent(InfrastructureFailed):
    """Nodes did not report their counters: says which."""


def points_of(
    protocols: Sequence[str], dimensions: Sequence[str] = DIMENSIONS, quick: bool = False
) -> list[Point]:
    """The base point of each protocol, and the points along each dimension from there."""
    values = QUICK_VALUES if quick else VALUES
    points = []
    for protocol in protocols:
        base = Point(protocol=protocol)
        points.append(base)
        for dimension in dimensions:
            for value in values[dimension]:
                point = msgspec.structs.replace(base, **{dimension: value})
                if point != base:
                    points.append(point)
    return points


def estimate_s(points: int, seconds: float, warm_up_s: float) -> float:
    """About how long so many points take."""
    return points * (seconds + warm_up_s + START_AND_STOP_S)


def run_sweep(
    folder: Path,
    points: Sequence[Point],
    *,
    seconds: float,
    warm_up_s: float,
    command: list[str],
    progress: Lines | Bar,
) -> tuple[Sweep, bool]:
    """Measure the points and write ``sweep.json`` in ``folder`` after each. Points measured there
    before are kept; missing ones are tried again. Returns the sweep, and whether it was interrupted
    (Ctrl-C, SIGTERM): then points not measured are missing. Raises BadSweep if the folder holds
    another sweep; NoCluster, NoMessages if the broker alone cannot be measured."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.json"
    sweep = Sweep(
        capbench=importlib.metadata.version("capbench"),
        command=command,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        hardware=hardware(),
        seconds=seconds,
        warm_up_s=warm_up_s,
    )
    if path.exists():
        sweep = _go_on(path, sweep)
    measured = {row.point for row in sweep.rows if row.missing is None}
    todo = [point for point in points if point not in measured]
    sweep.rows = [row for row in sweep.rows if row.point not in todo]
    progress.run("sweep")
    progress.phase(f"{len(todo)} points, some {estimate_s(len(todo), seconds, warm_up_s):.0f} s")
    done, interrupted = 0, False
    try:
        if sweep.calibration is None:
            progress.phase("the broker and the disk alone")
            sweep.calibration = calibrate(max(0.1, seconds / 5))
        for point in todo:
            progress.phase(f"{done + 1} of {len(todo)}: {point}")
            sweep.rows.append(row := measure(point, seconds, warm_up_s))
            done += 1
            if row.missing is not None:
                progress.phase(f"missing: {point}: {row.missing}")
            progress.tick(done, len(todo), "points")
            write_sweep(path, sweep)
    except (KeyboardInterrupt, SystemExit):
        interrupted = True
    finally:
        sweep.rows += [SweepRow(point=each, missing="not measured") for each in todo[done:]]
        write_sweep(path, sweep)
    return sweep, interrupted


def _go_on(path: Path, now: Sweep) -> Sweep:
    """The sweep so far. Raises BadSweep if its figures are not comparable with new ones."""
    before = read_sweep(path)
    for name in ("processor", "cores"):
        there, here = before.hardware.get(name), now.hardware.get(name)
        if there != here:
            raise BadSweep(f"{path}: measured with {name} {there}, this is {here}")
    if (before.seconds, before.warm_up_s) != (now.seconds, now.warm_up_s):
        raise BadSweep(f"{path}: its points were measured for {before.seconds:g} s each")
    return before


def calibrate(seconds: float) -> Calibration:
    """Measure the broker and the disk alone. Raises NoCluster."""
    with live_cluster("gossip", nodes=1) as live:
        rates = {
            size: messages_per_s(live.cluster.broker, seconds=seconds, message_bytes=size)
            for size in CALIBRATION_BYTES
        }
    return Calibration(broker_messages_per_s=rates, fsync_us=1e6 * fsync_s())


def fsync_s(rounds: int = 200) -> float:
    """The median time of a 4 KiB append and its fdatasync in the directory for temporary files,
    where `bench.measure.live` keeps the nodes' data."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(rounds):
            started = time.perf_counter()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - started)
    return statistics.median(took)


def measure(point: Point, seconds: float, warm_up_s: float) -> SweepRow:
    """Measure one point; if that is impossible, the row says why."""
    load = ClosedLoop(
        clients=point.clients,
        think_s=point.think_s,
        seconds=seconds,
        warm_up_s=warm_up_s,
        value_bytes=point.value_bytes,
        one_per_publish=not point.coalesced,
    )
    try:
        with (
            live_cluster(
                point.protocol,
                nodes=point.nodes,
                proxied=point.proxied,
                coalesce=point.coalesced,
            ) as live,
            Monitor(live.cluster) as monitor,
        ):
            return _measured(point, load, live, monitor)
    except (NoCluster, NodesSilent, BrokerSilent, BrokerUnreachable) as error:
        return SweepRow(point=point, missing=str(error))
    except psutil.NoSuchProcess as error:
        return SweepRow(point=point, missing=f"process {error.pid} ended during the load")


def _measured(point: Point, load: ClosedLoop, live: Live, monitor: Monitor) -> SweepRow:
    cpu_s: list[dict[str, float]] = []
    before = counters(monitor, live)
    measured = drive(live.cluster, load, lambda: cpu_s.append({**live.cpu_s(), _ALL: busy_s()}))
    after = counters(monitor, live)
    if not measured.ok:
        return SweepRow(
            point=point,
            missing=f"no operation ended ok: {measured.failed} failed, {measured.unanswered} were "
            f"not answered ({measured.error or 'no error given'})",
            failed=measured.failed,
            unanswered=measured.unanswered,
        )
    counted = {name: count - before[name] for name, count in after.items()}
    row = _row(point, measured, counted, cpu_s, live)
    row.forwarded = _forwarded(point.clients, live.cluster.nodes, monitor.leader())
    return row


def _forwarded(clients: int, nodes: list[str], leader: str | None) -> float:
    """The share of clients whose node is not the leader; clients ask all nodes in turn."""
    asked = [nodes[client % len(nodes)] for client in range(clients)]
    return sum(node != leader for node in asked) / clients if leader else 0.0


def _row(
    point: Point,
    measured: Measured,
    counted: dict[str, int],
    cpu_s: list[dict[str, float]],
    live: Live,
) -> SweepRow:
    before, after = cpu_s
    used = {name: 1e6 * (after[name] - before[name]) / measured.ok for name in live.processes}
    used["load"] = 1e6 * measured.client_cpu_s / measured.ok
    own_s = sum(used.values()) * measured.ok / 1e6
    answered = measured.answered
    return SweepRow(
        point=point,
        seconds=measured.seconds,
        ok=measured.ok,
        failed=measured.failed,
        unanswered=measured.unanswered,
        ok_per_s=measured.ok_per_s,
        latency_ms_p50=measured.latency_ms_p50,
        latency_ms_p99=measured.latency_ms_p99,
        messages=counted["messages_sent"] / answered + 2,
        publishes=(counted["frames_sent"] + measured.request_frames) / answered,
        bytes=(counted["bytes_sent"] + measured.request_bytes) / answered,
        fsyncs=counted["log_commits"] / answered,
        log_bytes=counted["log_bytes_written"] / answered,
        fsync_us=counted["log_commit_us"] / max(1, counted["log_commits"]),
        other_cores=max(0.0, after[_ALL] - before[_ALL] - own_s) / measured.seconds,
        cpu_us=used,
        rss_bytes={name: process.memory_info().rss for name, process in live.processes.items()},
    )


def busy_s() -> float:
    """CPU seconds for which the machine's cores have been busy since boot."""
    times = psutil.cpu_times()
    # Linux also counts a guest's time as user time.
    idle = ("idle", "iowait", "guest", "guest_nice")
    return float(sum(getattr(times, name) for name in times._fields if name not in idle))


def counters(monitor: Monitor, live: Live) -> dict[str, int]:
    """The nodes' counters so far, summed. Raises NodesSilent."""
    now_ns = time.monotonic_ns()
    nodes = live.cluster.nodes

    def silent() -> list[str]:
        statuses = monitor.statuses()
        return [node for node in nodes if node not in statuses or statuses[node].t_ns < now_ns]

    if not monitor.wait(lambda: not silent(), STATUS_TIMEOUT_S):
        raise NodesSilent(f"{', '.join(silent())} reported no counters in {STATUS_TIMEOUT_S:.0f} s")
    statuses = monitor.statuses()
    return {name: sum(statuses[node].counters.get(name, 0) for node in nodes) for name in _COUNTERS}
