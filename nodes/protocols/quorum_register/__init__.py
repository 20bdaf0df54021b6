"""The quorum register: a majority holds the newest version.

Begin with `nodes.protocols.quorum_register.replica`."""

from __future__ import annotations

from nodes.protocols.quorum_register.claims import AnswersAreDurable, ReplicasTellTrue
from nodes.protocols.quorum_register.invariants import VersionNamesOneWrite, VersionNeverGoesBack
from nodes.protocols.quorum_register.knobs import KNOBS, PLACED_KNOBS
from nodes.protocols.quorum_register.messages import (
    NOTHING,
    Commit,
    Committed,
    Difference,
    Digest,
    Prepare,
    Prepared,
    Pull,
    Push,
    Record,
    Tag,
)
from nodes.protocols.quorum_register.pace import pace
from nodes.protocols.quorum_register.parameters import QuorumParameters
from nodes.protocols.quorum_register.replica import QuorumRegister

__all__ = [
    "KNOBS",
    "NOTHING",
    "PLACED_KNOBS",
    "AnswersAreDurable",
    "Commit",
    "Committed",
    "Difference",
    "Digest",
    "Prepare",
    "Prepared",
    "Pull",
    "Push",
    "QuorumParameters",
    "QuorumRegister",
    "Record",
    "ReplicasTellTrue",
    "Tag",
    "VersionNamesOneWrite",
    "VersionNeverGoesBack",
    "pace",
]
