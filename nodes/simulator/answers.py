"""What clients are told, held against what they asked: every answer that leaves a node, also one
that is then lost on its way.

- An answer is one to its own request: it has the shape that the operation asks for, and what a read
  returns was written to that key.
- Two answers to one request agree, as far as the protocol promises that a request that is sent
  again takes effect once (`nodes.registry.Protocol.retries`).
- A request takes effect once: a value, which one request alone writes, has one version.
- What was refused (``fail``) takes no effect, now or later.
- No client hears that it has acknowledged what it has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nodes.contract.replica import Reply, Request, Value, Version
from nodes.registry import Retries

Key = tuple[str, int]
"""(client, sequence)."""


class WrongAnswer(AssertionError):
    """A client was told, or a replica holds, what cannot be."""


_UNKNOWN: Any = object()


class _Asked:
    """A request, how often and where it was sent, and its answer. ``refused``: for good; ``seen``:
    its value was, as ``version``. ``anywhere``: from now on each node is to give that answer."""

    __slots__ = (
        *("answer", "anywhere", "copies", "key", "nodes", "refused", "request", "seen"),
        "version",
    )

    def __init__(self, request: Request, node: str) -> None:
        self.request = request
        self.key = request.operation.key
        self.copies = 1
        self.nodes: tuple[str, ...] = (node,)
        self.answer: Reply | None = None
        """The first ``ok``, if it is a write."""
        self.refused = self.seen = self.anywhere = False
        self.version: Version = _UNKNOWN


class Answers:
    """Watches one run. Written values must be unique. ``once``: False where nodes forget clients
    so soon that nothing is promised about a request that is handed on again. Methods that are told
    of an answer or of a state raise WrongAnswer."""

    def __init__(self, retries: Retries, *, once: bool = True) -> None:
        self._retries = retries
        self._once = once
        self._asked: dict[Key, _Asked] = {}
        self._writers: dict[Value, _Asked] = {}
        self._acked: dict[str, int] = {}

    def on_sent(self, node: str, request: Request) -> None:
        """A copy of a request is on its way to a node."""
        key = (request.client, request.sequence)
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = _Asked(request, node)
            # A later request may have come before: the first copy that is not lost counts as sent.
            if request.acked > self._acked.get(request.client, -1):
                self._acked[request.client] = request.acked
            value = request.operation.value
            if value is not None:
                assert value not in self._writers, f"{value!r} is written by two requests"
                self._writers[value] = asked
            return
        asked.copies += 1
        if node not in asked.nodes:
            asked.nodes = (*asked.nodes, node)

    def expect_anywhere(self, request: Request) -> None:
        """It was answered ``ok``, and all nodes are to give the same answer to it now."""
        self._asked[request.client, request.sequence].anywhere = True

    def _takes_effect_once(self, asked: _Asked) -> bool:
        """Whether the protocol promises it, as often and where it was sent."""
        if asked.anywhere:
            return True
        if not self._once:
            return False
        if asked.copies == 1 or self._retries == "any node":
            return True
        return self._retries == "node asked first" and len(asked.nodes) == 1

    def on_orphan(self, node: str, reply: Reply) -> None:
        """A node answers, and nobody waits: it has answered before, or was restarted since."""
        asked = self._asked.get((reply.client, reply.sequence))
        if asked is None or node not in asked.nodes:
            raise WrongAnswer(f"{node} was never asked what it answers: {reply}")

    def on_answer(self, node: str, reply: Reply) -> None:
        """A node answers."""
        if reply.outcome != "ok":
            told = reply.error is not None and "acknowledged" in reply.error
            if told and reply.sequence >= self._acked[reply.client]:
                raise WrongAnswer(f"{node} answers what nobody has acknowledged by {reply}")
            asked = self._asked[reply.client, reply.sequence]
            if asked.anywhere:
                raise WrongAnswer(f"two answers: {asked.answer}, and of {node} {reply}")
            return
        asked = self._asked[reply.client, reply.sequence]
        if asked.request.operation.op != "read":
            self._check_write(node, asked, reply)
            return
        value, version = reply.value, reply.version
        if isinstance(value, list):
            for one in value:
                self._look_at(asked.key, one, _UNKNOWN, node, reply)
        elif value is not None:
            self._look_at(asked.key, value, version, node, reply)

    def _check_write(self, node: str, asked: _Asked, reply: Reply) -> None:
        request = asked.request
        operation = request.operation
        if asked.refused:
            raise WrongAnswer(f"{request} was refused, and then {node} answers {reply}")
        if (reply.applied is None) != (operation.op != "cas"):
            raise WrongAnswer(f"{node} answers a {operation.op} by {reply}")
        if reply.applied is False and reply.seen == operation.expected:
            raise WrongAnswer(f"{node} answers {operation} by {reply}")
        if reply.seen is not None:
            self._look_at(asked.key, reply.seen, _UNKNOWN, node, reply)
        before = asked.answer
        if before is None:
            asked.answer = reply
        elif before != reply and self._takes_effect_once(asked):
            raise WrongAnswer(f"two answers to {request}: {before}, and of {node} {reply}")
        if reply.applied is not False and operation.op != "delete":
            self._look_at(asked.key, operation.value, reply.version, node, reply)

    def on_refused(self, request: Request) -> None:
        """All copies of a request were refused. From now on none may be sent but to nodes that
        refused it."""
        asked = self._asked[request.client, request.sequence]
        asked.refused = True
        if asked.seen:
            raise WrongAnswer(f"{request} was refused, and has taken effect before")

    def on_state(
        self, node: str, state: Mapping[str, tuple[tuple[Value, ...], Version]], *, durable: bool
    ) -> None:
        """What a replica holds (`Replica.state`). What is not ``durable`` may never have been."""
        for key, (values, version) in state.items():
            if not durable or len(values) != 1:
                version = _UNKNOWN
            for value in values:
                if value is not None:
                    self._look_at(key, value, version, node, state)

    def _look_at(self, key: str, value: Value, version: Version, node: str, where: object) -> None:
        """A value of a key is seen, in an answer or a state. A version that is a clock tells of the
        key, not of the value."""
        writer = self._writers.get(value)
        if writer is None or writer.key != key:
            raise WrongAnswer(f"nobody wrote {value!r} to {key}, but {node} has {where}")
        if writer.refused:
            raise WrongAnswer(f"{writer.request} was refused, but {node} has {where}")
        writer.seen = True
        if version is _UNKNOWN or isinstance(version, dict):
            return
        if writer.version is _UNKNOWN:
            writer.version = version
        elif writer.version != version and self._takes_effect_once(writer):
            raise WrongAnswer(
                f"{writer.request} took effect twice: as version {writer.version}, and at {node} as"
                f" {version}"
            )
