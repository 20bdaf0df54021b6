"""What nodes claim of placements, judged when it leaves: the acceptors' part and the copying.

Recorded from messages and disks; no replica is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nodes.contract.disk import Disk
from nodes.contract.replica import InvariantBroken, Request, Scene, Send
from nodes.parts.claims import HearsClients, outnumber
from nodes.parts.placement import (
    AcceptedPlacement,
    AcceptPlacement,
    OfPlacements,
    Placed,
    Placement,
    PlacementNumbers,
    PreparePlacement,
    PromisePlacement,
    Vote,
    first_placement,
    range_of,
)
from nodes.parts.quorum import fencing_quorum, majority
from nodes.parts.recovery import CopyRange, RangePage, RangeReady
from nodes.parts.sessions import Result
from nodes.parts.synod import NO_BALLOT, Ballot


class PlacementChronicle:
    """``chosen``: (range, number) -> what a majority of all nodes has voted for in one ballot.
    ``serving``: by range, the newest number of which the new member has said that it is ready."""

    def __init__(self) -> None:
        self.chosen: dict[tuple[int, int], Placement] = {}
        self.serving: dict[int, int] = {}


def members_of(disks: Mapping[str, Disk], scene: Scene, key: str) -> tuple[str, ...]:
    """Who holds ``key``, by the newest placement that any of ``disks`` has."""
    parameters = scene.parameters
    number = range_of(key, parameters.ranges)
    newest = first_placement(number, scene.nodes, parameters.replication_factor)
    for disk in disks.values():
        known: Placement = disk.get(f"p/{number}", newest)
        if known.number > newest.number:
            newest = known
    return newest.nodes


class PlacementAcceptors(OfPlacements):
    """Votes stay, and a promise is no lower than any vote or promise before; a ballot is its
    proposer's, who needs a majority of promises, and has one value for each range and number; what
    is chosen stays, and nothing else is told as chosen. All of it is on disk before it is told
    (Lamport, "Paxos Made Simple", 2001, section 2, P1a, P2b, P2c). Only members that are ready
    propose, and none before the newest one is ready, unless it is the one that is replaced
    (`nodes.parts.recovery`). Phase 2 begins when a majority has answered this very ballot, with the
    value of the highest vote that was told, and once: what is told later changes nothing."""

    name = "acceptors of placements keep their word"
    judges: ClassVar = {PromisePlacement: "on_promise_heard"}
    hears: ClassVar = {
        PreparePlacement: "on_prepare",
        PromisePlacement: "on_promise",
        AcceptPlacement: "on_accept",
        AcceptedPlacement: "on_accepted",
        Placed: "on_placed",
        PlacementNumbers: "on_numbers",
        RangeReady: "on_range_ready",
    }

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(PlacementChronicle)
        self._majority = majority(len(scene.nodes))
        self._promised: dict[tuple[str, int], Ballot] = {}
        self._promises: dict[tuple[int, int, Ballot], set[str]] = {}
        self._proposed: dict[tuple[int, int, Ballot], Placement] = {}
        self._cast: dict[tuple[str, int, int], tuple[Ballot, Placement]] = {}
        self._voters: dict[tuple[int, int, Ballot], set[str]] = {}
        self._chosen_in: dict[tuple[int, int], Ballot] = {}
        # What a proposer has heard, by range, number and ballot: of whom, and of which vote.
        self._heard: dict[tuple[int, int, Ballot], dict[str, tuple[Ballot, Placement | None]]] = {}
        # The ballots of which phase 2 has begun: they have their value.
        self._begun: set[tuple[int, int, Ballot]] = set()

    def _vote_of(self, node: str, key_range: int) -> Vote:
        vote: Vote = self.scene.disks[node].get(f"vote/{key_range}", Vote(NO_BALLOT))
        return vote

    def _check_promise(self, node: str, key_range: int, ballot: Ballot) -> None:
        vote = self._vote_of(node, key_range)
        if vote.promised < ballot:
            raise InvariantBroken(
                f"{node} speaks of range {key_range} in ballot {ballot}, and has {vote} on disk"
            )

    def _promise(self, node: str, key_range: int, ballot: Ballot) -> None:
        before = self._promised.get((node, key_range), NO_BALLOT)
        if ballot < before:
            raise InvariantBroken(
                f"{node} answers ballot {ballot} of range {key_range}, and has promised {before}"
            )
        self._promised[node, key_range] = ballot
        self._check_promise(node, key_range, ballot)

    def _check_chosen(self, node: str, placement: Placement) -> None:
        chosen = self._chronicle.chosen.get((placement.range, placement.number))
        if placement.number > 1 and chosen != placement:
            raise InvariantBroken(f"{node} takes {placement} for chosen, and {chosen} was")

    def _check_proposer(self, node: str, ballot: Ballot, base: Placement) -> None:
        if ballot.node != node:
            raise InvariantBroken(f"{node} proposes in ballot {ballot}, not its own")
        self._check_chosen(node, base)
        self._check_promise(node, base.range, ballot)

    def on_prepare(self, node: str, dst: str, msg: PreparePlacement) -> None:
        """Raises InvariantBroken."""
        self._check_proposer(node, msg.ballot, msg.base)
        name = (msg.base.range, msg.base.number + 1, msg.ballot)
        if name not in self._promises:
            self._promises[name] = {node}
            self._promise(node, msg.base.range, msg.ballot)
            joined = msg.base.joined(node)
            if joined == 0 or self.scene.disks[node].get(f"ready/{name[0]}", 1) != joined:
                raise InvariantBroken(f"{node} proposes what follows {msg.base}, and has no say")
            own = self._vote_of(node, name[0])
            voted = (own.ballot, own.placement) if own.number == name[1] else (NO_BALLOT, None)
            self._heard[name] = {node: voted}

    def on_promise_heard(
        self, replica: Any, src: str, msg: PromisePlacement, sends: Sequence[Send]
    ) -> None:
        """Note it. Raises InvariantBroken if phase 2 begins with what it does not allow."""
        name = (msg.range, msg.number, msg.ballot)
        if name in self._heard:
            self._heard[name][src] = msg.voted, msg.vote
        accepts = [send.msg for send in sends if type(send.msg) is AcceptPlacement]
        if not accepts:
            return
        ballot, placement = accepts[0].ballot, accepts[0].placement
        name = (placement.range, placement.number, ballot)
        if name in self._begun:
            raise InvariantBroken(f"{replica.id} chooses anew in {ballot}, after {src} came late")
        self._begun.add(name)
        heard = self._heard.get(name, {})
        if not outnumber(heard, self.scene.nodes):
            raise InvariantBroken(
                f"{replica.id} begins phase 2 of {ballot}, and has heard only {sorted(heard)}"
            )
        voted, vote = max(heard.values(), key=lambda told: told[0])
        if vote is not None and vote != placement:
            raise InvariantBroken(
                f"{replica.id} proposes {placement} in {ballot}, and was told of a vote for {vote}"
                f" in {voted}"
            )

    def on_promise(self, node: str, dst: str, msg: PromisePlacement) -> None:
        """Raises InvariantBroken."""
        self._promise(node, msg.range, msg.ballot)
        self._promises.setdefault((msg.range, msg.number, msg.ballot), set()).add(node)
        ballot, placement = self._cast.get((node, msg.range, msg.number), (NO_BALLOT, msg.vote))
        # A vote that left nobody before a crash may be on disk all the same.
        if msg.voted < ballot or (msg.voted == ballot and msg.vote != placement):
            raise InvariantBroken(
                f"{node} tells {dst} of a vote for {msg.vote} in {msg.voted}; it voted for"
                f" {placement} in {ballot}"
            )
        if msg.vote is not None:
            proposed = self._proposed.get((msg.range, msg.number, msg.voted), msg.vote)
            if proposed != msg.vote:
                raise InvariantBroken(f"{node} voted for {msg.vote}; proposed was {proposed}")

    def on_accept(self, node: str, dst: str, msg: AcceptPlacement) -> None:
        """Raises InvariantBroken."""
        placement = msg.placement
        name = (placement.range, placement.number, msg.ballot)
        proposed = self._proposed.get(name)
        if proposed is None:
            self._check_proposer(node, msg.ballot, msg.base)
            promises = self._promises.get(name, set())
            if len(promises) < self._majority:
                raise InvariantBroken(
                    f"{node} begins phase 2 of {msg.ballot} by the promises of {sorted(promises)}"
                )
            chosen = self._chronicle.chosen.get(name[:2], placement)
            # In a lower ballot the proposer cannot know: a majority refuses what it is late with.
            if chosen != placement and msg.ballot > self._chosen_in[name[:2]]:
                raise InvariantBroken(f"{node} proposes {placement}, where {chosen} is chosen")
            self._check_newest(node, msg.base, placement)
            self._proposed[name] = placement
            self._vote(node, name, placement)
        elif proposed != placement:
            raise InvariantBroken(f"{msg.ballot} proposes {proposed} and {placement}")

    def _check_newest(self, node: str, base: Placement, placement: Placement) -> None:
        newest, joined = base.newest
        serving = self._chronicle.serving.get(base.range, 1)
        # Of itself the proposer knows, by its disk (`on_prepare`): a crash may have come before it
        # told anybody.
        if joined > serving and newest != node and (newest, joined) in placement.members:
            raise InvariantBroken(
                f"{node} proposes {placement}, and {newest} of {base} has not said that it is ready"
            )

    def on_accepted(self, node: str, dst: str, msg: AcceptedPlacement) -> None:
        """Raises InvariantBroken."""
        self._promise(node, msg.range, msg.ballot)
        vote = self._vote_of(node, msg.range)
        if vote.number < msg.number or (vote.number == msg.number and vote.ballot < msg.ballot):
            raise InvariantBroken(f"{node} sends {msg}, and has {vote} on disk")
        name = (msg.range, msg.number, msg.ballot)
        placement = self._proposed.get(name)
        if placement is None:
            raise InvariantBroken(f"{node} votes in {msg.ballot}, in which nobody proposed")
        self._vote(node, name, placement)

    def _vote(self, node: str, name: tuple[int, int, Ballot], placement: Placement) -> None:
        key_range, number, ballot = name
        self._cast[node, key_range, number] = ballot, placement
        voters = self._voters.setdefault(name, set())
        voters.add(node)
        if len(voters) >= self._majority:
            chosen = self._chronicle.chosen.setdefault((key_range, number), placement)
            before = self._chosen_in.setdefault((key_range, number), ballot)
            self._chosen_in[key_range, number] = min(before, ballot)
            if chosen != placement:
                raise InvariantBroken(f"{chosen} and {placement} are chosen")

    def on_placed(self, node: str, dst: str, msg: Placed) -> None:
        """Raises InvariantBroken."""
        self._check_chosen(node, msg.placement)
        self._check_known(node, msg.placement.range, msg.placement.number)

    def _check_known(self, node: str, key_range: int, number: int) -> None:
        known: Placement | None = self.scene.disks[node].get(f"p/{key_range}")
        if number > (1 if known is None else known.number):
            raise InvariantBroken(
                f"{node} tells of placement {number} of range {key_range}, and has {known} on disk"
            )

    def on_numbers(self, node: str, dst: str, msg: PlacementNumbers) -> None:
        """Raises InvariantBroken."""
        for key_range, number in enumerate(msg.numbers):
            if number > 1:
                self._check_known(node, key_range, number)
        for key_range, joined in enumerate(msg.complete):
            serving = self._chronicle.serving.get(key_range, 1)
            if joined > serving and joined == self.scene.disks[node].get(f"ready/{key_range}"):
                # Its own RangeReady may not have left before a crash.
                self._chronicle.serving[key_range] = joined
            elif joined > serving:
                raise InvariantBroken(
                    f"{node} says that member {joined} of range {key_range} is ready, which has"
                    " not said so"
                )

    def on_range_ready(self, node: str, dst: str, msg: RangeReady) -> None:
        """Raises InvariantBroken."""
        ready = self.scene.disks[node].get(f"ready/{msg.range}", 1)
        if ready < msg.joined:
            raise InvariantBroken(f"{node} sends {msg}, and has {ready} on disk")
        serving = self._chronicle.serving
        serving[msg.range] = max(msg.joined, serving.get(msg.range, 1))


class MembersAnswer(OfPlacements):
    """Who answers one that goes by a placement goes by the same, and is one of its members, ready
    (Lamport, Malkhi, Zhou, "Vertical Paxos", PODC 2009, section 2). By what it has written when the
    question is dealt with. ``judges`` names the questions, each with "on_question"; ``answers``:
    what a node answers that holds the key."""

    name = "who answers under a placement is a ready member of it"
    answers: ClassVar[tuple[type, ...]]

    def asked(self, msg: Any) -> tuple[str, int | None]:
        """The key of a question, and the number of the placement that its sender goes by; None: it
        leaves that to who answers."""
        raise NotImplementedError

    def standing(self, disk: Disk, node: str, key: str) -> tuple[Placement, int]:
        """The newest placement of the range of ``key`` on a node's ``disk``; and by which number it
        joined when it was made ready last."""
        parameters = self.scene.parameters
        key_range = range_of(key, parameters.ranges)
        first = first_placement(key_range, self.scene.nodes, parameters.replication_factor)
        known: Placement = disk.get(f"p/{key_range}", first)
        ready: int = disk.get(f"ready/{key_range}", first.joined(node))
        return known, ready

    def on_question(self, replica: Any, src: str, msg: Any, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        if not any(type(send.msg) in self.answers for send in sends):
            return
        key, number = self.asked(msg)
        known, ready = self.standing(replica.disk, replica.id, key)
        joined = known.joined(replica.id)
        if number not in (None, known.number) or joined == 0 or ready != joined:
            raise InvariantBroken(
                f"{replica.id} answers {msg} of {src}, and goes by {known}, ready since {ready}"
            )


class CopiesGoOn(OfPlacements):
    """What a new member asks of a source lies behind what that one was asked for before: of one
    copy no part is asked for once more after a later one. A restart begins again."""

    name = "a copy goes on where it was"
    looks_at: ClassVar = ("durable_position",)
    hears: ClassVar = {CopyRange: "on_copy_range"}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._lives: dict[str, Any] = {}
        # By new member, then by range and source: the placement's number, and how far it is.
        self._asked: dict[str, dict[tuple[int, str], tuple[int, str]]] = {
            node: {} for node in scene.nodes
        }

    def observe(self, node: str, replica: Any) -> None:
        """A new life has copied nothing."""
        if self._lives.get(node) is not replica:
            self._lives[node] = replica
            self._asked[node].clear()

    def on_copy_range(self, node: str, src: str, msg: CopyRange) -> None:
        """Raises InvariantBroken."""
        number, name = msg.placement.number, (msg.placement.range, src)
        asked, after = self._asked[node].get(name, (0, ""))
        if number == asked and msg.after < after:
            raise InvariantBroken(
                f"{node} asks {src} for what is behind {msg.after!r} of {msg.placement}, and was at"
                f" {after!r}"
            )
        self._asked[node][name] = number, msg.after


class CopiesAreWhole(HearsClients, OfPlacements):
    """A page has every key of its part of the range that was durable at the source when it was
    asked, no older than there; and a member that is ready holds what so many sources sent that they
    meet every write quorum of the members before ("Vertical Paxos", section 2: state transfer). And
    it holds the results of the requests that came with the keys, unless their clients have
    acknowledged them (RIFL, Lee et al., SOSP 2015, section 3). How much it says that it has copied
    is no less than what it was sent and went on from. That it is ready it tells all others at
    once."""

    name = "a new member holds what a quorum before it held"
    judges: ClassVar = {RangePage: "on_page_taken"}
    hears: ClassVar = {
        Request: "on_request",
        CopyRange: "on_copy_range",
        RangePage: "on_page",
        RangeReady: "on_range_ready",
    }

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        # By (new member, source, range, number, after): what the source had when it was asked.
        self._had: dict[tuple[str, str, int, int, str], dict[str, Any]] = {}
        # By (new member, range), number and source: what it sent, and whether that was all.
        self._sent: dict[tuple[str, int], dict[tuple[int, str], dict[str, Any]]] = {}
        self._done: set[tuple[str, int, int, str]] = set()
        # By (new member, range, number, source): the requests of which it sent the results.
        self._results: dict[tuple[str, int, int, str], dict[tuple[str, int], None]] = {}
        self._paged: set[tuple[str, str, int, int, str]] = set()
        # By (new member, range): its replica, the number, and bytes and keys of the pages behind
        # which it asked for the next one.
        self._taken: dict[tuple[str, int], tuple[Any, int, int, int]] = {}
        # By (new member, range): by which number it is ready, as it has told all others.
        self._announced: dict[tuple[str, int], int] = {}
        self._chosen = scene.common(PlacementChronicle).chosen

    def decode(self, content: bytes) -> tuple[str, Any, list[Result]]:
        """A key, its record and the results of its writes, as they are in a page."""
        raise NotImplementedError

    def covers(self, record: Any, other: Any) -> bool:
        """Whether ``record`` is no older than ``other``."""
        raise NotImplementedError

    def on_copy_range(self, node: str, src: str, msg: CopyRange) -> None:
        """Note what there is to copy."""
        placement, after = msg.placement, msg.after
        name = (node, src, placement.range, placement.number, after)
        if name in self._had:
            return
        parameters: Any = self.scene.configs[node].parameters
        self._had[name] = {
            key[2:]: record
            for key, record in self.scene.disks[src].items()
            if key.startswith("k/")
            and key[2:] > after
            and range_of(key[2:], parameters.ranges) == placement.range
        }

    def on_page(self, node: str, dst: str, msg: RangePage) -> None:
        """Raises InvariantBroken."""
        page: dict[str, Any] = {}
        told = self._results.setdefault((dst, msg.range, msg.number, node), {})
        self._check_source(node, dst, msg)
        self._check_length(node, dst, msg)
        is_first = (dst, node, msg.range, msg.number, msg.after) not in self._paged
        self._paged.add((dst, node, msg.range, msg.number, msg.after))
        for content in msg.contents:
            key, page[key], results = self.decode(content)
            if is_first:
                told.update({(result.client, result.sequence): None for result in results})
        had = self._had.get((dst, node, msg.range, msg.number, msg.after), {})
        for key, record in had.items():
            if (msg.last is None or key <= msg.last) and (
                key not in page or not self.covers(page[key], record)
            ):
                raise InvariantBroken(
                    f"{node} sends {dst} a page of range {msg.range} from {msg.after!r} to"
                    f" {msg.last!r} with {page.get(key)} for {key!r}, which was {record}"
                )
        sent = self._sent.setdefault((dst, msg.range), {})
        first = sent.setdefault((msg.number, node), {})
        for key, record in page.items() if is_first else ():
            # What was asked for twice is sent twice; the second may be newer, with keys that are
            # new, and still under way.
            first.setdefault(key, record)
        if msg.last is None:
            self._done.add((dst, msg.range, msg.number, node))

    def on_page_taken(self, replica: Any, src: str, msg: RangePage, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        place = (replica.id, msg.range)
        taken = self._taken.get(place)
        size, keys = sum(map(len, msg.contents)), len(msg.contents)
        if taken is not None and taken[0] is replica and taken[1] == msg.number:
            size, keys = size + taken[2], keys + taken[3]
        kinds = {type(send.msg) for send in sends}
        told_to = {send.dst for send in sends if type(send.msg) is RangeReady}
        ready = replica.disk.get(f"ready/{msg.range}", 1)
        if len(told_to) == len(self.scene.nodes) - 1:
            self._announced[place] = ready
        elif ready > max(
            self._announced.get(place, 1), self.scene.disks[replica.id].get(f"ready/{msg.range}", 1)
        ):
            raise InvariantBroken(
                f"{replica.id} is ready for range {msg.range}, and tells only {sorted(told_to)}"
            )
        if CopyRange in kinds:
            self._taken[place] = replica, msg.number, size, keys
        elif RangeReady in kinds:
            told = next(
                details
                for name, details in reversed(replica.out.marks)
                if name == "re_replicated" and details["range"] == msg.range
            )
            if told["bytes"] < size or told["keys"] < keys:
                raise InvariantBroken(
                    f"{replica.id} tells of a copy {told}, and took {keys} keys, {size} bytes"
                )

    def _check_length(self, node: str, dst: str, msg: RangePage) -> None:
        """It ends when it is full, or with the last key."""
        limits = self.scene.parameters
        sizes = [*map(len, msg.contents)]
        over = len(sizes) > limits.page_keys or sum(sizes[:-1]) > limits.page_bytes
        full = len(sizes) == limits.page_keys or sum(sizes) > limits.page_bytes
        if over or not (full or msg.last is None):
            raise InvariantBroken(
                f"{node} sends {dst} a page of {sizes} bytes by key to {msg.last!r}; it ends with"
                f" {limits.page_keys} keys, or when it is above {limits.page_bytes} bytes"
            )

    def _check_source(self, node: str, dst: str, msg: RangePage) -> None:
        """Who was not ready under the placement before does not have all there is to copy."""
        placement = self._chosen.get((msg.range, msg.number))
        joined = 0 if placement is None else dict(placement.previous).get(node, 0)
        ready = self.scene.disks[node].get(f"ready/{msg.range}", 1)
        if joined == 0 or ready < joined:
            raise InvariantBroken(
                f"{node} sends {dst} a page of {placement}, and was not ready before it: {ready}"
            )
        known: Placement | None = self.scene.disks[node].get(f"p/{msg.range}")
        if known is None or known.number < msg.number:
            raise InvariantBroken(
                f"{node} sends {dst} a page of {placement}, and would serve {known} after a crash"
            )

    def _has_results(self, node: str, told: dict[tuple[str, int], None]) -> bool:
        """Of all requests that may come again."""
        return all(
            self.may_forget(client, sequence) or self.result_of(node, client, sequence) is not None
            for client, sequence in told
        )

    def on_range_ready(self, node: str, dst: str, msg: RangeReady) -> None:
        """Raises InvariantBroken."""
        disk = self.scene.disks[node]
        needed = fencing_quorum(self.scene.configs[node])
        by_number: dict[int, list[str]] = {}
        for (number, source), page in self._sent.get((node, msg.range), {}).items():
            if (
                (node, msg.range, number, source) in self._done
                and all(
                    (held := disk.get("k/" + key)) is not None and self.covers(held, record)
                    for key, record in page.items()
                )
                and self._has_results(node, self._results[node, msg.range, number, source])
            ):
                by_number.setdefault(number, []).append(source)
        if not any(len(sources) >= needed for sources in by_number.values()):
            raise InvariantBroken(
                f"{node} is ready for range {msg.range}, and holds what"
                f" {by_number or 'nobody'} (placement number: sources) sent, keys and results, of"
                f" {needed} needed"
            )
