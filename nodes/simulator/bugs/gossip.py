"""Gossip with one mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from nodes.contract.replica import Operation, Request
from nodes.parts.vector_clock import merge
from nodes.protocols.gossip import Gossip, KeepSiblings, Record, Rumour, Sibling
from nodes.simulator.bugs import Bug


class ToldOnceThenForgotten(Gossip):
    """An update is told to one peer once; nothing repairs what was missed."""

    def _set_anti_entropy_timer(self) -> None:
        pass

    def _heat(self, key: str) -> None:
        super()._heat(key)
        self._hot[key] = 1

    def on_rumour(self, src: str, msg: Rumour) -> None:
        self._absorb(msg.records)


class RumoursOnly(Gossip):
    """There are rumours, but no anti-entropy: a lost message is lost for good."""

    def _set_anti_entropy_timer(self) -> None:
        pass


class WallClockWins(Gossip):
    """Stamps are the wall clock alone, so that a slow clock's writes lose."""

    def _new_sibling(self, request: Request, clock: Mapping[str, int]) -> Sibling:
        new = super()._new_sibling(request, clock)
        return msgspec.structs.replace(new, counter=int(self.env.wall() * 1000) << 16)


class ClockChangedInPlace(Gossip):
    """A write increments the stored clock itself, not a copy."""

    def _past(self, operation: Operation, clock: Any) -> dict[str, int]:
        record = self.records.get(operation.key)
        if record is not None and operation.context is None:
            past = record.siblings[0].past
            past.update(clock)
            return past
        return super()._past(operation, clock)


class ReplyBeforeFsync(Gossip):
    """A write is acknowledged before it is durable."""

    def _reply(
        self, request: Request, outcome: Literal["ok", "fail", "info"], **fields: Any
    ) -> None:
        super()._reply(request, outcome, **fields)
        self.out.replies[-1] = (0, self.out.replies[-1][1])


class RumourBeforeFsync(Gossip):
    """A rumour leaves before the write that it tells of is durable."""

    def _heat(self, key: str) -> None:
        super()._heat(key)
        for peer in self.config.peers:
            self.out.send(peer, Rumour({key: self.records[key]}), early=True)


class _NewestOnly(KeepSiblings):
    @classmethod
    def merge(cls, ours: Sequence[Sibling], theirs: Sequence[Sibling]) -> tuple[Sibling, ...]:
        merged = KeepSiblings.merge(ours, theirs)
        return (max(merged, key=lambda s: (s.counter, s.node)),)


class SiblingsDropped(Gossip):
    """Of concurrent versions only one is kept, though the others were acknowledged."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.policy = _NewestOnly

    def _absorb(self, records: Mapping[str, Record]) -> list[str]:
        news = []
        for key, theirs in records.items():
            ours = self.records.get(key)
            before = ours.siblings if ours is not None else ()
            merged = self.policy.merge(before, theirs.siblings)
            if merged != before:
                self._store(key, Record(merged))
                news.append(key)
        return news


class NoTombstones(Gossip):
    """Tombstones go before everybody has seen them, so that a late rumour brings the key back."""

    def _start_anti_entropy(self) -> None:
        for key, record in list(self.records.items()):
            if all(sibling.deleted for sibling in record.siblings):
                del self.records[key]
                self.disk.put("k/" + key, None)
        super()._start_anti_entropy()

    def _dots(self, key: str) -> list[tuple[str, int]]:
        return super()._dots(key) if key in self.records else []


class ContextCoversEverything(Gossip):
    """A write supersedes all that its node holds, whatever its client had read; and more."""

    def _past(self, operation: Operation, clock: Any) -> dict[str, int]:
        return {node: counter + 1 for node, counter in clock.items() if node != self.id} | {
            node: counter for node, counter in clock.items() if node == self.id
        }


class PushOnly(Gossip):
    """Anti-entropy pulls nothing and pushes nothing: digests are compared, and that is all."""

    def _push(self, peer: str, keys: Sequence[str]) -> None:
        pass


class SiblingsCountedTogether(Gossip):
    """A write may replace the sibling of another node however many there are."""

    def _are_too_many(self, merged: Sequence[Sibling], before: Sequence[Sibling]) -> bool:
        return len(merged) > max(self.parameters.max_siblings, len(before))


class ContextAndMore(Gossip):
    """A write supersedes what its client had read, and what its node holds beside."""

    def _past(self, operation: Operation, clock: Any) -> dict[str, int]:
        return merge(super()._past(operation, clock), clock)


class ContextIsNoClock(Gossip):
    """The stamp of a write is later than all that its node knows, not than its context."""

    def _new_sibling(self, request: Request, clock: Mapping[str, int]) -> Sibling:
        operation = msgspec.structs.replace(request.operation, context=None)
        return super()._new_sibling(msgspec.structs.replace(request, operation=operation), clock)


class DigestKeepsOldVersions(Gossip):
    """A digest also counts the versions that a delete replaced, so that equal replicas differ."""

    def _index(self, key: str, record: Record) -> None:
        super()._index(key, record)
        if not all(sibling.deleted for sibling in record.siblings):
            return
        self._digest._catch_up()
        for keys in self._digest._keys:
            if key in keys:
                keys[key] = 0


_SKETCH = "protocols.md, Gossip, wrong there"

BUGS = (
    Bug(
        name="gossip-siblings-counted-together",
        protocol="gossip",
        replica=SiblingsCountedTogether,
        source="found here: writes that replace the siblings of others make more than all may have",
    ),
    Bug(
        name="gossip-told-once",
        protocol="gossip",
        replica=ToldOnceThenForgotten,
        source=_SKETCH + ": an update told to one peer is forgotten",
        parameters={"fanout": 1, "rounds": 1},
    ),
    Bug(
        name="gossip-rumours-only",
        protocol="gossip",
        replica=RumoursOnly,
        source=_SKETCH + ": no anti-entropy",
    ),
    Bug(
        name="gossip-wall-clock-wins",
        protocol="gossip-lww",
        replica=WallClockWins,
        source=_SKETCH + ": last-write-wins by wall clock",
    ),
    Bug(
        name="gossip-clock-changed-in-place",
        protocol="gossip",
        replica=ClockChangedInPlace,
        source=_SKETCH + ": increment changes the stored clock in place",
    ),
    Bug(
        name="gossip-reply-before-fsync",
        protocol="gossip",
        replica=ReplyBeforeFsync,
        source="a wrong early=True",
    ),
    Bug(
        name="gossip-rumour-before-fsync",
        protocol="gossip",
        replica=RumourBeforeFsync,
        source="a dot is given twice after a crash; a wrong early=True",
    ),
    Bug(
        name="gossip-siblings-dropped",
        protocol="gossip",
        replica=SiblingsDropped,
        source="concurrent versions are not ordered (Dynamo, 4.4)",
    ),
    Bug(
        name="gossip-no-tombstones",
        protocol="gossip",
        replica=NoTombstones,
        source="Demers et al. 1987, 2: death certificates",
    ),
    Bug(
        name="gossip-context-covers-everything",
        protocol="gossip",
        replica=ContextCoversEverything,
        source="a clock must count events that were seen",
    ),
    Bug(
        name="gossip-digests-only",
        protocol="gossip",
        replica=PushOnly,
        source="anti-entropy that repairs nothing",
    ),
    Bug(
        name="gossip-context-and-more",
        protocol="gossip",
        replica=ContextAndMore,
        source="a sibling that nobody read is lost (Preguica et al. 2010, 3)",
    ),
    Bug(
        name="gossip-lww-ignores-context",
        protocol="gossip-lww",
        replica=ContextIsNoClock,
        source="Kulkarni et al. 2014: the clock is never behind what was seen",
    ),
    Bug(
        name="gossip-digest-keeps-old",
        protocol="gossip",
        replica=DigestKeepsOldVersions,
        source="anti-entropy that never finds replicas equal",
    ),
)
