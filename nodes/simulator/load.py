"""Clients of a simulated cluster, and the history of what they saw.

A *process* is a logical client with one operation open at a time; after an operation that ended
``info`` it is never used again, and another takes its place. Requests and replies travel on a
network of their own, which can lose them: "the request was lost" and "applied, but the reply was
lost" look the same to a client.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from nodes.contract.replica import Operation, OperationKind, Outcome, Reply, Request, Value, Version
from nodes.simulator.cluster import Cluster
from nodes.simulator.story import Arrow

Retry = Literal["never", "same", "other"]


class OperationRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One operation of the history. The fields and their meaning are those of
    ``bench.record.history.OperationRecord``, with virtual nanoseconds; `msgspec.convert` makes one
    of the other (``from_attributes=True``)."""

    process: str
    id: int
    op: OperationKind
    key: str
    outcome: Outcome
    invoked_ns: int
    completed_ns: int | None = None
    intended_ns: int | None = None
    value: Value | list[Value] = None
    expected: Value = None
    applied: bool | None = None
    seen: Value = None
    node: str | None = None
    version: Version = None
    error: str | None = None


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """How clients behave. ``timeout_s``: after that an operation ends ``info``. ``retry``: whether
    an unanswered request is sent again under the same (client, sequence), to the same node or to
    another one, every ``retry_after_s``. ``latency_s``: one way between client and node; ``loss``:
    per message."""

    timeout_s: float = 1.0
    retry: Retry = "never"
    retry_after_s: float = 0.3
    latency_s: float = 0.0005
    loss: float = 0.0


class _Open:
    """An operation under way."""

    __slots__ = ("attempts", "done", "on_end", "record", "request")

    def __init__(
        self, record: OperationRecord, request: Request, on_end: Callable[[OperationRecord], None]
    ) -> None:
        self.record = record
        self.request = request
        self.on_end = on_end
        self.attempts = 0
        self.done = False


class Clients:
    """Sends operations of any number of processes and keeps the history.

    ``request_loss`` and ``reply_loss``: per node, the probability that faults add to
    `Manners.loss`.
    """

    def __init__(self, cluster: Cluster, manners: Manners) -> None:
        self.cluster = cluster
        self.history: list[OperationRecord] = []
        self.request_loss: dict[str, float] = {}
        self.reply_loss: dict[str, float] = {}
        self._manners = manners
        self._timeline = cluster.timeline
        self._rng = cluster.rng("client network")
        self._open: dict[tuple[str, int], _Open] = {}
        self._sequences: dict[str, int] = {}
        self._count = 0
        cluster.reply_to = self._on_reply

    def invoke(
        self,
        process: str,
        node: str,
        operation: Operation,
        on_end: Callable[[OperationRecord], None],
        *,
        intended_s: float | None = None,
    ) -> None:
        """Send an operation now; ``on_end`` gets its record once its outcome is known."""
        now_ns = int(self._timeline.now * 1e9)
        sequence = self._sequences.get(process, 0)
        self._sequences[process] = sequence + 1
        record = OperationRecord(
            process=process,
            id=self._count,
            op=operation.op,
            key=operation.key,
            outcome="info",
            invoked_ns=now_ns,
            intended_ns=now_ns if intended_s is None else int(intended_s * 1e9),
            value=operation.value,
            expected=operation.expected,
            node=node,
        )
        self._count += 1
        self.history.append(record)
        # One operation at a time: all earlier ones of this client have their results.
        request = Request(process, sequence, operation, sequence)
        opened = self._open[process, sequence] = _Open(record, request, on_end)
        self._send((opened, node))
        self._timeline.at(self._timeline.now + self._manners.timeout_s, self._time_out, opened)

    def calm(self) -> None:
        """No more losses and no more retries between clients and nodes."""
        self.request_loss.clear()
        self.reply_loss.clear()
        self._manners = Manners(timeout_s=max(1.0, self._manners.timeout_s))

    def close(self) -> None:
        """Operations that are still open end ``info``; nobody is told."""
        for opened in self._open.values():
            opened.done = True
        self._open.clear()

    def _send(self, what: tuple[_Open, str]) -> None:
        opened, node = what
        if opened.done:
            return
        opened.attempts += 1
        manners = self._manners
        timeline = self._timeline
        if timeline.transcript is not None:
            again = " (again)" if opened.attempts > 1 else ""
            timeline.say(f"{opened.request.client} -> {node}  {opened.request!r}{again}")
        arrives_s: float | None = None
        lost = 1 - (1 - manners.loss) * (1 - self.request_loss.get(node, 0.0))
        if not lost or self._rng.random() >= lost:
            delay_s = manners.latency_s * (0.5 + self._rng.random())
            arrives_s = timeline.now + delay_s
            timeline.at(arrives_s, self.cluster.hosts[node].receive, opened.request)
        if timeline.story is not None:
            operation = opened.request.operation
            label = f"{operation.op} {operation.key}"
            if operation.value is not None:
                label += f"={operation.value}"
            self._tell(opened.request.client, node, label, repr(opened.request), arrives_s)
        if manners.retry != "never":
            if manners.retry == "other":
                nodes = self.cluster.nodes
                step = 1 + int(self._rng.random() * (len(nodes) - 1))
                node = nodes[(nodes.index(node) + step) % len(nodes)]
            timeline.at(timeline.now + manners.retry_after_s, self._send, (opened, node))

    def _on_reply(self, node: str, reply: Reply) -> None:
        lost = 1 - (1 - self._manners.loss) * (1 - self.reply_loss.get(node, 0.0))
        arrives_s: float | None = None
        if lost and self._rng.random() < lost:
            self._timeline.say(f"{node} -> {reply.client}  LOST reply")
        else:
            delay_s = self._manners.latency_s * (0.5 + self._rng.random())
            arrives_s = self._timeline.now + delay_s
            self._timeline.at(arrives_s, self._arrive, reply)
        if self._timeline.story is not None:
            label = reply.outcome if reply.value is None else f"{reply.outcome} {reply.value}"
            self._tell(node, reply.client, label, repr(reply), arrives_s)

    def _tell(self, src: str, dst: str, label: str, text: str, arrives_s: float | None) -> None:
        timeline = self._timeline
        assert timeline.story is not None
        arrow = Arrow(
            src=src, dst=dst, label=label, text=text, sent_s=timeline.now, arrived_s=arrives_s
        )
        arrow.fate = "lost" if arrives_s is None else "arrived"
        timeline.story.arrows.append(arrow)

    def _arrive(self, reply: Reply) -> None:
        opened = self._open.get((reply.client, reply.sequence))
        if opened is None:
            return
        if reply.outcome != "ok" and opened.attempts > 1:
            # This node knows nothing of what the other attempts did. One of them may still answer;
            # else the operation times out as info.
            return
        record = opened.record
        record.outcome = reply.outcome
        record.error = reply.error
        if reply.outcome != "info":
            record.completed_ns = int(self._timeline.now * 1e9)
        if reply.outcome == "ok":
            record.version = reply.version
            record.applied = reply.applied
            record.seen = reply.seen
            if record.op == "read":
                record.value = reply.value
        self._end(opened)

    def _time_out(self, opened: _Open) -> None:
        if not opened.done:
            opened.record.error = "timeout"
            self._end(opened)

    def _end(self, opened: _Open) -> None:
        opened.done = True
        del self._open[opened.request.client, opened.request.sequence]
        record = opened.record
        if self._timeline.transcript is not None:
            self._timeline.say(
                f"{record.process} {record.op} {record.key} ended {record.outcome} {record.value!r}"
            )
        opened.on_end(record)


class Habits(msgspec.Struct, frozen=True, kw_only=True):
    """What random clients do: shares of the operations (the rest are writes), how many keys they
    use and how long they think on average. ``sticky``: a client stays on its node; ``context``: a
    write tells the version that the client read last, for protocols that keep siblings."""

    clients: int = 10
    keys: int = 3
    think_s: float = 0.2
    reads: float = 0.5
    cas: float = 0.1
    deletes: float = 0.0
    sticky: bool = False
    context: bool = True


class RandomClients:
    """Closed-loop clients, each with a random stream of its own and values that nobody else
    writes."""

    def __init__(
        self, clients: Clients, habits: Habits, operations: Sequence[OperationKind]
    ) -> None:
        self.clients = clients
        self.habits = habits
        self.operations = operations
        self.running = True
        self._cluster = clients.cluster
        self._members = [_RandomClient(self, f"c{i + 1}") for i in range(habits.clients)]

    def start(self) -> None:
        """Every client begins to think."""
        for member in self._members:
            member.think()

    def stop(self) -> None:
        """No new operations."""
        self.running = False


class _RandomClient:
    def __init__(self, group: RandomClients, name: str) -> None:
        self._group = group
        self._clients = group.clients
        self._timeline = group.clients.cluster.timeline
        self._rng: random.Random = group.clients.cluster.rng(f"client/{name}")
        self._name = name
        self._process = name
        self._generation = 0
        self._written = 0
        self._known: dict[str, tuple[Value, Version]] = {}
        self._node = self._any_node()

    def _any_node(self) -> str:
        nodes = self._clients.cluster.nodes
        return nodes[int(self._rng.random() * len(nodes))]

    def think(self) -> None:
        """Wait a while, then act."""
        pause_s = 2 * self._rng.random() * self._group.habits.think_s
        self._timeline.at(self._timeline.now + pause_s, self._act)

    def _act(self, _: None) -> None:
        if not self._group.running:
            return
        habits = self._group.habits
        draw = self._rng.random
        if not habits.sticky:
            self._node = self._any_node()
        key = f"k{int(draw() * habits.keys)}"
        operation = self._choose(draw(), key)
        self._clients.invoke(self._process, self._node, operation, self._on_end)

    def _choose(self, share: float, key: str) -> Operation:
        habits = self._group.habits
        offered = self._group.operations
        value, version = self._known.get(key, (None, None))
        context = version if habits.context else None
        if share < habits.reads:
            return Operation("read", key)
        share -= habits.reads
        if "cas" in offered:
            if share < habits.cas:
                return Operation("cas", key, self._fresh(), expected=value)
            share -= habits.cas
        if share < habits.deletes and "delete" in offered:
            return Operation("delete", key, context=context)
        return Operation("write", key, self._fresh(), context=context)

    def _fresh(self) -> str:
        self._written += 1
        return f"{self._name}.{self._written}"

    def _on_end(self, record: OperationRecord) -> None:
        if record.outcome == "info":
            self._generation += 1
            self._process = f"{self._name}-{self._generation}"
            if self._group.habits.sticky:
                self._node = self._any_node()
        elif record.outcome == "ok":
            self._learn(record)
        self.think()

    def _learn(self, record: OperationRecord) -> None:
        value = record.seen if record.applied is False else record.value
        if record.op in ("read", "cas"):
            known = None if isinstance(value, list) else value
            self._known[record.key] = (known, record.version)


class PlannedOperation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that a workload wants sent at ``intended_s`` to ``node``."""

    intended_s: float
    node: str
    operation: Operation


class PlannedLoad:
    """Open loop: sends a list of operations at their intended times, by whichever process is free.

    ``in_flight``: how many may be open at once; what comes on top is dropped and counted by its
    intended time. Processes are named ``<prefix>1``, ``<prefix>2`` ...
    """

    def __init__(
        self,
        clients: Clients,
        plan: Sequence[PlannedOperation],
        *,
        in_flight: int = 256,
        prefix: str = "c",
    ) -> None:
        self.dropped: list[PlannedOperation] = []
        self._clients = clients
        self._in_flight = in_flight
        self._prefix = prefix
        self._idle: deque[str] = deque()
        self._open = 0
        self._named = 0
        for planned in plan:
            clients.cluster.timeline.at(planned.intended_s, self._send, planned)

    def _send(self, planned: PlannedOperation) -> None:
        if self._open >= self._in_flight:
            self.dropped.append(planned)
            return
        self._open += 1
        if self._idle:
            process = self._idle.popleft()
        else:
            self._named += 1
            process = f"{self._prefix}{self._named}"
        self._clients.invoke(
            process,
            planned.node,
            planned.operation,
            self._on_end,
            intended_s=planned.intended_s,
        )

    def _on_end(self, record: OperationRecord) -> None:
        self._open -= 1
        if record.outcome != "info":
            self._idle.append(record.process)
