"""What every protocol must do, each check a function that raises AssertionError.

They know nothing of any protocol but what nodes/contract/replica.py and nodes/registry.py say, so a
new one is covered as soon as it is registered.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from bench.checkers.linearizability import check_linearizable
from bench.record.columns import Columns
from bench.record.history import OperationRecord
from nodes.contract.disk import Append, Compact, Put, Write
from nodes.contract.replica import Message, Operation, OperationKind, Replica, Reply, Request, Value
from nodes.registry import InvalidConfiguration, Protocol, node_ids
from nodes.simulator.cluster import Cluster
from nodes.simulator.host import Timing
from nodes.simulator.load import ClientPolicy, WorkloadMix
from nodes.simulator.network import Quality
from nodes.simulator.simulate import Setup, SimulationResult, is_older, promises_once, simulate
from nodes.wire.codec import Codec, WriteCodec
from tests.conformance import scenario

SEEDS = int(os.environ.get("CAPBENCH_SEEDS", "100"))
"""How many random histories of each protocol are judged, beside the three hundred of
tests/simulator; the nightly run asks for thousands."""
FIRST_SEED = int(os.environ.get("CAPBENCH_FIRST_SEED", "10001"))
"""Not 1: tests/simulator plays those."""
MAX_BOUNDARIES = max(400, SEEDS)
ANSWER_BOUND_S = 30.0
KINDS: tuple[OperationKind, ...] = ("read", "write", "cas", "delete")


class Hand:
    """A cluster and the answers that it gives to requests made by hand."""

    def __init__(self, protocol: Protocol, nodes: int = 3, **options: Any) -> None:
        self.cluster = Cluster(protocol, nodes=nodes, seed=3, **options)
        self.replies: list[Reply] = []
        self.cluster.reply_to = lambda node, reply: self.replies.append(reply)
        self._sequence = 0

    def ask(self, node: str, op: OperationKind, value: Value = None, **fields: Any) -> Reply:
        """One operation on key ``k`` by a client that never repeats itself; its answer."""
        self._sequence += 1
        operation = Operation(op, "k", value, **fields)
        return self.send(node, Request("hand", self._sequence, operation))

    def send(self, node: str, request: Request) -> Reply:
        """Hand over the request until it is answered, each second again."""
        before = len(self.replies)
        end_s = self.cluster.now + ANSWER_BOUND_S
        again_s = 0.0
        while self.cluster.now < end_s:
            if self.cluster.now >= again_s:
                again_s = self.cluster.now + 1.0
                self.cluster.request(node, request)
            self.cluster.run(0.01)
            for reply in self.replies[before:]:
                if (reply.client, reply.sequence) == (request.client, request.sequence) and (
                    reply.outcome == "ok" or reply.error == "unsupported"
                ):
                    return reply
        raise AssertionError(f"{node} did not answer {request}: {self.replies[before:]}")

    def agree(self) -> None:
        """Wait until all nodes hold the same."""
        end_s = self.cluster.now + ANSWER_BOUND_S
        while not self.cluster.converged():
            assert self.cluster.now < end_s, f"no agreement: {self.cluster.states()}"
            self.cluster.run(0.1)
            if self.cluster.protocol.name in scenario.LEARNS_WHEN_ASKED:
                for node in self.cluster.nodes:
                    self.ask(node, "read")

    def held(self) -> Any:
        """What all nodes hold of key ``k``: its values, once they agree."""
        self.agree()
        cell = self.cluster.states()["n1"].get("k")
        return None if cell is None else list(cell[0])


# --- crashes ---


def a_crash_at_any_boundary_breaks_nothing(protocol: Protocol) -> None:
    whole = scenario.play(protocol)
    scenario.judge(protocol, whole)
    every = scenario.boundaries(whole.counts)
    chosen = every
    if len(every) > MAX_BOUNDARIES:
        chosen = random.Random("boundaries").sample(every, MAX_BOUNDARIES)
    print(f"{protocol.name}: a crash at {len(chosen)} of {len(every)} boundaries")
    assert len(chosen) > 50
    for boundary in chosen:
        played = scenario.play(protocol, boundary)
        crashes = played.cluster.counters()["crashes"]
        assert crashes >= 1, f"{protocol.name}: {boundary} never came"
        try:
            scenario.judge(protocol, played)
        except AssertionError as error:
            raise AssertionError(f"{protocol.name}, {boundary}: {error}") from None


# --- the network ---

BAD_NETWORKS = {
    "every message twice": Quality(duplicate=1.0, late_s=0.1),
    "a quarter lost": Quality(loss=0.25),
    "out of order": Quality(reorder=0.7, late_s=0.2, fifo=False),
    "all of it": Quality(loss=0.1, duplicate=0.5, reorder=0.5, late_s=0.1, fifo=False),
}


def lost_doubled_and_reordered_messages_break_nothing(protocol: Protocol) -> None:
    for name, quality in BAD_NETWORKS.items():
        for seed in range(1, 1 + max(8, SEEDS // 20)):
            setup = Setup(
                mix=WorkloadMix(clients=4, keys=2, think_s=0.05),
                policy=ClientPolicy(timeout_s=2.0, retry="same", retry_after_s=0.1, loss=0.05),
                quality=quality,
                timing=Timing(fsync_s=0.002),
            )
            result = simulate(protocol, seed, nodes=3, duration_s=1.5, tape=[], setup=setup)
            judge(protocol, result, f"network: {name}")


# --- histories ---


def histories_keep_the_claim(protocol: Protocol) -> None:
    valid = ok = failed = 0
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        result = simulate(protocol, seed, duration_s=0.7)
        where = (
            f"replay: CAPBENCH_FIRST_SEED={seed} CAPBENCH_SEEDS=1"
            f" .venv/bin/pytest tests/conformance -k 'histories and {protocol.name}'"
        )
        valid += judge(protocol, result, where)
        ok += result.counters["operations_ok"]
        failed += sum(record.outcome == "fail" for record in result.history)
    print(f"{protocol.name}: {SEEDS} histories, {valid} decided, {ok} ok and {failed} fail in them")
    # Deletions leave some histories undecided. If most were, nothing would have been checked.
    assert valid > SEEDS / 4
    assert ok > 10 * SEEDS


def judge(protocol: Protocol, result: SimulationResult, where: str) -> bool:
    """Whether the history is certainly what was claimed (else it is undecided). Raises
    AssertionError where it is certainly not."""
    where = f"{protocol.name}, seed {result.seed}, {where}"
    assert result.alarms == [], f"{where}: {result.alarms[0].check}: {result.alarms[0].message}"
    records = [msgspec.convert(r, OperationRecord, from_attributes=True) for r in result.history]
    scenario.nobody_saw_what_failed(records)
    check = check_linearizable(Columns.from_records(records))
    if protocol.claim == "linearizable":
        if not promises_once(result.setup):
            return False  # Nobody promises it where clients are forgotten so soon.
        assert check.verdict != "invalid", f"{where}: {check.summary}"
        return check.verdict == "valid"
    # That eventual replicas agree, and lost nothing, is an alarm of the simulator.
    assert check.details.kind != "never-written", f"{where}: {check.summary}"
    return True


# --- requests ---


def offered_operations_do_what_they_say(protocol: Protocol) -> None:
    hand = Hand(protocol)
    assert hand.ask("n1", "read").value is None
    assert hand.ask("n1", "write", "a").outcome == "ok"
    hand.agree()
    for node in hand.cluster.nodes:
        reply = hand.ask(node, "read")
        assert (reply.outcome, reply.value) == ("ok", "a"), f"{node}: {reply}"
        assert reply.version is not None, f"a read tells the age of what it saw: {reply}"
    if "cas" in protocol.operations:
        refused = hand.ask("n2", "cas", "b", expected="z")
        assert (refused.applied, refused.seen) == (False, "a"), refused
        swapped = hand.ask("n2", "cas", "b", expected="a")
        assert swapped.applied is True, swapped
        assert hand.held() == ["b"]
    if "delete" in protocol.operations:
        assert hand.ask("n3", "delete").outcome == "ok"
        assert hand.held() is None
        assert hand.ask("n1", "read").value is None


def other_operations_end_fail_unsupported(protocol: Protocol) -> None:
    hand = Hand(protocol)
    for op in KINDS:
        if op not in protocol.operations:
            for node in hand.cluster.nodes:
                reply = hand.ask(node, op, "v")
                assert (reply.outcome, reply.error) == ("fail", "unsupported"), reply
    assert hand.held() is None


def a_request_is_applied_at_most_once(protocol: Protocol) -> None:
    """However often, whenever and (for a linearizable protocol) wherever it is delivered."""
    anywhere = protocol.claim == "linearizable"
    at_once = anywhere and protocol.retries == "any node"
    for acked in (False, True):
        hand = Hand(protocol)
        nodes = hand.cluster.nodes
        hand.ask("n1", "read")
        old = Request("old", 5, Operation("write", "k", "old"))
        for node in nodes if at_once else ("n1",):
            for _ in range(3):
                hand.cluster.request(node, old)
        first = hand.send("n1", old)
        hand.agree()
        assert hand.ask("n2", "write", "new").outcome == "ok"
        hand.agree()
        if acked:
            hand.send("n1", Request("old", 6, Operation("write", "other", 1), acked=6))
            hand.agree()
        for crash in (False, True):
            if crash:
                hand.cluster.crash("n1")
                hand.cluster.restart("n1")
            for node in nodes if anywhere else ("n1",):
                hand.cluster.request(node, old)
                hand.cluster.run(4.0)
                assert hand.held() == ["new"], f"a copy at {node} was applied again"
        if not acked:
            again = hand.send("n1", old)
            assert again.version == first.version, f"{first} became {again}"
    if "cas" in protocol.operations:
        hand = Hand(protocol)
        hand.ask("n1", "write", 1)
        swap = Request("swapper", 0, Operation("cas", "k", 2, expected=1))
        replies = [hand.send(node, swap) for node in ("n1", "n2", "n3", "n1")]
        assert {(r.applied, r.version) for r in replies} == {(True, replies[0].version)}, replies
        assert hand.held() == [2]


def versions_grow_over_crashes(protocol: Protocol) -> None:
    """A write that comes after another has the newer version, whoever died meanwhile."""
    hand = Hand(protocol)
    nodes = hand.cluster.nodes
    before = hand.ask("n1", "write", 0).version
    for number, down in enumerate((nodes[:1], nodes, nodes[1:2], nodes, nodes[:1]), 1):
        hand.agree()
        for node in down:
            hand.cluster.crash(node)
        for node in down:
            hand.cluster.restart(node)
        for op in ("write", "delete"):
            if op in protocol.operations:
                after = hand.ask("n1", op, number if op == "write" else None).version
                assert is_older(before, after), f"{before}, then a crash of {down}, then {after}"
                before = after


def a_cluster_of_any_size_serves(protocol: Protocol) -> None:
    for size in (1, 2, 4, 5):
        one_may_be_down = size > 2 and protocol.needs != "all nodes"
        hand = Hand(protocol, size)
        for node in hand.cluster.nodes:
            assert hand.ask(node, "write", f"by {node}").outcome == "ok"
            hand.agree()
        assert hand.held() == [f"by {hand.cluster.nodes[-1]}"]
        if one_may_be_down:
            hand.cluster.crash("n2")
            assert hand.ask("n1", "write", "one is down").outcome == "ok"
            hand.cluster.restart("n2")
        hand.cluster.crash("n1")
        hand.cluster.restart("n1")
        for node in hand.cluster.nodes:
            hand.ask(node, "read")
        expected = "one is down" if one_may_be_down else f"by {hand.cluster.nodes[-1]}"
        assert hand.held() == [expected], f"{size} nodes"


# --- configuration, views ---


def bad_configuration_is_refused(protocol: Protocol) -> None:
    three = node_ids(3)
    refused(lambda: node_ids(0))
    refused(lambda: protocol.configure("n1", ()))
    refused(lambda: protocol.configure("n4", three))
    refused(lambda: protocol.configure("n1", ("n1", "n1")))
    refused(lambda: Cluster(protocol, nodes=0))
    assert "no_such_parameter" in refused(
        lambda: protocol.configure("n1", three, {"no_such_parameter": 1})
    )
    for field in msgspec.structs.fields(protocol.replica.PARAMETERS):
        bad: list[Any] = [[]]
        if field.type in ("int", "float", int, float):
            bad += [-1, "many"]
        if field.type in ("float", float):
            bad += [math.nan, math.inf, -math.inf, 0.0]
        for value in bad:
            line = refused(partial(protocol.configure, "n1", three, {field.name: value}))
            assert "\n" not in line, line
    assert protocol.configure("n2", three).nodes == three


def refused(configure: Callable[[], Any]) -> str:
    """The one line that says why."""
    try:
        made = configure()
    except InvalidConfiguration as error:
        return str(error)
    raise AssertionError(f"not refused: {made}")


def views_are_plain_and_agree(protocol: Protocol) -> None:
    hand = Hand(protocol)
    for number in range(5):
        hand.ask(f"n{number % 3 + 1}", "write", number)
        hand.agree()
    for node, host in hand.cluster.hosts.items():
        replica = host.replica
        assert replica is not None
        probe = replica.probe()
        for name in ("role", "leader", "ready"):
            assert name in probe, f"probe() of {node} has no {name!r}: {probe}"
        if probe["leader"] is not None:
            assert probe["leader"] in hand.cluster.nodes
            for name in ("term", "commit", "applied"):
                assert type(probe.get(name)) is int, f"{node} has a leader, and {name!r} in {probe}"
        assert probe["ready"] is True, f"{node} answered, and says that it is not ready: {probe}"
        assert isinstance(probe["role"], str)
        for name, value in probe.items():
            assert isinstance(value, bool | int | float | str | None), f"{name}: {value!r}"
        msgspec.json.encode(probe)
        assert probe == replica.probe(), "probe() only looks"
        (cell,) = replica.state().values()
        assert cell[0] == (4,), f"{node} holds {cell}"
        assert isinstance(cell[0], tuple)


# --- codec ---


def messages_and_records_survive_the_codec(protocol: Protocol) -> None:
    """Real ones, through `Cluster(round_trip=True)`, and one made up of each type."""
    kind = protocol.replica
    seen: set[type] = set()

    class Watched(kind):  # type: ignore[misc, valid-type]
        def step(self, inputs: Any) -> None:
            seen.update(type(item.msg) for item in inputs if type(item) is Message)
            super().step(inputs)

    for seed in (10, 20, 30, 40):
        watched = msgspec.structs.replace(protocol, replica=Watched)
        result = simulate(watched, seed, duration_s=1.0)
        assert result.setup.round_trip
        assert result.alarms == [], result.alarms
    unseen = [message.__name__ for message in kind.MESSAGES if message not in seen]
    print(f"{protocol.name}: {len(seen)} of {len(kind.MESSAGES)} types seen, made up: {unseen}")
    assert seen
    round_trip(kind)


def round_trip(kind: type[Replica]) -> None:
    """One made-up message or record of each type goes through the codec."""
    messages: Codec[Any] = Codec(kind.MESSAGES)
    for message in kind.MESSAGES:
        assert message.__struct_config__.frozen, f"{message.__name__} is not frozen"
        (made,) = make_up(message)
        assert messages.decode(messages.encode([made, made])) == [made, made]
    records = WriteCodec(kind.RECORDS)
    for record in kind.RECORDS:
        (made,) = make_up(record)
        writes: list[Write] = [Put("k", made), Append(made), Compact(1, made)]
        assert records.decode(records.encode(writes)) == writes


def make_up(kind: type[msgspec.Struct]) -> list[Any]:
    """An instance with something in each field."""
    return [msgspec.convert(_plain(msgspec.inspect.type_info(kind)), kind)]


def _plain(info: Any) -> Any:
    what = msgspec.inspect
    match info:
        case what.StructType():
            fields = [_plain(field.type) for field in info.fields]
            if info.array_like:
                return [info.tag, *fields] if info.tag is not None else fields
            named = {f.encode_name: v for f, v in zip(info.fields, fields, strict=True)}
            return named | ({info.tag_field: info.tag} if info.tag is not None else {})
        case what.UnionType():
            return _plain(next(t for t in info.types if not isinstance(t, what.NoneType)))
        case what.NamedTupleType():
            return [_plain(field.type) for field in info.fields]
        case what.TupleType():
            return [_plain(item) for item in info.item_types]
        case what.VarTupleType() | what.ListType():
            return [_plain(info.item_type)] * 2
        case what.DictType():
            return {_plain(info.key_type): _plain(info.value_type)}
        case what.LiteralType():
            return info.values[0]
        case what.BoolType():
            return True
        case what.IntType():
            return 1 << 40
        case what.FloatType():
            return 1.5
        case what.StrType():
            return "nœud"
        case what.BytesType():
            return b"\x00\xff"
    raise AssertionError(f"make_up() does not know {info}")


CHECKS = (
    a_crash_at_any_boundary_breaks_nothing,
    lost_doubled_and_reordered_messages_break_nothing,
    histories_keep_the_claim,
    offered_operations_do_what_they_say,
    other_operations_end_fail_unsupported,
    a_request_is_applied_at_most_once,
    versions_grow_over_crashes,
    a_cluster_of_any_size_serves,
    bad_configuration_is_refused,
    views_are_plain_and_agree,
    messages_and_records_survive_the_codec,
)
