"""Placement and recovery, embedded in gossip."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from nodes.contract.replica import Message
from nodes.protocols.gossip import (
    Difference,
    Forward,
    Forwarded,
    Gossip,
    GossipParameters,
    Record,
    Rumour,
)
from tests.protocols.sans_io import Cluster
from tests.protocols.test_recovery import DETECTION_S, HEARTBEAT, HOLD_S, marks, placement, restored


def cluster(**parameters: Any) -> Cluster:
    defaults: dict[str, Any] = {
        "replication_factor": 3,
        "ranges": 1,
        "heartbeat": HEARTBEAT,
        "recover_after_s": HOLD_S,
    }
    c = Cluster(Gossip, GossipParameters(**{**defaults, **parameters}), 5)
    c.run(1.0)
    return c


def sides(c: Cluster) -> tuple[list[str], list[str]]:
    """Who holds the one range, and who does not."""
    members = list(placement(c, "n1").nodes)
    return members, [id for id in c.ids if id not in members]


def done(c: Cluster, id: str, op: str, value: Any = None, **options: Any) -> Any:
    request = c.ask(id, op, "k", value, **options)
    c.settle()
    return c.reply_to(request)


def test_who_does_not_hold_a_key_asks_one_who_does_and_keeps_none_of_it() -> None:
    c = cluster()
    members, others = sides(c)
    assert done(c, others[0], "write", "v").outcome == "ok"
    c.run(2.0)
    assert [done(c, id, "read", client=f"reader of {id}").value for id in c.ids] == ["v"] * 5
    assert [id for id in c.ids if c[id].records] == sorted(members)


def test_who_holds_a_key_answers_alone() -> None:
    c = cluster()
    members, _ = sides(c)
    c.ask(members[0], "write", "k", "v")
    assert c.replies[-1][1].outcome == "ok"
    assert not c.find(kind=Forward)


def test_rumours_go_to_members_only() -> None:
    c = cluster(anti_entropy_interval_s=1e6, fanout=4)
    members, _ = sides(c)
    c.ask(members[0], "write", "k", "v")
    c.fire(members[0], "gossip-round")
    assert {p.dst for p in c.find(kind=Rumour)} == set(members) - {members[0]}


def test_a_write_that_was_forwarded_twice_is_made_once() -> None:
    c = cluster()
    _, others = sides(c)
    request = c.ask(others[0], "write", "k", "v")
    (sent,) = c.find(kind=Forward)
    c.deliver()
    assert c.drop(kind=Forwarded) == 1
    c.run(0.5)
    assert c.reply_to(request).outcome == "ok"
    assert len(c[sent.dst].records["k"].siblings) == 1
    assert c[sent.dst].records["k"].siblings[0].counter == 1


def test_a_copy_of_what_is_being_forwarded_is_not_forwarded() -> None:
    c = cluster()
    _, others = sides(c)
    request = c.ask(others[0], "write", "k", "v")
    c.step(others[0], request)
    assert len(c.find(kind=Forward)) == 1
    c.run(0.5)
    assert [reply.outcome for _, reply in c.replies] == ["ok"]


@pytest.mark.parametrize(("op", "outcome"), [("write", "info"), ("read", "fail")])
def test_where_nobody_answers_a_write_is_unknown_and_a_read_fails(op: str, outcome: str) -> None:
    c = cluster(recover_after_s=1e3)
    members, others = sides(c)
    request = c.ask(others[0], op, "k", "v" if op == "write" else None)
    for id in members:
        c.crash(id)
    c.run(4.0)
    assert c.reply_to(request).outcome == outcome


def test_a_read_goes_to_another_member_when_the_first_is_suspected() -> None:
    c = cluster(recover_after_s=1e3)
    _, others = sides(c)
    assert done(c, others[0], "write", "v").outcome == "ok"
    c.run(1.0)
    request = c.ask(others[0], "read", "k", client="reader")
    (sent,) = c.find(kind=Forward)
    c.crash(sent.dst)
    c.run(2.5)
    assert c.reply_to(request).value == "v"


def test_what_a_lost_node_held_is_copied() -> None:
    c = cluster(ranges=8)
    for number in range(30):
        request = c.ask(c.ids[number % 5], "write", f"key {number}", number)
        c.settle()
        assert c.reply_to(request).outcome == "ok"
    c.run(2.0)
    c.crash("n2")
    c.run(3 * DETECTION_S)
    assert restored(c)
    assert all(m["bytes"] for m in marks(c, "re_replicated") if m["keys"])
    for number in range(30):
        key = f"key {number}"
        for id in placement(c, "n1", key).nodes:
            assert c[id].state()[key][0] == (number,)


def replaced() -> tuple[Cluster, str]:
    """A member that took in a write after it was replaced by mistake, and then handed it over."""
    c = cluster()
    members, _ = sides(c)
    lonely = members[0]
    c.partition([lonely], [id for id in c.ids if id != lonely])
    c.run(4 * DETECTION_S)
    assert lonely not in placement(c, members[1]).nodes
    # It does not know, and answers.
    assert done(c, lonely, "write", "taken in alone").outcome == "ok"
    c.cut.clear()
    c.run(10.0)
    return c, lonely


def test_what_a_falsely_suspected_member_took_in_is_handed_over() -> None:
    c, lonely = replaced()
    now = placement(c, lonely).nodes
    assert lonely not in now
    assert [c[id].state()["k"][0] for id in now] == [("taken in alone",)] * 3
    assert "k" not in c[lonely].state()
    # And then it is done: what is written later it neither takes nor asks about.
    assert done(c, now[0], "write", "later").outcome == "ok"
    c.run(10.0)
    assert [c[id].state()["k"][0] for id in now] == [("later",)] * 3
    assert [s.value for s in c[lonely].records["k"].siblings] == ["taken in alone"]
    assert c[lonely]._handed_over


def test_what_comes_after_the_rest_was_handed_over_is_handed_over_too() -> None:
    c, lonely = replaced()
    now = placement(c, lonely).nodes
    done(c, now[0], "write", "later")
    c.run(10.0)
    assert c[lonely]._handed_over
    # From somebody that takes it for a member; what it makes of that as a rumour is lost.
    late = structs.replace(c[now[0]].records["k"].siblings[0], counter=99, value="late")
    c.step(lonely, Message(now[1], Rumour({"k": Record((late,))})))
    assert not c[lonely]._handed_over
    while c[lonely]._hot:
        c.fire(lonely, "gossip-round")
        c.drop(kind=Rumour)
    c.run(10.0)
    assert ["late" in c[id].state()["k"][0] for id in now] == [True] * 3


def test_only_what_a_member_has_counts_as_handed_over() -> None:
    c, lonely = replaced()
    now = placement(c, lonely).nodes
    (other,) = set(c.ids) - {*now, lonely}
    c[lonely]._handed_over.clear()
    buckets = tuple(range(c[lonely].parameters.buckets))
    told = Difference(0, buckets, {"k": c[now[0]]._clock("k")})
    c.step(lonely, Message(other, told))
    assert not c[lonely]._handed_over
    c.step(lonely, Message(now[0], told))
    assert c[lonely]._handed_over
