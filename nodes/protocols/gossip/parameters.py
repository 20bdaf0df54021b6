"""The knobs of gossip."""

from __future__ import annotations

import math
from typing import Literal

from nodes.parts.quorum import majority
from nodes.parts.recovery import PlacementParameters


class GossipParameters(PlacementParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``conflict``: what becomes of concurrent writes. ``fanout``: peers told in a round.
    ``rounds``: how often a node repeats a rumour. ``buckets``: parts of the key space in a
    digest. ``forward_timeout_s``: how long to wait for a member that a request was forwarded to.
    ``max_siblings``: of a key, by writes through one node; who writes with the context of a fresh
    read adds none. See also `nodes.parts.recovery.PlacementParameters`."""

    conflict: Literal["siblings", "lww"] = "siblings"
    gossip_interval_s: float = 0.1
    fanout: int = 2
    rounds: int = 3
    anti_entropy_interval_s: float = 0.5
    buckets: int = 256
    forward_timeout_s: float = 3.0
    max_siblings: int = 100

    def check(self, nodes: tuple[str, ...]) -> None:
        """Raises ValueError where a value does not fit a cluster of ``nodes``."""
        self.check_placement(nodes, self.buckets)

    def copy_quorum(self, nodes: tuple[str, ...]) -> int:
        """From how many of the members before a new one copies: a majority, but never from all of
        several, for one is lost."""
        copies = self.replication_factor or len(nodes)
        return max(1, min(majority(copies), copies - 1))

    def __post_init__(self) -> None:
        for name in ("gossip_interval_s", "anti_entropy_interval_s", "forward_timeout_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is a positive number of seconds, not {value}")
        for name in ("fanout", "rounds", "max_siblings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
        if not 1 <= self.buckets <= 65536:
            raise ValueError(f"buckets is between 1 and 65536, not {self.buckets}")
