"""Raft: a leader replicates a log to a majority of the members.

Begin with `nodes.protocols.raft.replica`."""

from __future__ import annotations

from nodes.protocols.raft.claims import AcknowledgementsAreTrue, VotesStand
from nodes.protocols.raft.invariants import (
    CommitIsSafe,
    Durability,
    ElectionSafety,
    ElectionsAreWon,
    LeaderCompleteness,
    LogMatching,
    StateMachineSafety,
)
from nodes.protocols.raft.knobs import ADMINISTRATION, KNOBS, MOMENTS
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
from nodes.protocols.raft.pace import pace
from nodes.protocols.raft.parameters import MAX_CHUNK_BYTES, RaftParameters
from nodes.protocols.raft.progress import Incoming, Outgoing, Progress, State
from nodes.protocols.raft.replica import Raft, Role, entry_bytes

__all__ = [
    "ADMINISTRATION",
    "KNOBS",
    "MAX_CHUNK_BYTES",
    "MOMENTS",
    "AcknowledgementsAreTrue",
    "AppendEntries",
    "AppendEntriesReply",
    "ChangeMembership",
    "CommitIsSafe",
    "Durability",
    "ElectionSafety",
    "ElectionsAreWon",
    "Entry",
    "HardState",
    "Incoming",
    "InstallSnapshot",
    "InstallSnapshotReply",
    "LeaderCompleteness",
    "LogMatching",
    "Outgoing",
    "PreVote",
    "PreVoteReply",
    "Progress",
    "Raft",
    "RaftParameters",
    "RequestVote",
    "RequestVoteReply",
    "Role",
    "Snapshot",
    "State",
    "StateMachineSafety",
    "TimeoutNow",
    "TransferLeadership",
    "VotesStand",
    "entry_bytes",
    "pace",
]
