"""Work that must be done neither too often nor too seldom, nor by the wrong ones: each oracle sees
what it is for, and nothing in what is right."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from nodes.contract.pace import Pace
from nodes.contract.replica import MAX_HEAVY, Invariant, InvariantBroken, Message, Scene, Timer
from nodes.parts.key_digest import PartnersAreRandom
from nodes.parts.placement import Placement, first_placement
from nodes.protocols.gossip import Gossip
from nodes.protocols.paxos import Paxos
from nodes.protocols.quorum_register import Difference, Digest, Pull, QuorumRegister
from nodes.registry import get
from nodes.simulator.bugs.unhelped import (
    HotKeysStayAsTheyAre,
    NeverGoesBack,
    RepairsBecomeRumours,
    RoundsStarve,
)
from nodes.simulator.cluster import Cluster, Mark
from nodes.simulator.oracles import aftermath, rest
from nodes.simulator.oracles.aftermath import Aftermath
from nodes.simulator.oracles.losses import handed_to_suspects, hasty, onto_lost, tardy
from nodes.simulator.oracles.traffic import Traffic
from nodes.simulator.simulate import simulate
from tests.simulator.test_oracles import Stage, planted

PLACED = get("quorum-placed")


def mark(at_s: float, node: str, name: str, /, **details: Any) -> Mark:
    return Mark(at_s, node, name, details)


def test_members_propose_one_after_another() -> None:
    cluster = Cluster(PLACED, nodes=4, parameters={"recover_after_s": 2.0, "replication_factor": 3})
    first = first_placement(0, cluster.nodes, 3)
    assert first.nodes == ("n1", "n2", "n3")

    def found(at_s: float, node: str, *more: Mark, number: int = 1) -> list[str]:
        cluster.marks[:] = [
            mark(6.0, node, "suspect", node="n3"),
            *more,
            mark(at_s, node, "under_replicated", range=0, number=number, lost="n3", to="n4"),
        ]
        return [check for check, _ in hasty(cluster, since_s=5.0)]

    assert found(8.0, "n1") == []
    assert found(8.0, "n2") == ["re-replication"], "n1 has not had its turn"
    assert found(10.0, "n2") == []
    assert found(8.0, "n2", mark(6.1, "n2", "suspect", node="n1")) == []
    moved = mark(7.0, "n4", "placed", range=0, number=2, members="n2,n1,n3")
    assert found(8.0, "n2", moved, number=2) == []
    assert found(8.0, "n1", moved, number=2) == ["re-replication"]


def test_ranges_move_one_at_a_time_and_when_all_have_been_trusted_for_long() -> None:
    cluster = Cluster(PLACED, nodes=4, parameters={"recover_after_s": 2.0})

    def found(*marks: Mark) -> list[str]:
        cluster.marks[:] = marks
        return [check for check, _ in hasty(cluster, since_s=5.0)]

    one, other = (mark(9.0, "n1", "unbalanced", range=number) for number in (0, 1))
    assert found(one) == []
    assert found(one, other) == ["re-replication"]
    assert found(one, mark(9.0, "n2", "unbalanced", range=1)) == [], "two nodes may both begin"
    trusts = mark(7.5, "n1", "trust", node="n3")
    assert found(trusts, one) == ["re-replication"]
    assert found(trusts, mark(8.0, "n1", "suspect", node="n3"), one) == [], "n3 is not asked"
    assert found(mark(7.0, "n1", "trust", node="n3"), one) == []


def test_nothing_moves_to_who_is_down() -> None:
    before = [first_placement(0, ("n1", "n2", "n3", "n4"), 2)]

    def found(members: str) -> list[str]:
        marks = [mark(1.0, "n2", "placed", range=0, number=2, members=members)]
        return [check for check, _ in onto_lost(marks, before, ["n4"])]

    assert found("n3,n2") == []
    assert found("n4,n2") == ["re-replication"]
    assert [check for check, _ in onto_lost([], before, ["n1"])] == [], "it was there before"
    marks = [mark(1.0, "n2", "placed", range=0, number=2, members="n4,n2")]
    voted = Placement(0, 2, (("n2", 1), ("n4", 2)), before[0].members)
    assert list(onto_lost(marks, before, ["n4"], [voted])) == [], "it may have been chosen"
    assert list(onto_lost(marks, before, ["n4"], [replace(voted, number=3)])) != []


def test_who_comes_first_of_those_that_live_waits_for_nobody() -> None:
    settled = [first_placement(0, ("n1", "n2", "n3", "n4", "n5"), 3)]

    def found(*marks: Mark) -> list[str]:
        suspects = [mark(1.0, node, "suspect", node="n1") for node in ("n2", "n3")]
        return [check for check, _ in tardy([*suspects, *marks], settled, ["n1"], 2.0)]

    def proposed(at_s: float, node: str, number: int = 0) -> Mark:
        return mark(at_s, node, "under_replicated", range=number, number=1, lost="n1", to="n4")

    assert found(proposed(3.0, "n2")) == []
    assert found(proposed(2.5, "n3"), proposed(3.5, "n2")) == [], "somebody did"
    assert found(proposed(3.5, "n2")) == ["re-replication"]
    assert found(proposed(3.0, "n2", 1)) == ["re-replication"], "another range"
    assert list(tardy([proposed(9.0, "n2")], settled, ["n1"], 2.0)) == [], "nobody suspected it"
    assert list(tardy([mark(1.0, "n1", "suspect", node="n4")], settled, ["n4"], 2.0)) == []


def test_a_read_is_handed_on_to_nobody_who_is_suspected() -> None:
    marks = [mark(2.0, "n1", "suspect", node="n3"), mark(4.0, "n1", "trust", node="n3")]

    def found(*reads: tuple[float, str, str]) -> list[str]:
        return [check for check, _ in handed_to_suspects(marks, reads)]

    assert found((1.9, "n1", "n3"), (2.05, "n1", "n3"), (4.5, "n1", "n3")) == []
    assert found((3.0, "n2", "n3"), (3.0, "n1", "n2")) == []
    assert found((3.0, "n1", "n3")) == ["liveness"]


def traffic(**sent: int) -> Traffic:
    """Of messages named ``<type>_<sender>_<receiver>``."""
    counted = Traffic(Cluster(get("quorum"), nodes=3), {})
    for name, count in sent.items():
        kind, src, dst = name.split("_")
        counted.sent[kind, src, dst] = count
    counted.seconds = 10.0
    return counted


def test_what_is_told_of_a_write_is_told_so_often() -> None:
    pace = Pace(tells={"Rumour": 4})

    def found(**sent: int) -> list[str]:
        return [check for check, _ in rest.told(traffic(**sent), pace)]

    assert found(Rumour_n1_n2=2, Rumour_n1_n3=2, Rumour_n2_n3=4, Digest_n1_n2=9) == []
    assert found(Rumour_n1_n2=4, Rumour_n2_n1=3) == ["messages"]
    assert found(Rumour_n1_n2=8) == ["messages"]
    assert found() == ["messages"], "somebody has to"


def test_who_has_answered_is_not_asked_again() -> None:
    pace = Pace(idle={"Digest": 1.0})

    def found(**sent: int) -> list[str]:
        return [check for check, _ in rest.repeated(traffic(**sent), pace, ["n1", "n2"], 2)]

    assert found(Prepare_n1_n2=1, Prepared_n2_n1=1, Prepare_n1_n3=90, Digest_n1_n2=50) == []
    assert found(Prepare_n1_n2=6, Prepared_n2_n1=6) == ["messages"]


def test_what_comes_regularly_comes_often_enough() -> None:
    pace = Pace(idle={"Heartbeat": 6.0}, least={"Heartbeat": 6.0})
    for count, expected in ((60, []), (49, []), (40, ["messages"])):
        found = rest.chatter(traffic(Heartbeat_n1_n2=count), pace, nodes=3)
        assert [check for check, _ in found] == expected, count


def test_partners_are_drawn_from_all() -> None:
    partners = PartnersAreRandom()
    partners.begin(Scene(dict.fromkeys(("n1", "n2", "n3")), {}))  # type: ignore[arg-type]
    for number in range(200):
        partners.on_begin("n1", ("n2", "n3")[number % 2], None)
    for _ in range(39):
        partners.on_begin("n2", "n1", None)
    with pytest.raises(InvariantBroken, match="none to the others"):
        partners.on_begin("n2", "n1", None)


def test_what_a_node_makes_of_a_message_is_judged_if_it_takes_it_in() -> None:
    seen: Counter[str] = Counter()

    class Judge(Invariant):
        judges = {Digest: "on_digest"}  # noqa: RUF012

        def on_digest(self, replica: Any, src: str, msg: Digest, sends: Any) -> None:
            seen[src] += 1
            assert [send.dst for send in sends] == [src] * bool(msg.hashes)
            assert all(type(send.msg) is Difference for send in sends)

    class Judged(QuorumRegister):
        INVARIANTS = (Judge,)

    cluster = Cluster(planted(get("quorum"), Judged), nodes=3, manual=True)
    host = cluster.hosts["n1"]
    assert isinstance(host.replica, Judged)
    different = Message("n2", Digest((1,) * 256))
    host.step([different, different])
    assert seen == {"n2": 2}
    host.step([different] * (MAX_HEAVY + 5))
    assert seen == {"n2": 2 + MAX_HEAVY}, "the others were not taken in"
    host.step([Message("n2", Pull(()))])
    assert seen.total() == 2 + MAX_HEAVY


def test_what_a_node_makes_of_a_timer_is_judged() -> None:
    seen: list[tuple[str, int]] = []

    class Judge(Invariant):
        judges = {Timer: "on_timer"}  # noqa: RUF012

        def on_timer(self, replica: Any, _: str, name: str, sends: Any) -> None:
            seen.append((name, len([send for send in sends if type(send.msg) is Digest])))

    class Judged(QuorumRegister):
        INVARIANTS = (Judge,)

    cluster = Cluster(planted(get("quorum"), Judged), nodes=3, manual=True)
    cluster.hosts["n1"].step([Timer("anti-entropy")])
    cluster.hosts["n1"].step([Timer("retransmit")])
    assert seen == [("anti-entropy", 1), ("retransmit", 0)]


def test_where_nobody_can_be_served_that_is_said_in_time() -> None:
    class Patient(QuorumRegister):
        def on_timer(self, name: str) -> None:
            for operation in self._operations.values():
                operation.deadline_s = 1e9
            super().on_timer(name)

    quorum = get("quorum")
    found = [
        alarm
        for seed in range(1, 9)
        for alarm in simulate(planted(quorum, Patient), seed, duration_s=0.0).alarms
    ]
    assert found[0].check == "unanswered"


@pytest.mark.parametrize(
    ("replica", "told"),
    [
        (Gossip, []),
        (RoundsStarve, ["told: of writes that went on"]),
        (HotKeysStayAsTheyAre, ["told: of its last write"]),
        (RepairsBecomeRumours, ["missed: "]),
    ],
)
def test_rumours_are_told_in_their_time_and_no_longer(replica: Any, told: list[str]) -> None:
    stage = Stage("gossip", replica)
    Aftermath(stage, stage.pace).run(lasting=False)
    assert [check for check, _ in stage.alarms] == ["messages"] * len(told)
    found = [message for _, message in stage.alarms]
    assert [message[: len(begin)] for message, begin in zip(found, told, strict=True)] == told


def test_what_a_restart_made_forget_is_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, "RESTARTS", 1.0)
    for replica, expected in ((Paxos, []), (NeverGoesBack, ["catch-up"])):
        stage = Stage("paxos", replica)
        Aftermath(stage, stage.pace).run(lasting=False)
        assert [check for check, _ in stage.alarms] == expected
