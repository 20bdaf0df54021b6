"""What holds after every step of the quorum register."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from nodes.contract.disk import Disk
from nodes.contract.replica import Invariant, InvariantBroken, Scene
from nodes.protocols.quorum_register.claims import RegisterChronicle
from nodes.protocols.quorum_register.messages import NOTHING, Record, Tag


class Observed(Protocol):
    """What the invariants look at; see `nodes.protocols.quorum_register.replica.QuorumRegister`."""

    disk: Disk
    records: dict[str, Record]
    changed: list[str]
    durable_position: int

    def version_of(self, key: str) -> Tag: ...


class VersionNamesOneWrite(Invariant):
    """In the whole cluster, and over crashes, a version of a key has one value and one request,
    and a node gives a sequence to one write only."""

    name = "a version names one write"
    looks_at = ("disk.position",)

    def __init__(self) -> None:
        self._watched: dict[str, Observed] = {}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._writes = scene.common(RegisterChronicle).writes

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken."""
        keys = replica.changed if self._watched.get(node) is replica else replica.records
        self._watched[node] = replica
        for key in keys:
            record = replica.records[key]
            _, writer, sequence = record.version
            known = self._writes.setdefault((writer, sequence), (key, record))
            if known != (key, record):
                raise InvariantBroken(f"{node}: {key!r} {record}, but the version was {known}")


class VersionNeverGoesBack(Invariant):
    """A replica's version of a key only grows; over a crash, what was durable stays."""

    name = "a replica's version of a key never goes back"
    looks_at = ("disk.position", "durable_position")

    def __init__(self) -> None:
        self._watched: dict[str, Observed] = {}
        self._seen: dict[str, dict[str, Tag]] = {}
        self._waiting: dict[str, list[tuple[int, str, Tag]]] = {}
        self._durable: dict[str, dict[str, Tag]] = {}

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken."""
        keys: Iterable[str] = replica.changed
        if self._watched.get(node) is not replica:
            durable = self._durable.setdefault(node, {})
            self._watched[node] = replica
            self._seen[node] = dict(durable)
            self._waiting[node] = []
            keys = [*durable, *replica.records]
        durable, seen, waiting = self._durable[node], self._seen[node], self._waiting[node]
        position = replica.disk.position
        for key in keys:
            version = replica.version_of(key)
            if version < seen.get(key, NOTHING):
                raise InvariantBroken(f"{node}: {key!r} went back from {seen[key]} to {version}")
            seen[key] = version
            waiting.append((position, key, version))
        done = 0
        while done < len(waiting) and waiting[done][0] <= replica.durable_position:
            _, key, version = waiting[done]
            durable[key] = max(version, durable.get(key, NOTHING))
            done += 1
        del waiting[:done]
