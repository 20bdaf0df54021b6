"""Which nodes hold which keys: numbered placements of key ranges, agreed through Paxos; sans-I/O.

Theory of operation
-------------------
Keys hash to *ranges*. Each range has a sequence of *placements*, numbered from 1; number 1 follows
from the configuration. Placement number k + 1 is the value of one instance of consensus, of which
all nodes of the cluster are acceptors (`nodes.parts.synod`; the slots of a range's acceptor are the
numbers). A placement changes one member of the range. So any quorum of members that stay has a
member in common with every quorum of the placement before (Lamport, Malkhi, Zhou, "Vertical Paxos
and Primary-Backup Replication", PODC 2009, from where it has the read quorum of the configuration
before; the one-at-a-time change is that of Ongaro, "Consensus: Bridging Theory and Practice", 2014,
section 4.1).

A coordinator names the placement by its number in each request. A replica answers under the newest
placement that it knows, durably, and under no other (`Placements.admits`): what it knows *fences*
the older ones. What a proposer has asked for and was not chosen fences nothing, so a proposer that
crashes half-way stops nobody.

A member is *ready* when it holds what was acknowledged under the placements before the one by which
it joined. `nodes.parts.recovery` makes it so. A member that is not ready answers nothing.

A proposal goes on until its range has a placement with that number, its own or another's. Who finds
that a message is about an older placement answers with the newest one (`Placed`); what still is
missed, nodes learn as they exchange their numbers (`PlacementNumbers`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from nodes.contract.bounds import BadMessage, Count, WireStruct, check_reach
from nodes.contract.disk import Disk
from nodes.contract.replica import Config, Env, Invariant, InvariantBroken, Out, Scene
from nodes.parts.quorum import fencing_quorum, majority
from nodes.parts.synod import NO_BALLOT, Acceptor, Ballot, Proposer

Member: TypeAlias = tuple[str, Count]
"""A node, and the number of the placement by which it joined."""

_RESEND_S = 0.3


def range_of(key: str, ranges: int) -> int:
    """The range of ``key``: the same in every process, and in step with the buckets of
    `nodes.parts.key_digest.KeyDigest` if their number is a multiple of ``ranges``."""
    return zlib.crc32(key.encode()) % ranges


# --- records and messages ---


class Placement(WireStruct, frozen=True):
    """The members of a range, and those of the placement before (from which a new one copies)."""

    range: Count
    number: Count
    members: tuple[Member, ...]
    previous: tuple[Member, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(node for node, _ in self.members)

    @property
    def newest(self) -> Member:
        """The member that joined last."""
        return max(self.members, key=lambda member: member[1])

    def joined(self, node: str) -> int:
        """The number by which ``node`` joined; 0 if it is no member."""
        return dict(self.members).get(node, 0)

    def replace(self, lost: str, to: str) -> Placement:
        """The next placement: ``to`` in the place of ``lost``."""
        assert self.joined(lost), f"{lost} is no member of {self}"
        assert not self.joined(to), f"{to} is a member of {self}"
        number = self.number + 1
        members = tuple((to, number) if node == lost else (node, at) for node, at in self.members)
        return Placement(self.range, number, members, self.members)


def first_placement(key_range: int, nodes: Sequence[str], factor: int) -> Placement:
    """Number 1: the nodes are dealt out in turn, so that none has two ranges more than another."""
    row = tuple((nodes[(key_range * factor + i) % len(nodes)], 1) for i in range(factor))
    return Placement(key_range, 1, row, row)


class Vote(WireStruct, frozen=True):
    """What an acceptor has on disk of a range: its promise, and its vote for placement
    ``number``."""

    promised: Ballot
    number: Count = 0
    ballot: Ballot = NO_BALLOT
    placement: Placement | None = None


class PreparePlacement(WireStruct, frozen=True):
    """Phase 1a, for the placement after ``base``."""

    ballot: Ballot
    base: Placement


class PromisePlacement(WireStruct, frozen=True):
    """Phase 1b. ``vote``: what the sender has voted for in ``voted``, if it has."""

    ballot: Ballot
    range: Count
    number: Count
    voted: Ballot = NO_BALLOT
    vote: Placement | None = None


class RefusePlacement(WireStruct, frozen=True):
    """A higher ballot is promised."""

    ballot: Ballot
    range: Count
    promised: Ballot


class AcceptPlacement(WireStruct, frozen=True):
    """Phase 2a: vote for ``placement``, the one after ``base``."""

    ballot: Ballot
    base: Placement
    placement: Placement


class AcceptedPlacement(WireStruct, frozen=True):
    """Phase 2b."""

    ballot: Ballot
    range: Count
    number: Count


class Placed(WireStruct, frozen=True):
    """``placement`` is chosen."""

    placement: Placement


class PlacementNumbers(WireStruct, frozen=True):
    """The number of each range's placement that the sender knows, and by which number its newest
    member joined that is known to be ready."""

    numbers: tuple[Count, ...]
    complete: tuple[Count, ...]


MESSAGES: tuple[type[msgspec.Struct], ...] = (
    PreparePlacement,
    PromisePlacement,
    RefusePlacement,
    AcceptPlacement,
    AcceptedPlacement,
    Placed,
    PlacementNumbers,
)
RECORDS: tuple[type[msgspec.Struct], ...] = (Placement, Vote)


# --- the machine ---


class _Proposal:
    """A ballot of this node for a range's next placement. ``value``: set when phase 2 begins."""

    def __init__(self, own: Placement, base: Placement, proposer: Proposer[Placement]) -> None:
        self.own = own
        self.base = base
        self.proposer = proposer
        self.value: Placement | None = None
        self.accepted: dict[str, None] = {}
        self.again_s = 0.0
        self.refused = NO_BALLOT


class Placements:
    """What a node knows of the placements of all ranges, as learner, acceptor and proposer.

    ``on_change``: called with a range that has a new placement. The owner hands it the messages of
    `MESSAGES` and calls `tick` at times.

    Invariants: `OnePlacementPerNumber`; a promise, a vote, and a placement that is answered under
    are durable before anybody is told. Follows Lamport, "Paxos Made Simple" (2001), section 2.
    """

    def __init__(
        self,
        config: Config,
        env: Env,
        out: Out,
        disk: Disk,
        *,
        ranges: int,
        factor: int,
        on_change: Callable[[int], None],
    ) -> None:
        self.id = config.node
        self.ranges = ranges
        self._factor = factor
        self._nodes = frozenset(config.nodes)
        self._peers = config.peers
        self._majority = majority(len(config.nodes))
        self._env = env
        self._out = out
        self._disk = disk
        self._on_change = on_change
        self.current: list[Placement] = []
        self.ready: list[int] = []
        """By range: the number by which this node joined and was made ready; 0: never."""
        self.complete: list[int] = []
        """By range: the newest number of which it is known that its new member is ready."""
        self.known_at: list[int] = []
        """By range: the disk position at which `current` is durable."""
        self._acceptors: list[Acceptor[Placement]] = []
        self._proposals: dict[int, _Proposal] = {}
        for number in range(ranges):
            first = first_placement(number, config.nodes, factor)
            self.current.append(disk.get(f"p/{number}", first))
            self.ready.append(disk.get(f"ready/{number}", first.joined(self.id)))
            self.complete.append(max(1, self.ready[number]))
            self.known_at.append(disk.position)
            vote = disk.get(f"vote/{number}", Vote(NO_BALLOT))
            acceptor: Acceptor[Placement] = Acceptor(vote.promised)
            if vote.placement is not None and vote.number > self.current[number].number:
                acceptor.votes[vote.number] = (vote.ballot, vote.placement)
            self._acceptors.append(acceptor)

    # --- what is known ---

    def of(self, key: str) -> Placement:
        """The newest known placement of the range of ``key``."""
        return self.current[range_of(key, self.ranges)]

    def serves(self, number: int) -> bool:
        """Whether this node is a member of a range, and ready."""
        joined = self.current[number].joined(self.id)
        return joined != 0 and self.ready[number] == joined

    def admits(self, src: str, key: str, number: int) -> bool:
        """Whether to answer a coordinator that goes by placement ``number``. Else the one of the
        two that is behind is told the newer placement."""
        current = self.of(key)
        if number < current.number:
            self._out.send(src, Placed(current))
            return False
        if number > current.number:
            self._out.send(src, self.numbers())
            return False
        return self.serves(current.range)

    def is_complete(self, number: int) -> bool:
        """Whether the newest member of a range is known to be ready."""
        return self.complete[number] >= self.current[number].newest[1]

    def become_ready(self, number: int) -> None:
        """This node holds what its range had before it joined."""
        joined = self.current[number].joined(self.id)
        assert joined > self.ready[number], f"{self.current[number]} and ready {self.ready[number]}"
        self.ready[number] = joined
        self._disk.put(f"ready/{number}", joined)
        self.note_complete(number, joined)

    def note_complete(self, number: int, joined: int) -> None:
        """The member that joined a range by ``joined`` is ready."""
        self.complete[number] = max(self.complete[number], joined)

    def proposes(self, number: int) -> bool:
        """Whether a proposal of this node for the range is open."""
        return number in self._proposals

    # --- what a peer says ---

    def check_number(self, key_range: int, number: int) -> None:
        """Raises BadMessage where there is no such range, or it cannot have had so many
        placements."""
        if key_range >= self.ranges:
            raise BadMessage(f"range {key_range} of {self.ranges}")
        check_reach("placement", number, self.current[key_range].number, self._env.wall)

    def check(self, placement: Placement) -> None:
        """Raises BadMessage for a placement that nobody can have proposed, or another one than is
        known by its number."""
        number = placement.number
        self.check_number(placement.range, number)
        current = self.current[placement.range]
        if placement == current:
            return
        if number == current.number or (number == current.number + 1) != (
            placement.previous == current.members
        ):
            raise BadMessage(f"{placement}, and {current} is known")
        for row in (placement.members, placement.previous):
            nodes = {node for node, _ in row}
            if len(nodes) != self._factor or len(row) != self._factor or not nodes <= self._nodes:
                raise BadMessage(f"{placement}: {self._factor} nodes hold a range")
        if any(not 0 < joined <= number for _, joined in placement.members):
            raise BadMessage(f"{placement}: a member of the future")
        if number > current.number and 0 < placement.joined(self.id) < self.ready[placement.range]:
            raise BadMessage(f"{placement}: {self.id} has joined since")

    def _check_follows(self, placement: Placement, base: Placement) -> None:
        """Raises BadMessage unless one member of ``base`` is replaced in ``placement``."""
        gone = set(base.members) - set(placement.members)
        if (
            (placement.range, placement.number) != (base.range, base.number + 1)
            or placement.previous != base.members
            or len(placement.members) != self._factor
            or len(set(placement.nodes)) != self._factor
            or not set(placement.nodes) <= self._nodes
            or len(gone) != 1
        ):
            raise BadMessage(f"{placement} does not follow {base}")

    def _check_ballot(self, src: str, key_range: int, ballot: Ballot) -> None:
        if ballot.node != src:
            raise BadMessage(f"ballot {ballot} is not its own")
        promised = self._acceptors[key_range].promised
        check_reach("ballot", ballot.round, promised.round, self._env.wall)

    # --- learning ---

    def learn(self, placement: Placement) -> bool:
        """``placement`` is chosen. False: it was known, or is older than the newest known."""
        number = placement.range
        current = self.current[number]
        if placement.number <= current.number:
            assert placement.number < current.number or placement == current, (
                f"two placements: {placement} and {current}"
            )
            return False
        self.current[number] = placement
        self._disk.put(f"p/{number}", placement)
        self.known_at[number] = self._disk.position
        votes = self._acceptors[number].votes
        for old in [slot for slot in votes if slot <= placement.number]:
            del votes[old]
        self._proposals.pop(number, None)
        self._on_change(number)
        return True

    def on_placed(self, src: str, msg: Placed) -> None:
        """Learn it."""
        self.check(msg.placement)
        self.learn(msg.placement)

    def numbers(self) -> PlacementNumbers:
        """What this node knows, in short."""
        return PlacementNumbers(
            tuple(placement.number for placement in self.current), tuple(self.complete)
        )

    def on_placement_numbers(self, src: str, msg: PlacementNumbers) -> None:
        """Tell what is newer here, ask for what is newer there."""
        if len(msg.numbers) != self.ranges or len(msg.complete) != self.ranges:
            self._out.mark("placement_of_other_size", src=src)
            return
        for number, (known, complete) in enumerate(zip(msg.numbers, msg.complete, strict=True)):
            self.check_number(number, max(known, complete))
        behind = False
        for placement, theirs in zip(self.current, msg.numbers, strict=True):
            if theirs < placement.number:
                self._out.send(src, Placed(placement))
            behind = behind or theirs > placement.number
        for number, joined in enumerate(msg.complete):
            self.note_complete(number, joined)
        if behind:
            self._out.send(src, self.numbers())

    # --- the acceptor ---

    def _current_for(self, src: str, base: Placement) -> Placement | None:
        """``base``, if the placement after it is still open; else ``src`` is told."""
        self.learn(base)
        current = self.current[base.range]
        if current.number > base.number:
            self._out.send(src, Placed(current))
            return None
        return current

    def on_prepare_placement(self, src: str, msg: PreparePlacement) -> None:
        """Promise, and tell the vote; or refuse."""
        self.check(msg.base)
        self._check_ballot(src, msg.base.range, msg.ballot)
        base = self._current_for(src, msg.base)
        if base is None:
            return
        acceptor = self._acceptors[base.range]
        if not acceptor.promise(msg.ballot):
            self._out.send(src, RefusePlacement(msg.ballot, base.range, acceptor.promised))
            return
        number = base.number + 1
        self._save(base.range, number)
        voted, vote = acceptor.votes.get(number, (NO_BALLOT, None))
        self._out.send(src, PromisePlacement(msg.ballot, base.range, number, voted, vote))

    def on_accept_placement(self, src: str, msg: AcceptPlacement) -> None:
        """Vote, or refuse."""
        self.check(msg.base)
        self._check_ballot(src, msg.base.range, msg.ballot)
        self._check_follows(msg.placement, msg.base)
        base = self._current_for(src, msg.base)
        if base is None:
            return
        acceptor = self._acceptors[base.range]
        number = msg.placement.number
        assert number == base.number + 1
        if not acceptor.accept(msg.ballot, number, [msg.placement]):
            self._out.send(src, RefusePlacement(msg.ballot, base.range, acceptor.promised))
            return
        self._save(base.range, number)
        self._out.send(src, AcceptedPlacement(msg.ballot, base.range, number))

    def _save(self, key_range: int, number: int) -> None:
        acceptor = self._acceptors[key_range]
        ballot, placement = acceptor.votes.get(number, (NO_BALLOT, None))
        vote = Vote(acceptor.promised, number, ballot, placement)
        if self._disk.get(f"vote/{key_range}") != vote:
            self._disk.put(f"vote/{key_range}", vote)

    # --- the proposer ---

    def propose(self, own: Placement) -> None:
        """Propose ``own`` as the next placement of its range."""
        assert own.number == self.current[own.range].number + 1
        self._begin(own, NO_BALLOT)

    def _begin(self, own: Placement, above: Ballot) -> None:
        base = self.current[own.range]
        acceptor = self._acceptors[own.range]
        ballot = max(acceptor.promised, above).next_of(self.id)
        proposal = _Proposal(own, base, Proposer(ballot, self._majority))
        self._proposals[own.range] = proposal
        # Its own promise first, like any acceptor's: what is sent below waits for it on disk, so
        # that a crash never makes it use a ballot twice.
        promised = acceptor.promise(ballot)
        assert promised
        self._save(own.range, own.number)
        proposal.proposer.report(
            [(slot, voted, vote) for slot, (voted, vote) in acceptor.votes.items()]
        )
        proposal.proposer.on_promise(self.id)
        self._send(proposal)

    def _send(self, proposal: _Proposal) -> None:
        proposal.again_s = self._env.now() + _RESEND_S
        ballot, base = proposal.proposer.ballot, proposal.base
        for peer in self._peers:
            if proposal.value is not None:
                if peer not in proposal.accepted:
                    self._out.send(peer, AcceptPlacement(ballot, base, proposal.value))
            elif peer not in proposal.proposer.promises:
                self._out.send(peer, PreparePlacement(ballot, base))

    def _open(self, key_range: int, ballot: Ballot) -> _Proposal | None:
        """The proposal that a message answers, if it is still of interest."""
        proposal = self._proposals.get(key_range)
        if proposal is None or proposal.proposer.ballot != ballot:
            return None
        return proposal if proposal.refused == NO_BALLOT else None

    def on_promise_placement(self, src: str, msg: PromisePlacement) -> None:
        """Begin phase 2 when a majority has promised."""
        proposal = self._open(msg.range, msg.ballot)
        if proposal is None or msg.number != proposal.own.number:
            return
        if msg.vote is not None:
            self._check_follows(msg.vote, proposal.base)
            if msg.voted > msg.ballot:
                raise BadMessage(f"a vote of ballot {msg.voted} before {msg.ballot}")
            proposal.proposer.report([(msg.number, msg.voted, msg.vote)])
        if not proposal.proposer.on_promise(src) or proposal.value is not None:
            return
        value = proposal.proposer.choose(msg.number, proposal.own)
        if not self._acceptors[msg.range].accept(msg.ballot, msg.number, [value]):
            self._refuse(proposal, self._acceptors[msg.range].promised)
            return
        self._save(msg.range, msg.number)
        proposal.value = value
        self._note_accepted(proposal, self.id)
        self._send(proposal)

    def on_accepted_placement(self, src: str, msg: AcceptedPlacement) -> None:
        """It is chosen when a majority has voted for it: tell everybody."""
        proposal = self._open(msg.range, msg.ballot)
        if proposal is None or proposal.value is None or msg.number != proposal.own.number:
            return
        value = proposal.value
        if self._note_accepted(proposal, src):
            self.learn(value)
            self._out.mark(
                "placed",
                range=value.range,
                number=value.number,
                members=",".join(value.nodes),
                ballot=str(msg.ballot),
            )
            for peer in self._peers:
                self._out.send(peer, Placed(value))

    @staticmethod
    def _note_accepted(proposal: _Proposal, acceptor: str) -> bool:
        proposal.accepted[acceptor] = None
        return proposal.proposer.on_accepted(acceptor, proposal.own.number)

    def on_refuse_placement(self, src: str, msg: RefusePlacement) -> None:
        """Another proposer is ahead: give it time, then try again."""
        proposal = self._open(msg.range, msg.ballot)
        if proposal is not None:
            promised = self._acceptors[msg.range].promised
            check_reach("ballot", msg.promised.round, promised.round, self._env.wall)
            self._refuse(proposal, msg.promised)

    def _refuse(self, proposal: _Proposal, promised: Ballot) -> None:
        proposal.refused = promised
        # By chance, so that two proposers do not go on to hinder each other.
        proposal.again_s = self._env.now() + _RESEND_S * self._env.rng.uniform(0.5, 3.0)

    def tick(self) -> None:
        """Repeat what was not answered, begin again what was refused."""
        now = self._env.now()
        for proposal in list(self._proposals.values()):
            if now < proposal.again_s:
                continue
            if proposal.refused != NO_BALLOT:
                self._begin(proposal.own, proposal.refused)
            else:
                self._send(proposal)


# --- invariants ---


class OfPlacements(Invariant):
    """One that has nothing to watch where all nodes hold all keys."""

    def is_needed(self) -> bool:
        """See `Invariant`."""
        return is_placed(self.scene)


def is_placed(scene: Scene) -> bool:
    """Whether a key is on fewer nodes than there are."""
    parameters = scene.parameters
    return bool(parameters.is_partial(scene.nodes))


class OnePlacementPerNumber(OfPlacements):
    """In the whole cluster, and over crashes, at most one placement is chosen for each range and
    number, and it differs from the one before in one member."""

    name = "at most one placement per range and number, each changing one member"

    def __init__(self) -> None:
        self._chosen: dict[tuple[int, int], Placement] = {}
        self._seen: dict[str, list[Placement]] = {}

    def observe(self, node: str, replica: Any) -> None:
        """Raises InvariantBroken."""
        if replica.recovery is None:
            return
        now = replica.recovery.placements.current
        seen = self._seen.get(node)
        if seen == now:
            return
        self._seen[node] = list(now)
        for placement in now:
            self._check(node, placement)

    def _check(self, node: str, placement: Placement) -> None:
        chosen = self._chosen.setdefault((placement.range, placement.number), placement)
        if chosen != placement:
            raise InvariantBroken(f"{node}: {placement}, but {chosen} was chosen")
        if placement.number == 1:
            return
        before = self._chosen.get((placement.range, placement.number - 1))
        if before is not None and before.members != placement.previous:
            raise InvariantBroken(f"{node}: {placement} does not follow {before}")
        gone = set(placement.previous) - set(placement.members)
        come = set(placement.members) - set(placement.previous)
        if len(gone) != 1 or len(come) != 1 or len(placement.members) != len(placement.previous):
            raise InvariantBroken(f"{node}: {placement} changes more or less than one member")


class OldPlacementsAreFenced(OfPlacements):
    """When the new member of a placement serves, so many members of the placement before have
    given up the older ones, durably, that none of these has a quorum any more; and no member
    answers under a placement older than one that it has durably known."""

    name = "no quorum of an old placement after a newer one serves"

    def __init__(self) -> None:
        self._durable: dict[str, dict[int, int]] = {}
        self._waiting: dict[str, list[tuple[int, int, int]]] = {}
        self._watched: dict[str, Any] = {}
        self._ready: dict[str, list[int]] = {}

    def observe(self, node: str, replica: Any) -> None:
        """Raises InvariantBroken."""
        if replica.recovery is None:
            return
        placements = replica.recovery.placements
        if self._watched.get(node) is not replica:
            self._watched[node] = replica
            self._waiting[node] = []
            self._ready[node] = list(placements.ready)
            for number, known in self._durable.get(node, {}).items():
                if placements.current[number].number < known:
                    raise InvariantBroken(
                        f"{node}: knew placement {known} of range {number}, forgot it in a crash"
                    )
        durable = self._durable.setdefault(node, {})
        for number, answered in replica.recovery.answered:
            if answered < durable.get(number, 1):
                raise InvariantBroken(
                    f"{node}: answered under placement {answered} of range {number}, but knows"
                    f" {durable[number]}"
                )
        waiting = self._waiting[node]
        for placement, at in zip(placements.current, placements.known_at, strict=True):
            entry = (at, placement.range, placement.number)
            if durable.get(placement.range, 1) < placement.number and entry not in waiting:
                waiting.append(entry)
        for entry in list(waiting):
            at, number, known = entry
            if at <= replica.durable_position:
                durable[number] = max(known, durable.get(number, 1))
                waiting.remove(entry)
        for number, ready in enumerate(placements.ready):
            # Of one batch: a page made it ready, and then it heard that it is no member any more.
            if ready > self._ready[node][number] and placements.serves(number):
                self._check(node, placements.current[number])
        self._ready[node] = list(placements.ready)

    def _check(self, node: str, placement: Placement) -> None:
        # By the disks: a slow member hears of its own fsync, and is observed, long after what
        # waited for it has left.
        fenced = [
            member
            for member, _ in placement.previous
            if self._on_disk(member, placement.range) >= placement.number
        ]
        if len(fenced) < fencing_quorum(self.scene.configs[node]):
            raise InvariantBroken(
                f"{node}: serves {placement}, but of the members before only {fenced} are fenced"
            )

    def _on_disk(self, node: str, key_range: int) -> int:
        if not self.scene.disks:
            return self._durable.get(node, {}).get(key_range, 1)
        known: Placement | None = self.scene.disks[node].get(f"p/{key_range}")
        return 1 if known is None else known.number


INVARIANTS: tuple[type[Invariant], ...] = (OnePlacementPerNumber, OldPlacementsAreFenced)
