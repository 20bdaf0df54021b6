"""Whom nodes take for lost, by their marks: only who is suspected, and was for long enough; and who
takes the place of the lost one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import inf
from typing import Any

from nodes.parts.placement import Placement, first_placement
from nodes.simulator.cluster import Cluster, Mark

Finding = tuple[str, str]
"""A check, and what it found."""
_ON_ITS_WAY_S = 0.1
"""What was sent before a suspicion leaves within that time."""
_EARLY = 0.999
"""Of a time: the last digits of a float decide nothing."""


class _Watch:
    """What a node's marks say of it and its peers: whom it suspects since when, and trusts again
    since when."""

    def __init__(self) -> None:
        self.suspected_s: dict[tuple[str, str], float] = {}
        self.trusted_s: dict[tuple[str, str], float] = {}
        self.members: dict[tuple[int, int], list[str]] = {}

    def see(self, mark: Mark) -> None:
        """One mark more."""
        details = mark.details
        if mark.name == "suspect":
            self.suspected_s[mark.node, details["node"]] = mark.at_s
        elif mark.name == "trust":
            self.suspected_s.pop((mark.node, details["node"]), None)
            self.trusted_s[mark.node, details["node"]] = mark.at_s
        elif mark.name == "placed":
            self.members[details["range"], details["number"]] = details["members"].split(",")

    def turn(self, cluster: Cluster, mark: Mark) -> int:
        """How many members are to propose before the node of ``mark``: those that come before it,
        and are not suspected by it."""
        key_range, number = mark.details.get("range", 0), mark.details.get("number", 0)
        members = self.members.get((key_range, number), [])
        if number == 1:
            parameters: Any = cluster.hosts[mark.node].config.parameters
            first = first_placement(key_range, cluster.nodes, parameters.replication_factor)
            members = list(first.nodes)
        alive = [node for node in members if (mark.node, node) not in self.suspected_s]
        return alive.index(mark.node) if mark.node in alive else 0


def hasty(cluster: Cluster, since_s: float) -> Iterator[Finding]:
    """A node that replaces a member which it does not suspect, or, since ``since_s``, when clocks
    were right, has not suspected for ``recover_after_s`` and as long again for each member that
    comes before it; or that moves ranges to others while it trusts somebody for less than that, or
    several ranges at a time."""
    watch = _Watch()
    moved: Mark | None = None
    for mark in cluster.marks:
        watch.see(mark)
        after_s: float = getattr(cluster.hosts[mark.node].config.parameters, "recover_after_s", 0.0)
        if mark.name == "under_replicated":
            lost = mark.details["lost"]
            at_s = watch.suspected_s.get((mark.node, lost))
            told = f"{mark.node} at {mark.at_s:.3f} takes {lost} for lost"
            if at_s is None:
                yield "re-replication", f"{told}, and does not suspect it"
                return
            turn = watch.turn(cluster, mark)
            if since_s < at_s and mark.at_s - at_s < after_s * (1 + turn) * _EARLY:
                after = f"{mark.at_s - at_s:.3f} s after it was suspected"
                yield "re-replication", f"{told}, {after}; {turn} come before it"
                return
        elif mark.name == "unbalanced":
            told = f"{mark.node} at {mark.at_s:.3f} moves {mark.details}"
            if moved is not None and (moved.node, moved.at_s) == (mark.node, mark.at_s):
                yield "re-replication", f"{told}, together with {moved.details}"
                return
            moved = mark
            for (node, peer), at_s in watch.trusted_s.items():
                if (
                    node == mark.node
                    and at_s > since_s
                    and (node, peer) not in watch.suspected_s
                    and mark.at_s - at_s < after_s * _EARLY
                ):
                    late = f"{mark.at_s - at_s:.3f} s after {peer} was trusted again"
                    yield "re-replication", f"{told}, {late}"
                    return


def voted_for(cluster: Cluster) -> set[Placement]:
    """The placements that some node has voted for, by the disks: whoever proposes that number hears
    of it, and may have to go on with it."""
    votes = (
        record
        for host in cluster.hosts.values()
        for name, record in host.storage.synced.items()
        if name.startswith("vote/")
    )
    return {vote.placement for vote in votes if vote.placement is not None}


def onto_lost(
    marks: Sequence[Mark],
    before: Sequence[Placement],
    lost: Collection[str],
    voted: Collection[Placement] = (),
) -> Iterator[Finding]:
    """A range that moves to a node that has been down all the time of ``marks``. ``before``: the
    placements at their beginning; ``voted``: those that were voted for by then, and so may be
    chosen yet."""
    begun = {(p.range, p.number, frozenset(p.nodes)) for p in voted}
    members = {placement.range: set(placement.nodes) for placement in before}
    for mark in marks:
        if mark.name == "placed":
            now = set(mark.details["members"].split(","))
            came = now - members[mark.details["range"]]
            name = (mark.details["range"], mark.details["number"], frozenset(now))
            if came & set(lost) and name not in begun:
                yield "re-replication", f"{mark.node} moves to {sorted(came)}: {mark.details}"
                return
            members[mark.details["range"]] = now


def wrong_place(
    cluster: Cluster, marks: Sequence[Mark], before: Sequence[Placement], lost: str
) -> Iterator[Finding]:
    """A lost member's place that does not go to the live node with the fewest ranges (of equals the
    first), where what moves counts for what moves after it. ``before``: the placements that all
    knew when it was lost; judged are the proposals until the first of them is chosen, by
    ``marks``."""
    load = {node: sum(node in p.nodes for p in before) for node in cluster.nodes if node != lost}
    wanted: dict[int, str] = {}
    for placement in before:
        if lost in placement.nodes:
            to = min((node for node in load if node not in placement.nodes), key=load.__getitem__)
            load[to] += 1
            wanted[placement.range] = to
    for mark in marks:
        if mark.name == "placed":
            return
        if mark.name != "under_replicated":
            continue
        key_range, to = mark.details["range"], mark.details["to"]
        if to != wanted.get(key_range):
            told = f"in range {key_range} {mark.node} puts {to} in the place of {lost}"
            yield "re-replication", f"{told}, not {wanted.get(key_range)}"
            return


def tardy(
    marks: Sequence[Mark], settled: Sequence[Placement], lost: Collection[str], within_s: float
) -> Iterator[Finding]:
    """A member that is lost, and that nobody replaces ``within_s`` after the first of those members
    that are up suspects it: nobody comes before that one, so it waits for nobody. ``settled``: the
    placements at the beginning of ``marks``, of which any may be followed by the next one;
    ``lost``: who went down then."""
    suspected_s: dict[tuple[str, str], float] = {}
    begun_s: dict[int, float] = {}
    for mark in marks:
        if mark.name == "suspect":
            suspected_s.setdefault((mark.node, mark.details["node"]), mark.at_s)
        elif mark.name in ("under_replicated", "placed"):
            begun_s.setdefault(mark.details["range"], mark.at_s)
    for placement in settled:
        gone = [node for node in placement.nodes if node in lost]
        first = next((node for node in placement.nodes if node not in lost), "")
        since_s = max((suspected_s.get((first, node), inf) for node in gone), default=inf)
        late_s = begun_s.get(placement.range, inf) - since_s
        if since_s < inf and late_s > within_s:
            told = f"{first}, the first of {placement} that is up, suspects {gone} at {since_s:.3f}"
            until = f"{late_s:.3f} s later, not within {within_s:.3f}"
            yield "re-replication", f"{told}, and another one is proposed {until}"
            return


def handed_to_suspects(
    marks: Sequence[Mark], reads: Sequence[tuple[float, str, str]]
) -> Iterator[Finding]:
    """A read that is handed on to somebody whom the sender suspects, where others hold the key as
    well. ``reads``: when, from whom and to whom, in this order; ``marks``: since nobody was
    suspected, and nobody has been started again since then, for that ends suspicions unmarked."""
    watch, number = _Watch(), 0
    for at_s, src, dst in reads:
        while number < len(marks) and marks[number].at_s < at_s:
            watch.see(marks[number])
            number += 1
        since_s = watch.suspected_s.get((src, dst), at_s)
        if since_s + _ON_ITS_WAY_S < at_s:
            told = f"{src} at {at_s:.3f} hands a read on to {dst}"
            yield "liveness", f"{told}, which it suspects since {since_s:.3f}"
            return
