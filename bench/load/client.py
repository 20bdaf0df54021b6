"""Requests and their outcomes, without I/O: the caller sends the requests, passes in the replies,
and gives the time.

An operation ends

- ``ok`` or ``fail`` as its reply says, or ``fail`` if it certainly was not sent;
- ``info`` if the reply says so, if no reply came in time (``completed_ns`` is when the client gave
  up), or if it was still open when the load ended (``completed_ns`` is None).

A planned operation may have a follow-up (``then``), which becomes due (`Client.due`) when the first
one ends ok. If the first one ends otherwise, the follow-up is not invoked and counts as dropped
(`Client.given_up`).

A task of another kind of workload (`bench.load.kinds`) is done in steps; each becomes due when the
one before it has ended, and is wanted from then on.

A late reply changes nothing. Nothing is sent twice.

Each operation belongs to a *logical process*, which has one operation open at a time and asks only
one node, so that session guarantees of clients that stay with a node can be checked. A process
whose operation ended ``info`` is retired: the operation may still take effect at any time.

*Whom to ask*: the planned node, or, if the caller allows it, the one that leads, as replies say.
When an operation there does not end ok, the planned nodes are asked until one of them answers and
says who leads now.

Writes carry no ``context``: what they write does not depend on what was read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from math import expm1, log1p

import msgspec

from bench.load.kinds.running import Tasks
from bench.load.kinds.transactions import Transacted, asked
from bench.load.workload import PlannedOperation
from bench.record.history import ABSENT, OperationRecord
from nodes.contract.replica import Operation, Outcome, Reply, Request, Value

TIMEOUT = "timeout"
NOT_SENT = "not sent: no connection to the broker"
STILL_OPEN = "still open when the load ended"


class _Process(msgspec.Struct, frozen=True):
    """A logical process."""

    name: str
    node: str


class _Open(msgspec.Struct, frozen=True):
    """An operation without an outcome yet."""

    planned: PlannedOperation
    process: _Process
    expected: Value
    intended_ns: int | None
    invoked_ns: int


class Client:
    """The open operations of one client process.

    ``name``: unique for each start of a client process: replicas recognise requests by (name,
    sequence). ``in_flight``: the most operations open at once; None: no limit. ``label``: the
    prefix of process names, unique in a history; None: the name. ``may_lead``: the nodes of which
    one may be asked in place of the planned one, since a reply said that it leads; empty: whoever
    leads, the planned node is asked.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout_s: float,
        in_flight: int | None = None,
        label: str | None = None,
        may_lead: Collection[str] = (),
    ) -> None:
        self.name = name
        self.asked_leader = 0
        """Operations that went to the node that leads, as far as replies have told."""
        self._may_lead = frozenset(may_lead)
        self._leader: str | None = None
        self._label = label or name
        self.unmatched = 0
        """Replies that match no open operation: late, duplicate, or for another client."""
        self.due: list[tuple[PlannedOperation, int | None]] = []
        """Operations wanted now, with their intended times: the caller takes them out."""
        self.given_up: list[tuple[PlannedOperation, int | None]] = []
        """Follow-ups of operations that did not end ok: the caller takes them out, too."""
        self.tasks = Tasks(self._label)
        """Those of a workload of another kind than registers; their steps become due one by one."""
        self._timeout_ns = int(timeout_s * 1e9)
        self.in_flight = in_flight
        self._open: dict[int, _Open] = {}
        self._order: deque[int] = deque()
        self._sequence = 0
        self._idle: dict[str, list[_Process]] = {}
        self._born = 0
        self._last_seen: dict[str, Value] = {}

    @property
    def open_count(self) -> int:
        """The number of open operations."""
        return len(self._open)

    def invoke(
        self, planned: PlannedOperation, now_ns: int, intended_ns: int | None = None
    ) -> Request | None:
        """The request to send now, to the node that `node_of` says. None: too many operations are
        open and this one is dropped. ``now_ns`` never goes back."""
        if self.in_flight is not None and len(self._open) >= self.in_flight:
            return None
        if planned.task is not None:
            planned = self.tasks.begin(planned.task, intended_ns)
        if self._leader is not None:
            self.asked_leader += 1
            planned = msgspec.structs.replace(planned, node=self._leader)
        process = self._process(planned.node)
        op, key = planned.op, planned.key
        expected: Value = None
        if op == "cas":
            given = planned.expected
            last_seen = self._last_seen.get(key)
            expected = last_seen if isinstance(given, msgspec.UnsetType) else given
        sequence = self._sequence
        self._sequence += 1
        self._open[sequence] = _Open(planned, process, expected, intended_ns, now_ns)
        self._order.append(sequence)
        if op == "transaction":
            return asked(self.name, sequence, self.tasks.task_of(planned.id))
        operation = Operation(op, key, planned.value, expected)
        return Request(self.name, sequence, operation, self._oldest_open())

    def node_of(self, request: Request) -> str:
        """The node to which to send a request that is open."""
        return self._open[request.sequence].planned.node

    def on_reply(self, reply: Reply, now_ns: int) -> OperationRecord | None:
        """The operation that this reply ends; None: it ends none."""
        if reply.client != self.name or reply.sequence not in self._open:
            self.unmatched += 1
            return None
        return self._end(reply.sequence, reply, now_ns)

    def not_sent(self, request: Request, now_ns: int) -> OperationRecord:
        """The request was not sent and never will be."""
        return self._end(
            request.sequence, self._verdict(request.sequence, "fail", NOT_SENT), now_ns
        )

    def expire(self, now_ns: int) -> list[OperationRecord]:
        """End the operations that have timed out."""
        expired = []
        while (deadline_ns := self.next_deadline_ns()) is not None and deadline_ns <= now_ns:
            sequence = self._order[0]
            expired.append(self._end(sequence, self._verdict(sequence, "info", TIMEOUT), now_ns))
        return expired

    def next_deadline_ns(self) -> int | None:
        """When to call `expire` next; None if nothing is open."""
        self._oldest_open()
        return self._open[self._order[0]].invoked_ns + self._timeout_ns if self._order else None

    def abandon(self) -> list[OperationRecord]:
        """End all open operations: nobody waits for them any more."""
        return [
            self._end(sequence, self._verdict(sequence, "info", STILL_OPEN), None)
            for sequence in list(self._open)
        ]

    def _verdict(self, sequence: int, outcome: Outcome, error: str) -> Reply:
        return Reply(self.name, sequence, outcome, error=error)

    def _oldest_open(self) -> int:
        """The lowest sequence that is open: all below have ended and will not be sent again."""
        while self._order and self._order[0] not in self._open:
            self._order.popleft()
        return self._order[0] if self._order else self._sequence

    def _process(self, node: str) -> _Process:
        """A process of this node with nothing open: the one last used, so that few processes have
        long histories rather than many short ones."""
        idle = self._idle.setdefault(node, [])
        if idle:
            return idle.pop()
        self._born += 1
        return _Process(f"{self._label}.p{self._born}", node)

    def _learn_leader(self, asked: str, reply: Reply) -> None:
        """A leader is believed in as long as what it is asked ends ok."""
        if reply.outcome != "ok":
            if asked == self._leader:
                self._leader = None
        elif reply.leader in self._may_lead:
            self._leader = reply.leader

    def _end(self, sequence: int, reply: Reply, now_ns: int | None) -> OperationRecord:
        ended = self._open.pop(sequence)
        planned, process, outcome = ended.planned, ended.process, reply.outcome
        self._learn_leader(planned.node, reply)
        op, key = planned.op, planned.key
        if planned.then is not None:
            behind = self.due if outcome == "ok" else self.given_up
            behind.append((planned.then, ended.intended_ns))
        if outcome != "info":
            self._idle[process.node].append(process)
        value: Value | list[Value] = planned.value
        if outcome == "ok":
            if op == "read":
                value = reply.value
            seen = reply.seen if reply.applied is False else value
            if not isinstance(seen, list):
                self._last_seen[key] = seen
        record = OperationRecord(
            process=process.name,
            id=planned.id,
            op=op,
            key=key,
            outcome=outcome,
            invoked_ns=ended.invoked_ns,
            completed_ns=now_ns,
            intended_ns=ended.intended_ns,
            value=value,
            expected=ended.expected if op == "cas" else ABSENT,
            applied=reply.applied,
            seen=reply.seen if reply.applied is False else ABSENT,
            node=planned.node,
            version=reply.version,
            error=reply.error,
        )
        answer = reply.answer if isinstance(reply, Transacted) else None
        if (step := self.tasks.ended_step(planned.id, record, answer)) is not None:
            # Nobody waits for it before: it is wanted from now on.
            self.due.append((step, None if ended.intended_ns is None else now_ns))
        return record


class Lateness:
    """How late operations were sent, in buckets of 2%: a long run needs no more memory than a short
    one."""

    _PER_E = 50

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._count = 0

    def add(self, late_ns: int) -> None:
        """One operation, sent ``late_ns`` after its intended time."""
        bucket = int(log1p(max(late_ns, 0) / 1e3) * self._PER_E)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self._count += 1

    def quantile_ms(self, share: float) -> float | None:
        """An upper bound on this quantile; None without operations."""
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= share * self._count:
                return expm1((bucket + 1) / self._PER_E) / 1e3
        return None
