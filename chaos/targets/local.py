"""The local target: a broker, a Toxiproxy and n node processes on loopback."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from bench.cluster_file import Address, ClusterFile, write_cluster_file
from bench.run_folder import NodeRecord, write_json
from chaos.broker import NoBroker, broker_command, find_mosquitto
from chaos.fault import FaultContext
from chaos.final_reads import final_reads
from chaos.leftovers import held
from chaos.links import Links
from chaos.monitor import BrokerSilent, Monitor, NodeSilent
from chaos.nemesis import Nemesis
from chaos.processes import NoFreePorts, ProcessError, ProcessGroup, free_ports
from chaos.targets import CONVERGENCE_TIMEOUT_S, Run, TargetFailed
from chaos.toxiproxy import Toxiproxy, ToxiproxyError, ToxiproxyMissing, find_toxiproxy
from nodes.__main__ import EXIT_DISK
from nodes.registry import Protocol, findable_name
from nodes.runtime.durable_log import MAGIC
from nodes.runtime.injected import CrashAt, FsyncError, FullDisk, Injected
from nodes.runtime.settings import Endpoint, NodeSettings

GROUP = "load"
"""The one client group of a local run."""

START_TIMEOUT_S = 30.0
LOAD_START_TIMEOUT_S = 30.0
KEPT_TAIL_S = 10.0
"""How long after its planned end the load may take to finish before the run counts as failed."""

LOOK_AT_TOXIPROXY_S = 1.0
MIN_FLIP_BYTES = 2000
_STOPS = (FsyncError, FullDisk)

ROOT = Path(__file__).resolve().parents[2]


class LocalCluster(FaultContext):
    """A running cluster on this machine. Use as a context manager: whatever it started is gone
    after it, also after an exception, and also if this process is killed.

    ``directory`` takes the nodes' settings and data and everybody's log. ``record`` is called with
    what the nodes tell (from another thread). ``broker_port``: None picks a free one. ``recorded``:
    the run folder, if there is one, for whoever has to clean up after us.
    """

    links: Links

    def __init__(
        self,
        protocol: Protocol,
        nodes: tuple[str, ...],
        directory: Path,
        *,
        cluster: str,
        parameters: Mapping[str, Any] | None = None,
        record: Callable[[NodeRecord], None] | None = None,
        broker_port: int | None = None,
        seed: int = 0,
        recorded: Path | None = None,
    ) -> None:
        self.nodes = nodes
        self.clients = (GROUP,)
        self.rng = random.Random(f"local-{seed}")
        self.notes: list[str] = []
        self._protocol = protocol
        self._parameters = dict(parameters or {})
        self._directory = directory.resolve()
        self._cluster = cluster
        self._record = record
        self._broker_port = broker_port
        self._data_lock = threading.Lock()
        self._down: set[str] = set()
        self._injected: dict[str, dict[int, Injected]] = {node: {} for node in nodes}
        self._told: dict[str, dict[int, Injected]] = {node: {} for node in nodes}
        self._paused: set[str] = set()
        self._broker_away: set[str] = set()
        self._flipped: dict[str, int] = {}
        self._exited: set[str] = set()
        self._look_at = 0.0
        self._recorded = recorded
        self._held = contextlib.ExitStack()
        # Refuses what cannot be before anything is started.
        for node in nodes:
            protocol.configure(node, nodes, self._parameters)

    # --- start and stop ---

    def __enter__(self) -> LocalCluster:
        self._directory.mkdir(parents=True, exist_ok=True)
        self.processes = ProcessGroup()
        data = [self._directory / node for node in self.nodes]
        self._held.enter_context(held(self.processes.token, data, self._recorded))
        try:
            self._start()
        except (NoBroker, ToxiproxyMissing, NoFreePorts, ProcessError, BrokerSilent) as error:
            self._stop()
            raise TargetFailed(str(error)) from None
        except ToxiproxyError as error:
            self._stop()
            raise TargetFailed(f"Toxiproxy: {error}; see {self.log_path('toxiproxy')}") from None
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        port, api_port, *link_ports = free_ports(2 + Links.count(len(self.nodes), 1))
        self.broker = Address("127.0.0.1", self._broker_port or port)
        if self._broker_port is not None:
            _refuse_taken_port(self._broker_port)
        broker = broker_command(self._directory, self.broker.port)
        self._mqtt_version = broker.mqtt_version
        if broker.note:
            self.notes.append(broker.note)
        self.processes.spawn("broker", broker.argv, stdout_path=self.log_path("broker"))
        self._api = Address("127.0.0.1", api_port)
        self._start_toxiproxy()
        self._wait_for("broker", self.broker)
        self._wait_for("toxiproxy", self._api)
        self.toxiproxy = Toxiproxy(self._api)
        self.links = Links(self.toxiproxy, self.broker, self.nodes, (GROUP,), link_ports)
        self.links.create()
        self.links.restart_server = self._restart_toxiproxy
        self.cluster_file = ClusterFile(
            cluster=self._cluster,
            protocol=self._protocol.name,
            nodes=list(self.nodes),
            operations=list(self._protocol.operations),
            broker=self.broker,
            group=GROUP,
            request_links={node: self.links.address(GROUP, node) for node in self.nodes},
            mqtt_version=broker.mqtt_version,
        )
        self.cluster_path = self._directory / "cluster.json"
        write_cluster_file(self.cluster_path, self.cluster_file)
        self.monitor = Monitor(self.cluster_file, self._record)
        self.monitor.__enter__()
        for node in self.nodes:
            self._start_node(node)
        self.wait_ready()

    def _start_toxiproxy(self) -> None:
        self.processes.spawn(
            "toxiproxy",
            [find_toxiproxy(), "-host", "127.0.0.1", "-port", str(self._api.port)],
            stdout_path=self.log_path("toxiproxy"),
            # It would write a line for every connection and every change otherwise.
            env={**os.environ, "LOG_LEVEL": "warn"},
        )

    def _restart_toxiproxy(self) -> None:
        was = "answered no more" if self.processes.running("toxiproxy") else "ended"
        self.notes.append(
            f"Toxiproxy {was} and was replaced: for a moment every link was down, whatever the "
            "schedule says"
        )
        self.processes.kill("toxiproxy")
        self._start_toxiproxy()
        self._wait_for("toxiproxy", self._api)

    def _stop(self) -> None:
        monitor: Monitor | None = getattr(self, "monitor", None)
        if monitor is not None:
            monitor.__exit__()
        toxiproxy: Toxiproxy | None = getattr(self, "toxiproxy", None)
        if toxiproxy is not None:
            toxiproxy.close()
        self.processes.close()
        self._held.close()

    def discard_data(self) -> None:
        """Remove what the nodes stored, once the cluster is stopped."""
        for node in self.nodes:
            shutil.rmtree(self._directory / node, ignore_errors=True)

    def log_path(self, name: str) -> Path:
        """Where a process writes its log."""
        return self._directory / f"{name}.log"

    def data_path(self, node: str) -> Path:
        """Where a node keeps its durable log."""
        return self._directory / node / "data"

    def _wait_for(self, name: str, address: Address) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((address.host, address.port), timeout=1).close()
                return
            except OSError:
                code = self.processes.ended().get(name)
                if code is not None or time.monotonic() > deadline:
                    why = "did not come up in 10 s" if code is None else f"ended with code {code}"
                    raise TargetFailed(
                        f"{name} on port {address.port} {why}; {self._last_words(name)}"
                    ) from None
                time.sleep(0.01)

    def _start_node(self, node: str) -> None:
        settings = NodeSettings(
            cluster=self._cluster,
            node=node,
            nodes=list(self.nodes),
            protocol=findable_name(self._protocol),
            parameters=self._parameters,
            data_dir=str(self.data_path(node)),
            broker=_endpoint(self.broker),
            links={
                peer: _endpoint(self.links.address(node, peer))
                for peer in self.nodes
                if peer != node
            },
            reply_links={GROUP: _endpoint(self.links.address(node, GROUP))},
            mqtt_version=self._mqtt_version,
            injected={str(number): each for number, each in self._injected[node].items()},
        )
        self._told[node] = dict(self._injected[node])
        self._paused.discard(node)
        path = self._directory / node / "settings.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=2))
        self.processes.spawn(
            node,
            [sys.executable, "-m", "nodes", "--settings", path],
            stdout_path=self.log_path(node),
        )

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until all nodes expect to serve. Raises TargetFailed."""
        deadline = time.monotonic() + timeout_s
        while not self.monitor.wait(self.monitor.ready, 0.5):
            self.check()
            if time.monotonic() > deadline:
                heard = self.monitor.statuses()
                missing = [n for n in self.nodes if not heard.get(n) or not heard[n].probe["ready"]]
                raise TargetFailed(
                    f"the cluster was not ready in {timeout_s:.0f} s; waiting for "
                    f"{', '.join(missing) or 'one leader'}; logs: {self._directory}"
                )

    def check(self) -> None:
        """Raise TargetFailed if a node or the broker has ended that nobody stopped. Toxiproxy is
        replaced if it has ended or answers no more."""
        try:
            if "toxiproxy" in self.processes.ended() or time.monotonic() > self._look_at:
                self._look_at = time.monotonic() + LOOK_AT_TOXIPROXY_S
                self.links.rebuild()
        except (ToxiproxyError, ProcessError) as error:
            raise TargetFailed(f"Toxiproxy: {error}; {self._last_words('toxiproxy')}") from None
        for name, code in self.processes.ended().items():
            if self._ended_by_fault(name, code):
                if name not in self._exited:
                    self._exited.add(name)
                    self.monitor.forget(name)
                    self._tell(name, "exited")
            elif name in (*self.nodes, "broker"):
                raise TargetFailed(f"{name} ended with code {code}; {self._last_words(name)}")

    def _last_words(self, name: str) -> str:
        path = self.log_path(name)
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return f"its log {path} ends: {lines[-1][:300] if lines else '(empty)'}"

    # --- what the nemesis does ---

    def leader(self) -> str | None:
        """The node that calls itself leader in the highest term."""
        return self.monitor.leader()

    def crash(self, node: str) -> None:
        """SIGKILL: whatever was not durable is lost."""
        with self._data_lock:
            self.processes.kill(node)
            self._down.add(node)
            self.monitor.forget(node)
        self._tell(node, "killed")

    def restart(self, node: str) -> None:
        """Start a killed node again on the same data. Raises TargetFailed."""
        with self._data_lock:
            self._down.discard(node)
            try:
                self._start_node(node)
            except ProcessError as error:
                raise TargetFailed(str(error)) from None
        self._tell(node, "restarted")

    def inject(self, node: str, number: int, injected: Injected) -> None:
        """Tell the node, now or as soon as it hears again, and at each start. Raises TargetFailed
        if it does not confirm."""
        with self._data_lock:
            self._injected[node][number] = injected
        self._tell_injected(node)

    def withdraw(self, node: str, number: int) -> None:
        """A node that stopped because of it needs a new start; all else is taken back."""
        injected = self._injected[node].get(number)
        if injected is None:
            return
        if not isinstance(injected, _STOPS):
            self._tell_injected(node, but=number)
        with self._data_lock:
            restart = node not in self._down and (
                isinstance(injected, _STOPS)
                or (isinstance(injected, CrashAt) and not self.processes.running(node))
            )
            if restart:
                self.processes.kill(node)  # From here on nobody wonders that it has ended.
            del self._injected[node][number]
            if restart:
                self._exited.discard(node)
                self._start_node(node)
                self._tell(node, "restarted")

    def _tell_injected(self, node: str, but: int | None = None) -> None:
        """Tell a node what it is to do wrong, ``but`` that of one number, and what not any more.

        A paused node hears nothing, nor does anybody while the broker is away: they are told when
        they go on. Until then they do nothing that could be done wrong.
        """
        if not self.processes.running(node) or node in self._paused or self._broker_away:
            return
        wanted = {n: each for n, each in self._injected[node].items() if n != but}
        told = self._told[node]
        try:
            for number in [n for n in told if n not in wanted]:
                self.monitor.withdraw(node, number)
                del told[number]
            for number in [n for n in wanted if n not in told]:
                self.monitor.inject(node, number, wanted[number])
                told[number] = wanted[number]
        except NodeSilent as error:
            if self.processes.running(node):
                raise TargetFailed(str(error)) from None

    def _ended_by_fault(self, name: str, code: int) -> bool:
        injected = self._injected.get(name, {}).values()
        if code == -signal.SIGKILL:
            return any(isinstance(each, CrashAt) for each in injected)
        stops = name in self._flipped or any(isinstance(each, _STOPS) for each in injected)
        return stops and code == EXIT_DISK

    def tear(self, node: str, rest: bytes) -> None:
        """A record that claims to be longer than what is left of it."""
        with (self.data_path(node) / "log").open("ab") as log:
            log.write((len(rest) + 1000).to_bytes(4, "big") + rest)

    def flip(self, node: str, where: float) -> None:
        """Raises TargetFailed where the log is too short to have an old part."""
        path = self.data_path(node) / "log"
        size = path.stat().st_size
        if size < MIN_FLIP_BYTES:
            raise TargetFailed(f"the log of {node} has {size} bytes only: nothing in it is old")
        with self._data_lock:
            self._flipped[node] = len(MAGIC) + int(where * (size // 2 - len(MAGIC)))
            _flip(path, self._flipped[node])
            self._start_node(node)

    def unflip(self, node: str) -> None:
        """Nothing happens if no bit is flipped."""
        with self._data_lock:
            offset = self._flipped.pop(node, None)
            if offset is not None:
                self.processes.kill(node)
                self._exited.discard(node)
                _flip(self.data_path(node) / "log", offset)

    def pause(self, node: str) -> None:
        """SIGSTOP."""
        with self._data_lock:
            if self.processes.signal(node, signal.SIGSTOP):
                self._paused.add(node)
                self._tell(node, "paused")

    def resume(self, node: str) -> None:
        """SIGCONT."""
        with self._data_lock:
            self._paused.discard(node)
            if self.processes.signal(node, signal.SIGCONT):
                self._tell(node, "resumed")
        self._tell_injected(node)

    def crash_broker(self) -> None:
        """SIGKILL."""
        self._broker_away.add("crashed")
        self.processes.kill("broker")

    def restart_broker(self) -> None:
        """Start it on the same port. Raises TargetFailed."""
        if not self.processes.running("broker"):
            broker = broker_command(self._directory, self.broker.port)
            try:
                self.processes.spawn("broker", broker.argv, stdout_path=self.log_path("broker"))
            except ProcessError as error:
                raise TargetFailed(str(error)) from None
            self._wait_for("broker", self.broker)
        self._broker_back("crashed")

    def pause_broker(self) -> None:
        """SIGSTOP."""
        self._broker_away.add("paused")
        self.processes.signal("broker", signal.SIGSTOP)

    def resume_broker(self) -> None:
        """SIGCONT."""
        self.processes.signal("broker", signal.SIGCONT)
        self._broker_back("paused")

    def _broker_back(self, from_what: str) -> None:
        self._broker_away.discard(from_what)
        for node in self.nodes:
            self._tell_injected(node)

    def _tell(self, node: str, name: str) -> None:
        if self._record is not None:
            now = time.monotonic_ns()
            self._record(NodeRecord(t_ns=now, node=node, kind="event", name=name))


def _flip(path: Path, offset: int) -> None:
    with path.open("r+b") as log:
        log.seek(offset)
        byte = log.read(1)
        log.seek(offset)
        log.write(bytes([byte[0] ^ 0x10]))


def _endpoint(address: Address) -> Endpoint:
    return Endpoint(address.host, address.port)


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise TargetFailed(
                f"port {port} on 127.0.0.1 is taken; give another one with --broker-port"
            ) from None


# --- a run ---


def conduct(run: Run) -> str | None:
    """See `chaos.targets`."""
    folder, nodes = run.folder, run.experiment.node_ids()
    lock = threading.Lock()

    def record(line: NodeRecord) -> None:
        with lock:
            folder.append_node(line)

    run.progress.phase(
        f"start {len(nodes)} nodes, a broker and {len(nodes) * (len(nodes) + 1)} links"
    )
    cluster = LocalCluster(
        run.protocol,
        nodes,
        folder.path / "cluster",
        cluster=f"run-{os.getpid()}-{time.time_ns() % 1_000_000}",
        parameters=run.parameters,
        record=record,
        seed=run.seed,
        recorded=folder.path,
    )
    with cluster:
        run.update_manifest(notes=list(cluster.notes), versions=_versions(cluster))
        failure = _load_and_faults(run, cluster)
        run.progress.phase("read every key at every node")
        if cluster.monitor.converged(run.left, CONVERGENCE_TIMEOUT_S) is None and failure is None:
            failure = "a node did not answer after the load"
        run.update_manifest(notes=list(cluster.notes))
        final_reads(cluster.cluster_file, run.left, run.keys, folder)
        cluster.check()
    cluster.discard_data()
    return failure


def _load_and_faults(run: Run, cluster: LocalCluster) -> str | None:
    """Load and nemesis side by side. Returns what went wrong, None if nothing did."""
    folder, workload, progress = run.folder, run.workload, run.progress
    client = "load-1"
    workload_path = folder.path / "workload.json"
    write_json(workload_path, workload)
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
    run.load_started(start_ns)
    progress.phase(f"load for {duration_s:.0f} s")
    with Nemesis(run.experiment.plan(), cluster, folder, seed=run.seed) as nemesis:
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
