"""A real broker, echo nodes and Locust, each a process of its own on loopback."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.record.cluster_file import Address, ClusterFile, write_cluster_file
from tests.waiting import patience, wait_for

ROOT = Path(__file__).parents[2]
NODES = ["n1", "n2", "n3"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """A TCP port of loopback that nobody listens on, below those that the system hands out."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def accepts(port: int) -> bool:
    """Whether somebody listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Broker:
    """A Mosquitto process on one port."""

    def __init__(self, configuration: Path | None = None, port: int = 0) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed")
        self.port = port or free_port()
        self._command = [program, "-p", str(self.port)]
        if configuration is not None:
            self._command = [program, "-c", str(configuration)]
        self.start()

    def start(self) -> None:
        """Returns once it takes connections."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(lambda: accepts(self.port), "mosquitto")

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """One broker for all tests that leave it alone."""
    broker = Broker()
    yield broker
    broker.stop()


def cluster_at(port: int) -> ClusterFile:
    """A cluster behind one broker, with a name of its own."""
    address = Address("127.0.0.1", port)
    return ClusterFile(
        cluster=f"t{random.randrange(10**9)}",
        protocol="echo",
        nodes=NODES,
        operations=["read", "write", "cas", "delete"],
        broker=address,
        group="g1",
        request_links=dict.fromkeys(NODES, address),
    )


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A broker that a test may stop and start."""
    broker = Broker()
    yield broker
    broker.stop()


@pytest.fixture
def own_cluster(own_broker: Broker) -> ClusterFile:
    """A cluster without nodes behind a broker of its own."""
    return cluster_at(own_broker.port)


@pytest.fixture
def cluster(broker: Broker) -> ClusterFile:
    """A cluster without nodes."""
    return cluster_at(broker.port)


@pytest.fixture
def echo() -> Iterator[Callable[..., None]]:
    """Starts the nodes of a cluster: ``echo(cluster, "--lose", "10")``."""
    started: list[subprocess.Popen[str]] = []

    def start(cluster: ClusterFile, *options: str) -> None:
        command = [sys.executable, "-m", "bench.measure.echo_node"]
        command += ["--port", str(cluster.broker.port), "--cluster", cluster.cluster]
        command += ["--nodes", ",".join(cluster.nodes), *options]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    yield start
    for process in started:
        process.kill()
        process.communicate()


class Locust:
    """A Locust process over a cluster, with a run folder of its own."""

    def __init__(self, folder: Path, cluster: ClusterFile | None, *options: str) -> None:
        self.folder = folder
        path = folder / "cluster.json"
        if cluster is not None:
            write_cluster_file(path, cluster)
        self.process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "locust",
                    "-f",
                    str(ROOT / "bench" / "load" / "locustfile.py"),
                ),
                *("--headless", "--only-summary", "--exit-code-on-error", "0"),
                *("--cluster-file", str(path), "--run-folder", str(folder)),
                *("--json-file", str(folder / "stats"), *options),
            ],
            env=ENVIRONMENT,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> str:
        """What it said, once it came to its end."""
        return self.process.communicate(timeout=patience(60))[1]

    def wait_started(self) -> int:
        """When the load started."""
        path = self.folder / "load" / "load.started"
        wait_for(path.exists, "the load's start")
        return int(json.loads(path.read_bytes())["started_ns"])

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Locust's own, by operation kind."""
        rows = json.loads((self.folder / "stats.json").read_bytes())
        return {row["name"]: row for row in rows}


@pytest.fixture
def locust(tmp_path: Path) -> Iterator[Callable[..., Locust]]:
    """Starts Locust: ``locust(cluster, "-t", "2s")``."""
    started: list[Locust] = []

    def start(cluster: ClusterFile | None, *options: str) -> Locust:
        started.append(Locust(tmp_path, cluster, *options))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[Callable[[str], Broker]]:
    """``start_broker("allow_anonymous false")``: a broker with these lines in its configuration."""
    started: list[Broker] = []

    def start(lines: str) -> Broker:
        port = free_port()
        configuration = tmp_path / "mosquitto.conf"
        configuration.write_text(f"listener {port} 127.0.0.1\n{lines}\n")
        started.append(Broker(configuration, port))
        return started[-1]

    yield start
    for broker in started:
        broker.stop()


@pytest.fixture
def new_port() -> Callable[[], int]:
    """Finds a port that nobody listens on."""
    return free_port
