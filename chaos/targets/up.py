"""A standing cluster: `capbench up` and `capbench down`.

``up`` starts a keeper, a process of its own that holds the cluster; ``down`` asks it to stop. Where
its files are: `chaos.clusters.by_name`. The process that holds a cluster's folder has a lock on its
mark, which the system drops when that process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import psutil

from bench.children import environment, python
from bench.record.cluster_file import Reachable, write_cluster_file
from bench.record.files import no_space
from bench.record.run_folder import FaultRecord, write_json
from chaos.clusters import by_name as clusters
from chaos.clusters.by_name import Keeper
from chaos.clusters.local import LocalCluster
from chaos.clusters.pids import started
from chaos.errors import INFRASTRUCTURE, TargetFailed
from chaos.exporter.server import exported
from chaos.exporter.sources import OfCluster
from chaos.interrupted import signals_as_exit
from chaos.systems.system import System
from chaos.targets import lab
from chaos.targets.by_hand import ByHand
from chaos.targets.subjects import find
from nodes import registry
from nodes.errors import CapbenchError, InfrastructureFailed
from nodes.runtime import own_folder

DEFAULT_BROKER_PORT = 1883
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


def default_port() -> int | None:
    """MQTT's own port, the default of all clients; None (any free one) if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_BROKER_PORT))
        except OSError:
            return None
    return DEFAULT_BROKER_PORT


@contextlib.contextmanager
def _nobody_else() -> Iterator[None]:
    """Within it, no other command claims or clears a cluster of this directory."""
    clusters.DIRECTORY.mkdir(exist_ok=True)
    directory = os.open(clusters.DIRECTORY, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _lock(path: Path) -> IO[bytes] | None:
    """The lock on a folder of ours; None: somebody holds it."""
    mark = (path / own_folder.MARK).open("ab")
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        mark.close()
        return None
    return mark


def claim(name: str) -> IO[bytes]:
    """Make the cluster's folder, empty, and lock it: until this file is closed here and in every
    child that was given it. Raises TargetFailed, nodes.contract.names.BadName and
    nodes.runtime.own_folder.NotOurs."""
    path = clusters.folder(name)
    with _nobody_else():
        own_folder.make(path)
        lock = _lock(path)
        if lock is None:
            raise TargetFailed(
                f"cluster {name} is running already, or just starting; stop it with "
                f"`capbench down --name {name}`"
            )
        own_folder.empty(path)
    return lock


def clear(name: str) -> bool:
    """Remove what a keeper that is gone left. False: there is nothing, or the keeper lives."""
    path = clusters.folder(name)
    if not own_folder.is_ours(path):
        return False
    with _nobody_else():
        lock = _lock(path)
        if lock is None:
            return False
        with lock:
            return own_folder.remove(path)


def start(
    name: str,
    protocol: str,
    nodes: int,
    parameters: Mapping[str, Any],
    broker_port: int | None,
    metrics: int | None = None,
) -> Keeper:
    """Start a cluster and wait until it serves. ``metrics``: the port at which the keeper serves
    metrics. Raises TargetFailed, nodes.contract.names.BadName
    and nodes.runtime.own_folder.NotOurs."""
    existing = clusters.running(name)
    if existing is not None:
        raise TargetFailed(
            f"cluster {name} is running already ({existing.protocol}, {existing.nodes} nodes); "
            f"stop it with `capbench down --name {name}`"
        )
    with claim(name) as lock:
        order = {
            "name": name,
            "protocol": protocol,
            "nodes": nodes,
            "parameters": dict(parameters),
            "broker_port": broker_port,
            "metrics": metrics,
            "lock": lock.fileno(),
        }
        log_path = clusters.folder(name) / "keeper.log"
        with log_path.open("wb") as log:
            keeper = subprocess.Popen(
                [*python("chaos.targets.up"), msgspec.json.encode(order).decode()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while keeper.poll() is None and time.monotonic() < deadline:
            state = clusters.running(name)
            if state is not None:
                return state
            time.sleep(0.05)
    except BaseException:
        keeper.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            keeper.wait(STOP_TIMEOUT_S)
        clear(name)
        raise
    said = clusters.last_line(log_path)
    keeper.terminate()
    full = no_space(clusters.DIRECTORY)
    raise TargetFailed(said or f"cluster {name} did not start; its log {log_path} is empty{full}")


def stop(name: str) -> bool:
    """Stop a cluster and wait until it is gone. False: it did not run. What a keeper that was
    killed left is removed. Raises TargetFailed, also where it is only just starting, and
    nodes.contract.names.BadName."""
    keeper = clusters.running(name)
    if keeper is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(keeper.pid)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except psutil.TimeoutExpired:
                # Its guard takes all that it started along.
                process.kill()
                process.wait(STOP_TIMEOUT_S)
    if not clear(name) and keeper is None and name in clusters.known():
        raise TargetFailed(f"cluster {name} is only just starting; try again in a moment")
    return keeper is not None


def start_cluster(
    cluster_at: Callable[[int | None], LocalCluster],
    broker_port: int | None,
    stack: contextlib.ExitStack,
) -> LocalCluster:
    """Start the cluster for as long as ``stack`` is open. Raises TargetFailed.

    A ``broker_port`` that was asked for must be the one. Otherwise MQTT's own is preferred; any
    other will do if that one was taken between our check and the broker's start.
    """
    port = default_port() if broker_port is None else broker_port
    try:
        return stack.enter_context(cluster_at(port))
    except InfrastructureFailed:
        if broker_port is not None or port is None:
            raise
        return stack.enter_context(cluster_at(None))


def keep(order: Mapping[str, Any]) -> None:
    """The keeper: hold the cluster until SIGTERM. Raises TargetFailed.

    ``order``: ``name``, ``protocol``, ``nodes`` (how many), ``parameters``, ``broker_port``,
    ``metrics`` (a port, or None), and
    what only benchmarks ask for: ``proxied`` and ``coalesce`` (see `LocalCluster`), ``owned``
    (standard input is a pipe, and the cluster ends with whoever holds its other end). Its folder is
    claimed (`claim`), and removed when the cluster was told to stop; what failed can be looked at.
    """
    name = order["name"]
    ids = registry.node_ids(order["nodes"])
    directory = clusters.folder(name).resolve()
    protocol = find(order["protocol"])
    if isinstance(protocol, System):
        _keep_system(protocol, ids, name, directory)
        return
    proxied = order.get("proxied", True)
    if order.get("owned"):
        threading.Thread(target=_end_with_owner, daemon=True).start()

    def cluster_at(broker_port: int | None) -> LocalCluster:
        return LocalCluster(
            protocol,
            ids,
            directory,
            cluster=name,
            parameters=order["parameters"],
            broker_port=broker_port,
            proxied=proxied,
            coalesce=order.get("coalesce", True),
        )

    try:
        with contextlib.ExitStack() as stack:
            cluster = start_cluster(cluster_at, order["broker_port"], stack)
            if proxied:
                socket_path = clusters.socket_path(name)
                monitor = cluster.monitor
                seen = OfCluster(name, protocol.name, monitor.statuses)

                def announce(faults: Sequence[FaultRecord]) -> None:
                    seen.on = list(faults)
                    monitor.announce(faults)

                stack.enter_context(
                    ByHand(cluster, directory, socket_path, announce, monitor.statuses)
                )
                stack.enter_context(exported(order.get("metrics"))).source = seen
            broker = f"{cluster.broker.host}:{cluster.broker.port}"
            write_down(cluster.cluster_file, broker, directory)
            while True:
                # A node that was killed stays down; without broker or proxies the cluster ends.
                time.sleep(0.2)
                if {"broker", "toxiproxy"} & set(cluster.processes.ended()):
                    cluster.check()
    except SystemExit:
        with _nobody_else():
            own_folder.remove(directory)
        raise


def _keep_system(system: System, nodes: tuple[str, ...], name: str, directory: Path) -> None:
    """The same for a system, whose cluster is in a lab. Raises TargetFailed."""
    try:
        lab.keep(
            system,
            nodes,
            name,
            directory,
            clusters.socket_path(name).resolve(),
            lambda cluster: write_down(cluster, None, directory),
        )
    except SystemExit:
        with _nobody_else():
            own_folder.remove(directory)
        raise


def write_down(cluster: Reachable, broker: str | None, directory: Path) -> None:
    """Leave in a cluster's folder how to reach it, and that this process holds it."""
    write_cluster_file(directory / "cluster.json", cluster)
    keeper = Keeper(
        name=cluster.cluster,
        pid=os.getpid(),
        started=started(os.getpid()) or "",
        protocol=cluster.protocol,
        nodes=len(cluster.nodes),
        broker=broker,
        directory=str(directory.resolve()),
    )
    # Last, and whole: then everything is there.
    write_json(directory / "keeper.json", keeper)


def _end_with_owner() -> None:
    # Not by a buffered reader, whose lock the interpreter would wait for at its end.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run as ``python -m chaos.targets.up '{"name": ...}'`` by `start`."""
    order = msgspec.json.decode(sys.argv[1], type=dict[str, Any])
    lock = order.get("lock")
    try:
        with signals_as_exit(), claim(order["name"]) if lock is None else os.fdopen(lock, "ab"):
            keep(order)
    except CapbenchError as error:
        print(error, flush=True)
        return INFRASTRUCTURE
    except OSError as error:
        print(f"{error.filename or order['name']}: {error.strerror or error}", flush=True)
        return INFRASTRUCTURE
    except SystemExit:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
