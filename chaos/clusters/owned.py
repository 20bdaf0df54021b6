"""A cluster whose parts are ours: nodes and broker can be killed, paused and started again.

A cluster of this kind says how to kill, start, stop and continue one part by name (``n1``,
``broker``, ``toxiproxy``), and how to reach a node's log while it is down.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.record.run_folder import NodeRecord
from chaos.clusters.live import LiveCluster
from chaos.errors import TargetFailed
from nodes.__main__ import EXIT_DISK
from nodes.faults.capabilities import CanKill, CanPause, CanStopBroker, DamagesLogs
from nodes.faults.injected import CrashAt, FsyncError, FullDisk, Injected
from nodes.runtime.durable_log import MAGIC

MIN_FLIP_BYTES = 2000
_STOPS = (FsyncError, FullDisk)
_KILLED = (-9, 137)
"""Exit codes of a process that was killed (SIGKILL), as a parent and as a shell see it."""


class OwnedCluster(LiveCluster, CanKill, CanPause, CanStopBroker, DamagesLogs):
    """See `LiveCluster`."""

    def __init__(
        self,
        nodes: tuple[str, ...],
        *,
        record: Callable[[NodeRecord], None] | None,
        seed: int,
    ) -> None:
        super().__init__(nodes, record=record, seed=seed)
        self._flipped: dict[str, int] = {}
        self._exited: set[str] = set()

    # --- what a cluster does for its parts; each raises TargetFailed ---

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

    # --- health ---

    def check(self) -> None:
        """Raise TargetFailed if a node or the broker has ended that nobody stopped, or if something
        could not be recorded. Toxiproxy is replaced if it has ended or answers no more."""
        self._check_toxiproxy()
        for name, code in self.ended().items():
            if self._ended_by_fault(name, code):
                if name not in self._exited:
                    self._exited.add(name)
                    self.monitor.forget(name)
                    self._tell(name, "exited")
            elif name in (*self.nodes, "broker"):
                disk = " (its disk failed)" if name in self.nodes and code == EXIT_DISK else ""
                raise TargetFailed(f"{name} ended with code {code}{disk}; {self.last_words(name)}")
        self._check_record()

    # --- what the nemesis does ---

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
        self._confirmed[node] = self._at_start(node)
        self._paused.discard(node)
        self._start(node)

    def _at_start(self, node: str) -> dict[int, Injected]:
        """The injections that a node gets with its settings: all, unless a target overrides it."""
        return dict(self._injected[node])

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
                self._kill(node)  # From here on its end is expected.
            del self._injected[node][number]
            if restart:
                self._exited.discard(node)
                self._start_node(node)
                self._tell(node, "restarted")

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
