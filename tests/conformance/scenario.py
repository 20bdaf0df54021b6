"""A short scenario on a simulated cluster, with one crash at a chosen boundary.

Played once without a crash it counts the boundaries that each node passes; played again with one of
them it is the same up to there (a run is a function of its seed), and then that node dies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from bench.checkers.convergence import check_convergence, covers
from bench.checkers.linearizability import check_linearizable
from bench.record.columns import Columns
from bench.record.history import OperationRecord
from nodes.contract.replica import Operation, OperationKind
from nodes.registry import Protocol
from nodes.simulator import load
from nodes.simulator.cluster import Cluster
from nodes.simulator.host import Trap, TrapPoint
from nodes.simulator.load import ClientPolicy, Clients

TRAPS: tuple[TrapPoint, ...] = (
    "before-fsync",
    "in-fsync",
    "after-fsync",
    "after-release",
    "after-send",
    "after-reply",
)
POINTS = (*TRAPS, "after-step")
"""Where a node can die: around each fsync, after each message and reply that leaves it, and after
each step. It stays down for a while, so what arrives next is lost as well."""
DOWN_S = 0.05
SCRIPT_BOUND_S = 60.0
SETTLE_BOUND_S = 30.0
KEYS = ("x", "y")

LEARNS_WHEN_ASKED = frozenset({"paxos-basic"})
"""Protocols that do nothing when no client wants anything, not even tell a node what it missed. It
learns that when it is asked next."""


class Boundary(NamedTuple):
    """The ``nth`` time that ``node`` passes ``point``. ``power``: all nodes die with it. ``torn``:
    the share of its unsynced writes, oldest first, that reached the disk all the same."""

    node: str
    point: str
    nth: int
    power: bool = False
    torn: float = 0.0

    def __str__(self) -> str:
        who = "a power failure" if self.power else "a crash"
        torn = f", {self.torn:.0%} of its unsynced writes survive" if self.torn else ""
        return f"{who} of {self.node} {self.point} number {self.nth}{torn}"


class Played(NamedTuple):
    """``counts``: how often each (node, point) was passed before the scripts ended."""

    history: list[OperationRecord]
    cluster: Cluster
    counts: dict[tuple[str, str], int]


def boundaries(counts: dict[tuple[str, str], int]) -> list[Boundary]:
    """All of a scenario, in a fixed order."""
    single = [
        Boundary(node, point, nth)
        for (node, point), count in counts.items()
        for nth in range(1, count + 1)
    ]
    # With the others alive a lost acknowledgement may go unnoticed; with all dead it cannot.
    power = [b._replace(power=True) for b in single if b.point in ("after-send", "after-reply")]
    torn = [
        b._replace(torn=share)
        for b in single
        for share in (0.5, 1.0)
        if b.point in ("before-fsync", "after-step")
    ]
    return single + power + torn


class _Scenario:
    def __init__(self, protocol: Protocol, boundary: Boundary | None) -> None:
        self.protocol = protocol
        self.boundary = boundary
        self.cluster = Cluster(protocol, nodes=3, seed=7)
        policy = ClientPolicy(timeout_s=8.0, retry="same", retry_after_s=0.3)
        self.clients = Clients(self.cluster, policy)
        self.steps = dict.fromkeys(self.cluster.nodes, 0)
        self.due: Boundary | None = None
        self.open = 0
        self.cluster.observers.append(self._observe)
        self.traps: dict[tuple[str, str], Trap] = {}
        for node, host in self.cluster.hosts.items():
            for point in TRAPS:
                trap = Trap(point=point, nth=1 << 60, down_s=DOWN_S)
                if boundary is not None and (node, point) == boundary[:2]:
                    trap.nth, trap.everybody = boundary.nth, boundary.power
                    trap.torn = boundary.torn
                self.traps[node, point] = trap
                host.traps.append(trap)

    def _observe(self, node: str, replica: Any) -> None:
        self.steps[node] += 1
        b = self.boundary
        if b is not None and (node, "after-step", self.steps[node]) == b[:3]:
            self.due = b
            self.cluster.timeline.stop()

    def until(self, done: Callable[[], bool], bound_s: float, what: str) -> None:
        """Let time pass until ``done``."""
        end_s = self.cluster.now + bound_s
        while not done():
            self.cluster.timeline.run_until(min(end_s, self.cluster.now + 0.05))
            if self.due is not None:
                host, torn = self.cluster.hosts[self.due.node], self.due.torn
                self.due = None
                host.crash(torn=torn, why="after a step")
                host.restart_after(DOWN_S)
            assert self.cluster.now < end_s, f"{what} takes longer than {bound_s:g} s"

    def script(self, name: str, node: str, operations: list[Operation]) -> None:
        """A client of ``node`` does one operation after the other."""
        self.open += 1
        rest = iter(operations)
        process = [name]

        def go(record: load.OperationRecord | None) -> None:
            if record is not None and record.outcome == "info":
                process.append(f"{name}{len(process)}")
            operation = next(rest, None)
            if operation is None:
                self.open -= 1
            else:
                self.clients.invoke(process[-1], node, operation, go)

        go(None)

    def play(self) -> Played:
        read: OperationKind = "read"
        write: OperationKind = "write"
        cas: OperationKind = "cas"
        scripts: dict[str, list[tuple[OperationKind, str, int | None]]] = {
            "a": [(write, "x", 1), (read, "x", None), (write, "y", 2), (write, "x", 3)],
            "b": [(read, "x", None), (write, "x", 1), (cas, "x", 2), (read, "x", None)],
            "c": [(write, "y", 1), (read, "x", None), (cas, "y", 2), (read, "y", None)],
        }
        for (name, lines), node in zip(scripts.items(), self.cluster.nodes, strict=True):
            offered = self.protocol.operations
            operations = [
                _operation(name, op, key, number) for op, key, number in lines if op in offered
            ]
            self.script(name, node, operations)
        self.until(lambda: self.open == 0, SCRIPT_BOUND_S, "the script")
        counts = {where: trap.passed for where, trap in self.traps.items()}
        counts |= {(node, "after-step"): count for node, count in self.steps.items()}
        self._settle()
        history = [
            msgspec.convert(record, OperationRecord, from_attributes=True)
            for record in self.clients.history
        ]
        return Played(history, self.cluster, counts)

    def _settle(self) -> None:
        """All nodes serve again, agree, and tell what they hold."""
        cluster = self.cluster
        self.until(
            lambda: all(host.up for host in cluster.hosts.values()), SETTLE_BOUND_S, "a restart"
        )
        for node in cluster.nodes:
            self.script(f"end.{node}", node, [Operation("write", "x", f"end.{node}")])
        self.until(lambda: self.open == 0, SETTLE_BOUND_S, "a write after all is well")
        if self.protocol.name not in LEARNS_WHEN_ASKED:
            self.until(cluster.converged, SETTLE_BOUND_S, "agreement of all nodes")
        for node in cluster.nodes:
            reads = [Operation("read", key) for key in KEYS]
            self.script(f"final.{node}", node, reads)
        self.until(lambda: self.open == 0, SETTLE_BOUND_S, "the final reads")
        assert cluster.converged(), cluster.states()


def _operation(client: str, op: OperationKind, key: str, number: int | None) -> Operation:
    """``number``: of the value that the client writes; a CAS expects the one before."""
    if number is None:
        return Operation(op, key)
    expected = f"{client}.{number - 1}" if op == "cas" else None
    return Operation(op, key, f"{client}.{number}", expected)


def play(protocol: Protocol, boundary: Boundary | None = None) -> Played:
    """Play the scenario. Raises AssertionError (also of the protocol's own) with the boundary."""
    try:
        return _Scenario(protocol, boundary).play()
    except Exception as error:
        raise AssertionError(f"{protocol.name}, {boundary}: {error}") from error


def judge(protocol: Protocol, played: Played) -> None:
    """What must hold of a scenario, whatever the crash. Raises AssertionError."""
    history = played.history
    nobody_saw_what_failed(history)
    final = [r for r in history if r.process.startswith(("end", "final"))]
    assert all(record.outcome == "ok" for record in final), final
    linearizable = check_linearizable(Columns.from_records(history))
    if protocol.claim == "linearizable":
        assert linearizable.verdict == "valid", linearizable.summary
        return
    assert linearizable.details.kind != "never-written", linearizable.summary
    convergence = check_convergence(history, played.cluster.nodes)
    assert convergence.details.converged, convergence.summary
    assert not convergence.details.phantoms, convergence.summary
    # Not `lost_writes`: a protocol that lets the newest version win may order two writes otherwise
    # than a clock on the wall would, if the second writer had not heard of the first write.
    for write in history:
        if write.op != "read" and write.outcome == "ok" and write.applied is not False:
            for read in final:
                if read.op == "read" and read.key == write.key and read.value != write.value:
                    assert covers(read, write) is not False, f"lost: {write}, final: {read}"


def nobody_saw_what_failed(history: list[OperationRecord]) -> None:
    """``fail`` means: not applied, now or later. Values are unique, so whoever sees one of a failed
    write refutes it."""
    failed: dict[tuple[str, object], OperationRecord] = {
        (record.key, record.value): record
        for record in history
        if record.outcome == "fail" and record.op in ("write", "cas")
    }
    for record in history:
        if record.outcome != "ok":
            continue
        seen: Sequence[object] = [record.seen] if record.op == "cas" else []
        if record.op == "read":
            seen = record.value if isinstance(record.value, list) else [record.value]
        for value in seen:
            writer = failed.get((record.key, value))
            assert writer is None, (
                f"{record.process} saw {record.key}={value!r}, but {writer.process}'s"
                f" {writer.op} of it ended fail ({writer.error})"
            )
