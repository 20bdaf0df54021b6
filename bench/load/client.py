"""Requests and their outcomes, without I/O: whoever drives the client sends what it makes, hands it
what arrives, and tells it the time.

An operation ends

- ``ok`` or ``fail`` as its reply says, or ``fail`` if it certainly was not sent;
- ``info`` if the reply says so, if none came in time (``completed_ns`` is then the time at which
  the client gave up), or if it was still open when the load ended (``completed_ns`` None).

A planned operation may have another behind it (``then``), which is wanted as soon as the first one
ended ok: it is in `Client.due` then. If the first one ends otherwise, it is not invoked, and
counts as dropped (`Client.given_up`).

An answer that comes later changes nothing: nobody can say what it was in time for. Nothing is sent
twice.

Each operation belongs to a *logical process*, which has one operation open at a time and asks one
node only, so that what a protocol promises to a client that stays on its node can be judged. A
process whose operation ended ``info`` is retired, for that operation may still take effect at any
time.

Writes carry no ``context``: what they write does not depend on what was read.
"""

from __future__ import annotations

from collections import deque
from math import expm1, log1p

import msgspec

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

    ``name``: unique for each start of a client process, for replicas know by (name, sequence) what
    they have done already. ``in_flight``: at most so many operations are open at once; None: no
    limit. ``label``: what the names of processes begin with, unique in a history; None: the name.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout_s: float,
        in_flight: int | None = None,
        label: str | None = None,
    ) -> None:
        self.name = name
        self._label = label or name
        self.unmatched = 0
        """Replies to no open operation: late, doubled, or not meant for this client."""
        self.due: list[tuple[PlannedOperation, int | None]] = []
        """What is wanted now, and its intended time: whoever drives the client takes it out."""
        self.given_up: list[tuple[PlannedOperation, int | None]] = []
        """What is wanted no more, since the operation before it did not end ok: the same."""
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
        """How many operations have no outcome yet."""
        return len(self._open)

    def invoke(
        self, planned: PlannedOperation, now_ns: int, intended_ns: int | None = None
    ) -> Request | None:
        """The request to send to ``planned.node`` now. None: too many operations are open; the
        operation is dropped. ``now_ns`` never goes back."""
        if self.in_flight is not None and len(self._open) >= self.in_flight:
            return None
        process = self._process(planned.node)
        op, key = planned.op, planned.key
        expected = self._last_seen.get(key) if op == "cas" else None
        sequence = self._sequence
        self._sequence += 1
        self._open[sequence] = _Open(planned, process, expected, intended_ns, now_ns)
        self._order.append(sequence)
        operation = Operation(op, key, planned.value, expected)
        return Request(self.name, sequence, operation, self._oldest_open())

    def on_reply(self, reply: Reply, now_ns: int) -> OperationRecord | None:
        """The operation that this reply ends, None if there is none."""
        if reply.client != self.name or reply.sequence not in self._open:
            self.unmatched += 1
            return None
        return self._end(reply.sequence, reply, now_ns)

    def not_sent(self, request: Request, now_ns: int) -> OperationRecord:
        """The request did not leave, nor ever will."""
        return self._end(
            request.sequence, self._verdict(request.sequence, "fail", NOT_SENT), now_ns
        )

    def expire(self, now_ns: int) -> list[OperationRecord]:
        """The operations whose time is up."""
        expired = []
        while (deadline_ns := self.next_deadline_ns()) is not None and deadline_ns <= now_ns:
            sequence = self._order[0]
            expired.append(self._end(sequence, self._verdict(sequence, "info", TIMEOUT), now_ns))
        return expired

    def next_deadline_ns(self) -> int | None:
        """When to call `expire` next, None if nothing is open."""
        self._oldest_open()
        return self._open[self._order[0]].invoked_ns + self._timeout_ns if self._order else None

    def abandon(self) -> list[OperationRecord]:
        """End everything that is open: nobody waits for it any more."""
        return [
            self._end(sequence, self._verdict(sequence, "info", STILL_OPEN), None)
            for sequence in list(self._open)
        ]

    def _verdict(self, sequence: int, outcome: Outcome, error: str) -> Reply:
        return Reply(self.name, sequence, outcome, error=error)

    def _oldest_open(self) -> int:
        """The sequence below which everything has ended, and will never be sent again."""
        while self._order and self._order[0] not in self._open:
            self._order.popleft()
        return self._order[0] if self._order else self._sequence

    def _process(self, node: str) -> _Process:
        """A process of this node that has nothing open; the one that was last used, so that few
        processes have long stories rather than many short ones."""
        idle = self._idle.setdefault(node, [])
        if idle:
            return idle.pop()
        self._born += 1
        return _Process(f"{self._label}.p{self._born}", node)

    def _end(self, sequence: int, reply: Reply, now_ns: int | None) -> OperationRecord:
        ended = self._open.pop(sequence)
        planned, process, outcome = ended.planned, ended.process, reply.outcome
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
        return OperationRecord(
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


class Lateness:
    """How late operations were sent, in buckets of 2%, so that a long run costs no more memory
    than a short one."""

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
        """Upper bound of the bucket that holds this quantile; None without operations."""
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= share * self._count:
                return expm1((bucket + 1) / self._PER_E) / 1e3
        return None
