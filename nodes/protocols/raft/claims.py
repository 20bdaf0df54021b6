"""What nodes of Raft claim in their messages, judged when these leave.

Sources as in `nodes.protocols.raft.replica`. All that is known here was seen: in messages that
left, in logs, and on disks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

from nodes.contract.disk import Disk
from nodes.contract.replica import Invariant, InvariantBroken, Reply, Request, Scene, Send
from nodes.parts.claims import (
    EACH,
    AnswersAreTrue,
    Asked,
    Chronicle,
    DisksHoldUpLittle,
    Led,
    MessagesAreBounded,
    RequestsAreProposed,
    Sent,
    SnapshotsAnswer,
    outnumber,
)
from nodes.parts.reference_map import FEW, ReferenceMap
from nodes.protocols.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    ChangeMembership,
    Entry,
    HardState,
    InstallSnapshot,
    InstallSnapshotReply,
    RequestVote,
    RequestVoteReply,
    Snapshot,
    TransferLeadership,
)
from nodes.protocols.raft.parameters import RaftParameters


class RaftChronicle(Chronicle):
    """``entries``: (index, term) -> an entry of some log, and the term of the one before it.
    ``on_change``: is called with the node, its replica, the index and the entry when an entry that
    names members is first seen in a log. ``on_snapshot``: with the node and its replica, when that
    has another snapshot than before.
    ``applied``: those that were, in order. ``safe``: up to here some leader has committed.
    ``logs``: of the leader of each term, as it is now. ``voters``: whose vote left to whom, by term
    and candidate. ``true``: what each node has acknowledged."""

    def __init__(self) -> None:
        self.entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        self.on_change: Callable[[str, Any, int, Entry], None] = lambda *_: None
        self.on_snapshot: Callable[[str, Any], None] = lambda *_: None
        self.safe = 0
        self.applied: list[Entry] = []
        self.logs: dict[int, Disk] = {}
        self.voters: dict[tuple[int, str], set[str]] = {}
        self.true: dict[str, _True] = {}
        self.memberships = []
        self.reference = ReferenceMap(0)
        self._terms: list[tuple[int, tuple[str, ...]]] = [(0, ())]

    def begin(self, scene: Scene) -> None:
        """Of a run. (Each invariant calls it; only the first call does anything.)"""
        if self.memberships:
            return
        config = next(iter(scene.configs.values()))
        assert isinstance(config.parameters, RaftParameters)
        parameters = config.parameters
        keeps = parameters.snapshot_entries <= FEW
        self.reference = ReferenceMap(
            parameters.client_entries, parameters.client_replies, keeps_states=keeps
        )
        self.memberships.append(config.nodes)
        self._terms[0] = 0, config.nodes

    def advance(self, index: int, term: int) -> None:
        """The log up to that entry was applied by somebody: take it up. Raises InvariantBroken if
        it does not go on from what was applied before."""
        chain: list[Entry] = []
        for at in range(index, self.reference.index, -1):
            known = self.entries.get((at, term))
            if known is None:
                raise InvariantBroken(f"entry {at} of term {term} was applied, and in no log")
            entry, term = known
            chain.append(entry)
        if term != self._terms[-1][0]:
            raise InvariantBroken(
                f"after entry {self.reference.index} of term {self._terms[-1][0]} came entries up"
                f" to {index} that go on from term {term}"
            )
        for entry in reversed(chain):
            self.reference.apply(entry.request)
            self.applied.append(entry)
            self._terms.append((entry.term, entry.members or self._terms[-1][1]))

    def applied_term(self, index: int) -> int | None:
        """The term of the entry that was applied at ``index``; None if none was."""
        return self._terms[index][0] if index < len(self._terms) else None

    def problem(self, snapshot: Snapshot) -> str | None:
        """Why this is no snapshot of the log, if so (paper, section 7)."""
        state = self.reference.state_at(snapshot.index)
        if snapshot.index > self.reference.index:
            return "nobody has applied so much"
        term, members = self._terms[snapshot.index]
        if (snapshot.term, snapshot.members) != (term, members):
            return f"its entry is of term {term}, and its members are {members}"
        if state is None:
            return None
        for what, held, wanted in zip(
            ("data", "sessions"), (snapshot.data, snapshot.sessions), state, strict=True
        ):
            if held != wanted:
                return f"its {what} should be {wanted}"
        return None


class _True:
    """What of a node's acknowledgements in ``term`` is known to be true, up to the highest
    ``index`` and ``round``; and what was ``sent`` there since the first of them."""

    __slots__ = ("index", "round", "sent", "term")

    def __init__(self, term: int) -> None:
        self.term = term
        self.index = self.round = -1
        self.sent = Sent()


class _Search:
    """By the leader of ``term``, for the place where the logs meet; it began with a refusal.
    ``before``: what the entries that went there last followed; None: none went yet."""

    __slots__ = ("before", "term")

    def __init__(self, term: int) -> None:
        self.term = term
        self.before: int | None = None


class AcknowledgementsAreTrue(Invariant):
    """What a follower acknowledges is on its disk, with the term, and is the leader's log up to
    there (paper, 5.3: "identical in all preceding entries"; dissertation, 10.2.1, for what may wait
    for the disk). The round that it confirms was begun by that leader in that term. What a leader
    sends ahead of that is within its window, and each message within the limit of a batch; it sends
    nothing again but what was refused, or follows a snapshot. While it looks for the place where
    the logs meet, entries go there once, and again only from an earlier place, until a message is
    acknowledged: refusals of what was under way behind a lost message tell nothing new. Nor does
    it send what it was told is there."""

    name = "what is acknowledged is durable, and the leader's"
    judges: ClassVar = {
        AppendEntriesReply: "on_reply_heard",
        ChangeMembership: "on_change_heard",
    }
    hears: ClassVar = {
        AppendEntries: "on_append",
        AppendEntriesReply: "on_ack",
        InstallSnapshot: "on_chunk",
        InstallSnapshotReply: "on_chunk_reply",
    }

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(RaftChronicle)
        self._asked = scene.common(Asked)
        self._led = scene.common(Led)
        self._last: AppendEntries | None = None
        self._term = self._round = -1
        parameters = scene.parameters
        self._batch = parameters.batch_entries
        # A search for the place where the logs meet may begin behind what was sent.
        self._window = self._batch * (parameters.window_batches + 1)
        self._true = self._chronicle.true
        self._sent: dict[tuple[int, int], int] = {}
        self._searches: dict[str, _Search] = {}
        # By follower: in which term a leader heard of its log, and up to where.
        self._known: dict[str, tuple[int, int]] = {}

    def on_append(self, node: str, dst: str, msg: AppendEntries) -> None:
        """Note the round. Raises InvariantBroken. The same message goes to many."""
        if msg.entries:
            true = self._true.get(dst)
            if true is not None and true.term == msg.term:
                before = msg.prev_index
                if 0 < true.index <= before - self._window:
                    raise InvariantBroken(
                        f"{node} sends {dst} entries after {before}, and has heard of {true.index}"
                        " at most: more than a window"
                    )
                true.sent.send(before, len(msg.entries), dst)
            term, index = self._known.get(dst, (0, 0))
            if msg.prev_index < index and term == msg.term:
                raise InvariantBroken(
                    f"{node} sends {dst} what follows {msg.prev_index}, and has heard in term"
                    f" {term} that it has all up to {index}"
                )
            if dst in self._searches:
                self._check_search(node, dst, msg)
        if msg is self._last:
            return
        self._last = msg
        if len(msg.entries) > self._batch:
            raise InvariantBroken(f"{node} sends {len(msg.entries)} entries, not {self._batch}")
        if msg.round != self._round or msg.term != self._term:
            self._begin(node, msg)

    def _check_search(self, node: str, dst: str, msg: AppendEntries) -> None:
        search = self._searches[dst]
        if search.term != msg.term:
            return
        if search.before is not None and msg.prev_index >= search.before:
            raise InvariantBroken(
                f"{node} sends {dst} what follows {msg.prev_index}, and has sent it what follows"
                f" {search.before} since a refusal, without an acknowledgement of anything"
            )
        search.before = msg.prev_index

    def _begin(self, node: str, msg: AppendEntries | InstallSnapshot) -> None:
        self._term, self._round = msg.term, msg.round
        self._led.begin(self._asked, node, msg.term, msg.round)

    def on_ack(self, node: str, dst: str, msg: AppendEntriesReply) -> None:
        """Raises InvariantBroken."""
        true = self._true.get(node)
        if true is None or true.term != msg.term:
            self._check_term(node, msg.term)
            true = self._true[node] = _True(msg.term)
        index = msg.index
        if not msg.success:
            if msg.conflict_index == 0:
                return  # It refuses an older term, and so confirms nothing.
            true.sent.spare += EACH
        elif index > true.index:
            self._check_log(node, msg)
            true.index = index
        round_ = msg.round
        if round_ > true.round:
            rounds = self._led.rounds.get(msg.term)
            if rounds is None or round_ > rounds.last:
                raise InvariantBroken(f"{node} confirms a round that was not begun: {msg}")
            true.round = round_
            # A chunk's answer, which waits for no disk, may have confirmed a later one before.
            rounds.confirmed[node] = max(round_, rounds.confirmed.get(node, -1))

    def on_reply_heard(
        self, replica: Any, src: str, msg: AppendEntriesReply, sends: Sequence[Send]
    ) -> None:
        """An acknowledgement ends a search, a refusal begins one; and a leader believes of a round
        only what was confirmed in its term. Raises InvariantBroken."""
        if msg.term != replica.term:
            return
        if msg.success:
            if src in self._searches:
                del self._searches[src]
            known = self._known.get(src)
            if known is None or known < (msg.term, msg.index):
                self._known[src] = msg.term, msg.index
            return
        progress = replica._progress.get(src)
        true = self._true.get(src)
        # An older term is refused without a word on the log, and a place that is acknowledged was
        # refused before that.
        if (
            replica.role == "leader"
            and msg.conflict_index > 0
            and true is not None
            and true.term == msg.term
            and msg.index > true.index
        ):
            search = self._searches.get(src)
            if search is None or search.term != msg.term:
                self._searches[src] = _Search(msg.term)
        rounds = self._led.rounds.get(msg.term)
        if progress is None or rounds is None:
            return
        confirmed = rounds.confirmed.get(src, 0)
        if progress.round > confirmed:
            raise InvariantBroken(
                f"{replica.id} takes round {progress.round} of term {msg.term} for confirmed by"
                f" {src}, which has confirmed {confirmed}, after {msg}"
            )

    def on_change_heard(
        self, replica: Any, src: str, msg: ChangeMembership, sends: Sequence[Send]
    ) -> None:
        """Whoever is added is looked for from the end of the log on."""
        self._searches.pop(msg.node, None)
        self._known.pop(msg.node, None)

    def _check_term(self, node: str, term: int) -> None:
        state: HardState = self.scene.disks[node].get("hard_state", HardState(0, None))
        if state.term < term:
            raise InvariantBroken(f"{node} answers in term {term}, and has {state} on disk")

    def _check_log(self, node: str, msg: AppendEntriesReply) -> None:
        index, disk = msg.index, self.scene.disks[node]
        log = self._chronicle.logs.get(msg.term)
        if (
            log is not None
            and log.snapshot_index < index <= log.last_index
            and disk.snapshot_index < index <= disk.last_index
            and log.entry(index) is disk.entry(index)
        ):
            return
        if disk.get("hard_state").term > msg.term or index <= disk.snapshot_index:
            return  # Another leader may have had it replaced since; or it was committed.
        if log is None or log.get("hard_state").term > msg.term:
            return  # Nobody listens any more.
        if index <= log.snapshot_index:
            wanted = self._chronicle.applied_term(index)
        else:
            wanted = log.entry(index).term if index <= log.last_index else None
        held = disk.entry(index).term if index <= disk.last_index else None
        if held is None or held != wanted:
            raise InvariantBroken(
                f"{node} acknowledges entry {index}; it is of term {wanted} in the leader's log up"
                f" to {log.last_index}, and of {held} on disk, in a log up to {disk.last_index}:"
                f" {msg}"
            )

    def on_chunk(self, node: str, dst: str, msg: InstallSnapshot) -> None:
        """Raises InvariantBroken."""
        true = self._true.get(dst)
        if true is not None:
            true.sent.spare += 1
        snapshot = msg.term, msg.index
        self._sent[snapshot] = max(self._sent.get(snapshot, 0), msg.offset + len(msg.data))
        if msg.index > self._chronicle.safe:
            raise InvariantBroken(f"{node} sends a snapshot of entry {msg.index}, not committed")
        self._begin(node, msg)

    def on_chunk_reply(self, node: str, dst: str, msg: InstallSnapshotReply) -> None:
        """Raises InvariantBroken."""
        self._check_term(node, msg.term)
        self._led.confirm(node, msg.term, msg.round)
        sent = self._sent.get((msg.term, msg.index), 0)
        if msg.received > sent:
            raise InvariantBroken(f"{node} has bytes that nobody sent, after {sent}: {msg}")


class VotesStand(Invariant):
    """A vote that leaves is on disk, goes to one candidate in a term, and to one whose log is no
    older (paper, figure 2 and 5.4.1). Who asks for votes has voted for itself, and tells the end of
    its log."""

    name = "a vote that leaves stands"
    hears: ClassVar = {
        RequestVote: "on_request_vote",
        RequestVoteReply: "on_vote",
    }

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        chronicle = scene.common(RaftChronicle)
        self._logs_of_leaders, self._voters = chronicle.logs, chronicle.voters
        self._logs: dict[tuple[int, str], tuple[int, int]] = {}
        self._votes: dict[tuple[int, str], str] = {}

    def on_request_vote(self, node: str, dst: str, msg: RequestVote) -> None:
        """Raises InvariantBroken."""
        disk = self.scene.disks[node]
        state: HardState = disk.get("hard_state", HardState(0, None))
        if state.term < msg.term or (state.term == msg.term and state.vote != node):
            raise InvariantBroken(f"{node} stands in term {msg.term}, and has {state} on disk")
        self._logs[msg.term, node] = msg.last_term, msg.last_index
        index = msg.last_index
        if (
            index < disk.snapshot_index
            or state.term > msg.term
            or msg.term in self._logs_of_leaders
        ):
            return  # A leader may have changed its log since.
        held = stable_term(disk, index) if index <= disk.last_index else None
        if held != msg.last_term or index < disk.last_index:
            raise InvariantBroken(
                f"{node} says that its log ends with entry {index} of term {msg.last_term}; on disk"
                f" it ends with {disk.last_index}, of term {stable_term(disk, disk.last_index)}"
            )

    def on_vote(self, node: str, dst: str, msg: RequestVoteReply) -> None:
        """Raises InvariantBroken."""
        disk = self.scene.disks[node]
        state: HardState = disk.get("hard_state", HardState(0, None))
        if state.term < msg.term or (msg.granted and state.term == msg.term and state.vote != dst):
            raise InvariantBroken(f"{node} sends {msg} to {dst}, and has {state} on disk")
        if not msg.granted:
            return
        voted = self._votes.setdefault((msg.term, node), dst)
        if voted != dst:
            raise InvariantBroken(f"{node} votes for {voted} and for {dst} in term {msg.term}")
        self._voters.setdefault((msg.term, dst), {dst}).add(node)
        if state.term > msg.term or msg.term in self._logs_of_leaders:
            return  # A leader may have changed its log since.
        last = stable_term(disk, disk.last_index), disk.last_index
        log = self._logs.get((msg.term, dst))
        if log is None or log < last:
            raise InvariantBroken(
                f"{node} votes for {dst} in term {msg.term}, whose log ends with (term, index)"
                f" {log}, and has {last} itself"
            )


class RaftMessagesAreBounded(MessagesAreBounded):
    """See `MessagesAreBounded`. And a chunk of a snapshot has no more than
    ``snapshot_chunk_bytes``."""

    carries: ClassVar = {**MessagesAreBounded.carries, AppendEntries: "entries"}
    hears: ClassVar = {
        **dict.fromkeys(carries, "on_message"),
        AppendEntries: "on_entries",
        InstallSnapshot: "on_chunk",
    }

    def on_entries(self, node: str, dst: str, msg: AppendEntries) -> None:
        """Raises InvariantBroken. Most of them are heartbeats, or have one."""
        if len(msg.entries) > 1:
            self.on_message(node, dst, msg)

    def on_chunk(self, node: str, dst: str, msg: InstallSnapshot) -> None:
        """Raises InvariantBroken."""
        most: int = self.scene.parameters.snapshot_chunk_bytes
        if len(msg.data) > most:
            raise InvariantBroken(
                f"{node} sends {dst} a chunk of {len(msg.data)} bytes, where {most} are allowed"
            )


class RaftSnapshotsAnswer(SnapshotsAnswer):
    """See `SnapshotsAnswer`."""

    judges: ClassVar = {InstallSnapshot: "on_snapshot"}
    mark = "install_snapshot"


class RaftDisksHoldUpLittle(DisksHoldUpLittle):
    """See `DisksHoldUpLittle`."""

    holds: ClassVar = {
        AppendEntriesReply: "on_wait",
        InstallSnapshotReply: "on_wait",
        Reply: "on_reply_waits",
    }

    def on_wait(self, node: str, dst: str, msg: AppendEntriesReply | InstallSnapshotReply) -> None:
        """Raises InvariantBroken. Most that waits tells of what has just been written."""
        if type(msg) is InstallSnapshotReply or msg.index <= self.scene.disks[node].last_index:
            super().on_wait(node, dst, msg)

    def is_durable(self, replica: Any, disk: Disk, dst: str, msg: Any) -> bool:
        """See `DisksHoldUpLittle`."""
        match = msg.index if type(msg) is AppendEntriesReply and msg.success else 0
        if match > disk.last_index or disk.snapshot_index != replica.disk.snapshot_index:
            return False
        if match > disk.snapshot_index and disk.entry(match).term != replica.term_at(match):
            return False
        state: HardState = disk.get("hard_state", HardState(0, None))
        return (state.term, state.vote) == (replica.term, replica.vote)


class _Transfer:
    """Of the snapshot of entry ``index``, by the leader of ``term``. ``taken``: some of it was;
    ``over``: the follower had nothing of it."""

    __slots__ = ("index", "over", "taken", "term")

    def __init__(self, term: int, index: int) -> None:
        self.term = term
        self.index = index
        self.taken = self.over = False


class TransfersGoOn(Invariant):
    """A snapshot of which a follower has taken a part is brought to its end, though there is a
    newer one by then: where snapshots are taken faster than they travel no transfer would ever end.
    A follower that has nothing of it any more, for it was restarted, may get the newer one (Ongaro,
    dissertation, 5.1; Raft paper, section 7)."""

    name = "a transfer goes on with its snapshot"
    hears: ClassVar = {InstallSnapshot: "on_chunk", InstallSnapshotReply: "on_part"}
    judges: ClassVar = {ChangeMembership: "on_change_heard"}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._true = scene.common(RaftChronicle).true
        # By follower and leader.
        self._begun: dict[tuple[str, str], _Transfer] = {}

    def on_chunk(self, node: str, dst: str, msg: InstallSnapshot) -> None:
        """Raises InvariantBroken."""
        begun = self._begun.get((dst, node))
        if begun is not None and (begun.term, begun.index) == (msg.term, msg.index):
            return
        if (
            begun is not None
            and begun.term == msg.term
            and begun.taken
            and not begun.over
            and not self._has(dst, msg.term, begun.index)
        ):
            raise InvariantBroken(
                f"{node} sends {dst} the snapshot of entry {msg.index}; it has a part of that of"
                f" entry {begun.index}"
            )
        self._begun[dst, node] = _Transfer(msg.term, msg.index)

    def on_change_heard(
        self, replica: Any, src: str, msg: ChangeMembership, sends: Sequence[Send]
    ) -> None:
        """Whoever is added is a new one, though it was a member before."""
        self._begun.pop((msg.node, replica.id), None)

    def on_part(self, node: str, dst: str, msg: InstallSnapshotReply) -> None:
        """So much was taken."""
        begun = self._begun.get((node, dst))
        if begun is not None and (begun.term, begun.index) == (msg.term, msg.index):
            begun.taken = begun.taken or msg.received > 0
            begun.over = begun.over or msg.received == 0

    def _has(self, node: str, term: int, index: int) -> bool:
        """Whether it acknowledged as much, perhaps before: an answer may come late. Of whoever is
        in a later term by now it is not known."""
        true = self._true.get(node)
        return true is not None and (true.term, true.index) >= (term, index)


class RaftRequestsAreProposed(RequestsAreProposed):
    """See `RequestsAreProposed`."""

    records = RaftChronicle
    judges: ClassVar = {**RequestsAreProposed.judges, TransferLeadership: "on_handover"}

    def is_given_up(self, replica: Any) -> bool:
        """See `RequestsAreProposed`."""
        return replica._transferee is not None

    def leadership(self, replica: Any) -> Any:
        """See `RequestsAreProposed`."""
        return replica.term


class RaftAnswers(AnswersAreTrue):
    """See `AnswersAreTrue`. With stale reads a node answers from what it has applied: that claims
    only not to go back, over its crashes either, so that what it shows it has on disk."""

    records = RaftChronicle

    def claimed(self, parameters: Any) -> tuple[bool, bool]:
        """See `AnswersAreTrue`."""
        return not parameters.stale_reads, not parameters.stale_reads

    def on_reply(self, node: str, request: Request, reply: Reply) -> None:
        """Raises InvariantBroken."""
        super().on_reply(node, request, reply)
        durable, shown = self.scene.disks[node].last_index, self._shown.get(node, 0)
        if shown > durable:
            raise InvariantBroken(
                f"{node} answers {request} with {reply}; its disk ends with entry {durable}"
            )


def stable_term(disk: Disk, index: int) -> int:
    """Term of the entry at ``index`` of a disk that nobody runs on."""
    if index == disk.snapshot_index:
        return 0 if disk.snapshot is None else int(disk.snapshot.term)
    return int(disk.entry(index).term)


def deciding(
    disk: Disk, nodes: tuple[str, ...], last: int | None = None
) -> tuple[tuple[str, ...], ...]:
    """The memberships of which a majority of any elects and commits, by the log on ``disk``: the
    last one, and the one before unless that is the same (`nodes.protocols.raft.replica`).
    ``nodes``: the members where nobody ever changed them. ``last``: by the log up to there."""
    known = [nodes if disk.snapshot is None else tuple(disk.snapshot.members)]
    last = disk.last_index if last is None else last
    entries = disk.entries(disk.first_index, max(disk.first_index, last + 1))
    known += [entry.members for entry in entries if entry.members is not None]
    return tuple(dict.fromkeys(known[-2:]))


def has_majority(nodes: Collection[str], memberships: tuple[tuple[str, ...], ...]) -> bool:
    """Whether ``nodes`` are a majority of one that decides."""
    return any(outnumber(nodes, members) for members in memberships)
