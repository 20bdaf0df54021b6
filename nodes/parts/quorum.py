"""Quorum arithmetic: how many of n replicas must answer, and what follows from it."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import msgspec


def majority(n: int) -> int:
    """The fewest of ``n`` of which any two sets meet: floor(n/2) + 1. Raises ValueError for n <
    1."""
    if n < 1:
        raise ValueError(f"there is at least one replica, not {n}")
    return n // 2 + 1


def is_majority(nodes: Collection[str], members: tuple[str, ...]) -> bool:
    """Whether more than half of ``members`` are among ``nodes``."""
    return 2 * sum(member in nodes for member in members) > len(members)


def reached_by_majority(values: list[int]) -> int:
    """The highest value that a majority of the nodes has reached, whose ``values`` these are; it
    sorts them."""
    values.sort()
    return values[(len(values) - 1) // 2]


class Quorums(msgspec.Struct, frozen=True):
    """Of ``n`` replicas, ``read`` answer a read and ``write`` store a write, the coordinator's own
    replica counted (Gifford, "Weighted Voting for Replicated Data", SOSP 1979, with one vote
    each)."""

    n: int
    read: int
    write: int

    @classmethod
    @cache
    def of(cls, n: int, read: int = 0, write: int = 0) -> Quorums:
        """The quorums of ``n`` replicas; 0 stands for a majority. Raises ValueError where a quorum
        could never be reached."""
        most = majority(n)
        for name, value in (("read_quorum", read), ("write_quorum", write)):
            if not 0 <= value <= n:
                raise ValueError(f"{name} is 0 (a majority) to {n} of {n} replicas, not {value}")
        return cls(n, read or most, write or most)

    @property
    def meet(self) -> bool:
        """Whether every read quorum has a replica in common with every write quorum. Otherwise a
        read may miss an acknowledged write."""
        return self.read + self.write > self.n

    @property
    def tolerates(self) -> int:
        """How many replicas may be missing while reads and writes still end."""
        return self.n - max(self.read, self.write)
