"""What the targets with real nodes have in common: a broker, a Toxiproxy, and how faults get there.

A target of this kind starts the parts and tells `LiveCluster` how to kill, start, stop and continue
one of them by name (``n1``, ``broker``, ``toxiproxy``), and how to reach a node's log while it is
down. Links, injections and everything that has to be known of them is here.
"""

from __future__ import annotations

import platform
import random
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from bench.record.children import environment, python
from bench.record.cluster_file import ClusterFile
from bench.record.files import no_space
from bench.record.losses import LOG, losses
from bench.record.paths import ROOT
from bench.record.run_folder import NodeRecord, write_json
from chaos.clusters.links import Links
from chaos.clusters.monitor import Monitor, NodeSilent
from chaos.clusters.processes import ProcessError, ProcessGroup
from chaos.clusters.toxiproxy import Toxiproxy, ToxiproxyError
from chaos.errors import TargetFailed
from chaos.faults.base import FaultContext
from chaos.faults.nemesis import Nemesis
from chaos.targets import CONVERGENCE_TIMEOUT_S, Run
from chaos.targets.final_reads import final_reads
from nodes.__main__ import EXIT_DISK
from nodes.runtime.durable_log import MAGIC
from nodes.runtime.injected import CrashAt, FsyncError, FullDisk, Injected

GROUP = "load"
"""The one client group of a live run."""

START_TIMEOUT_S = 30.0
LOAD_START_TIMEOUT_S = 30.0
KEPT_TAIL_S = 10.0
"""How long after its planned end the load may take to finish before the run counts as failed."""

LOOK_AT_TOXIPROXY_S = 1.0
MIN_FLIP_BYTES = 2000
_STOPS = (FsyncError, FullDisk)
_KILLED = (-9, 137)
"""Exit codes of a process that was killed (SIGKILL), as a parent and as a shell see it."""


class LiveCluster(FaultContext):
    """A running cluster. Use as a context manager: whatever it started is gone after it, also
    after an exception, and also if this process is killed.

    ``record`` is called with what the nodes tell (from another thread). ``cluster_path``: where
    load reads how to reach it. ``notes``: what a report must say of it.
    """

    links: Links
    toxiproxy: Toxiproxy
    monitor: Monitor
    processes: ProcessGroup
    cluster_file: ClusterFile
    cluster_path: Path
    logs: str
    """Where they lie, for an error line."""

    def __init__(
        self,
        nodes: tuple[str, ...],
        *,
        record: Callable[[NodeRecord], None] | None,
        seed: int,
    ) -> None:
        self.nodes = nodes
        self.clients = (GROUP,)
        self.rng = random.Random(f"live-{seed}")
        self.notes: list[str] = []
        self._recorder = record
        self._unrecorded: OSError | None = None
        self._data_lock = threading.Lock()
        self._down: set[str] = set()
        self._injected: dict[str, dict[int, Injected]] = {node: {} for node in nodes}
        self._told: dict[str, dict[int, Injected]] = {node: {} for node in nodes}
        self._paused: set[str] = set()
        self._unplugged: set[str] = set()
        self._broker_away: set[str] = set()
        self._flipped: dict[str, int] = {}
        self._exited: set[str] = set()
        self._look_at = 0.0

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    # --- what a target does for its parts; each raises TargetFailed ---

    def running(self, name: str) -> bool:
        """Whether it was started and has not ended. One that is stopped is running."""
        raise NotImplementedError

    def ended(self) -> dict[str, int]:
        """What ended without `_kill`, and its exit codes (negative, or 128 + n: by signal n)."""
        raise NotImplementedError

    def last_words(self, name: str) -> str:
        """Where its log lies, and how it ends, for an error line."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        """Of the parts that are not Python packages."""
        raise NotImplementedError

    def _kill(self, name: str) -> None:
        """SIGKILL; it is gone when this returns. Nothing happens if it is gone already."""
        raise NotImplementedError

    def _start(self, name: str) -> None:
        """Start a node or the broker again."""
        raise NotImplementedError

    def _suspend(self, name: str) -> bool:
        """Stop it without ending it; False if it is gone."""
        raise NotImplementedError

    def _continue(self, name: str) -> bool:
        """Let it go on; False if it is gone."""
        raise NotImplementedError

    def _read_log(self, node: str) -> bytes:
        """The log of a node that is down."""
        raise NotImplementedError

    def _write_log(self, node: str, log: bytes) -> None:
        """Replace the log of a node that is down."""
        raise NotImplementedError

    def _restart_toxiproxy(self) -> None:
        """Replace it by one that has nothing in it."""
        raise NotImplementedError

    # --- is it well? ---

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
                    f"{', '.join(missing) or 'one leader'}; logs: {self.logs}"
                )

    def check(self) -> None:
        """Raise TargetFailed if a node or the broker has ended that nobody stopped, or if something
        could not be recorded. Toxiproxy is replaced if it has ended or answers no more."""
        try:
            if "toxiproxy" in self.ended() or time.monotonic() > self._look_at:
                self._look_at = time.monotonic() + LOOK_AT_TOXIPROXY_S
                self.links.rebuild()
        except (ToxiproxyError, ProcessError) as error:
            raise TargetFailed(f"Toxiproxy: {error}; {self.last_words('toxiproxy')}") from None
        for name, code in self.ended().items():
            if self._ended_by_fault(name, code):
                if name not in self._exited:
                    self._exited.add(name)
                    self.monitor.forget(name)
                    self._tell(name, "exited")
            elif name in (*self.nodes, "broker"):
                disk = " (its disk failed)" if name in self.nodes and code == EXIT_DISK else ""
                raise TargetFailed(f"{name} ended with code {code}{disk}; {self.last_words(name)}")
        if (full := self._unrecorded) is not None:
            raise TargetFailed(f"{full.filename}: {full.strerror}")

    # --- what the nemesis does ---

    def leader(self) -> str | None:
        """The node that calls itself leader in the highest term."""
        return self.monitor.leader()

    def crash(self, node: str) -> None:
        """SIGKILL: whatever was not durable is lost."""
        with self._data_lock:
            self._kill(node)
            self._down.add(node)
            self.monitor.forget(node)
        self._tell(node, "killed")

    def restart(self, node: str) -> None:
        """Start a killed node again on the same data. Raises TargetFailed."""
        with self._data_lock:
            self._down.discard(node)
            self._start_node(node)
        self._tell(node, "restarted")

    def _start_node(self, node: str) -> None:
        self._told[node] = self._told_at_start(node)
        self._paused.discard(node)
        self._start(node)

    def _told_at_start(self, node: str) -> dict[int, Injected]:
        """What a node is told to do wrong with its settings: all, unless a target overrides it."""
        return dict(self._injected[node])

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
                or (isinstance(injected, CrashAt) and not self.running(node))
            )
            if restart:
                self._kill(node)  # From here on nobody wonders that it has ended.
            del self._injected[node][number]
            if restart:
                self._exited.discard(node)
                self._start_node(node)
                self._tell(node, "restarted")

    def _tell_injected(self, node: str, but: int | None = None) -> None:
        """Tell a node what it is to do wrong, ``but`` that of one number, and what not any more.

        A paused node hears nothing, nor does one without its network, nor anybody while the broker
        is away: they are told when they go on. Until then they do nothing that could be done wrong.
        """
        deaf = self._paused | self._unplugged
        if not self.running(node) or node in deaf or self._broker_away:
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
            if self.running(node):
                raise TargetFailed(str(error)) from None

    def _ended_by_fault(self, name: str, code: int) -> bool:
        injected = self._injected.get(name, {}).values()
        if code in _KILLED:
            return any(isinstance(each, CrashAt) for each in injected)
        stops = name in self._flipped or any(isinstance(each, _STOPS) for each in injected)
        return stops and code == EXIT_DISK

    def tear(self, node: str, rest: bytes) -> None:
        """A record that claims to be longer than what is left of it."""
        torn = (len(rest) + 1000).to_bytes(4, "big") + rest
        self._write_log(node, self._read_log(node) + torn)

    def flip(self, node: str, where: float) -> None:
        """Raises TargetFailed where the log is too short to have an old part."""
        log = self._read_log(node)
        if len(log) < MIN_FLIP_BYTES:
            raise TargetFailed(f"the log of {node} has {len(log)} bytes only: nothing in it is old")
        with self._data_lock:
            self._flipped[node] = len(MAGIC) + int(where * (len(log) // 2 - len(MAGIC)))
            self._flip_bit(node, self._flipped[node])
            self._start_node(node)

    def unflip(self, node: str) -> None:
        """Nothing happens if no bit is flipped."""
        with self._data_lock:
            offset = self._flipped.pop(node, None)
            if offset is not None:
                self._kill(node)
                self._exited.discard(node)
                self._flip_bit(node, offset)

    def _flip_bit(self, node: str, offset: int) -> None:
        log = bytearray(self._read_log(node))
        log[offset] ^= 0x10
        self._write_log(node, bytes(log))

    def pause(self, node: str) -> None:
        """Stop it (SIGSTOP, or a container's pause)."""
        with self._data_lock:
            if self._suspend(node):
                self._paused.add(node)
                self._tell(node, "paused")

    def resume(self, node: str) -> None:
        """Let it go on."""
        with self._data_lock:
            self._paused.discard(node)
            if self._continue(node):
                self._tell(node, "resumed")
        self._tell_injected(node)

    def crash_broker(self) -> None:
        """SIGKILL."""
        self._broker_away.add("crashed")
        self._kill("broker")

    def restart_broker(self) -> None:
        """Start it at the same address. Raises TargetFailed."""
        if not self.running("broker"):
            self._start("broker")
        self._broker_back("crashed")

    def pause_broker(self) -> None:
        """Stop it."""
        self._broker_away.add("paused")
        self._suspend("broker")

    def resume_broker(self) -> None:
        """Let it go on."""
        self._continue("broker")
        self._broker_back("paused")

    def _broker_back(self, from_what: str) -> None:
        self._broker_away.discard(from_what)
        for node in self.nodes:
            self._tell_injected(node)

    def _tell(self, node: str, name: str) -> None:
        self._record(NodeRecord(t_ns=time.monotonic_ns(), node=node, kind="event", name=name))

    def _record(self, line: NodeRecord) -> None:
        """From whichever thread: what cannot be recorded is no reason to hear no more, or to leave
        a fault on; `check` tells of it."""
        if self._recorder is None or self._unrecorded is not None:
            return
        try:
            self._recorder(line)
        except OSError as error:
            self._unrecorded = error


Cluster = TypeVar("Cluster", bound=LiveCluster)


def conduct_on(
    run: Run, make: Callable[[Callable[[NodeRecord], None]], Cluster]
) -> tuple[str | None, Cluster]:
    """A run on the cluster that ``make`` makes, which is stopped when this returns. Returns what
    went wrong, None if nothing did."""
    folder = run.folder
    lock = threading.Lock()

    def record(line: NodeRecord) -> None:
        with lock:
            folder.append_node(line)

    cluster = make(record)
    with cluster:
        run.update_manifest(notes=list(cluster.notes), versions=_versions(cluster))
        failure = _load_and_faults(run, cluster)
        run.progress.phase("read every key at every node")
        if cluster.monitor.converged(run.left, CONVERGENCE_TIMEOUT_S) is None and failure is None:
            failure = "a node did not answer after the load"
        run.update_manifest(notes=list(cluster.notes))
        final_reads(cluster.cluster_file, run.left, run.keys, folder)
        cluster.check()
    return failure, cluster


def _load_and_faults(run: Run, cluster: LiveCluster) -> str | None:
    """Load and nemesis side by side. Returns what went wrong, None if nothing did."""
    folder, workload, progress = run.folder, run.workload, run.progress
    client = "load-1"
    workload_path = folder.path / "workload.json"
    write_json(workload_path, workload)
    argv = [
        *python("locust"),
        *("-f", str(ROOT / "bench" / "load" / "locustfile.py"), "--headless", "-u", "1"),
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
    with nemesis:
        nemesis.start(start_ns)
        deadline = start_ns + int((duration_s + workload.timeout_s + KEPT_TAIL_S) * 1e9)
        while locust.poll() is None:
            now_ns = time.monotonic_ns()
            progress.tick(min(duration_s, (now_ns - start_ns) / 1e9), duration_s)
            if now_ns > deadline:
                return f"the load did not end in time; its log is {folder.path / LOG}"
            cluster.check()
            cluster.monitor.wait(lambda: locust.poll() is not None, 0.25)
    if nemesis.failed:
        return f"a fault failed: {'; '.join(nemesis.errors)}"
    # Locust exits with 1 when operations failed, which under faults is what is being measured.
    failures = losses(folder)
    if locust.returncode not in (0, 1) and not failures:
        failures = [f"the load ended with code {locust.returncode}; its log: {folder.path / LOG}"]
    return f"{'; '.join(failures)}{no_space(folder.path)}" if failures else None


def _versions(cluster: LiveCluster) -> dict[str, str]:
    versions = {"python": platform.python_version(), "toxiproxy": cluster.toxiproxy.version()}
    for package in ("aiomqtt", "paho-mqtt", "locust", "msgspec", "uvloop", "pandas"):
        versions[package] = metadata.version(package)
    return {**versions, **cluster.versions()}
