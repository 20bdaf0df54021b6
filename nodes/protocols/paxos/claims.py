"""What nodes of Paxos claim in their messages, judged when these leave.

Sources as in `nodes.protocols.paxos.replica`. All that is known here was seen: in messages that
left, and on disks.
"""

from __future__ import annotations

from typing import Any, ClassVar

from nodes.contract.disk import Disk
from nodes.contract.replica import Invariant, InvariantBroken, Reply, Scene
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
)
from nodes.parts.reference_map import FEW, ReferenceMap
from nodes.parts.synod import NO_BALLOT, Ballot
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
)
from nodes.protocols.paxos.parameters import PaxosParameters


class Journal:
    """What is durable in a node's journal: all ``votes``, the ``last`` one of each slot, and the
    ``highest`` slot with one. Raises InvariantBroken for a record that begins with a vote that is
    there already: a copy of what was asked costs no write (its first values may be known, then it
    is cut there)."""

    __slots__ = ("_compacted", "_upto", "disk", "highest", "last", "votes")

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.highest = self._upto = self._compacted = 0
        self.last: dict[int, Ballot] = {}
        self.votes: set[tuple[int, Ballot]] = set()

    def catch_up(self) -> None:
        """Take up what was written since."""
        disk = self.disk
        if self._upto == disk.last_index and self._compacted == disk.snapshot_index:
            return
        if self._compacted != disk.snapshot_index:
            self._compacted = self._upto = disk.snapshot_index
            self.highest = 0
            self.votes.clear()
            self.last.clear()
        assert self._upto <= disk.last_index, "votes are never truncated"
        for record in disk.entries(self._upto + 1, disk.last_index + 1):
            ballot, stop = record.ballot, record.first + len(record.values)
            if stop > record.first and (record.first, ballot) in self.votes:
                raise InvariantBroken(f"a disk has a vote for {record.first} in {ballot} twice")
            for slot in range(record.first, stop):
                self.last[slot] = ballot
                self.votes.add((slot, ballot))
            self.highest = max(self.highest, stop - 1)
        self._upto = disk.last_index


class _True:
    """Of a node's acceptances in ``ballot`` those up to the slot ``upto`` and the ``round`` are
    true; and what was ``sent`` there since the first of them."""

    __slots__ = ("ballot", "round", "sent", "upto")

    def __init__(self, ballot: Ballot) -> None:
        self.ballot = ballot
        self.upto, self.round = 0, -1
        self.sent = Sent()


class PaxosChronicle(Chronicle):
    """``proposed``: (slot, ballot) -> the value of the votes there. ``safe``: up to here some
    leader took all for chosen. ``journals``: of all nodes."""

    def __init__(self) -> None:
        self.proposed: dict[tuple[int, Ballot], Command] = {}
        self.safe = 0
        self.journals: dict[str, Journal] = {}
        self.memberships = []
        self.reference = ReferenceMap(0)

    def begin(self, scene: Scene) -> None:
        """Of a run. (Each invariant calls it; only the first call does anything.)"""
        if self.memberships:
            return
        config = next(iter(scene.configs.values()))
        parameters = config.parameters
        assert isinstance(parameters, PaxosParameters)
        keeps = parameters.snapshot_entries <= FEW
        self.reference = ReferenceMap(
            parameters.client_entries, parameters.client_replies, keeps_states=keeps
        )
        self.memberships.append(config.nodes)
        self.journals = {node: Journal(disk) for node, disk in scene.disks.items()}

    def problem(self, snapshot: Snapshot) -> str | None:
        """Why this is no snapshot of what was chosen, if so."""
        if snapshot.slot > self.reference.index:
            return f"nobody has applied more than {self.reference.index}"
        state = self.reference.state_at(snapshot.slot)
        if state is not None:
            held = snapshot.data, snapshot.sessions
            for what, here, wanted in zip(("data", "sessions"), held, state, strict=True):
                if here != wanted:
                    return f"its {what} should be {wanted}"
        return None


class AcceptorsTellTrue(Invariant):
    """What leaves an acceptor is on its disk: the promise, and the votes. A promise tells of all
    its votes ("Paxos Made Simple", section 2, P1 and P2c: what was not told would be lost); an
    acceptance, of votes in that ballot or of what is chosen. A ballot is its proposer's, who has
    promised it himself. The round that is confirmed was begun in that ballot. What is called chosen
    is, and a snapshot is what was chosen up to there. What is sent ahead of the votes is within the
    window, and each message within the limit of a batch; nothing is sent again but what is said to
    be missing."""

    name = "an acceptor tells what is on its disk"
    hears: ClassVar = {
        Prepare: "on_prepare",
        Promise: "on_promise",
        Accept: "on_accept",
        Accepted: "on_accepted",
        Refused: "on_refused",
        CatchUp: "on_catch_up",
    }

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(PaxosChronicle)
        self._chronicle.begin(scene)
        self._asked = scene.common(Asked)
        self._led = scene.common(Led)
        self._last: Accept | None = None
        self._begun: tuple[Ballot, int] = (NO_BALLOT, -1)
        parameters = scene.parameters
        self._batch = parameters.batch_entries
        self._window = self._batch * parameters.window_batches
        self._true: dict[str, _True] = {}
        self._told: dict[tuple[str, str, Ballot, int], dict[int, Ballot]] = {}

    def _promised(self, node: str) -> Ballot:
        promised: Promised | None = self.scene.disks[node].get("promised")
        return NO_BALLOT if promised is None else promised.ballot

    def _check_promise(self, node: str, ballot: Ballot) -> None:
        promised = self._promised(node)
        if promised < ballot:
            raise InvariantBroken(f"{node} speaks in ballot {ballot}, and has {promised} on disk")

    def on_prepare(self, node: str, dst: str, msg: Prepare) -> None:
        """Raises InvariantBroken."""
        self._check_promise(node, msg.ballot)
        if msg.ballot.node != node:
            raise InvariantBroken(f"{node} begins ballot {msg.ballot}, not its own")

    def on_refused(self, node: str, dst: str, msg: Refused) -> None:
        """Raises InvariantBroken."""
        self._check_promise(node, msg.promised)

    def on_promise(self, node: str, dst: str, msg: Promise) -> None:
        """Raises InvariantBroken."""
        self._check_promise(node, msg.ballot)
        chronicle = self._chronicle
        if msg.upto > chronicle.safe:
            raise InvariantBroken(
                f"{node} calls slot {msg.upto} chosen: none is above {chronicle.safe}"
            )
        journal = chronicle.journals[node]
        journal.catch_up()
        snapshot = disk_slot(journal.disk)
        told = self._told.setdefault((node, dst, msg.ballot, msg.first), {})
        for slot, ballot, value in msg.votes:
            told[slot] = ballot
            cast = journal.last.get(slot, NO_BALLOT)
            if slot > snapshot and (
                cast < ballot
                or (ballot < cast < msg.ballot)
                or chronicle.proposed.get((slot, ballot), self) != value
            ):
                raise InvariantBroken(
                    f"{node} tells {dst} of a vote in slot {slot} for {value} in {ballot}; on disk"
                    f" it is of {cast}"
                )
        if msg.part == msg.parts - 1:
            for slot in range(max(msg.first, snapshot + 1), journal.highest + 1):
                cast = journal.last.get(slot, NO_BALLOT)
                if NO_BALLOT < cast < msg.ballot and slot not in told:
                    raise InvariantBroken(
                        f"{node} promises {msg.ballot} to {dst}, without a word of its vote in slot"
                        f" {slot}, of {cast}"
                    )

    def on_accept(self, node: str, dst: str, msg: Accept) -> None:
        """Raises InvariantBroken. The same message goes to many."""
        if msg.values:
            true = self._true.get(dst)
            if true is not None and true.ballot == msg.ballot:
                if 0 < true.upto < msg.first - self._window:
                    raise InvariantBroken(
                        f"{node} sends {dst} values from slot {msg.first} on, and has heard of"
                        f" votes up to {true.upto} at most: more than a window"
                    )
                true.sent.send(msg.first - 1, len(msg.values), dst)
        if msg is self._last:
            return
        self._last = msg
        if len(msg.values) > self._batch:
            raise InvariantBroken(f"{node} sends {len(msg.values)} values, not {self._batch}")
        if msg.commit > self._chronicle.safe:
            raise InvariantBroken(
                f"{node} calls slot {msg.commit} chosen: none is above {self._chronicle.safe}"
            )
        begun = (msg.ballot, msg.round)
        if begun != self._begun:
            self._begun = begun
            self._check_promise(node, msg.ballot)
            if msg.ballot.node != node:
                raise InvariantBroken(f"{node} leads ballot {msg.ballot}, not its own")
            self._led.begin(self._asked, node, msg.ballot, msg.round)

    def on_accepted(self, node: str, dst: str, msg: Accepted) -> None:
        """Raises InvariantBroken."""
        true = self._true.get(node)
        if true is None or true.ballot != msg.ballot:
            self._check_promise(node, msg.ballot)
            true = self._true[node] = _True(msg.ballot)
        if msg.missing:
            true.sent.spare += EACH
        if msg.upto > true.upto:
            self._check_votes(node, max(true.upto, self._chronicle.safe), msg)
            true.upto = msg.upto
        if msg.round > true.round:
            self._led.confirm(node, msg.ballot, msg.round)
            true.round = msg.round

    def _check_votes(self, node: str, known: int, msg: Accepted) -> None:
        journal = self._chronicle.journals[node]
        journal.catch_up()
        for slot in range(max(known, disk_slot(journal.disk)) + 1, msg.upto + 1):
            if journal.last.get(slot, NO_BALLOT) < msg.ballot:
                raise InvariantBroken(
                    f"{node} accepts slots up to {msg.upto} in {msg.ballot}, and has"
                    f" {journal.last.get(slot)} for slot {slot} on disk"
                )

    def on_catch_up(self, node: str, dst: str, msg: CatchUp) -> None:
        """Raises InvariantBroken."""
        problem = self._chronicle.problem(msg.snapshot)
        if problem is not None:
            raise InvariantBroken(f"{node} sends {msg.snapshot}, but {problem}")


class PaxosMessagesAreBounded(MessagesAreBounded):
    """See `MessagesAreBounded`."""

    carries: ClassVar = {**MessagesAreBounded.carries, Promise: "votes", Accept: "values"}
    hears: ClassVar = dict.fromkeys(carries, "on_message")


class PaxosSnapshotsAnswer(SnapshotsAnswer):
    """See `SnapshotsAnswer`."""

    judges: ClassVar = {CatchUp: "on_snapshot"}
    mark = "catch_up"


class PaxosRequestsAreProposed(RequestsAreProposed):
    """See `RequestsAreProposed`."""

    records = PaxosChronicle

    def leadership(self, replica: Any) -> Any:
        """See `RequestsAreProposed`."""
        return replica.ballot


class PaxosDisksHoldUpLittle(DisksHoldUpLittle):
    """See `DisksHoldUpLittle`."""

    holds: ClassVar = {Accepted: "on_wait", Refused: "on_wait", Reply: "on_reply_waits"}

    def is_durable(self, replica: Any, disk: Disk, dst: str, msg: Any) -> bool:
        """See `DisksHoldUpLittle`."""
        promised: Promised | None = disk.get("promised")
        if promised is None or promised.ballot != replica.promised:
            return False
        if type(msg) is Refused:
            return True
        own = replica.disk
        return disk.last_index == own.last_index and disk_slot(disk) == disk_slot(own)


class PaxosAnswers(AnswersAreTrue):
    """See `AnswersAreTrue`. Without a stable leader reads take slots."""

    records = PaxosChronicle

    def claimed(self, parameters: Any) -> tuple[bool, bool]:
        """See `AnswersAreTrue`."""
        return True, parameters.stable_leader


def disk_slot(disk: Disk) -> int:
    """The last slot of the snapshot on disk; 0 without one."""
    return 0 if disk.snapshot is None else int(disk.snapshot.slot)
