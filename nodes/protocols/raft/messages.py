"""What nodes of Raft say to each other, and what their disks hold."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from nodes.contract.bounds import Count, Natural, WireStruct
from nodes.contract.replica import Reply, Request, Value
from nodes.protocols.raft.parameters import MAX_CHUNK_BYTES


class HardState(WireStruct, frozen=True, gc=False):
    """Table key ``hard_state``. One record, so that a crash cannot tear term and vote apart."""

    term: Count
    vote: str | None


class Entry(WireStruct, frozen=True):
    """A log entry: a request, a new set of members, or (neither) the no-op of a new leader."""

    term: Count
    request: Request | None = None
    members: tuple[str, ...] | None = None


class Snapshot(WireStruct, frozen=True):
    """The state machine after entry ``index``, which was of ``term``.

    ``data``: key -> (value, index of its last write). ``sessions``: client, index of its last
    request, acked, remembered answers; longest silent first.
    """

    index: Count
    term: Count
    members: tuple[str, ...]
    data: dict[str, tuple[Value, Count]]
    sessions: tuple[tuple[str, Count, Natural, tuple[Reply, ...]], ...]


class PreVote(WireStruct, frozen=True, gc=False):
    """Would you vote for me? (dissertation 9.6.) ``term``: the one that the election would have."""

    term: Count
    last_index: Count
    last_term: Count


class PreVoteReply(WireStruct, frozen=True, gc=False):
    """``term``: of the PreVote if granted, else the voter's own."""

    term: Count
    granted: bool


class RequestVote(WireStruct, frozen=True, gc=False):
    """Paper, figure 2."""

    term: Count
    last_index: Count
    last_term: Count


class RequestVoteReply(WireStruct, frozen=True, gc=False):
    """Paper, figure 2."""

    term: Count
    granted: bool


class AppendEntries(WireStruct, frozen=True):
    """Paper, figure 2. ``round``: the leader's last round of confirmations when it sent this."""

    term: Count
    round: Count
    prev_index: Count
    prev_term: Count
    commit: Count
    entries: tuple[Entry, ...] = ()


class AppendEntriesReply(WireStruct, frozen=True, gc=False):
    """``success``: the log agrees with the leader's up to ``index``. Else there is no entry with
    the leader's term at ``index``; ``conflict_term`` is the term of the one there (0: the log is
    shorter) and ``conflict_index`` the first index of that term, or where the log ends (paper,
    5.3). Also answers an `InstallSnapshot` when the whole snapshot is durable."""

    term: Count
    round: Count
    success: bool
    index: Count
    conflict_term: Count = 0
    conflict_index: Count = 0


class InstallSnapshot(WireStruct, frozen=True, gc=False):
    """Paper, figure 13: the bytes from ``offset`` on of the encoded snapshot up to entry ``index``;
    ``done`` with the last ones. Without data: a heartbeat, which asks how far the chunks came."""

    term: Count
    round: Count
    index: Count
    offset: Count
    data: Annotated[bytes, msgspec.Meta(max_length=MAX_CHUNK_BYTES)]
    done: bool


class InstallSnapshotReply(WireStruct, frozen=True, gc=False):
    """To an `InstallSnapshot` (``index`` and ``offset`` are its own) while bytes are missing:
    those before ``received`` are here."""

    term: Count
    round: Count
    index: Count
    offset: Count
    received: Count


class TimeoutNow(WireStruct, frozen=True, gc=False):
    """Stand for election at once (dissertation 3.10), if still in ``term``."""

    term: Count


class TransferLeadership(WireStruct, frozen=True, gc=False):
    """Administration, addressed to any node: make ``target`` the leader."""

    target: str


class ChangeMembership(WireStruct, frozen=True, gc=False):
    """Administration, addressed to any node: add or remove one of the configured nodes as a member
    (dissertation 4.1, single-server changes). It is refused, with a mark, while another is under
    way."""

    change: Literal["add", "remove"]
    node: str
