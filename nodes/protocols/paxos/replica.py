"""Paxos: a log of instances of single-decree Paxos (`nodes.parts.synod`), led by the owner of a
ballot.

Sources: L. Lamport, "The Part-Time Parliament" (1998), "Paxos Made Simple" (2001), here *Simple*;
R. van Renesse and D. Altinbuken, "Paxos Made Moderately Complex" (ACM Computing Surveys, 2015),
here *PMMC*; C. Lee et al., "Implementing Linearizability at Large Scale and Low Latency" (2015).

Theory of operation
-------------------
*Phase 1* runs once per ballot, for all slots that the proposer does not know to be chosen. Each
acceptor reports its votes there; in each slot that was reported the proposer must go on with the
value of the highest ballot, and what lies between is filled with no-ops (*Simple*, section 3). Then
it is the leader, and *phase 2* carries a range of slots per message.

*Learning.* `Accept` says up to which slot everything is chosen (``commit``). A node that has voted
in that ballot for all slots up to there knows what was chosen in them. So a node that is behind is
brought up by Accepts: the leader sends it what was chosen, under its own ballot, which is what
every higher ballot must propose anyway. Votes may come in any order; an acknowledgement is
cumulative (``upto``) and says if something before is missing. What a leader has compacted away
travels as a snapshot, in one message (which must fit `nodes.wire.codec.MAX_FRAME_BYTES`).

*Durability.* Votes are journalled in the disk's log, one record per message; a new promise is a
write of its own. What a node sends waits for its writes, except for the leader's Accepts: its own
vote counts only once it is durable. Its *ballot* is durable before anybody hears of it, so that it
never proposes two values in one.

*A stable leader* (``stable_leader``): a node that hears none asks around first (`Survey`), and
begins a ballot only when a majority hears none either. Reads take no slot: the leader notes its
commit, has a round of messages confirm that no majority has gone on to a higher ballot, and answers
from what it has applied. All reads of a step share a round.

*Without it* (``paxos-basic``) every node is a proposer for its own clients: what waits there, reads
too, goes through both phases of a new ballot, which preempts whoever is in the middle of one.
Random pauses that grow with each preemption make it live.

*Requests* are kept where they arrived and are handed to the leader until an answer is known
(`nodes.parts.forwarding`). The state machine applies each (client, sequence) once
(`nodes.parts.replicated_map`), so handing on twice is safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

from nodes.contract.bounds import BadMessage, check_reach
from nodes.contract.disk import Disk
from nodes.contract.replica import Config, Env, Parameters, Replica, Request, Value, Version
from nodes.parts.claims import RefusalsStay
from nodes.parts.forwarding import Forward, Forwarded, Requests, batches, request_bytes
from nodes.parts.quorum import majority, reached_by_majority
from nodes.parts.replicated_map import ReplicatedMap
from nodes.parts.synod import NO_BALLOT, Acceptor, Ballot, Proposer
from nodes.protocols.paxos.claims import (
    AcceptorsTellTrue,
    PaxosAnswers,
    PaxosDisksHoldUpLittle,
    PaxosMessagesAreBounded,
    PaxosRequestsAreProposed,
    PaxosSnapshotsAnswer,
    disk_slot,
)
from nodes.protocols.paxos.invariants import (
    _NO_VOTE,
    Agreement,
    Durability,
    MajoritiesAreDurable,
    OneProposer,
)
from nodes.protocols.paxos.messages import (
    Accept,
    Accepted,
    CatchUp,
    Command,
    Prepare,
    Promise,
    Promised,
    Refused,
    Snapshot,
    Survey,
    SurveyReply,
    Votes,
)
from nodes.protocols.paxos.parameters import PaxosParameters
from nodes.protocols.paxos.progress import Progress
from nodes.protocols.paxos.proposer_claims import (
    BallotsAreDue,
    BallotsAreKept,
    NothingIsSkipped,
    PausesAreBounded,
    PromisesAreHeeded,
)

Role: TypeAlias = Literal["follower", "proposer", "leader"]


MAX_OPEN_SLOTS = 1 << 19
"""Proposed and not yet chosen. What lies between votes becomes no-ops (*Simple*, section 3): a node
that believed in any slot would drown in them."""


PAUSE_PHASES = 4
"""Of the time of phase 1, for each node: a ballot takes two phases, and all nodes may contend. A
pause that is bounded by less than they take together leaves no proposer the time to finish, on a
slow network or with much to recover."""


class Paxos(Replica):
    """One Paxos node: acceptor, learner, and at times proposer. Public attributes are read by the
    invariants and by tests, never written."""

    # What each step reads. CPython keeps more than 30 attributes of an object in a slower way.
    __slots__ = (
        *("role", "ballot", "leader", "commit", "applied", "upto", "durable_index", "stable"),
        *("_acceptor", "_durable_position", "_promise_position", "_votes_position", "_unsynced"),
        *("_noted_position", "_own_upto", "_progress", "_requests"),
        *("_proposed", "_reads", "_rounds", "_acknowledged", "_confirmed"),
        *("_contact_all", "_ack", "_next_slot", "_map", "majority"),
    )

    MESSAGES = (
        Survey,
        SurveyReply,
        Prepare,
        Promise,
        Accept,
        Accepted,
        Refused,
        CatchUp,
        Forward,
        Forwarded,
    )
    HEAVY = (Prepare,)
    EARLY = (Accept, Forward, Forwarded)
    RECORDS = (Promised, Votes, Snapshot)
    INVARIANTS = (
        *(OneProposer, Agreement, Durability, MajoritiesAreDurable),
        *(AcceptorsTellTrue, PromisesAreHeeded, NothingIsSkipped, BallotsAreDue, BallotsAreKept),
        *(PausesAreBounded, PaxosAnswers, PaxosDisksHoldUpLittle, RefusalsStay),
        *(PaxosMessagesAreBounded, PaxosRequestsAreProposed, PaxosSnapshotsAnswer),
    )
    WATCHED = (
        *("disk.position", "durable_position", "durable_index"),
        *("commit", "applied", "promised", "ballot", "role"),
    )
    PARAMETERS: ClassVar[type[Parameters]] = PaxosParameters

    def __init__(self, config: Config, env: Env, disk: Disk) -> None:
        super().__init__(config, env, disk)
        assert isinstance(config.parameters, PaxosParameters)
        self.parameters = config.parameters
        self.stable = self.parameters.stable_leader

        # The acceptor, from disk.
        promised: Promised = disk.get("promised", Promised(NO_BALLOT))
        self._acceptor: Acceptor[Command] = Acceptor(promised.ballot)
        self._durable_position = self._promise_position = self._votes_position = disk.position
        self.durable_index = disk.last_index
        # What each write makes durable: (disk position, index in the journal, own slots up to).
        self._unsynced: deque[tuple[int, int, int]] = deque()
        self._noted_position = disk.position
        # (index in the journal, last slot of the record), for compaction.
        self._journal: deque[tuple[int, int]] = deque()

        # The learner. ``upto``: voted for in the promised ballot, without a gap.
        self._map = ReplicatedMap(self.parameters.client_entries, self.parameters.client_replies)
        self.commit = self.applied = 0
        self._next_snapshot: Snapshot | None = None
        self._snapshot_slot = disk_slot(disk)
        if disk.snapshot is not None:
            self._restore(disk.snapshot)
        for index in range(disk.first_index, disk.last_index + 1):
            self._replay(index, disk.entry(index))
        self.upto = self.commit
        self._extend()
        self._ack: tuple[int, bool] | None = None

        # The proposer.
        self.role: Role = "follower"
        self.ballot = NO_BALLOT
        self.leader: str | None = None
        self._highest = self.promised
        self._proposer: Proposer[Command] | None = None
        self._parts: dict[tuple[str, int, int], set[int]] = {}
        # Not from 0: an answer from before a crash would count for a survey after it.
        self._survey = env.rng.randrange(0, 2**53)
        self._silent: set[str] | None = None
        self._progress: dict[str, Progress] = {}
        self._next_slot = 0
        self._recovered = 0
        self._own_upto = 0
        self._proposed: dict[tuple[str, int], str] = {}
        self._reads: list[tuple[Request, str]] = []
        self._rounds: deque[tuple[int, int, list[tuple[Request, str]]]] = deque()
        self._round = 0
        self._acknowledged = self._confirmed = False
        self._contact_all = False
        self._preemptions = 0
        self._pausing = False
        self._ballot_began_s = self._phase_1_s = 0.0

        self.majority = majority(len(config.nodes))
        self._requests = Requests(self.id, disk, self.out, self.parameters)
        # More than what a leader keeps under way, what a node holds since its last snapshot, and
        # what a leader without a majority proposes until it gives up.
        self._max_ahead = MAX_OPEN_SLOTS + 2 * (
            self.parameters.window_batches * self.parameters.batch_entries
            + self.parameters.snapshot_entries
            + self.parameters.snapshot_tail
        )

        self._heard_at_s = env.now()
        self._election_timeout_s = 0.0
        if self.stable:
            self._set_election_timer()

    # --- the acceptor ---

    @property
    def promised(self) -> Ballot:
        """The highest ballot that this node has promised."""
        return self._acceptor.promised

    @property
    def promise_is_durable(self) -> bool:
        """Whether the present promise survives a crash."""
        return self._promise_position <= self._durable_position

    def value_at(self, slot: int) -> Command:
        """The value that this node voted for last in ``slot``. Raises KeyError without a vote."""
        return self._acceptor.votes[slot][1]

    def _replay(self, index: int, record: Votes) -> None:
        """Take up a record of the journal. Its ballot was promised before."""
        assert record.ballot <= self.promised
        last = record.first + len(record.values) - 1
        self._journal.append((index, last))
        for slot, value in enumerate(record.values, record.first):
            if slot > self.applied:
                self._acceptor.votes[slot] = (record.ballot, value)
        self.commit = max(self.commit, record.commit)

    def _promise(self, ballot: Ballot) -> None:
        """Promise a ballot that is higher than all before."""
        assert ballot > self.promised
        self._acceptor.promise(ballot)
        self.disk.put("promised", Promised(ballot))
        self._promise_position = self.disk.position
        self._highest = max(self._highest, ballot)
        self.upto = self.commit
        self._ack = None

    def _vote(self, ballot: Ballot, first: int, values: tuple[Command, ...]) -> None:
        """Vote in the promised ballot."""
        assert ballot == self.promised
        assert first > self.commit, f"slot {first} is chosen (up to {self.commit})"
        self._acceptor.accept(ballot, first, values)
        index = self.disk.append(Votes(ballot, first, self.commit, values))
        self._votes_position = self.disk.position
        self._journal.append((index, first + len(values) - 1))
        if first == self.upto + 1:
            self.upto += len(values)
        self._extend()

    def _extend(self) -> None:
        """Go on over votes that came out of order."""
        votes, ballot = self._acceptor.votes, self.promised
        while votes.get(self.upto + 1, _NO_VOTE)[0] == ballot:
            self.upto += 1

    def on_durable(self, position: int) -> None:
        self._durable_position = max(self._durable_position, position)
        unsynced = self._unsynced
        while unsynced and unsynced[0][0] <= position:
            _, self.durable_index, upto = unsynced.popleft()
            self._own_upto = max(self._own_upto, upto)
            self._acknowledged = True

    def _check_ballot(self, src: str, ballot: Ballot) -> None:
        """Raises BadMessage where ``src`` cannot have begun ``ballot``."""
        if ballot.node != src:
            raise BadMessage(f"ballot {ballot} is not its own")
        check_reach("ballot", ballot.round, self.promised.round, self.env.wall)

    def _check_slots(self, last: int, ahead: int) -> None:
        """Raises BadMessage where a slot is so far ahead that nobody can have voted there."""
        if last > max(self.upto, self.commit) + ahead:
            raise BadMessage(f"slot {last}, and {self.upto} is the last that is known here")

    def on_prepare(self, src: str, m: Prepare) -> None:
        self._check_ballot(src, m.ballot)
        if m.ballot < self.promised:
            self._refuse(src, m.ballot)
            return
        if m.ballot > self.promised:
            if self.role != "follower":
                self._preempted()
            self._promise(m.ballot)
            self.leader = None
            self._silent = None
            self._heard_at_s = self.env.now()
        snapshot_slot = self._snapshot_slot
        if m.first <= snapshot_slot:
            self.out.send(src, CatchUp(self.disk.snapshot))
        first = max(m.first, snapshot_slot + 1)
        for promise in self._report(m.ballot, first):
            self.out.send(src, promise)

    def _report(self, ballot: Ballot, first: int) -> list[Promise]:
        """All votes from ``first`` on, in messages of bounded size."""
        votes = self._acceptor.votes
        cast = [(slot, *votes[slot]) for slot in sorted(slot for slot in votes if slot >= first)]
        parts = list(batches(cast, lambda vote: value_bytes(vote[2]), self.parameters)) or [[]]
        return [
            Promise(ballot, first, self.commit, number, len(parts), tuple(part))
            for number, part in enumerate(parts)
        ]

    def _refuse(self, src: str, ballot: Ballot) -> None:
        self.out.send(src, Refused(ballot, self.promised), early=self.promise_is_durable)

    def on_accept(self, src: str, m: Accept) -> None:
        ballot = m.ballot
        self._check_ballot(src, ballot)
        promised = self._acceptor.promised
        if ballot < promised:
            self._refuse(src, ballot)
            return
        if m.values:
            self._check_slots(m.first + len(m.values), self._max_ahead)
        if ballot > promised:
            if self.role != "follower":
                self._preempted()
            self._promise(ballot)
        assert self.role == "follower", f"{src} leads ballot {ballot} as well"
        self._hear(src)
        values, first = m.values, m.first
        # What is known to be chosen, or voted for in this ballot, is not voted for again.
        known = max(0, min(len(values), self.upto + 1 - first)) if values else 0
        votes = self._acceptor.votes
        while known < len(values) and votes.get(first + known, _NO_VOTE)[0] == ballot:
            known += 1
        if known < len(values):
            self._vote(ballot, first + known, values[known:] if known else values)
        self.commit = max(self.commit, min(m.commit, self.upto))
        round_, missing = self._ack or (0, False)
        self._ack = (max(round_, m.round), missing or self.upto < first - 1)

    def on_catch_up(self, src: str, m: CatchUp) -> None:
        snapshot = m.snapshot
        if snapshot.slot <= self.commit or self.role == "leader":
            return
        check_reach("slot", snapshot.slot, self.commit, self.env.wall)
        self._restore(snapshot)
        self._compact(snapshot)
        self._votes_position = self.disk.position
        self.upto = max(self.upto, self.commit)
        self._extend()
        self._answer_from_map()
        self.out.mark("catch_up", slot=snapshot.slot)
        if self.role == "proposer":
            self._send_prepare()

    # --- roles ---

    def _set_election_timer(self) -> None:
        low, high = self.parameters.election_timeout_min_s, self.parameters.election_timeout_max_s
        self._election_timeout_s = self.env.rng.uniform(low, high)
        self.out.set_timer("election", self._election_timeout_s)

    def _hear(self, leader: str) -> None:
        """A message of the leader of the promised ballot came."""
        self._heard_at_s = self.env.now()
        self._silent = None
        if self.stable and self.leader != leader:
            self.leader = leader
            self._requests.offer_again = True
            self.out.mark("follow", ballot=str(self.promised), leader=leader)

    def _hears_leader(self) -> bool:
        silence_s = self.env.now() - self._heard_at_s
        return self.role == "leader" or (
            self.leader is not None and 0 <= silence_s < self.parameters.election_timeout_min_s
        )

    def become_follower(self) -> None:
        """Lead no ballot any more."""
        assert self.role != "follower"
        self.out.mark("become_follower", ballot=str(self.ballot))
        self.out.cancel_timer("heartbeat")
        self.role = "follower"
        self.leader = None
        self._proposer = None
        self._progress = {}
        self._proposed = {}
        self._reads = []
        self._rounds.clear()
        if self.stable:
            self.out.cancel_timer("quorum")
            self._heard_at_s = self.env.now()
            self._set_election_timer()

    def _preempted(self) -> None:
        """Another ballot is above this node's."""
        if self.role == "proposer":
            # It takes at least so long.
            self._phase_1_s = max(self._phase_1_s, self.env.now() - self._ballot_began_s)
        self.become_follower()
        if not self.stable:
            self._preemptions += 1
            # At most what a client waits: phase 1 also takes long where no majority is to be had.
            contention_s = min(
                PAUSE_PHASES * len(self.config.nodes) * self._phase_1_s,
                self.parameters.request_timeout_s,
            )
            pause_s = min(
                self.parameters.backoff_s * 2 ** min(self._preemptions, 30),
                max(self.parameters.backoff_max_s, contention_s),
            )
            self._pausing = True
            self.out.set_timer("backoff", self.env.rng.uniform(0, pause_s))
            self.out.mark("preempted", ballot=str(self.ballot))

    def _ask_around(self) -> None:
        """No leader is heard: ask whether others hear one, without disturbing it."""
        self.leader = None
        self._survey += 1
        self._silent = {self.id}
        self._set_election_timer()
        for peer in self.config.peers:
            self.out.send(peer, Survey(self._survey))
        if len(self._silent) >= self.majority:
            self.become_proposer()

    def on_survey(self, src: str, m: Survey) -> None:
        silent = not self._hears_leader()
        self.out.send(src, SurveyReply(m.number, silent, self._highest))

    def on_survey_reply(self, src: str, m: SurveyReply) -> None:
        check_reach("ballot", m.promised.round, self._highest.round, self.env.wall)
        self._highest = max(self._highest, m.promised)
        if self._silent is not None and m.number == self._survey and m.silent:
            self._silent.add(src)
            if len(self._silent) >= self.majority:
                self.become_proposer()

    def become_proposer(self) -> None:
        """Begin phase 1 of a ballot above all that were heard of."""
        if self.role != "follower":
            self.become_follower()
        self.role = "proposer"
        self.leader = None
        self._silent = None
        self.ballot = max(self._highest, self.promised).next_of(self.id)
        self._promise(self.ballot)
        self._proposer = Proposer(self.ballot, self.majority)
        self._parts = {}
        self._progress = {}
        self._ballot_began_s = self.env.now()
        self.out.set_timer("heartbeat", self.parameters.heartbeat_s)
        self.out.mark("become_proposer", ballot=str(self.ballot))
        self._send_prepare()

    def _send_prepare(self) -> None:
        assert self._proposer is not None
        for peer in self.config.peers:
            if peer not in self._proposer.promises:
                self.out.send(peer, Prepare(self.ballot, self.commit + 1))

    def on_promise(self, src: str, m: Promise) -> None:
        proposer = self._proposer
        if proposer is None or m.ballot != self.ballot or src in proposer.promises:
            return
        # Votes before ``first`` are chosen and compacted there. Their snapshot comes, or another
        # Prepare brings it.
        if self.role == "proposer" and m.first <= self.commit + 1:
            self._check_promise(m)
            proposer.report(m.votes)
            # Another Prepare may have asked from another slot on, and have cut the parts elsewhere.
            parts = self._parts.setdefault((src, m.first, m.parts), set())
            parts.add(m.part)
            if len(parts) == m.parts:
                self._progress[src] = Progress(m.upto + 1)
                proposer.on_promise(src)

    def _check_promise(self, m: Promise) -> None:
        """Raises BadMessage for votes that nobody can have cast before promising this ballot."""
        if m.part >= m.parts:
            raise BadMessage(f"part {m.part} of {m.parts}")
        for slot, ballot, _ in m.votes:
            if ballot > m.ballot or slot < m.first:
                raise BadMessage(f"a vote in slot {slot} of ballot {ballot}")
            # It may itself be ahead of this node, by all that it has not compacted; and what it was
            # allowed to vote for from there must not be refused here.
            self._check_slots(slot, 2 * self._max_ahead)

    def _try_to_lead(self) -> None:
        """Phase 1 is over when a majority has promised, this node among them: durably."""
        proposer = self._proposer
        assert proposer is not None
        if self.id not in proposer.promises and self.promise_is_durable:
            votes = self._acceptor.votes
            proposer.report((slot, *vote) for slot, vote in votes.items() if slot > self.commit)
            proposer.on_promise(self.id)
        if self.id in proposer.promises and len(proposer.promises) >= proposer.quorum:
            self.become_leader()

    def become_leader(self) -> None:
        """Phase 1 is over: propose again what may have been chosen, and no-ops in between."""
        proposer = self._proposer
        assert self.role == "proposer"
        assert proposer is not None
        assert self.ballot == self.promised
        self.role = "leader"
        self._phase_1_s = self.env.now() - self._ballot_began_s
        self.leader = self.id if self.stable else None
        self._own_upto = self.commit
        self._next_slot = self.commit + 1
        self._recovered = max([self.commit, *proposer.votes])
        for peer in self.config.peers:
            # No more than is there, whatever the peer has learnt in between.
            progress = self._progress.setdefault(peer, Progress(self.commit + 1))
            progress.next = min(progress.next, self.commit + 1)
        self.out.mark("become_leader", ballot=str(self.ballot), promises=len(proposer.promises))
        recovered = tuple(
            proposer.choose(slot, None) for slot in range(self.commit + 1, self._recovered + 1)
        )
        for command in recovered:
            if command is not None:
                self._proposed[command.client, command.sequence] = self.id
        self._propose_values(recovered)
        self._contact_all = True
        self.out.set_timer("heartbeat", self.parameters.heartbeat_s)
        if self.stable:
            self._requests.offer_again = True
            self.out.cancel_timer("election")
            self.out.set_timer("quorum", self.parameters.election_timeout_max_s)
        else:
            self._requests.offer_all()

    @property
    def _ready(self) -> bool:
        """A leader that has learnt what was chosen before its ballot."""
        return self.role == "leader" and self.commit >= self._recovered

    def on_refused(self, src: str, m: Refused) -> None:
        check_reach("ballot", m.promised.round, self._highest.round, self.env.wall)
        self._highest = max(self._highest, m.promised)
        if self.role != "follower" and m.ballot == self.ballot:
            self._preempted()

    # --- timers ---

    def on_timer(self, name: str) -> None:
        if name == "election":
            self._on_election_timer()
        elif name == "requests":
            self._requests.on_timer(offer=self.stable)
        elif name == "backoff":
            self._pausing = False
        elif name == "heartbeat":
            self._on_heartbeat_timer()
        else:
            assert name == "quorum"
            self._on_quorum_timer()

    def _on_election_timer(self) -> None:
        assert self.stable
        assert self.role != "leader", "it was cancelled"
        # Being told by the leader only notes the time; the timer, when it fires, waits for the
        # rest.
        waited_s = self.env.now() - self._heard_at_s
        rest_s = self._election_timeout_s - waited_s
        if self.role == "follower" and self._silent is None and waited_s >= 0 and rest_s > 0.001:
            self.out.set_timer("election", rest_s)
        else:
            self._ask_around()

    def _on_heartbeat_timer(self) -> None:
        assert self.role != "follower", "it was cancelled"
        if not self.stable and not self._requests.waiting:
            # Nobody waits for this ballot any more; another proposer will finish it.
            self.become_follower()
            return
        self.out.set_timer("heartbeat", self.parameters.heartbeat_s)
        if self.role == "proposer":
            self._send_prepare()
        else:
            self._contact_all = True
            for progress in self._progress.values():
                progress.rewound = 0

    def _on_quorum_timer(self) -> None:
        """Give up unless a majority was heard since the last time."""
        assert self.role == "leader", "it was cancelled"
        self.out.set_timer("quorum", self.parameters.election_timeout_max_s)
        heard = 1
        for progress in self._progress.values():
            heard += progress.active
            progress.active = progress.catching_up = False
        if heard < self.majority:
            self.out.mark("lost_majority", ballot=str(self.ballot))
            self.become_follower()

    # --- phase 2: the leader ---

    def _propose_values(self, values: tuple[Command, ...]) -> None:
        if values:
            self._vote(self.ballot, self._next_slot, values)
            self._next_slot += len(values)
            assert self.upto == self._next_slot - 1

    def on_accepted(self, src: str, m: Accepted) -> None:
        progress = self._progress.get(src)
        if self.role != "leader" or m.ballot != self.ballot or progress is None:
            return
        if m.upto >= self._next_slot or m.round > self._round:
            raise BadMessage(f"slot {m.upto} and round {m.round} are still to come")
        progress.active = True
        if m.round > progress.round:
            progress.round = m.round
            self._confirmed = True
        if m.upto > progress.upto:
            progress.upto = m.upto
            self._acknowledged = True
        if progress.catching_up:
            progress.catching_up = m.upto < self._snapshot_slot
        elif m.missing and m.upto < progress.upto:
            # It knew of more slots that they are chosen, and forgot it in a crash. (Or the message
            # is an old one: then this costs some messages.)
            progress.upto = m.upto
            progress.rewound = progress.next = m.upto + 1
        elif m.missing and m.upto >= progress.rewound:
            # Once for each gap: all that was sent behind it is refused as well.
            progress.rewound = progress.next = m.upto + 1
        progress.next = max(progress.next, progress.upto + 1)

    def _majority_reached(self, own: int, field: Literal["upto", "round"]) -> int:
        """The highest value that a majority has reached."""
        if field == "upto":
            values = [progress.upto for progress in self._progress.values()]
        else:
            values = [progress.round for progress in self._progress.values()]
        values.append(own)
        return reached_by_majority(values)

    def _replicate(self) -> None:
        """One message to each node for which there is something new, or to all of them."""
        contact_all, self._contact_all = self._contact_all, False
        window = self.parameters.window_batches * self.parameters.batch_entries
        snapshot_slot = self._snapshot_slot
        made: dict[tuple[int, bool], Accept] = {}
        for peer, progress in self._progress.items():
            if progress.next <= snapshot_slot and not progress.catching_up:
                progress.catching_up = True
                self.out.send(peer, CatchUp(self.disk.snapshot), early=True)
            if progress.catching_up:
                progress.next = snapshot_slot + 1
                if contact_all:
                    self._send_accept(peer, progress.next, made, with_values=False)
            elif progress.next < self._next_slot and progress.next - progress.upto <= window:
                progress.next += self._send_accept(peer, progress.next, made, with_values=True)
            elif contact_all:
                self._send_accept(peer, progress.next, made, with_values=False)

    def _send_accept(
        self, peer: str, first: int, made: dict[tuple[int, bool], Accept], *, with_values: bool
    ) -> int:
        """Send the slots from ``first`` on; returns how many. Equal messages are made once."""
        message = made.get((first, with_values))
        if message is None:
            values: tuple[Command, ...] = ()
            if with_values:
                votes = self._acceptor.votes
                stop = min(first + self.parameters.batch_entries, self._next_slot)
                found = [votes[slot][1] for slot in range(first, stop)]
                values = tuple(next(batches(found, value_bytes, self.parameters)))
            message = Accept(self.ballot, self._round, first, self.commit, values)
            made[first, with_values] = message
        self.out.send(peer, message, early=True)
        return len(message.values)

    def _answer_reads(self) -> None:
        """Answer the reads whose round a majority has confirmed."""
        self._confirmed = False
        confirmed = self._majority_reached(self._round, "round")
        while self._rounds and self._rounds[0][0] <= confirmed:
            _, commit, reads = self._rounds.popleft()
            assert self.applied >= commit
            for request, origin in reads:
                self._requests.answer(origin, self._map.read(request))

    def _begin_round(self) -> None:
        """Ask whether a majority still follows this ballot: then all that was acknowledged before
        now is in the slots up to ``commit``."""
        if self._reads and self._ready:
            self._round += 1
            self._rounds.append((self._round, self.commit, self._reads))
            self._reads = []
            self._contact_all = True

    # --- requests ---

    def on_request(self, request: Request) -> None:
        self._requests.take(request)

    def on_forward(self, src: str, m: Forward) -> None:
        if self.role == "leader" and self.stable:
            self._requests.take_forwarded(src, m.requests)

    def on_forwarded(self, src: str, m: Forwarded) -> None:
        for reply in m.replies:
            self._requests.answer_here(reply)

    def _propose(self) -> None:
        """Propose the requests of this step, each in a slot; a leader's reads wait for a round."""
        values: list[Command] = []
        requests, proposed = self._requests, self._proposed
        for item in requests.take_arrived():
            request, origin = item
            if self.stable and request.operation.op == "read":
                self._reads.append(item)
                continue
            key = (request.client, request.sequence)
            if key in proposed:
                proposed[key] = origin
                continue
            reply = self._map.find(request)
            if reply is not None:
                requests.answer(origin, reply)
                continue
            proposed[key] = origin
            values.append(request)
        self._propose_values(tuple(values))

    def end_step(self) -> None:
        requests = self._requests
        if self.role == "proposer":
            self._try_to_lead()
        if self.role == "leader" and self._acknowledged:
            self._acknowledged = False
            self.commit = max(self.commit, self._majority_reached(self._own_upto, "upto"))
        if self.applied != self.commit:
            self._apply()
        if requests.offer_again:
            requests.offer_all()
        if self.stable:
            if self.role == "leader":
                if self._confirmed and self._rounds:
                    self._answer_reads()
                if requests.arrived:
                    self._propose()
                if self._reads:
                    self._begin_round()
                    if not self._progress:
                        self._answer_reads()
            elif requests.arrived:
                requests.forward(self.leader)
        else:
            self._run_both_phases()
        if self.disk.position != self._noted_position:
            self._note_writes()
        if self.role == "leader":
            self._replicate()
        elif self._ack is not None:
            self._acknowledge(*self._ack)
        if requests.answers:
            requests.send_answers()
        if self.applied - self._snapshot_slot >= self.parameters.snapshot_entries:
            self._take_snapshot()

    def _run_both_phases(self) -> None:
        """Without a stable leader: one ballot for what waits here, then another one."""
        if self.role == "leader":
            if self._requests.arrived and self._next_slot == self._recovered + 1:
                self._propose()
            if self.commit == self._next_slot - 1:
                self._preemptions = 0
                self._contact_all = True
                self._replicate()
                self.become_follower()
        self._requests.arrived = []
        if self.role == "follower" and self._requests.waiting and not self._pausing:
            self.become_proposer()

    def _note_writes(self) -> None:
        self._noted_position = self.disk.position
        position = max(self._votes_position, self._promise_position)
        if position > (self._unsynced[-1][0] if self._unsynced else self._durable_position):
            own = self.upto if self.role == "leader" else 0
            self._unsynced.append((position, self.disk.last_index, own))

    def _acknowledge(self, round_: int, missing: bool) -> None:
        self._ack = None
        promised = self._acceptor.promised
        self.out.send(
            promised.node,
            Accepted(promised, round_, self.upto, missing),
            early=max(self._votes_position, self._promise_position) <= self._durable_position,
        )

    # --- the learner ---

    def _apply(self) -> None:
        """Apply what is chosen, in the order of slots."""
        requests, proposed, votes = self._requests, self._proposed, self._acceptor.votes
        waiting = requests.waiting
        for slot in range(self.applied + 1, self.commit + 1):
            request = votes[slot][1]
            if request is None:
                continue
            reply = self._map.apply(request, slot)
            key = (request.client, request.sequence)
            if key in waiting:
                requests.answer_here(reply)
            origin = proposed.pop(key, None) if proposed else None
            if origin is not None and origin != self.id:
                requests.answer(origin, reply)
        self.applied = self.commit

    def _take_snapshot(self) -> None:
        """Take a snapshot; drop the votes behind it when enough slots have followed."""
        if self._next_snapshot is None:
            self._next_snapshot = Snapshot(self.applied, *self._map.freeze())
        snapshot = self._next_snapshot
        if self.applied - snapshot.slot >= self.parameters.snapshot_tail:
            self._compact(snapshot)
            self.out.mark("compact", slot=snapshot.slot)

    def _compact(self, snapshot: Snapshot) -> None:
        """The snapshot replaces the votes up to its slot."""
        self._next_snapshot = None
        index = self.disk.snapshot_index
        while self._journal and self._journal[0][1] <= snapshot.slot:
            index = self._journal.popleft()[0]
        votes = self._acceptor.votes
        if len(votes) and snapshot.slot - self._snapshot_slot <= 2 * len(votes):
            for slot in range(self._snapshot_slot + 1, snapshot.slot + 1):
                votes.pop(slot, None)
        else:
            for slot in [slot for slot in votes if slot <= snapshot.slot]:
                del votes[slot]
        self.disk.compact(index, snapshot)
        self._snapshot_slot = snapshot.slot

    def _restore(self, snapshot: Snapshot) -> None:
        self.commit = self.applied = snapshot.slot
        self._map.restore(snapshot.data, snapshot.sessions)

    def _answer_from_map(self) -> None:
        """A snapshot came instead of values: it may hold what clients of this node wait for."""
        for waiting in list(self._requests.waiting.values()):
            reply = self._map.find(waiting.request)
            if reply is not None:
                self._requests.answer_here(reply)

    # --- views ---

    def watched(self) -> Any:
        return (
            self.disk.position,
            self._durable_position,
            self.durable_index,
            self.commit,
            self.applied,
            self._acceptor.promised,
            self.ballot,
            self.role,
        )

    def probe(self) -> dict[str, Any]:
        ready = self._ready if self.role == "leader" else self.leader is not None
        ballot = self.ballot if self.role != "follower" else self.promised
        return {
            "role": self.role,
            "leader": self.leader,
            "ballot": str(ballot),
            "term": ballot.round,
            "commit": self.commit,
            "applied": self.applied,
            "ready": ready or not self.stable,
        }

    def state(self) -> Mapping[str, tuple[tuple[Value, ...], Version]]:
        return self._map.state()

    def machine(self) -> Any:
        """The keys, and what is remembered of whom."""
        return self._map.freeze()


def value_bytes(value: Command) -> int:
    """About what the value of a slot takes on the wire."""
    return 64 if value is None else request_bytes(value)
