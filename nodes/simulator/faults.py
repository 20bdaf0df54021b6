"""Faults on a tape: which, when, on whom, for how long.

A tape is a list of `Fault` records. It is drawn from the seed (`draw_tape`: each seed has its own
mix of kinds, so that rare combinations come up: swarm testing, Groce et al., ISSTA 2012), or given;
taking a record out of it leaves all the others as they were, which is what shrinking needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from nodes.effects import Replica
from nodes.simulator import network
from nodes.simulator.cluster import Cluster
from nodes.simulator.host import Host, Trap
from nodes.simulator.load import Clients
from nodes.simulator.network import LinkId, Quality

Heal: TypeAlias = Callable[[], None]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """``kind`` at ``at_s``, undone ``for_s`` later. ``args``: see the method `Nemesis.<kind>`. A
    node in ``args`` may be ``leader``: whoever believes itself leader then."""

    at_s: float
    kind: str
    for_s: float
    args: dict[str, Any] = {}


class Nemesis:
    """Plays a tape on a cluster. Each ``do_<kind>`` applies a fault and returns what undoes it."""

    def __init__(self, cluster: Cluster, clients: Clients | None, tape: Sequence[Fault]) -> None:
        self._cluster = cluster
        self._clients = clients
        self._heals: dict[int, Heal] = {}
        self._over = False
        self.played: dict[str, int] = {}
        for number, fault in enumerate(tape, 1):
            if not hasattr(self, "do_" + fault.kind.replace("-", "_")):
                raise ValueError(f"no fault {fault.kind!r}; there are {', '.join(KINDS)}")
            cluster.timeline.at(fault.at_s, self._start, (number, fault))

    def _start(self, what: tuple[int, Fault]) -> None:
        number, fault = what
        if self._over:
            return
        line = f"FAULT {number} {fault.kind} {fault.args} for {fault.for_s:g} s"
        self._cluster.timeline.tell("", "fault", line)
        self.played[fault.kind] = self.played.get(fault.kind, 0) + 1
        play: Callable[..., Heal] = getattr(self, "do_" + fault.kind.replace("-", "_"))
        self._heals[number] = play(number, fault, **fault.args)
        self._cluster.timeline.at(self._cluster.now + fault.for_s, self._heal, number)

    def _heal(self, number: int) -> None:
        heal = self._heals.pop(number, None)
        if heal is not None:
            self._cluster.timeline.tell("", "heal", f"HEAL {number}")
            heal()

    def heal_all(self) -> None:
        """Undo whatever is still wrong; what the tape still has is not played."""
        self._over = True
        for number in list(self._heals):
            self._heal(number)

    def _node(self, name: str) -> str:
        if name == "leader":
            return self._cluster.leader() or self._cluster.nodes[0]
        return name

    def _host(self, name: str) -> Host:
        return self._cluster.hosts[self._node(name)]

    def _links(self, links: Sequence[LinkId] | None) -> list[LinkId]:
        if links is not None:
            return [(src, dst) for src, dst in links]
        return [link for link in self._cluster.links if link[0] != link[1]]

    # --- the kinds ---

    def do_partition(
        self,
        number: int,
        fault: Fault,
        shape: str,
        nodes: Sequence[str] = (),
        groups: Sequence[Sequence[str]] = (),
        in_flight: bool = True,
    ) -> Heal:
        """``shape``: groups (of ``groups``), isolate, mute, deaf (of ``nodes[0]``), one-way (from
        ``groups[0]`` to ``groups[1]``), bridge, ring, chain (of ``nodes`` in that order).
        ``in_flight``: messages under way are lost too."""
        everybody = self._cluster.nodes
        links: list[LinkId]
        if shape == "groups":
            links = network.across(groups)
        elif shape == "one-way":
            links = network.one_way(groups[0], groups[1])
        elif shape in ("isolate", "mute", "deaf"):
            one = self._node(nodes[0])
            out, into = network.one_way([one], everybody), network.one_way(everybody, [one])
            links = (out if shape != "deaf" else []) + (into if shape != "mute" else [])
        else:
            shapes = {
                "bridge": network.bridge,
                "ring": network.majorities_ring,
                "chain": network.chain,
            }
            links = shapes[shape](nodes)
        self._cluster.cut(links, number, in_flight=in_flight)
        return lambda: self._cluster.heal_links(number)

    def do_degrade(
        self,
        number: int,
        fault: Fault,
        links: Sequence[LinkId] | None = None,
        **quality: Any,
    ) -> Heal:
        """Worse links (all: None) by the fields of `Quality`."""
        worse = Quality(**{"latency_s": 0.0, "jitter_s": 0.0, **quality})
        self._cluster.degrade(self._links(links), worse, number)
        return lambda: self._cluster.heal_links(number)

    def do_client_loss(
        self, number: int, fault: Fault, node: str, requests: float = 0.0, replies: float = 0.0
    ) -> Heal:
        """Requests to a node, or its replies, are lost with these probabilities."""
        clients = self._clients
        if clients is None:
            return lambda: None
        node = self._node(node)
        clients.request_loss[node] = requests
        clients.reply_loss[node] = replies

        def heal() -> None:
            clients.request_loss.pop(node, None)
            clients.reply_loss.pop(node, None)

        return heal

    def do_crash(self, number: int, fault: Fault, nodes: Sequence[str], torn: float = 0.0) -> Heal:
        """Kill nodes, start them again at the end."""
        hosts = [self._host(node) for node in nodes]
        for host in hosts:
            host.crash(torn=torn)

        def heal() -> None:
            for host in hosts:
                host.start()

        return heal

    def do_trap(self, number: int, fault: Fault, nodes: Sequence[str], **trap: Any) -> Heal:
        """Crash the first of ``nodes`` that passes a `Trap`; the trap is taken away at the end."""
        shared = Trap(**trap)
        hosts = [self._host(node) for node in nodes]
        for host in hosts:
            host.traps.append(shared)

        def heal() -> None:
            for host in hosts:
                host.traps = [other for other in host.traps if other is not shared]

        return heal

    def do_pause(self, number: int, fault: Fault, nodes: Sequence[str]) -> Heal:
        """Stop processes, let them go on at the end."""
        hosts = [self._host(node) for node in nodes]
        for host in hosts:
            host.pause()

        def heal() -> None:
            for host in hosts:
                host.resume()

        return heal

    def do_clock(
        self,
        number: int,
        fault: Fault,
        node: str,
        rate: float = 1.0,
        jump_s: float = 0.0,
        wall_error_s: float = 0.0,
    ) -> Heal:
        """A clock that runs at ``rate``, has jumped by ``jump_s``, or shows the wrong time of
        day."""
        clock = self._host(node).clock
        clock.jump(jump_s)
        clock.set_rate(rate)
        clock.wall_error_s += wall_error_s

        def heal() -> None:
            clock.set_rate(1.0)
            clock.wall_error_s -= wall_error_s

        return heal

    def do_slow_disk(self, number: int, fault: Fault, node: str, factor: float) -> Heal:
        """Every fsync takes ``factor`` times as long."""
        host = self._host(node)
        host.fsync_factor = factor
        return host.mend_disk

    def do_full_disk(self, number: int, fault: Fault, node: str) -> Heal:
        """The next write that cannot be stored stops the node; it starts again once there is
        room."""
        host = self._host(node)
        host.disk_full = True

        def heal() -> None:
            host.disk_full = False
            host.start()

        return heal

    def do_fsync_error(self, number: int, fault: Fault, node: str) -> Heal:
        """The next fsync fails, and the node with it; it starts again at the end."""
        host = self._host(node)
        host.fsync_fails = True

        def heal() -> None:
            host.fsync_fails = False
            host.start()

        return heal


KINDS = tuple(name[3:].replace("_", "-") for name in vars(Nemesis) if name.startswith("do_"))


# --- drawing a tape ---


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


_POINTS = (
    *("before-fsync", "before-fsync", "in-fsync", "after-fsync", "after-release"),
    *("after-send", "after-send", "after-reply"),
)
_SHAPES = (
    *("groups", "groups", "isolate", "isolate", "isolate"),
    *("mute", "deaf", "one-way", "bridge", "ring", "chain"),
)


def draw_tape(
    rng: random.Random, nodes: Sequence[str], replica: type[Replica], duration_s: float
) -> list[Fault]:
    """The faults of one seed. Most seeds mix a few kinds at random; some play one kind again and
    again, or crash nodes at one kind of place over and over, since rare bugs need several rare
    things in a row; one seed in twelve has no faults."""
    draw = _Draw(rng)
    style = draw.random()
    if style < 0.08:
        return []
    at_leader = draw.pick((0.0, 0.5, 0.9))
    trap: dict[str, Any] | None = None
    if style < 0.33:
        kinds = ["trap"]
        gap_s = 0.2
        trap = _draw_trap(draw, nodes, list(nodes), replica)
        trap |= {"nodes": list(nodes), "times": 10}
    elif style < 0.42:
        kinds = ["partition"]
        gap_s = draw.pick((0.5, 2.0))
    elif style < 0.52:
        return _draw_churn(draw, nodes, duration_s)
    elif style < 0.6:
        kinds = [draw.pick(KINDS)]
        gap_s = draw.pick((0.4, 1.0))
    else:
        kinds = [kind for kind in KINDS if draw.chance(0.35)]
        kinds += [kind for kind in ("partition", "crash", "trap") if draw.chance(0.4)]
        kinds = kinds or [draw.pick(KINDS)]
        gap_s = draw.pick((0.4, 1.0, 2.0))
    tape: list[Fault] = []
    at_s = draw.between(0.0, 2.0)
    while at_s < duration_s:
        kind = draw.pick(kinds)
        for_s, args = _draw_args(draw, kind, nodes, replica, at_leader)
        tape.append(Fault(at_s=at_s, kind=kind, for_s=for_s, args=trap or args))
        at_s = round(at_s + draw.between(0.0, 2 * gap_s), 6)
    return tape


def _draw_churn(draw: _Draw, nodes: Sequence[str], duration_s: float) -> list[Fault]:
    """Leaders that fall one after the other, each with a log of its own: alone with a few others
    it goes on for a while, then it is cut off or killed, and another small group begins. That is
    how logs come to differ in their last terms (figure 8 of the Raft paper)."""
    tape: list[Fault] = []
    gap_s = draw.pick((0.15, 0.3, 0.6))
    at_s = draw.between(0.3, 1.5)
    while at_s < duration_s:
        for_s = draw.between(0.5 * gap_s, 3 * gap_s)
        kind = draw.pick(("isolate", "mute", "crash", "crash", "groups"))
        args: dict[str, Any]
        if kind == "crash":
            args = {"nodes": ["leader"]}
        elif kind == "groups":
            mixed = draw.order(nodes)
            split = len(nodes) // 2
            kind, args = "partition", {"shape": "groups", "groups": [mixed[:split], mixed[split:]]}
        else:
            args = {"shape": kind, "nodes": ["leader"], "in_flight": draw.chance(0.5)}
            kind = "partition"
        tape.append(Fault(at_s=at_s, kind=kind, for_s=for_s, args=args))
        at_s = round(at_s + draw.between(0.0, 2 * gap_s), 6)
    return tape


def _draw_args(
    draw: _Draw, kind: str, nodes: Sequence[str], replica: type[Replica], at_leader: float
) -> tuple[float, dict[str, Any]]:
    for_s = draw.pick((draw.between(0.05, 0.6), draw.between(0.5, 4.0)))
    one = "leader" if draw.chance(at_leader) else draw.pick(nodes)
    mixed = draw.order(nodes)
    args: dict[str, Any]
    if kind == "partition":
        shape = draw.pick(_SHAPES)
        args = {"shape": shape, "in_flight": draw.chance(0.7)}
        if shape in ("groups", "one-way"):
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
    elif kind == "degrade":
        args = _draw_quality(draw)
        if draw.chance(0.5):
            args["links"] = [[a, b] for a in nodes for b in nodes if a != b and draw.chance(0.4)]
    elif kind == "client-loss":
        args = {"node": one, draw.pick(("requests", "replies")): draw.pick((0.3, 1.0))}
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
        args = {"node": draw.pick(nodes)}
        what = draw.below(3)
        if what == 0:
            args["rate"] = draw.pick((0.5, 0.9, 1.1, 2.0))
        elif what == 1:
            args["jump_s"] = draw.pick((0.2, 2.0, 60.0))
        else:
            args["wall_error_s"] = draw.pick((-60.0, -0.2, 0.2, 60.0))
    elif kind == "slow-disk":
        args = {"node": one, "factor": draw.pick((5.0, 50.0, 300.0))}
    else:
        args = {"node": one}
    return for_s, args


def _draw_quality(draw: _Draw) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if draw.chance(0.4):
        args["loss"] = draw.pick((0.02, 0.2, 0.5))
    if draw.chance(0.4):
        args["duplicate"] = draw.pick((0.05, 0.5))
    if draw.chance(0.4):
        args["reorder"] = draw.pick((0.1, 0.5))
        args["late_s"] = draw.pick((0.02, 0.2, 1.0))
    if draw.chance(0.4) or not args:
        args["latency_s"] = draw.pick((0.01, 0.1, 0.4))
        args["jitter_s"] = draw.pick((0.0, 0.01))
    return args


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
