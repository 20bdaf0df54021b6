"""Each fault bites, on exactly what it names, and stops when it is healed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from nodes.contract.replica import Operation, Reply
from nodes.faults import shapes
from nodes.faults.catalogue import OF_SEEDS
from nodes.faults.injected import MIN_RATE
from nodes.registry import get
from nodes.simulator.cluster import Cluster
from nodes.simulator.faults import Fault, Nemesis
from nodes.simulator.host import Timing
from nodes.simulator.load import (
    ClientPolicy,
    Clients,
    OperationRecord,
    PlannedLoad,
    PlannedOperation,
    RandomClients,
    WorkloadMix,
)
from nodes.simulator.network import Quality
from nodes.simulator.simulate import simulate
from nodes.simulator.tape import KINDS, draw_more, draw_tape
from tests.simulator.test_driver_duties import PROBE, cluster, probe, tell
from tests.simulator.toy import protocol

FIVE = ["n1", "n2", "n3", "n4", "n5"]


def partition(**args: Any) -> Fault:
    return Fault(at_s=0.0, for_s=1.0, kind="partition", args=args)


def heard(fault: Fault, after_s: float = 0.1) -> dict[str, list[str]]:
    """Who hears whom, ``after_s`` after the fault began, when everybody tells everybody."""
    it = Cluster(PROBE, nodes=5, seed=1, quality=Quality(latency_s=0.001, jitter_s=0.0))
    Nemesis(it, None, [fault])
    it.run(after_s)
    for src in FIVE:
        tell(it, src, "; ".join(f"send {dst} {src}" for dst in FIVE if dst != src))
    it.run(0.5)
    return {node: sorted(probe(it, node).texts()) for node in FIVE}


def others(node: str) -> list[str]:
    return [n for n in FIVE if n != node]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (
            {"groups": [["n1", "n2"], ["n3", "n4", "n5"]]},
            [["n2"], ["n1"], ["n4", "n5"], ["n3", "n5"], ["n3", "n4"]],
        ),
        (
            {"groups": "isolate", "nodes": ["n2"]},
            [["n3", "n4", "n5"], [], *[[n for n in others(x) if n != "n2"] for x in FIVE[2:]]],
        ),
        (
            {"groups": "isolate", "nodes": ["n2", "n4"]},
            [["n3", "n5"], ["n4"], ["n1", "n5"], ["n2"], ["n1", "n3"]],
        ),
        ({"groups": "mute", "nodes": ["n1"]}, [others("n1"), *[others(x)[1:] for x in FIVE[1:]]]),
        ({"groups": "deaf", "nodes": ["n1"]}, [[], *[others(x) for x in FIVE[1:]]]),
        (
            {"groups": [["n1"], ["n2", "n3"]], "one_way": True},
            [others("n1"), ["n3", "n4", "n5"], ["n2", "n4", "n5"], others("n4"), others("n5")],
        ),
        (
            {"groups": "bridge", "nodes": FIVE},
            [["n2", "n3"], ["n1", "n3"], others("n3"), ["n3", "n5"], ["n3", "n4"]],
        ),
        (
            {"groups": "majorities-ring", "nodes": FIVE},
            [["n2", "n5"], ["n1", "n3"], ["n2", "n4"], ["n3", "n5"], ["n1", "n4"]],
        ),
        (
            {"groups": "chain", "nodes": FIVE},
            [["n2"], ["n1", "n3"], ["n2", "n4"], ["n3", "n5"], ["n4"]],
        ),
    ],
    ids=lambda value: str(value["groups"]) if isinstance(value, dict) else "",
)
def test_a_partition_cuts_the_links_of_its_shape_and_heals(
    args: dict[str, Any], expected: list[list[str]]
) -> None:
    assert heard(partition(**args)) == dict(zip(FIVE, expected, strict=True))
    assert heard(partition(**args), after_s=1.1) == {node: others(node) for node in FIVE}


@pytest.mark.parametrize(("in_flight", "arrives"), [(True, []), (False, ["x"])])
def test_a_cut_drops_what_is_in_flight_if_asked_to(in_flight: bool, arrives: list[str]) -> None:
    it = Cluster(PROBE, nodes=3, seed=1, quality=Quality(latency_s=0.1, jitter_s=0.0))
    tell(it, "n1", "send n2 x")
    it.run(0.05)
    it.cut([("n1", "n2")], in_flight=in_flight)
    it.run(1.0)
    assert probe(it, "n2").texts() == arrives


def test_overlapping_cuts_of_a_link_end_with_the_last_one() -> None:
    it = cluster()
    it.cut([("n1", "n2")], 1)
    it.cut([("n1", "n2")], 2)
    it.heal_links(1)
    tell(it, "n1", "send n2 lost")
    it.run(0.1)
    it.heal_links(2)
    tell(it, "n1", "send n2 arrives", 1)
    it.run(0.1)
    assert probe(it, "n2").texts() == ["arrives"]


def flood(quality: Quality, count: int = 400) -> list[str]:
    it = Cluster(PROBE, nodes=2, seed=3, quality=quality, timing=Timing(step_s=0.0))
    for number in range(count):
        tell(it, "n1", f"send n2 {number}", number)
        it.run(0.001)
    it.run(5.0)
    return probe(it, "n2").texts()


def test_loss_duplication_and_reordering_happen_about_as_often_as_asked() -> None:
    plain = [str(number) for number in range(400)]
    assert flood(Quality(jitter_s=0.02)) == plain, "a link is first in, first out"
    lossy = flood(Quality(loss=0.25))
    assert lossy == [text for text in plain if text in set(lossy)]
    assert 60 < 400 - len(lossy) < 140
    doubled = flood(Quality(duplicate=0.25))
    assert set(doubled) == set(plain)
    assert 60 < len(doubled) - 400 < 140
    shuffled = flood(Quality(reorder=0.25, late_s=0.05))
    assert sorted(shuffled, key=int) == plain
    assert shuffled != plain
    assert flood(Quality(jitter_s=0.02, fifo=False)) != plain


def test_a_link_with_latency_is_slow_and_the_others_are_not() -> None:
    it = cluster()
    fault = Fault(
        at_s=0.0, for_s=1.0, kind="latency", args={"links": ["n1->n2"], "latency_ms": 200}
    )
    Nemesis(it, None, [fault])
    it.run(0.01)
    tell(it, "n1", "send n2 x; send n3 x")
    it.run(0.1)
    assert (probe(it, "n2").texts(), probe(it, "n3").texts()) == ([], ["x"])
    it.run(0.2)
    assert probe(it, "n2").texts() == ["x"]


def test_a_paused_node_takes_nothing_until_it_goes_on() -> None:
    it = cluster()
    tell(it, "n1", "put k v; set a 0.05")
    it.hosts["n1"].pause()
    tell(it, "n2", "send n1 x")
    it.run(1.0)
    assert probe(it, "n1").texts() == []
    it.hosts["n1"].resume()
    it.run(0.001)
    assert sorted(probe(it, "n1").texts()) == ["durable 1", "timer a", "x"]


def test_disk_faults() -> None:
    it = cluster()
    tape = [
        Fault(at_s=0.0, for_s=1.0, kind="slow-fsync", args={"nodes": ["n1"], "delay_ms": 1000}),
        Fault(at_s=0.0, for_s=1.0, kind="fsync-error", args={"nodes": ["n2"]}),
        Fault(at_s=0.0, for_s=1.0, kind="full-disk", args={"nodes": ["n3"]}),
    ]
    Nemesis(it, None, tape)
    it.run(0.01)
    for node in ("n1", "n2", "n3"):
        tell(it, node, "put k v; send n1 from-" + node)
    it.run(0.5)
    assert [it.hosts[node].up for node in ("n1", "n2", "n3")] == [True, False, False]
    it.restart("n3")
    assert not it.hosts["n3"].up, "there is still no room on its disk"
    assert probe(it, "n1").texts() == []
    it.run(1.0)
    assert [it.hosts[node].up for node in ("n1", "n2", "n3")] == [True, True, True]
    assert sorted(probe(it, "n1").texts()) == ["durable 1", "from-n1"]
    assert probe(it, "n3").found == {}


def test_a_crash_fault_kills_and_restarts() -> None:
    it = cluster()
    Nemesis(it, None, [Fault(at_s=0.1, for_s=0.5, kind="crash", args={"nodes": ["n1", "n2"]})])
    it.run(0.2)
    assert [it.hosts[node].up for node in it.nodes] == [False, False, True]
    it.run(0.5)
    assert [it.hosts[node].up for node in it.nodes] == [True, True, True]


def test_overlapping_faults_end_with_the_last_of_them() -> None:
    it = cluster()
    clock = {"nodes": ["n2"], "drift": -0.5}
    tape = [
        Fault(at_s=0.0, for_s=0.2, kind="crash", args={"nodes": ["n1"]}),
        Fault(at_s=0.1, for_s=0.2, kind="crash", args={"nodes": ["n1"]}),
        Fault(at_s=0.0, for_s=0.2, kind="clock", args=clock),
        Fault(at_s=0.1, for_s=0.2, kind="clock", args=clock),
        Fault(at_s=0.0, for_s=0.2, kind="slow-steps", args={"nodes": ["n3"], "step_ms": 50}),
        Fault(at_s=0.1, for_s=0.2, kind="slow-steps", args={"nodes": ["n3"], "step_ms": 20}),
    ]
    Nemesis(it, None, tape)
    found = []
    for number in range(4):
        it.run(0.08)
        tell(it, "n3", "mark x", number)
        busy_s = it.hosts["n3"].ready_at_s - it.now
        found.append((it.hosts["n1"].up, it.hosts["n2"].clock.rate, round(busy_s, 3)))
        it.run(0.001)
    # Two clocks that lose half a second a second do not stand still.
    assert found == [
        (False, 0.5, 0.05),
        (False, MIN_RATE, 0.05),
        (False, 0.5, 0.02),
        (True, 1.0, 0.0),
    ]


def test_a_trap_is_taken_away_with_its_fault_and_others_stay() -> None:
    it = cluster()
    tape = [
        Fault(at_s=0.0, for_s=1.0, kind="trap", args={"nodes": ["n1"], "point": "before-fsync"}),
        Fault(
            at_s=0.0, for_s=0.1, kind="crash-point", args={"nodes": ["n1"], "point": "after-fsync"}
        ),
    ]
    Nemesis(it, None, tape)
    it.run(0.2)
    assert [trap.point for trap in it.hosts["n1"].traps] == ["before-fsync"]
    it.run(1.0)
    assert it.hosts["n1"].traps == []


def test_an_unknown_fault_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no fault 'meteor'"):
        Nemesis(cluster(), None, [Fault(at_s=0.0, for_s=1.0, kind="meteor")])


def test_every_kind_of_fault_is_drawn_and_can_be_played() -> None:
    drawn: set[str] = set()
    played: set[str] = set()
    for seed in range(200):
        it = Cluster(protocol(), nodes=5, seed=seed)
        tape = draw_tape(it.rng("nemesis"), it.nodes, protocol(), 3.0)
        tape += draw_more(it.rng("more faults"), it.nodes, protocol(), 3.0)
        kinds = {fault.kind for fault in tape}
        if kinds <= drawn:
            continue
        drawn |= kinds
        nemesis = Nemesis(it, Clients(it, ClientPolicy()), tape)
        it.run(3.0)
        nemesis.heal_all()
        played |= set(nemesis.played)
        assert not any(host.disk_full or host.fsync_fails for host in it.hosts.values())
        assert all(host.clock.rate == 1.0 for host in it.hosts.values())
    rough = {"message-loss", "duplication", "reordering", "latency"}
    lost = {"requests-lost", "replies-lost"}
    # Nothing is asked of this protocol; `test_reach` asks Raft.
    on_top = set(OF_SEEDS) - {"administer"}
    assert drawn == {*KINDS, *rough, *lost, *on_top} - {"rough-links", "client-loss"}
    assert played == drawn


def test_what_some_nodes_say_comes_late() -> None:
    links = ["n1->all", "n3->all"]
    slow = Fault(at_s=0.0, for_s=1.0, kind="latency", args={"links": links, "latency_ms": 2000})
    late = [node for node in FIVE if node not in ("n1", "n3")]
    assert heard(slow) == {node: [n for n in late if n != node] for node in FIVE}


def struck(name: str, wanted: Callable[[list[Fault]], bool]) -> list[Fault]:
    """The first tape of a protocol that is ``wanted``."""
    tapes = (draw_tape(random.Random(seed), FIVE, get(name), 10.0, 0.5) for seed in range(200))
    return next(tape for tape in tapes if wanted(tape))


def leaders_cut_off(tape: list[Fault]) -> list[Fault]:
    return [f for f in tape if f.kind == "partition" and f.args.get("nodes", [""])[0] == "leader"]


def test_in_some_seeds_each_leader_is_cut_off_when_its_predecessor_is_back() -> None:
    def is_relay(tape: list[Fault]) -> bool:
        cut = leaders_cut_off(tape)
        return len(cut) > 5 and all(
            abs(one.at_s + one.for_s - two.at_s) <= 0.02 for one, two in pairwise(cut)
        )

    cut = leaders_cut_off(struck("raft", is_relay))
    assert all(0.1 * 0.6 <= fault.for_s <= 1.8 * 2.0 * 0.5 for fault in cut)
    assert all(len(fault.args["nodes"]) <= 2 for fault in cut), "a minority of five"


def test_in_some_seeds_whoever_becomes_leader_is_cut_off_at_that_moment() -> None:
    def at_a_moment(tape: list[Fault]) -> bool:
        return bool(tape) and tape[0].args.get("match") == "become_leader" and tape[0].args["cut"]

    for name in ("raft", "paxos"):
        tape = struck(name, at_a_moment)
        assert {(f.kind, f.args.get("point")) for f in tape} == {("trap", "mark"), ("crash", None)}
        result = simulate(name, 1, nodes=5, tape=tape, trace=True)
        told = "\n".join(result.transcript)
        assert re.search(r"FAULT -\d+ n\d is (mute|isolated)", told)
        assert result.alarms == []


def test_in_some_seeds_nodes_restart_while_answers_get_lost() -> None:
    tape = struck("raft", lambda tape: {f.kind for f in tape} == {"crash", "replies-lost"})
    assert len(tape) > 5


def test_ring_leaves_every_node_a_majority() -> None:
    for count in range(3, 10):
        nodes = [f"n{i}" for i in range(count)]
        cut = shapes.majorities_ring(nodes)
        for node in nodes:
            assert count - sum(link[0] == node for link in cut) >= count // 2 + 1


# --- clients ---


def run_one(policy: ClientPolicy, lost: str = "") -> tuple[OperationRecord, Cluster]:
    it = Cluster(protocol(), nodes=3, seed=2)
    clients = Clients(it, policy)
    if lost:
        fault = Fault(at_s=0.0, for_s=9.0, kind=f"{lost}-lost", args={"node": "n1"})
        Nemesis(it, clients, [fault])
        it.run(0.0)
    ended: list[OperationRecord] = []
    clients.invoke("c1", "n1", Operation("write", "x", "v"), ended.append)
    it.run(5.0)
    return ended[0], it


def test_a_lost_request_and_a_lost_reply_both_end_info() -> None:
    lost, it = run_one(ClientPolicy(), lost="requests")
    assert (lost.outcome, lost.completed_ns, it.states()["n1"]) == ("info", None, {})
    applied, it = run_one(ClientPolicy(), lost="replies")
    assert (applied.outcome, applied.completed_ns) == ("info", None)
    assert it.states()["n1"] == {"x": (("v",), 1)}


def test_a_retry_goes_to_another_node_under_the_same_name() -> None:
    record, _ = run_one(ClientPolicy(retry="other", retry_after_s=0.1), lost="requests")
    assert record.outcome == "ok"
    assert record.completed_ns is not None
    assert record.completed_ns > 0.1e9
    record, _ = run_one(ClientPolicy(retry="same", retry_after_s=0.1), lost="requests")
    assert record.outcome == "info"


def test_a_refusal_after_a_retry_says_nothing_about_the_other_attempts() -> None:
    for again, outcome in ((False, "fail"), (True, "info")):
        it = Cluster(PROBE, nodes=2, seed=2)
        clients = Clients(it, ClientPolicy(retry="other" if again else "never", retry_after_s=0.1))
        ended: list[OperationRecord] = []
        clients.invoke("c1", "n1", Operation("write", "x", "put k v"), ended.append)
        it.run(0.15)
        it.on_reply("n2", Reply("c1", 0, "fail", error="no"))
        it.run(2.0)
        assert [record.outcome for record in ended] == [outcome]


def test_client_loss_is_one_way_and_heals() -> None:
    for lost in ("requests", "replies"):
        it = Cluster(protocol(), nodes=3, seed=2)
        clients = Clients(it, ClientPolicy())
        fault = Fault(at_s=0.0, for_s=2.0, kind=f"{lost}-lost", args={"node": "n1"})
        Nemesis(it, clients, [fault])
        ended: list[OperationRecord] = []
        it.run(0.1)
        clients.invoke("c1", "n1", Operation("write", "x", "v"), ended.append)
        it.run(2.0)
        clients.invoke("c2", "n1", Operation("write", "y", "w"), ended.append)
        it.run(2.0)
        assert [record.outcome for record in ended] == ["info", "ok"]
        assert ("x" in it.states()["n1"]) == (lost == "replies")


def test_random_clients_write_unique_values_one_operation_at_a_time() -> None:
    it = Cluster(protocol(), nodes=3, seed=2)
    clients = Clients(it, ClientPolicy(timeout_s=0.2))
    RandomClients(clients, WorkloadMix(clients=4, think_s=0.02), ("read", "write")).start()
    it.run(2.0)
    it.crash("n1")
    it.run(2.0)
    clients.close()
    values = [record.value for record in clients.history if record.op == "write"]
    assert len(values) > 100
    assert len(set(values)) == len(values)
    by_process: dict[str, list[OperationRecord]] = {}
    for record in clients.history:
        by_process.setdefault(record.process, []).append(record)
    assert any(record.outcome == "info" for record in clients.history)
    for records in by_process.values():
        for earlier, later in pairwise(records):
            assert earlier.completed_ns is not None, "a process is not used again after info"
            assert earlier.completed_ns <= later.invoked_ns


@pytest.mark.parametrize(("deletes", "found"), [(0.0, False), (0.2, True)])
def test_what_a_protocol_does_not_offer_becomes_no_deletion(deletes: float, found: bool) -> None:
    it = Cluster(protocol(), nodes=3, seed=2)
    clients = Clients(it, ClientPolicy())
    mix = WorkloadMix(think_s=0.02, reads=0.3, cas=0.3, deletes=deletes)
    RandomClients(clients, mix, ("read", "write", "delete")).start()
    it.run(1.0)
    kinds = {record.op for record in clients.history}
    assert kinds == ({"read", "write", "delete"} if found else {"read", "write"})


def test_a_planned_load_keeps_intended_times_and_counts_what_it_drops() -> None:
    it = Cluster(protocol(), nodes=3, seed=2, quality=Quality(latency_s=0.01))
    clients = Clients(it, ClientPolicy())
    plan = [
        PlannedOperation(intended_s=0.001 * i, node="n1", operation=Operation("write", "x", i))
        for i in range(20)
    ]
    load = PlannedLoad(clients, plan, in_flight=5)
    it.run(2.0)
    assert [record.intended_ns for record in clients.history] == [
        int(0.001 * i * 1e9) for i in range(5)
    ]
    assert all(record.outcome == "ok" for record in clients.history)
    assert load.dropped == plan[5:]
