"""The knobs of the quorum register."""

from __future__ import annotations

import math

from nodes.parts.quorum import Quorums, majority
from nodes.parts.recovery import PlacementParameters


class QuorumParameters(PlacementParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``read_quorum``, ``write_quorum``: how many replicas, 0 for a majority. ``weak``: they need
    not meet, and the register is not atomic then. ``buckets``: parts of the key space in a
    digest. See also `nodes.parts.recovery.PlacementParameters`."""

    read_quorum: int = 0
    write_quorum: int = 0
    weak: bool = False
    retransmit_interval_s: float = 0.3
    timeout_s: float = 3.0
    anti_entropy_interval_s: float = 1.0
    buckets: int = 256

    def __post_init__(self) -> None:
        for name in ("retransmit_interval_s", "timeout_s", "anti_entropy_interval_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is a positive number of seconds, not {value}")
        if not 1 <= self.buckets <= 65536:
            raise ValueError(f"buckets is between 1 and 65536, not {self.buckets}")

    def check(self, nodes: tuple[str, ...]) -> None:
        """Raises ValueError where the quorums do not fit a cluster of ``nodes``."""
        self.check_placement(nodes, self.buckets)
        self.quorums(self.replication_factor or len(nodes))

    def copy_quorum(self, nodes: tuple[str, ...]) -> int:
        """How many replicas hold, together, whatever a write quorum has stored, and are missing
        where a quorum should be without them. Weak quorums promise nothing: a majority then."""
        quorums = self.quorums(self.replication_factor or len(nodes))
        if not quorums.meet:
            return majority(quorums.n)
        return quorums.n - min(quorums.read, quorums.write) + 1

    def quorums(self, n: int) -> Quorums:
        """The quorums among ``n`` replicas. Raises ValueError."""
        quorums = Quorums.of(n, self.read_quorum, self.write_quorum)
        if not (quorums.meet or self.weak):
            raise ValueError(
                f"read_quorum {quorums.read} and write_quorum {quorums.write} of {n} replicas "
                "do not meet: their sum must exceed the number of replicas (or use quorum-weak)"
            )
        return quorums
