"""A live cluster for a benchmark: a broker and n node processes on loopback.

    with live_cluster("raft") as live:
        drive(live.cluster, ClosedLoop())

It is the cluster of `capbench up`, started as a separate process (modules import downwards only,
and the one that starts nodes is above this one). By default it has no proxies: these are for
faults, and cost a third of the throughput on two cores.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench.children import environment, python
from bench.record.cluster_file import BadClusterFile, ClusterFile, read_cluster_file
from nodes.errors import InfrastructureFailed
from nodes.runtime.scratch import scratch

START_TIMEOUT_S = 60.0


class NoCluster(InfrastructureFailed):
    """The cluster did not start: gives its last line of output."""


class LoadFailed(InfrastructureFailed):
    """A load did not finish, or operations failed without a fault."""


class Live:
    """``cluster``: where it accepts requests. ``processes``: ``broker``, ``toxiproxy`` and the
    nodes, by name. ``directory``: its files while it runs."""

    def __init__(self, cluster: ClusterFile, directory: Path, keeper: int) -> None:
        self.cluster = cluster
        self.directory = directory
        children = psutil.Process(keeper).children(recursive=True)
        # The guard leads the process group and does nothing.
        self.processes = {
            _name(process): process
            for process in children
            if os.getpgid(process.pid) != process.pid
        }

    def cpu_s(self) -> dict[str, float]:
        """The CPU seconds used by each process so far."""
        return {name: sum(each.cpu_times()[:2]) for name, each in self.processes.items()}

    def data_directories(self) -> dict[str, Path]:
        """The directory of each node's durable log."""
        return {node: self.directory / "bench" / node / "data" for node in self.cluster.nodes}


def _name(process: psutil.Process) -> str:
    command = process.cmdline()
    if "nodes" in command:
        return Path(command[-1]).parent.name
    return "toxiproxy" if Path(command[0]).name == "toxiproxy-server" else "broker"


@contextlib.contextmanager
def live_cluster(
    protocol: str,
    *,
    nodes: int = 3,
    parameters: Mapping[str, Any] | None = None,
    proxied: bool = False,
    coalesce: bool = True,
) -> Iterator[Live]:
    """A cluster, ready to serve. It ends with the context, even if this process dies. Raises
    NoCluster."""
    order = {
        "name": "bench",
        "protocol": protocol,
        "nodes": nodes,
        "parameters": dict(parameters or {}),
        "broker_port": None,
        "proxied": proxied,
        "coalesce": coalesce,
        "owned": True,
    }
    with scratch("bench") as directory:
        log = directory / "keeper.log"
        with log.open("wb") as output:
            keeper = subprocess.Popen(
                [*python("chaos.targets.up"), msgspec.json.encode(order).decode()],
                cwd=directory,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Live(_wait(keeper, directory, log), directory / ".capbench", keeper.pid)
        finally:
            assert keeper.stdin is not None
            keeper.stdin.close()
            try:
                keeper.wait(timeout=30)
            except subprocess.TimeoutExpired:
                keeper.kill()
                keeper.wait()


def _wait(keeper: subprocess.Popen[bytes], directory: Path, log: Path) -> ClusterFile:
    # The keeper's own file is written last, when everything is ready.
    place = directory / ".capbench" / "bench"
    ready, deadline = place / "keeper.json", time.monotonic() + START_TIMEOUT_S
    while not ready.exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise NoCluster(lines[-1] if lines else "the cluster did not start in time")
        time.sleep(0.02)
    try:
        return read_cluster_file(place / "cluster.json")
    except BadClusterFile as error:
        raise NoCluster(str(error)) from None
