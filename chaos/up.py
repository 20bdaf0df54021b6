"""A cluster that stays: `capbench up` and `capbench down`.

``up`` starts a keeper, a process of its own that holds the cluster; ``down`` asks it to stop. What
a cluster is and where lies in ``.capbench/<name>.json`` of the working directory, and what clients
need in ``.capbench/cluster.json``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench.cluster_file import write_cluster_file
from chaos.by_hand import ByHand
from chaos.leftovers import started
from chaos.processes import signals_as_exit
from chaos.targets import TargetFailed
from chaos.targets.local import LocalCluster
from nodes import registry

DIRECTORY = Path(".capbench")
CLUSTER_FILE = DIRECTORY / "cluster.json"
DEFAULT_NAME = "demo"
DEFAULT_BROKER_PORT = 1883
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


class Keeper(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds a cluster. ``started``: which process that is, see
    `chaos.leftovers.started`."""

    name: str
    pid: int
    started: str
    protocol: str
    nodes: int
    broker: str
    directory: str


def default_port() -> int | None:
    """MQTT's own port, so that clients need not be told; None (any free one) if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_BROKER_PORT))
        except OSError:
            return None
    return DEFAULT_BROKER_PORT


def state_path(name: str) -> Path:
    """Where the keeper of a cluster is written down."""
    return DIRECTORY / f"{name}.keeper.json"


def socket_path(name: str) -> Path:
    """Where the keeper of a cluster takes faults by hand."""
    return DIRECTORY / f"{name}.socket"


def running(name: str) -> Keeper | None:
    """The keeper of that name, if it lives. What a dead one left is removed."""
    path = state_path(name)
    try:
        keeper = msgspec.json.decode(path.read_bytes(), type=Keeper)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    if started(keeper.pid) == keeper.started:
        return keeper
    for left in (path, CLUSTER_FILE, socket_path(name)):
        left.unlink(missing_ok=True)
    shutil.rmtree(keeper.directory, ignore_errors=True)
    return None


def start(
    name: str, protocol: str, nodes: int, parameters: Mapping[str, Any], broker_port: int | None
) -> Keeper:
    """Start a cluster and wait until it serves. Raises TargetFailed."""
    existing = running(name)
    if existing is not None:
        raise TargetFailed(
            f"cluster {name} is running already ({existing.protocol}, {existing.nodes} nodes); "
            "stop it with `capbench down`"
        )
    DIRECTORY.mkdir(exist_ok=True)
    log_path = DIRECTORY / f"{name}.log"
    order = {
        "name": name,
        "protocol": protocol,
        "nodes": nodes,
        "parameters": dict(parameters),
        "broker_port": broker_port,
    }
    with log_path.open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "chaos.up", msgspec.json.encode(order).decode()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while keeper.poll() is None and time.monotonic() < deadline:
            state = running(name)
            if state is not None:
                return state
            time.sleep(0.05)
    except BaseException:
        keeper.terminate()
        raise
    keeper.terminate()
    lines = log_path.read_text(errors="replace").strip().splitlines()
    raise TargetFailed(lines[-1] if lines else f"cluster {name} did not start; see {log_path}")


def stop(name: str) -> bool:
    """Stop a cluster and wait until it is gone. False: there is none. Raises TargetFailed."""
    keeper = running(name)
    if keeper is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(keeper.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            # Its guard takes all that it started along.
            process.kill()
            process.wait(STOP_TIMEOUT_S)
    running(name)
    return True


def start_cluster(
    cluster_at: Callable[[int | None], LocalCluster],
    broker_port: int | None,
    stack: contextlib.ExitStack,
) -> LocalCluster:
    """Start the cluster for as long as ``stack`` is open. Raises TargetFailed.

    A ``broker_port`` that was asked for must be the one. Without, MQTT's own is preferred, and any
    other does if somebody took that one between our look and the broker's start.
    """
    port = default_port() if broker_port is None else broker_port
    try:
        return stack.enter_context(cluster_at(port))
    except TargetFailed:
        if broker_port is not None or port is None:
            raise
        return stack.enter_context(cluster_at(None))


def keep(order: Mapping[str, Any]) -> None:
    """The keeper: hold the cluster until SIGTERM. Raises TargetFailed.

    ``order``: ``name``, ``protocol``, ``nodes`` (how many), ``parameters``, ``broker_port``, and
    what only benchmarks ask for: ``proxied`` and ``coalesce`` (see `LocalCluster`), ``owned``
    (standard input is a pipe, and the cluster ends with whoever holds its other end).
    """
    name = order["name"]
    ids = registry.node_ids(order["nodes"])
    directory = (DIRECTORY / name).resolve()
    shutil.rmtree(directory, ignore_errors=True)
    protocol = registry.get(order["protocol"])
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

    path = state_path(name)
    try:
        with contextlib.ExitStack() as stack:
            cluster = start_cluster(cluster_at, order["broker_port"], stack)
            if proxied:
                stack.enter_context(
                    ByHand(cluster, directory, socket_path(name), cluster.monitor.announce)
                )
            write_cluster_file(CLUSTER_FILE, cluster.cluster_file)
            broker = cluster.broker
            keeper = Keeper(
                name=name,
                pid=os.getpid(),
                started=started(os.getpid()) or "",
                protocol=protocol.name,
                nodes=len(ids),
                broker=f"{broker.host}:{broker.port}",
                directory=str(directory),
            )
            partial = path.with_suffix(".partial")
            partial.write_bytes(msgspec.json.encode(keeper))
            os.replace(partial, path)
            while True:
                # A node that somebody killed stays away; without broker or proxies nothing is left.
                time.sleep(0.2)
                if {"broker", "toxiproxy"} & set(cluster.processes.ended()):
                    cluster.check()
    finally:
        path.unlink(missing_ok=True)
        CLUSTER_FILE.unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)


def _end_with_owner() -> None:
    # Not by a buffered reader, whose lock the interpreter would wait for at its end.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run as ``python -m chaos.up '{"name": ...}'`` by `start`."""
    order = msgspec.json.decode(sys.argv[1], type=dict[str, Any])
    try:
        with signals_as_exit():
            keep(order)
    except (TargetFailed, registry.InvalidConfiguration) as error:
        print(error, flush=True)
        return 3
    except SystemExit:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
