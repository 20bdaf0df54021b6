"""Whom the quorum register counts where keys are placed on fewer nodes than there are, recorded
from messages, disks and the placements that were chosen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from nodes.contract.replica import InvariantBroken, Reply, Request, Scene, Send
from nodes.parts.placement import OfPlacements, Placement, first_placement, range_of
from nodes.parts.placement_claims import MembersAnswer, PlacementChronicle
from nodes.parts.quorum import quorums_of
from nodes.protocols.quorum_register.messages import (
    NOTHING,
    Commit,
    Committed,
    Prepare,
    Prepared,
    Record,
    Tag,
)


class RegisterMembers(MembersAnswer):
    """See `MembersAnswer`."""

    judges: ClassVar = {Prepare: "on_question", Commit: "on_question"}
    answers = (Prepared, Committed)

    def asked(self, msg: Prepare | Commit) -> tuple[str, int | None]:
        """See `MembersAnswer`."""
        return msg.key, msg.placement


class _Phase:
    """What a coordinator asks under one number: of the members of one placement. ``stores``: the
    client and sequence of the write that it stores; ``answered``: the versions of those that
    it has heard, ``holders``: who has said that it holds the record."""

    __slots__ = ("answered", "holders", "key", "placement", "stores")

    def __init__(self, key: str, placement: Placement) -> None:
        self.key = key
        self.placement = placement
        self.stores: tuple[str, int] | None = None
        self.answered: dict[str, Tag] = {}
        self.holders: set[str] = set()

    def __str__(self) -> str:
        answered, holders = sorted(self.answered), sorted(self.holders)
        return f"{self.placement}: answered {answered}, stored {holders}"


class QuorumsAreOfOnePlacement(OfPlacements):
    """Those who count for an operation are members of one placement, and answered under its number,
    the coordinator's own replica counted: a read quorum before a write has a version and before a
    read is answered, a write quorum before the answer. Nobody else is asked (Lamport, Malkhi, Zhou,
    "Vertical Paxos", PODC 2009, section 2: a quorum of a configuration)."""

    name = "a quorum is of one placement"
    hears: ClassVar = {
        Request: "on_request",
        Prepare: "on_prepare",
        Commit: "on_commit",
        Reply: "on_reply",
    }
    judges: ClassVar = {Prepared: "on_prepared", Committed: "on_committed"}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._ranges: int = scene.parameters.ranges
        self._copies, self._read, self._write = quorums_of(next(iter(scene.configs.values())))
        self._chosen = scene.common(PlacementChronicle).chosen
        # By coordinator and number; and by coordinator and key, in order.
        self._phases: dict[tuple[str, int], _Phase] = {}
        self._of_key: dict[tuple[str, str], list[_Phase]] = {}
        # By coordinator, client and sequence: how many phases of its key there were when it came
        # first. It may come again, and be open once more, before an answer to it has left.
        self._before: dict[tuple[str, str, int], int] = {}
        # Versions that were stored.
        self._stored: set[Tag] = set()

    def on_request(self, node: str, _: str, request: Request) -> None:
        """It arrives, perhaps not for the first time."""
        phases = self._of_key.get((node, request.operation.key), ())
        self._before.setdefault((node, request.client, request.sequence), len(phases))

    def _phase(self, node: str, dst: str, msg: Prepare | Commit) -> _Phase:
        phase = self._phases.get((node, msg.number))
        if phase is None:
            key_range = range_of(msg.key, self._ranges)
            placement = self._chosen.get((key_range, msg.placement))
            if placement is None:
                placement = first_placement(key_range, self.scene.nodes, self._copies)
            phase = self._phases[node, msg.number] = _Phase(msg.key, placement)
            self._of_key.setdefault((node, msg.key), []).append(phase)
        if not phase.placement.joined(dst):
            raise InvariantBroken(f"{node} asks {dst}, no member of {phase.placement}: {msg}")
        return phase

    def on_prepare(self, node: str, dst: str, msg: Prepare) -> None:
        """Note the question."""
        self._phase(node, dst, msg)

    def on_prepared(self, replica: Any, src: str, msg: Prepared, sends: Sequence[Send]) -> None:
        """Note the answer."""
        phase = self._phases.get((replica.id, msg.number))
        if phase is not None:
            # An older answer may come after a newer one.
            phase.answered[src] = max(msg.version, phase.answered.get(src, NOTHING))

    def on_committed(self, replica: Any, src: str, msg: Committed, sends: Sequence[Send]) -> None:
        """Note the answer."""
        phase = self._phases.get((replica.id, msg.number))
        if phase is not None:
            phase.holders.add(src)

    def on_commit(self, node: str, dst: str, msg: Commit) -> None:
        """Raises InvariantBroken if a write has a version too soon."""
        phase = self._phase(node, dst, msg)
        record = msg.record
        phase.stores = record.client, record.sequence
        if record.version in self._stored:
            return
        self._stored.add(record.version)
        _, writer, number = record.version
        first = self._phases.get((node, number))
        if (
            writer == node
            and first is not None
            and self._read > 1
            and not self._has(node, first, first.answered, self._read)
        ):
            raise InvariantBroken(
                f"{node} stores {record}, and no read quorum of one placement had answered: {first}"
            )

    def on_reply(self, node: str, request: Request, reply: Reply) -> None:
        """Raises InvariantBroken."""
        if reply.outcome != "ok":
            return
        key = request.operation.key
        before = self._before[node, request.client, request.sequence]
        phases = self._of_key.get((node, key), [])[before:]
        version: Any = NOTHING if reply.version is None else tuple(reply.version)  # type: ignore[arg-type]
        is_read = request.operation.op == "read"
        if not is_read:
            phases = [
                phase for phase in phases if phase.stores == (request.client, request.sequence)
            ]
        if not phases and self._read == 1:
            return  # It was alone in its first phase, and asked nobody.
        for phase in phases:
            holders = {n for n, held in phase.answered.items() if held >= version}
            is_answered = self._read == 1 or self._has(node, phase, phase.answered, self._read)
            if (is_answered or not is_read) and (
                version == NOTHING
                or self._has(node, phase, holders | phase.holders, self._write, version)
            ):
                return
        raise InvariantBroken(
            f"{node} answers {request} with {version}, by no quorum of one placement:"
            f" {[str(phase) for phase in phases]}"
        )

    def _has(
        self, node: str, phase: _Phase, others: Collection[str], needed: int, held: Tag = NOTHING
    ) -> bool:
        """Whether ``others`` and the coordinator are so many members; ``held``: the version that it
        must have on disk itself to count."""
        placement = phase.placement
        count = sum(member in others for member in placement.nodes if member != node)
        joined = placement.joined(node)
        if joined:
            disk = self.scene.disks[node]
            record: Record | None = disk.get("k/" + phase.key)
            version = NOTHING if record is None else record.version
            count += version >= held and disk.get(f"ready/{placement.range}", 1) >= joined
        return count >= needed
