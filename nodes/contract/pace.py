"""What a protocol promises beyond safety: how soon, how often, and with how many messages.

A promise follows from the parameters of a run (a protocol that waits 1.6 s for a leader cannot
serve within 1 s of its loss). The simulator holds a protocol to it once the network is calm: with
messages that take about a millisecond, none of them lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from nodes.contract.replica import OperationKind

UNKNOWN_S = 30.0
"""The bound where a protocol says none."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What one operation costs on a cluster at rest. ``hops``, ``fsyncs``: how many messages, and
    how many writes to disk, it waits for one after the other. ``messages``: by type, how many are
    sent because of it, by all nodes; ``full``: of those that have something in their `Pace.bare`
    field."""

    hops: int = 0
    fsyncs: int = 0
    messages: Mapping[str, int] = {}
    full: Mapping[str, int] = {}


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """All times in seconds.

    ``serves_s``: by then after a fault began or ended, each node that is among a majority whose
    members reach each other completes an operation. ``settles_s``: by then after the last change
    nobody stands for election, and those who were away hold what the others hold.
    ``converges_s``: by then replicas of an eventual protocol agree.
    ``idle``: the types of messages that are sent while nobody asks for anything, and how many of
    each in a second, at most, in the whole cluster; None: nothing is said. ``bare``: by type, a
    field that is empty then. ``asked``: how many more messages one operation costs.
    ``least``: by type, how many are sent in a second at least, whatever happens, by nodes that each
    tell all others alike. ``watch_s``: so long one has to look to see all that comes regularly.
    ``tells``: by type, how many of it a node sends that has news of one write, if it tells of it in
    messages of that type, and the writer does; by ``told_s`` after the write that is over.
    ``tells_every_s``: that often somebody tells of writes that go on and on; None: nobody has to.
    ``unrest``: marks that mean a change of leader, or an attempt at one. ``catches_up``: a node
    that was away has applied what the others have, without anybody asking for anything.
    ``answers``: a node that runs on answers every request that it took, if only ``info``.
    ``repeats_s``: by then a node has completed an operation, although all was lost that it said, or
    was told, when it was asked; None: that is not promised. ``hands_over_s``: by then a leader has
    given up to hand over to a node that is down, and serves what came meanwhile.
    ``carries_on_s``: by then after a fault began a node that is served has answered what it was
    asked before, though others fell silent in the middle of it.
    ``gives_up_s``: by then it does where no majority is up, and meanwhile it asks nobody again who
    has answered. ``handed_on``: types of messages by which a request is handed on, with the field
    that has it: a read goes to nobody who is suspected, while there is another one.
    ``finds_elsewhere``: where a write was acknowledged, who asks for the same again at another node
    is given the same answer, while all is well.
    ``once``: where a copy of a write that was acknowledged may come and does not take effect again,
    whatever was written since.
    ``prices``: what an operation costs exactly, by its kind and whether who is asked leads.
    ``elects``: a mark that means that somebody begins to stand for election, what it takes from
    there until it leads if nobody else does, and how long nobody begins, at least and at most,
    where the leader is heard no more.
    ``refuses``: types of messages by which a node tells a leader that it has not what comes before,
    with a field that is not empty then: nobody does who has the leader's log.
    ``beats_s``: that often a leader tells all others what is committed, and hears what they lack.
    ``replaces_s``: so long after a node suspects a member of a range for good, it has proposed
    another one, if no member that is up comes before it; None: nothing is placed.
    ``in_flight``: so many values may be on their way from a leader to a node at once.
    ``unsure_s``: by then after a node fell silent its peers no longer say what share of the copies
    agree (``replication_ratio`` of `Replica.probe`).

    Of an eventual protocol, ``context``: a write is newer than the version that its client tells,
    whatever the clocks say. ``monotonic``: at one node the version of a key never goes back.
    """

    serves_s: float = UNKNOWN_S
    settles_s: float = UNKNOWN_S
    converges_s: float = UNKNOWN_S
    idle: Mapping[str, float] | None = None
    bare: Mapping[str, str] = {}
    asked: float = float("inf")
    costs: Mapping[str, int] = {}
    least: Mapping[str, float] = {}
    watch_s: float = 0.0
    tells: Mapping[str, int] = {}
    told_s: float = 0.0
    tells_every_s: float | None = None
    carries_on_s: float | None = None
    gives_up_s: float | None = None
    handed_on: Mapping[str, str] = {}
    finds_elsewhere: bool = False
    unsure_s: float | None = None
    replaces_s: float | None = None
    in_flight: float = float("inf")
    prices: Mapping[tuple[OperationKind, bool], Price] = {}
    refuses: Mapping[str, str] = {}
    beats_s: float | None = None
    elects: tuple[str, Price, float, float] | None = None
    unrest: tuple[str, ...] = ()
    catches_up: bool = False
    repeats_s: float | None = None
    hands_over_s: float | None = None
    answers: bool = False
    once: Literal["nowhere", "node asked first", "anywhere"] = "nowhere"
    context: bool = False
    monotonic: bool = False
