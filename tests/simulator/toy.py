"""A protocol small enough to see through: an atomic register on majorities, without retries at
most once. It is here so that the simulator's tests do not lean on the real protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nodes.contract.replica import (
    Config,
    Env,
    Invariant,
    InvariantBroken,
    Operation,
    Parameters,
    Replica,
    Reply,
    Request,
)
from nodes.parts.quorum import majority
from nodes.registry import Needs, Protocol


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=True):
    number: int
    key: str


class Tell(msgspec.Struct, frozen=True, array_like=True, tag=True):
    number: int
    counter: int
    node: str
    value: Any


class Store(msgspec.Struct, frozen=True, array_like=True, tag=True):
    number: int
    key: str
    counter: int
    node: str
    value: Any


class Stored(msgspec.Struct, frozen=True, array_like=True, tag=True):
    number: int


class ToyParameters(Parameters, frozen=True, kw_only=True):
    resend_s: float = 0.05


class OneValuePerVersion(Invariant):
    name = "one value per version"

    def __init__(self) -> None:
        self.values: dict[tuple[str, int, str], Any] = {}

    def observe(self, node: str, replica: Any) -> None:
        for key, (counter, owner, value) in replica.cells.items():
            known = self.values.setdefault((key, counter, owner), value)
            if known != value:
                raise InvariantBroken(
                    f"{key} version {counter}.{owner} is {known!r} and, on {node}, {value!r}"
                )


class Work:
    def __init__(self, request: Request, key: str) -> None:
        self.request = request
        self.key = key
        self.told: dict[str, Tell] = {}
        self.store: Store | None = None
        self.stored: list[str] = []


class Toy(Replica):
    MESSAGES = (Ask, Tell, Store, Stored)
    INVARIANTS = (OneValuePerVersion,)
    PARAMETERS = ToyParameters

    def __init__(self, config: Config, env: Env, disk: Any) -> None:
        super().__init__(config, env, disk)
        assert isinstance(config.parameters, ToyParameters)
        self.parameters = config.parameters
        self.cells: dict[str, tuple[int, str, Any]] = {
            key: (cell[0], cell[1], cell[2]) for key, cell in disk.items() if key != "boots"
        }
        self.quorum = majority(len(config.nodes))
        boots = disk.get("boots", 0) + 1
        disk.put("boots", boots)
        self.number = boots * 1_000_000
        self.work: dict[int, Work] = {}

    def on_request(self, request: Request) -> None:
        self.number += 1
        work = self.work[self.number] = Work(request, request.operation.key)
        self._send(self.number, work)
        self.out.set_timer("resend", self.parameters.resend_s)

    def on_timer(self, name: str) -> None:
        for number, work in self.work.items():
            self._send(number, work)
        if self.work:
            self.out.set_timer("resend", self.parameters.resend_s)

    def _send(self, number: int, work: Work) -> None:
        for node in self.config.nodes:
            self.out.send(node, work.store or Ask(number, work.key))

    def on_ask(self, src: str, msg: Ask) -> None:
        counter, node, value = self.cells.get(msg.key, (0, "", None))
        self.out.send(src, Tell(msg.number, counter, node, value))

    def on_tell(self, src: str, msg: Tell) -> None:
        work = self.work.get(msg.number)
        if work is None or work.store is not None:
            return
        work.told[src] = msg
        if len(work.told) < self.quorum:
            return
        newest = max(work.told.values(), key=lambda tell: (tell.counter, tell.node))
        operation = work.request.operation
        if operation.op == "write":
            # The counter is unique on this node, too: a later write of it must be newer.
            self.highest = max(getattr(self, "highest", 0), newest.counter) + 1
            owner = f"{self.id}/{msg.number}"
            work.store = Store(msg.number, work.key, self.highest, owner, operation.value)
        else:
            work.store = Store(msg.number, work.key, newest.counter, newest.node, newest.value)
        self._send(msg.number, work)

    def on_store(self, src: str, msg: Store) -> None:
        if (msg.counter, msg.node) > self.cells.get(msg.key, (0, "", None))[:2]:
            self.cells[msg.key] = (msg.counter, msg.node, msg.value)
            self.keep(msg)
        self.out.send(src, Stored(msg.number))

    def keep(self, msg: Store) -> None:
        self.disk.put(msg.key, [msg.counter, msg.node, msg.value])

    def on_stored(self, src: str, msg: Stored) -> None:
        work = self.work.get(msg.number)
        if work is None or src in work.stored or work.store is None:
            return
        work.stored.append(src)
        if len(work.stored) == self.quorum:
            self.out.mark("done", number=msg.number)
            del self.work[msg.number]
            request = work.request
            self.out.reply(
                Reply(request.client, request.sequence, "ok", work.store.value, work.store.counter)
            )

    def probe(self) -> dict[str, Any]:
        return {"role": "leader" if self.id == "n1" else "follower", "ready": True}

    def state(self) -> Mapping[str, Any]:
        return {key: ((value,), counter) for key, (counter, _, value) in self.cells.items()}


def protocol(replica: type[Replica] = Toy, claim: Any = "linearizable") -> Protocol:
    needs: Needs = "any node" if claim == "eventual" else "majority"
    return Protocol(
        replica.__name__.lower(),
        replica,
        claim,
        ("read", "write"),
        "toy",
        needs=needs,
        retries="nowhere",
        knobs=[[{"resend_s": 0.03}, {"resend_s": 0.2}]],
    )


def write(client: str, value: Any, key: str = "x", sequence: int = 0) -> Request:
    return Request(client, sequence, Operation("write", key, value), sequence)


def read(client: str, key: str = "x", sequence: int = 0) -> Request:
    return Request(client, sequence, Operation("read", key), sequence)
