"""Quorum: an atomic register per key, with many writers and no leader.

Theory of operation
-------------------
Attiya, Bar-Noy and Dolev ("Sharing Memory Robustly in Message-Passing Systems", JACM 1995), with
many writers as Lynch and Shvartsman ("Robust Emulation of Shared Memory Using Dynamic
Quorum-Acknowledged Broadcasts", FTCS 1997). The node that takes a request coordinates it, and
counts as one of the replicas:

- a **write** asks a read quorum for its highest version (`Prepare`), picks a higher one, and
stores it
  on a write quorum (`Commit`);
- a **read** asks a read quorum for its newest record. It writes that back on a write quorum before
it
  answers, unless a write quorum was seen to hold it: otherwise the next read could miss what
  this one returned, and go back in time.

A replica keeps the newest version that it was told, durably before it acknowledges, and ignores
older ones. So no quorum ever needs to agree on an order: the versions are the order. A delete
writes a tombstone, which is kept: a key without a version would take back an old value.

Unanswered phases are repeated every ``retransmit_interval_s``. After ``timeout_s`` an operation is
given up: ``fail`` if no `Commit` of it was ever made (nothing of it exists anywhere), else
``info``.

Versions are (counter, node, sequence), compared in this order. ``sequence`` is the coordinator's:
its incarnation, which is made durable before the first request is served, and a count. So no
version is ever used twice, whatever a crash made the node forget, and late answers to an earlier
incarnation match nothing.

What quorums do not reach is repaired by a slow anti-entropy, as in gossip: it moves records that
some coordinator stored already, so it changes no outcome. With ``weak`` (R + W <= n) it is what
makes replicas converge at all.

At most once
------------
Before a coordinator sends the first `Commit` of a write it has made durable which version the
request has. A retry at the *same* node finds it, also after a crash, and stores the same version
again. Every replica remembers the requests of the versions that it was told, and tells them in its
answer to `Prepare`. So a retry at *another* node finds the version of a first attempt that was
stored on a write quorum, or on any replica of its read quorum, and stores that one; and if its
client has acknowledged the first attempt since, they say so, and nothing is stored. What is left:
a first attempt that reached no replica of the second's read quorum, is not finished, and is taken
up again later (by a reader that meets it, or by its coordinator). Then one request has two
versions, and may be seen twice; to exclude that needs consensus on each request. ``fail`` likewise
speaks of the attempt that it answers. A client that needs more retries at its node.

Fewer replicas than nodes
-------------------------
With a ``replication_factor`` below the number of nodes, a key is held by the members of its range's
placement (`nodes.parts.placement`), and quorums are those of the members. Each `Prepare` and
`Commit` carries the number of the placement that the coordinator goes by. A replica refuses older
ones and tells the newer placement; the coordinator then begins its phase again, with the new
members. A write keeps the version that it has chosen: it was higher than all that was acknowledged
when the write began, and that is all it has to be. A read begins from the start.
`nodes.parts.recovery` replaces lost nodes.

Claim: linearizable; with ``weak``: eventual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from nodes.contract.bounds import BadMessage, check_reach
from nodes.contract.disk import Disk
from nodes.contract.replica import Config, Env, Parameters, Reply, Request, Value, Version
from nodes.parts.claims import TheLastAreRemembered
from nodes.parts.key_digest import KeyDigest, portions
from nodes.parts.placement import INVARIANTS as PLACEMENT_INVARIANTS
from nodes.parts.placement_claims import CopiesGoOn, PlacementAcceptors
from nodes.parts.quorum import Quorums
from nodes.parts.recovery import RECORDS as RECOVERY_RECORDS
from nodes.parts.recovery import PlacedReplica, Recovery, probe_of
from nodes.parts.sessions import Result, Sessions
from nodes.protocols.quorum_register.claims import (
    AnswersAreDurable,
    RegisterCopies,
    ReplicasTellTrue,
)
from nodes.protocols.quorum_register.exchange_claims import RegisterExchanges, RegisterPartners
from nodes.protocols.quorum_register.invariants import VersionNamesOneWrite, VersionNeverGoesBack
from nodes.protocols.quorum_register.messages import (
    NOTHING,
    Commit,
    Committed,
    Difference,
    Digest,
    Prepare,
    Prepared,
    Pull,
    Push,
    Record,
    Tag,
)
from nodes.protocols.quorum_register.parameters import QuorumParameters
from nodes.protocols.quorum_register.quorum_claims import (
    QuorumsAreOfOnePlacement,
    RegisterMembers,
)

_SEQUENCE_BITS = 32


_INCARNATION = "incarnation"


_NO_QUORUM = "no quorum answered in time"


_FORGOTTEN = "forgotten: the client has acknowledged it"


class _Operation:
    """A request that this node coordinates. ``record`` is None during the first phase; ``answers``
    are those to `Prepare`; ``holders`` the replicas that hold ``record`` or a newer one."""

    __slots__ = (
        "answers",
        "deadline_s",
        "holders",
        "key",
        "placement",
        "quorums",
        "record",
        "replicas",
        "request",
        "sent_s",
        "wrote",
    )

    def __init__(
        self, request: Request, replicas: tuple[str, ...], quorums: Quorums, now_s: float
    ) -> None:
        self.request = request
        self.key = request.operation.key
        self.replicas = replicas
        self.quorums = quorums
        self.sent_s = self.deadline_s = now_s
        self.answers: dict[str, Prepared] = {}
        self.record: Record | None = None
        self.holders: dict[str, None] = {}
        self.placement = 0
        self.wrote = False
        """A write whose version is on its way: it may take effect."""

    @property
    def is_read(self) -> bool:
        return self.request.operation.op == "read"


class QuorumRegister(PlacedReplica):
    """A replica, and the coordinator of the requests that it takes. See the top of this file.

    Invariants: `INVARIANTS`. Units: seconds. Follows Attiya, Bar-Noy and Dolev 1995; Lynch and
    Shvartsman 1997, section 3 (without its reconfiguration).
    """

    MESSAGES = (
        *(Prepare, Prepared, Commit, Committed, Digest, Difference, Pull, Push),
        *PlacedReplica.MESSAGES,
    )
    HEAVY = (Digest, Difference, Pull, *PlacedReplica.HEAVY)
    EARLY = (Prepare, *PlacedReplica.EARLY)
    RECORDS = (Record, Result, *RECOVERY_RECORDS)
    INVARIANTS = (
        VersionNamesOneWrite,
        VersionNeverGoesBack,
        *PLACEMENT_INVARIANTS,
        PlacementAcceptors,
        ReplicasTellTrue,
        AnswersAreDurable,
        RegisterCopies,
        RegisterMembers,
        CopiesGoOn,
        QuorumsAreOfOnePlacement,
        RegisterExchanges,
        RegisterPartners,
        TheLastAreRemembered,
    )
    PARAMETERS: ClassVar[type[Parameters]] = QuorumParameters

    def __init__(self, config: Config, env: Env, disk: Disk) -> None:
        super().__init__(config, env, disk)
        assert isinstance(config.parameters, QuorumParameters)
        self.parameters = config.parameters
        self.parameters.check(config.nodes)
        self.records: dict[str, Record] = {}
        self.changed: dict[str, None] = {}
        """Keys that the last step changed."""
        self.durable_position = 0
        self._unsynced: dict[str, int] = {}
        self._operations: dict[int, _Operation] = {}
        self._by_request: dict[tuple[str, int], int] = {}
        self._live_keys = 0
        self._digest = KeyDigest(self.parameters.buckets, self.version_of, self.parameters)
        for name, record in disk.items():
            if isinstance(record, Record):
                self._index(name.removeprefix("k/"), record)
        self.start_recovery(self.parameters, self.parameters.copy_quorum(config.nodes))
        self._sessions = Sessions(disk, self.parameters)
        self._sessions.load(self._has_effect)

        incarnation = disk.get(_INCARNATION, 0) + 1
        disk.put(_INCARNATION, incarnation)
        self._ready_position = disk.position
        self._waiting: list[Request] = []
        self._number = incarnation << _SEQUENCE_BITS
        if config.peers:
            self._set_anti_entropy_timer()

    def replicas_of(self, key: str) -> tuple[str, ...]:
        """The nodes that hold ``key``."""
        if self.recovery is None:
            return self.config.nodes
        return self.recovery.placements.of(key).nodes

    def _counts_here(self, operation: _Operation) -> bool:
        """Whether this node is one of the replicas that the operation asks, and may answer."""
        if self.id not in operation.replicas:
            return False
        return self.recovery is None or self.recovery.serves(operation.key)

    def _others(self, operation: _Operation, asked: Mapping[str, Any]) -> list[str]:
        """The replicas that have not been heard, without this node."""
        return [node for node in operation.replicas if node != self.id and node not in asked]

    def version_of(self, key: str) -> Tag:
        """The version that this replica holds."""
        record = self.records.get(key)
        return record.version if record is not None else NOTHING

    @property
    def _ready(self) -> bool:
        """The incarnation is durable: no later one will use a version or number of this one."""
        return self.durable_position >= self._ready_position

    def on_durable(self, position: int) -> None:
        """Writes up to ``position`` are durable. Requests that came before the incarnation was are
        taken up now."""
        self.durable_position = position
        if self._unsynced:
            self._unsynced = {key: at for key, at in self._unsynced.items() if at > position}
        if self._ready and self._waiting:
            waiting, self._waiting = self._waiting, []
            for request in waiting:
                self.on_request(request)

    # --- coordinating: the first phase ---

    def on_request(self, request: Request) -> None:
        """Coordinate it, from this node."""
        if request.operation.op not in ("read", "write", "delete"):
            self._reply(request, "fail", error="unsupported")
            return
        if not self._ready:
            self._waiting.append(request)
            return
        name = (request.client, request.sequence)
        if name in self._by_request:
            return  # A copy, or a retry: the operation that is open answers it.
        is_read = request.operation.op == "read"
        if not is_read and self._sessions.is_forgotten(*name):
            self._reply(request, "info", error=_FORGOTTEN)
            return
        result = None if is_read else self._sessions.find(*name)
        known = _tag(result)
        if result is not None and known is None:
            self._reply(request, "fail", error=_NO_QUORUM)
            return
        self._number += 1
        number = self._number
        replicas = self.replicas_of(request.operation.key)
        quorums = self.parameters.quorums(len(replicas))
        operation = _Operation(request, replicas, quorums, self.env.now())
        operation.deadline_s += self.parameters.timeout_s
        if self.recovery is not None:
            operation.placement = self.recovery.placements.of(operation.key).number
        if not self._operations:
            self.out.set_timer("retransmit", self.parameters.retransmit_interval_s)
        self._operations[number] = operation
        self._by_request[name] = number
        if known is not None:
            self._commit(number, operation, self._written(request, known))
        else:
            self._prepare(number, operation)

    def _prepare(self, number: int, operation: _Operation) -> None:
        request = operation.request
        if operation.is_read:
            msg = Prepare(number, operation.key, placement=operation.placement)
        else:
            client, sequence = request.client, request.sequence
            msg = Prepare(number, operation.key, client, sequence, operation.placement)
        if self._counts_here(operation) and self.id not in operation.answers:
            self._note_answer(operation)
            operation.answers[self.id] = self._prepared(msg)
            self._end_prepare(number, operation)
            if len(operation.answers) >= operation.quorums.read:
                return
        for node in self._others(operation, operation.answers):
            # A question: it says nothing that this node could forget.
            self.out.send(node, msg, early=True)

    def _check_counter(self, key: str, version: Tag) -> None:
        """Raises BadMessage where no replica can have come so far."""
        check_reach("version", version[0], self.version_of(key)[0], self.env.wall)

    def _note_answer(self, operation: _Operation) -> None:
        if self.recovery is not None:
            self.recovery.note_answer(operation.key, operation.placement)

    def on_prepared(self, src: str, msg: Prepared) -> None:
        """Late answers, and answers to an earlier incarnation, match no open first phase."""
        operation = self._operations.get(msg.number)
        if operation is None or operation.record is not None or src not in operation.replicas:
            return
        self._check_counter(operation.key, msg.version)
        if operation.is_read:
            held = NOTHING if msg.record is None else msg.record.version
            if held != msg.version:
                raise BadMessage(f"version {msg.version}, and {held} with it")
        elif msg.known is not None:
            self._check_counter(operation.key, msg.known)
        operation.answers[src] = msg
        self._end_prepare(msg.number, operation)

    def _end_prepare(self, number: int, operation: _Operation) -> None:
        if len(operation.answers) < operation.quorums.read:
            return
        answers = operation.answers.values()
        highest = max([answer.version for answer in answers])
        if operation.is_read:
            if highest == NOTHING:
                self._end(number, operation, "ok")
                return
            record = next(a.record for a in answers if a.version == highest)
            assert record is not None, "a version without its record"
            assert record.version == highest, f"{record} was called {highest}"
            for node, answer in operation.answers.items():
                if answer.version == highest:
                    operation.holders[node] = None
            self._commit(number, operation, record)
            return
        known = max([a.known for a in answers if a.known is not None], default=None)
        if known is None and any(a.forgotten for a in answers):
            # A late copy, which came here and not to the node that was asked first.
            self._end(number, operation, "info", error=_FORGOTTEN)
            return
        if known is None:
            # Higher than all that was acknowledged before this write began, and this node's alone.
            known = (highest[0] + 1, self.id, number)
        self._commit(number, operation, self._written(operation.request, known))

    def _written(self, request: Request, version: Tag) -> Record:
        operation = request.operation
        deleted = operation.op == "delete"
        value = None if deleted else operation.value
        return Record(version, value, deleted, request.client, request.sequence)

    # --- coordinating: the second phase ---

    def _commit(self, number: int, operation: _Operation, record: Record) -> None:
        assert operation.record is None, "a second phase begins once"
        operation.record = record
        operation.wrote = not operation.is_read
        operation.sent_s = self.env.now()
        if not self._end_commit(number, operation):
            self._send_commit(number, operation)

    def _send_commit(self, number: int, operation: _Operation) -> None:
        assert operation.record is not None
        acked = operation.request.acked if operation.wrote else 0
        msg = Commit(number, operation.key, operation.record, acked, operation.placement)
        if self._counts_here(operation) and self.id not in operation.holders:
            # Counts at once: the reply waits until it is durable. So do the messages below, hence
            # a retry after a crash finds the version of this request, if there is any effect of it.
            self._note_answer(operation)
            self._hold(operation.key, operation.record, acked)
            operation.holders[self.id] = None
        elif operation.wrote and self._remember(operation.key, operation.record, acked):
            # It holds no such keys, but a retry has to find the version.
            self._sessions.trim(operation.request.client)
        for node in self._others(operation, operation.holders):
            self.out.send(node, msg)
        self._end_commit(number, operation)

    def on_committed(self, src: str, msg: Committed) -> None:
        """One more replica holds the record, or a newer one."""
        operation = self._operations.get(msg.number)
        if operation is None or operation.record is None or src not in operation.replicas:
            return
        operation.holders[src] = None
        self._end_commit(msg.number, operation)

    def _end_commit(self, number: int, operation: _Operation) -> bool:
        if len(operation.holders) < operation.quorums.write:
            return False
        record = operation.record
        assert record is not None
        value = record.value if operation.is_read else None
        self._end(number, operation, "ok", value=value, version=list(record.version))
        return True

    def _end(
        self,
        number: int,
        operation: _Operation,
        outcome: Literal["ok", "fail", "info"],
        **fields: Any,
    ) -> None:
        request = operation.request
        del self._operations[number]
        del self._by_request[(request.client, request.sequence)]
        if not self._operations:
            self.out.cancel_timer("retransmit")
        self._reply(request, outcome, **fields)

    def _reply(
        self, request: Request, outcome: Literal["ok", "fail", "info"], **fields: Any
    ) -> None:
        self.out.reply(Reply(request.client, request.sequence, outcome, **fields))

    # --- timers ---

    def on_timer(self, name: str) -> None:
        """Repeat and give up open operations, or start an anti-entropy exchange."""
        if name == "anti-entropy":
            self._start_anti_entropy()
            return
        if self.recovery is not None and name in Recovery.TIMERS:
            self.recovery.on_timer(name)
            return
        now_s = self.env.now()
        for number, operation in list(self._operations.items()):
            if now_s >= operation.deadline_s:
                outcome: Literal["fail", "info"] = "info" if operation.wrote else "fail"
                if outcome == "fail" and not operation.is_read:
                    self._remember_failure(operation.request)
                self._end(number, operation, outcome, error=_NO_QUORUM)
            elif now_s >= operation.sent_s + self.parameters.retransmit_interval_s:
                operation.sent_s = now_s
                if operation.record is None:
                    self._prepare(number, operation)
                else:
                    self._send_commit(number, operation)
        if self._operations:
            self.out.set_timer("retransmit", self.parameters.retransmit_interval_s)

    def _remember_failure(self, request: Request) -> None:
        """A copy of the request that comes later must not take effect: it was answered ``fail``."""
        client, key = request.client, request.operation.key
        if self._sessions.is_forgotten(client, request.sequence):
            return  # No copy has an effect any more.
        self._sessions.remember(Result(client, request.sequence, request.acked, key, None))
        self._sessions.trim(client)

    # --- the replica ---

    def on_prepare(self, src: str, msg: Prepare) -> None:
        """Tell the version. Early if it is durable here: a reader relies on that."""
        if self._admits(src, msg.key, msg.placement):
            self.out.send(src, self._prepared(msg), early=self._is_synced(msg.key))

    def _admits(self, src: str, key: str, placement: int) -> bool:
        return self.recovery is None or self.recovery.admits(src, key, placement)

    def _is_synced(self, key: str) -> bool:
        if key in self._unsynced:
            return False
        return self.recovery is None or self.recovery.is_durable(key)

    def _prepared(self, msg: Prepare) -> Prepared:
        record = self.records.get(msg.key)
        version = record.version if record is not None else NOTHING
        if msg.client is None:
            return Prepared(msg.number, version, record)
        known = _tag(self._sessions.find(msg.client, msg.sequence))
        forgotten = known is None and self._sessions.is_forgotten(msg.client, msg.sequence)
        return Prepared(msg.number, version, None, known, forgotten)

    def on_commit(self, src: str, msg: Commit) -> None:
        """Hold it, and say so once it is durable."""
        self._check_counter(msg.key, msg.record.version)
        if self._admits(src, msg.key, msg.placement):
            self._hold(msg.key, msg.record, msg.acked)
            self.out.send(src, Committed(msg.number), early=self._is_synced(msg.key))

    def _hold(self, key: str, record: Record, acked: int = 0) -> None:
        """Keep the record if it is newer, and in any case which version its request has."""
        is_news = record.version > self.version_of(key)
        is_remembered = self._remember(key, record, acked)
        if is_news:
            self._index(key, record)
            self.changed[key] = None
            self.disk.put("k/" + key, record)
        if is_remembered:
            self._sessions.trim(record.client)
        if is_remembered or is_news:
            self._unsynced[key] = self.disk.position

    def _remember(self, key: str, record: Record, acked: int) -> bool:
        """Keep which version a request has. False: it has one, or is forgotten."""
        client, sequence = record.client, record.sequence
        if self._sessions.is_forgotten(client, sequence):
            return False
        if _tag(self._sessions.find(client, sequence)) is not None:
            return False
        self._sessions.remember(Result(client, sequence, acked, key, list(record.version)))
        return True

    def _index(self, key: str, record: Record) -> None:
        old = self.records.get(key)
        assert old is None or record.version > old.version
        self._live_keys += (not record.deleted) - (old is not None and not old.deleted)
        self.records[key] = record
        self._digest.touch(key)

    def _has_effect(self, result: Result) -> bool:
        if self.recovery is not None:
            # Its effect may be elsewhere. The request has that version all the same.
            return True
        version = _tag(result)
        return version is None or self.version_of(result.key) >= version

    # --- fewer replicas than nodes ---

    def on_placement(self, key_range: int) -> None:
        """Begin the phase of the operations in that range again, with its new members. Under a new
        number: what was answered under the old placement counts no more."""
        assert self.recovery is not None
        for number, operation in list(self._operations.items()):
            placement = self.recovery.placements.of(operation.key)
            if placement.range != key_range:
                continue
            del self._operations[number]
            self._number += 1
            self._operations[self._number] = operation
            request = operation.request
            self._by_request[(request.client, request.sequence)] = self._number
            operation.placement = placement.number
            operation.replicas = placement.nodes
            operation.answers.clear()
            operation.holders.clear()
            operation.sent_s = self.env.now()
            if operation.is_read:
                operation.record = None
            if operation.record is None:
                self._prepare(self._number, operation)
            else:
                self._send_commit(self._number, operation)

    def keys_in(self, key_range: int) -> Iterator[str]:
        """The keys of a range: whole buckets, for their number is a multiple of the ranges'."""
        for bucket in range(key_range, self.parameters.buckets, self.parameters.ranges):
            yield from self._digest.keys(bucket)

    def export_keys(self, keys: Sequence[str]) -> Iterator[bytes]:
        """Each key's record, and the versions of the requests that wrote it."""
        results = self._sessions.of_keys(keys)
        for key in keys:
            known = [result for result in results[key] if result.version is not None]
            yield _encode((key, self.records[key], known))

    def import_keys(self, contents: Sequence[bytes]) -> None:
        """Hold what is newer, and remember the requests."""
        for key, record, results in [self._decoded(content) for content in contents]:
            self._hold(key, record)
            for result in results:
                self._sessions.adopt(result)
            self._unsynced[key] = self.disk.position

    def _decoded(self, content: bytes) -> tuple[str, Record, list[Result]]:
        """What another replica exported. Raises BadMessage."""
        try:
            key, record, results = _decode_key(content)
        except (ValueError, RecursionError) as error:
            raise BadMessage(f"not what is known of a key: {error}") from None
        self._check_counter(key, record.version)
        return key, record, results

    def _exchanges(self, peer: str, bucket: int) -> bool:
        """Whether this node and ``peer`` both have to hold the keys of ``bucket``."""
        if self.recovery is None:
            return True
        nodes = self.recovery.placements.current[bucket % self.parameters.ranges].nodes
        return self.id in nodes and peer in nodes

    # --- anti-entropy ---

    def _set_anti_entropy_timer(self) -> None:
        # Jitter, lest all nodes that started together exchange in the same instant for ever.
        interval_s = self.parameters.anti_entropy_interval_s
        self.out.set_timer("anti-entropy", interval_s * self.env.rng.uniform(0.5, 1.5))

    def _start_anti_entropy(self) -> None:
        peers = self.config.peers
        peer = peers[self.env.rng.randrange(0, len(peers))]
        self.out.send(peer, Digest(self._digest.hashes))
        self._set_anti_entropy_timer()

    def on_digest(self, src: str, msg: Digest) -> None:
        """Tell the versions of what differs."""
        try:
            differing = [b for b in self._digest.differing(msg.hashes) if self._exchanges(src, b)]
        except ValueError:
            self.out.mark("digest_of_other_size", src=src)
            return
        if differing:
            for buckets, keys in self._digest.portions(differing):
                versions = {key: self.records[key].version for key in keys}
                self.out.send(src, Difference(buckets, versions))

    def on_difference(self, src: str, msg: Difference) -> None:
        """Push what is newer here, pull what is newer there."""
        count = self.parameters.buckets
        if len(msg.buckets) > count or not all(bucket < count for bucket in msg.buckets):
            raise BadMessage(f"more than the {count} buckets that there are")
        push = [
            key
            for bucket in msg.buckets
            for key in self._digest.keys(bucket)
            if self.version_of(key) > msg.versions.get(key, NOTHING)
        ]
        pull = [key for key, version in msg.versions.items() if version > self.version_of(key)]
        self._push(src, push)
        if pull:
            self.out.send(src, Pull(tuple(pull)))

    def on_pull(self, src: str, msg: Pull) -> None:
        """The peer asks for these keys."""
        self._push(src, msg.keys)

    def on_push(self, src: str, msg: Push) -> None:
        """Repaired."""
        for key, record in msg.records.items():
            self._check_counter(key, record.version)
        for key, record in msg.records.items():
            self._hold(key, record)

    def _push(self, peer: str, keys: Sequence[str]) -> None:
        for records in portions(
            keys, self.records, _characters, self.parameters.message_characters
        ):
            self.out.send(peer, Push(records))

    # --- views ---

    WATCHED = ("disk.position", "durable_position", "answers")

    def watched(self) -> Any:
        """What is `changed` is on disk, too."""
        answers = self.recovery.answers if self.recovery is not None else 0
        return self.disk.position, self.durable_position, answers

    def probe(self) -> dict[str, Any]:
        """``keys``: not deleted. ``tombstones``: deleted. ``pending``: operations that this node
        coordinates now."""
        return {
            "role": "replica",
            "leader": None,
            "ready": self._ready,
            "keys": self._live_keys,
            "tombstones": len(self.records) - self._live_keys,
            "pending": len(self._operations) + len(self._waiting),
            **probe_of(self.recovery),
        }

    def state(self) -> Mapping[str, tuple[tuple[Value, ...], Version]]:
        """Key -> (its value; its version). Only keys that this node has to hold."""
        return {
            key: ((record.value,), list(record.version))
            for key, record in sorted(self.records.items())
            if not record.deleted and (self.recovery is None or self.recovery.serves(key))
        }


_encode = msgspec.msgpack.Encoder().encode


_decode_key = msgspec.msgpack.Decoder(tuple[str, Record, list[Result]]).decode


def _characters(record: Record) -> int:
    """How large it is in a message, about."""
    return 100 + len(str(record.value))


def _tag(result: Result | None) -> Tag | None:
    """The version that a request has, as a tag that compares. None if it has none."""
    version = result.version if result is not None else None
    if type(version) is list and len(version) == 3:
        counter, node, sequence = version
        # No pattern: `match` takes thirty times as long.
        if type(counter) is int and type(node) is str and type(sequence) is int:
            return counter, node, sequence
    return None
