"""Drawing a tape of faults from a seed: swarm testing (Groce et al., ISSTA 2012).

Each seed has its own mix of kinds, so that rare combinations come up. Most seeds mix at random;
others follow a *plot*, for rare bugs need several rare things in a row, which chance alone seldom
brings about. A plot knows no protocol: it says who is struck and when, by role and by place, and
every protocol goes through all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from nodes.contract.replica import Replica
from nodes.registry import Protocol
from nodes.simulator.faults import Fault


class _Draw:
    """Decisions from one random stream, by `random()` alone, which no Python version may change."""

    def __init__(self, rng: random.Random) -> None:
        self.random = rng.random

    def below(self, count: int) -> int:
        return int(self.random() * count)

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[self.below(len(choices))]

    def between(self, low: float, high: float) -> float:
        return round(low + (high - low) * self.random(), 6)

    def order(self, items: Sequence[str]) -> list[str]:
        rest, out = list(items), []
        while rest:
            out.append(rest.pop(self.below(len(rest))))
        return out

    def chance(self, probability: float) -> bool:
        return self.random() < probability


KINDS = (
    *("partition", "rough-links", "client-loss", "crash", "trap", "pause", "clock"),
    *("slow-fsync", "full-disk", "fsync-error"),
)
"""What a tape mixes; others come on top (`draw_more`). Each is a fault, but for ``rough-links``,
which are several at a time, and ``client-loss``, which is one of two."""
_POINTS = (
    *("before-fsync", "before-fsync", "in-fsync", "after-fsync", "after-release"),
    *("after-send", "after-send", "after-reply"),
)
_SHAPES = (
    *("groups", "groups", "isolate", "isolate", "isolate"),
    *("mute", "deaf", "one-way", "bridge", "majorities-ring", "chain"),
)
_ANSWERS = ("Reply", "ed", "Promise", "Refuse")
"""What names of messages that answer others have in them."""


Tape: TypeAlias = list[Fault]


def draw_tape(
    rng: random.Random,
    nodes: Sequence[str],
    protocol: Protocol,
    duration_s: float,
    patience_s: float = 1.0,
) -> Tape:
    """The faults of one seed, in one of the styles of `_STYLES`. ``patience_s``: how long it takes
    the protocol to give a leader up, if it has any; some plots last a small multiple of that."""
    stage = _Stage(_Draw(rng), nodes, protocol, duration_s, patience_s)
    share = stage.draw.random() * sum(weight for weight, _ in _STYLES)
    for weight, style in _STYLES:
        share -= weight
        if share < 0:
            return style(stage)
    raise AssertionError("the shares add up")


class _Stage:
    """What a style draws from, and for whom."""

    def __init__(
        self,
        draw: _Draw,
        nodes: Sequence[str],
        protocol: Protocol,
        duration_s: float,
        patience_s: float,
    ) -> None:
        self.draw = draw
        self.patience_s = patience_s
        self.nodes = nodes
        self.replica = protocol.replica
        self.moments = protocol.moments
        self.administration = protocol.administration
        self.duration_s = duration_s

    def some_others(self) -> list[str]:
        """None, one, or so many that a leader with them is a minority still."""
        few = max(0, (len(self.nodes) - 1) // 2 - 1)
        return self.draw.order(self.nodes)[: self.draw.below(few + 1)]


# --- styles: kinds at random ---


def _calm(stage: _Stage) -> Tape:
    return []


def _same_trap(stage: _Stage) -> Tape:
    """Nodes crash at one kind of place over and over."""
    nodes = list(stage.nodes)
    trap = _draw_trap(stage.draw, nodes, nodes, stage.replica)
    trap |= {"nodes": nodes, "times": 10}
    return _at_random(stage, ["trap"], 0.2, trap)


def _partitions(stage: _Stage) -> Tape:
    return _at_random(stage, ["partition"], stage.draw.pick((0.5, 2.0)))


def _one_kind(stage: _Stage) -> Tape:
    draw = stage.draw
    return _at_random(stage, [draw.pick(KINDS)], draw.pick((0.4, 1.0)))


def _mixture(stage: _Stage) -> Tape:
    draw = stage.draw
    kinds = [kind for kind in KINDS if draw.chance(0.35)]
    kinds += [kind for kind in ("partition", "crash", "trap") if draw.chance(0.4)]
    return _at_random(stage, kinds or [draw.pick(KINDS)], draw.pick((0.4, 1.0, 2.0)))


def _at_random(
    stage: _Stage, kinds: Sequence[str], gap_s: float, same: dict[str, Any] | None = None
) -> Tape:
    draw = stage.draw
    at_leader = draw.pick((0.0, 0.5, 0.9))
    tape: Tape = []
    at_s = draw.between(0.0, 2.0)
    while at_s < stage.duration_s:
        kind = draw.pick(kinds)
        for_s, faults = _draw_faults(draw, kind, stage.nodes, stage.replica, at_leader)
        for fault, args in faults:
            tape.append(Fault(at_s=at_s, kind=fault, for_s=for_s, args=same or args))
        at_s = round(at_s + draw.between(0.0, 2 * gap_s), 6)
    return tape


# --- styles: plots ---


def _churn(stage: _Stage) -> Tape:
    """Leaders that fall one after the other, each with a log of its own: alone with a few others
    it goes on for a while, then it is cut off or killed, and another small group begins. That is
    how logs come to differ in their last terms (figure 8 of the Raft paper)."""
    draw, nodes = stage.draw, stage.nodes
    tape: Tape = []
    gap_s = draw.pick((0.15, 0.3, 0.6))
    at_s = draw.between(0.3, 1.5)
    while at_s < stage.duration_s:
        for_s = draw.between(0.5 * gap_s, 3 * gap_s)
        kind = draw.pick(("isolate", "mute", "crash", "crash", "groups"))
        args: dict[str, Any]
        if kind == "crash":
            args = {"nodes": ["leader"]}
        elif kind == "groups":
            mixed = draw.order(nodes)
            split = len(nodes) // 2
            kind, args = "partition", {"groups": [mixed[:split], mixed[split:]]}
        else:
            args = {"groups": kind, "nodes": ["leader"], "in_flight": draw.chance(0.5)}
            kind = "partition"
        tape.append(Fault(at_s=at_s, kind=kind, for_s=for_s, args=args))
        at_s = round(at_s + draw.between(0.0, 2 * gap_s), 6)
    return tape


def _relay(stage: _Stage) -> Tape:
    """A leader is cut off, in some seeds with a few others, and goes on as if nothing were, or all
    it says comes late; when it is back its successor is struck, or after a while of peace. The one
    who was away has a longer log than the others then, believes itself leader still, or has missed
    so much that it needs a snapshot. In some seeds every clock runs at a rate of its own."""
    draw = stage.draw
    tape: Tape = []
    if draw.chance(0.3):
        for node in stage.nodes:
            args: dict[str, Any] = {"nodes": [node], "drift": draw.pick((-0.5, -0.2, 0, 0.25, 1))}
            tape.append(Fault(at_s=0.0, kind="clock", for_s=stage.duration_s, args=args))
    patience_s = stage.patience_s
    for_s = max(0.1, patience_s * draw.pick((0.7, 1.2, 2.0)))
    rest_s = patience_s * draw.pick((0.0, 0.0, 0.5, 2.0))
    shape = draw.pick(("isolate", "isolate", "mute", "deaf", "late"))
    late_s = patience_s * draw.pick((0.7, 1.5, 3.0))
    at_s = draw.between(0.3, 1.5)
    while at_s < stage.duration_s:
        length_s = draw.between(0.6 * for_s, 1.8 * for_s)
        few = ["leader", *stage.some_others()]
        args = {"groups": shape, "nodes": few, "in_flight": draw.chance(0.5)}
        if shape == "late":
            args = {"links": [f"{node}->all" for node in few], "latency_ms": _ms(late_s)}
        kind = "latency" if shape == "late" else "partition"
        tape.append(Fault(at_s=at_s, kind=kind, for_s=length_s, args=args))
        pause_s = draw.between(0.5 * rest_s, 1.5 * rest_s) if rest_s else draw.between(-0.02, 0.02)
        at_s = round(max(at_s + length_s + pause_s, at_s), 6)
    return tape


def _struck_at_a_moment(stage: _Stage) -> Tape:
    """Whoever reaches a moment of its protocol (it becomes leader, it takes a snapshot) is cut off
    there, before anybody hears of it, or dies."""
    draw = stage.draw
    if not stage.moments:
        return _same_trap(stage)
    args: dict[str, Any] = {
        "nodes": list(stage.nodes),
        "point": "mark",
        "match": draw.pick(stage.moments),
        "times": 1000,
        "down_s": stage.patience_s * draw.pick((0.3, 1.0, 2.0)),
        "cut": draw.pick(("isolate", "mute", "mute", "")),
    }
    tape: Tape = []
    at_s = draw.between(0.0, 1.0)
    while at_s < stage.duration_s:
        for_s = draw.between(0.5, 4.0)
        tape.append(Fault(at_s=at_s, kind="trap", for_s=for_s, args=args))
        # Else nothing need begin: a leader that stays passes no such moment.
        tape.append(Fault(at_s=at_s, kind="crash", for_s=0.1, args={"nodes": ["leader"]}))
        at_s = round(at_s + for_s + draw.pick((0.1, 0.5)), 6)
    return tape


def _amnesia(stage: _Stage) -> Tape:
    """Nodes restart one after another while answers get lost: who asks again must not be served
    again by one who forgot."""
    draw, nodes = stage.draw, stage.nodes
    lost = draw.pick((0.3, 0.7, None))
    tape: Tape = []
    gap_s = draw.pick((0.1, 0.3, 0.8))
    at_s = draw.between(0.2, 1.0)
    while at_s < stage.duration_s:
        if draw.chance(0.4):
            kind, args = "replies-lost", {"node": draw.pick((*nodes, "leader")), "share": lost}
            for_s = draw.between(0.1, 2.0)
        else:
            kind, args = "crash", {"nodes": [draw.pick((*nodes, "leader"))]}
            for_s = draw.pick((0.01, 0.1, 0.5))
        tape.append(Fault(at_s=at_s, kind=kind, for_s=for_s, args=args))
        at_s = round(at_s + draw.between(0.0, 2 * gap_s), 6)
    return tape


def _duel(stage: _Stage) -> Tape:
    """Somebody is lost again and again, so that others take over, several at a time since all that
    they say comes late; and whoever takes a certain step of that crashes after it, and is back
    before the others are through. That is how proposers duel, and forget what they said."""
    draw, nodes = stage.draw, list(stage.nodes)
    latency_s = draw.pick((0.0, 0.02, 0.1))
    tape: Tape = []
    if latency_s:
        slow = {"latency_ms": _ms(latency_s)}
        tape.append(Fault(at_s=0.0, kind="latency", for_s=stage.duration_s, args=slow))
    trap: dict[str, Any] = {
        "nodes": nodes,
        "point": draw.pick(("after-send", "after-send", "after-fsync", "before-fsync")),
        "nth": draw.pick((1, 2, 3)),
        "times": 3,
        "down_s": draw.pick((0.005, 0.05, 0.3)),
        "match": "rare",
    }
    at_s = draw.between(0.3, 1.5)
    while at_s < stage.duration_s:
        if trap["point"] == "after-send":
            trap = trap | {"match": draw.pick([kind.__name__ for kind in stage.replica.MESSAGES])}
        for_s = draw.between(0.5, 2.0)
        lost = draw.pick((*nodes, "leader"))
        kind, args = draw.pick(
            (("crash", {"nodes": [lost]}), ("partition", {"groups": "isolate", "nodes": [lost]}))
        )
        tape.append(Fault(at_s=at_s, kind=kind, for_s=for_s, args=args))
        tape.append(Fault(at_s=at_s, kind="trap", for_s=for_s, args=trap))
        at_s = round(at_s + draw.between(0.3, 2.0), 6)
    return tape


_STYLES: tuple[tuple[int, Callable[[_Stage], Tape]], ...] = (
    (7, _calm),
    (18, _same_trap),
    (8, _partitions),
    (7, _one_kind),
    (20, _mixture),
    (8, _churn),
    (14, _relay),
    (4, _duel),
    (8, _struck_at_a_moment),
    (6, _amnesia),
)


# --- on top of a tape, in some seeds ---

_BEHIND = 0.12
"""The share of the seeds in which somebody comes back behind the others."""


def draw_more(
    rng: random.Random,
    nodes: Sequence[str],
    protocol: Protocol,
    duration_s: float,
    patience_s: float = 1.0,
) -> Tape:
    """What comes on top of `draw_tape` in about every third seed, from a random stream of its own:
    an administrator at work in the middle of it, nodes that are slow or asleep while leaders
    change, answers that come late. The arguments are those of `draw_tape`."""
    stage = _Stage(_Draw(rng), nodes, protocol, duration_s, patience_s)
    draw = stage.draw
    tape: Tape = []
    if protocol.administration.messages and draw.chance(0.25):
        tape += _administration(stage)
    if draw.chance(0.2):
        more = draw.pick((_slow_steps, _slow_steps, _pauses, _pauses, _late_kinds, _slow_disks))
        tape += more(stage)
    if draw.chance(_BEHIND):
        tape += _comes_back_behind(stage)
    return sorted(tape, key=lambda fault: fault.at_s)


def _times(stage: _Stage, gap_s: float) -> Iterator[float]:
    """Moments between which ``gap_s`` pass on average."""
    at_s = stage.draw.between(0.1, 1.5)
    while at_s < stage.duration_s:
        yield at_s
        at_s = round(at_s + stage.draw.between(0.0, 2 * gap_s), 6)


def _administration(stage: _Stage) -> Tape:
    """Changes of members and leaders, whatever else is going on; and in some seeds whoever begins
    one is struck just then."""
    draw, nodes = stage.draw, stage.nodes
    administration = stage.administration
    actions = [*administration.messages, "add", "replace"]
    if "add" not in administration.messages:
        actions = list(administration.messages)
    tape: Tape = []
    for at_s in _times(stage, draw.pick((0.2, 0.6, 1.5))):
        action = draw.pick(actions)
        args: dict[str, Any] = {
            "action": action,
            "node": "leader" if action == "remove" and draw.chance(0.3) else draw.pick(nodes),
            "at": "leader" if draw.chance(0.7) else draw.pick(nodes),
            "every_ms": draw.pick((0, 50, 300)),
        }
        if action == "replace":
            args["lost"] = "leader" if draw.chance(0.3) else draw.pick(nodes)
        for_s = draw.between(0.05, 1.5)
        tape.append(Fault(at_s=at_s, kind="administer", for_s=for_s, args=args))
    if administration.moments and draw.chance(0.4):
        trap: dict[str, Any] = {
            "nodes": list(nodes),
            "point": "mark",
            "match": draw.pick(administration.moments),
            "nth": draw.pick((1, 1, 2)),
            "times": 1000,
            "down_s": stage.patience_s * draw.pick((0.1, 0.5, 2.0)),
            "cut": draw.pick(("isolate", "mute", "mute", "")),
        }
        tape.append(Fault(at_s=0.0, kind="trap", for_s=stage.duration_s, args=trap))
    return tape


def _slow_steps(stage: _Stage) -> Tape:
    """A node takes 5 to 50 ms for each step: what it hears in the meantime, of whatever leader and
    term, is one batch."""
    draw = stage.draw
    tape: Tape = []
    for at_s in _times(stage, draw.pick((0.3, 1.0))):
        node = "leader" if draw.chance(0.3) else draw.pick(stage.nodes)
        args = {"nodes": [node], "step_ms": draw.pick((5, 20, 50))}
        tape.append(Fault(at_s=at_s, kind="slow-steps", for_s=draw.between(0.2, 3.0), args=args))
    return tape


def _pauses(stage: _Stage) -> Tape:
    """A node sleeps while another one comes to lead, and then hears it all at once."""
    draw = stage.draw
    few = draw.chance(0.5)
    tape: Tape = []
    for at_s in _times(stage, stage.patience_s * draw.pick((1.0, 2.0))):
        for_s = stage.patience_s * draw.between(0.5, 2.5)
        nodes = ["leader"] if few or draw.chance(0.5) else [draw.pick(stage.nodes)]
        tape.append(Fault(at_s=at_s, kind="pause", for_s=round(for_s, 6), args={"nodes": nodes}))
        if draw.chance(0.5):
            at_s = round(at_s + for_s * draw.between(0.0, 0.8), 6)
            tape.append(Fault(at_s=at_s, kind="crash", for_s=0.1, args={"nodes": ["leader"]}))
    return tape


def _late_kinds(stage: _Stage) -> Tape:
    """Messages of one or two types come late, by as much as it takes to have another leader, and
    in some seeds leaders are cut off meanwhile: the answers to one come when it leads again."""
    draw = stage.draw
    cuts = draw.chance(0.7)
    names = [message.__name__ for message in stage.replica.MESSAGES]
    answers = [name for name in names if any(each in name for each in _ANSWERS)] or names
    tape: Tape = []
    for at_s in _times(stage, draw.pick((0.5, 1.5))):
        kinds = [draw.pick(answers)]
        if draw.chance(0.3):
            kinds.append(draw.pick(names))
        args = {
            "kinds": kinds,
            "links": [f"all->{draw.pick(('all', 'leader', draw.pick(stage.nodes)))}"],
            "delay_ms": _ms(stage.patience_s * draw.pick((0.1, 0.7, 2.0))),
        }
        tape.append(Fault(at_s=at_s, kind="late-kinds", for_s=draw.between(0.3, 3.0), args=args))
        if cuts:
            few = ["leader", *stage.some_others()]
            shape = draw.pick(("isolate", "mute", "deaf"))
            args = {"groups": shape, "nodes": few, "in_flight": False}
            for_s = round(stage.patience_s * draw.between(0.5, 2.0), 6)
            at_s = round(at_s + draw.between(0.0, 0.5), 6)
            tape.append(Fault(at_s=at_s, kind="partition", for_s=for_s, args=args))
    return tape


def _comes_back_behind(stage: _Stage) -> Tape:
    """A node with a fast clock is away until others have dropped what it lacks, one of whom is slow
    and has dropped less; when it is back whoever leads falls for a moment, and all answers come
    late, one by one. It stands, has to ask for what it missed, and hears of that more than once
    before it has heard all that anybody answers."""
    draw, patience_s = stage.draw, stage.patience_s
    first, slow = draw.order(stage.nodes)[:2]
    names = [message.__name__ for message in stage.replica.MESSAGES]
    answers = [name for name in names if any(each in name for each in _ANSWERS)] or names
    late_s = patience_s * draw.pick((0.05, 0.2, 0.5))
    tape: Tape = []
    args: dict[str, Any]
    for node in stage.nodes:
        args = {"nodes": [node], "drift": 1.0 if node == first else -0.5}
        tape.append(Fault(at_s=0.0, kind="clock", for_s=stage.duration_s, args=args))
    args = {"nodes": [slow], "step_ms": draw.pick((5, 20))}
    tape.append(Fault(at_s=0.0, kind="slow-steps", for_s=stage.duration_s, args=args))
    at_s = draw.between(0.3, 1.5)
    while at_s < stage.duration_s:
        away_s = draw.between(0.3, 1.5) + patience_s
        args = {"groups": "isolate", "nodes": [first]}
        tape.append(Fault(at_s=at_s, kind="partition", for_s=round(away_s, 6), args=args))
        back_s = round(at_s + away_s, 6)
        args = {"nodes": ["leader"]}
        tape.append(Fault(at_s=back_s, kind="crash", for_s=draw.pick((0.01, 0.1)), args=args))
        # From a little before: so there is much that is begun, and not known to be agreed.
        early_s = round(max(0.0, back_s - late_s), 6)
        for_s = round(2 * patience_s + late_s, 6)
        args = {"kinds": answers, "links": "all", "delay_ms": _ms(late_s)}
        tape.append(Fault(at_s=early_s, kind="late-kinds", for_s=for_s, args=args))
        at_s = round(back_s + patience_s * draw.between(1.0, 3.0), 6)
    return tape


def _slow_disks(stage: _Stage) -> Tape:
    """Disks so slow that what a node has promised is not durable for long, while leaders fall."""
    draw = stage.draw
    tape: Tape = []
    for at_s in _times(stage, draw.pick((0.3, 1.0))):
        node = "leader" if draw.chance(0.4) else draw.pick(stage.nodes)
        args: dict[str, Any] = {"nodes": [node], "delay_ms": draw.pick((20, 200, 2000))}
        tape.append(Fault(at_s=at_s, kind="slow-fsync", for_s=draw.between(0.3, 3.0), args=args))
        if draw.chance(0.5):
            torn = draw.pick((0.0, 0.5, 1.0))
            args = {"nodes": ["leader" if draw.chance(0.7) else node], "torn": torn}
            at_s = round(at_s + draw.between(0.0, 0.5), 6)
            tape.append(Fault(at_s=at_s, kind="crash", for_s=draw.pick((0.01, 0.3)), args=args))
    return tape


# --- one fault ---


def _ms(seconds: float) -> int:
    """Seconds as the vocabulary has them."""
    return max(1, round(seconds * 1000))


def _draw_faults(
    draw: _Draw, kind: str, nodes: Sequence[str], replica: type[Replica], at_leader: float
) -> tuple[float, list[tuple[str, dict[str, Any]]]]:
    """How long, and which faults (one, or several at a time)."""
    for_s = draw.pick((draw.between(0.05, 0.6), draw.between(0.5, 4.0)))
    one = "leader" if draw.chance(at_leader) else draw.pick(nodes)
    mixed = draw.order(nodes)
    args: dict[str, Any]
    if kind == "partition":
        shape = draw.pick(_SHAPES)
        args = {"groups": shape, "in_flight": draw.chance(0.7)}
        if shape in ("groups", "one-way"):
            args["one_way"] = True if shape == "one-way" else None
            split = (
                len(nodes) // 2
                if draw.chance(0.7)
                else 1 + draw.below(len(nodes) - 1)
                if len(nodes) > 1
                else 0
            )
            args["groups"] = [mixed[:split], mixed[split:]]
        elif shape in ("isolate", "mute", "deaf"):
            args["nodes"] = [one]
        else:
            args["nodes"] = mixed
    elif kind == "rough-links":
        return for_s, _draw_rough(draw, nodes)
    elif kind == "client-loss":
        kind = draw.pick(("requests-lost", "replies-lost"))
        args = {"node": one, "share": draw.pick((0.3, None))}
    elif kind == "crash":
        several = draw.pick((1, 1, 1, 2, len(nodes)))
        args = {
            "nodes": [one] if several == 1 else mixed[:several],
            "torn": draw.pick((0.0, 0.0, 0.5, 0.9, 1.0)),
        }
    elif kind == "trap":
        for_s = draw.between(0.5, 5.0)
        args = _draw_trap(draw, nodes, mixed, replica)
    elif kind == "pause":
        args = {"nodes": [one] if draw.chance(0.8) else mixed[:2]}
    elif kind == "clock":
        args = {"nodes": [draw.pick(nodes)]}
        what = draw.below(3)
        if what == 0:
            args["drift"] = draw.pick((-0.5, -0.1, 0.1, 1.0))
        elif what == 1:
            args["jump_ms"] = draw.pick((200, 2000, 60_000))
        else:
            args["offset_ms"] = draw.pick((-60_000, -200, 200, 60_000))
    elif kind == "slow-fsync":
        args = {"nodes": [one], "delay_ms": draw.pick((5, 50, 500))}
    else:
        args = {"nodes": [one]}
    return for_s, [(kind, args)]


def _draw_rough(draw: _Draw, nodes: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Some links are bad in several ways."""
    faults: list[tuple[str, dict[str, Any]]] = []
    if draw.chance(0.4):
        faults.append(("message-loss", {"share": draw.pick((0.02, 0.2, 0.5))}))
    if draw.chance(0.4):
        faults.append(("duplication", {"share": draw.pick((0.05, 0.5))}))
    if draw.chance(0.4):
        share, delay_ms = draw.pick((0.1, 0.5)), draw.pick((20, 200, 1000))
        faults.append(("reordering", {"share": share, "delay_ms": delay_ms}))
    if draw.chance(0.4) or not faults:
        faults.append(("latency", {"latency_ms": draw.pick((10, 100, 400))}))
    if draw.chance(0.5):
        some = [f"{a}->{b}" for a in nodes for b in nodes if a != b and draw.chance(0.4)]
        for _, args in faults:
            args["links"] = some or "all"
    return faults


def _draw_trap(
    draw: _Draw, nodes: Sequence[str], mixed: list[str], replica: type[Replica]
) -> dict[str, Any]:
    """Rare writes and rare messages are where rare bugs are, so they are drawn by kind, not by how
    often they happen."""
    args: dict[str, Any] = {
        "nodes": list(nodes) if draw.chance(0.7) else mixed[:1],
        "nth": draw.pick((1, 1, 1, 2, 5)),
        "times": draw.pick((1, 1, 2, 10)),
        "down_s": draw.pick((0.001, 0.005, 0.02, 0.1, 1.0)),
    }
    names = [message.__name__ for message in replica.MESSAGES]
    point = draw.pick(_POINTS)
    args["point"] = point
    if point == "after-reply":
        # The hardest question to durability: everything that was acknowledged, and nothing else,
        # may be relied on after a power failure.
        args["match"] = "ok"
        args["everybody"] = draw.chance(0.7)
    elif point == "after-send" and names:
        args["match"] = draw.pick(names)
    elif point != "after-send":
        args["match"] = draw.pick(("rare", "Put", "Put", "Append", ""))
        args["torn"] = draw.pick((0.0, 0.0, 0.5, 1.0))
    return args
