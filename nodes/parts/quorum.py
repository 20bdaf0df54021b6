"""Quorum arithmetic: how many of n replicas must answer, and what follows from it."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

import msgspec

from nodes.contract.replica import Config


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


def quorums_of(config: Config) -> tuple[int, int, int]:
    """How many nodes hold a key, by the configuration, and how many of them answer a read and store
    a write."""
    parameters: Any = config.parameters
    n = parameters.replication_factor or len(config.nodes)
    read = getattr(parameters, "read_quorum", 0) or majority(n)
    write = getattr(parameters, "write_quorum", 0) or majority(n)
    return n, read, write


def fencing_quorum(config: Config) -> int:
    """So many of the members before leave no quorum without one of them, and hold, together, what
    any write quorum stored (Lamport, Malkhi, Zhou, "Vertical Paxos", PODC 2009, section 2)."""
    n, read, write = quorums_of(config)
    return n - min(read, write) + 1 if read + write > n else majority(n)
