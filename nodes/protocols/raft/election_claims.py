"""What nodes of Raft claim before and while they stand for election, judged when it leaves.

Sources as in `nodes.protocols.raft.replica`. All that is known here was seen: in messages that
left, in logs, and on disks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from nodes.contract.replica import Invariant, InvariantBroken, Scene, Send
from nodes.protocols.raft.claims import RaftChronicle, deciding, has_majority, stable_term
from nodes.protocols.raft.messages import (
    AppendEntries,
    HardState,
    InstallSnapshot,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
)

End = tuple[int, int]
"""(term, index) of the last entry of a log."""


class ElectionsAreDue(Invariant):
    """Nobody stands for election in a term unless a majority has granted pre-votes for that very
    term, or its leader has told it to (dissertation, 9.6 and 3.10); and nobody whom its own log
    does not name as a member, or as one of those before (4.2.2). A pre-vote is granted only to a
    log that is no older than the voter's, and by nobody who leads, or has heard its leader within
    the shortest election timeout (4.2.3 and 9.6). A leader tells only a
    member that has all requests of its own log."""

    name = "an election is due"
    hears: ClassVar = {
        PreVote: "on_pre_vote",
        PreVoteReply: "on_pre_vote_reply",
        RequestVote: "on_request_vote",
        TimeoutNow: "on_timeout_now",
    }
    judges: ClassVar = {
        AppendEntries: "on_leader_heard",
        InstallSnapshot: "on_leader_heard",
        PreVote: "on_pre_vote_heard",
    }

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(RaftChronicle)
        # By (term, candidate): the newest end of a log that it told of, and who was granted what.
        self._logs: dict[tuple[int, str], End] = {}
        self._granted: dict[tuple[int, str], set[str]] = {}
        # By (term, candidate, voter): the oldest end of the voter's log when it was asked.
        self._ends: dict[tuple[int, str, str], End] = {}
        self._told: set[tuple[int, str]] = set()
        self._stood: set[tuple[int, str]] = set()
        # By node: itself as it runs, whose message it took last, in which term, and when.
        self._heard: dict[str, tuple[Any, str, int, float]] = {}
        self._waits_s: float = scene.parameters.election_timeout_min_s

    def _state(self, node: str) -> HardState:
        state: HardState = self.scene.disks[node].get("hard_state", HardState(0, None))
        return state

    def _end(self, node: str) -> End:
        disk = self.scene.disks[node]
        return stable_term(disk, disk.last_index), disk.last_index

    def on_pre_vote(self, node: str, dst: str, msg: PreVote) -> None:
        """Note the question. Raises InvariantBroken."""
        name = (msg.term, node)
        if name not in self._logs:
            self._check_member(node, msg)
        self._logs[name] = max((msg.last_term, msg.last_index), self._logs.get(name, (0, 0)))
        end = self._end(dst)
        self._ends[*name, dst] = min(end, self._ends.get((*name, dst), end))

    def on_leader_heard(
        self, replica: Any, src: str, msg: AppendEntries | InstallSnapshot, sends: Sequence[Send]
    ) -> None:
        """Note when."""
        if msg.term == replica.term:
            self._heard[replica.id] = replica, src, msg.term, replica.env.now()

    def on_pre_vote_heard(
        self, replica: Any, src: str, msg: PreVote, sends: Sequence[Send]
    ) -> None:
        """Who hears a leader, itself if it leads, grants nothing. Raises InvariantBroken."""
        if not any(type(send.msg) is PreVoteReply and send.msg.granted for send in sends):
            return
        node = replica.id
        if replica.role == "leader":
            raise InvariantBroken(f"{node} leads term {replica.term}, and grants {src} {msg}")
        before, leader, term, at_s = self._heard.get(node, (None, "", 0, 0.0))
        # Who looks for another leader has given up that one (its clock may have jumped).
        if before is not replica or term != replica.term or leader != replica.leader:
            return
        silent_s = replica.env.now() - at_s
        if 0 <= silent_s < self._waits_s:
            raise InvariantBroken(
                f"{node} heard {leader}, the leader of term {term}, {silent_s:.3f} s ago, less than"
                f" {self._waits_s:g}, and grants {src} {msg}"
            )

    def _check_member(self, node: str, msg: PreVote | RequestVote) -> None:
        disk, last = self.scene.disks[node], msg.last_index
        if len(self._chronicle.memberships) == 1 or not (
            disk.snapshot_index <= last <= disk.last_index
            and stable_term(disk, last) == msg.last_term
        ):
            return  # Nobody changed them; or the log that it told of is gone.
        memberships = deciding(disk, self.scene.nodes, last)
        if not any(node in members for members in memberships):
            raise InvariantBroken(f"{node} stands by {msg}, and the members are {memberships}")

    def on_pre_vote_reply(self, node: str, dst: str, msg: PreVoteReply) -> None:
        """Raises InvariantBroken."""
        if not msg.granted:
            return
        name = (msg.term, dst)
        self._granted.setdefault(name, set()).add(node)
        log, end = self._logs.get(name), self._ends.get((*name, node))
        if log is None or end is None:
            raise InvariantBroken(f"{node} grants {dst} what it did not ask for: {msg}")
        # What came after the question does not count, nor does what is gone since.
        end = min(end, self._end(node))
        if log < end:
            raise InvariantBroken(
                f"{node} grants {dst} a pre-vote for term {msg.term}, whose log ends with (term,"
                f" index) {log}, and has {end} itself"
            )

    def on_request_vote(self, node: str, dst: str, msg: RequestVote) -> None:
        """Raises InvariantBroken. The same message goes to many."""
        name = (msg.term, node)
        if name in self._stood:
            return
        self._stood.add(name)
        self._check_member(node, msg)
        if (
            (msg.term - 1, node) in self._told
            or msg.term in self._chronicle.logs
            or self._state(node).term > msg.term
        ):
            return
        granted = {node, *self._granted.get(name, ())}
        memberships = deciding(self.scene.disks[node], self.scene.nodes)
        if not has_majority(granted, memberships):
            raise InvariantBroken(
                f"{node} stands for election in term {msg.term} by the pre-votes of"
                f" {sorted(granted)}, of {memberships}"
            )

    def on_timeout_now(self, node: str, dst: str, msg: TimeoutNow) -> None:
        """Raises InvariantBroken."""
        if (msg.term, dst) in self._told:
            return
        self._told.add((msg.term, dst))
        log, disk = self._chronicle.logs.get(msg.term), self.scene.disks[dst]
        if log is None or not any(dst in members for members in deciding(log, self.scene.nodes)):
            raise InvariantBroken(f"{node} hands term {msg.term} over to {dst}, and cannot")
        last = log.last_index
        # What it began in the same step may follow, but no requests.
        while last > log.snapshot_index and log.entry(last).request is None:
            last -= 1
        if (
            self._state(dst).term <= msg.term
            and disk.snapshot_index < last
            and (disk.last_index < last or stable_term(disk, last) != stable_term(log, last))
        ):
            raise InvariantBroken(
                f"{node} hands term {msg.term} over to {dst}, whose log ends with (term, index)"
                f" {self._end(dst)}, before request {last}"
            )
