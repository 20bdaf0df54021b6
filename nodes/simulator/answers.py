"""What clients are told, held against what they asked: every answer that leaves a node, also one
that is then lost on its way.

- An answer is one to its own request: it has the shape that the operation asks for, and what a read
  returns was written to that key.
- Two answers to one request agree, as far as the protocol promises that a request that is sent
  again takes effect once (`nodes.registry.Protocol.retries`).
- A request takes effect once: a value, which one request alone writes, has one version.
- What was refused (``fail``) takes no effect, now or later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nodes.contract.replica import Reply, Request, Value, Version
from nodes.registry import Retries

Key = tuple[str, int]
"""(client, sequence)."""


class WrongAnswer(AssertionError):
    """A client was told, or a replica holds, what cannot be."""


class _Asked:
    """A request, how often and where it was sent, and its answer. ``refused``: for good;
    ``seen``: its value was."""

    __slots__ = ("answer", "copies", "nodes", "refused", "request", "seen")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.copies = 0
        self.nodes: set[str] = set()
        self.answer: Reply | None = None
        """The first ``ok``, if it is a write."""
        self.refused = self.seen = False


class Answers:
    """Watches one run. Written values must be unique. Methods that are told of an answer or of a
    state raise WrongAnswer."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._asked: dict[Key, _Asked] = {}
        self._writers: dict[Value, _Asked] = {}
        self._versions: dict[Value, Version] = {}

    def on_sent(self, node: str, request: Request) -> None:
        """A copy of a request is on its way to a node."""
        key = (request.client, request.sequence)
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = _Asked(request)
            value = request.operation.value
            if value is not None:
                assert value not in self._writers, f"{value!r} is written by two requests"
                self._writers[value] = asked
        asked.copies += 1
        asked.nodes.add(node)

    def _takes_effect_once(self, asked: _Asked) -> bool:
        """Whether the protocol promises it, as often and where it was sent."""
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
        asked = self._asked[reply.client, reply.sequence]
        if reply.outcome != "ok":
            return
        request = asked.request
        operation = request.operation
        if operation.op == "read":
            self._is_of_key(operation.key, _values(reply.value), f"{node} answers {reply}")
            if not isinstance(reply.value, list):
                self._has_one_version(reply.value, reply.version, node)
            return
        if asked.refused:
            raise WrongAnswer(f"{request} was refused, and then {node} answers {reply}")
        self._check_write(node, asked, reply)

    def _check_write(self, node: str, asked: _Asked, reply: Reply) -> None:
        operation = asked.request.operation
        if (reply.applied is None) != (operation.op != "cas"):
            raise WrongAnswer(f"{node} answers a {operation.op} by {reply}")
        if reply.applied is False and reply.seen == operation.expected:
            raise WrongAnswer(f"{node} answers {operation} by {reply}")
        if reply.seen is not None:
            self._is_of_key(operation.key, [reply.seen], f"{node} answers {reply}")
        if reply.applied is not False and operation.op != "delete":
            self._has_one_version(operation.value, reply.version, node)
        if asked.answer is None:
            asked.answer = reply
        elif asked.answer != reply and self._takes_effect_once(asked):
            before = asked.answer
            raise WrongAnswer(f"two answers to {asked.request}: {before}, and of {node} {reply}")

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
            self._is_of_key(key, values, f"{node} holds {values}")
            if durable and len(values) == 1:
                self._has_one_version(values[0], version, node)

    def _is_of_key(self, key: str, values: Iterable[Value], what: str) -> None:
        for value in values:
            if value is None:
                continue
            writer = self._writers.get(value)
            if writer is None or writer.request.operation.key != key:
                raise WrongAnswer(f"{what}, but nobody wrote {value!r} to {key}")
            if writer.refused:
                raise WrongAnswer(f"{what}, but {writer.request} was refused")
            writer.seen = True

    def _has_one_version(self, value: Value, version: Version, node: str) -> None:
        """A version that is a clock tells of the key, not of the value."""
        if value is None or isinstance(version, dict):
            return
        known = self._versions.setdefault(value, version)
        if known != version and self._takes_effect_once(writer := self._writers[value]):
            raise WrongAnswer(
                f"{writer.request} took effect twice: as version {known}, and at {node} as"
                f" {version}"
            )


def _values(value: Any) -> Iterable[Value]:
    return value if isinstance(value, list) else (value,)
