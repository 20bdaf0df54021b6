"""Clients that send what they need not, and what no client may be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from nodes.contract.replica import Operation, Reply, Request
from nodes.registry import PROTOCOLS
from nodes.simulator.answers import Answers, WrongAnswer
from nodes.simulator.cluster import Cluster
from nodes.simulator.load import ClientPolicy, Clients, OperationRecord, RandomClients, WorkloadMix
from nodes.simulator.simulate import draw_setup
from tests.simulator.test_driver_duties import PROBE
from tests.simulator.toy import protocol

WRITE = Request("c", 5, Operation("write", "k", "v"))
CAS = Request("c", 6, Operation("cas", "k", "w", expected="v"))
READ = Request("c", 7, Operation("read", "k"))


def told(*answers: tuple[str, Reply], retries: Any = "any node", sent: int = 2) -> Answers:
    """Each of the requests was sent to n1, and then to n2; these answers came."""
    watch = Answers(retries)
    for request in (WRITE, CAS, READ):
        for number in range(sent):
            watch.on_sent(f"n{number + 1}", request)
    for node, reply in answers:
        watch.on_answer(node, reply)
    return watch


def ok(request: Request, **fields: Any) -> Reply:
    return Reply(request.client, request.sequence, "ok", **fields)


RIGHT: dict[str, list[tuple[str, Reply]]] = {
    "the same answer twice": [("n1", ok(WRITE, version=3)), ("n2", ok(WRITE, version=3))],
    "a copy that is too old": [("n1", ok(WRITE, version=3)), ("n2", Reply("c", 5, "info"))],
    "reads that saw different states": [("n1", ok(READ)), ("n2", ok(READ, value="v", version=3))],
    "a CAS that found another value": [("n1", ok(CAS, applied=False, seen=None))],
    "siblings": [("n1", ok(READ, value=["v", "w"], version={"n1": 2}))],
}
WRONG: dict[str, tuple[str, list[tuple[str, Reply]]]] = {
    "two versions": ("two answers", [("n1", ok(WRITE, version=3)), ("n2", ok(WRITE, version=4))]),
    "a read of a second version": (
        "took effect twice",
        [("n1", ok(WRITE, version=3)), ("n2", ok(READ, value="v", version=4))],
    ),
    "two answers": (
        "two answers",
        [("n1", ok(CAS, applied=True, version=3)), ("n2", ok(CAS, applied=False, version=3))],
    ),
    "another request's answer": ("answers a write by", [("n1", ok(WRITE, applied=True))]),
    "a CAS refused for nothing": ("answers", [("n1", ok(CAS, applied=False, seen="v"))]),
    "what nobody wrote": ("nobody wrote 'x'", [("n1", ok(READ, value="x"))]),
    "what nobody wrote, seen by a CAS": ("nobody", [("n1", ok(CAS, applied=False, seen="x"))]),
    "one sibling that nobody wrote": ("nobody", [("n1", ok(READ, value=["v", "x"]))]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_a_client_may_be_told(name: str) -> None:
    told(*RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_what_no_client_may_be_told(name: str) -> None:
    complaint, answers = WRONG[name]
    with pytest.raises(WrongAnswer, match=complaint):
        told(*answers)


def test_a_second_effect_is_wrong_only_where_it_is_excluded() -> None:
    twice = WRONG["two versions"][1]
    told(*twice, retries="node asked first")
    told(*twice, retries="nowhere")
    at_one_node = [("n1", reply) for _, reply in twice]
    with pytest.raises(WrongAnswer):
        told(*at_one_node, retries="node asked first", sent=1)
    with pytest.raises(WrongAnswer):
        told(*at_one_node, retries="nowhere", sent=1)


def test_what_was_refused_is_never_seen() -> None:
    seen = ok(READ, value="v", version=3)
    breaks: tuple[Callable[[Answers], None], ...] = (
        lambda it: it.on_answer("n1", ok(WRITE, version=3)),
        lambda it: it.on_answer("n1", seen),
        lambda it: it.on_state("n1", {"k": (("v",), 3)}, durable=False),
    )
    for break_it in breaks:
        watch = told()
        watch.on_refused(WRITE)
        with pytest.raises(WrongAnswer, match="refused"):
            break_it(watch)
    with pytest.raises(WrongAnswer, match="has taken effect before"):
        told(("n1", seen)).on_refused(WRITE)


def test_only_what_a_client_has_acknowledged_may_be_forgotten() -> None:
    watch = told()
    forgotten = Reply("c", 5, "info", error="already acknowledged")
    with pytest.raises(WrongAnswer, match="nobody has acknowledged"):
        watch.on_answer("n1", forgotten)
    watch.on_sent("n1", Request("c", 8, READ.operation, acked=6))
    watch.on_answer("n1", forgotten)
    with pytest.raises(WrongAnswer):
        watch.on_answer("n1", Reply("c", 6, "info", error="forgotten: acknowledged"))
    watch.on_answer("n1", Reply("c", 6, "info", error="no answer in time"))


def test_what_is_acknowledged_stays_so_when_an_older_request_comes_later() -> None:
    """All copies of it but the last were lost, and a later request came before it."""
    watch = told()
    watch.on_sent("n1", Request("c", 9, READ.operation, acked=6))
    watch.on_sent("n1", Request("c", 8, READ.operation, acked=4))
    watch.on_answer("n2", Reply("c", 5, "info", error="already acknowledged"))
    with pytest.raises(WrongAnswer, match="nobody has acknowledged"):
        watch.on_answer("n2", Reply("c", 6, "info", error="already acknowledged"))


def test_a_state_is_held_against_what_was_written() -> None:
    watch = told(("n1", ok(WRITE, version=3)))
    watch.on_state("n2", {"k": (("v",), 3)}, durable=True)
    watch.on_state("n2", {"k": (("v",), 4)}, durable=False)
    for state in ({"k": (("v",), 4)}, {"j": (("v",), 3)}):
        with pytest.raises(WrongAnswer):
            watch.on_state("n2", state, durable=True)


def test_a_node_answers_only_what_it_was_asked() -> None:
    it = Cluster(PROBE, nodes=2, seed=1)
    Clients(it, ClientPolicy(), Answers("any node")).invoke(
        "c1", "n1", Operation("write", "x", "put k v"), lambda record: None
    )
    it.run(0.5)
    it.hosts["n1"].step((Request("c1", 0, Operation("write", "x", "reply")),))
    with pytest.raises(WrongAnswer, match="n2 was never asked"):
        it.hosts["n2"].step((Request("c1", 0, Operation("write", "x", "reply")),))


# --- impolite clients ---


class _Received:
    """Which copies of requests arrived, and where."""

    def __init__(self, it: Cluster) -> None:
        self.copies: list[tuple[float, str, Request]] = []
        for node, host in it.hosts.items():
            replica: Any = host.replica
            replica.on_request = self._counted(it, node, replica.on_request)

    def _counted(
        self, it: Cluster, node: str, original: Callable[[Request], None]
    ) -> Callable[[Request], None]:
        def on_request(request: Request) -> None:
            self.copies.append((it.now, node, request))
            original(request)

        return on_request


def invoke(policy: ClientPolicy, commands: str) -> tuple[list[OperationRecord], _Received]:
    it = Cluster(PROBE, nodes=3, seed=4)
    received = _Received(it)
    ended: list[OperationRecord] = []
    Clients(it, policy).invoke("c1", "n2", Operation("write", "x", commands), ended.append)
    it.run(9.0)
    return ended, received


def test_copies_come_late_and_answered_requests_come_again() -> None:
    ended, received = invoke(ClientPolicy(copies=1.0, repeats=1.0, late_s=3.0), "reply")
    assert [record.outcome for record in ended] == ["ok"]
    times = [at_s for at_s, _, _ in received.copies]
    assert len(times) == 3
    assert max(times) > 0.1
    assert {node for _, node, _ in received.copies} == {"n2"}


def test_a_request_goes_to_several_nodes_at_once_where_that_is_allowed() -> None:
    def nodes(elsewhere: bool) -> set[str]:
        policy = ClientPolicy(at_once=9, elsewhere=elsewhere)
        return {node for _, node, _ in invoke(policy, "put k v")[1].copies}

    assert nodes(elsewhere=True) == {"n1", "n2", "n3"}
    assert nodes(elsewhere=False) == {"n2"}


def test_an_operation_failed_once_each_copy_of_it_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = Cluster(PROBE, nodes=3, seed=4)
    ended: list[OperationRecord] = []
    clients = Clients(it, ClientPolicy(at_once=3, elsewhere=True, latency_s=0.001))
    clients.invoke("c1", "n1", Operation("write", "x", "put k v"), ended.append)
    for answered in range(3):
        assert ended == []
        it.run(0.1)
        it.on_reply(f"n{answered + 1}", Reply("c1", 0, "fail", error="no"))
    it.run(0.1)
    assert [record.outcome for record in ended] == ["fail"]


def test_who_insists_asks_the_node_that_refused_again() -> None:
    it = Cluster(PROBE, nodes=3, seed=4)
    received = _Received(it)
    ended: list[OperationRecord] = []
    clients = Clients(it, ClientPolicy(insists=0.5, repeats=1.0, timeout_s=5.0))
    clients.invoke("c1", "n1", Operation("write", "x", "put k v"), ended.append)
    while not ended:
        it.run(0.1)
        it.on_reply("n1", Reply("c1", 0, "fail", error="no"))
    it.run(1.0)
    assert ended[0].outcome == "fail"
    assert len(received.copies) > 1, "asked again, before or after it was failed"
    assert {node for _, node, _ in received.copies} == {"n1"}


def test_sessions_are_shared_and_acknowledge_what_has_ended() -> None:
    it = Cluster(protocol(), nodes=3, seed=2)
    received = _Received(it)
    clients = Clients(it, ClientPolicy(timeout_s=0.2, lag=2))
    mix = WorkloadMix(clients=6, depth=3, think_s=0.02, lasting=True)
    RandomClients(clients, mix, ("read", "write")).start()
    it.run(2.0)
    it.crash("n1")
    it.run(2.0)
    requests = [request for _, _, request in received.copies]
    assert {request.client for request in requests} == {"c1", "c4"}
    assert {record.process for record in clients.history} > {"c1", "c2", "c3", "c4", "c5", "c6"}
    for client in ("c1", "c4"):
        numbers = Counter(request.sequence for request in requests if request.client == client)
        assert set(numbers.values()) == {1}
    behind = {request.sequence - request.acked for request in requests if request.sequence > 5}
    assert min(behind) == 2, "the lag"
    assert max(behind) > 2, "some are open"


def test_seeds_have_a_policy_that_their_protocol_can_bear() -> None:
    drawn = {
        name: [draw_setup(PROTOCOLS[name], seed) for seed in range(60)]
        for name in ("raft", "quorum", "gossip")
    }
    for name, setups in drawn.items():
        policy = [setup.policy for setup in setups]
        assert {one.copies > 0 for one in policy} == {True, False}, name
        assert {one.repeats > 0 for one in policy} == {True, False}, name
        assert {setup.mix.depth for setup in setups} == {1, 2, 5}, name
        assert {one.elsewhere for one in policy} == ({True, False} if name == "raft" else {False})
        assert {one.at_once > 1 for one in policy} == {one.elsewhere for one in policy}
    setups = [draw_setup(protocol(), seed) for seed in range(60)]
    assert {setup.policy.retry for setup in setups} == {"never"}
    assert {setup.policy.copies + setup.policy.repeats for setup in setups} == {0.0}
