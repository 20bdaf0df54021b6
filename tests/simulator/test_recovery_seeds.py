"""Seeds with three replicas on five nodes: all kinds of faults, then a node lost for good."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from bench.checkers.budget import Budget
from bench.checkers.linearizability import check_linearizable
from bench.record.columns import Columns
from bench.record.history import OperationRecord
from nodes.contract.replica import Operation, Request
from nodes.parts.recovery import PlacedReplica
from nodes.registry import get
from nodes.simulator.cluster import Cluster
from nodes.simulator.faults import Fault, Nemesis
from nodes.simulator.load import Clients, RandomClients
from nodes.simulator.network import Quality
from nodes.simulator.placed import unrestored_range
from nodes.simulator.simulate import draw_setup, simulate
from nodes.simulator.tape import draw_tape

EAGER = {
    "replication_factor": 3,
    "ranges": 4,
    "buckets": 16,
    "recover_after_s": 0.1,
    "heartbeat": {
        "heartbeat_every_s": 0.15,
        "check_every_s": 0.05,
        "counting": {"timeout_s": 0.3, "rise": 0.5},
    },
}
PARAMETERS = {
    "replication_factor": 3,
    "ranges": 4,
    "buckets": 16,
    "recover_after_s": 0.5,
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
    drawn = {name: v for name, v in setup.parameters.items() if not name.endswith("_quorum")}
    cluster = Cluster(
        protocol,
        nodes=5,
        seed=seed,
        parameters={**drawn, **PARAMETERS},
        quality=setup.quality,
        timing=setup.timing,
        round_trip=seed % 4 == 0,
    )
    clients = Clients(cluster, setup.policy)
    # Few enough operations for the checker, over all of the run.
    mix = msgspec.structs.replace(setup.mix, clients=3, keys=3, think_s=0.2)
    load = RandomClients(clients, mix, protocol.operations)
    gone = random.Random(seed).choice(cluster.nodes)
    tape = draw_tape(cluster.rng("nemesis"), cluster.nodes, protocol, TURMOIL_S)
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


def assert_restored(cluster: Cluster, gone: str) -> None:
    """Those who are left agree where the ranges are: on three nodes each that serve them."""
    placements = {}
    for node in cluster.nodes:
        if node != gone:
            replica = cluster.replica(node)
            assert isinstance(replica, PlacedReplica)
            assert replica.recovery is not None
            placements[node] = replica.recovery.placements
    views = [tuple(known.current) for known in placements.values()]
    assert len(set(views)) == 1, views
    for placement in views[0]:
        assert gone not in placement.nodes
        assert all(placements[node].serves(placement.range) for node in placement.nodes)


@pytest.mark.parametrize("seed", range(24))
def test_a_seed_loses_nothing_and_restores_the_factor(seed: int) -> None:
    cluster, clients, gone = run(seed)
    assert_restored(cluster, gone)
    history = [msgspec.convert(r, OperationRecord, from_attributes=True) for r in clients.history]
    check = check_linearizable(Columns.from_records(history), budget=Budget(5.0))
    assert check.verdict == "valid", f"seed {seed}: {check.summary}"
    late = [r for r in clients.history if r.invoked_ns > 20e9 and r.node != gone]
    assert any(r.outcome == "ok" for r in late), f"seed {seed}: nobody was served in the end"
    assert any(mark.name == "re_replicated" for mark in cluster.marks if mark.at_s > LOST_AT_S)


@pytest.mark.parametrize("name", ["gossip", "gossip-lww"])
@pytest.mark.parametrize("seed", range(8))
def test_gossip_restores_the_factor_and_converges(seed: int, name: str) -> None:
    cluster, _, gone = run(seed, name)
    assert_restored(cluster, gone)
    assert cluster.converged()
    assert any(host.replica is not None and host.replica.state() for host in cluster.hosts.values())


def test_a_core_is_not_asked_to_serve_what_it_still_copies() -> None:
    # In some seeds the faults end while the newest member of a range copies it, and another
    # member, which is ready, is not in the core.
    copying = 0
    for seed in range(1, 16):
        result = simulate("quorum", seed, parameters=EAGER, trace=True)
        assert result.alarms == [], seed
        copying += any("PHASE copying" in line for line in result.transcript)
    assert copying


def test_a_range_that_never_becomes_ready_is_an_alarm() -> None:
    class NeverReady(get("quorum").replica):  # type: ignore[misc]
        def on_range_page(self, src: str, msg: Any) -> None:
            pass

    lame = msgspec.structs.replace(get("quorum"), replica=NeverReady)
    alarms = [
        alarm
        for seed in range(1, 9)
        for alarm in simulate(lame, seed, parameters=EAGER, nodes=5, duration_s=5.0).alarms
    ]
    assert any(a.check == "liveness" and "is served by" in a.message for a in alarms), alarms


@pytest.mark.parametrize("name", ["quorum", "gossip"])
def test_a_copy_ends_where_a_round_trip_takes_longer_than_until_it_is_asked_again(
    name: str,
) -> None:
    """Each page is asked for at least twice, and arrives after that; no key is left out for it."""
    cluster = Cluster(
        get(name),
        nodes=5,
        parameters={**PARAMETERS, "page_keys": 1},
        quality=Quality(latency_s=0.4, jitter_s=0.0),
    )
    cluster.run(5.0)
    keys = [f"k{number}" for number in range(24)]
    for sequence, key in enumerate(keys):
        write = Request("c", sequence, Operation("write", key, sequence), 0)
        cluster.request(cluster.nodes[sequence % 5], write)
    cluster.run(10.0)
    cluster.crash("n2")
    cluster.run(40.0)
    alive = [node for node in cluster.nodes if node != "n2"]
    assert unrestored_range(cluster, alive) is None
    held = {node: cluster.replica(node).state() for node in alive}
    for key in keys:
        assert sum(key in state for state in held.values()) == 3, key
