"""Who becomes ready for a range serves only if enough of those before are fenced."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nodes.contract.disk import Disk
from nodes.contract.replica import InvariantBroken, Scene
from nodes.parts.placement import OldPlacementsAreFenced, Placement, Placements
from nodes.registry import INTERNAL

NODES = ("n1", "n2", "n3", "n4", "n5")
COPIED = Placement(0, 2, (("n4", 1), ("n3", 2), ("n2", 1)), (("n4", 1), ("n1", 1), ("n2", 1)))


def ready_after(heard: Placement) -> None:
    """n3 has copied a range, and by the end of that step has ``heard`` of a placement."""
    parameters = {"replication_factor": 3, "ranges": 1}
    configs = {n: INTERNAL["gossip-placed"].configure(n, NODES, parameters) for n in NODES}
    invariant = OldPlacementsAreFenced()
    invariant.begin(Scene(configs, {node: Disk() for node in NODES}))
    placements = SimpleNamespace(current=[COPIED], ready=[0], known_at=[0])
    placements.id = "n3"
    placements.serves = lambda number: Placements.serves(placements, number)  # type: ignore[arg-type]
    recovery = SimpleNamespace(placements=placements, answered=[])
    replica = SimpleNamespace(recovery=recovery, durable_position=0)
    invariant.observe("n3", replica)
    placements.ready, placements.current = [2], [heard]
    invariant.observe("n3", replica)


def test_who_serves_while_nobody_before_is_fenced_is_seen() -> None:
    with pytest.raises(InvariantBroken, match="n3: serves"):
        ready_after(COPIED)


def test_who_was_replaced_in_the_step_that_made_it_ready_serves_nobody() -> None:
    ready_after(COPIED.replace("n3", "n5"))
