"""Raft: a leader replicates a log to a majority of the members.

Sources: D. Ongaro and J. Ousterhout, "In Search of an Understandable Consensus Algorithm" (extended
version, 2014), here *paper*; D. Ongaro, "Consensus: Bridging Theory and Practice" (2014), here
*dissertation*; C. Lee et al., "Implementing Linearizability at Large Scale and Low Latency" (RIFL,
2015).

Theory of operation
-------------------
A step takes in a whole batch of inputs. Handlers only change what this node knows; what follows
from it is done once, in `end_step`: commit, apply, answer, append what clients asked for, and one
message to each node. So a batch of a thousand requests costs one message per follower and one
fsync.

*Durability.* What a node sends waits for the writes made before, except:

- `AppendEntries` of a leader, which may overtake its own disk. The leader's own copy of an entry
  counts towards the majority only when it is durable (`durable_index`).
- an acknowledgement whose claims (this term, the log up to this index) are durable already, though
  later writes are not. A slow disk therefore does not silence a node that has nothing new to
  promise.
- answers to clients: they tell of committed entries and of confirmed reads.

*Reads* take no log entry: the leader notes its commit index, confirms with one round of messages
that it still leads, and answers from the applied state (ReadIndex, dissertation 6.4). All reads of
a step share a round, and rounds overlap.

With ``stale_reads`` each node answers them from what it has applied. What it shows of that never
goes back, not by a crash either: it shows only what is durable, so that after a restart it may have
shown all of its log, and until so much is committed again its reads go to the leader. The leader
may be ahead of the node that asked it; its own clients wait until its own disk has what it read.

*Requests* are kept where they arrived and are handed to the leader until an answer is known
(`nodes.parts.forwarding`). The state machine applies each (client, sequence) once
(`nodes.parts.replicated_map`), so handing on twice is safe.

*Losses.* A heartbeat is an `AppendEntries` behind all that was sent. Where something is missing it
is refused, and the refusal says where to go on. No other retransmission exists, except for
snapshots.

*A snapshot* travels in chunks, the next one when the last one was acknowledged. Heartbeats are then
`InstallSnapshot` without data, behind the chunk: the answer to one tells whether the chunk arrived.
If it did not, the next heartbeat brings it again. The follower assembles the chunks in memory, so
after a crash of either side, or of its leadership, the transfer begins again. A leader that takes a
newer snapshot meanwhile finishes with the one that it began with; or a transfer that takes longer
than a snapshot lasts would never end.

*Membership* changes one node at a time (dissertation 4.1), and here each change is two entries. The
first, C', names the new members; the second, written when the first is committed, names them again
and confirms it. Between the two, a majority of *either* the old members C or of C' elects and
commits. The paper lets C' alone decide as soon as it is in a log; then one leader that crashed with
C' in nobody's log but its own can leave a majority of C without a leader for ever, since the others
need its vote, and it needs theirs. Why this is safe:

1. Any majority of C meets any majority of C', since they differ by one node. So all the quorums
   that count between the two entries meet each other, and those that count before or after.
2. Quorums two changes apart need not meet. A leader therefore begins the next change only when the
   confirmation is committed, by a majority of C'. That majority meets every majority of C and of
   C', and it votes for nobody whose log lacks the confirmation: whoever does not know that C is
   past can no longer be elected.
3. Two rival changes of the same C: a leader begins one only after it has committed an entry of its
   own term (Ongaro's note of 2015), which shuts out the older rival as in 2.

So every majority of the members that were committed last can go on, whoever crashed. A node stands
for election while one of the memberships that count names it (dissertation 4.2.2: it may still be
needed); its own vote counts only in those. A removed leader leads until the confirmation is
committed. No snapshot is taken between the two entries, so a snapshot's members are confirmed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec

from nodes.contract.bounds import BadMessage, check_reach
from nodes.contract.disk import Disk
from nodes.contract.replica import (
    Config,
    Env,
    Parameters,
    Replica,
    Reply,
    Request,
    Value,
    Version,
)
from nodes.parts.claims import RefusalsStay
from nodes.parts.forwarding import Forward, Forwarded, Requests, batches, request_bytes
from nodes.parts.quorum import is_majority, reached_by_majority
from nodes.parts.replicated_map import ReplicatedMap
from nodes.protocols.raft.claims import (
    AcknowledgementsAreTrue,
    RaftAnswers,
    RaftDisksHoldUpLittle,
    RaftMessagesAreBounded,
    RaftRequestsAreProposed,
    RaftSnapshotsAnswer,
    TransfersGoOn,
    VotesStand,
)
from nodes.protocols.raft.election_claims import ElectionsAreDue
from nodes.protocols.raft.invariants import (
    CommitIsSafe,
    Durability,
    ElectionSafety,
    ElectionsAreWon,
    LeaderCompleteness,
    LogMatching,
    MembersAreTheLogs,
    StateMachineSafety,
)
from nodes.protocols.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    ChangeMembership,
    Entry,
    HardState,
    InstallSnapshot,
    InstallSnapshotReply,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
    Snapshot,
    TimeoutNow,
    TransferLeadership,
)
from nodes.protocols.raft.parameters import RaftParameters
from nodes.protocols.raft.progress import PROBE, SNAPSHOT, Incoming, Outgoing, Progress

Role = Literal["follower", "candidate", "leader"]


_encode_snapshot = msgspec.msgpack.Encoder().encode


_decode_snapshot = msgspec.msgpack.Decoder(Snapshot).decode


class Raft(Replica):
    """One Raft node. Public attributes are read by the invariants and by tests, never written."""

    # What each step reads. CPython keeps more than 30 attributes of an object in a slower way.
    __slots__ = (
        *("role", "term", "vote", "leader", "commit", "applied", "durable_index"),
        *(
            "_durable_position",
            "_hard_state_position",
            "_unsynced",
            "_memberships",
            "deciding",
            "_progress",
        ),
        *("_requests", "_map", "_proposed", "_reads", "_rounds", "_unshown"),
        *(
            "_acknowledged",
            "_confirmed",
            "_contact_all",
            "_more_to_send",
            "_offered",
            "_ack",
            "_joining",
            "_transferee",
        ),
    )

    MESSAGES = (
        PreVote,
        PreVoteReply,
        RequestVote,
        RequestVoteReply,
        AppendEntries,
        AppendEntriesReply,
        InstallSnapshot,
        InstallSnapshotReply,
        Forward,
        Forwarded,
        TimeoutNow,
        TransferLeadership,
        ChangeMembership,
    )
    EARLY = (AppendEntries, InstallSnapshot, TimeoutNow, Forward, Forwarded)
    RECORDS = (HardState, Entry, Snapshot)
    INVARIANTS = (
        ElectionSafety,
        LogMatching,
        LeaderCompleteness,
        StateMachineSafety,
        Durability,
        CommitIsSafe,
        ElectionsAreWon,
        MembersAreTheLogs,
        VotesStand,
        ElectionsAreDue,
        AcknowledgementsAreTrue,
        RaftAnswers,
        RaftDisksHoldUpLittle,
        RefusalsStay,
        RaftMessagesAreBounded,
        RaftRequestsAreProposed,
        RaftSnapshotsAnswer,
        TransfersGoOn,
    )
    WATCHED = (
        *("disk.position", "durable_position", "durable_index"),
        *("commit", "applied", "term", "vote", "role"),
    )
    PARAMETERS: ClassVar[type[Parameters]] = RaftParameters

    def __init__(self, config: Config, env: Env, disk: Disk) -> None:
        super().__init__(config, env, disk)
        assert isinstance(config.parameters, RaftParameters)
        self.parameters = config.parameters

        hard_state: HardState = disk.get("hard_state", HardState(0, None))
        self.role: Role = "follower"
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.leader: str | None = None
        self._votes: set[str] = set()
        self._pre_votes: set[str] | None = None

        # Durability: which index each write brings to disk.
        self.durable_index = disk.last_index
        self._durable_position = disk.position
        self._hard_state_position = disk.position
        self._unsynced: deque[tuple[int, int]] = deque()
        self.truncated: list[int] = []

        # The state machine.
        self.commit = self.applied = 0
        self._snapshot_term = 0
        self._map = ReplicatedMap(self.parameters.client_entries, self.parameters.client_replies)
        self._memberships: list[tuple[int, tuple[str, ...]]] = [(0, config.nodes)]
        self.deciding: tuple[tuple[str, ...], ...] = (config.nodes,)
        self._next_snapshot: Snapshot | None = None
        if disk.snapshot is not None:
            self._restore(disk.snapshot)
        for index in range(disk.first_index, disk.last_index + 1):
            members = disk.entry(index).members
            if members is not None:
                self._add_membership(index, members)
        # A restarted node has applied less than it had: no stale reads before it caught up. It has
        # shown no more than was durable.
        self._shown = disk.last_index
        self._caught_up = self._shown == 0

        self._requests = Requests(self.id, disk, self.out, self.parameters)

        # Leaders only.
        self._progress: dict[str, Progress] = {}
        self._proposed: dict[tuple[str, int], str] = {}
        self._reads: list[tuple[Request, str]] = []
        self._rounds: deque[tuple[int, int, list[tuple[Request, str]]]] = deque()
        # With stale reads: answers that wait until the log up to an index is durable here.
        self._unshown: deque[tuple[int, Reply]] = deque()
        self._round = 0
        self._confirmed = False
        self._ready = False
        self._acknowledged = False
        # Whether `_replicate` has something to do: followers to whom entries are still to go, or
        # all up to the last index that it saw.
        self._contact_all = self._more_to_send = False
        self._offered = 0
        self._window = self.parameters.window_batches * self.parameters.batch_entries
        self._joining: str | None = None
        self._transferee: str | None = None
        # Followers only: the acknowledgement that ends this step, and a snapshot that is arriving.
        self._ack: tuple[str, int, int] | None = None
        self._incoming: Incoming | None = None

        self._heard_at_s = env.now()
        self._election_timeout_s = 0.0
        self._set_election_timer()

    # --- what the log says ---

    @property
    def members(self) -> tuple[str, ...]:
        """The last membership in the log, committed or not."""
        return self._memberships[-1][1]

    def _add_membership(self, index: int, members: tuple[str, ...]) -> None:
        self._memberships.append((index, members))
        self._set_deciding()

    def _set_deciding(self) -> None:
        last = self._memberships[-1][1]
        before = self._memberships[-2][1] if len(self._memberships) > 1 else last
        self.deciding = (last,) if last == before else (before, last)

    @property
    def hard_state_is_durable(self) -> bool:
        """Whether the present term and vote survive a crash."""
        return self._hard_state_position <= self._durable_position

    def term_at(self, index: int) -> int:
        """Term of the entry at ``index``; 0 before the first."""
        if index == self.disk.snapshot_index:
            return self._snapshot_term
        term: int = self.disk.entry(index).term
        return term

    def _last(self) -> tuple[int, int]:
        """(term, index) of the last entry: logs compare like this (paper, 5.4.1)."""
        index = self.disk.last_index
        return self.term_at(index), index

    def _append(self, entry: Entry) -> int:
        index = self.disk.append(entry)
        if entry.members is not None:
            self._add_membership(index, entry.members)
        return index

    def _truncate(self, index: int) -> None:
        assert index > self.commit, f"entry {index} is committed (up to {self.commit})"
        self.disk.truncate(index)
        self.truncated.append(index)
        while self._memberships[-1][0] >= index:
            self._memberships.pop()
        self._set_deciding()
        self._limit_durable(index - 1)
        self._shown = min(self._shown, index - 1)  # What goes was never committed.

    def _limit_durable(self, index: int) -> None:
        """What is durable above ``index`` is no longer what the log says there."""
        self.durable_index = min(self.durable_index, index)
        self._unsynced = deque((position, min(i, index)) for position, i in self._unsynced)

    def _save_hard_state(self, term: int, vote: str | None) -> None:
        assert term > self.term or (term == self.term and self.vote in (None, vote))
        self.term = term
        self.vote = vote
        self.disk.put("hard_state", HardState(term, vote))
        self._hard_state_position = self.disk.position

    def on_durable(self, position: int) -> None:
        self._durable_position = max(self._durable_position, position)
        unsynced = self._unsynced
        while unsynced and unsynced[0][0] <= position:
            self.durable_index = max(self.durable_index, unsynced.popleft()[1])
            self._acknowledged = True
        while self._unshown and self._unshown[0][0] <= self.durable_index:
            self._requests.answer_here(self._unshown.popleft()[1])
        if self.role == "candidate" and self.hard_state_is_durable and self._has_won():
            self.become_leader()

    # --- roles ---

    def _set_election_timer(self) -> None:
        low, high = self.parameters.election_timeout_min_s, self.parameters.election_timeout_max_s
        self._election_timeout_s = self.env.rng.uniform(low, high)
        self.out.set_timer("election", self._election_timeout_s)

    def _check_leads(self, src: str, term: int) -> None:
        """Raises BadMessage where ``src`` cannot lead ``term``: another one does."""
        if term == self.term and self.leader is not None and self.leader != src:
            raise BadMessage(f"{self.leader} leads term {term}")

    def _heard(self, leader: str) -> None:
        """A message of the present term's leader came."""
        assert self.role != "leader", f"{leader} leads term {self.term} as well"
        self._heard_at_s = self.env.now()
        self._pre_votes = None
        if self.role == "candidate":
            self.become_follower(self.term, leader)
        elif self.leader != leader:
            self.leader = leader
            self._requests.offer_again = True
            self.out.mark("follow", term=self.term, leader=leader)

    def become_follower(self, term: int, leader: str | None = None) -> None:
        """Of a newer term, or of the present one."""
        check_reach("term", term, self.term, self.env.wall)
        if self.role == "leader":
            self.out.cancel_timer("heartbeat")
            self.out.cancel_timer("quorum")
            self.out.cancel_timer("transfer")
            self._progress = {}
            self._proposed = {}
            self._reads = []
            self._rounds.clear()
            self._joining = self._transferee = None
            self._ready = False
            self._heard_at_s = self.env.now()
            self._set_election_timer()
        if term > self.term:
            self._save_hard_state(term, None)
        self.role = "follower"
        self.leader = leader
        self._votes = set()
        self._pre_votes = None
        self._ack = self._incoming = None
        self._requests.offer_again = leader is not None
        self.out.mark("become_follower", term=term, leader=leader)

    def _ask_pre_votes(self) -> None:
        """No leader is heard: ask whether an election could be won, without disturbing anybody."""
        if self.role == "candidate":
            self.become_follower(self.term)
        self.leader = None
        self._set_election_timer()
        self._pre_votes = {self.id}
        self.out.mark("ask_pre_votes", term=self.term + 1)
        if self._is_majority(self._pre_votes):
            self.become_candidate()
            return
        last_term, last_index = self._last()
        for peer in self._others():
            self.out.send(peer, PreVote(self.term + 1, last_index, last_term))

    def become_candidate(self) -> None:
        """Stand for election in the next term (paper, 5.2)."""
        assert self.role != "leader"
        self.role = "candidate"
        self.leader = None
        self._pre_votes = None
        self._ack = self._incoming = None
        self._save_hard_state(self.term + 1, self.id)
        self._votes = {self.id}
        self._set_election_timer()
        self.out.mark("become_candidate", term=self.term)
        # Where it is the only member, its own vote decides once it is durable (`on_durable`).
        last_term, last_index = self._last()
        for peer in self._others():
            self.out.send(peer, RequestVote(self.term, last_index, last_term))

    def become_leader(self) -> None:
        """Lead the present term, beginning with a no-op: entries of older terms commit with it."""
        assert self.role == "candidate"
        assert self.vote == self.id
        assert self._has_won()
        assert self.hard_state_is_durable, "a vote that can be forgotten elects nobody"
        self.role = "leader"
        self.leader = self.id
        self._progress = {peer: Progress(self.disk.last_index + 1) for peer in self._others()}
        self._append(Entry(self.term))
        self._contact_all = self._requests.offer_again = True
        self.out.cancel_timer("election")
        self.out.set_timer("heartbeat", self.parameters.heartbeat_s)
        self.out.set_timer("quorum", self.parameters.election_timeout_max_s)
        self.out.mark("become_leader", term=self.term, votes=len(self._votes))

    def _has_won(self) -> bool:
        return self._is_majority(self._votes)

    def _others(self) -> list[str]:
        """All other nodes whose vote may count."""
        voters = dict.fromkeys(member for members in self.deciding for member in members)
        return [member for member in voters if member != self.id]

    def _may_stand(self) -> bool:
        return any(self.id in members for members in self.deciding)

    def _is_majority(self, nodes: set[str]) -> bool:
        """Whether they are a majority of a membership that decides."""
        return any(is_majority(nodes, members) for members in self.deciding)

    def _reached_by_majority(self, own: int, field: Literal["match", "round"]) -> int:
        """The highest value that a majority of a membership that decides has reached."""
        return max(self._reached_by(members, own, field) for members in self.deciding)

    def _reached_by(
        self, members: tuple[str, ...], own: int, field: Literal["match", "round"]
    ) -> int:
        """The highest value that a majority of ``members`` has reached."""
        me, progress = self.id, self._progress
        if field == "match":
            values = [own if member == me else progress[member].match for member in members]
        else:
            values = [own if member == me else progress[member].round for member in members]
        return reached_by_majority(values)

    # --- timers ---

    def on_timer(self, name: str) -> None:
        if name == "election":
            self._on_election_timer()
        elif name == "requests":
            self._requests.on_timer()
        else:
            self._on_leaders_timer(name)

    def _on_leaders_timer(self, name: str) -> None:
        assert self.role == "leader", f"{name} was cancelled"
        if name == "heartbeat":
            self.out.set_timer("heartbeat", self.parameters.heartbeat_s)
            self._contact_all = True
            self._send_missing_chunks()
        elif name == "quorum":
            self._on_quorum_timer()
        else:
            assert name == "transfer"
            self._end_transfer("timeout")

    def _on_election_timer(self) -> None:
        assert self.role != "leader", "it was cancelled"
        # Being told by the leader only notes the time; the timer, when it fires, waits for the
        # rest. A clock that jumped costs a round of pre-votes, no more.
        waited_s = self.env.now() - self._heard_at_s
        rest_s = self._election_timeout_s - waited_s
        if self.role == "follower" and self._pre_votes is None and waited_s >= 0 and rest_s > 0.001:
            self.out.set_timer("election", rest_s)
        elif self._may_stand():
            self._ask_pre_votes()
        else:
            self._set_election_timer()

    def _on_quorum_timer(self) -> None:
        """Step down unless a majority was heard since the last time (dissertation 6.2)."""
        self.out.set_timer("quorum", self.parameters.election_timeout_max_s)
        heard = {self.id}
        for node, progress in self._progress.items():
            if progress.active:
                heard.add(node)
            elif node == self._joining:
                self.out.mark("refuse", reason=f"{node} does not catch up")
                self._joining = None
            progress.active = False
        if not self._is_majority(heard):
            self.out.mark("lost_majority", term=self.term)
            self.become_follower(self.term)

    # --- elections ---

    def on_pre_vote(self, src: str, m: PreVote) -> None:
        hears_leader = self.role == "leader" or (
            self.leader is not None
            and 0 <= self.env.now() - self._heard_at_s < self.parameters.election_timeout_min_s
        )
        granted = (
            m.term > self.term and not hears_leader and (m.last_term, m.last_index) >= self._last()
        )
        self.out.send(src, PreVoteReply(m.term if granted else self.term, granted))

    def on_pre_vote_reply(self, src: str, m: PreVoteReply) -> None:
        if not m.granted:
            if m.term > self.term:
                self.become_follower(m.term)
        elif self._pre_votes is not None and m.term == self.term + 1:
            self._pre_votes.add(src)
            if self._is_majority(self._pre_votes):
                self.become_candidate()

    def on_request_vote(self, src: str, m: RequestVote) -> None:
        if m.term > self.term:
            self.become_follower(m.term)
        granted = (
            m.term == self.term
            and self.vote in (None, src)
            and (m.last_term, m.last_index) >= self._last()
        )
        if granted:
            assert self.role != "leader"
            if self.vote is None:
                self._save_hard_state(self.term, src)
            self._heard_at_s = self.env.now()
        self.out.send(src, RequestVoteReply(self.term, granted))

    def on_request_vote_reply(self, src: str, m: RequestVoteReply) -> None:
        if m.term > self.term:
            self.become_follower(m.term)
        elif m.term == self.term and m.granted and self.role == "candidate":
            if not self.hard_state_is_durable:
                raise BadMessage("a vote that was not asked for yet")
            self._votes.add(src)
            if self._has_won():
                self.become_leader()

    def on_timeout_now(self, src: str, m: TimeoutNow) -> None:
        if m.term == self.term and self.role != "leader" and self._may_stand():
            self.become_candidate()

    # --- replication: the follower ---

    def on_append_entries(self, src: str, m: AppendEntries) -> None:
        if m.term < self.term:
            self._refuse(src, m)
            return
        self._check_leads(src, m.term)
        prev, entries = m.prev_index, m.entries
        if entries:
            self._check_entries(m)
        if m.term > self.term:
            self.become_follower(m.term, src)
        self._heard(src)
        disk = self.disk
        if prev > disk.last_index:
            self._refuse(src, m, 0, disk.last_index + 1)
            return
        if prev < disk.snapshot_index:
            # What the snapshot covers is committed, so it is what the leader has.
            entries = entries[disk.snapshot_index - prev :]
            prev = min(disk.snapshot_index, prev + len(m.entries))
        elif self.term_at(prev) != m.prev_term:
            conflict_term = self.term_at(prev)
            indices = range(disk.first_index, prev)  # Terms never fall from one to the next.
            first = disk.first_index + bisect_left(indices, conflict_term, key=self.term_at)
            self._refuse(src, m, conflict_term, first)
            return
        match = prev + len(entries)
        if prev != disk.last_index:
            entries = self._new_entries(prev, entries)
        for entry in entries:
            self._append(entry)
        commit = min(m.commit, match)
        if commit > self.commit:
            self.commit = commit
            # All that the leader had committed, not only what fits this message; and it may be an
            # old copy of one.
            self._caught_up = self._caught_up or (
                commit == m.commit and self.term_at(commit) == self.term and commit >= self._shown
            )
            if self._incoming is not None and self._incoming.index <= commit:
                self._incoming = None
        ack = self._ack
        if ack is not None:
            match, round_ = max(match, ack[2]), max(m.round, ack[1])
            self._ack = (src, round_, match)
        else:
            self._ack = (src, m.round, match)

    def _check_entries(self, m: AppendEntries) -> None:
        """Raises BadMessage for entries that no leader of that term has."""
        term = m.prev_term
        for entry in m.entries:
            if entry.term < term:
                raise BadMessage(f"terms fall from {term} to {entry.term}")
            term = entry.term
            if entry.members is not None:
                self._check_members(entry.members)
        if term > m.term:
            raise BadMessage(f"an entry of term {term}, from a leader of term {m.term}")

    def _check_members(self, members: tuple[str, ...]) -> None:
        if not members or len(set(members)) < len(members) or not set(members) <= self._members:
            raise BadMessage(f"members {members}, of the nodes {self.config.nodes}")

    def _new_entries(self, prev: int, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """What the log does not hold yet. A conflicting suffix of the log goes; entries that agree
        stay, for the message may be an old one (paper, 5.3)."""
        for offset, entry in enumerate(entries):
            index = prev + 1 + offset
            if index > self.disk.last_index:
                return entries[offset:]
            if self.term_at(index) != entry.term:
                if index <= self.commit:
                    raise BadMessage(f"entry {index} is committed, in another term")
                self._truncate(index)
                return entries[offset:]
        return ()

    def _refuse(
        self, src: str, m: AppendEntries, conflict_term: int = 0, conflict_index: int = 0
    ) -> None:
        self.out.send(
            src,
            AppendEntriesReply(
                self.term, m.round, False, m.prev_index, conflict_term, conflict_index
            ),
            early=self.hard_state_is_durable,
        )

    def on_install_snapshot(self, src: str, m: InstallSnapshot) -> None:
        if m.term < self.term:
            reply = AppendEntriesReply(self.term, m.round, False, 0)
            self.out.send(src, reply, early=self.hard_state_is_durable)
            return
        self._check_leads(src, m.term)
        check_reach("index", m.index, self.disk.last_index, self.env.wall)
        if m.term > self.term:
            self.become_follower(m.term, src)
        self._heard(src)
        if m.index > self.commit:
            self._take_chunk(m)
        if m.index <= self.commit:
            self._incoming = None
            reply = AppendEntriesReply(self.term, m.round, True, self.commit)
            self.out.send(src, reply, early=self._has_durably(self.commit))
            return
        incoming = self._incoming
        if incoming is not None and incoming.index == m.index:
            received = len(incoming.data)
            self.out.send(
                src,
                InstallSnapshotReply(self.term, m.round, m.index, m.offset, received),
                early=self.hard_state_is_durable,
            )

    def _take_chunk(self, m: InstallSnapshot) -> None:
        """Install the snapshot if this chunk completes it. A chunk that does not follow the last
        one is not taken: it is an old one, or one is missing before it."""
        incoming = self._incoming
        if incoming is None or incoming.index < m.index:
            incoming = self._incoming = Incoming(m.term, m.index)
        # Another term would have ended it: two leaders may encode one state differently.
        assert incoming.term == m.term
        if incoming.index != m.index or len(incoming.data) != m.offset:
            return
        incoming.data += m.data
        if m.done:
            self._incoming = None
            self._install(self._decoded_snapshot(incoming.data, m))

    def _decoded_snapshot(self, data: bytearray, m: InstallSnapshot) -> Snapshot:
        """Raises BadMessage."""
        try:
            snapshot = _decode_snapshot(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise BadMessage(f"no snapshot: {error}") from None
        if snapshot.index != m.index or snapshot.term > m.term:
            raise BadMessage(f"a snapshot of entry {snapshot.index} of term {snapshot.term}")
        self._check_members(snapshot.members)
        return snapshot

    def _install(self, snapshot: Snapshot) -> None:
        disk = self.disk
        index = snapshot.index
        # What was durable above the commit index may be another leader's.
        self._limit_durable(self.commit)
        if index < disk.last_index and self.term_at(index) != snapshot.term:
            # Before the log is compacted, never after: a crash in between leaves a log that once
            # was.
            self._truncate(index + 1)
        disk.compact(index, snapshot)
        kept = [(i, members) for i, members in self._memberships if i > index]
        self._restore(snapshot)
        self._memberships += kept
        self._set_deciding()
        self._caught_up = self._caught_up or index >= self._shown
        self._next_snapshot = None
        self._unsynced.append((disk.position, disk.last_index))
        self._answer_from_map()
        self.out.mark("install_snapshot", index=index)

    # --- replication: the leader ---

    def _heard_from(
        self, src: str, m: AppendEntriesReply | InstallSnapshotReply
    ) -> Progress | None:
        """What this leader knows of the follower that answered; None: the answer is none for it."""
        if m.term > self.term:
            self.become_follower(m.term)
            return None
        progress = self._progress.get(src)
        if m.term < self.term or progress is None:
            return None
        if m.round > self._round:
            raise BadMessage(f"round {m.round} is still to come")
        progress.active = True
        if m.round > progress.round:
            progress.round = m.round
            self._confirmed = True
        return progress

    def on_append_entries_reply(self, src: str, m: AppendEntriesReply) -> None:
        if m.term == self.term and not m.success and m.conflict_index == 0:
            # It refuses an older term. Its round and index are of a time when this node led another
            # term, perhaps before a crash.
            return
        progress = self._heard_from(src, m)
        if progress is None:
            return
        if m.index > self.disk.last_index:
            raise BadMessage(f"entry {m.index} is still to come")
        if not m.success:
            self._on_refusal(progress, m)
            return
        if progress.acknowledge(m.index):
            self._acknowledged = True
        if progress.next <= self.disk.last_index:
            self._more_to_send = True

    def _on_refusal(self, progress: Progress, m: AppendEntriesReply) -> None:
        """Something is missing there. Go on where the logs may meet (paper, 5.3)."""
        self._more_to_send = True
        refused = m.index
        if refused <= progress.match or progress.state is SNAPSHOT:
            return
        if progress.state is PROBE and refused != progress.next - 1:
            return
        following = m.conflict_index
        if m.conflict_term:
            index, compacted = min(refused, self.disk.last_index), self.disk.snapshot_index
            if index > compacted:
                indices = range(compacted + 1, index + 1)
                index = compacted + bisect_right(indices, m.conflict_term, key=self.term_at)
            # What was refused may be compacted since: then a snapshot goes there.
            if index >= compacted and self.term_at(index) == m.conflict_term:
                following = index + 1
        # A refusal that comes late is of a place that the search has left: it never moves on.
        following = min(following, refused, progress.next)
        progress.become_probe(max(progress.match + 1, following))

    def _replicate(self) -> None:
        """One message to each follower for which there is something new, or to all of them."""
        contact_all, self._contact_all = self._contact_all, False
        disk = self.disk
        last = self._offered = disk.last_index
        self._more_to_send = False
        made: dict[tuple[int, bool], AppendEntries] = {}
        for peer, progress in self._progress.items():
            following = progress.next
            if following <= disk.snapshot_index and progress.snapshot is None:
                self._begin_snapshot(progress)
            if progress.snapshot is not None:
                if contact_all or not progress.snapshot.sent:
                    self._send_chunk(peer, progress.snapshot)
            elif progress.state is PROBE:
                if not progress.probed:
                    progress.probed = True
                    self._send_append(peer, following, made, with_entries=True)
                elif contact_all:
                    self._send_append(peer, following, made, with_entries=False)
            elif following <= last and following - progress.match <= self._window:
                progress.next += self._send_append(peer, following, made, with_entries=True)
                if progress.next <= last:
                    self._more_to_send = True
            elif contact_all:
                self._send_append(peer, following, made, with_entries=False)

    def _begin_snapshot(self, progress: Progress) -> None:
        progress.become_snapshot(Outgoing(self.disk.snapshot_index, self._encoded_snapshot()))

    def _encoded_snapshot(self) -> bytes:
        """Made once for all followers that need it at a time."""
        for progress in self._progress.values():
            outgoing = progress.snapshot
            if outgoing is not None and outgoing.index == self.disk.snapshot_index:
                return outgoing.data
        return _encode_snapshot(self.disk.snapshot)

    def _send_chunk(self, peer: str, outgoing: Outgoing) -> None:
        """The next chunk, or a heartbeat without data if that is on its way."""
        start = outgoing.offset
        stop = start if outgoing.sent else start + self.parameters.snapshot_chunk_bytes
        outgoing.sent = True
        data = outgoing.data[start:stop]
        done = stop >= len(outgoing.data)
        chunk = InstallSnapshot(self.term, self._round, outgoing.index, start, data, done)
        self.out.send(peer, chunk, early=True)

    def on_install_snapshot_reply(self, src: str, m: InstallSnapshotReply) -> None:
        progress = self._heard_from(src, m)
        outgoing = None if progress is None else progress.snapshot
        self._more_to_send = True
        if outgoing is None or outgoing.index != m.index:
            return
        if m.received >= len(outgoing.data):
            raise BadMessage("the last chunk is acknowledged by its entries")
        if m.received > outgoing.offset:
            outgoing.offset = m.received
            outgoing.sent = outgoing.missing = False
        elif m.offset == outgoing.offset:
            # It knows of what was sent at or after this chunk, but not the chunk: that is lost, or
            # the follower was restarted and has nothing.
            outgoing.offset = m.received
            outgoing.missing = True

    def _send_missing_chunks(self) -> None:
        """What is known to be lost goes out again. A transfer that begins at the beginning takes
        the newest snapshot."""
        for progress in self._progress.values():
            outgoing = progress.snapshot
            if outgoing is not None and outgoing.missing:
                outgoing.sent = outgoing.missing = False
                if outgoing.offset == 0 and outgoing.index < self.disk.snapshot_index:
                    self._begin_snapshot(progress)

    def _send_append(
        self,
        peer: str,
        start: int,
        made: dict[tuple[int, bool], AppendEntries],
        *,
        with_entries: bool,
    ) -> int:
        """Send entries from ``start`` on; returns how many. Equal messages are made once."""
        message = made.get((start, with_entries))
        if message is None:
            entries: tuple[Entry, ...] = ()
            if with_entries:
                stop = min(start + self.parameters.batch_entries, self.disk.last_index + 1)
                entries = tuple(self.disk.entries(start, stop))
                if len(entries) > 1:
                    entries = tuple(next(batches(entries, entry_bytes, self.parameters)))
            message = made[start, with_entries] = AppendEntries(
                self.term, self._round, start - 1, self.term_at(start - 1), self.commit, entries
            )
        self.out.send(peer, message, early=True)
        return len(message.entries)

    def _advance_commit(self) -> None:
        """Paper, 5.3 and 5.4.2: only an entry of the present term commits by being on a
        majority."""
        self._acknowledged = False
        index = self._reached_by_majority(self.durable_index, "match")
        if index > self.commit and self.term_at(index) == self.term:
            self.commit = index
            if not self._ready:
                self._ready = self._caught_up = True
                self.out.mark("ready", term=self.term)

    # --- requests ---

    def on_request(self, request: Request) -> None:
        if self.parameters.stale_reads and request.operation.op == "read" and self._caught_up:
            self._apply()
            if self.applied <= self.durable_index:
                self.out.reply(self._map.read(request), early=True)
                return
        self._requests.take(request)

    def on_forward(self, src: str, m: Forward) -> None:
        if self.role == "leader":
            self._requests.take_forwarded(src, m.requests)

    def on_forwarded(self, src: str, m: Forwarded) -> None:
        for reply in m.replies:
            self._requests.answer_here(reply)

    def _propose(self) -> None:
        """Append the requests of this step to the log; reads wait for a round instead."""
        requests, proposed = self._requests, self._proposed
        if self._transferee is not None:
            requests.arrived = []
            return
        term, append, find = self.term, self.disk.append, self._map.find
        for item in requests.take_arrived():
            request, origin = item
            if request.operation.op == "read":
                self._reads.append(item)
                continue
            key = (request.client, request.sequence)
            if key in proposed:
                proposed[key] = origin
                continue
            reply = find(request)
            if reply is not None:
                requests.answer(origin, reply)
                continue
            proposed[key] = origin
            append(Entry(term, request))

    def _answer_reads(self) -> None:
        """Answer the reads whose round a majority has confirmed."""
        self._confirmed = False
        confirmed = self._reached_by_majority(self._round, "round")
        while self._rounds and self._rounds[0][0] <= confirmed:
            _, read_index, reads = self._rounds.popleft()
            assert self.applied >= read_index
            waits = self.parameters.stale_reads and self.applied > self.durable_index
            for request, origin in reads:
                reply = self._map.read(request)
                if waits and origin == self.id:
                    # As in `on_request`: what this node shows, a crash must not take back. It goes
                    # in `on_durable`, before anything newer that is durable then.
                    self._unshown.append((self.applied, reply))
                else:
                    self._requests.answer(origin, reply)

    def _begin_round(self) -> None:
        """Note what the reads of this step must see, and ask whether this node still leads. Before
        an entry of its own term is committed a leader may not know all that is (dissertation
        6.4)."""
        if self._ready and self._reads:
            self._round += 1
            self._rounds.append((self._round, self.commit, self._reads))
            self._reads = []
            self._contact_all = True

    def end_step(self) -> None:
        leads, requests = self.role == "leader", self._requests
        if leads and self._acknowledged:
            self._advance_commit()
        if self.applied != self.commit:
            self._apply()
        if requests.offer_again:
            requests.offer_all()
        if leads:
            if self._confirmed and self._rounds:
                self._answer_reads()
            if requests.arrived:
                self._propose()
            if self._has_to_administer():
                self._administer()
                leads = self.role == "leader"
            if self._reads:
                self._begin_round()
            if self._rounds and not self._others():
                self._answer_reads()
        elif requests.arrived:
            requests.forward(self.leader)
        last = self.disk.last_index
        if last > (self._unsynced[-1][1] if self._unsynced else self.durable_index):
            self._unsynced.append((self.disk.position, last))
        if leads:
            if self._contact_all or self._more_to_send or last != self._offered:
                self._replicate()
        elif self._ack is not None:
            self._acknowledge(*self._ack)
        if requests.answers:
            requests.send_answers()
        if self.applied - self.disk.snapshot_index >= self.parameters.snapshot_entries:
            self._compact()

    def _acknowledge(self, leader: str, round_: int, match: int) -> None:
        self._ack = None
        self.out.send(
            leader,
            AppendEntriesReply(self.term, round_, True, match),
            early=self._has_durably(match),
        )

    def _has_durably(self, match: int) -> bool:
        """Whether an acknowledgement of the log up to there would survive a crash."""
        return match <= self.durable_index and self.hard_state_is_durable

    # --- the state machine ---

    def _apply(self) -> None:
        """Apply what is committed. Every node does this alike: nothing here looks at anything but
        the log and the state that it led to."""
        if self.applied == self.commit:
            return
        index, apply = self.applied, self._map.apply
        requests, waiting, proposed = self._requests, self._requests.waiting, self._proposed
        for entry in self.disk.entries(index + 1, self.commit + 1):
            index += 1
            request = entry.request
            if request is None:
                continue
            reply = apply(request, index)
            key = (request.client, request.sequence)
            if key in waiting:
                requests.answer_here(reply)
            origin = proposed.pop(key, None) if proposed else None
            if origin is not None and origin != self.id:
                requests.answer(origin, reply)
        assert index == self.commit
        self.applied = index

    def _answer_from_map(self) -> None:
        """A snapshot came instead of entries: it may hold what clients of this node wait for."""
        for waiting in list(self._requests.waiting.values()):
            reply = self._map.find(waiting.request)
            if reply is not None:
                self._requests.answer_here(reply)

    # --- snapshots ---

    def _compact(self) -> None:
        """Take a snapshot; drop the log behind it when enough entries have followed."""
        if self._next_snapshot is None:
            if not self._is_confirmed_at(self.applied):
                return
            self._next_snapshot = self._take_snapshot()
        snapshot = self._next_snapshot
        if self.applied - snapshot.index >= self.parameters.snapshot_tail:
            self._next_snapshot = None
            self.disk.compact(snapshot.index, snapshot)
            # Followers that need what is gone get the snapshot.
            self._more_to_send = True
            self._snapshot_term = snapshot.term
            later = [(i, members) for i, members in self._memberships if i > snapshot.index]
            self._memberships = [(snapshot.index, snapshot.members), *later]
            self._set_deciding()
            self.out.mark("compact", index=snapshot.index)

    def _is_confirmed_at(self, index: int) -> bool:
        """Whether the members up to ``index`` are confirmed there, too."""
        known = [members for i, members in self._memberships if i <= index]
        return len(known) == 1 or known[-1] == known[-2]

    def _take_snapshot(self) -> Snapshot:
        index = self.applied
        members = [members for i, members in self._memberships if i <= index][-1]
        return Snapshot(index, self.term_at(index), members, *self._map.freeze())

    def _restore(self, snapshot: Snapshot) -> None:
        self.commit = self.applied = snapshot.index
        self._snapshot_term = snapshot.term
        self._map.restore(snapshot.data, snapshot.sessions)
        self._memberships = [(snapshot.index, snapshot.members)]
        self._set_deciding()

    # --- administration ---

    def _pass_to_leader(self, src: str, message: TransferLeadership | ChangeMembership) -> None:
        if src == self.id and self.leader is not None:
            self.out.send(self.leader, message)
        elif src == self.id:
            self.out.mark("refuse", reason="no leader")

    def on_transfer_leadership(self, src: str, m: TransferLeadership) -> None:
        if self.role != "leader":
            self._pass_to_leader(src, m)
        elif m.target not in self.members or m.target == self.id or self._transferee is not None:
            self.out.mark("refuse", reason=f"leadership cannot go to {m.target} now")
        else:
            self._transferee = m.target
            self.out.set_timer("transfer", self.parameters.election_timeout_max_s)
            self.out.mark("transfer", term=self.term, target=m.target)

    def _end_transfer(self, reason: str) -> None:
        if self._transferee is not None:
            self._transferee = None
            self._requests.offer_again = True
            self.out.mark("refuse", reason=f"transfer: {reason}")

    def on_change_membership(self, src: str, m: ChangeMembership) -> None:
        if self.role != "leader":
            self._pass_to_leader(src, m)
        elif not self._ready or not self._is_settled() or self._joining:
            # The first condition: a leader must not change a membership whose fate it does not know
            # (Ongaro's note on the bug in single-server changes, raft-dev, 2015).
            self.out.mark("refuse", reason="another change is under way")
        elif m.change == "add" and m.node in self._members and m.node not in self.members:
            self._joining = m.node
            self._progress[m.node] = Progress(self.disk.last_index + 1)
            self._more_to_send = True
        elif m.change == "remove" and m.node in self.members and len(self.members) > 1:
            self._change_members(tuple(node for node in self.members if node != m.node))
        else:
            self.out.mark("refuse", reason=f"{m.node} cannot be changed: {m.change}")

    def _is_settled(self) -> bool:
        """Whether the last membership is confirmed, and the confirmation is committed."""
        return len(self.deciding) == 1 and self._memberships[-1][0] <= self.commit

    def _can_be_confirmed(self) -> bool:
        """Whether the last membership is committed, and a majority of it can go on by itself: as
        long as there is none, the members before it still count."""
        index, members = self._memberships[-1]
        if len(self.deciding) == 1 or index > self.commit:
            return False
        return self._reached_by(members, self.durable_index, "match") >= index

    def _change_members(self, members: tuple[str, ...]) -> None:
        self._append(Entry(self.term, None, members))
        self._contact_all = self._confirmed = True
        self.out.mark("change_membership", term=self.term, members=",".join(members))

    def _has_to_administer(self) -> bool:
        return (
            self._transferee is not None
            or self._joining is not None
            or len(self.deciding) > 1
            or len(self._progress) != len(self._memberships[-1][1]) - 1
        )

    def _administer(self) -> None:
        """Go on with what was asked of this leader, when it is time."""
        if self._transferee is not None:
            target = self._progress.get(self._transferee)
            if target is None:
                self._end_transfer("no longer a member")
            elif target.match == self.disk.last_index:
                self.out.send(self._transferee, TimeoutNow(self.term), early=True)
        joining = self._joining
        # A new member first catches up, or it would hold up every commit (dissertation 4.2.1).
        if joining is not None and self._progress[joining].match >= self.commit:
            self._joining = None
            self._change_members(
                tuple(n for n in self.config.nodes if n in self.members or n == joining)
            )
        if self._is_settled():
            members = self.members
            for node in [n for n in self._progress if n not in members and n != self._joining]:
                del self._progress[node]
            if self.id not in members:
                self.become_follower(self.term)
        elif self._can_be_confirmed():
            self._append(Entry(self.term, None, self.members))
            self._contact_all = True
            self.out.mark("confirm_membership", term=self.term, members=",".join(self.members))

    # --- views ---

    def watched(self) -> Any:
        return (
            self.disk.position,
            self._durable_position,
            self.durable_index,
            self.commit,
            self.applied,
            self.term,
            self.vote,
            self.role,
        )

    def probe(self) -> dict[str, Any]:
        ready = self._ready if self.role == "leader" else self.leader is not None
        return {
            "role": self.role,
            "leader": self.leader,
            "term": self.term,
            "commit": self.commit,
            "applied": self.applied,
            "last_index": self.disk.last_index,
            "members": ",".join(self.members) + ("" if self._is_settled() else " (not committed)"),
            "ready": ready,
        }

    def state(self) -> Mapping[str, tuple[tuple[Value, ...], Version]]:
        return self._map.state()

    def machine(self) -> Any:
        """The keys, and what is remembered of whom."""
        return self._map.freeze()


def entry_bytes(entry: Entry) -> int:
    """About what an entry takes on the wire."""
    return 64 if entry.request is None else request_bytes(entry.request)
