"""What the nodes of a system say of themselves, asked again and again past all proxies."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import msgspec

from bench.record.cluster_file import STALE_S
from bench.record.run_folder import NodeRecord
from chaos.clusters.lab.usage import Usage
from chaos.clusters.monitor import Watch
from chaos.systems.system import Probe, System

EVERY_S = 0.25
SYNCS_EVERY_S = 1.0
"""To say it may cost a system more than a status does."""
_RECORD_EVERY_NS = 1_000_000_000


class SystemWatch(Watch):
    """Asks each node in a thread of its own. Use as a context manager.

    ``record``: called with every status that says something new, and else once a second and node,
    and with every change of a role, as our own nodes tell it. ``usage``: what is known of the nodes
    without asking (None: nothing); how often they have synced is asked once a second.
    """

    _latest: dict[str, tuple[int, Probe]]

    def __init__(
        self,
        system: System,
        hosts: Mapping[str, str],
        record: Callable[[NodeRecord], None],
        usage: Usage | None = None,
    ) -> None:
        super().__init__(hosts)
        self._usage = usage
        self._system = system
        self._hosts = dict(hosts)
        self._record = record
        self._problems: dict[str, str] = {}
        self._told: dict[str, tuple[int, Probe]] = {}
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(node,), name=f"watch {node}", daemon=True)
            for node in hosts
        ]

    @property
    def unrecorded(self) -> Mapping[str, int]:
        """Nothing is left out."""
        return {}

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(5)

    def _ask(self, node: str) -> None:
        syncs_at = 0.0
        while not self._ended.is_set():
            try:
                probe = self._system.probe(self._hosts[node])
            except Exception as error:  # A system's own code, which knows why.
                probe = None
                self._problems[node] = " ".join(str(error).split()) or type(error).__name__
            now_ns = time.monotonic_ns()
            with self._changed:
                if probe is not None:
                    self._latest[node] = now_ns, probe
                self._changed.notify_all()
            if probe is not None:
                if time.monotonic() >= syncs_at:
                    syncs_at = time.monotonic() + SYNCS_EVERY_S
                    self._ask_syncs(node)
                self._tell(node, now_ns, probe)
            self._ended.wait(EVERY_S)

    def _ask_syncs(self, node: str) -> None:
        with contextlib.suppress(Exception):  # A system's own code; what it says costs nothing.
            count = self._system.syncs(self._hosts[node])
            if count is not None and self._usage is not None:
                self._usage.synced(node, count)

    def _tell(self, node: str, now_ns: int, probe: Probe) -> None:
        at_ns, before = self._told.get(node, (0, None))
        same = before is not None and _without_position(before) == _without_position(probe)
        if same and now_ns - at_ns < _RECORD_EVERY_NS:
            return
        self._told[node] = now_ns, probe
        if before is not None and probe.role not in (before.role, None):
            name, details = f"become_{probe.role}", {"term": probe.term}
            event = NodeRecord(t_ns=now_ns, node=node, kind="event", name=name, details=details)
            self._record(event)
        self._record(self._as_record(node, now_ns, probe))

    def _as_record(self, node: str, at_ns: int, probe: Probe) -> NodeRecord:
        said: dict[str, Any] = {
            "role": probe.role,
            "leader": self._node_of(probe.leader),
            "term": probe.term,
            "position": probe.position,
            "ready": probe.ready,
        }
        counters = {} if self._usage is None else self._usage.counters(node)
        return NodeRecord(t_ns=at_ns, node=node, kind="status", probe=said, counters=counters)

    def _node_of(self, id_: str | None) -> str | None:
        """The node that the system names so."""
        if id_ is None:
            return None
        with self._changed:
            named = {probe.id: node for node, (_, probe) in self._latest.items()}
        return named.get(id_, id_)

    # --- `Watch` ---

    def _probes(self) -> dict[str, tuple[int, Probe]]:
        now_ns = time.monotonic_ns()
        with self._changed:
            return {
                node: self._latest[node]
                for node in self._nodes
                if node in self._latest and now_ns - self._latest[node][0] < STALE_S * 1e9
            }

    def statuses(self) -> dict[str, NodeRecord]:
        """See `Watch`."""
        return {node: self._as_record(node, *said) for node, said in self._probes().items()}

    def converged(self, nodes: Iterable[str], timeout_s: float) -> bool | None:
        """Whether they have applied the same, by what they say of it since now."""
        wanted, since_ns = list(nodes), time.monotonic_ns()

        def fresh() -> dict[str, Probe]:
            return {
                node: probe
                for node, (at_ns, probe) in self._probes().items()
                if node in wanted and at_ns > since_ns
            }

        def agreed() -> bool:
            probes = fresh()
            positions = {probe.position for probe in probes.values()}
            return len(probes) == len(wanted) and len(positions) == 1

        if self.wait(agreed, timeout_s):
            return True
        return False if len(fresh()) == len(wanted) else None

    def problem(self, node: str) -> str:
        """Why its last probe that failed did."""
        return self._problems.get(node, "no answer")


def _without_position(probe: Probe) -> Probe:
    return msgspec.structs.replace(probe, position=None)
