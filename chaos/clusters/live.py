"""Shared by clusters with real nodes: a Toxiproxy, and how faults get there.

Links are managed here, and for our own nodes, which have a broker, injections. Parts are named
``n1``, ``broker``, ``toxiproxy``.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from bench.load.workload import Workload
from bench.record.cluster_file import Address, ClusterFile, SystemFile
from bench.record.run_folder import NodeRecord
from chaos.clusters.links import Links, ProxiedLinks
from chaos.clusters.monitor import Monitor, NodeSilent, Watch
from chaos.clusters.processes import ProcessError, ProcessGroup, last_words
from chaos.clusters.toxiproxy import Toxiproxy, ToxiproxyError, replace_server, spawn_server
from chaos.errors import TargetFailed
from nodes.errors import InfrastructureFailed
from nodes.faults.capabilities import CanInject, CarriesFrames, Cluster, ShapesStreams
from nodes.faults.injected import Injected
from nodes.runtime import own_folder
from nodes.wire.links import GROUP

START_TIMEOUT_S = 30.0

LOOK_AT_TOXIPROXY_S = 1.0


class RunningCluster(Cluster):
    """A running cluster that can be reached. Use it as a context manager: whatever it started is
    gone afterwards, even after an exception or if this process is killed.

    ``record`` is called with what the nodes report (from another thread). ``cluster_path``: where
    load reads how to reach it. ``notes``: what a report must say of it.
    """

    links: ProxiedLinks
    toxiproxy: Toxiproxy
    monitor: Watch
    processes: ProcessGroup
    cluster_file: ClusterFile | SystemFile
    cluster_path: Path
    logs: str
    """Where they lie, for an error line."""

    def __init__(
        self, nodes: tuple[str, ...], *, record: Callable[[NodeRecord], None] | None
    ) -> None:
        self.nodes = nodes
        self.clients = (GROUP,)
        self.notes: list[str] = []
        self._recorder = record
        self._unrecorded: OSError | None = None
        self._look_at = 0.0

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    # --- what a cluster says of its parts; each raises TargetFailed ---

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

    def observed(self) -> list[str]:
        """What a report must say of the run that has just ended, beside ``notes``."""
        return []

    def disproved(self) -> str | None:
        """Which fault was none, by what was observed; None: nothing says so."""
        return None

    def warm_up(self, workload: Workload) -> None:
        """Let it serve as much as the workload will want, if it needs time for that, and note
        it."""

    # --- health ---

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until all nodes expect to serve. Raises TargetFailed."""
        self._wait_until(self.monitor.ready, "the cluster was not ready", timeout_s)

    def _wait_until(self, condition: Callable[[], bool], failed: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.monitor.wait(condition, 0.5):
            self.check()
            if time.monotonic() > deadline:
                heard = self.monitor.statuses()
                silent = [n for n in self.nodes if not heard.get(n) or not heard[n].probe["ready"]]
                raise TargetFailed(
                    f"{failed} in {timeout_s:.0f} s; waiting for "
                    f"{', '.join(silent) or 'one leader'}; {self._where_to_look(silent)}"
                )

    def _where_to_look(self, silent: Sequence[str]) -> str:
        """What a message ends with that waits for these nodes."""
        return f"logs: {self.logs}"

    def check(self) -> None:
        """Raise TargetFailed if a part has ended that nobody stopped, or if something could not be
        recorded. Toxiproxy is replaced if it has ended or answers no more."""
        self._check_toxiproxy()
        self._check_record()

    def _check_toxiproxy(self) -> None:
        try:
            if "toxiproxy" in self.ended() or time.monotonic() > self._look_at:
                self._look_at = time.monotonic() + LOOK_AT_TOXIPROXY_S
                self.links.rebuild()
        except (ToxiproxyError, ProcessError) as error:
            raise TargetFailed(f"Toxiproxy: {error}; {self.last_words('toxiproxy')}") from None

    def _check_record(self) -> None:
        if (full := self._unrecorded) is not None:
            raise TargetFailed(f"{full.filename}: {full.strerror}")

    def leader(self) -> str | None:
        """The node that calls itself leader in the highest term."""
        return self.monitor.leader()

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


class SpawnedCluster(RunningCluster):
    """One of child processes of this one, at least its Toxiproxy. ``_directory`` takes everybody's
    log, and ``_api`` is the address of Toxiproxy. ``_recorded``: the run folder, if there is one:
    what the nodes stored is removed at the end then, unless it may tell why the run failed."""

    _directory: Path
    _api: Address
    _recorded: Path | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self.processes = ProcessGroup()
        try:
            self._start_all()
        except ToxiproxyError as error:
            self._stop()
            raise TargetFailed(f"Toxiproxy: {error}; {self.last_words('toxiproxy')}") from None
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        failed = isinstance(error[1], InfrastructureFailed)
        self._stop(discard=self._recorded is not None and not failed)

    def _start_all(self) -> None:
        raise NotImplementedError

    def _stop(self, *, discard: bool = False) -> None:
        """Stop what `_start_all` has started, even if it did not come to its end."""
        raise NotImplementedError

    def _hang_up(self) -> None:
        """Leave the nodes and Toxiproxy alone."""
        monitor: Watch | None = getattr(self, "monitor", None)
        if monitor is not None:
            monitor.__exit__()
        toxiproxy: Toxiproxy | None = getattr(self, "toxiproxy", None)
        if toxiproxy is not None:
            toxiproxy.close()

    def _discard(self) -> None:
        for node in self.nodes:
            own_folder.remove(self._directory / node)

    def _start_toxiproxy(self) -> None:
        spawn_server(self.processes, self._api, self.log_path("toxiproxy"))
        self.processes.wait_for("toxiproxy", self._api, self.log_path("toxiproxy"))
        self.toxiproxy = Toxiproxy(self._api)

    def _restart_toxiproxy(self) -> None:
        self.notes.append(replace_server(self.processes, self._api, self.log_path("toxiproxy")))

    def log_path(self, name: str) -> Path:
        """Where a process writes its log."""
        return self._directory / f"{name}.log"

    def running(self, name: str) -> bool:
        """See `RunningCluster`."""
        return self.processes.running(name)

    def ended(self) -> dict[str, int]:
        """See `RunningCluster`."""
        return self.processes.ended()

    def last_words(self, name: str) -> str:
        """See `RunningCluster`."""
        return last_words(self.log_path(name))


class LiveCluster(RunningCluster, CanInject, CarriesFrames, ShapesStreams):
    """A running cluster of our own nodes and a broker: see `RunningCluster`."""

    links: Links
    monitor: Monitor
    cluster_file: ClusterFile

    def __init__(
        self,
        nodes: tuple[str, ...],
        *,
        record: Callable[[NodeRecord], None] | None,
        seed: int,
    ) -> None:
        super().__init__(nodes, record=record)
        self.rng = random.Random(f"live-{seed}")
        self._data_lock = threading.Lock()
        self._down: set[str] = set()
        self._injected: dict[str, dict[int, Injected]] = {node: {} for node in nodes}
        self._confirmed: dict[str, dict[int, Injected]] = {node: {} for node in nodes}
        self._paused: set[str] = set()
        self._unplugged: set[str] = set()
        self._broker_away: set[str] = set()

    # --- what a cluster does; each raises TargetFailed ---

    def _restart_toxiproxy(self) -> None:
        """Replace it by one that has nothing in it."""
        raise NotImplementedError

    # --- what the nemesis does ---

    def inject(self, node: str, number: int, injected: Injected) -> None:
        """Send the order to the node, now or as soon as it can hear, and at each start. Raises
        NodeSilent if it does not confirm."""
        with self._data_lock:
            self._injected[node][number] = injected
        self._tell_injected(node)

    def withdraw(self, node: str, number: int) -> None:
        """Take it back."""
        if number in self._injected[node]:
            self._tell_injected(node, but=number)
            with self._data_lock:
                del self._injected[node][number]

    def _tell_injected(self, node: str, but: int | None = None) -> None:
        """Send a node its current injections, ``but`` the one of that number, and withdraw old
        ones.

        A paused node hears nothing, nor does an unplugged one, nor anyone while the broker is down:
        they get their orders when they resume. Until then they do nothing that a fault could
        affect.
        """
        deaf = self._paused | self._unplugged
        if not self.running(node) or node in deaf or self._broker_away:
            return
        wanted = {n: each for n, each in self._injected[node].items() if n != but}
        confirmed = self._confirmed[node]
        try:
            for number in [n for n in confirmed if n not in wanted]:
                self.monitor.withdraw(node, number)
                del confirmed[number]
            for number in [n for n in wanted if n not in confirmed]:
                self.monitor.inject(node, number, wanted[number])
                confirmed[number] = wanted[number]
        except NodeSilent:
            if self.running(node):
                raise
