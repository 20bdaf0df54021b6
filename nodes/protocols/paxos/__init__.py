"""Paxos: a log of instances of single-decree Paxos.

Begin with `nodes.protocols.paxos.replica`."""

from __future__ import annotations

from nodes.protocols.paxos.claims import AcceptorsTellTrue, disk_slot
from nodes.protocols.paxos.invariants import (
    Agreement,
    Durability,
    MajoritiesAreDurable,
    OneProposer,
)
from nodes.protocols.paxos.knobs import KNOBS, MOMENTS
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
    Survey,
    SurveyReply,
    Votes,
)
from nodes.protocols.paxos.pace import pace
from nodes.protocols.paxos.parameters import PaxosParameters
from nodes.protocols.paxos.progress import Progress
from nodes.protocols.paxos.replica import (
    MAX_OPEN_SLOTS,
    PAUSE_PHASES,
    Paxos,
    Role,
    value_bytes,
)

__all__ = [
    "KNOBS",
    "MAX_OPEN_SLOTS",
    "MOMENTS",
    "PAUSE_PHASES",
    "Accept",
    "Accepted",
    "AcceptorsTellTrue",
    "Agreement",
    "CatchUp",
    "Command",
    "Durability",
    "MajoritiesAreDurable",
    "OneProposer",
    "Paxos",
    "PaxosParameters",
    "Prepare",
    "Progress",
    "Promise",
    "Promised",
    "Refused",
    "Role",
    "Snapshot",
    "Survey",
    "SurveyReply",
    "Votes",
    "disk_slot",
    "pace",
    "value_bytes",
]
