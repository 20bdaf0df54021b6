"""What holds after every step of the quorum register."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from nodes.contract.disk import Disk
from nodes.contract.replica import Invariant, InvariantBroken, Out
from nodes.parts.recovery import Recovery
from nodes.protocols.quorum_register.messages import NOTHING, Record, Tag
from nodes.protocols.quorum_register.parameters import QuorumParameters


class Observed(Protocol):
    """What the invariants look at; see `nodes.protocols.quorum_register.replica.QuorumRegister`."""

    disk: Disk
    out: Out
    parameters: QuorumParameters
    records: dict[str, Record]
    changed: list[str]
    durable_position: int
    recovery: Recovery | None

    def replicas_of(self, key: str) -> tuple[str, ...]: ...

    def version_of(self, key: str) -> Tag: ...


class VersionNamesOneWrite(Invariant):
    """In the whole cluster, and over crashes, a version of a key has one value and one request,
    and a node gives a sequence to one write only."""

    name = "a version names one write"
    looks_at = ("disk.position",)

    def __init__(self) -> None:
        self._watched: dict[str, Observed] = {}
        self._writes: dict[tuple[str, int], tuple[str, Record]] = {}

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


class AnswersAreDurable(Invariant):
    """When a request is answered ok, a write quorum has the answer's version, or a newer one, on
    disk. Without that, those who crash could take the answer back."""

    name = "an answer is durable on a write quorum"

    def __init__(self) -> None:
        self._watched: dict[str, Observed] = {}
        self._keys: dict[Tag, str] = {}

    def observe(self, node: str, replica: Observed) -> None:
        """Raises InvariantBroken."""
        self._watched[node] = replica
        for key in replica.changed:
            self._keys[replica.records[key].version] = key
        if replica.recovery is not None or replica.disk.stable is None:
            # Placements change between the write and the answer; `nodes.parts.placement` watches
            # those.
            return
        for position, reply in replica.out.replies:
            match reply.version:
                case [int(counter), str(writer), int(sequence)] if reply.outcome == "ok":
                    self._check(node, position, (counter, writer, sequence))

    def _check(self, node: str, position: int, version: Tag) -> None:
        key = self._keys.get(version)
        if key is None:
            return  # It was never the newest one anywhere: whoever was told it had a newer one.
        replica = self._watched[node]
        replicas = replica.replicas_of(key)
        needed = replica.parameters.quorums(len(replicas)).write
        holders: list[str] = []
        for other in replicas:
            # A reply that waits for the disk waits for the copy of its own node, too.
            if (other == node and position > replica.durable_position) or (
                other in self._watched and self._version(other, key) >= version
            ):
                holders.append(other)
                if len(holders) == needed:
                    return
        raise InvariantBroken(
            f"{node} answers with version {version} of {key!r}, which is durable on {holders}"
        )

    def _version(self, node: str, key: str) -> Tag:
        """The version that is durable at ``node``."""
        disk = self._watched[node].disk.stable
        record: Record | None = None if disk is None else disk.get("k/" + key)
        return NOTHING if record is None else record.version
