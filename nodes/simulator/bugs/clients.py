"""What is remembered of clients, with one mistake. Only clients that send again what they need not,
or have several requests open at once, can tell."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from nodes.contract.replica import Reply, Request
from nodes.parts.replicated_map import ReplicatedMap
from nodes.parts.sessions import Result, Sessions
from nodes.protocols.gossip import Gossip
from nodes.protocols.quorum_register import QuorumRegister
from nodes.protocols.raft import Raft
from nodes.simulator.bugs import Bug


class RefusalForgotten(Raft):
    """What was refused is not remembered, so that a late copy of it is carried out."""

    def on_request(self, request: Request) -> None:
        self._requests._refused.clear()
        super().on_request(request)


class _LastAnswerOnly(ReplicatedMap):
    def find(self, request: Request) -> Reply | None:
        session = self._sessions.get(request.client)
        if session is None or not session.replies:
            return None
        last = max(session.replies)
        if request.sequence > last:
            return None
        return msgspec.structs.replace(session.replies[last], sequence=request.sequence)


class OneAnswerPerClient(Raft):
    """Of a client the last answer is kept: whatever comes behind it was answered so, it seems."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._map.__class__ = _LastAnswerOnly


class QuorumRefusalForgotten(QuorumRegister):
    """A write that ended without a second phase is not remembered as refused."""

    def _remember_failure(self, request: Request) -> None:
        pass


class _NothingForgotten(Sessions):
    def is_forgotten(self, client: str, sequence: int) -> bool:
        return False


class QuorumLateCopyApplied(QuorumRegister):
    """A copy that comes after its client has acknowledged the answer is a new write."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sessions.__class__ = _NothingForgotten


class _NotFromDisk(Sessions):
    def load(self, has_effect: Any) -> None:
        pass


class GossipForgetsInACrash(Gossip):
    """A restarted node knows its versions, but not which requests made them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sessions = _NotFromDisk(self.disk)


class _FirstComeFirstForgotten(Sessions):
    def _add(self, result: Result) -> None:
        order = list(self._sessions)
        super()._add(result)
        if result.client in order:
            self._sessions = {client: self._sessions[client] for client in order}


class ForgetsWhoCameFirst(QuorumRegister):
    """The client that came first is the first to be forgotten, though it still writes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sessions.__class__ = _FirstComeFirstForgotten


class RemembersWithoutALimit(QuorumRegister):
    """Results of many clients are remembered, however many they are together."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sessions._max_in_all = sys.maxsize


_RIFL = "Lee et al., RIFL, SOSP 2015, section 3"

BUGS = (
    Bug(
        name="raft-refusal-forgotten",
        protocol="raft",
        replica=RefusalForgotten,
        source="fail means certainly not applied, now or later",
    ),
    Bug(
        name="raft-one-answer-per-client",
        protocol="raft",
        replica=OneAnswerPerClient,
        source="Ongaro, dissertation, 6.3: clients with several requests at a time",
    ),
    Bug(
        name="quorum-refusal-forgotten",
        protocol="quorum",
        replica=QuorumRefusalForgotten,
        source="fail means certainly not applied, now or later",
    ),
    Bug(
        name="quorum-late-copy-applied",
        protocol="quorum",
        replica=QuorumLateCopyApplied,
        source=_RIFL + ": a stale retry is ignored",
    ),
    Bug(
        name="gossip-forgets-in-a-crash",
        protocol="gossip",
        replica=GossipForgetsInACrash,
        source=_RIFL + ": completion records are durable",
    ),
    Bug(
        name="quorum-forgets-who-came-first",
        protocol="quorum",
        replica=ForgetsWhoCameFirst,
        source="the difference between least recently used and first in, first out",
    ),
    Bug(
        name="quorum-remembers-without-a-limit",
        protocol="quorum",
        replica=RemembersWithoutALimit,
        source=_RIFL + ": completion records are collected",
    ),
)
