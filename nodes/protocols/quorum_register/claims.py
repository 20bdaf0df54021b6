"""What nodes of the quorum register claim in their messages, judged when these leave.

Sources as in `nodes.protocols.quorum_register.replica`. All that is known here was seen: in
messages that left, and on disks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from nodes.contract.disk import Disk
from nodes.contract.replica import Invariant, InvariantBroken, Reply, Request, Scene
from nodes.parts.claims import HearsClients
from nodes.parts.placement import first_placement, range_of
from nodes.parts.placement_claims import CopiesAreWhole, PlacementChronicle, members_of
from nodes.parts.quorum import quorums_of
from nodes.parts.sessions import Result
from nodes.protocols.quorum_register.messages import (
    NOTHING,
    Commit,
    Committed,
    Difference,
    Prepare,
    Prepared,
    Push,
    Record,
    Tag,
)

EVERY = 2
"""Of a coordinator's operations, and of a client's up to their answers, every second one is
followed: what replicas get wrong they get wrong more than once."""


class RegisterChronicle:
    """``writes``: (writer, sequence) of a version -> the key and record that it names."""

    def __init__(self) -> None:
        self.writes: dict[tuple[str, int], tuple[str, Record]] = {}


class ReplicasTellTrue(HearsClients):
    """What a replica tells is on its disk: the version and record of a `Prepared`, and that of what
    it says is `Committed`, or newer ones, with the version of the request. And it tells no version
    older than one that it had acknowledged when it was asked (Attiya, Bar-Noy and Dolev 1995,
    section 3: the label of a replica only grows). What it refused it remembers, and a read, which
    changes nothing, never ends ``info``. Who says what a client has acknowledged has it from that
    client (RIFL, section 3). Where keys are placed, only members of the placement that is asked for
    answer (`nodes.parts.placement`)."""

    name = "a replica tells what is on its disk"
    hears: ClassVar = {
        Request: "on_request",
        Reply: "on_reply",
        Prepare: "on_prepare",
        Prepared: "on_prepared",
        Commit: "on_commit",
        Committed: "on_committed",
        Push: "on_push",
        Difference: "on_difference",
    }

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        # By (coordinator, number): the question, and what replicas had acknowledged of the key.
        self._asked: dict[tuple[str, int], tuple[Prepare, dict[str, Tag]]] = {}
        self._stored: dict[tuple[str, int], Commit] = {}
        self._acknowledged: dict[str, dict[str, Tag]] = {}
        self._placements = scene.common(PlacementChronicle)
        # (coordinator, number, replica): what was asked; and that of which the replica knew already
        # that its placement is replaced.
        self._put: set[tuple[str, int, str]] = set()
        self._outdated: set[tuple[str, int, str]] = set()
        parameters = scene.parameters
        self._ranges, self._factor = parameters.ranges, parameters.replication_factor

    def _held(self, node: str, key: str) -> Tag:
        record: Record | None = self.scene.disks[node].get("k/" + key)
        return NOTHING if record is None else record.version

    def on_reply(self, node: str, request: Request, reply: Reply) -> None:
        """Raises InvariantBroken."""
        if reply.outcome != "ok":
            self.check_answer(node, request, reply)

    def on_prepare(self, node: str, dst: str, msg: Prepare) -> None:
        """Note the question. The same one goes to many."""
        if msg.number % EVERY:
            return
        name = (node, msg.number)
        if name not in self._asked:
            self._asked[name] = msg, self._acknowledged.get(msg.key, {})
        if msg.placement:
            self._note_outdated(node, dst, msg)

    def on_prepared(self, node: str, dst: str, msg: Prepared) -> None:
        """Raises InvariantBroken."""
        if msg.number % EVERY:
            return
        asked = self._asked.get((dst, msg.number))
        if asked is None:
            raise InvariantBroken(f"{node} answers {dst}, who asked nothing: {msg}")
        question, acknowledged = asked
        key, version = question.key, msg.version
        if question.placement:
            self._check_member(node, dst, question)
        record: Record | None = self.scene.disks[node].get("k/" + key)
        held = NOTHING if record is None else record.version
        if not acknowledged.get(node, NOTHING) <= version <= held:
            raise InvariantBroken(
                f"{node} tells of {version} of {key!r}; it has {held} on disk, and had acknowledged"
                f" {acknowledged.get(node, NOTHING)} when it was asked"
            )
        if question.client is None:
            if version == held and msg.record != record:
                raise InvariantBroken(f"{node} tells {msg.record} of {key!r}, and holds {record}")
        elif msg.forgotten:
            if question.sequence >= self._floors.get(question.client, 0):
                raise InvariantBroken(
                    f"{node} takes {question} for acknowledged, which its client has not"
                )
        elif msg.known is not None:
            result = self.scene.disks[node].get(f"r/{question.client}/{question.sequence}")
            if result is not None and tuple(result.version or ()) != msg.known:
                raise InvariantBroken(f"{node} knows {msg.known} for {question}, on disk {result}")

    def on_commit(self, node: str, dst: str, msg: Commit) -> None:
        """Note what is to be stored. Raises InvariantBroken. The same message goes to many."""
        if msg.number % EVERY:
            return
        self._stored[node, msg.number] = msg
        if msg.placement:
            self._note_outdated(node, dst, msg)
        if msg.acked > self._floors.get(msg.record.client, 0):
            raise InvariantBroken(
                f"{node} says that {msg.record.client} has acknowledged what is below {msg.acked}:"
                f" {msg}"
            )

    def on_committed(self, node: str, dst: str, msg: Committed) -> None:
        """Raises InvariantBroken."""
        if msg.number % EVERY:
            return
        stored = self._stored.get((dst, msg.number))
        if stored is None:
            raise InvariantBroken(f"{node} has committed for {dst}, who asked nothing: {msg}")
        key, record = stored.key, stored.record
        if stored.placement:
            self._check_member(node, dst, stored)
        held = self._held(node, key)
        if held < record.version:
            raise InvariantBroken(f"{node} has committed {record} of {key!r}, on disk {held}")
        if not self.remembers(node, record.client, record.sequence, refused=False):
            raise InvariantBroken(
                f"{node} has committed {record} of {key!r}, and does not remember the request"
            )
        known = self._acknowledged.get(key, {})
        if known.get(node, NOTHING) < record.version:
            self._acknowledged[key] = {**known, node: record.version}

    def _note_outdated(self, node: str, dst: str, msg: Prepare | Commit) -> None:
        # Not when it is asked again: the answer to the first question may still be on its way out.
        name = (node, msg.number if type(msg) is Prepare else -msg.number, dst)
        if name in self._put:
            return
        self._put.add(name)
        known = self.scene.disks[dst].get(f"p/{range_of(msg.key, self._ranges)}")
        if known is not None and known.number > msg.placement:
            self._outdated.add(name)

    def _check_member(self, node: str, coordinator: str, msg: Prepare | Commit) -> None:
        key_range, number = range_of(msg.key, self._ranges), msg.placement
        if number > 1:
            placement = self._placements.chosen.get((key_range, number))
        else:
            placement = first_placement(key_range, self.scene.nodes, self._factor)
        name = (coordinator, msg.number if type(msg) is Prepare else -msg.number, node)
        if placement is None or not placement.joined(node) or name in self._outdated:
            raise InvariantBroken(
                f"{node} answers for {msg.key!r} under placement {number}, {placement}: it is none"
                " of it, or knows a newer one"
            )
        known = self.scene.disks[node].get(f"p/{key_range}")
        if number > 1 and (known is None or known.number < number):
            raise InvariantBroken(
                f"{node} answers for {msg.key!r} under {placement}, and has {known} on disk"
            )

    def on_push(self, node: str, dst: str, msg: Push) -> None:
        """Raises InvariantBroken."""
        for key, record in msg.records.items():
            if self._held(node, key) < record.version:
                raise InvariantBroken(f"{node} pushes {record} of {key!r}, which is not on disk")

    def on_difference(self, node: str, dst: str, msg: Difference) -> None:
        """Raises InvariantBroken."""
        for key, version in msg.versions.items():
            if self._held(node, key) < version:
                raise InvariantBroken(f"{node} tells of {version} of {key!r}, not on disk")


class AnswersAreDurable(Invariant):
    """When a request is answered ok, a write quorum has the answer's version, or a newer one, on
    disk. Without that, those who crash could take the answer back. Where keys are placed, it is a
    quorum of a placement that was not replaced, by one that served, when the request came. And the
    answer is no older than any that a client had when it was asked (Lynch and Shvartsman 1997,
    section 4: atomicity), and has the value that its version names."""

    name = "an answer is durable on a write quorum"
    hears: ClassVar = {Request: "on_request", Reply: "on_reply"}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        config = next(iter(scene.configs.values()))
        self._parameters: Any = config.parameters
        self._copies, read, self._needed = quorums_of(config)
        self._is_atomic = read + self._needed > self._copies
        self._placed = self._copies < len(scene.nodes)
        self._placements = scene.common(PlacementChronicle)
        self._writes = scene.common(RegisterChronicle).writes
        self._told: dict[str, Tag] = {}
        self._asked: dict[tuple[str, int], tuple[Tag, int]] = {}

    def on_request(self, node: str, _: str, request: Request) -> None:
        """It arrives, perhaps not for the first time."""
        name = (request.client, request.sequence)
        if request.sequence % EVERY == 0 and name not in self._asked:
            key = request.operation.key
            serving = 1
            if self._placed:
                number = range_of(key, self._parameters.ranges)
                serving = self._placements.serving.get(number, 1)
            self._asked[name] = self._told.get(key, NOTHING), serving

    def on_reply(self, node: str, request: Request, reply: Reply) -> None:
        """Raises InvariantBroken."""
        if request.sequence % EVERY or reply.outcome != "ok":
            return
        key = request.operation.key
        told, serving = self._asked[request.client, request.sequence]
        version: Any = NOTHING if reply.version is None else tuple(reply.version)  # type: ignore[arg-type]
        if version < told and self._is_atomic:
            raise InvariantBroken(
                f"{node} answers {request} with {version}, and clients had been told of {told}"
            )
        if version == NOTHING:
            return
        if version > self._told.get(key, NOTHING):
            self._told[key] = version
        self._check_value(node, request, reply, version)
        holders = [other for other in self.scene.nodes if self._holds(other, key, version)]
        if not self._is_quorum(holders, key, serving):
            raise InvariantBroken(
                f"{node} answers with version {version} of {key!r}, which is durable on {holders}"
            )

    def agrees(self, disks: Mapping[str, Disk]) -> bool:
        """Whether all replicas of a key hold the same version of it."""
        keys = sorted(
            {key for disk in disks.values() for key, _ in disk.items() if key[:2] == "k/"}
        )
        for key in keys:
            members = members_of(disks, self.scene, key[2:]) if self._placed else tuple(disks)
            held = [disks[node].get(key) for node in members if node in disks]
            if any(record != held[0] for record in held):
                return False
        return True

    def _check_value(self, node: str, request: Request, reply: Reply, version: Tag) -> None:
        _, writer, sequence = version
        known = self._writes.get((writer, sequence))
        key = request.operation.key
        if known is None or request.operation.op != "read":
            return  # It was never the newest one anywhere: all replicas had a newer one.
        if (known[0], known[1].version, known[1].value) != (key, version, reply.value):
            raise InvariantBroken(f"{node} answers {request} with {reply}; that is {known}")

    def _holds(self, node: str, key: str, version: Tag) -> bool:
        record: Record | None = self.scene.disks[node].get("k/" + key)
        return record is not None and record.version >= version

    def _is_quorum(self, holders: list[str], key: str, serving: int) -> bool:
        if not self._placed:
            return len(holders) >= self._needed
        number = range_of(key, self._parameters.ranges)
        chosen = self._placements.chosen
        if serving == 1 and self._meet(holders, self._first(number)):
            return True
        last = max(serving, 2)
        while (number, last) in chosen:
            if self._meet(holders, chosen[number, last].nodes):
                return True
            last += 1
        return False

    def _first(self, number: int) -> tuple[str, ...]:
        nodes, copies = self.scene.nodes, self._copies
        return tuple(nodes[(number * copies + i) % len(nodes)] for i in range(copies))

    def _meet(self, holders: list[str], members: tuple[str, ...]) -> bool:
        return sum(member in holders for member in members) >= self._needed


class RegisterCopies(CopiesAreWhole):
    """See `CopiesAreWhole`."""

    def decode(self, content: bytes) -> tuple[str, Any, list[Result]]:
        """See `CopiesAreWhole`."""
        return _decode_key(content)

    def covers(self, record: Any, other: Any) -> bool:
        """See `CopiesAreWhole`."""
        return bool(record.version >= other.version)


_decode_key = msgspec.msgpack.Decoder(tuple[str, Record, list[Result]]).decode
