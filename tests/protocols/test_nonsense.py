"""Well-formed messages that are absurd: no node ends, and the cluster serves afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodes.contract.bounds import MAX_COUNT, BadMessage, check_reach, reach
from nodes.contract.replica import MAX_HEAVY, Message, Operation, Request
from nodes.parts.failure_detector import Heartbeat
from nodes.parts.placement import (
    AcceptPlacement,
    Placed,
    Placement,
    PlacementNumbers,
    PreparePlacement,
)
from nodes.parts.recovery import CopyRange, RangePage, RangeReady
from nodes.parts.synod import Ballot
from nodes.protocols import gossip, paxos, quorum_register, raft
from nodes.registry import INTERNAL, PROTOCOLS
from nodes.wire.codec import BadFrame, Codec, is_frame
from tests.protocols import fuzz
from tests.protocols.sans_io import Cluster

TOP = 2**64 - 1
ROW = (("n1", 1), ("n2", 1))
PLACEMENTS = [
    Placed(Placement(10**9, 2, ROW, ROW)),
    Placed(Placement(0, 1, (("n2", 1), ("n3", 1)), ROW)),
    Placed(Placement(0, MAX_COUNT, ROW, ROW)),
    Placed(Placement(0, 2, (("n2", 1), ("n9", 2)), ROW)),
    Placed(Placement(0, 2, (), ())),
    PreparePlacement(Ballot(MAX_COUNT, "n2"), Placement(0, 1, ROW, ROW)),
    PreparePlacement(Ballot(3, "n9"), Placement(0, 1, ROW, ROW)),
    AcceptPlacement(Ballot(3, "n2"), Placement(0, 1, ROW, ROW), Placement(0, 7, ROW, ROW)),
    AcceptPlacement(Ballot(3, "n2"), Placement(0, 1, ROW, ROW), Placement(3, 2, ROW, ROW)),
    PlacementNumbers((1,) * 16, (MAX_COUNT,) * 16),
    CopyRange(Placement(77, 1, ROW, ROW), ""),
    RangePage(0, 1, "", "", (b"\x93",)),
    RangeReady(10**6, 1),
    Heartbeat(MAX_COUNT, MAX_COUNT),
]


def sibling(counter: int, node: str = "n2", **fields: Any) -> gossip.Sibling:
    given = {"past": {}, "value": 1, "deleted": False, "client": "c", "sequence": 0, **fields}
    return gossip.Sibling(node, counter, **given)


def rumour(*siblings: gossip.Sibling) -> gossip.Rumour:
    return gossip.Rumour({"k": gossip.Record(siblings)})


LIES: dict[str, Sequence[Any]] = {
    "raft": [
        raft.RequestVote(TOP, 0, 0),
        raft.RequestVote(MAX_COUNT, MAX_COUNT, MAX_COUNT),
        raft.RequestVoteReply(MAX_COUNT, True),
        raft.PreVoteReply(MAX_COUNT, False),
        raft.AppendEntries(MAX_COUNT, 0, 0, 0, MAX_COUNT, (raft.Entry(1),)),
        raft.AppendEntries(1, 0, 0, 0, 9, (raft.Entry(5),)),
        raft.AppendEntries(1, 0, 0, 0, 9, (raft.Entry(1, None, ("n9",)),)),
        raft.AppendEntries(1, 0, 0, 0, 9, (raft.Entry(1, None, ()),)),
        raft.AppendEntriesReply(1, MAX_COUNT, True, MAX_COUNT),
        raft.AppendEntriesReply(1, 0, False, MAX_COUNT, 0, MAX_COUNT),
        raft.InstallSnapshot(1, 0, 10**6, 0, b"\x93", True),
        raft.InstallSnapshot(2, 0, MAX_COUNT, 0, b"", True),
        raft.InstallSnapshotReply(1, 0, 1, 0, MAX_COUNT),
        raft.InstallSnapshot(1, 0, 10**6, 0, b"\x96\xa8Snapshot\x01\x01\x90\x80\x90", True),
    ],
    "paxos": [
        paxos.Prepare(Ballot(TOP, "n2"), 1),
        paxos.Prepare(Ballot(MAX_COUNT, "n2"), 1),
        paxos.Prepare(Ballot(5, "n9"), 1),
        paxos.Refused(Ballot(1, "n1"), Ballot(TOP, "n2")),
        paxos.Refused(Ballot(1, "n1"), Ballot(MAX_COUNT, "n2")),
        paxos.SurveyReply(1, True, Ballot(MAX_COUNT, "n2")),
        paxos.Accept(Ballot(9, "n2"), 0, MAX_COUNT - 5, 0, (None,)),
        paxos.Accept(Ballot(MAX_COUNT, "n2"), 0, 1, MAX_COUNT, (None,)),
        paxos.Promise(Ballot(1, "n1"), 1, 0, 0, 1, ((MAX_COUNT, Ballot(0, "n2"), None),)),
        paxos.Accepted(Ballot(1, "n1"), MAX_COUNT, MAX_COUNT, False),
        paxos.CatchUp(paxos.Snapshot(MAX_COUNT, {}, ())),
    ],
    "gossip": [
        gossip.Difference(0, (-(2**63),), {}),
        gossip.Difference(MAX_COUNT, (10**6,), {}),
        gossip.Digest((TOP,) * 256),
        rumour(),
        rumour(sibling(1), sibling(1, value=2)),
        rumour(sibling(2), sibling(1)),
        rumour(sibling(1, past={"n2": 1})),
        rumour(sibling(1, past={"n3": 4}), sibling(4, "n3")),
        # What supersedes has not seen all that the superseded one had.
        rumour(sibling(1, "n1"), sibling(9, "n3", past={"n2": 5})),
        rumour(sibling(5, "n2", past={"n1": 1})),
        rumour(sibling(MAX_COUNT)),
        rumour(sibling(1, "n9")),
        gossip.Pull(("nothing",) * 100),
        *PLACEMENTS,
    ],
    "quorum": [
        quorum_register.Difference((-(2**63),), {}),
        quorum_register.Difference((10**6,), {}),
        quorum_register.Prepared(1, (TOP, "n2", 1)),
        quorum_register.Commit(
            1, "k", quorum_register.Record((MAX_COUNT, "n2", 1), 1, False, "c", 1)
        ),
        quorum_register.Push({"k": quorum_register.Record((MAX_COUNT, "n2", 1), 1, False, "c", 1)}),
        *PLACEMENTS,
    ],
}


HELD = quorum_register.Push({"k": quorum_register.Record((1, "n2", 1), 1, False, "c", 1)})


def parameters_of(protocol: str) -> dict[str, Any]:
    return fuzz.FAST if protocol.startswith(("raft", "paxos")) else {}


@pytest.mark.parametrize("protocol", sorted(LIES))
def test_absurd_messages_stop_nobody(protocol: str, tmp_path: Path) -> None:
    async def run() -> None:
        cluster = fuzz.Cluster(protocol, tmp_path, parameters_of(protocol))
        try:
            await cluster.check_that_it_serves()
            encode = Codec[Any](PROTOCOLS[protocol].replica.MESSAGES).encode
            for message in LIES[protocol]:
                for dst, driver in cluster.drivers.items():
                    for src in ("n2", "n3") if dst == "n1" else ("n1",):
                        letter = fuzz.Letter(fuzz.TOPICS.link(src, dst), encode([message]))
                        cluster.deliver(dst, letter)
                        # Also as the client of the type: the bounds in it are one line, the
                        # replica's own checks are another.
                        driver.feed(Message(src, message)) if _is_encodable(message) else None
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                for node, why in cluster.lost.items():
                    raise AssertionError(f"{node} ended at {message}: {why}")
            await cluster.check_that_it_serves()
        finally:
            await cluster.close()

    asyncio.run(run())


def _is_encodable(message: Any) -> bool:
    """Whether it comes through its own codec."""
    codec: Codec[Any] = Codec([type(message)])
    try:
        return bool(codec.decode(codec.encode([message])))
    except BadFrame:
        return False


@pytest.mark.parametrize("protocol", ["gossip", "gossip-lww", "quorum"])
def test_absurd_placements_stop_nobody(protocol: str, tmp_path: Path) -> None:
    """The nodes that place keys on fewer nodes hear of placements that cannot be."""

    async def run() -> None:
        cluster = fuzz.Cluster(protocol, tmp_path, {"replication_factor": 2})
        try:
            await cluster.check_that_it_serves()
            for message in PLACEMENTS:
                for driver in cluster.drivers.values():
                    for src in fuzz.NODES:
                        if src != driver.settings.node:
                            driver.feed(Message(src, message))
                await asyncio.sleep(0.01)
                for node, why in cluster.lost.items():
                    raise AssertionError(f"{node} ended at {message}: {why}")
            await cluster.check_that_it_serves()
        finally:
            await cluster.close()

    asyncio.run(run())


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_made_up_frames_stop_nobody(protocol: str) -> None:
    """The short run; `make nightly` has the long one."""
    figures = asyncio.run(fuzz.run(protocol, 2500, 7, parameters=parameters_of(protocol)))
    assert figures["bad_frame_malformed"] > 100
    assert figures["bad_messages"] > 10


@pytest.mark.parametrize("protocol", ["gossip", "quorum"])
def test_made_up_frames_with_placements_stop_nobody(protocol: str) -> None:
    partial = {"replication_factor": 2}
    asyncio.run(fuzz.run(protocol, 1500, 7, parameters=partial, serves=False))


@pytest.mark.parametrize("protocol", ["gossip", "gossip-lww"])
def test_a_context_that_nobody_was_told_ends_no_node(protocol: str, tmp_path: Path) -> None:
    """A client may give any past. What it says to be superseded may go, but nobody ends."""

    async def run() -> None:
        cluster = fuzz.Cluster(protocol, tmp_path, {})
        try:
            for round_ in range(6):
                for number, node in enumerate(fuzz.NODES):
                    contexts = [None, {node: 1}, {"n1": 2}, {"n2": 1, "n3": 3}, {"n3": 2**62}]
                    for context in contexts:
                        operation = Operation("write", "k", number, None, context)
                        request = Request(f"c{node}{context}", round_, operation)
                        cluster.drivers[node].feed(request)
                    await asyncio.sleep(0.03)
            await asyncio.sleep(0.5)
            for node, why in cluster.lost.items():
                raise AssertionError(f"{node} ended: {why}")
            await cluster.check_that_it_serves()
        finally:
            await cluster.close()

    asyncio.run(run())


class Listener:
    """Takes frames in place of a cluster. ``frames``: real ones, for the fuzzer to change."""

    def __init__(self, frames: list[tuple[str, str, bytes]]) -> None:
        self.frames = frames
        self.bodies: list[bytes] = []

    def deliver(self, dst: str, letter: fuzz.Letter) -> None:
        if is_frame(letter.payload):
            self.bodies.append(letter.payload[6:])


def test_the_fuzzer_invents_no_keys() -> None:
    """Growth from anything else would be lost in what nodes hold under invented keys."""
    kinds = gossip.Gossip.MESSAGES
    version = gossip.Sibling("n1", 1, {"n2": 1}, "value", False, "client", 3)
    rumour = gossip.Rumour({"real key": gossip.Record((version,))})
    real = Codec[Any](kinds).encode([rumour])
    listener = Listener([("n1", "n2", real)])
    fuzzer = fuzz.Fuzzer(listener, kinds, 5)
    for _ in range(3000):
        fuzzer.send()
    keys: set[str] = set()
    codec: Codec[Any] = Codec(kinds)
    for body in listener.bodies:
        try:
            messages = codec.decode(fuzz.framed(body))
        except BadFrame:
            continue
        for message in messages:
            keys.update(getattr(message, "records", ()))
    assert "real key" in keys
    assert keys <= {*fuzz.TEXTS, *fuzz._texts(msgspec.msgpack.decode(real[6:])), "x"}


def test_a_run_in_which_memory_grows_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter((50.0, 51.0 + fuzz.MAX_GROWN_MB))
    monkeypatch.setattr(fuzz, "_resident_mb", lambda: next(sizes))
    with pytest.raises(AssertionError, match="more memory"):
        asyncio.run(fuzz.run("gossip-lww", 40, 1, serves=False))


# --- types ---


def _types(info: Any, seen: set[Any]) -> Iterator[Any]:
    """All types that a type is made of."""
    what = msgspec.inspect
    yield info
    match info:
        case what.StructType():
            if info.cls not in seen:
                seen.add(info.cls)
                for field in info.fields:
                    yield from _types(field.type, seen)
        case what.NamedTupleType():
            for field in info.fields:
                yield from _types(field.type, seen)
        case what.UnionType():
            for each in info.types:
                yield from _types(each, seen)
        case what.TupleType():
            for each in info.item_types:
                yield from _types(each, seen)
        case what.VarTupleType() | what.ListType():
            yield from _types(info.item_type, seen)
        case what.DictType():
            yield from _types(info.value_type, seen)


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS | INTERNAL))
def test_every_number_is_bounded_and_no_field_is_ignored(protocol: str) -> None:
    replica = (PROTOCOLS | INTERNAL)[protocol].replica
    kinds: tuple[type[msgspec.Struct], ...] = (*replica.MESSAGES, Request)
    for kind in kinds:
        for info in _types(msgspec.inspect.type_info(kind), set()):
            if isinstance(info, msgspec.inspect.IntType):
                # Hashes alone use all 64 bits, and nobody counts on from them.
                assert info.ge is not None, f"{kind.__name__}: {info}"
                assert info.le is not None or kind.__name__ == "Digest", f"{kind.__name__}: {info}"
            elif isinstance(info, msgspec.inspect.FloatType):
                assert (info.ge, info.le) != (None, None), f"{kind.__name__}: {info}"
            elif isinstance(info, msgspec.inspect.StructType):
                assert info.forbid_unknown_fields, f"{info.cls.__name__} takes any field"


def test_a_field_too_many_is_refused() -> None:
    codec: Codec[Any] = Codec(raft.Raft.MESSAGES)
    body = msgspec.msgpack.encode([["TimeoutNow", 1]])
    assert codec.decode(fuzz.framed(body)) == [raft.TimeoutNow(1)]
    with pytest.raises(BadFrame, match="at most"):
        codec.decode(fuzz.framed(msgspec.msgpack.encode([["TimeoutNow", 1, 2]])))


# --- short messages that cost much ---

MANY = 20_000
HEAVY: list[tuple[str, Any, Any]] = [
    ("paxos", paxos.Accept(Ballot(5, "n2"), 0, 1, 0, (None,) * 500), paxos.Prepare),
    ("gossip", gossip.Push(rumour(sibling(1)).records), gossip.Digest),
    ("gossip", gossip.Push(rumour(sibling(1)).records), gossip.Pull),
    ("quorum", HELD, quorum_register.Digest),
    ("quorum", HELD, quorum_register.Pull),
]


@pytest.mark.parametrize(
    ("protocol", "before", "kind"),
    HEAVY,
    ids=[f"{name}-{kind.__name__}" for name, _, kind in HEAVY],
)
def test_a_frame_full_of_questions_is_not_answered_in_full(
    protocol: str, before: Any, kind: Any
) -> None:
    questions = {
        paxos.Prepare: paxos.Prepare(Ballot(6, "n2"), 1),
        gossip.Digest: gossip.Digest((1,) * 256),
        gossip.Pull: gossip.Pull(("k",)),
        quorum_register.Digest: quorum_register.Digest((1,) * 256),
        quorum_register.Pull: quorum_register.Pull(("k",)),
    }
    entry = PROTOCOLS[protocol]
    cluster = Cluster(entry.replica, entry.configure("n1", fuzz.NODES, {}).parameters)
    cluster.lies, cluster.invariants = True, []
    cluster.step("n1", Message("n2", before))
    cluster.network.clear()
    cluster.step("n1", *[Message("n2", questions[kind])] * MANY)
    answered = len(cluster.network)
    assert MAX_HEAVY <= answered <= 4 * MAX_HEAVY
    assert cluster.refused == [], "who is paused hears many at once, and nobody has lied"
    cluster.step("n1", Message("n2", questions[kind]))
    assert len(cluster.network) > answered, "the next step has time again"


# --- numbers that only ever grow ---

FAR: dict[str, Callable[[int], Any]] = {
    "raft": lambda number: raft.RequestVote(number, 0, 0),
    "paxos": lambda number: paxos.Prepare(Ballot(number, "n2"), 1),
    "paxos-basic": lambda number: paxos.Prepare(Ballot(number, "n2"), 1),
    "gossip": lambda number: gossip.Push(rumour(sibling(number)).records),
    "gossip-lww": lambda number: gossip.Push(rumour(sibling(number)).records),
    "quorum": lambda number: quorum_register.Push(
        {"k": quorum_register.Record((number, "n2", 1), 1, False, "c", 1)}
    ),
}
"""A message that takes whoever believes it as far as ``number``."""


@pytest.mark.parametrize("protocol", sorted(FAR))
def test_where_one_node_was_taken_the_others_follow(protocol: str, tmp_path: Path) -> None:
    """One node alone is lied to, step by step, up to the last number that it takes."""

    async def run() -> None:
        cluster = fuzz.Cluster(protocol, tmp_path, parameters_of(protocol))
        try:
            await cluster.check_that_it_serves()
            taken = cluster.drivers["n1"]
            steps = [2**power for power in range(40, 61)]
            if protocol == "gossip-lww":
                # Its numbers are stamps: milliseconds and 16 bits. Two years, again and again.
                now = int(time.time() * 1000) << 16
                steps = [now + (number << 52) for number in range(1, 2000)]
            else:
                steps.append(reach(time.time()) - 2**28)
            for number in steps:
                taken.feed(Message("n2", FAR[protocol](number)))
                await asyncio.sleep(0)
            await cluster.drain()
            for node in fuzz.NODES:
                await cluster.ask("me", node, 1 + fuzz.NODES.index(node), WRITE, fuzz.SETTLE_S)
            await cluster.check_that_it_serves()
            assert await _same_everywhere(cluster)
        finally:
            await cluster.close()

    asyncio.run(run())


WRITE = Operation("write", "k", 5)


async def _same_everywhere(cluster: fuzz.Cluster) -> bool:
    """Whether all nodes come to hold the same under that key, in time."""
    deadline = time.monotonic() + fuzz.SETTLE_S
    while time.monotonic() < deadline:
        held = [driver.replica.state().get("k") for driver in cluster.drivers.values()]
        if held[0] is not None and set(held[0][0]) == {5} and held.count(held[0]) == len(held):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("wall_s", [-1e300, 0.0, 1.7e9, 4e9, 2.0**32, 1e300, float("inf")])
def test_the_reach_is_far_from_where_anybody_comes_and_from_the_end(wall_s: float) -> None:
    assert 2**60 <= reach(wall_s) <= MAX_COUNT // 2
    check_reach("term", reach(wall_s), 0, lambda: wall_s)
    with pytest.raises(BadMessage):
        check_reach("term", reach(wall_s) + 1, 0, lambda: wall_s)


def test_what_is_known_is_within_reach_whatever_the_clock_says() -> None:
    highest = reach(2.0**32)
    check_reach("term", highest, highest, lambda: 0.0)
    with pytest.raises(BadMessage):
        check_reach("term", highest, highest - 1, lambda: 0.0)


def test_what_one_node_took_another_one_takes_when_its_clock_is_there() -> None:
    """And all can go on from there: a microsecond is enough for more steps than one."""
    for early_s in (0.0, 1.7e9, 1.8e9 + 0.123456):
        taken = reach(early_s)
        check_reach("term", taken, 0, lambda early_s=early_s: early_s)  # type: ignore[misc]
        later_s = early_s + 1e-6
        check_reach("term", taken + 100, 0, lambda later_s=later_s: later_s)  # type: ignore[misc]
