"""Gossip: every node answers on its own, and versions spread by rumours and anti-entropy.

Theory of operation
-------------------
A write is local: the node that takes it makes a new version, stores it, answers ok, and the version
becomes a hot *rumour*. Every ``gossip_interval_s`` a node tells its hot keys to ``fanout`` random
peers; after ``rounds`` such rounds it loses interest (Demers et al., "Epidemic Algorithms for
Replicated Database Maintenance", PODC 1987, section 1.4, blind with a counter). Who hears
something new spreads it in turn. Rumours can die out early or be lost, so each node also runs
*anti-entropy* (section 1.3): every ``anti_entropy_interval_s`` it sends one random peer the hashes
of its buckets of the key space, learns the clocks of the keys in buckets that differ, pushes what
the peer lacks and pulls what it lacks itself. What anti-entropy repairs does not become a rumour
again: after a partition that would send the whole difference through the cluster many times over.

Versions and conflicts
----------------------
``siblings``: dotted version vectors (Preguiça et al., "Dotted Version Vectors", 2010). A version is
named by its *dot*, the writing node and a counter of that node for this key, and carries its
*past*, the clock of what the writer had seen. t supersedes s iff s's dot is in t's past. A clock
without a dot would not do: two clients that write through one node with the same stale context get
(n1, 2) and (n1, 3), and a plain clock would call the first one seen by the second. All siblings of
a key travel together, so a node that knows (n1, 3) also knows (n1, 2) or what superseded it. That
makes a node's clock of a key exact, and usable as a context.

``lww``: the version with the greatest hybrid logical clock wins (Kulkarni et al., "Logical Physical
Clocks", OPODIS 2014; here milliseconds and counter share one integer). Never behind what the node
has seen, so a causally later write wins whatever the wall clocks say. Of concurrent writes, one is
lost although it was acknowledged: that is the policy, not a fault.

A write's ``context`` is the version that an earlier read returned, and what it covers is
superseded. A write without one supersedes all that the node holds at that moment: the node acts as
the client's session. Otherwise each blind write would leave one more sibling for ever. A write's
own reply carries the key's clock after it; where the context was stale this covers siblings that
the client never saw, so merge values from a read, not from a write.

Deletes leave tombstones, which are kept: a key's clock must not be forgotten, or an old version
would come back and a dot would be used twice. So disk use grows with the number of keys ever
written.

At most once
------------
A node remembers the results of its writes by (client, sequence), durably, until the client has
acknowledged them (`nodes.parts.sessions`). A retry at *another* node is recognised there while the
first version, which carries the request's name, is among the siblings. If the other node has not
heard of it yet, it makes a second version; as long as both are present they read as one. So a retry
elsewhere is never two siblings, but where the first was superseded before the second attempt was
made in ignorance of it, the second stays (as a sibling; under lww it wins over what is older). A
client that cannot accept that retries at its node.

Fewer replicas than nodes
-------------------------
With a ``replication_factor`` below the number of nodes, a key is held by the members of its range's
placement (`nodes.parts.placement`, `nodes.parts.recovery`). A node that is none of them forwards
the request to one, always the same while it is not suspected, and passes the answer on. A write
goes to one member only, so that it is not made twice: if that one does not answer, nobody knows
(``info``). Rumours and anti-entropy stay among the members. There are no quorums to protect here,
so a member that was replaced by mistake serves until it learns of it; what it took in meanwhile it
then hands over to the members by anti-entropy.

Claim: eventual; read-your-writes for a client that stays on its node.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from nodes.contract.bounds import BadMessage, check_reach, reach
from nodes.contract.disk import Disk
from nodes.contract.replica import (
    Config,
    Env,
    Operation,
    Parameters,
    Reply,
    Request,
    Value,
    Version,
)
from nodes.parts.claims import TheLastAreRemembered
from nodes.parts.key_digest import KeyDigest, portions
from nodes.parts.placement import INVARIANTS as PLACEMENT_INVARIANTS
from nodes.parts.placement import range_of
from nodes.parts.placement_claims import CopiesGoOn, PlacementAcceptors
from nodes.parts.recovery import RECORDS as RECOVERY_RECORDS
from nodes.parts.recovery import PlacedReplica, Recovery, probe_of
from nodes.parts.sessions import Result, Sessions
from nodes.parts.vector_clock import Clock, increment, merge
from nodes.protocols.gossip.claims import (
    GossipCopies,
    GossipMembers,
    NodesTellTrue,
    WritesAreHandedOn,
)
from nodes.protocols.gossip.exchange_claims import (
    AgreementIsTrue,
    AllIsHandedOver,
    GossipExchanges,
    GossipPartners,
)
from nodes.protocols.gossip.invariants import (
    ClockNeverGoesBack,
    DotNamesOneVersion,
    DurableVersionsStay,
    OnlyDominatedVersionsDisappear,
    StampsFollowTheClock,
)
from nodes.protocols.gossip.messages import (
    Difference,
    Digest,
    Forward,
    Forwarded,
    Pull,
    Push,
    Record,
    Rumour,
    Sibling,
)
from nodes.protocols.gossip.parameters import GossipParameters
from nodes.protocols.gossip.policies import _LOGICAL_BITS, KeepSiblings, LastWriteWins, Policy

MAX_CLOCK_LEAP = 1 << 36 + _LOGICAL_BITS
"""Two years: how far a stamp may be ahead of the wall clock. No clock is so wrong; and a node that
went along would soon be at the end of what a stamp can be."""


_FORWARD_AGAIN_S = 0.3


class _Forwarding:
    """A request that a member of its range has been asked to answer."""

    __slots__ = ("deadline_s", "request", "to")

    def __init__(self, request: Request, to: str, deadline_s: float) -> None:
        self.request, self.to, self.deadline_s = request, to, deadline_s


class Gossip(PlacedReplica):
    """A replica that answers alone. See the top of this file.

    Invariants: `INVARIANTS`. Units: seconds. Follows Demers et al. 1987, sections 1.3 and 1.4;
    Preguiça et al. 2010 (siblings); Kulkarni et al. 2014 (lww).
    """

    MESSAGES = (
        *(Rumour, Digest, Difference, Pull, Push, Forward, Forwarded),
        *PlacedReplica.MESSAGES,
    )
    HEAVY = (Digest, Difference, Pull, *PlacedReplica.HEAVY)
    RECORDS = (Record, Result, *RECOVERY_RECORDS)
    INVARIANTS = (
        OnlyDominatedVersionsDisappear,
        ClockNeverGoesBack,
        DotNamesOneVersion,
        DurableVersionsStay,
        *PLACEMENT_INVARIANTS,
        PlacementAcceptors,
        NodesTellTrue,
        GossipCopies,
        GossipMembers,
        CopiesGoOn,
        WritesAreHandedOn,
        StampsFollowTheClock,
        GossipExchanges,
        GossipPartners,
        AgreementIsTrue,
        AllIsHandedOver,
        TheLastAreRemembered,
    )
    PARAMETERS: ClassVar[type[Parameters]] = GossipParameters

    def __init__(self, config: Config, env: Env, disk: Disk) -> None:
        super().__init__(config, env, disk)
        assert isinstance(config.parameters, GossipParameters)
        self.parameters = config.parameters
        self.policy: Policy = (
            KeepSiblings if self.parameters.conflict == "siblings" else LastWriteWins
        )
        self.records: dict[str, Record] = {}
        self._clocks: dict[str, dict[str, int]] = {}
        """Of the keys of which somebody asked since they changed: see `_clock`."""
        self.changed: dict[str, None] = {}
        """Keys that the last step changed."""
        self.durable_position = 0
        self._stamp = 0
        self._live_keys = 0
        self._hot: dict[str, int] = {}
        self._digest = KeyDigest(self.parameters.buckets, self._dots, self.parameters)
        self._agreed: dict[str, tuple[float, int]] = {}
        self._sessions = Sessions(disk, self.parameters)
        for name, record in disk.items():
            if isinstance(record, Record):
                self._index(name.removeprefix("k/"), record)
        self._sessions.load(self._has_effect)
        self.start_recovery(self.parameters, self.parameters.copy_quorum(config.nodes))
        self._forwarding: dict[tuple[str, int], _Forwarding] = {}
        self._asker: str | None = None
        """The node that has forwarded the request that is being answered."""
        self._handed_over: set[int] = set()
        """Buckets of which the members have all that this node, no member, holds."""
        if config.peers:
            self._set_anti_entropy_timer()

    def on_durable(self, position: int) -> None:
        """Writes up to ``position`` are durable."""
        self.durable_position = position

    # --- clients ---

    def on_request(self, request: Request) -> None:
        """Answer at once, from what this node holds, or forward it."""
        kind = request.operation.op
        if kind not in ("read", "write", "delete"):
            self._reply(request, "fail", error="unsupported")
        elif self.recovery is not None and not self.recovery.serves(request.operation.key):
            self._forward(request)
        else:
            self._answer(request)

    def _answer(self, request: Request) -> None:
        if request.operation.op == "read":
            self._read(request)
        else:
            self._write(request)

    def _read(self, request: Request) -> None:
        record = self.records.get(request.operation.key)
        if record is None:
            self._reply(request, "ok")
            return
        values = _values(record)
        self._reply(
            request,
            "ok",
            value=list(values) if len(values) > 1 else values[0] if values else None,
            version=self._version(request.operation.key),
        )

    def _write(self, request: Request) -> None:
        operation = request.operation
        known = self._sessions.find(request.client, request.sequence)
        if known is not None and known.version is None:
            self._reply(request, "fail", error="refused before")
            return
        if known is not None:
            self._reply(request, "ok", version=known.version)
            return
        if self._sessions.is_forgotten(request.client, request.sequence):
            self._reply(request, "info", error="forgotten: the client has acknowledged it")
            return
        record = self.records.get(operation.key)
        siblings = record.siblings if record is not None else ()
        if any(s.client == request.client and s.sequence == request.sequence for s in siblings):
            # A retry of a write that was made at another node, and is known here.
            assert record is not None
            version = self._version(operation.key)
            self._remember(request, version)
            self._sessions.trim(request.client)
            self._reply(request, "ok", version=version)
            return
        try:
            new = self._new_sibling(request, self._clock(operation.key))
        except ValueError as error:
            self._refuse(request, str(error))
            return
        merged = self.policy.merge(siblings, (new,))
        if self._are_too_many(merged, siblings):
            self._refuse(request, "too many siblings: read, and write with its version")
            return
        assert new in merged, f"{new} does not supersede {siblings}"
        clock = self.policy.clock(merged)
        version = self.policy.version(clock)
        self._remember(request, version)
        self._store(operation.key, Record(merged))
        self._clocks[operation.key] = clock
        self._sessions.trim(request.client)
        self._heat(operation.key)
        self._reply(request, "ok", version=version)

    def _refuse(self, request: Request, error: str) -> None:
        """A copy of the request that comes later must not take effect, whatever is here then."""
        self._remember(request, None)
        self._sessions.trim(request.client)
        self._reply(request, "fail", error=error)

    def _are_too_many(self, merged: Sequence[Sibling], before: Sequence[Sibling]) -> bool:
        """Whether this node would hold too many siblings by its own writes. Those of others do not
        count: nodes that replace each other's siblings would come to any number together."""
        return sum([s.node == self.id for s in merged]) > self.parameters.max_siblings

    def _new_sibling(self, request: Request, clock: Clock) -> Sibling:
        operation = request.operation
        if self.policy is LastWriteWins:
            told = _stamp_of_context(operation)
            self._check_stamp(told)
            self._stamp = max(self._stamp, told)
            self._stamp = max(self._stamp + 1, int(self.env.wall() * 1000) << _LOGICAL_BITS)
            past: dict[str, int] = {}
            counter = self._stamp
        else:
            past = self._past(operation, clock)
            counter = increment(clock, self.id)[self.id]
        return Sibling(
            node=self.id,
            counter=counter,
            past=past,
            value=operation.value if operation.op == "write" else None,
            deleted=operation.op == "delete",
            client=request.client,
            sequence=request.sequence,
        )

    def _past(self, operation: Operation, clock: Clock) -> dict[str, int]:
        context = operation.context
        if context is None:
            return dict(clock)
        highest = reach(self.env.wall())
        if not isinstance(context, dict) or not all(
            node in self._members and 0 <= counter <= max(highest, clock.get(node, 0))
            for node, counter in context.items()
        ):
            raise ValueError("the context is not a version that a read of this cluster returned")
        if context.get(self.id, 0) > clock.get(self.id, 0):
            # This node never gave that dot, and if it did later, the write would be lost.
            raise ValueError("the context is not a version of this key")
        return merge(context)

    def _reply(
        self, request: Request, outcome: Literal["ok", "fail", "info"], **fields: Any
    ) -> None:
        reply = Reply(request.client, request.sequence, outcome, **fields)
        if self._asker is not None:
            self.out.send(self._asker, Forwarded(reply))
        else:
            self.out.reply(reply)

    # --- requests for keys that others hold ---

    def _forward(self, request: Request) -> None:
        name = (request.client, request.sequence)
        if name in self._forwarding:
            return  # A copy, or a retry: the one that is open answers it.
        if not self._forwarding:
            self.out.set_timer("forward", _FORWARD_AGAIN_S)
        deadline_s = self.env.now() + self.parameters.forward_timeout_s
        self._forwarding[name] = _Forwarding(request, self._member_for(request), deadline_s)
        self.out.send(self._forwarding[name].to, Forward(request))

    def _member_for(self, request: Request) -> str:
        """The member to ask: one that is not suspected and, as far as known, ready; always the same
        while that stays so."""
        assert self.recovery is not None
        placements = self.recovery.placements
        placement = placements.of(request.operation.key)
        others = [node for node in placement.nodes if node != self.id]
        if not placements.is_complete(placement.range) and len(others) > 1:
            others = [node for node in others if node != placement.newest[0]]
        alive = [node for node in others if not self.recovery.heartbeats.suspected(node)]
        choice = alive or others or list(placement.nodes)
        return choice[self.config.nodes.index(self.id) % len(choice)]

    def on_forward(self, src: str, msg: Forward) -> None:
        """Answer it for the sender, if the key is held here; else the sender will find out."""
        recovery = self._placed()
        if not recovery.serves(msg.request.operation.key):
            self.out.send(src, recovery.placements.numbers())
            return
        self._asker = src
        self._answer(msg.request)
        self._asker = None

    def on_forwarded(self, src: str, msg: Forwarded) -> None:
        """Pass it on."""
        if self._forwarding.pop((msg.reply.client, msg.reply.sequence), None) is not None:
            self.out.reply(msg.reply)

    def _forward_again(self) -> None:
        for name, forwarding in list(self._forwarding.items()):
            request = forwarding.request
            is_read = request.operation.op == "read"
            if self.env.now() >= forwarding.deadline_s:
                del self._forwarding[name]
                self._reply(
                    request,
                    "fail" if is_read else "info",
                    error=f"{forwarding.to}, which holds the key, did not answer in time",
                )
                continue
            if is_read:
                forwarding.to = self._member_for(request)
            self.out.send(forwarding.to, Forward(request))
        if self._forwarding:
            self.out.set_timer("forward", _FORWARD_AGAIN_S)

    # --- fewer replicas than nodes ---

    def keys_in(self, key_range: int) -> Iterator[str]:
        """The keys of a range: whole buckets, for their number is a multiple of the ranges'."""
        for bucket in range(key_range, self.parameters.buckets, self.parameters.ranges):
            yield from self._digest.keys(bucket)

    def export_keys(self, keys: Sequence[str]) -> Iterator[bytes]:
        """Each key's siblings, and the results of the requests that wrote it."""
        results = self._sessions.of_keys(keys)
        for key in keys:
            known = [result for result in results[key] if result.version is not None]
            yield _encode((key, self.records[key], known))

    def import_keys(self, contents: Sequence[bytes]) -> None:
        """Merge, and remember the requests."""
        for key, record, results in [self._decoded(content) for content in contents]:
            self._absorb({key: record})
            for result in results:
                self._sessions.adopt(result)

    def _decoded(self, content: bytes) -> tuple[str, Record, list[Result]]:
        """What another replica exported. Raises BadMessage."""
        try:
            key, record, results = _decode_key(content)
            for result in results:
                self._written_clock(result)
        except (ValueError, RecursionError) as error:
            raise BadMessage(f"not what is known of a key: {error}") from None
        return key, record, results

    def on_placement(self, key_range: int) -> None:
        """The new members may lack what the old ones had."""
        buckets = range(key_range, self.parameters.buckets, self.parameters.ranges)
        self._handed_over.difference_update(buckets)

    def _is_member(self, node: str, bucket: int) -> bool:
        if self.recovery is None:
            return True
        return node in self.recovery.placements.current[bucket % self.parameters.ranges].nodes

    def _members_of(self, key: str) -> tuple[str, ...]:
        """The other nodes that hold ``key``."""
        assert self.recovery is not None
        nodes = self.recovery.placements.of(key).nodes
        return tuple(node for node in nodes if node != self.id)

    def _remember(self, request: Request, version: Version) -> None:
        key = request.operation.key
        self._sessions.remember(
            Result(request.client, request.sequence, request.acked, key, version)
        )

    # --- what this node holds ---

    def _has_effect(self, result: Result) -> bool:
        if result.version is None:
            return True
        return not self.policy.lacks(self._clock(result.key), self._written_clock(result))

    def _written_clock(self, result: Result) -> Clock:
        """What a key's clock has to cover where the write has taken effect. Raises ValueError."""
        if isinstance(result.version, dict):
            return result.version
        stamp, node = _parse_stamp(result.version)
        return {node: stamp}

    def _store(self, key: str, record: Record) -> None:
        self._index(key, record)
        self.changed[key] = None
        self.disk.put("k/" + key, record)
        if self._handed_over:
            # It came late, from one that took this node for a member.
            self._handed_over.discard(range_of(key, self.parameters.buckets))

    def _index(self, key: str, record: Record) -> None:
        old = self.records.get(key)
        self._live_keys += _is_live(record) - (old is not None and _is_live(old))
        self.records[key] = record
        self._clocks.pop(key, None)
        self._digest.touch(key)
        for s in record.siblings:
            if s.counter > self._stamp:
                self._stamp = s.counter

    def _dots(self, key: str) -> list[tuple[str, int]]:
        return [(s.node, s.counter) for s in self.records[key].siblings]

    def _version(self, key: str) -> Version:
        return self.policy.version(self._clock(key))

    def _absorb(self, records: Mapping[str, Record]) -> list[str]:
        """Merge what another node told. Returns the keys of which it was news. A key of which it
        lies is refused, and no other: what was once lied of one key would else keep all that
        travels with it from being repaired."""
        news = []
        for key, theirs in records.items():
            ours = self.records.get(key)
            before = ours.siblings if ours is not None else ()
            if before is theirs.siblings:
                continue  # Nodes in one process share what they told each other.
            try:
                merged = self._merged(key, before, theirs.siblings)
            except BadMessage as error:
                self.out.refused.append(str(error))
                continue
            if merged is not before and merged != before:
                self._store(key, theirs if merged is theirs.siblings else Record(merged))
                news.append(key)
        return news

    def _merged(
        self, key: str, before: tuple[Sibling, ...], theirs: tuple[Sibling, ...]
    ) -> tuple[Sibling, ...]:
        """Raises BadMessage."""
        merged = self.policy.merge(before, theirs)
        if merged is not before and merged != before:
            self._check_news(key, before, theirs, merged)
            # Also what only a superseded version has seen may go: the past is what a client gave as
            # the context of its write, whatever that was.
            assert self.policy.missing((*merged, *theirs), before) is None
        return merged

    def _check_news(
        self,
        key: str,
        before: tuple[Sibling, ...],
        theirs: tuple[Sibling, ...],
        merged: tuple[Sibling, ...],
    ) -> None:
        """Raises BadMessage for versions that nobody can hold."""
        # All nodes may have come to as many while they did not hear of each other.
        if max(len(theirs), len(merged)) > self.parameters.max_siblings * len(self._members):
            raise BadMessage(f"key {key!r}: {len(merged)} siblings")
        problem = self.policy.problem(theirs)
        if problem is not None:
            raise BadMessage(f"key {key!r}: {problem}")
        clock = self._clock(key)
        known = clock.get
        # What is in the clock was looked at when it came.
        for s in theirs:
            if known(s.node, -1) < s.counter:
                self._check_counter(clock, s.node, s.counter)
            for node, counter in s.past.items():
                if known(node, -1) < counter:
                    self._check_counter(clock, node, counter)
        if self.policy.missing((*merged, *before), theirs) is not None:
            raise BadMessage(f"key {key!r}: a dot has two versions")

    def _check_counter(self, clock: Clock, node: str, counter: int) -> None:
        """Raises BadMessage where ``node`` cannot have got so far."""
        if node not in self._members:
            raise BadMessage(f"{node!r} is no node of this cluster")
        if self.policy is LastWriteWins:
            self._check_stamp(counter)
        else:
            check_reach("counter", counter, clock.get(node, 0), self.env.wall)

    def _check_stamp(self, stamp: int) -> None:
        """Raises BadMessage. By the clock alone, like `nodes.contract.bounds.check_reach`."""
        wall = int(self.env.wall() * 1000) << _LOGICAL_BITS
        if stamp > max(self._stamp, wall + MAX_CLOCK_LEAP):
            raise BadMessage(f"stamp {stamp} is years ahead of {wall}")

    # --- rumours ---

    def _heat(self, key: str) -> None:
        """Tell of ``key`` in the rounds to come, with all that changed until then in one
        message."""
        if not self.config.peers:
            return
        if not self._hot:
            self.out.set_timer("gossip-round", self.parameters.gossip_interval_s)
        self._hot[key] = self.parameters.rounds

    def on_timer(self, name: str) -> None:
        """A gossip round, or the next anti-entropy exchange; or what `Recovery` waits for."""
        if name == "gossip-round":
            self._gossip_round()
        elif name == "forward":
            self._forward_again()
        elif self.recovery is not None and name in Recovery.TIMERS:
            self.recovery.on_timer(name)
        else:
            self._start_anti_entropy()

    def _gossip_round(self) -> None:
        by_members: dict[tuple[str, ...], list[str]] = {}
        if self.recovery is None:
            by_members[self.config.peers] = list(self._hot)
        else:
            for key in self._hot:
                by_members.setdefault(self._members_of(key), []).append(key)
        for peers, keys in by_members.items():
            targets = self.env.rng.sample(peers, min(self.parameters.fanout, len(peers)))
            for records in self._portions(keys):
                for peer in targets:
                    self.out.send(peer, Rumour(records))
        self._hot = {key: left - 1 for key, left in self._hot.items() if left > 1}
        if self._hot:
            self.out.set_timer("gossip-round", self.parameters.gossip_interval_s)

    def on_rumour(self, src: str, msg: Rumour) -> None:
        """News are spread in turn."""
        for key in self._absorb(msg.records):
            self._heat(key)

    def _portions(self, keys: Sequence[str]) -> Iterator[dict[str, Record]]:
        """The siblings of a record must travel together."""
        return portions(keys, self.records, _characters, self.parameters.message_characters)

    # --- anti-entropy ---

    def _set_anti_entropy_timer(self) -> None:
        # Jitter, lest all nodes that started together exchange in the same instant for ever.
        interval_s = self.parameters.anti_entropy_interval_s
        self.out.set_timer("anti-entropy", interval_s * self.env.rng.uniform(0.5, 1.5))

    def _start_anti_entropy(self) -> None:
        peers = self.config.peers
        peer = peers[self.env.rng.randrange(0, len(peers))]
        hashes = self._digest.hashes
        if self._handed_over:
            gone = self._handed_over
            hashes = tuple([0 if b in gone else hash for b, hash in enumerate(hashes)])
        self.out.send(peer, Digest(hashes))
        self._set_anti_entropy_timer()

    def on_digest(self, src: str, msg: Digest) -> None:
        """Tell what this node has where the hashes differ; an empty answer says that none do."""
        try:
            differing = self._digest.differing(msg.hashes)
        except ValueError:
            self.out.mark("digest_of_other_size", src=src)
            return
        # Members exchange; whoever is none any more hands over what it still has.
        differing = [
            bucket
            for bucket in differing
            if self._is_member(self.id, bucket)
            and (msg.hashes[bucket] != 0 or self._is_member(src, bucket))
        ]
        self._note_agreement(src, len(differing))
        for buckets, keys in self._digest.portions(differing):
            clocks = {key: self._clock(key) for key in keys}
            self.out.send(src, Difference(len(differing), buckets, clocks))

    def on_difference(self, src: str, msg: Difference) -> None:
        """Push what the peer lacks, pull what this node lacks."""
        count = self.parameters.buckets
        if max(msg.differing, len(msg.buckets)) > count or not all(b < count for b in msg.buckets):
            raise BadMessage(f"more than the {count} buckets that there are")
        self._note_agreement(src, msg.differing)
        push: list[str] = []
        for bucket in msg.buckets:
            before = len(push)
            for key in self._digest.keys(bucket):
                theirs = msg.clocks.get(key)
                if theirs is None or self.policy.lacks(theirs, self._clock(key)):
                    push.append(key)
            # To a member: others may themselves have yet to hand it over, and be lost before that.
            if (
                len(push) == before
                and self._is_member(src, bucket)
                and not self._is_member(self.id, bucket)
            ):
                self._handed_over.add(bucket)
        pull = [
            key
            for key, theirs in msg.clocks.items()
            if (self.recovery is None or self.id in self.recovery.placements.of(key).nodes)
            and self.policy.lacks(self._clock(key), theirs)
        ]
        self._push(src, push)
        if pull:
            self.out.send(src, Pull(tuple(pull)))

    def on_pull(self, src: str, msg: Pull) -> None:
        """The peer asks for these keys."""
        self._push(src, msg.keys)

    def on_push(self, src: str, msg: Push) -> None:
        """Repaired. No rumour: the other nodes find the difference themselves."""
        self._absorb(msg.records)

    def _push(self, peer: str, keys: Sequence[str]) -> None:
        for records in self._portions(keys):
            self.out.send(peer, Push(records))

    def _clock(self, key: str) -> dict[str, int]:
        clock = self._clocks.get(key)
        if clock is None:
            record = self.records.get(key)
            if record is None:
                return {}
            clock = self._clocks[key] = self.policy.clock(record.siblings)
        return clock

    # --- views ---

    WATCHED = ("disk.position", "durable_position")

    def watched(self) -> Any:
        """What is `changed` is on disk, too."""
        return self.disk.position, self.durable_position

    def _note_agreement(self, peer: str, differing: int) -> None:
        self._agreed[peer] = (self.env.now(), self.parameters.buckets - differing)

    def _replication_ratio(self) -> float | None:
        """Share of (node, bucket) pairs that equal this node's, itself counted, as of the last
        exchange with each peer. None while some peer was not heard of for long: nobody knows."""
        peers = self.config.peers
        oldest = self.env.now() - 4 * len(peers) * self.parameters.anti_entropy_interval_s
        equal = self.parameters.buckets
        for peer in peers:
            at, agreed = self._agreed.get(peer, (-math.inf, 0))
            if at < oldest:
                return None
            equal += agreed
        return equal / (self.parameters.buckets * len(self.config.nodes))

    def probe(self) -> dict[str, Any]:
        """``keys``: not deleted. ``tombstones``: deleted. ``pending``: keys that are hot rumours.
        ``replication_ratio``: 0..1, None if unknown."""
        return {
            "role": "replica",
            "leader": None,
            "ready": True,
            "keys": self._live_keys,
            "tombstones": len(self.records) - self._live_keys,
            "pending": len(self._hot),
            "replication_ratio": self._replication_ratio(),
            **probe_of(self.recovery),
        }

    def state(self) -> Mapping[str, tuple[tuple[Value, ...], Version]]:
        """Key -> (its siblings' values, ordered by dot; its clock). Only keys that this node has to
        hold."""
        return {
            key: (_values(record), self._version(key))
            for key, record in sorted(self.records.items())
            if _is_live(record) and (self.recovery is None or self.recovery.serves(key))
        }


_encode = msgspec.msgpack.Encoder().encode


_decode_key = msgspec.msgpack.Decoder(tuple[str, Record, list[Result]]).decode


def _values(record: Record) -> tuple[Value, ...]:
    """What a reader sees. Two versions of one request (a retry at another node) are one value."""
    by_request = {(s.client, s.sequence): s.value for s in record.siblings if not s.deleted}
    return tuple(by_request.values())


def _characters(record: Record) -> int:
    """How large it is in a message, about."""
    return sum([100 + len(str(s.value)) for s in record.siblings])


def _is_live(record: Record) -> bool:
    for s in record.siblings:  # noqa: SIM110 - a generator would cost more than the loop
        if not s.deleted:
            return True
    return False


def _stamp_of_context(operation: Operation) -> int:
    if operation.context is None:
        return 0
    return _parse_stamp(operation.context)[0]


def _parse_stamp(version: Version) -> tuple[int, str]:
    # No pattern: `match` takes thirty times as long.
    if type(version) is list and len(version) == 3:
        milliseconds, logical, node = version
        if (
            type(milliseconds) is int
            and type(logical) is int
            and type(node) is str
            and 0 <= milliseconds < 1 << 46
            and 0 <= logical < 1 << _LOGICAL_BITS
        ):
            return milliseconds << _LOGICAL_BITS | logical, node
    raise ValueError("the context is not a version that a read of this cluster returned")
