"""Gossip: named cases, then random schedules with all invariants on."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from nodes import registry
from nodes.contract.replica import Message, Operation, Reply, Request
from nodes.protocols.gossip import (
    Difference,
    Digest,
    Gossip,
    GossipParameters,
    KeepSiblings,
    LastWriteWins,
    Pull,
    Push,
    Record,
    Rumour,
    Sibling,
    policies,
)
from tests.protocols.sans_io import Cluster

LWW = GossipParameters(conflict="lww")


def cluster(count: int = 3, parameters: GossipParameters | None = None, **options: Any) -> Cluster:
    return Cluster(Gossip, parameters or GossipParameters(), count, **options)


def spread(c: Cluster) -> None:
    """Long enough for rumours and anti-entropy to reach everyone."""
    c.run(10.0)


def values(c: Cluster, key: str) -> list[Any]:
    """What each node says of ``key``."""
    return [c.read(id, key).value for id in c.ids]


# --- local operations ---


def test_a_write_is_answered_alone_and_read_back_at_its_node() -> None:
    c = cluster()
    c.partition(["n1"], ["n2", "n3"])
    assert c.write("n1", "k", 1).outcome == "ok"
    assert c.read("n1", "k").value == 1
    assert c.read("n2", "k") == Reply("c", 2, "ok")


def test_a_write_is_not_answered_before_it_is_durable() -> None:
    c = cluster(autosync=False)
    c.ask("n1", "write", "k", 1)
    c.fire("n1", "gossip-round")
    assert not c.replies
    assert not c.network
    c.sync("n1")
    assert [reply.outcome for _, reply in c.replies] == ["ok"]
    assert c.find(src="n1", kind=Rumour)


def test_a_single_node_works_and_talks_to_nobody() -> None:
    c = cluster(1)
    c.write("n1", "k", 1)
    c.delete("n1", "k")
    assert c.read("n1", "k").value is None
    c.write("n1", "k", 2)
    c.run(5.0)
    assert c["n1"].state() == {"k": ((2,), {"n1": 3})}
    assert c["n1"].probe()["replication_ratio"] == 1.0
    assert not c.nodes["n1"].timers


def test_cas_is_unsupported() -> None:
    c = cluster()
    c.ask("n1", "cas", "k", 1)
    (reply,) = (reply for _, reply in c.replies)
    assert (reply.outcome, reply.error) == ("fail", "unsupported")
    assert c["n1"].state() == {}


# --- siblings and their supersession ---


def test_concurrent_writes_are_siblings_and_a_write_after_a_read_supersedes_them() -> None:
    c = cluster()
    c.partition(["n1"], ["n2"], ["n3"])
    c.write("n1", "k", "a")
    c.write("n2", "k", "b")
    c.cut.clear()
    spread(c)
    read = c.read("n3", "k")
    assert read.value == ["a", "b"]
    assert read.version == {"n1": 1, "n2": 1}

    c.write("n3", "k", "ab", context=read.version)
    spread(c)
    assert values(c, "k") == ["ab"] * 3


def test_a_write_supersedes_only_what_its_context_covers() -> None:
    c = cluster()
    seen = c.write("n1", "k", "a")
    c.write("n1", "k", "b", client="other")
    c.write("n1", "k", "c", context=seen.version)
    assert c.read("n1", "k").value == ["b", "c"]


def test_two_clients_with_the_same_stale_context_at_one_node_both_keep_their_write() -> None:
    # The case that plain version vectors get wrong (Preguiça et al. 2010, section 3).
    c = cluster()
    stale = c.write("n1", "k", "old").version
    spread(c)
    c.write("n1", "k", "a", client="a", context=stale)
    c.write("n1", "k", "b", client="b", context=stale)
    assert c.read("n1", "k").value == ["a", "b"]
    spread(c)
    assert values(c, "k") == [["a", "b"]] * 3


def test_a_write_without_context_supersedes_what_its_node_holds_and_nothing_else() -> None:
    c = cluster()
    c.partition(["n1"], ["n2", "n3"])
    c.write("n2", "k", "unseen")
    c.write("n1", "k", "first")
    c.write("n1", "k", "second")
    assert c.read("n1", "k").value == "second"
    c.cut.clear()
    spread(c)
    assert values(c, "k") == [["second", "unseen"]] * 3


def test_a_context_from_another_node_supersedes_what_this_node_never_saw() -> None:
    c = cluster()
    c.partition(["n1"], ["n2"], ["n3"])
    context = c.write("n1", "k", "a").version
    c.write("n2", "k", "b", context=context)
    c.cut.clear()
    spread(c)
    assert values(c, "k") == ["b"] * 3


@pytest.mark.parametrize(
    "context", [7, "v", [1, 2, "n1"], {"n9": 1}, {"n2": -1}, {"n1": 2}, {"n1": 10**15}]
)
def test_a_context_that_no_read_returned_is_refused(context: Any) -> None:
    c = cluster()
    c.write("n1", "k", "a")
    reply = c.write("n1", "k", "b", context=context)
    assert reply.outcome == "fail"
    assert reply.error is not None
    assert "context" in reply.error
    assert c.read("n1", "k").value == "a"


def test_a_delete_leaves_a_tombstone_that_a_late_rumour_cannot_undo() -> None:
    c = cluster()
    c.write("n1", "k", 1)
    c.fire("n1", "gossip-round")
    (late,) = c.find(dst="n2")
    c.drop()
    c.delete("n1", "k")
    spread(c)
    c.receive(late)
    assert values(c, "k") == [None] * 3
    assert all(c[id].state() == {} for id in c.ids)
    probe = c["n2"].probe()
    assert (probe["keys"], probe["tombstones"]) == (0, 1)


def test_a_delete_beside_a_concurrent_write_leaves_the_write() -> None:
    c = cluster()
    c.write("n1", "k", "old")
    spread(c)
    c.partition(["n1"], ["n2", "n3"])
    c.delete("n1", "k")
    c.write("n2", "k", "new")
    c.cut.clear()
    spread(c)
    assert values(c, "k") == ["new"] * 3


def test_wall_clock_skew_does_not_lose_acknowledged_writes() -> None:
    c = cluster()
    c.nodes["n2"].env.wall_offset_s = -3600.0
    c.write("n1", "k", "a")
    spread(c)
    c.write("n2", "k", "b")
    c.partition(["n1"], ["n2", "n3"])
    c.write("n1", "k", "c")
    c.write("n2", "k", "d")
    c.cut.clear()
    spread(c)
    assert all(set(value) == {"c", "d"} for value in values(c, "k"))


# --- last write wins ---


def test_lww_keeps_one_of_two_concurrent_writes_everywhere() -> None:
    c = cluster(parameters=LWW)
    c.partition(["n1"], ["n2", "n3"])
    c.write("n1", "k", "a")
    c.now_s += 1.0
    c.write("n2", "k", "b")
    c.cut.clear()
    spread(c)
    assert values(c, "k") == ["b"] * 3
    assert len({str(c[id].state()) for id in c.ids}) == 1


def test_lww_lets_a_causally_later_write_win_whatever_the_wall_clock_says() -> None:
    c = cluster(parameters=LWW)
    c.nodes["n1"].env.wall_offset_s = 3600.0
    version = c.write("n1", "k", "a").version
    # n2 has not heard of it; the client brings the version along.
    c.write("n2", "k", "b", context=version)
    spread(c)
    assert values(c, "k") == ["b"] * 3
    c.write("n3", "k", "c")
    spread(c)
    assert values(c, "k") == ["c"] * 3


def test_lww_stamps_go_on_after_a_restart_although_the_wall_clock_went_back() -> None:
    c = cluster(parameters=LWW)
    c.write("n1", "k", "a")
    c.crash("n1")
    c.nodes["n1"].env.wall_offset_s = -3600.0
    c.restart("n1")
    c.write("n1", "k", "b")
    assert c.read("n1", "k").value == "b"


@pytest.mark.parametrize("context", [7, {"n1": 1}, [1, 2], [-1, 0, "n1"], [1 << 60, 0, "n1"]])
def test_lww_refuses_a_context_that_no_read_returned(context: Any) -> None:
    c = cluster(parameters=LWW)
    assert c.write("n1", "k", "b", context=context).outcome == "fail"
    assert c["n1"].state() == {}


# --- rumours ---


def test_a_rumour_reaches_everyone_without_anti_entropy() -> None:
    c = cluster(5, GossipParameters(anti_entropy_interval_s=1000.0))
    c.write("n1", "k", 1)
    c.run(2.0)
    assert values(c, "k") == [1] * 5


def test_a_rumour_is_told_for_its_rounds_and_then_no_more() -> None:
    c = cluster(3, GossipParameters(rounds=3, fanout=1, anti_entropy_interval_s=1000.0))
    c.partition(["n1"], ["n2", "n3"])
    c.write("n1", "k", 1)
    assert c["n1"].probe()["pending"] == 1
    c.run(5.0)
    assert c.lost == 3
    assert c["n1"].probe()["pending"] == 0


def test_all_keys_that_changed_travel_in_one_message_per_peer() -> None:
    c = cluster(3)
    c.step("n1", *(Request("c", i, Operation("write", f"k{i}", i)) for i in range(10)))
    c.fire("n1", "gossip-round")
    assert sorted(packet.dst for packet in c.network) == ["n2", "n3"]
    assert all(len(packet.msg.records) == 10 for packet in c.network)


def test_many_large_values_are_divided_over_several_messages() -> None:
    c = cluster(2)
    for i in range(10):
        c.write("n1", f"k{i}", "x" * 100_000)
    c.fire("n1", "gossip-round")
    sizes = [len(packet.msg.records) for packet in c.network]
    assert sum(sizes) == 10
    assert max(sizes) <= 3
    c.settle()
    assert len(c["n2"].state()) == 10


# --- anti-entropy ---


def test_a_lost_rumour_is_repaired_by_anti_entropy() -> None:
    c = cluster(3)
    c.write("n1", "k", 1)
    for _ in range(3):
        c.fire("n1", "gossip-round")
        assert c.drop(kind=Rumour) == 2
    assert values(c, "k") == [1, None, None]
    c.run(1.0)
    assert values(c, "k") == [1] * 3


def test_what_a_node_heard_survives_its_crash() -> None:
    c = cluster(2)
    c.write("n1", "rumour", 1)
    spread(c)
    c.partition(["n1"], ["n2"])
    c.write("n1", "repaired", 2)
    c.run(5.0)
    c.cut.clear()
    spread(c)
    c.crash("n1")
    c.crash("n2")
    c.restart("n2")
    assert set(c["n2"].state()) == {"rumour", "repaired"}


def test_an_exchange_pushes_and_pulls_only_what_differs() -> None:
    c = cluster(2, GossipParameters(buckets=1))
    for i in range(20):
        c.write("n1", f"both{i}", i)
    spread(c)
    c.partition(["n1"], ["n2"])
    c.write("n1", "mine", 1)
    c.write("n2", "yours", 2)
    c.run(5.0)
    c.cut.clear()
    c.fire("n1", "anti-entropy")
    assert c.deliver(kind=Digest) == 1
    assert c.deliver(kind=Difference) == 1
    (push,) = c.find(src="n1", kind=Push)
    (pull,) = c.find(kind=Pull)
    assert list(push.msg.records) == ["mine"]
    assert pull.msg.keys == ("yours",)
    c.deliver()
    (answer,) = c.find(src="n2", kind=Push)
    assert list(answer.msg.records) == ["yours"]
    c.deliver()
    assert c["n1"].state() == c["n2"].state()
    assert not c.network
    # What was repaired is no rumour.
    assert [c[id].probe()["pending"] for id in c.ids] == [0, 0]


def test_equal_replicas_exchange_two_small_messages() -> None:
    c = cluster(2)
    c.write("n1", "k", 1)
    spread(c)
    c.fire("n2", "anti-entropy")
    c.deliver()
    (answer,) = c.network
    assert answer.msg == Difference(0, (), {})


def test_equal_changes_of_two_keys_in_one_bucket_do_not_cancel_out() -> None:
    c = cluster(2, GossipParameters(buckets=1))
    for key in ("ka", "kb", "kc", "kd"):
        c.write("n1", key, 1)
    spread(c)
    c.partition(["n1"], ["n2"])
    for key in ("ka", "kb", "kc", "kd"):
        c.write("n1", key, 2)
    c.run(5.0)
    c.cut.clear()
    spread(c)
    assert c["n2"].state() == c["n1"].state()


def test_a_large_difference_travels_in_several_messages() -> None:
    c = cluster(2, parameters=GossipParameters(digest_keys=10))
    c.partition(["n1"], ["n2"])
    for i in range(100):
        c.write("n1", f"a{i}", i)
        c.write("n2", f"b{i}", i)
    c.run(5.0)
    c.cut.clear()
    c.fire("n1", "anti-entropy")
    c.deliver()
    assert len(c.find(kind=Difference)) > 5
    c.settle()
    assert len(c["n1"].state()) == 200
    assert c["n1"].state() == c["n2"].state()


def test_a_digest_of_another_size_is_ignored() -> None:
    c = cluster(2)
    c.write("n1", "k", 1)
    c.step("n1", Message("n2", Digest((1, 2, 3))))
    assert not c.network


def test_the_replication_ratio_follows_what_is_known() -> None:
    c = cluster(2, GossipParameters(buckets=4))
    assert c["n1"].probe()["replication_ratio"] is None
    c.run(5.0)
    assert c["n1"].probe()["replication_ratio"] == 1.0
    c.write("n1", "k", 1)
    c.fire("n2", "anti-entropy")
    c.deliver(kind=Digest)
    assert c["n1"].probe()["replication_ratio"] == 7 / 8
    c.partition(["n1"], ["n2"])
    c.run(60.0)
    assert c["n1"].probe()["replication_ratio"] is None


# --- at most once ---


def test_a_retry_at_the_same_node_has_no_second_effect_even_after_a_restart() -> None:
    c = cluster()
    first = c.write("n1", "k", "a", client="a", sequence=0)
    c.write("n1", "k", "b", client="b")
    assert c.write("n1", "k", "a", client="a", sequence=0) == first
    c.crash("n1")
    c.restart("n1")
    assert c.write("n1", "k", "a", client="a", sequence=0) == first
    assert c.read("n1", "k").value == "b"


def test_a_retry_at_a_node_that_heard_of_the_write_is_recognised() -> None:
    c = cluster()
    c.write("n1", "k", "a", client="a", sequence=0)
    spread(c)
    assert c.write("n2", "k", "a", client="a", sequence=0).version == {"n1": 1}
    assert c.read("n2", "k").version == {"n1": 1}
    c.write("n2", "k", "b", client="b")
    assert c.write("n2", "k", "a", client="a", sequence=0).outcome == "ok"
    spread(c)
    assert values(c, "k") == ["b"] * 3


@pytest.mark.parametrize("conflict", ["siblings", "lww"])
def test_a_retry_at_a_node_that_has_not_heard_of_the_write_reads_as_one(conflict: Any) -> None:
    c = cluster(parameters=GossipParameters(conflict=conflict))
    c.partition(["n1"], ["n2", "n3"])
    c.write("n1", "k", "a", client="a", sequence=0)
    c.write("n2", "k", "a", client="a", sequence=0)
    c.cut.clear()
    spread(c)
    assert values(c, "k") == ["a"] * 3
    assert c["n1"].state() == c["n2"].state() == c["n3"].state()


def test_a_late_copy_of_an_acknowledged_request_has_no_effect() -> None:
    c = cluster()
    c.write("n1", "k", "a", client="a", sequence=0)
    c.write("n1", "k", "b", client="a", sequence=1, acked=1)
    for _ in range(2):
        reply = c.write("n1", "k", "a", client="a", sequence=0)
        assert reply.outcome == "info"
        c.crash("n1")
        c.restart("n1")
    assert c.read("n1", "k").value == "b"


def test_results_are_forgotten_once_acknowledged() -> None:
    def remembered() -> int:
        return sum(name.startswith("r/") for name, _ in c["n1"].disk.items())

    c = cluster(parameters=GossipParameters(remembered_clients=3, remembered_results=4))
    for i in range(50):
        c.write("n1", "k", i, client="acks", acked=i)
        assert remembered() == 1
    for i in range(50):
        c.write("n1", "k", i, client="never acks")
    assert remembered() == 5
    for i in range(50):
        c.write("n1", "k", i, client=f"once {i}")
    assert remembered() == 3


def test_results_of_clients_that_are_gone_are_forgotten_when_there_are_too_many_in_all() -> None:
    def remembered() -> dict[str, int]:
        return Counter(name.split("/")[1] for name, _ in c["n1"].disk.items() if name[:2] == "r/")

    c = cluster(parameters=GossipParameters(remembered_in_all=10))
    for client in ("a", "b", "c", "d"):
        for i in range(4):
            c.write("n1", "k", i, client=client)
    # Whole clients go, those that wrote longest ago first.
    assert remembered() == {"c": 4, "d": 4}
    # A client that is not gone has its own limit, and keeps what it has not acknowledged.
    for i in range(20):
        c.write("n1", "k", i, client="d")
    assert remembered() == {"d": 24}
    c.crash("n1")
    c.restart("n1")
    c.write("n1", "k", 1, client="e")
    assert remembered() == {"e": 1}


@pytest.mark.parametrize("conflict", ["siblings", "lww"])
@pytest.mark.parametrize("surviving", range(4))
def test_a_crash_between_any_two_writes_of_a_step(conflict: Any, surviving: int) -> None:
    c = cluster(parameters=GossipParameters(conflict=conflict))
    c.write("n1", "k", "a", client="a", sequence=0)
    c.autosync = False
    c.ask("n1", "write", "k", "b", client="a", sequence=1, acked=1)
    assert len(c.nodes["n1"].unsynced) == 3
    c.crash("n1", surviving=surviving)
    c.restart("n1")
    c.autosync = True
    survived = surviving >= 2
    assert c.read("n1", "k", client="r").value == ("b" if survived else "a")
    c.write("n1", "k", "other", client="o")
    c.crash("n1")
    c.restart("n1")
    assert c.write("n1", "k", "b", client="a", sequence=1, acked=1).outcome == "ok"
    # A retry is the first attempt if the crash took that, and nothing if it did not.
    assert c.read("n1", "k", client="r").value == ("other" if survived else "b")
    c.crash("n1")
    c.restart("n1")
    c.write("n1", "k", "last", client="o")
    assert c.write("n1", "k", "b", client="a", sequence=1, acked=1).outcome == "ok"
    assert c.read("n1", "k", client="r").value == "last"


# --- parameters ---


@pytest.mark.parametrize(
    "parameters",
    [
        {"conflict": "newest"},
        {"gossip_interval_s": 0},
        {"gossip_interval_s": float("nan")},
        {"anti_entropy_interval_s": -1.0},
        {"anti_entropy_interval_s": float("inf")},
        {"fanout": 0},
        {"rounds": 0},
        {"buckets": 0},
        {"buckets": 65537},
        {"gossip_interval": 1.0},
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(parameters: dict[str, Any]) -> None:
    (name,) = parameters
    with pytest.raises(registry.InvalidConfiguration, match=name):
        registry.get("gossip").configure("n1", ("n1", "n2"), parameters)


def test_gossip_lww_is_registered_with_its_policy() -> None:
    config = registry.get("gossip-lww").configure("n1", ("n1", "n2"))
    assert config.parameters == LWW


# --- merging ---


def sibling(node: str, counter: int, past: dict[str, int]) -> Sibling:
    return Sibling(node, counter, past, f"{node}.{counter}", False, "c", counter)


def history(rng: random.Random) -> list[Sibling]:
    """Versions whose pasts are closed, as real ones are."""
    known: list[Sibling] = []
    for _ in range(6):
        seen = [s for s in known if rng.random() < 0.5]
        past = KeepSiblings.clock(seen)
        node = rng.choice(["n1", "n2", "n3"])
        counter = 1 + max((s.counter for s in known if s.node == node), default=0)
        known.append(sibling(node, counter, past))
    return known


@pytest.fixture(params=["few", "many"])
def as_if(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few siblings are compared one by one, many by what all of them have seen."""
    if request.param == "many":
        monkeypatch.setattr(policies, "_FEW", 0)


@pytest.mark.usefixtures("as_if")
@pytest.mark.parametrize("policy", [KeepSiblings, LastWriteWins])
def test_merging_keeps_all_that_no_other_supersedes_and_ours_itself_without_news(
    policy: Any,
) -> None:
    rng = random.Random(8)
    for _ in range(300):
        known = history(rng)
        ours = policy.merge((), [s for s in known if rng.random() < 0.6] or known[:1])
        theirs = [s for s in known if rng.random() < 0.4] or known[-1:]
        both = {(s.node, s.counter): s for s in (*ours, *theirs)}
        expected = tuple(
            both[dot]
            for dot in sorted(both)
            if not any(policy.supersedes(t, both[dot]) for t in both.values())
        )
        merged = policy.merge(ours, theirs)
        assert merged == expected
        assert (merged is ours) == (expected == ours)


@pytest.mark.usefixtures("as_if")
def test_what_is_missing_is_what_nobody_has_or_has_seen() -> None:
    rng = random.Random(9)
    for _ in range(300):
        known = history(rng)
        present = [s for s in known if rng.random() < 0.9]
        wanted = [s for s in known if rng.random() < 0.5]
        expected = [
            s
            for s in wanted
            if s not in present and not any(KeepSiblings.supersedes(t, s) for t in present)
        ]
        assert KeepSiblings.missing(present, wanted) == (expected[0] if expected else None)
        for s in present:
            other = msgspec.structs.replace(s, value="another one")
            seen = any(KeepSiblings.supersedes(t, s) for t in present)
            assert KeepSiblings.missing(present, [other]) == (None if seen else other)


# --- what cannot be ---


def liars() -> Cluster:
    """Nodes of which some say what cannot be; so what holds of honest ones is not watched."""
    c = cluster()
    c.lies, c.invariants = True, []
    return c


def test_a_lie_of_one_key_does_not_keep_others_from_being_repaired() -> None:
    """n2 was lied to: another version of n1's first write. It tells of it with all the rest."""
    c = liars()
    c.write("n1", "lied", 1)
    lie = Record((sibling("n1", 1, {}), sibling("n3", 1, {})))
    c.step("n2", Message("n3", Push({"lied": lie})))
    c.write("n2", "true", 2)
    c.step("n1", Message("n2", Push(c["n2"].records)))
    assert len(c.refused) == 1
    assert "a dot has two versions" in c.refused[0]
    assert c.read("n1", "true").value == 2
    assert c.read("n1", "lied").value == 1


def test_more_siblings_than_can_be_are_refused() -> None:
    """To compare each of them with each other one would take hours."""
    c = liars()
    many = tuple(sibling("n2", counter, {}) for counter in range(1, 100_000))
    for kind in (Rumour, Push):
        c.step("n1", Message("n2", kind({"k": Record(many)})))
    assert c.refused == ["key 'k': 99999 siblings"] * 2
    assert c.read("n1", "k").value is None


def test_keys_and_buckets_that_are_asked_for_often_are_sent_once() -> None:
    c = liars()
    c.write("n1", "k", "x" * 1000)
    c.step("n1", Message("n2", Pull(("k",) * 10_000)))
    assert len(c.find(kind=Push)) == 1
    c.step("n1", Message("n2", Difference(0, (0,) * 10_000, {})))
    assert "buckets" in c.refused[0]
    assert len(c.find(kind=Push)) == 1


@pytest.mark.usefixtures("as_if")
@pytest.mark.parametrize("policy", [KeepSiblings, LastWriteWins])
def test_merging_is_commutative_associative_and_idempotent(policy: Any) -> None:
    rng = random.Random(7)
    for _ in range(300):
        known = history(rng)
        a, b, c = (
            policy.merge((), [s for s in known if rng.random() < 0.6] or known[:1])
            for _ in range(3)
        )
        merged = policy.merge(policy.merge(a, b), c)
        assert merged == policy.merge(a, policy.merge(b, c))
        assert merged == policy.merge(c, policy.merge(b, a))
        assert merged == policy.merge(merged, merged)


# --- random schedules ---


class Load:
    """Clients that write at random nodes, blindly or with some context that a read returned,
    however old, and retry at the same node what was not answered."""

    def __init__(self, c: Cluster, rng: random.Random) -> None:
        self.c, self.rng = c, rng
        self.acknowledged: list[Request] = []
        self.open: dict[int, tuple[str, Request]] = {}
        self.reads: dict[int, str] = {}
        self.contexts: dict[str, list[Any]] = {"x": [None], "y": [None]}
        self.written: dict[tuple[str, int], Sibling] = {}
        self.sequence = 0
        c.on_reply = self.on_reply

    def act(self) -> None:
        if self.open and self.rng.random() < 0.3:
            node, request = self.rng.choice(list(self.open.values()))
        else:
            node, request = self.rng.choice(self.c.ids), self.new_request()
            if request.operation.op == "read":
                self.reads[request.sequence] = request.operation.key
            else:
                self.open[request.sequence] = (node, request)
        if self.c.nodes[node].up:
            self.c.step(node, request)

    def new_request(self) -> Request:
        self.sequence += 1
        key = self.rng.choice(["x", "y"])
        op: Any = self.rng.choice(["read", "write", "write", "delete"])
        context = self.rng.choice(self.contexts[key]) if op != "read" else None
        return Request("c", self.sequence, Operation(op, key, self.sequence, None, context))

    def on_reply(self, node: str, reply: Reply) -> None:
        assert reply.outcome == "ok", reply
        if reply.sequence in self.reads:
            self.contexts[self.reads[reply.sequence]].append(reply.version)
        elif reply.sequence in self.open:
            self.acknowledged.append(self.open.pop(reply.sequence)[1])

    def collect(self) -> None:
        """Remember every version that ever was anywhere."""
        for id in self.c.ids:
            if self.c.nodes[id].up:
                for key, record in self.c[id].records.items():
                    for s in record.siblings:
                        self.written[(key, s.sequence)] = s


def random_run(seed: int, parameters: GossipParameters, steps: int = 120) -> tuple[Cluster, Load]:
    rng = random.Random(seed)
    c = Cluster(Gossip, parameters, rng.choice([2, 3, 5]), seed=seed, autosync=False)
    for node in c.nodes.values():
        node.env.wall_offset_s = rng.uniform(-2.0, 2.0)
    load = Load(c, rng)
    for _ in range(steps):
        if rng.random() < 0.3:
            load.act()
        else:
            c.disturb(rng)
        load.collect()
    c.heal()
    c.run(20.0)
    return c, load


@pytest.mark.parametrize("conflict", ["siblings", "lww"])
@pytest.mark.parametrize("block", range(4))
def test_random_schedules_converge_and_lose_no_acknowledged_write(
    conflict: Any, block: int
) -> None:
    parameters = GossipParameters(conflict=conflict, fanout=1, rounds=2, buckets=4)
    acknowledged = 0
    for seed in range(block * 100, block * 100 + 100):
        c, load = random_run(seed, parameters)
        states = [c[id].state() for id in c.ids]
        assert all(state == states[0] for state in states), f"seed {seed} does not converge"
        policy = c["n1"].policy
        for request in load.acknowledged:
            key = request.operation.key
            s = load.written[(key, request.sequence)]
            present = c["n1"].records.get(key, Record(())).siblings
            assert any(t == s or policy.supersedes(t, s) for t in present), f"seed {seed}: {s}"
            acknowledged += 1
    assert acknowledged > 500


def test_a_late_copy_of_a_refused_write_takes_no_effect() -> None:
    c = cluster(1, parameters=GossipParameters(max_siblings=1))
    c.write("n1", "k", "a", client="a", sequence=0)
    version = c.read("n1", "k", client="r").version
    refused = c.write("n1", "k", "b", client="b", sequence=0, context={})
    assert refused.outcome == "fail"
    c.write("n1", "k", None, client="c", sequence=0, context=version)
    c.crash("n1")
    c.restart("n1")
    assert c.write("n1", "k", "b", client="b", sequence=0, context=version).outcome == "fail"
    assert c.read("n1", "k", client="r").value is None
