"""A snapshot on its way (Raft, extended paper, section 7 and figure 13), chunk by chunk."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nodes.contract.replica import Message
from nodes.protocols.raft import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Raft,
)
from tests.protocols.raft_cluster import RaftCluster

CHUNK_BYTES = 64


def behind(count: int = 3, chunk_bytes: int = CHUNK_BYTES) -> RaftCluster:
    """Nodes led by n1, whose third was away while the log was compacted; its snapshot takes several
    chunks, and the first one is on its way."""
    cluster = RaftCluster(
        count, snapshot_entries=10, snapshot_tail=2, snapshot_chunk_bytes=chunk_bytes
    )
    cluster.lead("n1")
    cluster.crash("n3")
    write(cluster, 40)
    cluster.restart("n3")
    cluster.fire("n1", "heartbeat")
    while not chunks(cluster):
        assert cluster.deliver()
    return cluster


def write(cluster: RaftCluster, count: int) -> None:
    for i in range(count):
        cluster.ask("n1", "write", f"k{i % 5}", f"value {i}")
        cluster.settle() if not chunks(cluster) else settle_others(cluster)


def settle_others(cluster: RaftCluster) -> None:
    """Deliver until nothing is in flight but to and from n3, which gets nothing."""
    while packets := [p for p in cluster.network if "n3" not in (p.src, p.dst)]:
        cluster.network.remove(packets[0])
        cluster.receive(packets[0])
    cluster.network = [p for p in cluster.network if type(p.msg) is not AppendEntries]


def chunks(cluster: RaftCluster) -> list[InstallSnapshot]:
    return [packet.msg for packet in cluster.find(dst="n3", kind=InstallSnapshot)]


def exchange(cluster: RaftCluster) -> None:
    """What is under way to n3 arrives there, and then its answers."""
    cluster.deliver(dst="n3", kind=InstallSnapshot)
    cluster.deliver(src="n3", kind=InstallSnapshotReply)


def received(cluster: RaftCluster) -> int:
    incoming = cluster["n3"]._incoming
    return 0 if incoming is None else len(incoming.data)


def installed(cluster: RaftCluster) -> list[int]:
    return [d["index"] for node, name, d in cluster.marks if name == "install_snapshot"]


def catches_up(cluster: RaftCluster, seconds: float = 3.0) -> None:
    cluster.run(seconds)
    cluster.beat("n1")
    assert cluster["n3"].state() == cluster["n1"].state() != {}
    assert cluster["n3"].applied == cluster["n1"].applied
    assert cluster["n1"]._progress["n3"].snapshot is None


def test_a_snapshot_comes_in_chunks_one_at_a_time_and_is_installed_whole() -> None:
    cluster = behind()
    snapshot = cluster["n1"].disk.snapshot
    sent: list[InstallSnapshot] = []
    while chunks(cluster):
        (chunk,) = chunks(cluster)
        sent.append(chunk)
        assert installed(cluster) == []
        exchange(cluster)
    assert len(sent) > 3
    assert {len(chunk.data) for chunk in sent[:-1]} == {CHUNK_BYTES}
    assert 0 < len(sent[-1].data) <= CHUNK_BYTES
    assert [chunk.done for chunk in sent] == [False] * (len(sent) - 1) + [True]
    assert [chunk.offset for chunk in sent] == [i * CHUNK_BYTES for i in range(len(sent))]
    assert b"".join(chunk.data for chunk in sent) == msgspec.msgpack.encode(snapshot)
    assert installed(cluster) == [snapshot.index]
    assert cluster["n3"].disk.snapshot == snapshot
    cluster.settle()
    catches_up(cluster, 0.0)


def test_a_snapshot_may_be_a_whole_number_of_chunks() -> None:
    cluster = behind(chunk_bytes=1)
    length = len(msgspec.msgpack.encode(cluster["n1"].disk.snapshot))
    for i in range(length):
        (chunk,) = chunks(cluster)
        assert (chunk.offset, len(chunk.data), chunk.done) == (i, 1, i == length - 1)
        exchange(cluster)
    assert chunks(cluster) == []
    assert len(installed(cluster)) == 1


def test_a_lost_chunk_comes_again_with_a_heartbeat_and_only_that_chunk() -> None:
    cluster = behind()
    exchange(cluster)
    (lost,) = chunks(cluster)
    assert lost.offset == CHUNK_BYTES
    cluster.drop(kind=InstallSnapshot)
    cluster.fire("n1", "heartbeat")
    (asking,) = chunks(cluster)
    assert (asking.data, asking.done) == (b"", False)
    exchange(cluster)
    assert chunks(cluster) == [], "nothing is sent before the next heartbeat"
    cluster.fire("n1", "heartbeat")
    (again,) = chunks(cluster)
    assert msgspec.structs.replace(again, round=0) == msgspec.structs.replace(lost, round=0)
    catches_up(cluster)


def test_a_lost_acknowledgement_costs_no_chunk() -> None:
    cluster = behind()
    cluster.deliver(dst="n3", kind=InstallSnapshot)
    assert cluster.drop(kind=InstallSnapshotReply) == 1
    cluster.fire("n1", "heartbeat")
    exchange(cluster)
    (chunk,) = chunks(cluster)
    assert (chunk.offset, len(chunk.data)) == (CHUNK_BYTES, CHUNK_BYTES)
    catches_up(cluster)


def test_heartbeats_behind_a_slow_chunk_do_not_send_it_again() -> None:
    cluster = behind()
    for _ in range(5):
        cluster.fire("n1", "heartbeat")
    with_data = [chunk for chunk in chunks(cluster) if chunk.data]
    assert len(with_data) == 1
    exchange(cluster)
    cluster.fire("n1", "heartbeat")
    assert [chunk.offset for chunk in chunks(cluster) if chunk.data] == [CHUNK_BYTES]
    catches_up(cluster)


@pytest.mark.parametrize("offset", [0, CHUNK_BYTES - 1, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
@pytest.mark.parametrize("done", [False, True])
def test_a_chunk_that_does_not_follow_the_last_one_is_not_taken(offset: int, done: bool) -> None:
    cluster = behind()
    exchange(cluster)
    assert received(cluster) == CHUNK_BYTES
    (next_chunk,) = chunks(cluster)
    wrong = msgspec.structs.replace(next_chunk, offset=offset, done=done)
    cluster.step("n3", Message("n1", wrong))
    assert received(cluster) == CHUNK_BYTES
    (answer,) = [packet.msg for packet in cluster.find(src="n3", kind=InstallSnapshotReply)]
    assert (answer.offset, answer.received) == (offset, CHUNK_BYTES)
    catches_up(cluster)


def test_chunks_that_come_twice_and_late_change_nothing() -> None:
    cluster = behind()
    old = cluster.find(dst="n3", kind=InstallSnapshot)
    while chunks(cluster):
        exchange(cluster)
        for packet in old:
            if cluster["n3"].disk.snapshot_index == 0:
                before = received(cluster)
                cluster.receive(packet)
                assert received(cluster) == before
        old += cluster.find(dst="n3", kind=InstallSnapshot)
    assert len(installed(cluster)) == 1
    write(cluster, 5)
    catches_up(cluster)
    for packet in old:
        cluster.receive(packet)
    cluster.settle()
    assert len(installed(cluster)) == 1
    assert cluster["n3"].state() == cluster["n1"].state()
    assert cluster["n3"]._incoming is None


def test_a_late_chunk_of_an_older_snapshot_is_not_taken() -> None:
    cluster = behind()
    exchange(cluster)
    (old,) = cluster.find(dst="n3", kind=InstallSnapshot)
    assert old.msg.offset == CHUNK_BYTES
    cluster.crash("n3")
    write(cluster, 30)
    cluster.restart("n3")
    while received(cluster) == 0:
        cluster.network = [packet for packet in cluster.network if packet is not old]
        cluster.fire("n1", "heartbeat")
        exchange(cluster)
    assert cluster["n3"]._incoming.index > old.msg.index
    assert received(cluster) == CHUNK_BYTES
    before = bytes(cluster["n3"]._incoming.data)
    cluster.receive(old)
    assert cluster["n3"]._incoming.index > old.msg.index
    assert bytes(cluster["n3"]._incoming.data) == before
    catches_up(cluster)


def test_a_late_answer_about_entries_does_not_end_a_transfer() -> None:
    cluster = behind()
    exchange(cluster)
    leader = cluster["n1"]
    cluster.step("n1", Message("n3", AppendEntriesReply(leader.term, 0, True, 1)))
    assert [chunk.offset for chunk in chunks(cluster)] == [CHUNK_BYTES]
    catches_up(cluster)
    assert len(installed(cluster)) == 1


def test_followers_may_need_different_snapshots_at_a_time() -> None:
    cluster = behind(count=5)
    exchange(cluster)
    cluster.crash("n4")
    write(cluster, 30)
    cluster.restart("n4")
    cluster.cut = {("n1", "n3")}
    cluster.run(1.0)
    assert cluster["n1"]._progress["n3"].snapshot.offset == CHUNK_BYTES
    assert cluster["n4"].disk.snapshot_index == cluster["n1"].disk.snapshot_index
    cluster.cut = set()
    catches_up(cluster)
    assert cluster["n4"].state() == cluster["n1"].state()
    by_node = {node: d["index"] for node, name, d in cluster.marks if name == "install_snapshot"}
    assert by_node["n3"] == by_node["n4"] == cluster["n1"].disk.snapshot_index


def test_a_follower_that_is_restarted_gets_the_newest_snapshot_from_its_beginning() -> None:
    cluster = behind()
    first = chunks(cluster)[0].index
    exchange(cluster)
    exchange(cluster)
    cluster.crash("n3")
    write(cluster, 30)
    newest = cluster["n1"].disk.snapshot_index
    assert newest > first
    cluster.restart("n3")
    catches_up(cluster)
    assert installed(cluster) == [newest]


def test_a_transfer_ends_with_the_snapshot_that_it_began_with() -> None:
    """Or it would never end where snapshots are taken faster than they travel."""
    cluster = behind()
    first = chunks(cluster)[0].index
    exchange(cluster)
    write(cluster, 30)
    assert cluster["n1"].disk.snapshot_index > first
    catches_up(cluster)
    assert installed(cluster) == [first, cluster["n1"].disk.snapshot_index]


def test_a_new_leader_begins_again() -> None:
    """Its snapshot may be another one, or the same in other bytes."""
    cluster = behind()
    exchange(cluster)
    assert received(cluster) == CHUNK_BYTES
    cluster.drop()
    cluster.elect("n2", voters=["n1"])
    assert cluster["n2"].role == "leader"
    cluster.fire("n2", "heartbeat")
    while not cluster.find(src="n2", dst="n3", kind=InstallSnapshot):
        assert cluster.deliver()
    assert received(cluster) == 0
    cluster.run(3.0)
    assert cluster["n3"].state() == cluster["n2"].state() != {}


def test_a_snapshot_counts_when_it_is_durable() -> None:
    cluster = behind()
    cluster.autosync = False
    while chunks(cluster):
        exchange(cluster)
    assert len(installed(cluster)) == 1
    assert cluster.find(src="n3") == []
    assert cluster["n1"]._progress["n3"].match < installed(cluster)[0]
    cluster.crash("n3")
    cluster.autosync = True
    cluster.restart("n3")
    assert cluster["n3"].disk.snapshot_index == 0
    catches_up(cluster)


def test_entries_that_overtake_a_snapshot_make_its_chunks_useless() -> None:
    cluster = behind()
    exchange(cluster)
    leader = cluster["n1"]
    entries = [entry for (index, _), (entry, _) in sorted(known_entries(cluster)) if index <= 42]
    cluster.step(
        "n3", Message("n1", AppendEntries(leader.term, 0, 0, 0, leader.commit, tuple(entries)))
    )
    assert cluster["n3"].commit >= chunks(cluster)[0].index
    assert cluster["n3"]._incoming is None
    catches_up(cluster)


def known_entries(cluster: RaftCluster) -> Any:
    """All entries that any log ever held, as the invariant on logs noted them."""
    return cluster.invariants[Raft.INVARIANTS.index(log_matching())]._entries.items()  # type: ignore[attr-defined]


def log_matching() -> Any:
    return next(kind for kind in Raft.INVARIANTS if kind.name == "log matching")


def test_a_reader_is_confirmed_also_by_a_node_that_is_installing() -> None:
    """The round of a read is confirmed by the answer to a heartbeat without data."""
    cluster = behind()
    cluster.crash("n2")
    request = cluster.ask("n1", "read", "k0")
    exchange(cluster)
    assert cluster.outcomes(request) == ["ok"]
