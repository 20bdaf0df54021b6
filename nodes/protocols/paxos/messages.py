"""What nodes of Paxos say to each other, and what their disks hold."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from nodes.contract.bounds import MAX_COUNT, Count, Natural, WireStruct
from nodes.contract.replica import Reply, Request, Value
from nodes.parts.synod import Ballot

Command: TypeAlias = Request | None
"""What a slot holds. None is the no-op."""


class Promised(WireStruct, frozen=True, gc=False):
    """Table key ``promised``: no vote in a ballot below this one, ever."""

    ballot: Ballot


class Votes(WireStruct, frozen=True):
    """Journal record: votes in the slots from ``first`` on, of a node that knew all slots up to
    ``commit`` to be chosen. A later record overrules an earlier one."""

    ballot: Ballot
    first: Count
    commit: Count
    values: tuple[Command, ...]


class Snapshot(WireStruct, frozen=True):
    """The state machine after ``slot`` (see `nodes.parts.replicated_map`)."""

    slot: Count
    data: dict[str, tuple[Value, Count]]
    sessions: tuple[tuple[str, Count, Natural, tuple[Reply, ...]], ...]


class Survey(WireStruct, frozen=True, gc=False):
    """Does anybody hear a leader? ``number`` names the survey, and no other of this node, not
    even before a crash."""

    number: Count


class SurveyReply(WireStruct, frozen=True, gc=False):
    """``silent``: no leader is heard here. ``promised``: what a new ballot must be above."""

    number: Count
    silent: bool
    promised: Ballot


class Prepare(WireStruct, frozen=True, gc=False):
    """Phase 1a, for all slots from ``first`` on."""

    ballot: Ballot
    first: Count


class Promise(WireStruct, frozen=True):
    """Phase 1b: one of ``parts`` that together hold all votes (slot, ballot, value) of the sender
    from ``first`` on, which is higher than asked for if it has compacted more than that. ``upto``:
    what it knows to be chosen."""

    ballot: Ballot
    first: Count
    upto: Count
    part: Count
    parts: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
    votes: tuple[tuple[Count, Ballot, Command], ...]


class Accept(WireStruct, frozen=True):
    """Phase 2a, for the slots from ``first`` on; without values, a heartbeat that comes before
    ``first``. ``commit``: all slots up to it are chosen. ``round``: the leader's last round of
    confirmations."""

    ballot: Ballot
    round: Count
    first: Count
    commit: Count
    values: tuple[Command, ...] = ()


class Accepted(WireStruct, frozen=True, gc=False):
    """Phase 2b, for all slots up to ``upto``: the sender voted there in this ballot, or knows what
    is chosen. ``missing``: the Accept came behind a gap."""

    ballot: Ballot
    round: Count
    upto: Count
    missing: bool


class Refused(WireStruct, frozen=True, gc=False):
    """A Prepare or Accept of ``ballot`` came too late: a higher one is ``promised``."""

    ballot: Ballot
    promised: Ballot


class CatchUp(WireStruct, frozen=True):
    """What was chosen up to the snapshot's slot, true in every ballot."""

    snapshot: Snapshot
