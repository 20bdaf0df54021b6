"""Seeds with three replicas on five nodes: all kinds of faults, then a node lost for good."""

from __future__ import annotations

import random

import msgspec
import pytest

from bench.checkers.columns import Columns
from bench.checkers.linearizability import check_linearizable
from bench.history import OperationRecord
from nodes.protocols.quorum_register import QuorumRegister
from nodes.registry import get
from nodes.simulator.cluster import Cluster
from nodes.simulator.faults import Fault, Nemesis, draw_tape
from nodes.simulator.load import Clients, RandomClients
from nodes.simulator.simulate import draw_setup

PARAMETERS = {
    "replication_factor": 3,
    "ranges": 4,
    "buckets": 16,
    "recover_after_s": 0.5,
    "read_quorum": 0,
    "write_quorum": 0,
    "heartbeat": {
        "heartbeat_every_s": 0.25,
        "check_every_s": 0.25,
        "counting": {"timeout_s": 1.0, "rise": 0.5, "fall": 0.5},
    },
}
TURMOIL_S = 8.0
LOST_AT_S = 12.0
END_S = 30.0


def run(seed: int, name: str = "quorum") -> tuple[Cluster, Clients, str]:
    """Turmoil, some quiet, a loss for good, and the rest of the load."""
    protocol = get(name)
    setup = draw_setup(protocol, seed)
    cluster = Cluster(
        protocol,
        nodes=5,
        seed=seed,
        parameters={**setup.parameters, **PARAMETERS},
        quality=setup.quality,
        timing=setup.timing,
        round_trip=seed % 4 == 0,
    )
    clients = Clients(cluster, setup.manners)
    # Few enough operations for the checker, over all of the run.
    habits = msgspec.structs.replace(setup.habits, clients=3, keys=3, think_s=0.2)
    load = RandomClients(clients, habits, protocol.operations)
    gone = random.Random(seed).choice(cluster.nodes)
    tape = draw_tape(cluster.rng("nemesis"), cluster.nodes, protocol.replica, TURMOIL_S)
    before = Nemesis(cluster, clients, tape)
    load.start()
    cluster.run(TURMOIL_S)
    before.heal_all()
    cluster.run(LOST_AT_S - TURMOIL_S)
    Nemesis(
        cluster, clients, [Fault(at_s=LOST_AT_S, kind="crash", for_s=1e3, args={"nodes": [gone]})]
    )
    cluster.run(END_S - LOST_AT_S)
    load.stop()
    cluster.run(5.0)
    clients.close()
    return cluster, clients, gone


@pytest.mark.parametrize("seed", range(24))
def test_a_seed_loses_nothing_and_restores_the_factor(seed: int) -> None:
    cluster, clients, gone = run(seed)
    left = [node for node in cluster.nodes if node != gone]
    views = {}
    for node in left:
        replica = cluster.replica(node)
        assert isinstance(replica, QuorumRegister)
        assert replica.recovery is not None
        views[node] = tuple(replica.recovery.placements.current)
    assert len(set(views.values())) == 1, f"seed {seed}: {views}"
    for placement in views[left[0]]:
        assert gone not in placement.nodes, f"seed {seed}: {placement}"
        for node in placement.nodes:
            assert cluster.replica(node).recovery.placements.serves(placement.range)  # type: ignore[attr-defined]
    history = [msgspec.convert(r, OperationRecord, from_attributes=True) for r in clients.history]
    check = check_linearizable(Columns.from_records(history), budget_s=5.0)
    assert check.verdict == "valid", f"seed {seed}: {check.summary}"
    late = [r for r in clients.history if r.invoked_ns > 20e9 and r.node != gone]
    assert any(r.outcome == "ok" for r in late), f"seed {seed}: nobody was served in the end"
    assert any(mark.name == "re_replicated" for mark in cluster.marks if mark.at_s > LOST_AT_S)
