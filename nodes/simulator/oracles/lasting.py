"""A fault that lasts, on a cluster that was at rest: whoever is among a majority whose members
reach each other is served, and no leader is deposed that such a majority hears."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations
from math import inf
from typing import Any

import msgspec

from nodes.parts.quorum import majority
from nodes.simulator.cluster import Cluster
from nodes.simulator.faults import Fault

FOREVER_S = 1e6
_SLOW_MS = 400
_LESS_SLOW_MS = 50
"""How late all arrives that a slow node says. The second where a leader has so little on its way at
once that, with a slow node in front, clients would ask for more than it can ever tell the others:
nobody promises how soon it serves them then."""
_SLOW_DISK_MS = 200
_FAST_CLOCK = 1.0
"""So many seconds too fast a second."""

KINDS = (
    *("crash", "crash", "pause", "isolate", "isolate", "mute", "deaf", "deaf"),
    *("one-link", "one-link", "bridge", "slow", "slow-disk", "fast-clock"),
)


class Lasting(msgspec.Struct, frozen=True):
    """A fault, and whom it strikes: ``lame`` nodes serve nobody, or not in time, whatever links
    there are."""

    fault: Fault
    lame: tuple[str, ...]

    @property
    def name(self) -> str:
        """In a few words."""
        return f"{self.fault.kind} {self.fault.args}"


def draw_lasting(
    rng: random.Random,
    nodes: Sequence[str],
    leader: str | None,
    *,
    placed: bool = False,
    in_flight: float = inf,
) -> Lasting:
    """One of `KINDS`, which strikes the leader in half of the cases, and a minority of the nodes.
    ``placed``: keys are on few of them, so that it is the crash of one. ``in_flight``: see
    `nodes.contract.pace.Pace`."""
    draw = rng.random
    order = sorted(nodes, key=lambda node: draw())
    if leader is not None and draw() < 0.5:
        order.remove(leader)
        order.insert(0, leader)
    most = 1 if placed else (len(nodes) - 1) // 2
    few = order[: 1 + int(draw() * most)]
    kind = "crash" if placed else KINDS[int(draw() * len(KINDS))]
    if len(nodes) < 3 and kind in ("crash", "pause", "isolate", "mute", "deaf", "one-link"):
        kind = "fast-clock"
    if kind == "pause" and leader is None:
        # Digests that waited for so long are more than a node believes at once.
        kind = "crash"
    one = order[0]
    cut: dict[str, Any] = {"in_flight": draw() < 0.5}
    lame: tuple[str, ...] = ()
    if kind in ("crash", "pause"):
        args: dict[str, Any] = {"nodes": few}
        lame = tuple(few)
    elif kind in ("isolate", "mute", "deaf"):
        if kind == "isolate" and leader is not None and len(nodes) % 2 == 0 and draw() < 0.5:
            few = order[: len(nodes) // 2]  # Nobody is served, and so nobody may lead.
        args = {"groups": kind, "nodes": few, **cut}
        kind = "partition"
    elif kind == "one-link":
        pair = order[:2] if draw() < 0.5 else order[1::-1]
        args = {"groups": [[pair[0]], [pair[1]]], "one_way": True, **cut}
        kind = "partition"
    elif kind == "bridge":
        args = {"groups": "bridge", "nodes": sorted(nodes, key=lambda node: draw()), **cut}
        kind = "partition"
    else:
        lame = (one,)
        if kind == "slow":
            slow_ms = _SLOW_MS if in_flight >= 2 * len(nodes) else _LESS_SLOW_MS
            kind, args = "latency", {"links": [f"{one}->all"], "latency_ms": slow_ms}
        elif kind == "slow-disk":
            kind, args = "slow-fsync", {"nodes": [one], "delay_ms": _SLOW_DISK_MS}
        else:
            kind, args = "clock", {"nodes": [one], "drift": _FAST_CLOCK}
    return Lasting(Fault(at_s=0.0, kind=kind, for_s=FOREVER_S, args=args), lame)


def cliques(cluster: Cluster, nodes: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """The largest groups of ``nodes`` of at least ``size`` that all reach each other, both ways."""

    def reach(a: str, b: str) -> bool:
        return not (cluster.links[a, b].is_cut or cluster.links[b, a].is_cut)

    found: list[tuple[str, ...]] = []
    for count in range(len(nodes), max(size, 1) - 1, -1):
        for group in combinations(nodes, count):
            if any(set(group) <= set(larger) for larger in found):
                continue
            if all(reach(a, b) for a, b in combinations(group, 2)):
                found.append(group)
    return found


def served(cluster: Cluster, lame: Sequence[str], needs: str) -> list[str]:
    """Who has to complete operations: whoever is in each of the majorities that reach each
    other, since a protocol may follow any of them."""
    healthy = [node for node in cluster.nodes if node not in lame]
    if needs == "any node":
        return healthy
    groups = cliques(cluster, healthy, majority(len(cluster.nodes)))
    return [node for node in healthy if groups and all(node in group for group in groups)]


def stays(cluster: Cluster, lame: Sequence[str], leader: str | None) -> bool:
    """Whether nothing is a reason to depose ``leader``: a majority that hears it, and each
    other."""
    healthy = [node for node in cluster.nodes if node not in lame]
    groups = cliques(cluster, healthy, majority(len(cluster.nodes)))
    return any(leader in group for group in groups)


def powerless(cluster: Cluster, lame: Sequence[str]) -> list[str]:
    """The nodes that run and exchange messages, both ways, with less than a majority."""
    healthy = [node for node in cluster.nodes if node not in lame]
    groups = cliques(cluster, healthy, 2)
    return [
        node
        for node in healthy
        if 1 + sum(any({node, o} <= set(g) for g in groups) for o in healthy if o != node)
        < majority(len(cluster.nodes))
    ]
