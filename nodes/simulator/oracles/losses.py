"""Whom nodes take for lost, by their marks: only who is suspected, and was for long enough; and who
takes the place of the lost one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nodes.parts.placement import Placement
from nodes.simulator.cluster import Cluster, Mark

Finding = tuple[str, str]
"""A check, and what it found."""
_EARLY = 0.999
"""Of a time: the last digits of a float decide nothing."""


def hasty(cluster: Cluster, since_s: float) -> Iterator[Finding]:
    """A node that replaces a member which it does not suspect, or, since ``since_s``, when clocks
    were right, has not suspected for ``recover_after_s``."""
    suspected_s: dict[tuple[str, str], float] = {}
    for mark in cluster.marks:
        if mark.name == "suspect":
            suspected_s[mark.node, mark.details["node"]] = mark.at_s
        elif mark.name == "trust":
            suspected_s.pop((mark.node, mark.details["node"]), None)
        elif mark.name == "under_replicated":
            lost = mark.details["lost"]
            at_s = suspected_s.get((mark.node, lost))
            told = f"{mark.node} at {mark.at_s:.3f} takes {lost} for lost"
            if at_s is None:
                yield "re-replication", f"{told}, and does not suspect it"
                return
            parameters = cluster.hosts[mark.node].config.parameters
            after_s: float = getattr(parameters, "recover_after_s", 0.0)
            if since_s < at_s and mark.at_s - at_s < after_s * _EARLY:
                yield "re-replication", f"{told}, {mark.at_s - at_s:.3f} s after it was suspected"
                return


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
