"""Primary-backup: the first node orders and answers everything, the others hold copies.

The baseline that shows what a fault costs where nobody takes over. Alsberg and Day, "A Principle
for Resilient Sharing of Distributed Resources", ICSE 1976, without its election of another primary.

Claim: linearizable, since one node answers. Needs: the first node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from nodes.contract.disk import Disk
from nodes.contract.replica import (
    Config,
    Env,
    Invariant,
    InvariantBroken,
    Parameters,
    Replica,
    Reply,
    Request,
    Value,
    Version,
)
from nodes.parts.replicated_map import ReplicatedMap
from nodes.registry import Protocol, register

AT_ONCE = 100
"""Entries in one message, at most."""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A backup hands on what a client asked it."""

    request: Request


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The primary's answer, for the client that waits at this backup."""

    reply: Reply


class Have(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A backup has the log up to this entry."""

    index: int


class Entries(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Entries of the log from ``first`` on."""

    first: int
    requests: tuple[Request, ...]


class PrimaryParameters(Parameters, frozen=True, kw_only=True):
    """``copy_interval_s``: how often a backup tells what it has, and so gets what it missed."""

    copy_interval_s: float = 0.1

    def __post_init__(self) -> None:
        if self.copy_interval_s <= 0:
            raise ValueError(f"copy_interval_s is {self.copy_interval_s}: use more than 0")


class OneLog(Invariant):
    """What backups have of the log is one log, and the primary never writes it anew."""

    name = "one log"

    def __init__(self) -> None:
        self._copied: dict[int, Request] = {}

    def observe(self, node: str, replica: PrimaryBackup) -> None:
        """Raises InvariantBroken."""
        for index in replica.appended:
            entry = replica.disk.entry(index)
            copied = self._copied.get(index, entry)
            if copied != entry:
                raise InvariantBroken(f"{node}: entry {index} is {entry}, a backup has {copied}")
            if not replica.is_primary:
                self._copied[index] = entry


class PrimaryBackup(Replica):
    """The log on disk is the state; a version is the index of the entry that wrote it."""

    MESSAGES = (Ask, Answer, Have, Entries)
    RECORDS = (Request,)
    INVARIANTS = (OneLog,)
    PARAMETERS: ClassVar[type[Parameters]] = PrimaryParameters

    def __init__(self, config: Config, env: Env, disk: Disk) -> None:
        super().__init__(config, env, disk)
        assert isinstance(config.parameters, PrimaryParameters)
        self.parameters = config.parameters
        self.primary = config.nodes[0]
        self.is_primary = self.id == self.primary
        self.appended: list[int] = []
        """Entries of the last step."""
        self._map = ReplicatedMap(client_entries=1_000_000)
        for index in range(1, disk.last_index + 1):
            self._map.apply(disk.entry(index), index)
        if not self.is_primary:
            self.out.set_timer("copy", self.parameters.copy_interval_s)

    def step(self, inputs: Any) -> None:
        self.appended.clear()
        super().step(inputs)

    # --- requests ---

    def on_request(self, request: Request) -> None:
        if self.is_primary:
            self.out.reply(self._serve(request))
        else:
            # If this is lost, or its answer, the client asks again.
            self.out.send(self.primary, Ask(request))

    def on_ask(self, src: str, msg: Ask) -> None:
        if self.is_primary:
            self.out.send(src, Answer(self._serve(msg.request)))

    def on_answer(self, src: str, msg: Answer) -> None:
        self.out.reply(msg.reply)

    def _serve(self, request: Request) -> Reply:
        """Leaves when the entry is durable, as all that is sent or replied does."""
        if request.operation.op == "read":
            return self._map.read(request)
        return self._map.find(request) or self._append(request)

    def _append(self, request: Request) -> Reply:
        index = self.disk.append(request)
        self.appended.append(index)
        return self._map.apply(request, index)

    def end_step(self) -> None:
        if self.is_primary and self.appended:
            for peer in self.config.peers:
                self._send_from(peer, self.appended[0])

    # --- copies ---

    def on_have(self, src: str, msg: Have) -> None:
        if self.is_primary and msg.index < self.disk.last_index:
            self._send_from(src, msg.index + 1)

    def _send_from(self, peer: str, first: int) -> None:
        self.out.send(peer, Entries(first, tuple(self.disk.entries(first, first + AT_ONCE))))

    def on_entries(self, src: str, msg: Entries) -> None:
        for index, request in enumerate(msg.requests, msg.first):
            if index == self.disk.last_index + 1:
                self._append(request)

    def on_timer(self, name: str) -> None:
        self.out.send(self.primary, Have(self.disk.last_index))
        self.out.set_timer("copy", self.parameters.copy_interval_s)

    # --- views ---

    def probe(self) -> dict[str, Any]:
        return {
            "role": "primary" if self.is_primary else "backup",
            "leader": self.primary,
            "term": 1,
            "commit": self.disk.last_index,
            "applied": self.disk.last_index,
            "ready": True,
        }

    def state(self) -> Mapping[str, tuple[tuple[Value, ...], Version]]:
        return self._map.state()


register(
    Protocol(
        name="primary-backup",
        replica=PrimaryBackup,
        claim="linearizable",
        operations=("read", "write", "cas", "delete"),
        needs="first node",
        summary="the first node orders and answers everything; the others hold copies",
    )
)
