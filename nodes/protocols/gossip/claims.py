"""What nodes of gossip claim in their messages, judged when these leave.

Sources as in `nodes.protocols.gossip.replica`. All that is known here was seen: in messages that
left, and on disks. How versions supersede each other is written anew, and plainly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from nodes.contract.disk import Disk
from nodes.contract.replica import InvariantBroken, Reply, Request, Scene
from nodes.parts.claims import HearsClients
from nodes.parts.placement import OfPlacements
from nodes.parts.placement_claims import CopiesAreWhole, MembersAnswer, members_of
from nodes.parts.sessions import Result
from nodes.protocols.gossip.messages import (
    Difference,
    Forward,
    Forwarded,
    Push,
    Record,
    Rumour,
    Sibling,
)


def is_known(s: Sibling, held: tuple[Sibling, ...]) -> bool:
    """Whether ``s`` is among those that are ``held``, or is superseded by one (Preguiça et al.,
    "Dotted Version Vectors", 2010, section 3; under lww stamps are in order, and no version has a
    past)."""
    for t in held:
        if (t.node, t.counter) == (s.node, s.counter) or t.past.get(s.node, 0) >= s.counter:
            return True
    return False


def is_older(s: Sibling, held: tuple[Sibling, ...]) -> bool:
    """The same for lww."""
    return any((t.counter, t.node) >= (s.counter, s.node) for t in held)


class NodesTellTrue(HearsClients):
    """A version that is told is on the teller's disk, or what supersedes it is: else a crash makes
    it give the same dot to another one. The clocks of anti-entropy cover nothing that is not there,
    for the peer does not send what they cover (Demers et al. 1987, section 1.3). What a client is
    told of a key is on disk: as old as its version says, with the values that are there. What it
    refused it remembers, and a read never ends ``info``. By its own writes it holds no more
    siblings than it may."""

    name = "a node tells what is on its disk"
    hears: ClassVar = {
        Rumour: "on_records",
        Push: "on_records",
        Difference: "on_difference",
        Forwarded: "on_forwarded",
        Request: "on_request",
        Reply: "on_reply",
    }

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        parameters = scene.parameters
        self._parameters = parameters
        self._is_lww = parameters.conflict == "lww"
        self._is_known = is_older if self._is_lww else is_known
        self._placed = 0 < parameters.replication_factor < len(scene.nodes)
        self._asked: dict[tuple[str, int], Request] = {}
        # By key and dot: versions that were acknowledged.
        self._written: dict[str, dict[tuple[str, int], Sibling]] = {}
        self._told: Mapping[str, Record] | None = None
        self._vouched: dict[tuple[str, int], None] = {}

    def _held(self, node: str, key: str) -> tuple[Sibling, ...]:
        record: Record | None = self.scene.disks[node].get("k/" + key)
        return () if record is None else record.siblings

    def on_records(self, node: str, dst: str, msg: Rumour | Push) -> None:
        """Raises InvariantBroken. The same records go to several nodes at a time."""
        if msg.records is self._told:
            return
        self._told = msg.records
        disk = self.scene.disks[node]
        for key, record in msg.records.items():
            if disk.get("k/" + key) is not record:
                held = self._held(node, key)
                for s in record.siblings:
                    if not self._is_known(s, held):
                        raise InvariantBroken(f"{node} tells of {s} of {key!r}, on disk {held}")

    def _covers(self, held: tuple[Sibling, ...], version: Any) -> bool:
        """Whether what is held is no older than a clock, or a version under lww."""
        if isinstance(version, dict):
            return self._clock_covers(held, version) or (
                self._is_lww and self._covers(held, [0, max(version.values()), ""])
            )
        milliseconds, logical, node = version
        stamp = milliseconds << 16 | logical
        return any((t.counter, t.node) >= (stamp, node) for t in held)

    @staticmethod
    def _clock_covers(held: tuple[Sibling, ...], clock: Mapping[str, int]) -> bool:
        for node, c in clock.items():
            for t in held:
                if t.past.get(node, 0) >= c or (t.node == node and t.counter >= c):
                    break
            else:
                return False
        return True

    def on_difference(self, node: str, dst: str, msg: Difference) -> None:
        """Raises InvariantBroken."""
        for key, clock in msg.clocks.items():
            held = self._held(node, key)
            if clock and not self._covers(held, clock):
                raise InvariantBroken(f"{node} claims {clock} of {key!r}, on disk {held}")

    def on_request(self, node: str, _: str, request: Request) -> None:
        """It arrives."""
        super().on_request(node, _, request)
        if self._placed:
            self._asked[request.client, request.sequence] = request

    def on_forwarded(self, node: str, dst: str, msg: Forwarded) -> None:
        """Raises InvariantBroken."""
        name = (msg.reply.client, msg.reply.sequence)
        self._vouched[name] = None
        self._check(node, self._asked[name], msg.reply)

    def on_reply(self, node: str, request: Request, reply: Reply) -> None:
        """Raises InvariantBroken."""
        if (request.client, request.sequence) not in self._vouched:
            self._check(node, request, reply)

    def _check(self, node: str, request: Request, reply: Reply) -> None:
        if reply.outcome != "ok":
            self.check_answer(node, request, reply)
            return
        if reply.version is None:
            return
        key, version = request.operation.key, reply.version
        held = self._held(node, key)
        if not self._covers(held, version):
            raise InvariantBroken(f"{node} answers {request} with {reply}, on disk {held}")
        if sum([s.node == node for s in held]) > self._parameters.max_siblings:
            raise InvariantBroken(f"{node} holds too many siblings of {key!r} of its own: {held}")
        if request.operation.op != "read":
            self._note_written(request, held)
        elif self._clock(held) == version:
            values = {(s.client, s.sequence): s.value for s in held if not s.deleted}
            wanted: Any = list(values.values())
            if len(wanted) < 2:
                wanted = wanted[0] if wanted else None
            if reply.value != wanted:
                raise InvariantBroken(f"{node} answers {request} with {reply}, on disk {held}")

    def _note_written(self, request: Request, held: tuple[Sibling, ...]) -> None:
        """It is acknowledged, and must stay until another one supersedes it."""
        name = (request.client, request.sequence)
        for s in held:
            if (s.client, s.sequence) == name:
                self._written.setdefault(request.operation.key, {})[s.node, s.counter] = s

    def _clock(self, held: tuple[Sibling, ...]) -> Any:
        """What a read of these tells as its version."""
        if self._is_lww:
            (s,) = held
            return [s.counter >> 16, s.counter & 0xFFFF, s.node]
        clock: dict[str, int] = {}
        for s in held:
            for node, counter in (*s.past.items(), (s.node, s.counter)):
                if counter >= clock.get(node, 0):
                    clock[node] = counter
        return clock

    def agrees(self, disks: Mapping[str, Disk]) -> bool:
        """Whether all nodes that have to hold a key hold the same versions of it, and among them
        all that were acknowledged and are not superseded."""
        keys = sorted(
            {key for disk in disks.values() for key, _ in disk.items() if key[:2] == "k/"}
        )
        for key in keys:
            members = members_of(disks, self.scene, key[2:]) if self._placed else list(disks)
            held = [disks[node].get(key) for node in members if node in disks]
            if any(record != held[0] for record in held):
                return False
            siblings = held[0].siblings if held and held[0] is not None else ()
            if not all(
                self._is_known(s, siblings) for s in self._written.get(key[2:], {}).values()
            ):
                return False
        return True


class WritesAreHandedOn(OfPlacements):
    """A write that is open is handed on to one member only, or it would be made twice. A node that
    has answered it, or was killed, may choose anew: it does not remember."""

    name = "a write is handed to one member"
    looks_at: ClassVar = ("durable_position",)
    hears: ClassVar = {Forward: "on_forward", Reply: "on_reply"}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._lives: dict[str, Any] = {}
        self._handed: dict[str, dict[tuple[str, int], str]] = {node: {} for node in scene.nodes}

    def observe(self, node: str, replica: Any) -> None:
        """A new life begins with nothing handed on."""
        if self._lives.get(node) is not replica:
            self._lives[node] = replica
            self._handed[node].clear()

    def on_forward(self, node: str, dst: str, msg: Forward) -> None:
        """Raises InvariantBroken."""
        request = msg.request
        if request.operation.op == "read":
            return
        first = self._handed[node].setdefault((request.client, request.sequence), dst)
        if first != dst:
            raise InvariantBroken(f"{node} hands {request} to {dst}, after {first}")

    def on_reply(self, node: str, request: Request, reply: Reply) -> None:
        """It is no longer open."""
        self._handed[node].pop((request.client, request.sequence), None)


class GossipMembers(MembersAnswer):
    """See `MembersAnswer`. So is it where a client asks: who is no member, or still copies, has the
    answer from a member. ``ready`` on disk goes up when a node becomes a member that is ready, and
    whatever it answers from then on leaves after that."""

    judges: ClassVar = {Forward: "on_question"}
    hears: ClassVar = {Request: "on_request", Forwarded: "on_forwarded", Reply: "on_reply"}
    answers = (Forwarded,)

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        # By node, client and sequence: what it was ready for when the request came first, if that
        # was not the placement that it knew.
        self._unready: dict[tuple[str, str, int], int] = {}
        self._came: set[tuple[str, str, int]] = set()

    def on_request(self, node: str, _: str, request: Request) -> None:
        """It arrives, perhaps not for the first time."""
        name = (node, request.client, request.sequence)
        if name not in self._came:
            self._came.add(name)
            known, ready = self.standing(self.scene.disks[node], node, request.operation.key)
            joined = known.joined(node)
            if joined == 0 or ready != joined:
                self._unready[name] = ready

    def on_forwarded(self, node: str, dst: str, msg: Forwarded) -> None:
        """A member answers for ``dst``."""
        self._unready.pop((dst, msg.reply.client, msg.reply.sequence), None)

    def on_reply(self, node: str, request: Request, reply: Reply) -> None:
        """Raises InvariantBroken."""
        before = self._unready.get((node, request.client, request.sequence))
        if before is None or reply.outcome != "ok":
            return
        known, ready = self.standing(self.scene.disks[node], node, request.operation.key)
        if ready == before:
            raise InvariantBroken(
                f"{node} answers {request} by {reply}, which no member has told it: it is ready for"
                f" {ready}, and joined by {known.joined(node)}"
            )

    def asked(self, msg: Forward) -> tuple[str, int | None]:
        """See `MembersAnswer`."""
        return msg.request.operation.key, None


class GossipCopies(CopiesAreWhole):
    """See `CopiesAreWhole`."""

    def decode(self, content: bytes) -> tuple[str, Any, list[Result]]:
        """See `CopiesAreWhole`."""
        return _decode_key(content)

    def covers(self, record: Any, other: Any) -> bool:
        """See `CopiesAreWhole`."""
        parameters = self.scene.parameters
        known = is_older if parameters.conflict == "lww" else is_known
        return all(known(s, record.siblings) for s in other.siblings)


_decode_key = msgspec.msgpack.Decoder(tuple[str, Record, list[Result]]).decode
