"""Raft with one mistake."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from nodes.contract.replica import Message
from nodes.parts.forwarding import TIMER
from nodes.protocols.raft import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    HardState,
    InstallSnapshot,
    PreVote,
    Raft,
    RequestVote,
    RequestVoteReply,
    Snapshot,
)
from nodes.simulator.bugs import Bug


def _early(replica: Raft, kind: type) -> None:
    """Let the messages of one type that were just sent overtake the disk."""
    sends = replica.out.sends
    for i, send in enumerate(sends):
        if type(send.msg) is kind:
            sends[i] = msgspec.structs.replace(send, position=0)


class VoteNotPersisted(Raft):
    """A vote for another node is kept in memory only."""

    def _save_hard_state(self, term: int, vote: str | None) -> None:
        if vote in (None, self.id):
            super()._save_hard_state(term, vote)
        else:
            self.vote = vote


class TermNotPersisted(Raft):
    """A term learnt from another node is kept in memory until this node votes in it."""

    def _save_hard_state(self, term: int, vote: str | None) -> None:
        if vote is None:
            self.term, self.vote = term, None
        else:
            super()._save_hard_state(term, vote)


class VoteBeforeFsync(Raft):
    """The vote is written, and sent before it is durable."""

    def on_request_vote(self, src: str, m: RequestVote) -> None:
        super().on_request_vote(src, m)
        _early(self, RequestVoteReply)


class VoteKeptInNewTerm(Raft):
    """A vote is not forgotten when a new term begins."""

    def _save_hard_state(self, term: int, vote: str | None) -> None:
        super()._save_hard_state(term, self.vote if vote is None else vote)


class VoteTwice(Raft):
    """A node votes for everybody who asks in a term."""

    def on_request_vote(self, src: str, m: RequestVote) -> None:
        if m.term == self.term and self.role == "follower":
            self.vote = None
        super().on_request_vote(src, m)

    def _save_hard_state(self, term: int, vote: str | None) -> None:
        self.term, self.vote = term, vote
        self.disk.put("hard_state", HardState(term, vote))


class NoUpToDateCheck(Raft):
    """Votes are given whatever the candidate's log holds."""

    def on_pre_vote(self, src: str, m: PreVote) -> None:
        term, index = self._last()
        super().on_pre_vote(src, PreVote(m.term, index, term))

    def on_request_vote(self, src: str, m: RequestVote) -> None:
        term, index = self._last()
        super().on_request_vote(src, RequestVote(m.term, index, term))


class LongerLogWins(Raft):
    """Logs are compared by length before term."""

    def on_request_vote(self, src: str, m: RequestVote) -> None:
        longer = m.last_index >= self.disk.last_index
        term, index = self._last()
        like = RequestVote(m.term, index, term) if longer else RequestVote(m.term, 0, 0)
        super().on_request_vote(src, like)

    def on_pre_vote(self, src: str, m: PreVote) -> None:
        longer = m.last_index >= self.disk.last_index
        term, index = self._last()
        super().on_pre_vote(src, PreVote(m.term, index, term) if longer else PreVote(m.term, 0, 0))


class NoConsistencyCheck(Raft):
    """A follower appends without comparing the previous entry."""

    def on_append_entries(self, src: str, m: AppendEntries) -> None:
        if self.disk.snapshot_index <= m.prev_index <= self.disk.last_index:
            m = msgspec.structs.replace(m, prev_term=self.term_at(m.prev_index))
        super().on_append_entries(src, m)


class OlderTermCommit(Raft):
    """A leader commits entries of older terms by counting (paper, figure 8)."""

    def _advance_commit(self) -> None:
        self._acknowledged = False
        index = self._reached_by_majority(self.durable_index, "match")
        if index > self.commit:
            self.commit = index
            self._ready = self._caught_up = True


class SmallElectionQuorum(Raft):
    """A leader is elected by one vote too few."""

    def _is_majority(self, nodes: set[str]) -> bool:
        members = self.members
        return 2 * (sum(member in nodes for member in members) + 1) > len(members)


class SmallCommitQuorum(Raft):
    """An entry commits on one node too few."""

    def _reached_by_majority(self, own: int, field: Literal["match", "round"]) -> int:
        if field == "round":
            return super()._reached_by_majority(own, field)
        values = sorted(
            own if member == self.id else self._progress[member].match for member in self.members
        )
        return values[min(len(values) - 1, (len(values) - 1) // 2 + 1)]


class AckBeforeFsync(Raft):
    """A follower acknowledges entries that are not durable."""

    def _acknowledge(self, leader: str, round_: int, match: int) -> None:
        super()._acknowledge(leader, round_, match)
        _early(self, AppendEntriesReply)


class LeaderCountsItselfEarly(Raft):
    """A leader counts its own copy before it is durable, and answers at once."""

    def _advance_commit(self) -> None:
        durable, self.durable_index = self.durable_index, self.disk.last_index
        super()._advance_commit()
        self.durable_index = durable


class StaleLeaderRead(Raft):
    """A leader answers reads without asking whether it still leads."""

    def _begin_round(self) -> None:
        if self._ready:
            reads, self._reads = self._reads, []
            for request, origin in reads:
                self._requests.answer(origin, self._map.read(request))


class ReadBeforeReady(Raft):
    """A new leader answers reads before an entry of its own term is committed."""

    def _begin_round(self) -> None:
        if self._reads:
            self._round += 1
            self._rounds.append((self._round, self.commit, self._reads))
            self._reads = []
            self._contact_all = True


class CommitBeyondMatch(Raft):
    """A follower takes the leader's commit index for its whole log, not for the part that
    matched."""

    def on_append_entries(self, src: str, m: AppendEntries) -> None:
        super().on_append_entries(src, m)
        if m.term == self.term:
            self.commit = max(self.commit, min(m.commit, self.disk.last_index))


class TruncatesOnOldMessage(Raft):
    """A follower cuts its log behind each message, though a late one may be short."""

    def on_append_entries(self, src: str, m: AppendEntries) -> None:
        super().on_append_entries(src, m)
        match = m.prev_index + len(m.entries)
        if m.term == self.term and self.commit <= match < self.disk.last_index and m.entries:
            self._truncate(match + 1)


class AppliesTwice(Raft):
    """A request that is delivered again is applied again."""

    def _apply(self) -> None:
        self._map._sessions.clear()
        super()._apply()


class SnapshotForgetsClients(Raft):
    """A snapshot does not carry what was answered to whom."""

    def _take_snapshot(self) -> Snapshot:
        return msgspec.structs.replace(super()._take_snapshot(), sessions=())


class InstallKeepsForeignLog(Raft):
    """A snapshot that comes keeps the log behind it, whoever wrote that."""

    def _install(self, snapshot: Snapshot) -> None:
        disk = self.disk
        if snapshot.index < disk.last_index:
            disk.compact(snapshot.index, snapshot)
            self._restore(snapshot)
            self._unsynced.append((disk.position, disk.last_index))
        else:
            super()._install(snapshot)


class FollowersNeverCommit(Raft):
    """Followers never learn the commit index."""

    def on_append_entries(self, src: str, m: AppendEntries) -> None:
        super().on_append_entries(src, msgspec.structs.replace(m, commit=0))


class RefusesWithoutFail(Raft):
    """A request that was handed on is refused as certainly not applied."""

    def on_timer(self, name: str) -> None:
        if name == TIMER:
            for waiting in self._requests.waiting.values():
                waiting.handed = False
        super().on_timer(name)


class ForgetsDurableEntries(Raft):
    """A restarted node takes only the snapshot, and forgets its log."""

    def __init__(self, config: Any, env: Any, disk: Any) -> None:
        if disk.last_index > disk.snapshot_index:
            disk.truncate(disk.first_index)
        super().__init__(config, env, disk)


class OwnTermFromMessage(Raft):
    """A stale leader's messages are taken though its term is over."""

    def step(self, inputs: Any) -> None:
        super().step(
            [
                Message(item.src, msgspec.structs.replace(item.msg, term=self.term))
                if type(item) is Message
                and type(item.msg) is AppendEntries
                and item.msg.term < self.term
                and self.role == "follower"
                else item
                for item in inputs
            ]
        )


class NoOpMissing(Raft):
    """A new leader writes no entry of its own, so it never knows what is committed."""

    def _append(self, entry: Entry) -> int:
        if entry.request is None and entry.members is None:
            return self.disk.last_index
        return super()._append(entry)


class ChunksOfTwoSnapshots(Raft):
    """Chunks of a newer snapshot are put behind what has come of the one before."""

    def _take_chunk(self, m: InstallSnapshot) -> None:
        incoming = self._incoming
        if incoming is not None and incoming.index < m.index:
            incoming.index = m.index
        super()._take_chunk(m)


class NewMembersDecideAlone(Raft):
    """Members that stand in a log decide, and those before them no longer."""

    def _set_deciding(self) -> None:
        self.deciding = (self._memberships[-1][1],)


class RestartForgetsMembers(Raft):
    """A restarted node knows the members of its snapshot, not those of the log behind it."""

    def __init__(self, config: Any, env: Any, disk: Any) -> None:
        super().__init__(config, env, disk)
        self._memberships = self._memberships[:1]
        self._set_deciding()


class PreVoteAgainstALeader(Raft):
    """A node that hears a leader says all the same that it would vote for another one."""

    def on_pre_vote(self, src: str, m: PreVote) -> None:
        role, self.leader, leader = self.role, None, self.leader
        if role != "leader":
            super().on_pre_vote(src, m)
        self.leader = leader


class LeadsWithoutMajority(Raft):
    """A leader that hears nobody goes on, and whoever hears it waits for it."""

    def _on_quorum_timer(self) -> None:
        for progress in self._progress.values():
            progress.active = True
        super()._on_quorum_timer()


class RequestsTimerOnce(Raft):
    """The timer of waiting requests is not set again once nothing waits."""

    def on_timer(self, name: str) -> None:
        super().on_timer(name)
        if name == TIMER:
            self._requests._ticking = True


_PAPER = "Ongaro and Ousterhout, In search of an understandable consensus algorithm, extended, "
_SKETCH = "protocols.md, Raft, wrong there"

BUGS = (
    Bug(
        name="raft-chunks-of-two-snapshots",
        protocol="raft",
        replica=ChunksOfTwoSnapshots,
        source=_PAPER + "figure 13, 3: create a new snapshot file if the offset is 0",
    ),
    Bug(
        name="raft-new-members-decide-alone",
        protocol="raft",
        replica=NewMembersDecideAlone,
        source="dissertation 4.1, and what 4.2.2 leaves open: docs/decisions/0004",
    ),
    Bug(
        name="raft-restart-forgets-members",
        protocol="raft",
        replica=RestartForgetsMembers,
        source="dissertation 4.1: a server always uses the latest configuration in its log",
    ),
    Bug(
        name="raft-vote-not-persisted",
        protocol="raft",
        replica=VoteNotPersisted,
        source=_PAPER + "figure 2, persistent state",
    ),
    Bug(
        name="raft-term-not-persisted",
        protocol="raft",
        replica=TermNotPersisted,
        source=_PAPER + "figure 2, persistent state",
    ),
    Bug(
        name="raft-vote-before-fsync",
        protocol="raft",
        replica=VoteBeforeFsync,
        source="a wrong early=True",
    ),
    Bug(
        name="raft-vote-kept",
        protocol="raft",
        replica=VoteKeptInNewTerm,
        source=_SKETCH + ": voted_for survives into a new term",
    ),
    Bug(
        name="raft-vote-twice",
        protocol="raft",
        replica=VoteTwice,
        source=_PAPER + "5.2",
    ),
    Bug(
        name="raft-no-up-to-date-check",
        protocol="raft",
        replica=NoUpToDateCheck,
        source=_SKETCH + ": no log up-to-date check on votes",
    ),
    Bug(
        name="raft-longer-log-wins",
        protocol="raft",
        replica=LongerLogWins,
        source=_PAPER + "5.4.1",
    ),
    Bug(
        name="raft-no-consistency-check",
        protocol="raft",
        replica=NoConsistencyCheck,
        source=_SKETCH + ": append without the previous entry's check",
    ),
    Bug(
        name="raft-older-term-commit",
        protocol="raft",
        replica=OlderTermCommit,
        source=_PAPER + "5.4.2, figure 8",
    ),
    Bug(
        name="raft-small-election-quorum",
        protocol="raft",
        replica=SmallElectionQuorum,
        source="quorum off by one",
    ),
    Bug(
        name="raft-small-commit-quorum",
        protocol="raft",
        replica=SmallCommitQuorum,
        source="quorum off by one",
    ),
    Bug(
        name="raft-ack-before-fsync",
        protocol="raft",
        replica=AckBeforeFsync,
        source="a wrong early=True",
    ),
    Bug(
        name="raft-leader-counts-itself-early",
        protocol="raft",
        replica=LeaderCountsItselfEarly,
        source="Ongaro, dissertation, 10.2.1",
    ),
    Bug(
        name="raft-stale-leader-read",
        protocol="raft",
        replica=StaleLeaderRead,
        source=_SKETCH + ": a stale leader keeps serving",
    ),
    Bug(
        name="raft-read-before-ready",
        protocol="raft",
        replica=ReadBeforeReady,
        source="Ongaro, dissertation, 6.4, step 1",
    ),
    Bug(
        name="raft-commit-beyond-match",
        protocol="raft",
        replica=CommitBeyondMatch,
        source=_PAPER + "figure 2: index of last new entry",
    ),
    Bug(
        name="raft-truncates-on-old-message",
        protocol="raft",
        replica=TruncatesOnOldMessage,
        source=_PAPER + "figure 2: if an existing entry conflicts",
    ),
    Bug(
        name="raft-applies-twice",
        protocol="raft",
        replica=AppliesTwice,
        source="Ongaro, dissertation, 6.3",
    ),
    Bug(
        name="raft-snapshot-forgets-clients",
        protocol="raft",
        replica=SnapshotForgetsClients,
        source="Ongaro, dissertation, 6.3",
    ),
    Bug(
        name="raft-install-keeps-foreign-log",
        protocol="raft",
        replica=InstallKeepsForeignLog,
        source=_PAPER + "figure 13, rules 6 and 7",
    ),
    Bug(
        name="raft-followers-never-commit",
        protocol="raft",
        replica=FollowersNeverCommit,
        source=_SKETCH + ": followers never learn the commit index",
        parameters={"stale_reads": True},
        claim="eventual",
    ),
    Bug(
        name="raft-fail-for-info",
        protocol="raft",
        replica=RefusesWithoutFail,
        source="fail means certainly not applied",
    ),
    Bug(
        name="raft-log-not-durable",
        protocol="raft",
        replica=ForgetsDurableEntries,
        source=_SKETCH + ": nothing is durable",
    ),
    Bug(
        name="raft-stale-term-accepted",
        protocol="raft",
        replica=OwnTermFromMessage,
        source=_SKETCH + ": a stale leader keeps committing",
    ),
    Bug(
        name="raft-no-entry-of-its-own",
        protocol="raft",
        replica=NoOpMissing,
        source=_PAPER + "8",
    ),
    Bug(
        name="raft-pre-vote-against-a-leader",
        protocol="raft",
        replica=PreVoteAgainstALeader,
        source="Ongaro, dissertation, 9.6: disruptive servers",
    ),
    Bug(
        name="raft-leads-without-majority",
        protocol="raft",
        replica=LeadsWithoutMajority,
        source="Ongaro, dissertation, 6.2; Cloudflare's outage of 2 November 2020",
    ),
    Bug(
        name="raft-requests-timer-once",
        protocol="raft",
        replica=RequestsTimerOnce,
        source="a timer that believes itself set",
    ),
)
