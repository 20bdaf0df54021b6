"""What a protocol promises beyond safety: how soon, how often, and with how many messages.

A promise follows from the parameters of a run (a protocol that waits 1.6 s for a leader cannot
serve within 1 s of its loss). The simulator holds a protocol to it once the network is calm: with
messages that take about a millisecond, none of them lost.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

UNKNOWN_S = 30.0
"""The bound where a protocol says none."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """All times in seconds.

    ``serves_s``: by then after a fault began or ended, each node that is among a majority whose
    members reach each other completes an operation. ``settles_s``: by then after the last change
    nobody stands for election, and those who were away hold what the others hold.
    ``converges_s``: by then replicas of an eventual protocol agree.
    ``idle``: the types of messages that are sent while nobody asks for anything, and how many of
    each in a second, at most, in the whole cluster; None: nothing is said. ``bare``: by type, a
    field that is empty then. ``asked``: how many more messages one operation costs.
    ``unrest``: marks that mean a change of leader, or an attempt at one. ``catches_up``: a node
    that was away has applied what the others have, without anybody asking for anything.
    ``answers``: a node that runs on answers every request that it took, if only ``info``.
    ``repeats_s``: by then a node has completed an operation, although all was lost that it said, or
    was told, when it was asked; None: that is not promised. ``hands_over_s``: by then a leader has
    given up to hand over to a node that is down, and serves what came meanwhile.

    Of an eventual protocol, ``context``: a write is newer than the version that its client tells,
    whatever the clocks say. ``monotonic``: at one node the version of a key never goes back.
    """

    serves_s: float = UNKNOWN_S
    settles_s: float = UNKNOWN_S
    converges_s: float = UNKNOWN_S
    idle: Mapping[str, float] | None = None
    bare: Mapping[str, str] = {}
    asked: float = float("inf")
    unrest: tuple[str, ...] = ()
    catches_up: bool = False
    repeats_s: float | None = None
    hands_over_s: float | None = None
    answers: bool = False
    context: bool = False
    monotonic: bool = False
