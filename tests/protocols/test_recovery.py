"""Placement and recovery, embedded in the quorum register: scenes, then random schedules."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from nodes import registry
from nodes.contract.replica import Message
from nodes.parts import recovery
from nodes.parts.failure_detector import CountingParameters, Heartbeat, HeartbeatParameters
from nodes.parts.placement import (
    AcceptPlacement,
    Placed,
    Placement,
    PlacementNumbers,
    Placements,
    first_placement,
    range_of,
)
from nodes.parts.recovery import (
    NODE_LOST,
    CopyRange,
    Move,
    RangePage,
    RangeReady,
    Recovery,
    Situation,
    re_replicate,
    rebalance,
    register_recovery_strategy,
)
from nodes.parts.synod import Proposer
from nodes.protocols.quorum_register import (
    Commit,
    Prepare,
    Prepared,
    QuorumParameters,
    QuorumRegister,
)
from tests.protocols.sans_io import Cluster
from tests.protocols.test_quorum_register import Clients, linearizable

HEARTBEAT = HeartbeatParameters(
    heartbeat_every_s=0.25,
    check_every_s=0.25,
    counting=CountingParameters(timeout_s=1.0, rise=0.5, fall=0.5),
)
DETECTION_S = 2.0
HOLD_S = 0.5


def cluster(
    kind: type[QuorumRegister] = QuorumRegister, count: int = 5, **parameters: Any
) -> Cluster:
    defaults: dict[str, Any] = {
        "replication_factor": 3,
        "ranges": 8,
        "heartbeat": HEARTBEAT,
        "recover_after_s": HOLD_S,
        "anti_entropy_interval_s": 1e6,
    }
    c = Cluster(kind, QuorumParameters(**{**defaults, **parameters}), count)
    c.run(1.0)  # all have heard of all
    return c


def placement(c: Cluster, id: str, key: str = "k") -> Placement:
    found: Placement = c[id].recovery.placements.of(key)
    return found


def placements(c: Cluster, id: str) -> list[Placement]:
    return list(c[id].recovery.placements.current)


def marks(c: Cluster, name: str) -> list[dict[str, Any]]:
    return [details for _, mark, details in c.marks if mark == name]


def write(c: Cluster, id: str, key: str, value: Any) -> None:
    request = c.ask(id, "write", key, value)
    c.settle()
    assert c.reply_to(request).outcome == "ok"


def read(c: Cluster, id: str, key: str = "k") -> Any:
    request = c.ask(id, "read", key, client=f"reader of {id}")
    c.settle()
    reply = c.reply_to(request)
    assert reply.outcome == "ok", reply
    return reply.value


def restored(c: Cluster) -> bool:
    """All ranges have all members, ready and running, and all who run know it."""
    running = [id for id in c.ids if c.nodes[id].up]
    views = [placements(c, id) for id in running]
    return all(view == views[0] for view in views) and all(
        c.nodes[node].up and c[node].recovery.placements.serves(placed.range)
        for placed in views[0]
        for node in placed.nodes
    )


# --- where keys lie ---


def test_a_key_lies_on_as_many_nodes_as_the_factor_says_and_every_node_serves_it() -> None:
    c = cluster()
    for number in range(20):
        write(c, c.ids[number % 5], f"key {number}", number)
    held: dict[str, list[str]] = {}
    for id in c.ids:
        for key in c[id].state():
            held.setdefault(key, []).append(id)
    for number in range(20):
        key = f"key {number}"
        assert set(held[key]) <= set(placement(c, "n1", key).nodes)
        assert len(held[key]) >= 2
        assert [read(c, id, key) for id in c.ids] == [number] * 5


def test_ranges_are_dealt_out_evenly_and_keys_evenly_over_them() -> None:
    c = cluster(ranges=16)
    load = Situation(c.ids, tuple(placements(c, "n1")), (), ()).load()
    assert sorted(load.values()) == [9, 9, 10, 10, 10]
    keys = [0] * 16
    for number in range(1600):
        keys[range_of(f"k{number}", 16)] += 1
    assert min(keys) > 60


def test_with_the_factor_at_its_default_all_nodes_hold_all_keys_and_nothing_watches() -> None:
    c = Cluster(QuorumRegister, QuorumParameters(), 5)
    assert c["n1"].replicas_of("k") == c.ids
    assert c["n1"].recovery is None
    assert "replication_ratio" not in c["n1"].probe()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"replication_factor": 6}, "replication_factor is 0 (all nodes) to 5 with 5 nodes, not 6"),
        ({"replication_factor": -1}, "replication_factor is 0 (all nodes) to 5"),
        ({"replication_factor": 3, "ranges": 0}, "ranges is between 1 and 1024"),
        ({"replication_factor": 3, "ranges": 7}, "buckets (256) is a multiple of ranges (7)"),
        ({"replication_factor": 3, "read_quorum": 4}, "read_quorum is 0 (a majority) to 3 of 3"),
        ({"replication_factor": 3, "recover_after_s": 0}, "recover_after_s is a positive number"),
    ],
)
@pytest.mark.parametrize("name", ["quorum", "gossip"])
def test_bad_configuration_is_refused(name: str, parameters: dict[str, Any], message: str) -> None:
    if name == "gossip" and "read_quorum" in parameters:
        pytest.skip("gossip has no quorums")
    with pytest.raises(registry.InvalidConfiguration) as caught:
        registry.get(name).configure("n1", registry.node_ids(5), parameters)
    assert message in str(caught.value)


# --- a node is lost ---


def test_what_a_lost_node_held_is_copied_and_every_value_is_there() -> None:
    c = cluster()
    for number in range(40):
        write(c, c.ids[number % 5], f"key {number}", number)
    had = [p.range for p in placements(c, "n1") if p.joined("n2")]
    c.crash("n2")
    c.run(3 * DETECTION_S)
    assert restored(c)
    assert sorted(m["range"] for m in marks(c, "re_replicated") if m["from"] == "n2") == had
    assert sorted(m["range"] for m in marks(c, "under_replicated")) == had
    assert all(m["bytes"] > 0 for m in marks(c, "re_replicated") if m["keys"])
    assert sum(m["keys"] for m in marks(c, "re_replicated")) >= 40
    for id in ("n1", "n3", "n4", "n5"):
        assert [read(c, id, f"key {number}") for number in range(40)] == list(range(40))
        assert c[id].probe()["replication_ratio"] == 1.0


def test_the_new_members_are_the_least_loaded_nodes() -> None:
    c = cluster(ranges=16)
    had = [p.range for p in placements(c, "n1") if p.joined("n2")]
    c.crash("n2")
    c.run(3 * DETECTION_S)
    assert restored(c)
    assert len(marks(c, "placed")) == len(had), "something had to move a second time"
    load = Situation(c.ids, tuple(placements(c, "n1")), (), ()).load()
    assert load == {"n1": 12, "n2": 0, "n3": 12, "n4": 12, "n5": 12}
    assert c["n1"].probe()["placement"] == "n1:12 n2:0 n3:12 n4:12 n5:12"


def test_two_nodes_lost_one_after_the_other_cost_nothing() -> None:
    c = cluster()
    for number in range(40):
        write(c, "n1", f"key {number}", number)
    for id in ("n2", "n4"):
        c.crash(id)
        c.run(3 * DETECTION_S)
        assert restored(c)
    assert [read(c, "n5", f"key {number}") for number in range(40)] == list(range(40))


def test_a_suspicion_that_does_not_last_moves_nothing() -> None:
    c = cluster(recover_after_s=5.0)
    c.crash("n2")
    c.run(DETECTION_S)
    assert "n2" in c["n1"].probe()["suspects"]
    assert c["n1"].probe()["replication_ratio"] < 1.0
    c.restart("n2")
    c.run(10.0)
    assert {p.number for p in placements(c, "n1")} == {1}


def test_a_large_range_is_copied_in_pages_and_each_of_them_may_be_lost() -> None:
    c = cluster(ranges=1)
    (members,) = [p.nodes for p in placements(c, "n1")]
    for number in range(90):
        write(c, "n1", f"key {number}", "x" * 3000)
    c.crash(members[0])
    rng = random.Random(1)
    pages = 0
    end_s = c.now_s + 30
    while c.now_s < end_s:
        pages += len(c.find(kind=RangePage))
        for packet in list(c.network):
            c.network.remove(packet)
            if not isinstance(packet.msg, RangePage | CopyRange) or rng.random() < 0.5:
                c.receive(packet)
        if not c.network:
            due = min((at, id, name) for id in c.ids for name, at in c.nodes[id].timers.items())
            c.now_s = max(c.now_s, due[0])
            c.fire(due[1], due[2])
    assert pages > 4
    c.settle()
    assert restored(c)
    (done,) = marks(c, "re_replicated")
    # Two sources, 90 keys each.
    assert done["keys"] == 180
    assert done["bytes"] > 2 * 90 * 3000


def test_a_retry_finds_its_version_at_the_new_members() -> None:
    """At most once also holds over a change of members: the copy takes the requests along."""
    c = cluster(ranges=1)
    first, second, third = placement(c, "n1").nodes
    outside = [id for id in c.ids if id not in (first, second, third)]
    request = c.ask(first, "write", "k", "one", client="a")
    c.settle()
    write(c, second, "k", "two")
    c.crash(first)
    c.run(4 * DETECTION_S)
    assert restored(c)
    (new,) = set(placement(c, second).nodes) & set(outside)
    c.crash(second)
    c.run(4 * DETECTION_S)
    c.replies.clear()
    c.step(new, request)
    c.settle()
    assert c.reply_to(request).outcome == "ok"
    assert read(c, new) == "two", "the retry took effect a second time"


# --- a node that was suspected falsely ---


def test_a_falsely_suspected_replica_never_forms_a_quorum_with_old_members() -> None:
    """The scene that fencing is for. A range lies on three nodes, a, b and c. The others lose
    sight of a, which runs and serves clients; they put d in its place. From then on, a together
    with b would be two of the three members that a still believes in: a quorum of the old
    placement, which shares no member with the quorum c and d of the new one.

    What excludes it: d serves only after it has copied from two of a, b and c, and a source makes
    the new placement durable before it answers, and from then on refuses the old one (protocols,
    section 4; Lamport, Malkhi, Zhou 2009: a read quorum of the old configuration is closed before
    the new one is activated)."""
    cl = cluster(ranges=1)
    a, b, c = placement(cl, "n1").nodes
    others = [id for id in cl.ids if id != a]
    write(cl, a, "k", "before")

    # The others do not see a any more. It runs, and serves who asks it.
    cl.partition([a], others)
    cl.run(4 * DETECTION_S)
    new = placement(cl, b)
    (d,) = set(new.nodes) - {a, b, c}
    assert (new.number, a in new.nodes) == (2, False)
    assert cl[d].recovery.serves("k")

    # a still goes by the old placement, and is asked while it reaches b again, and only b.
    assert placement(cl, a).number == 1
    cl.cut -= {(a, b), (b, a)}
    stale = cl.ask(a, "read", "k", client="stale")
    asked = [p for p in cl.find(src=a, kind=Prepare) if p.dst == b]
    assert [p.msg.placement for p in asked] == [1]

    # Meanwhile a write ends on c and d, of which b knows nothing.
    late = cl.find(src=a)
    for packet in late:
        cl.network.remove(packet)
    cl.cut |= {(x, b) for x in (c, d)}
    write(cl, c, "k", "after")
    cl.cut -= {(x, b) for x in (c, d)}

    # b does not answer a's question. It tells the newer placement instead.
    cl.network.extend(late)
    cl.deliver(src=a, dst=b, kind=Prepare)
    (told,) = [p for p in cl.find(src=b, dst=a) if isinstance(p.msg, Placed)]
    assert told.msg.placement == new
    assert not [p for p in cl.find(src=b, dst=a) if not isinstance(p.msg, Placed)]

    # Now a asks the new members, and sees what they acknowledged.
    cl.cut.clear()
    cl.settle()
    cl.run(1.0)
    reply = cl.reply_to(stale)
    assert (reply.outcome, reply.value) == ("ok", "after")


def test_an_answer_waits_until_a_crash_would_not_make_its_sender_forget_the_placement() -> None:
    """Else the sender could answer under the old placement again, after the crash."""
    c = cluster(ranges=1)
    first, second, third = placement(c, "n1").nodes
    (outside, *_) = [id for id in c.ids if id not in (first, second, third)]
    c.autosync = False
    c.step(second, Message(third, Placed(placement(c, "n1").replace(first, outside))))
    c.step(second, Message(third, Prepare(7, "k", placement=2)))
    assert not c.find(src=second, kind=Prepared)
    c.sync(second)
    assert len(c.find(src=second, kind=Prepared)) == 1


def test_what_the_old_members_began_ends_under_the_new_placement_with_one_version() -> None:
    c = cluster(ranges=1)
    first = placement(c, "n1").nodes[0]
    write(c, first, "k", "before")
    c.partition([first], [id for id in c.ids if id != first])
    c.run(3.5 * DETECTION_S)
    # In its first phase when it learns that it was replaced.
    request = c.ask(first, "write", "k", "mine")
    assert placement(c, first).number == 1
    c.cut.clear()
    c.run(1.0)
    assert placement(c, first).number == 2
    name = (request.client, request.sequence)
    told = [reply for _, reply in c.replies if (reply.client, reply.sequence) == name]
    assert [reply.outcome for reply in told] == ["ok"]
    assert [read(c, id) for id in c.ids] == ["mine"] * 5
    assert "k" not in c[first].state(), "it is no member any more"


def test_a_write_in_its_second_phase_goes_on_with_the_new_members() -> None:
    c = cluster(ranges=1)
    first, second, third = placement(c, "n1").nodes
    (outside, *_) = [id for id in c.ids if id not in (first, second, third)]
    request = c.ask(outside, "write", "k", "mine")
    c.deliver(kind=Prepare)
    c.deliver(dst=outside)
    c.drop(kind=Commit)
    c.crash(first)
    c.run(4 * DETECTION_S)
    # It timed out meanwhile, or ended; it is never told to have failed, and is seen once or not.
    assert c.reply_to(request).outcome in ("ok", "info")
    assert len({read(c, id) for id in c.ids if id != first}) == 1


# --- who decides ---


def test_of_two_members_that_suspect_each_other_one_is_put_out() -> None:
    """Each proposes a set without the other. Their instance of Paxos chooses one of the two, and
    who is not in it has no say any more."""
    c = cluster(ranges=1)
    first, second, third = placement(c, "n1").nodes
    write(c, first, "k", "v")
    c.cut = {(first, second), (second, first)}
    c.run(10 * DETECTION_S)
    chosen = {p.members for id in c.ids for p in placements(c, id)}
    assert len(chosen) == 1
    nodes = placement(c, "n1").nodes
    assert (first in nodes) != (second in nodes)
    assert third in nodes
    lost = {m["lost"] for m in marks(c, "under_replicated")}
    assert lost == {first, second}, "both proposed"
    c.cut.clear()
    c.run(1.0)
    assert [read(c, id) for id in c.ids] == ["v"] * 5


def test_two_proposals_at_once_and_one_placement_wins() -> None:
    c = cluster(ranges=1)
    base = placement(c, "n1")
    first, second, third = base.nodes
    new1, new2 = [id for id in c.ids if id not in base.nodes]
    c[first].recovery.placements.propose(base.replace(second, new1))
    c[third].recovery.placements.propose(base.replace(first, new2))
    for id in (first, third):
        c._effects(id)
    c.run(5.0)
    views = {tuple(placements(c, id)) for id in c.ids}
    assert len(views) == 1
    ((chosen,),) = views
    assert chosen.number == 2
    assert chosen in (base.replace(second, new1), base.replace(first, new2))


def test_a_placement_that_one_acceptor_voted_for_and_a_majority_may_have_is_kept() -> None:
    """Paxos Made Simple, P2c: who comes after proposes what may be chosen already."""
    c = cluster(ranges=1)
    base = placement(c, "n1")
    first, second, third = base.nodes
    new1, new2 = [id for id in c.ids if id not in base.nodes]
    wanted = base.replace(second, new1)
    c[first].recovery.placements.propose(wanted)
    c._effects(first)
    c.deliver()
    c.deliver()
    assert c.find(kind=AcceptPlacement)
    c.deliver(dst=third, kind=AcceptPlacement)
    c.drop()
    c.crash(first)
    c[third].recovery.placements.propose(base.replace(first, new2))
    c._effects(third)
    c.settle()
    assert placement(c, third) == wanted


def test_another_member_proposes_where_the_proposer_crashes() -> None:
    c = cluster(ranges=1)
    first, second, third = placement(c, "n1").nodes
    write(c, first, "k", "v")
    c.crash(third)
    while not c.find(src=first, kind=AcceptPlacement):
        due = min((at, id, name) for id in c.ids for name, at in c.nodes[id].timers.items())
        c.now_s = max(c.now_s, due[0])
        c.fire(due[1], due[2])
        while c.network and not c.find(kind=AcceptPlacement):
            c.deliver()
    c.drop(src=first)
    c.crash(first)
    c.run(4 * DETECTION_S)
    # Two of three members are gone: no quorum, but the placement goes on, and when one is back ...
    c.restart(first)
    c.run(6 * DETECTION_S)
    assert restored(c)
    assert read(c, second) == "v"


def test_another_new_member_is_chosen_where_the_first_crashes_during_the_copy() -> None:
    c = cluster(ranges=1)
    first, second, third = placement(c, "n1").nodes
    for number in range(30):
        write(c, first, f"key {number}", number)
    c.crash(third)
    copying: list[str] = []
    while not copying:
        due = min((at, id, name) for id in c.ids for name, at in c.nodes[id].timers.items())
        c.now_s = max(c.now_s, due[0])
        c.fire(due[1], due[2])
        while c.network and not copying:
            copying = [p.src for p in c.find(kind=CopyRange)]
            if not copying:
                c.deliver()
    (new, *_) = copying
    c.crash(new)
    c.run(6 * DETECTION_S)
    assert restored(c)
    now = placement(c, first)
    assert now.number == 3
    assert new not in now.nodes
    assert third not in now.nodes
    assert [read(c, second, f"key {number}") for number in range(30)] == list(range(30))


def test_a_new_member_that_restarts_during_the_copy_begins_it_again() -> None:
    c = cluster(ranges=1)
    first, second, third = placement(c, "n1").nodes
    write(c, first, "k", "v")
    c.crash(third)
    c.cut = {(id, other) for id in c.ids for other in c.ids if id in (first, second)} - {
        (a, b) for a in (first, second) for b in (first, second)
    }
    c.cut.clear()
    while not c.find(kind=CopyRange):
        due = min((at, id, name) for id in c.ids for name, at in c.nodes[id].timers.items())
        c.now_s = max(c.now_s, due[0])
        c.fire(due[1], due[2])
        while c.network and not c.find(kind=CopyRange):
            c.deliver()
    new = c.find(kind=CopyRange)[0].src
    c.network.clear()
    c.crash(new)
    c.restart(new)
    assert not c[new].recovery.serves("k")
    c.run(1.0)
    assert c[new].recovery.serves("k")
    assert placement(c, new).number == 2


# --- a node comes back ---


def test_a_node_that_rejoins_has_no_vote_until_it_is_placed_and_has_copied() -> None:
    c = cluster()
    for number in range(40):
        write(c, "n1", f"key {number}", "old")
    c.crash("n2")
    c.run(3 * DETECTION_S)
    for number in range(40):
        write(c, "n1", f"key {number}", "new")
    assert restored(c)
    before = Situation(c.ids, tuple(placements(c, "n1")), (), ()).load()
    assert before["n2"] == 0

    c.restart("n2")
    # On its disk it is a member, with old values, of all that it had.
    assert any(c[c.ids[1]].recovery.placements.serves(r) for r in range(8))
    assert [read(c, "n2", f"key {number}") for number in range(40)] == ["new"] * 40
    c.run(20.0)
    assert restored(c)
    load = Situation(c.ids, tuple(placements(c, "n1")), (), ()).load()
    assert max(load.values()) - min(load.values()) <= 1, load
    assert set(dict(c["n2"].state())) != set()
    assert {value for (value,), _ in c["n2"].state().values()} == {"new"}


# --- strategies ---


def test_a_strategy_of_ones_own_is_used_by_its_failure_type() -> None:
    asked: list[Situation] = []

    def first_that_is_free(situation: Situation) -> list[Move]:
        asked.append(situation)
        return re_replicate(situation)

    before = register_recovery_strategy(NODE_LOST, first_that_is_free)
    try:
        c = cluster()
        c.crash("n3")
        c.run(3 * DETECTION_S)
    finally:
        register_recovery_strategy(NODE_LOST, before)
    assert asked
    assert asked[0].lost == ("n3",)
    assert restored(c)
    with pytest.raises(ValueError, match="unknown failure type 'fire'; known: node-lost"):
        register_recovery_strategy("fire", re_replicate)


@pytest.mark.parametrize("ranges", [4, 16])
def test_the_numbers_of_a_cluster_with_other_ranges_are_ignored(ranges: int) -> None:
    c = cluster()
    c.drop()
    c.step("n1", Message("n2", PlacementNumbers((9,) * ranges, (9,) * ranges)))
    assert marks(c, "placement_of_other_size") == [{"src": "n2"}]
    assert not c.network


def test_where_all_nodes_hold_all_keys_nobody_talks_of_placements() -> None:
    c = cluster(replication_factor=0)
    c.drop()
    replica = c["n1"]
    for message in (Heartbeat(1, 1), Placed(first_placement(0, c.ids, 3)), RangeReady(0, 1)):
        replica.step((Message("n2", message),))
        (said,) = replica.out.refused
        assert said.endswith("all nodes hold all keys")
        replica.out.refused.clear()
    assert not replica.out.sends


def test_rebalance_moves_no_more_than_it_has_to() -> None:
    c = cluster(ranges=16)
    even = tuple(placements(c, "n1"))
    assert rebalance(Situation(c.ids, even, c.ids, ())) == []
    assert rebalance(Situation(c.ids, even, (), ())) == []
    emptied = list(even)
    for move in re_replicate(Situation(c.ids, even, ("n2", "n3", "n4", "n5"), ("n1",))):
        emptied[move.range] = emptied[move.range].replace(move.lost, move.to)
    moves = rebalance(Situation(c.ids, tuple(emptied), c.ids, ()))
    assert {move.to for move in moves} == {"n1"}
    assert len(moves) == 9
    assert len({move.range for move in moves}) == 9


# --- random schedules ---


def random_run(
    seed: int, kind: type[QuorumRegister] = QuorumRegister, steps: int = 700
) -> tuple[Cluster, Clients]:
    """Clients, losses, crashes and false suspicions; then one node never comes back."""
    rng = random.Random(seed)
    parameters = QuorumParameters(
        replication_factor=3,
        ranges=2,
        buckets=4,
        anti_entropy_interval_s=1e6 if rng.random() < 0.7 else 2.0,
        heartbeat=HEARTBEAT,
        recover_after_s=rng.choice([0.1, 0.5]),
        timeout_s=rng.choice([3.0, 30.0]),
    )
    c = Cluster(kind, parameters, 5, seed=seed, autosync=False)
    clients = Clients(c, rng, 3)
    c.sync_all()
    calm = rng.choice([0.5, 0.9, 0.97])
    crashes = rng.random() < 0.5
    isolated = 0
    for _ in range(steps):
        dice = rng.random()
        if dice < 0.06 and len(clients.history) < 24:
            clients.act()
        elif dice < 0.07 and not isolated:
            # Long enough to be suspected, and asked by clients all the while.
            one = rng.choice(c.ids)
            c.partition([one], [id for id in c.ids if id != one])
            isolated = rng.randrange(20, 200)
        elif rng.random() < calm:
            c.sync_all()
            if c.network:
                packet = c.network.pop(rng.randrange(min(len(c.network), 30)))
                c.receive(packet)
            if rng.random() < 0.3 or not c.network:
                due = [(at, i, n) for i in c.ids for n, at in c.nodes[i].timers.items()]
                if due:
                    at, id, name = min(due)
                    c.now_s = max(c.now_s, at)
                    c.fire(id, name)
        else:
            c.disturb(rng, crashes=crashes)
        if isolated:
            isolated -= 1
            if not isolated:
                c.cut.clear()
    c.heal()
    c.run(10.0)
    gone = rng.choice(c.ids)
    c.crash(gone)
    c.run(20.0)
    for name in list(clients.open):
        clients.abandon(name)
    for id in c.ids:
        if id != gone:
            clients.ask(f"final {id}", id, True)
            c.run(1.0)
    return c, clients


def judge(seed: int, kind: type[QuorumRegister] = QuorumRegister) -> Cluster:
    c, clients = random_run(seed, kind)
    assert not clients.open, f"seed {seed}: {list(clients.open)} got no answer"
    assert linearizable(clients.history), f"seed {seed}: {clients.history}"
    assert restored(c), f"seed {seed}: {[placements(c, id) for id in c.ids if c.nodes[id].up]}"
    return c


@pytest.mark.parametrize("block", range(4))
def test_random_schedules_lose_nothing_and_restore_the_factor(block: int) -> None:
    moved = 0
    for seed in range(block * 25, block * 25 + 25):
        moved += len(marks(judge(seed), "re_replicated"))
    assert moved > 50


# --- mistakes, each of which a scene above or a random schedule has to see ---


def test_the_copy_comes_from_so_many_that_one_of_them_has_each_acknowledged_write() -> None:
    """One source would do for no crash and no loss: here the one that is nearest has missed a
    write, which the lost node and another one hold."""
    c = cluster(ranges=1)
    first, second, third = placement(c, "n1").nodes
    for behind in (first, second, third):
        c = cluster(ranges=1)
        ahead, lost = [id for id in (first, second, third) if id != behind]
        c.cut = {(id, behind) for id in c.ids}
        write(c, ahead, "k", "acknowledged")
        c.cut.clear()
        c.crash(lost)
        # Whoever is behind sends its pages first.
        while not c.find(kind=RangePage):
            tick(c)
            while c.network and len(c.find(kind=CopyRange)) < 2 and not c.find(kind=RangePage):
                c.deliver()
            c.deliver(dst=behind, kind=CopyRange)
        c.drop(dst=ahead, kind=CopyRange)
        c.settle()
        c.cut = {(id, ahead) for id in c.ids} | {(ahead, id) for id in c.ids}
        (new,) = set(placement(c, behind).nodes) - {first, second, third}
        request = c.ask(new, "read", "k", client="reader")
        c.settle()
        told = [reply for _, reply in c.replies if reply.client == "reader"]
        assert [reply.value for reply in told if reply.outcome == "ok"] in ([], ["acknowledged"])
        c.cut.clear()
        c.run(2.0)
        assert c.reply_to(request).outcome in ("ok", "fail")
        assert read(c, new) == "acknowledged"


def tick(c: Cluster) -> None:
    """The next timer that is due fires."""
    at_s, id, name = min((at, id, name) for id in c.ids for name, at in c.nodes[id].timers.items())
    c.now_s = max(c.now_s, at_s)
    c.fire(id, name)


def any_seed() -> None:
    for seed in range(60):
        judge(seed)


def first_free(situation: Situation) -> list[Move]:
    moves = []
    for placed in situation.placements:
        lost = next((node for node in placed.nodes if node in situation.lost), None)
        if lost is not None:
            to = next(node for node in situation.live if not placed.joined(node))
            moves.append(Move(placed.range, lost, to))
    return moves


def answers_whoever_asks(self: Placements, src: str, key: str, number: int) -> bool:
    placed = self.of(key)
    return any(self.id == node for node, _ in (*placed.members, *placed.previous))


def is_member(self: Placements, number: int) -> bool:
    return self.current[number].joined(self.id) != 0


def was_ready_once(self: Placements, number: int) -> bool:
    return self.current[number].joined(self.id) != 0 and self.ready[number] != 0


def forget_votes(self: Any, slot: int, own: Any) -> Any:
    return own


def does_not_learn(self: Recovery, src: str, msg: CopyRange) -> None:
    number = msg.placement.range
    if self.placements.ready[number]:
        last, contents = self._host.range_page(number, msg.after)
        page = RangePage(number, msg.placement.number, msg.after, last, contents)
        self._out.send(src, page)


MISTAKES: dict[str, tuple[Any, str, Any, Callable[[], None]]] = {
    "no fencing": (Placements, "admits", answers_whoever_asks, any_seed),
    "no fencing, in the scene": (
        *(Placements, "admits", answers_whoever_asks),
        test_a_falsely_suspected_replica_never_forms_a_quorum_with_old_members,
    ),
    "a source answers without the fence": (Recovery, "on_copy_range", does_not_learn, any_seed),
    "the new replica serves before it has copied": (Placements, "serves", is_member, any_seed),
    "a member that was removed and comes back does not copy": (
        *(Placements, "serves", was_ready_once),
        any_seed,
    ),
    "one source is enough": (
        *(QuorumParameters, "copy_quorum", lambda self, nodes: 1),
        test_the_copy_comes_from_so_many_that_one_of_them_has_each_acknowledged_write,
    ),
    "an answer overtakes its fence": (
        *(Recovery, "is_durable", lambda self, key: True),
        test_an_answer_waits_until_a_crash_would_not_make_its_sender_forget_the_placement,
    ),
    "the choice ignores load": (
        *(recovery, "_STRATEGIES", {**recovery._STRATEGIES, NODE_LOST: first_free}),
        test_the_new_members_are_the_least_loaded_nodes,
    ),
    "a proposer forgets the votes it was told": (
        *(Proposer, "choose", forget_votes),
        test_a_placement_that_one_acceptor_voted_for_and_a_majority_may_have_is_kept,
    ),
    "operations do not begin again under a new placement": (
        *(QuorumRegister, "on_placement", lambda self, key_range: None),
        test_what_the_old_members_began_ends_under_the_new_placement_with_one_version,
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, attribute, mistake, scene = MISTAKES[name]
    scene()
    monkeypatch.setattr(where, attribute, mistake)
    with pytest.raises(AssertionError):
        scene()


def test_the_probe_tells_which_ranges_a_node_serves() -> None:
    c = cluster(ranges=8)
    served: dict[str, list[int]] = {id: [] for id in c.ids}
    for id in c.ids:
        for run in c[id].probe()["ranges"].split(","):
            first, _, last = run.partition("-")
            served[id] += range(int(first), int(last or first) + 1)
    for placed in placements(c, "n1"):
        assert {id for id in c.ids if placed.range in served[id]} == set(placed.nodes)
