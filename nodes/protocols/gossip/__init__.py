"""Gossip: every node answers on its own; rumours and anti-entropy spread.

Begin with `nodes.protocols.gossip.replica`."""

from __future__ import annotations

from nodes.protocols.gossip.invariants import (
    ClockNeverGoesBack,
    DotNamesOneVersion,
    DurableVersionsStay,
    OnlyDominatedVersionsDisappear,
)
from nodes.protocols.gossip.knobs import KNOBS, PLACED_KNOBS
from nodes.protocols.gossip.messages import (
    Difference,
    Digest,
    Forward,
    Forwarded,
    Pull,
    Push,
    Record,
    Rumour,
    Sibling,
)
from nodes.protocols.gossip.pace import pace
from nodes.protocols.gossip.parameters import GossipParameters
from nodes.protocols.gossip.policies import KeepSiblings, LastWriteWins, Policy
from nodes.protocols.gossip.replica import (
    MAX_CLOCK_LEAP,
    Gossip,
)

__all__ = [
    "KNOBS",
    "MAX_CLOCK_LEAP",
    "PLACED_KNOBS",
    "ClockNeverGoesBack",
    "Difference",
    "Digest",
    "DotNamesOneVersion",
    "DurableVersionsStay",
    "Forward",
    "Forwarded",
    "Gossip",
    "GossipParameters",
    "KeepSiblings",
    "LastWriteWins",
    "OnlyDominatedVersionsDisappear",
    "Policy",
    "Pull",
    "Push",
    "Record",
    "Rumour",
    "Sibling",
    "pace",
]
