"""Mistakes that need what random clients and clocks seldom bring: a late copy in a rare order, a
crash between two writes, a clock that is a day off, quorums of unequal size. And some that nobody
is hurt by, so that nobody asked."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from nodes.contract.bounds import BadMessage
from nodes.parts.forwarding import Requests
from nodes.parts.sessions import Result, Sessions
from nodes.protocols.gossip import Difference, Gossip
from nodes.protocols.quorum_register import Prepare, Prepared, QuorumRegister
from nodes.protocols.raft import Raft
from nodes.simulator.bugs import Bug

_QUARTER_HOUR = 15 * 60 * 1000 << 16
"""As a difference of stamps."""


class PageIsTheDifference(Gossip):
    """Of a difference that takes several messages each counts as the whole."""

    def on_difference(self, src: str, msg: Difference) -> None:
        super().on_difference(src, replace(msg, differing=len(msg.buckets)))


class VoidResultKept(Gossip):
    """The result of a write stays, though a crash took the write: the first one of a key."""

    def _has_effect(self, result: Result) -> bool:
        return result.key not in self.records or super()._has_effect(result)


class _EndsBeforeTheEffect(Sessions):
    def remember(self, result: Result) -> None:
        super().remember(result)
        self._trim_results(result.client)


class ResultsEndBeforeTheEffect(Gossip):
    """What a client has acknowledged ends before the effect of its next write is on disk: a crash
    takes that write, and with it what it said."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sessions.__class__ = _EndsBeforeTheEffect


class NoClockIsSoWrong(Gossip):
    """A stamp that is a quarter of an hour ahead is refused, whosever clock is wrong."""

    def _check_stamp(self, stamp: int) -> None:
        super()._check_stamp(stamp)
        wall = int(self.env.wall() * 1000) << 16
        if stamp > max(self._stamp, wall + _QUARTER_HOUR):
            raise BadMessage(f"stamp {stamp} is ahead of {wall}")


class _FloorOfTheLast(Sessions):
    def _add(self, result: Result) -> None:
        super()._add(result)
        self._sessions[result.client].floor = result.acked


class FloorOfTheLastRequest(QuorumRegister):
    """What a client has acknowledged is what its last request says, be that a late one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sessions.__class__ = _FloorOfTheLast


class WritesAsFewAsAnswer(QuorumRegister):
    """A write is over on as many replicas as have to answer a read."""

    def _end_commit(self, number: int, operation: Any) -> bool:
        operation.quorums = replace(operation.quorums, write=operation.quorums.read)
        return super()._end_commit(number, operation)


class SupersededIsWrittenAgain(QuorumRegister):
    """A request that has a version gets a new one, if there is a newer one than that."""

    def on_prepared(self, src: str, msg: Prepared) -> None:
        if msg.known is not None and msg.known < msg.version:
            msg = replace(msg, known=None)
        super().on_prepared(src, msg)


class LateCopyElsewhere(QuorumRegister):
    """A late copy of what its client has acknowledged is a new write at another node."""

    def _prepared(self, msg: Prepare) -> Prepared:
        return replace(super()._prepared(msg), forgotten=False)


class AsksThoughItIsEnough(QuorumRegister):
    """Who is a read quorum alone asks the others all the same."""

    def _prepare(self, number: int, operation: Any) -> None:
        super()._prepare(number, operation)
        if operation.quorums.read == 1:
            for node in self._others(operation, {}):
                self.out.send(node, Prepare(number, operation.key), early=True)


class _HandedIsForwarded(Requests):
    __slots__ = ()

    def take_arrived(self) -> Any:
        before = {name for name, waiting in self.waiting.items() if waiting.handed}
        asked = super().take_arrived()
        for name, waiting in self.waiting.items():
            waiting.handed = name in before
        return asked

    def forward(self, leader: str | None) -> None:
        arrived = [(r.client, r.sequence) for r, origin in self.arrived if origin == self._node]
        super().forward(leader)
        for name in arrived if leader is not None else ():
            self.waiting[name].handed = True


class ProposedIsNotHanded(Raft):
    """What a leader proposes for its own clients is refused if it is not applied in time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._requests.__class__ = _HandedIsForwarded


class RefusalsEndWithTheProcess(QuorumRegister):
    """Whoever is started again takes a refusal for a result without its effect, which is void."""

    def _has_effect(self, result: Any) -> bool:
        return result.version is not None and super()._has_effect(result)


_RIFL = "Lee et al., RIFL, SOSP 2015, section 3"
BUGS = (
    Bug(
        name="gossip-page-is-the-difference",
        protocol="gossip",
        replica=PageIsTheDifference,
        source="a status that counts a page",
    ),
    Bug(
        name="gossip-void-result-kept",
        protocol="gossip",
        replica=VoidResultKept,
        source=_RIFL,
    ),
    Bug(
        name="gossip-no-clock-is-so-wrong",
        protocol="gossip-lww",
        replica=NoClockIsSoWrong,
        source="Kulkarni et al. 2014, section 4: a bound on how far a clock may be ahead",
    ),
    Bug(
        name="gossip-results-end-before-the-effect",
        protocol="gossip",
        replica=ResultsEndBeforeTheEffect,
        source=_RIFL,
    ),
    Bug(
        name="quorum-floor-of-the-last-request",
        protocol="quorum",
        replica=FloorOfTheLastRequest,
        source=_RIFL,
    ),
    Bug(
        name="quorum-writes-as-few-as-answer",
        protocol="quorum",
        replica=WritesAsFewAsAnswer,
        source="Gifford, Weighted Voting for Replicated Data, SOSP 1979: r + w > n",
    ),
    Bug(
        name="quorum-superseded-is-written-again",
        protocol="quorum",
        replica=SupersededIsWrittenAgain,
        source=_RIFL,
    ),
    Bug(
        name="quorum-refusals-end-with-the-process",
        protocol="quorum",
        replica=RefusalsEndWithTheProcess,
        source="fail means that it is certainly not applied, now or later",
    ),
    Bug(
        name="quorum-late-copy-elsewhere",
        protocol="quorum-placed",
        replica=LateCopyElsewhere,
        source="our own register, until the question was asked",
    ),
    Bug(
        name="quorum-asks-though-it-is-enough",
        protocol="quorum-weak",
        replica=AsksThoughItIsEnough,
        source="a return that is missing",
    ),
    Bug(
        name="raft-proposed-is-not-handed",
        protocol="raft",
        replica=ProposedIsNotHanded,
        source="fail means that it is certainly not applied",
    ),
)
