"""Clients of a simulated cluster, and the history of what they saw.

A *process* has one operation open at a time; after an operation that ended ``info`` it is never
used again, and another takes its place. A *session* is what replicas know as a client: it numbers
its requests, and may have several processes. Requests and replies travel on a network of their own,
which can lose them: "the request was lost" and "applied, but the reply was lost" look the same to a
client.

*Impolite clients* send what they need not, and what may arrive when nobody waits for it any more:
second copies that are late, requests that have been answered, and such as were refused. What a
client does never breaks its own promises. It calls an operation ``fail`` only if each copy that it
sent was refused, for a refusal speaks of one copy; and from then on it asks nobody again but the
node that refused last.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from nodes.contract.replica import Operation, OperationKind, Outcome, Reply, Request, Value, Version
from nodes.simulator.answers import Answers
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


class ClientPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How clients behave. ``timeout_s``: after that an operation ends ``info``. ``retry``: whether
    an unanswered request is sent again under the same (client, sequence), to the same node or to
    another one, every ``retry_after_s``. ``latency_s``: one way between client and node; ``loss``:
    per message.

    Probabilities: ``copies``, a second copy of a request is sent, which takes up to ``late_s``;
    ``repeats``, a request is sent again up to ``late_s`` after it has ended; ``insists``, who was
    refused asks again before it takes that for an answer (and once more after that).

    ``at_once``: to how many nodes a request goes. ``elsewhere``: what is sent again may go to any
    node, else to the one asked first. ``lag``: how many results a client has that it does not
    acknowledge yet."""

    timeout_s: float = 1.0
    retry: Retry = "never"
    retry_after_s: float = 0.3
    latency_s: float = 0.0005
    loss: float = 0.0
    copies: float = 0.0
    repeats: float = 0.0
    insists: float = 0.0
    late_s: float = 0.0
    at_once: int = 1
    elsewhere: bool = False
    lag: int = 0


class _Open:
    """An operation under way."""

    __slots__ = ("attempts", "done", "on_end", "record", "refusals", "request")

    def __init__(
        self, record: OperationRecord, request: Request, on_end: Callable[[OperationRecord], None]
    ) -> None:
        self.record = record
        self.request = request
        self.on_end = on_end
        self.attempts = self.refusals = 0
        self.done = False


class _Session:
    """The next sequence of a client, and the operations that it has open, oldest first."""

    __slots__ = ("open", "sequence")

    def __init__(self) -> None:
        self.sequence = 0
        self.open: dict[int, _Open] = {}


class Clients:
    """Sends operations of any number of processes and keeps the history.

    ``answers``: who watches what is answered.
    """

    def __init__(
        self, cluster: Cluster, policy: ClientPolicy, answers: Answers | None = None
    ) -> None:
        self.cluster = cluster
        self.history: list[OperationRecord] = []
        self._request_loss: dict[str, float] = {}
        self._reply_loss: dict[str, float] = {}
        self._policy = policy
        self._answers = answers
        self._timeline = cluster.timeline
        self._rng = cluster.rng("client network")
        self._rude = cluster.rng("impolite clients").random
        self._sessions: dict[str, _Session] = {}
        self.requests: list[Request] = []
        """What was asked, in the order of the history."""
        self.way_s = 1.5 * policy.latency_s
        """The longest that a request or an answer is under way."""
        self.elsewhere: set[int] = set()
        """Numbers (`OperationRecord.id`) of what was sent to more than one node."""
        self._count = 0
        cluster.reply_to = self._on_reply
        if answers is not None:
            cluster.orphan_to = answers.on_orphan

    def invoke(
        self,
        process: str,
        node: str,
        operation: Operation,
        on_end: Callable[[OperationRecord], None],
        *,
        session: str | None = None,
        intended_s: float | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Send an operation now; ``on_end`` gets its record once its outcome is known. ``session``:
        the process has one of its own, if None. ``timeout_s``: instead of the policy's."""
        now_ns = int(self._timeline.now * 1e9)
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
        policy = self._policy
        client = session or process
        numbered = self._sessions.get(client)
        if numbered is None:
            numbered = self._sessions[client] = _Session()
        sequence = numbered.sequence
        numbered.sequence += 1
        # What is older than all that is open has its result, and is never sent again on purpose.
        acked = max(0, next(iter(numbered.open), sequence) - policy.lag)
        request = Request(client, sequence, operation, acked)
        self.requests.append(request)
        opened = numbered.open[sequence] = _Open(record, request, on_end)
        self._send((opened, node))
        ends_s = self._timeline.now + (timeout_s or policy.timeout_s)
        self._timeline.at(ends_s, self._time_out, opened)
        for _ in range(policy.at_once - 1):
            self._send_copy(opened, self._again_at(node))
        if policy.copies and self._rude() < policy.copies:
            self._send_copy(opened, self._again_at(node), policy.late_s * self._rude())

    def ask_again(self, record: OperationRecord, node: str) -> Request:
        """Send what was answered ``ok`` to another node, as a client does that has not heard the
        answer; it has to be the same. Returns the request."""
        request = self.requests[record.id]
        if self._answers is not None:
            self._answers.expect_anywhere(request)
        self.repeat(record.id, node)
        return request

    def repeat(self, number: int, node: str) -> None:
        """Send a request once more, as it was, to ``node``: the one of that number in the history,
        whether it has ended or not."""
        request = self.requests[number]
        opened = self._sessions[request.client].open.get(request.sequence)
        if opened is None:
            opened = _Open(self.history[number], request, lambda record: None)
            opened.done = True
        self._send_copy(opened, node)

    def lose(self, node: str, src: str, share: float) -> None:
        """From now on this share of the node's requests is lost, or of the replies if it is the
        sender ``src``, on top of `ClientPolicy.loss`."""
        (self._reply_loss if src == node else self._request_loss)[node] = share

    def calm(self) -> None:
        """No more losses, retries and misbehaviour between clients and nodes. Copies that are on
        their way arrive."""
        self._request_loss.clear()
        self._reply_loss.clear()
        self._policy = ClientPolicy(timeout_s=max(1.0, self._policy.timeout_s))

    def close(self) -> None:
        """Operations that are still open end ``info``; nobody is told."""
        for session in self._sessions.values():
            for opened in session.open.values():
                opened.done = True
            session.open.clear()

    def _send(self, what: tuple[_Open, str]) -> None:
        opened, node = what
        if opened.done:
            return
        self._send_copy(opened, node)
        policy = self._policy
        if policy.retry != "never":
            if policy.retry == "other":
                nodes = self.cluster.nodes
                step = 1 + int(self._rng.random() * (len(nodes) - 1))
                node = nodes[(nodes.index(node) + step) % len(nodes)]
            self._timeline.at(self._timeline.now + policy.retry_after_s, self._send, (opened, node))

    def _send_copy(self, opened: _Open, node: str, late_s: float = 0.0) -> None:
        """Send a request, for the first time or again. It arrives, if at all, ``late_s`` later than
        it would."""
        opened.attempts += 1
        if node != opened.record.node:
            self.elsewhere.add(opened.record.id)
        policy = self._policy
        timeline = self._timeline
        if timeline.transcript is not None:
            again = " (again)" if opened.attempts > 1 else ""
            timeline.say(f"{opened.request.client} -> {node}  {opened.request!r}{again}")
        arrives_s: float | None = None
        lost = 1 - (1 - policy.loss) * (1 - self._request_loss.get(node, 0.0))
        if not lost or self._rng.random() >= lost:
            delay_s = policy.latency_s * (0.5 + self._rng.random())
            arrives_s = timeline.now + delay_s + late_s
            if self._answers is not None:
                self._answers.on_sent(node, opened.request)
            timeline.at(arrives_s, self.cluster.hosts[node].receive, opened.request)
        if timeline.story is not None:
            operation = opened.request.operation
            label = f"{operation.op} {operation.key}"
            if operation.value is not None:
                label += f"={operation.value}"
            self._tell(opened.request.client, node, label, repr(opened.request), arrives_s)

    def _again_at(self, node: str) -> str:
        """A node for another copy of what ``node`` was asked."""
        if not self._policy.elsewhere:
            return node
        nodes = self.cluster.nodes
        return nodes[int(self._rude() * len(nodes))]

    def _on_reply(self, node: str, reply: Reply) -> None:
        if self._answers is not None:
            self._answers.on_answer(node, reply)
        lost = 1 - (1 - self._policy.loss) * (1 - self._reply_loss.get(node, 0.0))
        arrives_s: float | None = None
        if lost and self._rng.random() < lost:
            self._timeline.say(f"{node} -> {reply.client}  LOST reply")
        else:
            delay_s = self._policy.latency_s * (0.5 + self._rng.random())
            arrives_s = self._timeline.now + delay_s
            self._timeline.at(arrives_s, self._arrive, (node, reply))
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

    def _arrive(self, answer: tuple[str, Reply]) -> None:
        node, reply = answer
        session = self._sessions.get(reply.client)
        opened = session.open.get(reply.sequence) if session is not None else None
        if opened is None:
            return
        if reply.outcome == "fail":
            opened.refusals += 1
            policy = self._policy
            if policy.insists and self._rude() < policy.insists:
                self._send_copy(opened, self._again_at(node), policy.late_s * self._rude())
        if reply.outcome != "ok" and opened.refusals < opened.attempts > 1:
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
        elif reply.outcome == "fail" and self._answers is not None:
            self._answers.on_refused(opened.request)
        self._end(opened, node if reply.outcome == "fail" else None)

    def _time_out(self, opened: _Open) -> None:
        if not opened.done:
            opened.record.error = "timeout"
            self._end(opened)

    def _end(self, opened: _Open, refused_by: str | None = None) -> None:
        opened.done = True
        request = opened.request
        del self._sessions[request.client].open[request.sequence]
        record = opened.record
        if self._timeline.transcript is not None:
            self._timeline.say(
                f"{record.process} {record.op} {record.key} ended {record.outcome} {record.value!r}"
            )
        policy = self._policy
        # Refusals are rare.
        repeats = 1.0 if refused_by and policy.insists else policy.repeats
        if repeats and self._rude() < repeats:
            assert record.node is not None
            node = refused_by or self._again_at(record.node)
            self._send_copy(opened, node, policy.late_s * self._rude())
        opened.on_end(record)


class WorkloadMix(msgspec.Struct, frozen=True, kw_only=True):
    """What random clients do: shares of the operations (the rest are writes), how many keys they
    use and how long they think on average. ``sticky``: a client stays on its node; ``context``: a
    write tells the version that the client read last, for protocols that keep siblings. ``depth``:
    how many of the clients share a session; ``lasting``: a session goes on after an operation of
    it ended ``info``; ``silent``: how likely a client thinks for `SILENCE` times as long."""

    clients: int = 10
    keys: int = 3
    think_s: float = 0.2
    reads: float = 0.5
    cas: float = 0.1
    deletes: float = 0.0
    sticky: bool = False
    context: bool = True
    depth: int = 1
    lasting: bool = False
    silent: float = 0.0


SILENCE = 20
"""How many times as long as usual a client thinks that has become silent."""


class RandomClients:
    """Closed-loop clients, each with a random stream of its own and values that nobody else
    writes."""

    def __init__(
        self, clients: Clients, mix: WorkloadMix, operations: Sequence[OperationKind]
    ) -> None:
        self.clients = clients
        self.mix = mix
        self.operations = operations
        self.running = True
        self._cluster = clients.cluster
        self._members = [
            _RandomClient(self, f"c{i + 1}", f"c{i - i % mix.depth + 1}")
            for i in range(mix.clients)
        ]

    def start(self) -> None:
        """Every client begins to think."""
        for member in self._members:
            member.think()

    def stop(self) -> None:
        """No new operations."""
        self.running = False


class _RandomClient:
    def __init__(self, group: RandomClients, name: str, session: str) -> None:
        self._group = group
        self._session = session
        self._lasts = group.mix.lasting or group.mix.depth > 1
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
        mix = self._group.mix
        pause_s = 2 * self._rng.random() * mix.think_s
        if mix.silent and self._rng.random() < mix.silent:
            pause_s *= SILENCE
        self._timeline.at(self._timeline.now + pause_s, self._act)

    def _act(self, _: None) -> None:
        if not self._group.running:
            return
        mix = self._group.mix
        draw = self._rng.random
        if not mix.sticky:
            self._node = self._any_node()
        key = f"k{int(draw() * mix.keys)}"
        operation = self._choose(draw(), key)
        session = self._session if self._lasts else self._process
        self._clients.invoke(self._process, self._node, operation, self._on_end, session=session)

    def _choose(self, share: float, key: str) -> Operation:
        mix = self._group.mix
        offered = self._group.operations
        value, version = self._known.get(key, (None, None))
        context = version if mix.context else None
        if share < mix.reads:
            return Operation("read", key)
        share -= mix.reads
        if "cas" in offered:
            if share < mix.cas:
                return Operation("cas", key, self._fresh(), expected=value)
            share -= mix.cas
        if share < mix.deletes and "delete" in offered:
            return Operation("delete", key, context=context)
        return Operation("write", key, self._fresh(), context=context)

    def _fresh(self) -> str:
        self._written += 1
        return f"{self._name}.{self._written}"

    def _on_end(self, record: OperationRecord) -> None:
        if record.outcome == "info":
            self._generation += 1
            self._process = f"{self._name}-{self._generation}"
            if self._group.mix.sticky:
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
