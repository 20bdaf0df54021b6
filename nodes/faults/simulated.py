"""Faults that only random seeds draw: they look into simulated nodes and name what a protocol
does, so that no experiment, which all protocols and targets share, could ask for them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar, Literal

from nodes.faults.base import Fault, Resolved, named
from nodes.faults.capabilities import Capability, Cluster, IsSimulated
from nodes.faults.links import OnLinks
from nodes.faults.processes import Milliseconds, OnNodes


class _Simulated(Fault):
    """Base of faults that the simulator itself plays."""

    NEEDS: ClassVar[tuple[type[Capability], ...]] = (IsSimulated,)

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Begin."""
        cluster.can(IsSimulated).play(self, resolved)

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """End."""
        cluster.can(IsSimulated).stop(self, resolved)


class SetTrap(_Simulated, OnNodes):
    """Crash, or cut off, the first of some nodes that does a certain thing.

    ``nodes``: see `OnNodes`. The others are those of `nodes.simulator.host.Trap`."""

    fault: Literal["trap"] = "trap"
    point: str
    match: str = ""
    nth: int = 1
    times: int = 1
    down_s: float = 0.05
    torn: float = 0.0
    everybody: bool = False
    cut: Literal["", "mute", "isolate"] = ""


class SlowSteps(_Simulated, OnNodes):
    """Make every step of nodes take long; what arrives meanwhile is stepped together.

    ``step_ms``: how long; of several the longest counts. ``nodes``: see `OnNodes`."""

    fault: Literal["slow-steps"] = "slow-steps"
    step_ms: Milliseconds


class LateKinds(_Simulated, OnLinks):
    """Delay messages of some types, so that others overtake them.

    An answer comes when its question is long past. ``kinds``: the names of the types.
    ``delay_ms``: by up to so much. ``links``, ``node``: which links; all if neither is given."""

    fault: Literal["late-kinds"] = "late-kinds"
    kinds: tuple[str, ...]
    delay_ms: Milliseconds = 100


class Administer(Fault):
    """Ask a node for a change of members or leaders, again and again.

    ``action``: of the protocol (`nodes.contract.administration`), about ``node``; or ``replace``:
    the node ``lost`` by ``node``. ``at``: who is asked. Each may be ``leader``. ``every_ms``: how
    often; 0: once."""

    fault: Literal["administer"] = "administer"
    NEEDS: ClassVar[tuple[type[Capability], ...]] = (IsSimulated,)
    action: str
    node: str
    at: str
    lost: str = ""
    every_ms: int = 0

    def resolve(self, cluster: Cluster, rng: random.Random) -> Resolved:
        """Nothing to choose: who is leader is looked up each time."""
        return Resolved()

    def beats(self, resolved: Resolved, for_s: float) -> Sequence[float]:
        """Every ``every_ms``, `apply` being the first; a replacement takes two requests."""
        if self.every_ms:
            count = int(for_s * 1000 / self.every_ms)
            return [number * self.every_ms / 1000 for number in range(1, count + 1)]
        return [0.1] if self.action == "replace" and for_s > 0.1 else []

    def apply(self, cluster: Cluster, resolved: Resolved) -> None:
        """Ask for the first time."""
        self.beat(cluster, resolved, -1)

    def beat(self, cluster: Cluster, resolved: Resolved, number: int) -> Resolved:
        """Ask again."""
        action, node = self.action, self.node
        if action == "replace":
            action, node = ("add", node) if number % 2 else ("remove", self.lost)
        at, node = (named(cluster, [who], cluster.nodes[0])[0] for who in (self.at, node))
        cluster.can(IsSimulated).administer(at, action, node)
        return resolved

    def undo(self, cluster: Cluster, resolved: Resolved) -> None:
        """What was asked is not taken back."""
