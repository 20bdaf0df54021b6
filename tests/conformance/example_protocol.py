"""Newest wins: every node answers on its own, and the newest version of a key replaces older ones.

The example of docs/ADDING_A_PROTOCOL.md, which shows the parts of this file one after the other.
Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", CACM 1978: a version is
(counter, node), and a node counts on from the highest counter that it has seen.

Claim: eventual.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from nodes.contract.bounds import Count, WireStruct
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
from nodes.parts.sessions import Result, Sessions
from nodes.registry import Protocol, register

# [guide: messages]
Tag: TypeAlias = tuple[Count, str]
"""A version: counter, node. Compared in this order, so no two writes are equal."""


class Cell(WireStruct, frozen=True):
    """What a replica holds of a key, on disk and in messages."""

    version: Tag
    value: Value


class Tell(WireStruct, frozen=True):
    """Hold these, unless you have newer ones."""

    cells: dict[str, Cell]


# [guide: parameters]
class NewestParameters(Parameters, frozen=True, kw_only=True):
    """``repair_interval_s``: how often a node tells all that it has to one other node."""

    repair_interval_s: float = 0.2

    def __post_init__(self) -> None:
        if self.repair_interval_s <= 0:
            raise ValueError(f"repair_interval_s is {self.repair_interval_s}: use more than 0")


# [guide: invariant]
class OneValuePerVersion(Invariant):
    """A version of a key has one value in the whole cluster."""

    name = "a version has one value"

    def __init__(self) -> None:
        self._values: dict[tuple[str, Tag], Value] = {}

    def observe(self, node: str, replica: Newest) -> None:
        """Raises InvariantBroken."""
        for key in replica.changed:
            cell = replica.cells[key]
            value = self._values.setdefault((key, cell.version), cell.value)
            # A node that forgot a write in a crash may use its version again: nobody had it.
            if value != cell.value and cell.version[1] != node:
                raise InvariantBroken(f"{node}: {key} {cell.version} is {value} and {cell.value}")
            self._values[key, cell.version] = cell.value


# [guide: machine]
class Newest(Replica):
    """A replica that answers alone. Invariants: `INVARIANTS`. Units: seconds."""

    MESSAGES = (Tell,)
    RECORDS = (Cell, Result)
    INVARIANTS = (OneValuePerVersion,)
    PARAMETERS: ClassVar[type[Parameters]] = NewestParameters

    def __init__(self, config: Config, env: Env, disk: Disk) -> None:
        super().__init__(config, env, disk)
        assert isinstance(config.parameters, NewestParameters)
        self.parameters = config.parameters
        self.cells: dict[str, Cell] = {}
        self.changed: list[str] = []
        """Keys that the last step changed."""
        for name, record in disk.items():
            if isinstance(record, Cell):
                self.cells[name.removeprefix("k/")] = record
        self._sessions = Sessions(disk)
        self._sessions.load(self._has_effect)
        if config.peers:
            self.out.set_timer("repair", self.parameters.repair_interval_s)

    def step(self, inputs: Any) -> None:
        self.changed.clear()
        super().step(inputs)

    # [guide: requests]
    def on_request(self, request: Request) -> None:
        operation = request.operation
        cell = self.cells.get(operation.key)
        if operation.op == "read":
            value = cell.value if cell else None
            version: Version = list(cell.version) if cell else None
            self.out.reply(Reply(request.client, request.sequence, "ok", value, version))
        elif operation.op == "write":
            self._write(request)
        else:
            self.out.reply(Reply(request.client, request.sequence, "fail", error="unsupported"))

    def _write(self, request: Request) -> None:
        client, sequence, key = request.client, request.sequence, request.operation.key
        known = self._sessions.find(client, sequence)
        if known is not None:
            # A retry: the write was made, only the reply was lost.
            self.out.reply(Reply(client, sequence, "ok", version=known.version))
            return
        if self._sessions.is_forgotten(client, sequence):
            error = "forgotten: the client has acknowledged it"
            self.out.reply(Reply(client, sequence, "info", error=error))
            return
        counter = max((cell.version[0] for cell in self.cells.values()), default=0) + 1
        cell = Cell((counter, self.id), request.operation.value)
        # First the result, then the effect, then the forgetting: see nodes.parts.sessions.
        version: Version = list(cell.version)
        self._sessions.remember(Result(client, sequence, request.acked, key, version))
        self._hold(key, cell)
        self._sessions.trim(client)
        for peer in self.config.peers:
            self.out.send(peer, Tell({key: cell}))
        self.out.reply(Reply(client, sequence, "ok", version=version))

    # [guide: repair]
    def on_tell(self, src: str, msg: Tell) -> None:
        for key, cell in msg.cells.items():
            mine = self.cells.get(key)
            if mine is None or cell.version > mine.version:
                self._hold(key, cell)

    def _has_effect(self, result: Result) -> bool:
        cell = self.cells.get(result.key)
        return cell is not None and list(cell.version) >= result.version  # type: ignore[operator]

    def _hold(self, key: str, cell: Cell) -> None:
        mine = self.cells.get(key)
        assert mine is None or cell.version > mine.version
        self.cells[key] = cell
        self.changed.append(key)
        self.disk.put(f"k/{key}", cell)

    def on_timer(self, name: str) -> None:
        (peer,) = self.env.rng.sample(self.config.peers, 1)
        self.out.send(peer, Tell(dict(self.cells)))
        self.out.set_timer("repair", self.parameters.repair_interval_s)

    # [guide: views]
    def probe(self) -> dict[str, Any]:
        return {"role": "replica", "leader": None, "ready": True, "keys": len(self.cells)}

    def state(self) -> Mapping[str, tuple[tuple[Value, ...], Version]]:
        return {
            key: ((cell.value,), list(cell.version)) for key, cell in sorted(self.cells.items())
        }


# [guide: registration]
register(
    Protocol(
        name="newest",
        replica=Newest,
        claim="eventual",
        operations=("read", "write"),
        needs="any node",
        summary="every node answers on its own; the newest version of a key replaces older ones",
    )
)
