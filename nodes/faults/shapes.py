"""Shapes of partitions: which directed links are cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from nodes.parts.quorum import majority
from nodes.wire.links import Link


def across(groups: Sequence[Sequence[str]]) -> tuple[Link, ...]:
    """All links between different groups."""
    return tuple(
        (a, b) for one in groups for other in groups if one is not other for a in one for b in other
    )


def one_way(sources: Iterable[str], targets: Iterable[str]) -> tuple[Link, ...]:
    """Only the direction from ``sources`` to ``targets``."""
    targets = tuple(targets)
    return tuple((a, b) for a in sources for b in targets if a != b)


def bridge(nodes: Sequence[str]) -> tuple[Link, ...]:
    """Two halves that only the middle one of ``nodes`` can reach, both of them."""
    middle = (len(nodes) - 1) // 2
    return across([nodes[:middle], nodes[middle + 1 :]])


def majorities_ring(nodes: Sequence[str]) -> tuple[Link, ...]:
    """Every node reaches a majority, and no two the same: ``nodes`` in a ring, each reaches its
    nearest neighbours only."""
    count = len(nodes)
    reach = majority(count) // 2
    return tuple(
        (a, b)
        for i, a in enumerate(nodes)
        for j, b in enumerate(nodes)
        if min((i - j) % count, (j - i) % count) > reach
    )


def chain(nodes: Sequence[str]) -> tuple[Link, ...]:
    """Each node reaches only the one before and the one after it."""
    linked = {*pairwise(nodes), *pairwise(reversed(nodes))}
    return tuple((a, b) for a in nodes for b in nodes if a != b and (a, b) not in linked)
