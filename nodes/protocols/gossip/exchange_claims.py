"""What nodes of gossip make of each other's anti-entropy, judged as it is made; and whom they tell.

How versions compare is written anew, and plainly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nodes.contract.disk import Disk
from nodes.contract.replica import Invariant, InvariantBroken, Scene, Send, Timer
from nodes.parts.key_digest import ExchangesAreExact, PartnersAreRandom
from nodes.parts.limits import KeyLimits
from nodes.parts.placement import OfPlacements, Placement, first_placement, range_of
from nodes.protocols.gossip.messages import Difference, Digest, Pull, Push, Record, Rumour

_NEAR = 1e-9
"""So near a sum of floats may be."""


class GossipPartners(PartnersAreRandom):
    """See `PartnersAreRandom`. Rumours are judged where each round is one message to each peer that
    was drawn, and all may be drawn."""

    hears: ClassVar = {Digest: "on_begin", Rumour: "on_rumour"}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        parameters = scene.parameters
        placed = 0 < parameters.replication_factor < len(scene.nodes)
        whole = parameters.message_characters >= KeyLimits().message_characters
        self._judges_rumours = whole and not placed

    def on_rumour(self, node: str, dst: str, msg: Rumour) -> None:
        """Raises InvariantBroken."""
        if self._judges_rumours:
            self.on_begin(node, dst, msg)


def clock_of(record: Record | None) -> dict[str, int]:
    """What it stands for, together with all that it has seen."""
    clock: dict[str, int] = {}
    for s in () if record is None else record.siblings:
        for node, counter in (*s.past.items(), (s.node, s.counter)):
            clock[node] = max(counter, clock.get(node, 0))
    return clock


def lacks(ours: Mapping[str, int], theirs: Mapping[str, int]) -> bool:
    """Whether ``theirs`` counts an event that ``ours`` does not."""
    return any(ours.get(node, 0) < counter for node, counter in theirs.items())


def is_earlier(ours: Mapping[str, int], theirs: Mapping[str, int]) -> bool:
    """The same for lww, where a clock is one stamp."""
    return max([(c, n) for n, c in ours.items()], default=(0, "")) < max(
        [(c, n) for n, c in theirs.items()], default=(0, "")
    )


class GossipExchanges(ExchangesAreExact):
    """See `ExchangesAreExact`. Where keys are placed, who is no member pulls nothing."""

    judges: ClassVar = {Digest: "on_digest", Difference: "on_difference", Pull: "on_pull"}
    hears: ClassVar = {Rumour: "on_rumour"}
    pull = Pull
    push = Push

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        parameters = scene.parameters
        self._lacks = is_earlier if parameters.conflict == "lww" else lacks

    def characters(self, record: Any) -> int:
        """See `ExchangesAreExact`."""
        return sum(100 + len(str(s.value)) for s in record.siblings)

    def on_digest(self, replica: Any, src: str, msg: Digest, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        if not self.is_due():
            return
        buckets = {b for s in sends if type(s.msg) is Difference for b in s.msg.buckets}
        counted = {s.msg.differing for s in sends if type(s.msg) is Difference}
        if counted - {len(buckets)}:
            raise InvariantBroken(f"{replica.id} tells of {buckets}, and counts {counted}")
        if buckets:
            held = self.held(replica.disk, buckets, replica.parameters.buckets)
            right = {key: clock_of(record) for key, record in held.items()}
            self.compare(replica.id, "tells of", self.told(sends, Difference, "clocks"), right)
            self.check_differences(replica.id, sends, Difference, "clocks")

    def on_rumour(self, node: str, dst: str, msg: Rumour) -> None:
        """Raises InvariantBroken."""
        if self.is_due():
            sizes = [len(key) + self.characters(r) for key, r in msg.records.items()]
            self.check_portions(node, "tells", self.scene.parameters.message_characters, [sizes])

    def on_difference(self, replica: Any, src: str, msg: Difference, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        if not self.is_due():
            return
        if not msg.buckets and not sends:
            return
        theirs, disk = msg.clocks, replica.disk
        held = self.held(disk, set(msg.buckets), replica.parameters.buckets)
        push = {
            key: record
            for key, record in held.items()
            if key not in theirs or self._lacks(theirs[key], clock_of(record))
        }
        self.compare_pushes(replica.id, sends, push)
        pull = {
            key
            for key, clock in theirs.items()
            if self._lacks(clock_of(disk.get("k/" + key)), clock)
        }
        asked = self.pulled(sends)
        if replica.recovery is not None:
            pull &= asked
        self.compare(replica.id, "pulls", dict.fromkeys(asked), dict.fromkeys(pull))


class AllIsHandedOver(OfPlacements):
    """Who is no member of a range, and tells others that it has nothing in one of its buckets, has
    heard of each key that it holds there that a member holds it, no older. A member by the
    placement that it knows now: one of an older placement may be lost, and the new ones may lack
    what that one had."""

    name = "who is no member offers what the members may lack"
    judges: ClassVar = {Timer: "on_timer", Difference: "on_difference"}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        parameters = scene.parameters
        self._lacks = is_earlier if parameters.conflict == "lww" else lacks
        # By node and key: the number of the placement, and what its members have told.
        self._told: dict[str, dict[str, tuple[int, dict[str, dict[str, int]]]]] = {
            node: {} for node in scene.nodes
        }

    def _placement(self, disk: Disk, bucket: int) -> Placement:
        parameters = self.scene.parameters
        number = bucket % parameters.ranges
        first = first_placement(number, self.scene.nodes, parameters.replication_factor)
        known: Placement = disk.get(f"p/{number}", first)
        return known

    def on_difference(self, replica: Any, src: str, msg: Difference, sends: Sequence[Send]) -> None:
        """A peer tells what it holds."""
        told = self._told[replica.id]
        for key, clock in msg.clocks.items():
            placement = self._placement(replica.disk, range_of(key, self.scene.parameters.ranges))
            if placement.joined(src):
                if told.get(key, (0, {}))[0] != placement.number:
                    told[key] = placement.number, {}
                # It may come after a newer one; at one node a key's clock never goes back.
                known = told[key][1].setdefault(src, {})
                for node, counter in clock.items():
                    known[node] = max(counter, known.get(node, 0))

    def on_timer(self, replica: Any, _: str, name: str, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        for hashes in [send.msg.hashes for send in sends if type(send.msg) is Digest]:
            disk = replica.disk
            buckets = {
                bucket: placement.number
                for bucket, told in enumerate(hashes)
                if told == 0 and not (placement := self._placement(disk, bucket)).joined(replica.id)
            }
            held = ExchangesAreExact.held(disk, buckets, len(hashes)) if buckets else {}
            for key, record in held.items():
                known = buckets[range_of(key, len(hashes))]
                number, told = self._told[replica.id].get(key, (0, {}))
                ours = clock_of(record)
                if number != known or all(self._lacks(clock, ours) for clock in told.values()):
                    raise InvariantBroken(
                        f"{replica.id} tells nothing of {key!r}, which it holds as {record}; it"
                        f" knows placement {known}, and heard of {told} by {number}"
                    )


class AgreementIsTrue(Invariant):
    """The share of the copies that agree, as a node tells it after an exchange, is what the last
    exchange with each peer showed: as many buckets as were said to differ, however many messages
    tell of them, do not agree."""

    name = "what is said to agree was seen to agree"
    judges: ClassVar = {Digest: "on_digest", Difference: "on_difference"}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        # Of each node its present life, and how many buckets differed from each peer's last.
        self._differing: dict[str, tuple[Any, dict[str, int]]] = {}

    def is_needed(self) -> bool:
        """See `Invariant`. Where keys are placed the share is that of members who are ready."""
        parameters = self.scene.parameters
        return not 0 < parameters.replication_factor < len(self.scene.nodes)

    def on_digest(self, replica: Any, src: str, msg: Digest, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        buckets = sum(len(s.msg.buckets) for s in sends if type(s.msg) is Difference)
        self._check(replica, src, buckets)

    def on_difference(self, replica: Any, src: str, msg: Difference, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        self._check(replica, src, msg.differing)

    def _check(self, replica: Any, src: str, differing: int) -> None:
        life, by_peer = self._differing.get(replica.id, (None, {}))
        if life is not replica:
            by_peer = {}
            self._differing[replica.id] = replica, by_peer
        before = by_peer.get(src)
        by_peer[src] = differing
        if before == differing:
            return
        said = replica.probe()["replication_ratio"]
        if said is None:
            return
        buckets, nodes = replica.parameters.buckets, len(self.scene.nodes)
        right = 1 - sum(by_peer.values()) / (buckets * nodes)
        if len(by_peer) < nodes - 1 or abs(said - right) > _NEAR:
            raise InvariantBroken(
                f"{replica.id} says that replication_ratio is {said}; of {buckets} buckets"
                f" {by_peer} differ"
            )
