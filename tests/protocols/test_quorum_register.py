"""The quorum register: named cases, then random schedules judged by brute force."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from nodes import registry
from nodes.contract.replica import Message, Operation, Reply, Request
from nodes.parts.sessions import Result
from nodes.protocols.quorum_register import (
    Commit,
    Committed,
    Difference,
    Digest,
    Prepare,
    Prepared,
    Pull,
    Push,
    QuorumParameters,
    QuorumRegister,
)
from nodes.protocols.quorum_register.replica import _tag
from tests.protocols.sans_io import Cluster, Packet

QUIET: dict[str, Any] = {"anti_entropy_interval_s": 1e6}
"""For cases that are about quorums alone."""


def cluster(count: int = 3, *, autosync: bool = True, seed: int = 1, **parameters: Any) -> Cluster:
    c = Cluster(
        QuorumRegister,
        QuorumParameters(**{**QUIET, **parameters}),
        count,
        autosync=autosync,
        seed=seed,
    )
    if not autosync:
        for id in c.ids:
            c.sync(id)
    return c


def done(c: Cluster, request: Request) -> Reply:
    """The answer, once all messages have arrived."""
    c.settle()
    return c.reply_to(request)


def write(c: Cluster, id: str, value: Any, **options: Any) -> Reply:
    return done(c, c.ask(id, "write", "k", value, **options))


def read(c: Cluster, id: str, key: str = "k") -> Any:
    reply = done(c, c.ask(id, "read", key, client="reader"))
    assert reply.outcome == "ok"
    return reply.value


def held(c: Cluster, key: str = "k") -> list[Any]:
    """The value that each replica holds."""
    return [c[id].records[key].value if key in c[id].records else None for id in c.ids]


def answered(c: Cluster, request: Request) -> bool:
    name = (request.client, request.sequence)
    return any((r.client, r.sequence) == name for _, r in c.replies)


# --- writes ---


def test_a_write_takes_two_phases_and_every_node_reads_it() -> None:
    c = cluster()
    request = c.ask("n2", "write", "k", "v")
    assert [type(p.msg) for p in c.network] == [Prepare, Prepare]
    c.deliver()
    assert [type(p.msg) for p in c.network] == [Prepared, Prepared]
    c.deliver()
    assert [type(p.msg) for p in c.network] == [Commit, Commit]
    c.deliver()
    assert not answered(c, request)
    c.deliver()
    assert c.reply_to(request).outcome == "ok"
    assert [read(c, id) for id in c.ids] == ["v"] * 3


def test_versions_grow_over_coordinators_and_are_told() -> None:
    c = cluster()
    counters = []
    for id in ("n1", "n3", "n2", "n2"):
        version = write(c, id, id).version
        assert isinstance(version, list)
        assert version[1] == id
        counters.append(version[0])
    assert counters == [1, 2, 3, 4]
    assert done(c, c.ask("n1", "read", "k")).version == version


def test_the_version_comes_from_a_majority_not_from_the_coordinator_alone() -> None:
    c = cluster()
    c.partition(["n1", "n2"], ["n3"])
    for i in range(3):
        write(c, "n1", i)
    c.cut.clear()
    # n3 has seen nothing of the key: its own version would be lower than theirs.
    write(c, "n3", "newest")
    assert read(c, "n1") == "newest"


def test_two_writes_at_one_coordinator_at_once_get_different_versions() -> None:
    c = cluster()
    a = c.ask("n1", "write", "k", "a", client="a")
    b = c.ask("n1", "write", "k", "b", client="b")
    c.settle()
    assert c.reply_to(a).version != c.reply_to(b).version
    assert len(set(held(c))) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_exactly_a_majority_is_enough_and_one_fewer_is_not(count: int) -> None:
    c = cluster(count)
    majority = count // 2 + 1
    for id in c.ids[majority:]:
        c.crash(id)
    assert write(c, "n1", "v").outcome == "ok"
    assert read(c, "n1") == "v"
    if majority > 1:
        c.crash(c.ids[majority - 1])
        request = c.ask("n1", "write", "k", "w")
        c.run(10.0)
        assert c.reply_to(request).outcome == "fail"


def test_the_coordinator_counts_once_in_the_second_phase() -> None:
    c = cluster(5)
    request = c.ask("n1", "write", "k", "v")
    c.deliver(kind=Prepare)
    c.deliver(kind=Prepared)
    c.deliver(dst="n2", kind=Commit)
    c.deliver(kind=Committed)
    assert not answered(c, request)
    c.deliver(dst="n3", kind=Commit)
    c.deliver(kind=Committed)
    assert c.reply_to(request).outcome == "ok"


def test_a_copy_of_an_answer_counts_once() -> None:
    c = cluster(5)
    request = c.ask("n1", "write", "k", "v")
    c.deliver(kind=Prepare)
    (prepared,) = c.find(src="n2", kind=Prepared)
    c.drop()
    for _ in range(3):
        c.receive(prepared)
    assert not c.find(kind=Commit)
    c.run(1.0)
    assert c.reply_to(request).outcome == "ok"


def test_lost_messages_are_sent_again() -> None:
    c = cluster(retransmit_interval_s=0.1)
    request = c.ask("n1", "write", "k", "v")
    for kind in (Prepare, Prepared, Commit, Committed):
        for _ in range(50):
            if c.find(kind=kind):
                break
            c.deliver()
            if not c.network:
                c.now_s += 0.1
                c.fire("n1", "retransmit")
        assert c.drop(kind=kind) == 2
        c.now_s += 0.1
        c.fire("n1", "retransmit")
    c.settle()
    assert c.reply_to(request).outcome == "ok"
    c.run(5.0)
    assert "retransmit" not in c.nodes["n1"].timers


def test_a_phase_is_repeated_only_to_those_that_have_not_answered() -> None:
    c = cluster(5)
    c.ask("n1", "write", "k", "v")
    c.deliver(dst="n2")
    c.deliver(dst="n1")
    c.drop()
    c.now_s += 1.0
    c.fire("n1", "retransmit")
    assert sorted(p.dst for p in c.find(kind=Prepare)) == ["n3", "n4", "n5"]


# --- durability ---


def test_a_replica_acknowledges_only_what_is_durable() -> None:
    c = cluster(autosync=False)
    c.ask("n1", "write", "k", "v")
    c.deliver(kind=Prepare)
    c.deliver(kind=Prepared)
    c.sync("n1")
    c.deliver(kind=Commit)
    assert not c.find(kind=Committed)
    c.sync("n2")
    assert [p.src for p in c.find(kind=Committed)] == ["n2"]


def test_a_replica_answers_a_reader_only_with_what_is_durable() -> None:
    c = cluster(autosync=False)
    c.ask("n1", "write", "k", "v")
    c.deliver(kind=Prepare)
    c.deliver(kind=Prepared)
    c.sync("n1")
    c.deliver(dst="n2", kind=Commit)
    c.drop()
    c.ask("n3", "read", "k")
    c.deliver(dst="n2")
    assert not c.find(src="n2")
    c.sync("n2")
    assert [type(p.msg) for p in c.find(src="n2")] == [Committed, Prepared]
    # Another key does not wait.
    c.ask("n1", "write", "other", "v")
    assert c.find(src="n1", kind=Prepare)


def test_the_coordinator_answers_only_when_its_own_copy_is_durable() -> None:
    c = cluster(1, autosync=False)
    request = c.ask("n1", "write", "k", "v")
    assert not answered(c, request)
    c.sync("n1")
    assert c.reply_to(request).outcome == "ok"


def test_the_version_of_a_request_is_durable_before_any_commit_leaves() -> None:
    c = cluster(autosync=False)
    c.ask("n1", "write", "k", "v")
    c.deliver(kind=Prepare)
    c.deliver(kind=Prepared)
    assert not c.find(kind=Commit)
    c.sync("n1")
    assert len(c.find(kind=Commit)) == 2


def test_requests_wait_until_the_incarnation_is_durable() -> None:
    c = Cluster(QuorumRegister, QuorumParameters(**QUIET), 3, autosync=False)
    assert c["n1"].probe()["ready"] is False
    request = c.ask("n1", "write", "k", "v")
    assert not c.network
    assert c["n1"].probe()["pending"] == 1
    for id in c.ids:
        c.sync(id)
    assert c["n1"].probe()["ready"] is True
    c.autosync = True
    c.settle()
    c.sync("n1")
    c.settle()
    assert c.reply_to(request).outcome == "ok"


def test_no_version_is_used_again_after_a_crash() -> None:
    c = cluster()
    seen = []
    for i in range(4):
        version = done(c, c.ask("n1", "write", f"k{i}", i)).version
        assert isinstance(version, list)
        seen.append(version)
        c.crash("n1")
        c.restart("n1")
    assert len({(node, sequence) for _, node, sequence in seen}) == 4


def test_an_answer_to_an_earlier_incarnation_counts_for_nothing() -> None:
    c = cluster()
    c.ask("n1", "write", "old", "v")
    c.deliver(kind=Prepare)
    late = c.find(kind=Prepared)
    c.drop()
    c.crash("n1")
    c.restart("n1")
    c.partition(["n1"], ["n2", "n3"])
    request = c.ask("n1", "read", "k")
    c.cut.clear()
    c.drop()
    for packet in late:
        c.receive(packet)
    assert not answered(c, request)


def test_every_acknowledged_write_survives_a_crash_of_all() -> None:
    c = cluster(autosync=False)
    c.autosync = True
    write(c, "n1", "v")
    for id in c.ids:
        c.crash(id)
    for id in c.ids:
        c.restart(id)
    assert read(c, "n2") == "v"


# --- reads ---


def test_a_read_of_a_key_that_was_never_written() -> None:
    c = cluster()
    assert done(c, c.ask("n1", "read", "k")) == Reply("c", 0, "ok")


def test_a_read_that_a_majority_agrees_on_takes_one_round() -> None:
    c = cluster()
    write(c, "n1", "v")
    request = c.ask("n3", "read", "k")
    c.deliver(kind=Prepare)
    c.deliver(kind=Prepared)
    assert c.reply_to(request).value == "v"
    assert not c.find(kind=Commit)


def test_a_read_writes_back_what_only_a_minority_holds_before_it_answers() -> None:
    # Lynch and Shvartsman 1997: without the second phase, the read after the next one goes back.
    c = cluster(5)
    c.ask("n1", "write", "k", "new", client="w")
    c.deliver(kind=Prepare)
    c.deliver(kind=Prepared)
    c.drop()
    assert held(c) == ["new", None, None, None, None]

    first = c.ask("n2", "read", "k", client="r1")
    c.deliver(dst="n1", kind=Prepare)
    c.deliver(dst="n3", kind=Prepare)
    c.deliver(kind=Prepared)
    assert not answered(c, first)
    assert sorted(p.dst for p in c.find(kind=Commit)) == ["n3", "n4", "n5"]
    c.deliver(dst="n3", kind=Commit)
    c.deliver(kind=Committed)
    assert c.reply_to(first).value == "new"

    c.drop()
    c.crash("n1")
    c.crash("n2")
    second = c.ask("n4", "read", "k", client="r2")
    c.settle()
    assert c.reply_to(second).value == "new"


def test_with_a_write_quorum_of_all_a_read_that_saw_a_majority_agree_still_writes_back() -> None:
    c = cluster(5, read_quorum=3, write_quorum=5)
    c.ask("n1", "write", "k", "v")
    c.deliver(kind=Prepare)
    c.deliver(kind=Prepared)
    c.deliver(dst="n2", kind=Commit)
    c.deliver(dst="n3", kind=Commit)
    c.drop()
    request = c.ask("n1", "read", "k", client="r")
    c.deliver(dst="n2", kind=Prepare)
    c.deliver(dst="n3", kind=Prepare)
    c.deliver(kind=Prepared)
    assert not answered(c, request)
    assert sorted(p.dst for p in c.find(kind=Commit)) == ["n4", "n5"]
    assert done(c, request).value == "v"


# --- deletes ---


def test_a_delete_is_a_version_that_a_late_commit_cannot_undo() -> None:
    c = cluster()
    c.ask("n1", "write", "k", "v")
    c.deliver(kind=Prepare)
    c.deliver(kind=Prepared)
    (late,) = c.find(dst="n3", kind=Commit)
    c.network.remove(late)
    c.settle()
    assert done(c, c.ask("n2", "delete", "k")).outcome == "ok"
    c.receive(late)
    assert [read(c, id) for id in c.ids] == [None] * 3
    assert all(c[id].state() == {} for id in c.ids)
    probe = c["n3"].probe()
    assert (probe["keys"], probe["tombstones"]) == (0, 1)
    write(c, "n3", "again")
    assert read(c, "n1") == "again"


# --- outcomes ---


def test_without_any_commit_a_timeout_is_fail_and_nothing_happens_later() -> None:
    c = cluster()
    c.partition(["n1"], ["n2", "n3"])
    request = c.ask("n1", "write", "k", "v")
    late = [Message("n2", Prepared(c["n1"]._number, (0, "", 0)))]
    c.run(10.0)
    assert c.reply_to(request).outcome == "fail"
    c.cut.clear()
    c.step("n1", *late)
    for _ in range(2):
        # A copy of the request that was under way all that time.
        c.replies.clear()
        c.step("n1", request)
        assert done(c, request).outcome == "fail"
        c.crash("n1")
        c.restart("n1")
    c.run(10.0)
    assert held(c) == [None] * 3


def test_after_a_commit_a_timeout_is_info() -> None:
    c = cluster()
    request = c.ask("n1", "write", "k", "v")
    c.deliver(kind=Prepare)
    c.partition(["n1"], ["n2", "n3"])
    (answer, _) = c.find(kind=Prepared)
    c.cut.clear()
    c.receive(answer)
    c.partition(["n1"], ["n2", "n3"])
    c.run(10.0)
    assert c.reply_to(request).outcome == "info"


def test_a_read_that_cannot_end_fails() -> None:
    c = cluster()
    write(c, "n1", "v")
    c.partition(["n1"], ["n2", "n3"])
    request = c.ask("n1", "read", "k")
    c.run(10.0)
    assert c.reply_to(request).outcome == "fail"


def test_cas_is_unsupported() -> None:
    c = cluster()
    reply = c.reply_to(c.ask("n1", "cas", "k", 1))
    assert (reply.outcome, reply.error) == ("fail", "unsupported")


# --- at most once ---


def test_copies_of_an_open_request_are_one_operation_with_one_answer() -> None:
    c = cluster()
    request = c.ask("n1", "write", "k", "v")
    c.step("n1", request)
    c.step("n1", request)
    reply = done(c, request)
    assert reply.version is not None
    assert c["n2"].records["k"].version[0] == 1


@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_retry_of_a_finished_write_does_not_bring_it_back(node: str, restart: bool) -> None:
    c = cluster()
    first = write(c, "n1", "old", client="a", sequence=0)
    write(c, "n2", "new", client="b")
    if restart:
        for id in c.ids:
            c.crash(id)
            c.restart(id)
    c.replies.clear()
    again = write(c, node, "old", client="a", sequence=0)
    assert again == first
    assert held(c) == ["new"] * 3


def test_a_retry_after_a_crash_goes_on_with_the_version_that_was_chosen() -> None:
    c = cluster()
    c.ask("n1", "write", "k", "old", client="a", sequence=0)
    c.deliver(kind=Prepare)
    c.deliver(kind=Prepared)
    c.deliver(dst="n2", kind=Commit)
    c.crash("n1")
    c.drop()
    chosen = c["n2"].records["k"].version
    write(c, "n3", "new", client="b")
    c.restart("n1")
    retry = write(c, "n1", "old", client="a", sequence=0)
    assert retry.version == list(chosen)
    assert read(c, "n1") == "new"


def test_a_retry_elsewhere_finds_a_first_attempt_that_one_replica_was_told() -> None:
    c = cluster()
    c.ask("n1", "write", "k", "v", client="a", sequence=0)
    c.deliver(kind=Prepare)
    c.deliver(kind=Prepared)
    c.deliver(dst="n2", kind=Commit)
    c.crash("n1")
    c.drop()
    retry = write(c, "n3", "v", client="a", sequence=0)
    assert retry.version == list(c["n2"].records["k"].version)
    assert isinstance(retry.version, list)
    assert retry.version[1] == "n1"


def test_a_request_whose_version_the_crash_took_gets_a_new_one() -> None:
    for surviving in (0, 1):
        c = cluster(autosync=False)
        c.ask("n1", "write", "k", "v", client="a", sequence=0)
        c.deliver(kind=Prepare)
        c.deliver(kind=Prepared)
        assert len(c.nodes["n1"].unsynced) == 2
        c.crash("n1", surviving=surviving)
        c.autosync = True
        c.restart("n1")
        assert write(c, "n1", "v", client="a", sequence=0).outcome == "ok"
        assert held(c) == ["v"] * 3


def test_a_late_copy_of_an_acknowledged_request_has_no_effect() -> None:
    c = cluster()
    write(c, "n1", "a", client="a", sequence=0)
    write(c, "n1", "b", client="a", sequence=1, acked=1)
    c.replies.clear()
    assert write(c, "n1", "a", client="a", sequence=0).outcome == "info"
    assert held(c) == ["b"] * 3
    assert sum(name.startswith("r/") for name, _ in c["n2"].disk.items()) == 1


def test_nor_has_it_at_a_node_that_has_never_heard_of_it() -> None:
    c = cluster()
    c.partition(["n1", "n2"], ["n3"])
    write(c, "n1", "a", client="a", sequence=0)
    write(c, "n1", "b", client="a", sequence=1, acked=1)
    c.cut.clear()
    c.replies.clear()
    assert write(c, "n3", "a", client="a", sequence=0).outcome == "info"
    assert read(c, "n3") == "b"


@pytest.mark.parametrize("version", [None, 7, {"n1": 1}, [1, "n1"], [1, 2, 3], ["1", "n1", 3]])
def test_what_is_no_version_of_the_register_is_the_version_of_no_request(version: Any) -> None:
    assert _tag(Result("a", 0, 0, "k", version)) is None
    assert _tag(Result("a", 0, 0, "k", [1, "n1", 3])) == (1, "n1", 3)


# --- anti-entropy, weak quorums ---


def test_a_digest_of_another_size_is_ignored() -> None:
    c = cluster()
    write(c, "n1", "v")
    c.step("n1", Message("n2", Digest((1, 2, 3))))
    assert not c.network


def test_what_a_quorum_missed_is_repaired() -> None:
    c = cluster(anti_entropy_interval_s=0.5)
    c.partition(["n1", "n2"], ["n3"])
    write(c, "n1", "v")
    done(c, c.ask("n1", "write", "gone", 1))
    done(c, c.ask("n2", "delete", "gone"))
    c.run(2.0)
    c.cut.clear()
    assert held(c) == ["v", "v", None]
    c.run(10.0)
    assert held(c) == ["v"] * 3
    assert c["n1"].state() == c["n2"].state() == c["n3"].state()
    assert list(c["n1"].state()) == ["k"]


def test_an_exchange_moves_only_what_is_newer() -> None:
    c = cluster(2, weak=True, read_quorum=1, write_quorum=1, buckets=1)
    for i in range(10):
        done(c, c.ask("n1", "write", f"both{i}", i))
    c.partition(["n1"], ["n2"])
    done(c, c.ask("n1", "write", "mine", 1))
    done(c, c.ask("n2", "write", "yours", 2))
    c.cut.clear()
    c.fire("n1", "anti-entropy")
    assert c.deliver(kind=Digest) == 1
    assert c.deliver(kind=Difference) == 1
    (push,) = c.find(kind=Push)
    (pull,) = c.find(kind=Pull)
    assert list(push.msg.records) == ["mine"]
    assert pull.msg.keys == ("yours",)
    c.settle()
    assert c["n1"].state() == c["n2"].state()
    c.fire("n1", "anti-entropy")
    c.deliver()
    assert not c.network


def test_weak_quorums_answer_alone_read_stale_values_and_converge() -> None:
    config = registry.get("quorum-weak").configure("n1", ("n1", "n2", "n3"))
    assert isinstance(config.parameters, QuorumParameters)
    c = Cluster(QuorumRegister, config.parameters, 3)
    c.partition(["n1"], ["n2"], ["n3"])
    assert write(c, "n1", "v").outcome == "ok"
    assert read(c, "n1") == "v"
    assert read(c, "n2") is None
    c.cut.clear()
    c.run(20.0)
    assert held(c) == ["v"] * 3


# --- configuration ---


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"read_quorum": 4}, "read_quorum"),
        ({"write_quorum": -1}, "write_quorum"),
        ({"read_quorum": 1}, "do not meet"),
        ({"read_quorum": 1, "write_quorum": 2}, "do not meet"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"retransmit_interval_s": float("nan")}, "retransmit_interval_s"),
        ({"anti_entropy_interval_s": -1}, "anti_entropy_interval_s"),
        ({"buckets": 0}, "buckets"),
        ({"quorum_size": 2}, "quorum_size"),
    ],
)
def test_bad_configuration_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(registry.InvalidConfiguration, match=message):
        registry.get("quorum").configure("n1", ("n1", "n2", "n3"), parameters)


@pytest.mark.parametrize(
    "parameters", [{}, {"read_quorum": 1, "write_quorum": 3}, {"read_quorum": 3, "write_quorum": 1}]
)
def test_quorums_that_meet_are_accepted_and_work(parameters: dict[str, int]) -> None:
    config = registry.get("quorum").configure("n1", ("n1", "n2", "n3"), parameters)
    assert isinstance(config.parameters, QuorumParameters)
    c = Cluster(QuorumRegister, config.parameters, 3)
    write(c, "n1", "v")
    assert [read(c, id) for id in c.ids] == ["v"] * 3


# --- random schedules, judged by brute force ---


class Recorded:
    """An operation of a history, in units of events. ``ended`` is infinite where nobody knows."""

    def __init__(self, op: str, value: Any, began: int) -> None:
        self.op, self.value, self.began = op, value, began
        self.ended: float = math.inf

    def __repr__(self) -> str:
        return f"{self.op} {self.value} [{self.began}, {self.ended}]"


def linearizable(history: list[Recorded]) -> bool:
    """Whether some order explains a register's history. Tries them all; an operation without an end
    may be left out."""
    seen: set[tuple[frozenset[int], Any]] = set()

    def extend(left: frozenset[int], value: Any) -> bool:
        if all(history[i].ended == math.inf for i in left):
            return True
        if (left, value) in seen:
            return False
        seen.add((left, value))
        bound = min(history[i].ended for i in left)
        for i in left:
            operation = history[i]
            if operation.began > bound:
                continue
            if operation.op == "read":
                if operation.value == value and extend(left - {i}, value):
                    return True
            elif extend(left - {i}, operation.value):
                return True
        return False

    return extend(frozenset(range(len(history))), None)


def recorded(*rows: tuple[str, Any, int, float]) -> list[Recorded]:
    history = []
    for op, value, began, ended in rows:
        history.append(Recorded(op, value, began))
        history[-1].ended = ended
    return history


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("write", 1, 0, 1), ("read", 1, 2, 3)], True),
        ([("write", 1, 0, 1), ("read", None, 2, 3)], False),
        ([("write", 1, 0, 5), ("read", None, 1, 2), ("read", 1, 3, 4)], True),
        ([("write", 1, 0, 5), ("read", 1, 1, 2), ("read", None, 3, 4)], False),
        ([("write", 1, 0, math.inf), ("read", None, 8, 9)], True),
        ([("write", 1, 0, math.inf), ("read", 1, 8, 9), ("read", None, 10, 11)], False),
        ([("write", 1, 0, 9), ("write", 2, 1, 8), ("read", 2, 2, 3), ("read", 1, 4, 5)], True),
        (
            [
                ("write", 1, 0, 20),
                ("write", 2, 1, 8),
                ("read", 1, 2, 3),
                ("read", 2, 4, 5),
                ("read", 1, 6, 7),
            ],
            False,
        ),
        ([("read", 7, 0, 1)], False),
    ],
)
def test_the_judge_is_right(rows: list[tuple[str, Any, int, float]], expected: bool) -> None:
    assert linearizable(recorded(*rows)) is expected


class Clients:
    """Clients with one operation open each, that ask random nodes and send some requests twice, to
    the same node. A client that was left without an answer goes on under another name."""

    def __init__(self, c: Cluster, rng: random.Random, count: int) -> None:
        self.c, self.rng = c, rng
        self.event = 0
        self.history: list[Recorded] = []
        self.open: dict[str, tuple[str, Request, Recorded]] = {}
        self.names = [f"c{i}" for i in range(count)]
        self.outcomes: dict[str, int] = {"ok": 0, "fail": 0, "info": 0}
        self.sequence = 0
        c.on_reply = self.on_reply

    def act(self) -> None:
        name = self.rng.choice(self.names)
        if name not in self.open:
            self.ask(name, self.rng.choice(self.c.ids), self.rng.random() < 0.5)
        elif self.rng.random() < 0.3:
            node, request, _ = self.open[name]
            if self.c.nodes[node].up:
                self.c.step(node, request)
        elif self.rng.random() < 0.1:
            self.abandon(name)

    def abandon(self, name: str) -> None:
        _, _, operation = self.open.pop(name)
        if operation.op == "read":
            self.history.remove(operation)
        self.names.remove(name)
        self.names.append(name + "'")

    def ask(self, name: str, node: str, is_read: bool) -> None:
        if not self.c.nodes[node].up:
            return
        self.sequence += 1
        self.event += 1
        op: Any = "read" if is_read else self.rng.choice(["write", "write", "delete"])
        value = self.sequence if op == "write" else None
        request = Request(name, self.sequence, Operation(op, "k", value), acked=self.sequence)
        operation = Recorded("read" if is_read else "write", value, self.event)
        self.history.append(operation)
        self.open[name] = (node, request, operation)
        self.c.step(node, request)

    def on_reply(self, node: str, reply: Reply) -> None:
        entry = self.open.get(reply.client)
        if entry is None or entry[1].sequence != reply.sequence:
            return
        _, request, operation = self.open.pop(reply.client)
        self.event += 1
        self.outcomes[reply.outcome] += 1
        if reply.outcome == "ok":
            operation.ended = self.event
            if operation.op == "read":
                operation.value = reply.value
        elif reply.outcome == "fail" or operation.op == "read":
            self.history.remove(operation)
        else:
            self.open[reply.client] = (node, request, operation)
            self.abandon(reply.client)


def random_run(
    seed: int, parameters: dict[str, Any] | None = None, steps: int = 250
) -> tuple[Cluster, Clients]:
    rng = random.Random(seed)
    c = Cluster(
        QuorumRegister,
        QuorumParameters(**(parameters or {}), buckets=4, anti_entropy_interval_s=2.0),
        rng.choice([2, 3, 3, 4, 5]),
        seed=seed,
        autosync=False,
    )
    clients = Clients(c, rng, 3)
    # Between turmoil, in which little ends, and calm, in which operations end while messages of
    # some kinds are very late: so that each quorum misses something.
    calm = rng.choice([0.0, 0.95, 1.0])
    late = {kind: rng.choice([0.02, 0.2, 0.8]) for kind in QuorumRegister.MESSAGES}
    power_cuts, syncs = rng.choice([(0.0, 1.0), (0.05, 0.2)])
    due: dict[Packet, int] = {}
    for now in range(steps):
        if rng.random() < 0.15 and len(clients.history) < 20:
            clients.act()
        elif rng.random() >= calm:
            c.disturb(rng)
        elif rng.random() < power_cuts:
            id = rng.choice(c.ids)
            c.crash(id, surviving=rng.randrange(len(c.nodes[id].unsynced) + 1))
            c.restart(id)
        else:
            if rng.random() < syncs:
                c.sync_all()
            for packet in c.network:
                if packet not in due:
                    is_late = rng.random() < late[type(packet.msg)]
                    due[packet] = now + (rng.randrange(20, 120) if is_late else 0)
            packets = [packet for packet in c.network if due[packet] <= now]
            if packets:
                packet = rng.choice(packets)
                c.network.remove(packet)
                c.receive(packet)
    c.heal()
    c.run(20.0)
    for name in list(clients.open):
        clients.abandon(name)
    for id in c.ids:
        clients.ask(f"final {id}", id, True)
        c.settle()
    return c, clients


@pytest.mark.parametrize("block", range(5))
def test_random_schedules_are_linearizable_and_converge(block: int) -> None:
    outcomes = {"ok": 0, "fail": 0, "info": 0}
    for seed in range(block * 100, block * 100 + 100):
        c, clients = random_run(seed)
        assert linearizable(clients.history), f"seed {seed}: {clients.history}"
        assert not clients.open, f"seed {seed}: a healed cluster did not answer"
        states = [c[id].state() for id in c.ids]
        assert all(state == states[0] for state in states), f"seed {seed} does not converge"
        for outcome, number in clients.outcomes.items():
            outcomes[outcome] += number
    assert outcomes["ok"] > 500
    assert outcomes["fail"] > 0
    assert outcomes["info"] > 0


def test_weak_quorums_are_caught_by_the_same_judge_and_converge() -> None:
    weak = {"weak": True, "read_quorum": 1, "write_quorum": 1}
    caught = 0
    for seed in range(100):
        c, clients = random_run(seed, weak)
        caught += not linearizable(clients.history)
        states = [c[id].state() for id in c.ids]
        assert all(state == states[0] for state in states), f"seed {seed} does not converge"
    assert caught > 10
