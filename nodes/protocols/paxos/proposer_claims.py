"""What a proposer of Paxos makes of the promises that it hears, judged when it comes to lead; and
how long it leads.

Sources as in `nodes.protocols.paxos.replica`. All that is known here was seen: in messages that
arrived, in votes, and on disks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from nodes.contract.replica import Invariant, InvariantBroken, Scene, Send
from nodes.parts.claims import outnumber
from nodes.parts.synod import NO_BALLOT, Ballot
from nodes.protocols.paxos.claims import PaxosChronicle
from nodes.protocols.paxos.messages import (
    Accept,
    CatchUp,
    Command,
    Prepare,
    Promise,
    Refused,
    Survey,
    SurveyReply,
)

Vote = tuple[Ballot, Command]


class _Heard:
    """The promises of a ballot that its proposer has heard. ``parts``: by sender, first slot and
    number of parts, those that came; ``whole``: who has told all; ``votes``: by sender and slot."""

    __slots__ = ("ballot", "parts", "votes", "whole")

    def __init__(self, ballot: Ballot) -> None:
        self.ballot = ballot
        self.parts: dict[tuple[str, int, int], set[int]] = defaultdict(set)
        self.votes: dict[str, dict[int, Vote]] = defaultdict(dict)
        self.whole: set[str] = set()

    def add(self, src: str, msg: Promise) -> None:
        """Another part."""
        for slot, ballot, value in msg.votes:
            self.votes[src][slot] = ballot, value
        parts = self.parts[src, msg.first, msg.parts]
        parts.add(msg.part)
        if len(parts) == msg.parts:
            self.whole.add(src)

    def of(self, src: str) -> list[tuple[tuple[str, int, int], set[int]]]:
        """The parts that came of a sender."""
        return [each for each in self.parts.items() if each[0][0] == src]


def _heard(known: dict[str, _Heard], replica: Any, msg: Promise) -> _Heard | None:
    """What ``replica`` has heard before ``msg``, of ``known``; None if that is a promise to another
    ballot than its present one, or does not tell all that is not known to be chosen."""
    if replica.ballot != msg.ballot or msg.first > replica.commit + 1:
        return None
    heard = known.get(replica.id)
    if heard is None or heard.ballot != msg.ballot:
        heard = known[replica.id] = _Heard(msg.ballot)
    return heard


class PromisesAreHeeded(Invariant):
    """Whoever counts a promise has heard all of its parts: those of another one of the same node,
    cut in other places, are none of it. Whoever comes to lead a ballot has heard the promises of a
    majority, and proposes in each slot for which they tell of votes the value of the highest one
    ("Paxos Made Simple", section 2, P2c; PMMC, section 2.3). What an incomplete promise tells of a
    higher vote may be heeded as well."""

    name = "a leader proposes what the promises tell"
    judges: ClassVar = {Promise: "on_promise"}
    looks_at = ("role", "ballot")

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(PaxosChronicle)
        self._chronicle.begin(scene)
        self._heard: dict[str, _Heard] = {}
        self._led: dict[str, Ballot] = {}

    def on_promise(self, replica: Any, src: str, msg: Promise, sends: Sequence[Send]) -> None:
        """Note it, if it is one to the present ballot, and tells all that is not known to be
        chosen. Raises InvariantBroken."""
        heard = _heard(self._heard, replica, msg)
        if heard is None:
            return
        heard.add(src, msg)
        counted = replica.role == "proposer" and src in replica._proposer.promises
        if counted and src not in heard.whole and self.scene.disks:
            came = [f"{sorted(parts)} of {key[2]} from {key[1]} on" for key, parts in heard.of(src)]
            raise InvariantBroken(
                f"{replica.id} takes what {src} promised in {msg.ballot} for whole, and has heard"
                f" the parts {', '.join(came)}"
            )

    def observe(self, node: str, replica: Any) -> None:
        """Raises InvariantBroken."""
        ballot = replica.ballot
        if replica.role != "leader" or self._led.get(node) == ballot or not self.scene.disks:
            return
        self._led[node] = ballot
        heard = self._heard.pop(node, None)
        if heard is None or heard.ballot != ballot:
            heard = _Heard(ballot)
        if not outnumber({node, *heard.whole}, self.scene.nodes):
            raise InvariantBroken(
                f"{node} leads {ballot}, and has heard whole promises of {sorted(heard.whole)}"
            )
        votes = {other: heard.votes[other] for other in heard.whole}
        votes[node] = dict(self._own(node, ballot, replica.commit))
        for slot in dict.fromkeys(slot for told in votes.values() for slot in told):
            if slot > replica.commit:
                self._check(node, slot, heard, votes)

    def _own(self, node: str, ballot: Ballot, commit: int) -> Iterator[tuple[int, Vote]]:
        """Its own votes. They are on disk, as its promise is."""
        journal = self._chronicle.journals[node]
        journal.catch_up()
        for slot in range(commit + 1, journal.highest + 1):
            cast = journal.last.get(slot, NO_BALLOT)
            if NO_BALLOT < cast < ballot:
                yield slot, (cast, self._chronicle.proposed[slot, cast])

    def _check(
        self, node: str, slot: int, heard: _Heard, votes: dict[str, dict[int, Vote]]
    ) -> None:
        ballot, wanted = max(
            (told[slot] for told in votes.values() if slot in told), key=lambda vote: vote[0]
        )
        proposed = self._chronicle.proposed.get((slot, heard.ballot), self)
        if proposed == wanted or any(
            slot in told and told[slot][0] > ballot and told[slot][1] == proposed
            for told in heard.votes.values()
        ):
            return
        what = "nothing" if proposed is self else proposed
        raise InvariantBroken(
            f"{node} proposes {what} in slot {slot} of {heard.ballot}, where the highest vote that"
            f" it was told of is for {wanted}, in {ballot}"
        )


class NothingIsSkipped(Invariant):
    """The first slots that a leader sends to an acceptor are no later than those that it lacks: it
    said so in its promise, or else all that the leader knows to be chosen comes before. What is
    skipped is refused, and comes after a round trip more."""

    name = "a leader begins where the acceptor is"
    hears: ClassVar = {Accept: "on_accept", CatchUp: "on_catch_up"}
    judges: ClassVar = {Promise: "on_promise"}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._heard: dict[str, _Heard] = {}
        self._told: dict[tuple[str, str], tuple[Ballot, int]] = {}
        self._begun: dict[tuple[str, str], Ballot] = {}

    def on_promise(self, replica: Any, src: str, msg: Promise, sends: Sequence[Send]) -> None:
        """Note how far ``src`` has come, unless it says so to one who leads already."""
        node, ballot = replica.id, msg.ballot
        heard = _heard(self._heard, replica, msg)
        if heard is None:
            return
        is_late = replica.role == "leader" and outnumber({node, *heard.whole}, self.scene.nodes)
        heard.add(src, msg)
        told, _ = self._told.get((node, src), (NO_BALLOT, 0))
        if not is_late and told != ballot and src in heard.whole:
            self._told[node, src] = ballot, msg.upto

    def on_catch_up(self, node: str, dst: str, msg: CatchUp) -> None:
        """What is compacted goes there as a snapshot."""
        ballot, upto = self._told.get((node, dst), (NO_BALLOT, 0))
        self._told[node, dst] = ballot, max(upto, msg.snapshot.slot)

    def on_accept(self, node: str, dst: str, msg: Accept) -> None:
        """Raises InvariantBroken."""
        if self._begun.get((node, dst)) == msg.ballot or not self.scene.disks or node == dst:
            return
        self._begun[node, dst] = msg.ballot
        ballot, upto = self._told.get((node, dst), (NO_BALLOT, 0))
        last = upto if ballot == msg.ballot else msg.commit
        if msg.first > last + 1:
            raise InvariantBroken(
                f"{node} begins at slot {msg.first} of {dst} in {msg.ballot}; as far as it knows"
                f" {dst} has come to {last}"
            )


class BallotsAreDue(Invariant):
    """Under a stable leader a node begins a ballot only when a majority, itself counted, has
    answered its last survey that it hears no leader: who is heard is not disturbed. What was said
    to an older survey was true then, so no two have one name, also over a crash."""

    name = "a ballot is due"
    hears: ClassVar = {Survey: "on_survey"}
    judges: ClassVar = {SurveyReply: "on_reply"}
    looks_at = ("role", "ballot")

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._stable: bool = scene.parameters.stable_leader
        self._asked: dict[str, int] = {}
        self._surveys: set[tuple[str, str, int]] = set()
        self._silent: dict[str, set[str]] = {}
        self._began: dict[str, Ballot] = {}

    def is_needed(self) -> bool:
        """See `Invariant`."""
        return self._stable

    def on_survey(self, node: str, dst: str, msg: Survey) -> None:
        """Another one begins, unless it goes to one more node. Raises InvariantBroken."""
        if (node, dst, msg.number) in self._surveys:
            raise InvariantBroken(f"{node} asks {dst} a second time in a survey {msg.number}")
        self._surveys.add((node, dst, msg.number))
        if self._asked.get(node) != msg.number:
            self._asked[node] = msg.number
            self._silent[node] = {node}

    def on_reply(self, replica: Any, src: str, msg: SurveyReply, sends: Sequence[Send]) -> None:
        """Who hears no leader."""
        if msg.silent and msg.number == self._asked.get(replica.id):
            self._silent[replica.id].add(src)

    def observe(self, node: str, replica: Any) -> None:
        """Raises InvariantBroken."""
        ballot = replica.ballot
        if replica.role != "proposer" or self._began.get(node) == ballot or not self.scene.disks:
            return
        self._began[node] = ballot
        silent = self._silent.get(node, {node})
        if not outnumber(silent, self.scene.nodes):
            raise InvariantBroken(
                f"{node} begins {ballot}, and to its last survey, {self._asked.get(node)}, only"
                f" {sorted(silent)} have answered that they hear no leader"
            )


class _Highest:
    """The highest ballots that a node has heard of since it was started, by refusals and answers to
    surveys: ``_before`` the time ``_at_s``, and then."""

    __slots__ = ("_at_s", "_before", "_then", "replica")

    def __init__(self, replica: Any) -> None:
        self.replica = replica
        self._before = self._then = NO_BALLOT
        self._at_s = 0.0

    def hear(self, ballot: Ballot, now_s: float) -> None:
        """It does now."""
        self._before = self.until(now_s)
        self._at_s = now_s
        self._then = max(self._then, ballot)

    def until(self, now_s: float) -> Ballot:
        """The highest one before that. In one step a ballot may have begun first."""
        return max(self._before, self._then) if self._at_s != now_s else self._before


class BallotsAreKept(Invariant):
    """Who has begun a ballot goes on with it until that very ballot is refused, or it has promised
    a higher one (PMMC, section 2.3: preempted), or hears no majority. A message of an older ballot
    that comes late is no reason. Without a stable leader a ballot also ends when its work is
    done. And it begins above all ballots that it has heard of: a lower one is refused, again and
    again where others are far ahead."""

    name = "a ballot is kept"
    judges: ClassVar = {Refused: "on_refused", SurveyReply: "on_survey_reply"}
    looks_at = ("role", "ballot")

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        parameters = scene.parameters
        self._stable: bool = parameters.stable_leader
        self._refused: set[Ballot] = set()
        self._seen: dict[str, tuple[Any, str, Ballot]] = {}
        self._heard: dict[str, _Highest] = {}

    def on_refused(self, replica: Any, src: str, msg: Refused, sends: Sequence[Send]) -> None:
        """Its ballot is refused."""
        self._refused.add(msg.ballot)
        self._of(replica).hear(msg.promised, replica.env.now())

    def on_survey_reply(
        self, replica: Any, src: str, msg: SurveyReply, sends: Sequence[Send]
    ) -> None:
        """It hears of a ballot."""
        self._of(replica).hear(msg.promised, replica.env.now())

    def _of(self, replica: Any) -> _Highest:
        heard = self._heard.get(replica.id)
        if heard is None or heard.replica is not replica:
            heard = self._heard[replica.id] = _Highest(replica)
        return heard

    def observe(self, node: str, replica: Any) -> None:
        """Raises InvariantBroken."""
        if not self.scene.disks:  # Then nobody shows us messages either.
            return
        before, role, ballot = self._seen.get(node, (None, "", NO_BALLOT))
        self._seen[node] = replica, replica.role, replica.ballot
        if (
            before is replica
            and role != "follower"
            and replica.role == "follower"
            and self._stable
            and replica.promised <= ballot
            and ballot not in self._refused
            and all(name != "lost_majority" for name, _ in replica.out.marks)
        ):
            raise InvariantBroken(f"{node} was {role} of {ballot}, and gives up without a reason")
        if replica.role == "proposer" and (before is not replica or replica.ballot != ballot):
            heard = self._of(replica).until(replica.env.now())
            if replica.ballot <= heard:
                raise InvariantBroken(f"{node} begins {replica.ballot}, and has heard of {heard}")


_GROWN, _PART, _SHORT = 32, 8, 10
"""A pause that has grown so many times is short if it is not even that part of what it may be; so
many in a row come by chance once in a billion times."""


class _Contention:
    """What a node has met since it was started. ``preemptions``: since it last brought its work to
    an end. ``in_a_row``: since it last ended otherwise, whatever that was. ``in_all``: ever;
    ``seen``: of them, so many were there when the last pause was looked at. ``led``: the ballot
    that it leads, if any."""

    __slots__ = ("in_a_row", "in_all", "led", "preemptions", "replica", "seen")

    def __init__(self, replica: Any) -> None:
        self.replica = replica
        self.preemptions = self.in_a_row = self.in_all = self.seen = 0
        self.led: str | None = None


def _in_a_row(before: int, marks: Sequence[tuple[str, Any]], number: int) -> int:
    """How often in a row a node was preempted, after the mark of that ``number``. Whoever is
    preempted becomes a follower first."""
    name = marks[number][0]
    if name == "become_follower" and [each for each, _ in marks[number + 1 :]][:1] != ["preempted"]:
        return 0
    return before + (name == "preempted")


class PausesAreBounded(Invariant):
    """Without a stable leader, whoever is preempted pauses for no longer than ``backoff_s``,
    doubled for each time that it was preempted since it last brought its work to an end (nor than
    the parameters allow at all): a duel of long ago holds nobody up. And pauses grow: how long one
    is is drawn from nothing on, so that it may be short, but not `_SHORT` times in a row."""

    name = "a pause is as long as the duel asks for"
    judges: ClassVar = {Prepare: "on_preempted", Refused: "on_preempted"}
    looks_at = ("role", "ballot")

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._met: dict[str, _Contention] = {}
        self._short = 0

    def is_needed(self) -> bool:
        """See `Invariant`."""
        return not self.scene.parameters.stable_leader

    def _of(self, replica: Any) -> _Contention:
        met = self._met.get(replica.id)
        if met is None or met.replica is not replica:
            met = self._met[replica.id] = _Contention(replica)
        return met

    def on_preempted(
        self, replica: Any, src: str, msg: Prepare | Refused, sends: Sequence[Send]
    ) -> None:
        """If it was, look at its pause. Raises InvariantBroken."""
        marks = replica.out.marks
        if replica.stable or not marks or marks[-1][0] != "preempted":
            return
        met = self._of(replica)
        count = sum(name == "preempted" for name, _ in marks)
        times = met.preemptions + count
        parameters = self.scene.parameters
        most_s = min(
            parameters.backoff_s * 2 ** min(times, 30),
            max(parameters.backoff_max_s, parameters.request_timeout_s),
        )
        for name, delay_s in replica.out.timers:
            if name == "backoff" and delay_s is not None and delay_s > most_s:
                raise InvariantBroken(
                    f"{replica.id} pauses for {delay_s:.3f} s, preempted {times} times since its"
                    f" work was done: {most_s:.3f} s at most"
                )
        if met.in_all + count != met.seen:
            met.seen = met.in_all + count
            in_a_row = met.in_a_row
            for number in range(len(marks)):
                in_a_row = _in_a_row(in_a_row, marks, number)
            self._check_growth(replica, in_a_row)

    def observe(self, node: str, replica: Any) -> None:
        """Count."""
        if not self.scene.disks:
            return
        met = self._of(replica)
        marks = replica.out.marks
        for number, (name, details) in enumerate(marks):
            met.in_a_row = _in_a_row(met.in_a_row, marks, number)
            if name == "become_leader":
                met.led = details["ballot"]
            elif name == "preempted":
                met.preemptions += 1
                met.in_all += 1
            elif name == "become_follower":
                ballot, led = details["ballot"], met.led
                met.led = None
                following = marks[number + 1][0] if number + 1 < len(marks) else ""
                if led == ballot and following != "preempted" and self._is_done(replica, ballot):
                    met.preemptions = 0

    def _check_growth(self, replica: Any, times: int) -> None:
        parameters = self.scene.parameters
        least_s = min(parameters.backoff_s * 2 ** min(times, 30), parameters.backoff_max_s)
        delays = [delay_s for name, delay_s in replica.out.timers if name == "backoff"]
        if least_s < _GROWN * parameters.backoff_s or delays[-1] is None:
            return
        if delays[-1] > least_s / _PART:
            self._short = 0
            return
        self._short += 1
        if self._short == _SHORT:
            raise InvariantBroken(
                f"{replica.id} pauses for {delays[-1]:.3f} s, preempted {times} times in a row: the"
                f" {_SHORT}th time that a pause takes not even {1 / _PART:.0%} of {least_s:.3f} s"
            )

    def _is_done(self, replica: Any, ballot: str) -> bool:
        """Whether its clients hear of what it proposed, which is all chosen. (Who gives up because
        nobody waits has brought nothing to an end.)"""
        if not replica.out.replies or replica.promised != replica.ballot:
            return False
        disk = replica.disk
        for index in range(disk.last_index, disk.first_index - 1, -1):
            record = disk.entry(index)
            if str(record.ballot) != ballot:
                break
            if record.first + len(record.values) - 1 > replica.commit:
                return False
        return True
