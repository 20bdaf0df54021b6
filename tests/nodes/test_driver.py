"""What a live driver does with what nobody should send. Real drivers, on disk, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nodes.contract.disk import Disk
from nodes.contract.replica import Message, Operation, Reply, Request
from nodes.protocols.raft import AppendEntries, Entry, Raft, RequestVote, TimeoutNow
from nodes.registry import PROTOCOLS
from nodes.runtime.driver import Driver
from nodes.runtime.durable_log import DurableLog
from nodes.wire.codec import Codec, WriteCodec, encode_json_reply, replies_codec, requests_codec
from tests.protocols.fuzz import FAST, TOPICS, Cluster, Letter

BIG = "1" + "0" * 30
TOO_LARGE = [
    f'{{"op":"write","key":"k","value":{BIG}}}',
    '{"op":"write","key":"k","value":-9223372036854775809}',
    f'{{"op":"cas","key":"k","value":1,"expected":{BIG}}}',
    f'{{"op":"write","key":"k","value":2,"context":{BIG}}}',
    f'{{"op":"write","key":"k","value":2,"context":{{"n9":{BIG}}}}}',
    f'{{"op":"delete","key":"k","value":{BIG}}}',
    f'{{"op":"read","key":"k","client":"me","sequence":{BIG}}}',
]


def play(
    script: Callable[[Cluster], Coroutine[Any, Any, None]],
    directory: Path,
    protocol: str = "raft",
) -> None:
    """Run three nodes, and the script with them."""

    async def run() -> None:
        quick = FAST if protocol.startswith(("raft", "paxos")) else {}
        cluster = Cluster(protocol, directory, quick)
        try:
            await script(cluster)
        finally:
            await cluster.close()

    asyncio.run(run())


async def until(condition: Callable[[], Any], what: str) -> None:
    for _ in range(30_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"waited in vain for {what}")


def has_counted(driver: Driver, count: int) -> bool:
    return driver.counters.get("bad_messages", 0) >= count


def leader_of(cluster: Cluster) -> str | None:
    for node, driver in cluster.drivers.items():
        if driver.replica.probe()["role"] == "leader" and driver.replica.probe()["ready"]:
            return node
    return None


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_an_integer_over_64_bits_fails_and_stops_nobody(protocol: str, tmp_path: Path) -> None:
    async def script(cluster: Cluster) -> None:
        for body in TOO_LARGE:
            for node in cluster.drivers:
                cluster.json_replies.clear()
                letter = Letter(TOPICS.request(node), body.encode(), "reply/me")
                cluster.deliver(node, letter)
                (answer,) = cluster.json_replies
                assert answer["outcome"] == "fail", body
                assert "integer" in answer["error"], body
                assert "64 bits" in answer["error"], body
        assert not cluster.lost
        await cluster.check_that_it_serves()

    play(script, tmp_path, protocol)


def test_a_request_is_answered_on_reply_topics_only(tmp_path: Path) -> None:
    async def script(cluster: Cluster) -> None:
        body = b'{"op":"read","key":"k"}'
        wrong = (
            TOPICS.link("n1", "n3"),
            TOPICS.request("n2"),
            TOPICS.control("n3"),
            "$SYS/x",
            "a/b",
        )
        for topic in wrong:
            cluster.deliver("n1", Letter(TOPICS.request("n1"), body, topic))
        assert cluster.drivers["n1"].counters["bad_response_topic"] == len(wrong)
        # Where the topic says who asks, nobody else is answered.
        asked_by = f"{TOPICS.request('n1')}/load/c7"
        cluster.deliver("n1", Letter(asked_by, b"nonsense", TOPICS.reply("load", "c8")))
        assert cluster.published[-1] == TOPICS.reply("load", "c7")
        cluster.deliver("n1", Letter(f"{TOPICS.request('n1')}/others/c7", b"nonsense", "reply/me"))
        assert cluster.drivers["n1"].counters["bad_response_topic"] == len(wrong) + 1

    play(script, tmp_path)


def test_a_reply_is_never_taken_for_a_protocol_message(tmp_path: Path) -> None:
    """A client named ``TimeoutNow`` whose sequence is the term: its reply looks like the message
    that makes a follower stand for election."""

    async def script(cluster: Cluster) -> None:
        await until(lambda: leader_of(cluster), "a leader")
        leader = leader_of(cluster)
        term = cluster.drivers[str(leader)].replica.probe()["term"]
        follower = next(node for node in cluster.drivers if node != leader)
        reply = Reply("TimeoutNow", term, "ok")
        for payload in (replies_codec().encode([reply]), encode_json_reply(reply)):
            cluster.deliver(follower, Letter(TOPICS.link(str(leader), follower), payload))
        counters = cluster.drivers[follower].counters
        assert counters["bad_frame_kind"] + counters["bad_frame_version"] == 2
        assert cluster.drivers[follower].replica.probe()["role"] == "follower"
        # The message itself does it, so this is the right place and term.
        real: Codec[Any] = Codec(Raft.MESSAGES)
        payload = real.encode([TimeoutNow(term)])
        cluster.deliver(follower, Letter(TOPICS.link(str(leader), follower), payload))
        stands = cluster.drivers[follower].replica
        await until(lambda: stands.probe()["term"] > term, "an election")

    play(script, tmp_path)


@pytest.mark.parametrize("protocol", ["raft", "paxos", "gossip"])
def test_a_reply_says_who_leads_where_somebody_does(protocol: str, tmp_path: Path) -> None:
    async def script(cluster: Cluster) -> None:
        for number, node in enumerate(cluster.drivers):
            write = Operation("write", "k", number)
            reply = await cluster.ask("me", node, number, write, wait_s=30.0)
            leader = cluster.drivers[node].replica.probe()["leader"]
            assert reply.leader == leader
            assert (leader is None) == (protocol == "gossip")

    play(script, tmp_path, protocol)


def test_who_is_no_member_is_not_heard(tmp_path: Path) -> None:
    async def script(cluster: Cluster) -> None:
        codec: Codec[Any] = Codec(Raft.MESSAGES)
        for src in ("n9", "n1", "", "+"):
            cluster.deliver("n1", Letter(TOPICS.link(src, "n1"), codec.encode([TimeoutNow(0)])))
        driver = cluster.drivers["n1"]
        assert driver.counters["bad_frame_sender"] == 4
        assert driver._inputs == []

    play(script, tmp_path)


def test_a_message_that_cannot_be_true_is_dropped_and_counted(tmp_path: Path) -> None:
    async def script(cluster: Cluster) -> None:
        await until(lambda: leader_of(cluster), "a leader")
        leader = str(leader_of(cluster))
        driver = cluster.drivers[leader]
        other = next(node for node in cluster.drivers if node != leader)
        term = driver.replica.probe()["term"]
        codec: Codec[Any] = Codec(Raft.MESSAGES)
        # Another one says that it leads this term; and a term that leaves nothing behind it.
        for lie in (AppendEntries(term, 0, 0, 0, 0, (Entry(term),)), RequestVote(2**62, 0, 0)):
            wanted = driver.counters.get("bad_messages", 0) + 1
            cluster.deliver(leader, Letter(TOPICS.link(other, leader), codec.encode([lie])))
            await until(partial(has_counted, driver, wanted), "a count")
        assert driver.replica.probe()["term"] < 2**40
        await cluster.check_that_it_serves()

    play(script, tmp_path)


def test_a_step_that_is_left_half_way_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_half_way(self: Raft, src: str, m: TimeoutNow) -> None:
        self.commit = 10**9
        self.disk.put("half", "done")
        self.out.send(src, TimeoutNow(77))
        raise KeyError("nobody thought of that")

    monkeypatch.setattr(Raft, "on_timeout_now", fail_half_way)

    async def script(cluster: Cluster) -> None:
        await cluster.check_that_it_serves()
        node = cluster.drivers["n2"]
        held = dict(node.replica.state())
        replies_before = len(cluster.replies)
        # A client waits at this node, for an answer that does not come.
        request = Request("waits", 1, Operation("write", "w", 1))
        letter = Letter(TOPICS.request("n2"), requests_codec().encode([request]), "reply/me")
        cluster.deliver("n2", letter)
        codec: Codec[Any] = Codec(Raft.MESSAGES)
        payload = codec.encode([TimeoutNow(0)])
        cluster.deliver("n2", Letter(TOPICS.link("n1", "n2"), payload))
        await until(lambda: node.counters.get("bad_steps"), "the step")
        assert node.replica.disk.get("half") is None
        assert node.replica.probe()["commit"] < 10**9
        await until(lambda: len(cluster.replies) > replies_before, "the client to be told")
        assert cluster.replies[-1].outcome in ("info", "ok")
        assert cluster.told["rebuilt"] == 1
        assert not cluster.lost
        await cluster.check_that_it_serves()
        assert held.keys() <= dict(node.replica.state()).keys()

    play(script, tmp_path)
    # And it is on disk, as if nothing had been.
    log = DurableLog(tmp_path / "n2", WriteCodec(Raft.RECORDS))
    assert Disk.replay(log.open()).get("half") is None
    log.close()


@pytest.mark.parametrize("wrong", ["invariant", "timer"])
def test_own_state_that_is_wrong_ends_the_node(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_invariant(self: Raft, src: str, m: TimeoutNow) -> None:
        raise AssertionError("this cannot be")

    def fail(self: Raft, name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(Raft, "on_timeout_now", break_invariant)

    async def script(cluster: Cluster) -> None:
        await until(lambda: leader_of(cluster), "a leader")
        if wrong == "timer":
            monkeypatch.setattr(Raft, "on_timer", fail)
            cluster.drivers["n2"]._on_timer("election")
        else:
            cluster.drivers["n2"].feed(Message("n1", TimeoutNow(0)))
        await until(lambda: "n2" in cluster.lost, "the node to end")

    play(script, tmp_path)


def test_what_cannot_be_encoded_is_dropped_alone(tmp_path: Path) -> None:
    async def script(cluster: Cluster) -> None:
        driver = cluster.drivers["n1"]
        cluster.frames.clear()
        good = [TimeoutNow(number) for number in range(5)]
        driver._send_to("n2", [*good[:3], TimeoutNow(2**70), *good[3:]])
        codec: Codec[Any] = Codec(Raft.MESSAGES)
        sent = [m for src, dst, frame in cluster.frames for m in codec.decode(frame)]
        assert sent == good
        assert driver.counters["not_to_be_encoded"] == 1

    play(script, tmp_path)
