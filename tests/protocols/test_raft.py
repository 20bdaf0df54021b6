"""Raft, scene by scene: the papers' figures, the classic bugs, what clients were promised."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nodes import registry
from nodes.contract.replica import Message, Operation, Request
from nodes.parts.forwarding import Forward, Forwarded
from nodes.protocols.raft import (
    AppendEntries,
    AppendEntriesReply,
    ChangeMembership,
    InstallSnapshot,
    PreVote,
    RaftParameters,
    RequestVote,
    RequestVoteReply,
    Snapshot,
    TimeoutNow,
    TransferLeadership,
)
from tests.protocols.raft_cluster import RaftCluster


def led(count: int = 3, leader: str = "n1", **options: Any) -> RaftCluster:
    """A cluster with a leader that everybody follows."""
    cluster = RaftCluster(count, **options)
    cluster.lead(leader)
    return cluster


# --- elections ---


def test_a_leader_is_elected_by_time_alone_and_stays() -> None:
    cluster = RaftCluster(5)
    cluster.run(4.0)
    (leader,) = cluster.leaders
    term = cluster[leader].term
    cluster.run(20.0)
    assert cluster.leaders == [leader]
    assert [cluster[n].term for n in cluster.ids] == [term] * 5
    assert all(cluster[n].probe()["ready"] for n in cluster.ids)


def test_another_leader_takes_over_within_two_election_timeouts() -> None:
    for seed in range(10):
        cluster = RaftCluster(5, seed=seed)
        cluster.run(4.0)
        (old,) = cluster.leaders
        cluster.crash(old)
        cluster.run(2 * cluster.parameters.election_timeout_max_s)
        (new,) = cluster.leaders
        assert new != old
        assert cluster[new].probe()["ready"]


def test_a_split_vote_elects_nobody_and_a_later_term_decides() -> None:
    cluster = RaftCluster(5)
    cluster.crash("n5")
    cluster.stand("n1")
    cluster.stand("n2")
    for candidate, voter in [("n1", "n3"), ("n2", "n4"), ("n2", "n3"), ("n1", "n4")]:
        cluster.deliver(src=candidate, dst=voter, kind=RequestVote)
    cluster.settle()
    assert cluster.leaders == []
    assert [cluster[n].vote for n in ("n1", "n2", "n3", "n4")] == ["n1", "n2", "n1", "n2"]
    cluster.run(6.0)
    (leader,) = cluster.leaders
    assert cluster[leader].term > 1


def test_a_vote_survives_a_crash() -> None:
    cluster = RaftCluster(3)
    cluster.stand("n1")
    cluster.stand("n2")
    cluster.deliver(src="n1", dst="n3", kind=RequestVote)
    cluster.crash("n3")
    cluster.restart("n3")
    cluster.deliver(src="n2", dst="n3", kind=RequestVote)
    cluster.settle()
    assert cluster.leaders == ["n1"]
    assert cluster["n3"].vote == "n1"


def test_a_vote_is_told_only_when_it_is_durable() -> None:
    cluster = RaftCluster(3, autosync=False)
    cluster.stand("n1")
    assert cluster.find(src="n1") == []
    cluster.sync("n1")
    cluster.deliver(src="n1", dst="n3", kind=RequestVote)
    assert cluster.find(src="n3") == []
    cluster.sync("n3")
    assert len(cluster.find(src="n3", kind=RequestVoteReply)) == 1


def test_only_a_candidate_with_an_up_to_date_log_is_elected() -> None:
    cluster = led(3)
    cluster.cut = {("n1", "n3")}
    cluster.ask("n1", "write", "x", 1)
    cluster.settle()
    assert cluster.log("n2") == "1 1:x=1"
    cluster.crash("n1")
    cluster.elect("n3")
    assert cluster["n3"].role == "candidate"
    assert cluster["n2"].vote is None
    # A longer log with an older last term is not up to date either.
    cluster = RaftCluster(2)
    cluster.craft("n1", [1, 1, 1], term=3)
    cluster.craft("n2", [1, 3], term=3)
    cluster.elect("n1")
    assert cluster["n1"].role == "candidate"
    cluster.elect("n2")
    assert cluster["n2"].role == "leader"


def test_a_node_that_was_cut_off_disturbs_nobody_when_it_returns() -> None:
    cluster = led(3)
    cluster.partition(["n1", "n2"], ["n3"])
    cluster.run(10.0)
    assert cluster["n3"].leader is None
    cluster.heal()
    cluster.run(5.0)
    assert cluster.leaders == ["n1"]
    assert [cluster[n].term for n in cluster.ids] == [1, 1, 1]


def test_nodes_that_hear_the_leader_refuse_pre_votes() -> None:
    cluster = led(3)
    cluster.cut = {("n1", "n3")}
    cluster.run(10.0)
    assert cluster.leaders == ["n1"]
    assert [cluster[n].term for n in cluster.ids] == [1, 1, 1]


def test_a_leader_without_a_majority_steps_down_and_never_answers_ok() -> None:
    cluster = led(5)
    cluster.partition(["n1", "n2"], ["n3", "n4", "n5"])
    write = cluster.ask("n1", "write", "x", 1)
    read = cluster.ask("n1", "read", "x")
    cluster.run(2 * cluster.parameters.election_timeout_max_s + 0.1)
    assert cluster["n1"].role == "follower"
    late = cluster.ask("n1", "write", "x", 2)
    cluster.run(5.0)
    assert cluster.outcomes(write) == ["info"]
    assert cluster.outcomes(read) == ["fail"]
    assert cluster.outcomes(late) == ["fail"]
    (leader,) = cluster.leaders
    assert leader in ("n3", "n4", "n5")


def test_a_clock_that_jumps_neither_stops_elections_nor_disturbs_a_leader() -> None:
    class Jumping(RaftCluster):
        jump_s = 0.0

        def restart(self, id: str) -> None:
            env = self.nodes[id].env
            env.now = lambda: self.now_s + self.jump_s  # type: ignore[method-assign]
            super().restart(id)

    cluster = Jumping(3)
    cluster.run(4.0)
    (leader,) = cluster.leaders
    for jump_s in (3600.0, -3600.0):
        cluster.jump_s = jump_s
        cluster.run(5.0)
        assert cluster.leaders == [leader]
        assert cluster[leader].term == 1
    cluster.crash(leader)
    cluster.jump_s = -7200.0
    cluster.run(5.0)
    assert len(cluster.leaders) == 1


def test_a_voter_gives_its_candidate_time() -> None:
    cluster = RaftCluster(3)
    cluster.now_s = cluster.nodes["n2"].timers["election"]
    cluster.stand("n1")
    cluster.deliver(dst="n2", kind=RequestVote)
    assert cluster["n2"].vote == "n1"
    cluster.fire("n2", "election")
    assert cluster.find(src="n2", kind=PreVote) == []
    assert cluster.nodes["n2"].timers["election"] > cluster.now_s


# --- the log ---


def test_figure_7_every_follower_comes_to_the_leaders_log() -> None:
    logs = {
        "n1": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
        "n2": [1, 1, 1, 4, 4, 5, 5, 6, 6],
        "n3": [1, 1, 1, 4],
        "n4": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        "n5": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        "n6": [1, 1, 1, 4, 4, 4, 4],
        "n7": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    }
    cluster = RaftCluster(7)
    for node, terms in logs.items():
        cluster.craft(node, terms, term=7)
    cluster.elect("n1")
    assert cluster["n1"].role == "leader"
    assert [cluster[n].vote for n in cluster.ids] == ["n1", "n1", "n1", None, None, "n1", "n1"]
    refused = 0
    while cluster.network:
        refused += sum(not packet.msg.success for packet in cluster.find(kind=AppendEntriesReply))
        cluster.deliver()
    assert [cluster.terms(n) for n in cluster.ids] == [[*logs["n1"], 8]] * 7
    assert cluster["n1"].commit == 11
    # The hint skips a term at a time: with one index at a time it would be 17 refusals.
    assert refused <= 7


def test_figure_8_an_entry_of_an_older_term_does_not_commit_by_counting() -> None:
    cluster = led(5, batch_entries=1)
    cluster.ask("n1", "write", "x", 1)
    cluster.deliver(src="n1", dst="n2", kind=AppendEntries)
    cluster.drop()
    cluster.crash("n1")
    cluster.elect("n5", voters=["n3", "n4"])
    assert cluster["n5"].role == "leader"
    cluster.drop()
    cluster.crash("n5")
    assert (cluster.log("n2"), cluster.log("n3")) == ("1 1:x=1", "1")

    cluster.restart("n1")
    cluster.stand("n1")  # in term 2, which n3 and n4 know already
    cluster.drop()
    cluster.elect("n1")
    assert cluster["n1"].role == "leader"
    cluster.drop(src="n1")
    cluster.fire("n1", "heartbeat")
    cluster.append_to("n1", "n2")  # n2 holds entry 2
    cluster.drop(src="n1", dst="n2")
    cluster.append_to("n1", "n3")  # n3 refuses the no-op at 3
    cluster.append_to("n1", "n3")  # and takes entry 2
    cluster.drop(src="n1")
    assert cluster.log("n3") == "1 1:x=1"
    progress = cluster["n1"]._progress
    assert [progress[n].match for n in ("n2", "n3")] == [2, 2]
    assert cluster["n1"].commit == 0

    # (d) of the figure: n5 may still overwrite it.
    cluster.crash("n1")
    cluster.restart("n5")
    cluster.stand("n5")
    cluster.drop()
    cluster.elect("n5")
    assert cluster["n5"].role == "leader"
    cluster.settle()
    cluster.beat("n5")
    cluster.beat("n5")
    assert cluster.log("n3") == cluster.log("n2") == "1 2 4"


def test_figure_8_an_entry_of_the_own_term_carries_the_older_ones_with_it() -> None:
    cluster = led(5)
    cluster.ask("n1", "write", "x", 1)
    cluster.deliver(src="n1", dst="n2", kind=AppendEntries)
    cluster.drop()
    cluster.crash("n1")
    cluster.elect("n2", voters=["n3", "n4"])
    cluster.cut = {("n2", "n5")}
    cluster.settle()
    assert cluster["n2"].commit == 3
    assert cluster.log("n3") == "1 1:x=1 2"
    cluster.cut = set()
    cluster.stand("n5")
    cluster.drop()
    cluster.elect("n5")
    assert cluster["n5"].role == "candidate"


def test_a_refusal_leads_to_the_last_entry_that_may_agree() -> None:
    cluster = RaftCluster(2)
    cluster.craft("n1", [1, 1, 1, 4, 4], term=4)
    cluster.craft("n2", [1, 1, 1, 1, 1], term=4)
    cluster.elect("n1")
    cluster.append_to("n1", "n2")
    assert [(p.msg.prev_index, len(p.msg.entries)) for p in cluster.find(src="n1")] == [(3, 3)]


def test_what_is_on_its_way_to_a_silent_follower_is_bounded() -> None:
    cluster = led(3, batch_entries=2)
    cluster.cut = {("n3", "n1")}
    sent = 0
    for i in range(100):
        cluster.ask("n1", "write", "x", i)
        sent += sum(len(p.msg.entries) for p in cluster.find(dst="n3", kind=AppendEntries))
        cluster.settle()
    assert cluster["n1"].commit > 90
    assert 32 <= sent <= 36


def test_an_old_message_truncates_nothing() -> None:
    cluster = led(3)
    cluster.ask("n1", "write", "x", 1)
    (old,) = cluster.find(src="n1", dst="n2", kind=AppendEntries)
    cluster.settle()
    cluster.ask("n1", "write", "x", 2)
    cluster.settle()
    cluster.receive(old)
    assert cluster.log("n2") == "1 1:x=1 1:x=2"
    assert cluster["n2"].truncated == []


def test_entries_behind_a_gap_are_not_taken() -> None:
    cluster = led(3)
    cluster.ask("n1", "write", "x", 1)
    cluster.drop(dst="n2")
    cluster.settle()
    cluster.ask("n1", "write", "x", 2)
    cluster.deliver(src="n1", dst="n2", kind=AppendEntries)
    assert cluster.log("n2") == "1"
    cluster.settle()
    assert cluster.log("n2") == "1 1:x=1 1:x=2"


def test_a_lost_message_is_noticed_by_the_next_heartbeat() -> None:
    cluster = led(3)
    cluster.ask("n1", "write", "x", 1)
    cluster.drop(dst="n2")
    cluster.settle()
    assert cluster.log("n2") == "1"
    cluster.beat("n1")
    cluster.beat("n1")
    assert cluster.log("n2") == "1 1:x=1"
    assert cluster.commits() == [2, 2, 2]


def test_a_message_carries_a_bounded_number_of_entries_and_bytes() -> None:
    cluster = led(3, batch_entries=4, batch_bytes=1000)
    cluster.cut = {("n1", "n3")}
    for i in range(10):
        cluster.ask("n1", "write", "x", i)
    for size in (300, 300, 300, 5000, 10):
        cluster.ask("n1", "write", "y", "v" * size)
    cluster.settle()
    cluster.cut = set()
    cluster.drop()
    sizes: list[list[int]] = []
    for _ in range(3):
        cluster.fire("n1", "heartbeat")
        while cluster.network:
            for packet in cluster.find(src="n1", dst="n3", kind=AppendEntries):
                if packet.msg.entries:
                    values = [e.request.operation.value for e in packet.msg.entries]
                    sizes.append([len(v) if isinstance(v, str) else 0 for v in values])
            cluster.deliver()
    assert cluster.log("n3") == cluster.log("n1")
    assert all(len(batch) <= 4 for batch in sizes)
    assert all(sum(batch) <= 1000 or len(batch) == 1 for batch in sizes)
    assert len(sizes) < 10


def test_a_step_over_many_requests_is_one_message_to_each_follower() -> None:
    cluster = led(3)
    requests = [Request(f"c{i}", 0, write_operation(i)) for i in range(100)]
    cluster.step("n1", *requests)
    assert len(cluster.find(kind=AppendEntries)) == 2
    cluster.settle()
    assert {cluster.reply_to(request).outcome for request in requests} == {"ok"}


def write_operation(value: int) -> Any:
    return Operation("write", f"k{value % 7}", value)


# --- durability ---


def test_a_leader_sends_before_its_own_fsync_but_does_not_count_itself() -> None:
    cluster = led(3)
    cluster.autosync = False
    request = cluster.ask("n1", "write", "x", 1)
    cluster.deliver(src="n1", dst="n2", kind=AppendEntries)
    cluster.drop(dst="n3")
    cluster.sync("n2")
    cluster.deliver(src="n2", dst="n1")
    # It is durable on one node of three.
    assert cluster["n1"].commit == 1
    assert cluster.answers(request) == []
    cluster.sync("n1")
    assert cluster["n1"].commit == 2
    assert cluster.outcomes(request) == ["ok"]


def test_followers_commit_what_the_leader_has_not_yet_on_its_own_disk() -> None:
    cluster = led(3)
    cluster.autosync = False
    request = cluster.ask("n1", "write", "x", 1)
    cluster.settle()
    for follower in ("n2", "n3"):
        cluster.sync(follower)
    cluster.settle()
    assert cluster.outcomes(request) == ["ok"]
    cluster.crash("n1")
    cluster.restart("n1")
    assert cluster.log("n1") == "1"
    cluster.autosync = True
    cluster.run(5.0)
    assert [cluster.value(n, "x") for n in cluster.ids] == [1, 1, 1]


def test_a_follower_acknowledges_only_what_is_durable() -> None:
    cluster = led(3)
    cluster.autosync = False
    cluster.ask("n1", "write", "x", 1)
    cluster.deliver(src="n1", dst="n2", kind=AppendEntries)
    assert cluster.find(src="n2") == []
    # A heartbeat behind it claims the same, so it waits too ...
    cluster.fire("n1", "heartbeat")
    cluster.deliver(src="n1", dst="n2", kind=AppendEntries)
    assert cluster.find(src="n2") == []
    cluster.sync("n2")
    assert [p.msg.index for p in cluster.find(src="n2", kind=AppendEntriesReply)] == [2, 2]


def test_a_busy_disk_does_not_silence_a_follower_that_promises_nothing_new() -> None:
    cluster = led(3)
    cluster.fire("n1", "heartbeat")
    cluster.drop(dst="n3")
    (beat,) = cluster.find(src="n1", dst="n2", kind=AppendEntries)
    cluster.drop()
    cluster.autosync = False
    cluster.ask("n1", "write", "x", 1)
    cluster.deliver(src="n1", dst="n2", kind=AppendEntries)
    cluster.receive(beat)
    assert [p.msg.index for p in cluster.find(src="n2", kind=AppendEntriesReply)] == [1]


def test_what_was_truncated_is_no_longer_durable() -> None:
    """Three entries are durable, are replaced by others that are not, and are not acknowledged."""
    cluster = RaftCluster(3)
    cluster.craft("n2", [1, 1, 1], term=1)
    cluster.craft("n1", [1, 2, 2], term=2)
    cluster.elect("n1", voters=["n3"])
    cluster.drop()
    cluster.autosync = False
    cluster.fire("n1", "heartbeat")
    (beat,) = cluster.find(src="n1", dst="n2", kind=AppendEntries)
    for _ in range(3):
        cluster.append_to("n1", "n2")
        cluster.sync("n2") if cluster.terms("n2") == [1, 1, 1] else None
    assert cluster.terms("n2") == [1, 2, 2, 3]
    assert cluster["n2"].durable_index == 1
    before = len(cluster.find(src="n2"))
    cluster.receive(beat)
    assert len(cluster.find(src="n2")) == before


def test_what_a_snapshot_replaced_is_no_longer_durable() -> None:
    cluster = led(3, snapshot_entries=10, snapshot_tail=0)
    cluster.partition(["n1"], ["n2", "n3"])
    for i in range(30):
        cluster.ask("n1", "write", "lost", i)
    cluster.elect("n2", voters=["n3"])
    cluster.drop(dst="n1")
    cluster.settle()
    for i in range(30):
        cluster.ask("n2", "write", "kept", i)
        cluster.settle()
    cluster.crash("n1")
    cluster.restart("n1")
    cluster.cut = set()
    cluster.step("n1", Message("n2", AppendEntries(2, 0, 99, 2, 0)))  # n1 knows the term
    cluster.drop()
    cluster.autosync = False
    cluster.step("n1", Message("n2", in_one_chunk(2, cluster["n2"].disk.snapshot)))
    assert cluster["n1"].disk.snapshot_index >= 10
    # A late message whose entries the snapshot covers is no reason to claim them early.
    cluster.step("n1", Message("n2", AppendEntries(2, 0, 4, 2, 0)))
    assert cluster.find(src="n1") == []
    cluster.sync("n1")
    assert len(cluster.find(src="n1", kind=AppendEntriesReply)) == 2


def test_every_acknowledged_write_survives_a_crash_of_all_nodes() -> None:
    cluster = led(5, snapshot_entries=7, snapshot_tail=3)
    requests = {i: cluster.ask(cluster.ids[i % 5], "write", f"k{i}", i) for i in range(20)}
    cluster.settle()
    assert all(cluster.outcomes(request) == ["ok"] for request in requests.values())
    for node in cluster.ids:
        cluster.crash(node)
    for node in cluster.ids:
        cluster.restart(node)
    cluster.run(5.0)
    for i in requests:
        assert [cluster.value(n, f"k{i}") for n in cluster.ids] == [i] * 5


def test_one_node_is_a_cluster() -> None:
    cluster = RaftCluster(1, autosync=False, snapshot_entries=5, snapshot_tail=0)
    cluster.run(2.0)
    assert cluster.leaders == [], "its vote is not durable: a crash would make it vote again"
    cluster.sync("n1")
    assert cluster.leaders == ["n1"]
    request = cluster.ask("n1", "write", "x", 1)
    assert cluster.answers(request) == []
    cluster.sync("n1")
    assert cluster.outcomes(request) == ["ok"]
    assert cluster.read("n1", "x").value == 1
    cluster.autosync = True
    for i in range(20):
        assert cluster.write("n1", "x", i).outcome == "ok"
    cluster.crash("n1")
    cluster.restart("n1")
    cluster.run(2.0)
    assert cluster.read("n1", "x").value == 19


# --- reads ---


def test_a_stale_leader_does_not_serve_reads() -> None:
    cluster = led(3)
    assert cluster.ask("n1", "write", "x", 1)
    cluster.settle()
    cluster.partition(["n1"], ["n2", "n3"])
    cluster.elect("n2", voters=["n3"])
    cluster.settle()
    write = cluster.ask("n2", "write", "x", 2)
    cluster.settle()
    assert cluster.outcomes(write) == ["ok"]
    read = cluster.ask("n1", "read", "x")
    cluster.settle()
    assert cluster["n1"].role == "leader"
    assert cluster.answers(read) == []
    cluster.heal()
    cluster.run(1.0)
    assert [(r.outcome, r.value) for r in cluster.answers(read)] == [("ok", 2)]


def test_confirmations_older_than_a_read_do_not_count_for_it() -> None:
    cluster = led(3)
    cluster.fire("n1", "heartbeat")
    cluster.deliver(src="n1")
    late = cluster.find(dst="n1", kind=AppendEntriesReply)
    assert len(late) == 2
    cluster.drop()
    cluster.partition(["n1"], ["n2", "n3"])
    cluster.elect("n2", voters=["n3"])
    cluster.settle()
    cluster.ask("n2", "write", "x", 2)
    cluster.settle()
    cluster.cut = set()
    read = cluster.ask("n1", "read", "x")
    cluster.drop(src="n1")
    for packet in late:
        cluster.receive(packet)
    assert cluster.answers(read) == []


def test_a_new_leader_serves_no_read_before_it_committed_in_its_term() -> None:
    cluster = led(3)
    request = cluster.ask("n1", "write", "x", 1)
    cluster.settle()
    assert cluster.outcomes(request) == ["ok"]
    assert cluster["n2"].commit == 1
    cluster.crash("n1")
    cluster.elect("n2", voters=["n3"])
    cluster.drop()
    read = cluster.ask("n2", "read", "x")
    cluster.fire("n2", "heartbeat")
    assert all(p.msg.entries == () for p in cluster.find(src="n2", dst="n3", kind=AppendEntries))
    cluster.append_to("n2", "n3")
    assert cluster.answers(read) == []
    cluster.settle()
    cluster.beat("n2")
    assert cluster.reply_to(read).value == 1


def test_reads_at_followers_are_linearizable() -> None:
    cluster = led(3)
    cluster.ask("n1", "write", "x", 1)
    cluster.settle()
    assert cluster.value("n3", "x") is None
    read = cluster.ask("n3", "read", "x")
    cluster.settle()
    assert cluster.reply_to(read).value == 1


def test_stale_reads_come_from_the_applied_state_of_any_node() -> None:
    cluster = led(3, stale_reads=True)
    cluster.ask("n1", "write", "x", 1)
    cluster.settle()
    cluster.beat("n1")
    cluster.partition(["n1", "n2"], ["n3"])
    cluster.ask("n1", "write", "x", 2)
    cluster.settle()
    assert cluster.read("n1", "x").value == 2
    assert cluster.read("n3", "x").value == 1
    # What a restarted node has applied is older than what it showed: it asks the leader.
    cluster.crash("n3")
    cluster.restart("n3")
    read = cluster.ask("n3", "read", "x")
    assert cluster.answers(read) == []
    cluster.heal()
    cluster.run(1.0)
    assert cluster.reply_to(read).value == 2
    assert cluster.read("n3", "x").value == 2


def test_an_old_copy_of_a_message_takes_nobody_back_to_what_was_shown_before() -> None:
    cluster = led(3, stale_reads=True)
    cluster.ask("n1", "write", "x", 1)
    cluster.settle()
    cluster.fire("n1", "heartbeat")
    (old,) = cluster.find(src="n1", dst="n3", kind=AppendEntries)
    cluster.settle()
    cluster.ask("n1", "write", "x", 2)
    cluster.settle()
    cluster.beat("n1")
    assert cluster.read("n3", "x").value == 2
    cluster.crash("n3")
    cluster.restart("n3")
    cluster.receive(old)
    assert cluster.value("n3", "x") == 1
    read = cluster.ask("n3", "read", "x")
    assert cluster.answers(read) == []
    cluster.run(1.0)
    assert cluster.reply_to(read).value == 2


def test_what_a_crash_may_take_back_is_not_shown() -> None:
    cluster = led(3, stale_reads=True)
    cluster.autosync = False
    cluster.ask("n1", "write", "x", 1)
    cluster.sync("n1")
    for follower in ("n2", "n3"):
        cluster.deliver(src="n1", dst=follower, kind=AppendEntries)
    cluster.sync("n2")
    cluster.settle()
    cluster.fire("n1", "heartbeat")
    cluster.settle()
    assert cluster["n3"].commit > cluster["n3"].durable_index
    read = cluster.ask("n3", "read", "x")
    assert cluster.answers(read) == []
    cluster.sync("n3")
    assert cluster.read("n3", "x").value == 1


def test_a_leader_shows_what_others_committed_once_its_own_disk_has_it_and_in_order() -> None:
    cluster = led(3, stale_reads=True)
    cluster.autosync = False
    reads = []
    for value in (1, 2):
        cluster.ask("n1", "write", "x", value)
        for follower in ("n2", "n3"):
            cluster.deliver(src="n1", dst=follower, kind=AppendEntries)
            cluster.sync(follower)
        cluster.settle()
        assert cluster["n1"].commit > cluster["n1"].durable_index
        reads.append(cluster.ask("n1", "read", "x"))
        cluster.settle()
        assert cluster.answers(reads[-1]) == [], "a majority confirms; a crash would take it back"
    cluster.sync("n1")
    assert [cluster.reply_to(read).value for read in reads] == [1, 2]
    assert cluster.read("n1", "x").value == 2


# --- requests ---


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_request_is_applied_once_however_often_it_comes(node: str) -> None:
    cluster = led(3)
    first = cluster.ask(node, "write", "x", 1)
    cluster.step(node, first)
    cluster.settle()
    answer = cluster.reply_to(first)
    cluster.ask("n3", "write", "x", 2)
    cluster.settle()
    for again in cluster.ids:
        cluster.step(again, first)
        cluster.settle()
    assert cluster.answers(first) == [answer] * 4
    assert cluster.value("n1", "x") == 2
    assert cluster.log("n1") == "1 1:x=1 1:x=2"


@pytest.mark.parametrize("snapshot_entries", [3, 1000])
def test_a_request_is_applied_once_across_leaders_and_restarts(snapshot_entries: int) -> None:
    cluster = led(3, snapshot_entries=snapshot_entries, snapshot_tail=0)
    first = cluster.cas("n2", "x", None, 1, sequence=0)
    cluster.settle()
    answer = cluster.reply_to(first)
    assert (answer.outcome, answer.applied) == ("ok", True)
    for i in (2, 3, 4):
        cluster.cas("n1", "x", i - 1, i, sequence=i)
        cluster.settle()
    cluster.beat("n1")
    cluster.elect("n2")
    cluster.settle()
    cluster.step("n2", first)
    cluster.settle()
    for node in cluster.ids:
        cluster.crash(node)
    for node in cluster.ids:
        cluster.restart(node)
    cluster.run(5.0)
    cluster.step("n3", first)
    cluster.run(1.0)
    assert cluster.answers(first) == [answer] * 3
    assert [cluster.value(n, "x") for n in cluster.ids] == [4, 4, 4]


def test_a_request_that_is_in_the_log_twice_is_applied_once() -> None:
    cluster = led(3)
    first = cluster.ask("n1", "write", "x", 1)
    cluster.deliver(src="n1", dst="n2", kind=AppendEntries)
    cluster.crash("n1")
    cluster.elect("n2", voters=["n3"])
    cluster.drop()
    # n2 holds it, uncommitted; its new leader cannot know, and appends it again.
    cluster.step("n2", first)
    cluster.ask("n2", "write", "x", 2)
    cluster.settle()
    cluster.beat("n2")
    cluster.beat("n2")
    assert cluster.log("n3") == "1 1:x=1 2 2:x=1 2:x=2"
    assert [cluster.value(n, "x") for n in ("n2", "n3")] == [2, 2]
    cluster.step("n3", first)
    cluster.settle()
    assert {reply.version for reply in cluster.answers(first)} == {2}
    assert cluster.value("n2", "x") == 2


def test_cas_compares_and_tells_what_it_found() -> None:
    cluster = led(3)

    sequences = iter(range(100))

    def cas(expected: Any, value: Any) -> tuple[Any, ...]:
        request = cluster.cas("n2", "x", expected, value, sequence=next(sequences))
        cluster.settle()
        reply = cluster.reply_to(request)
        return reply.outcome, reply.applied, reply.seen

    assert cas(7, 1) == ("ok", False, None)
    assert cas(None, 1) == ("ok", True, None)
    assert cas(True, 2) == ("ok", False, 1)
    assert cas("1", 2) == ("ok", False, 1)
    assert cas(1, 2) == ("ok", True, 1)
    cluster.ask("n1", "delete", "x")
    cluster.settle()
    assert cluster["n1"].state() == {}
    assert cas(None, 3) == ("ok", True, None)


def test_versions_are_the_index_of_the_last_write() -> None:
    cluster = led(3)
    for i in range(3):
        cluster.ask("n2", "write", "x", i)
        cluster.settle()
    read = cluster.ask("n3", "read", "x")
    gone = cluster.ask("n3", "read", "y")
    cluster.settle()
    assert (cluster.reply_to(read).value, cluster.reply_to(read).version) == (2, 4)
    assert (cluster.reply_to(gone).value, cluster.reply_to(gone).version) == (None, None)


def test_a_lost_forward_is_sent_again() -> None:
    cluster = led(3)
    request = cluster.ask("n2", "write", "x", 1)
    assert cluster.drop(kind=Forward) == 1
    cluster.run(2 * cluster.parameters.retry_s + 0.1)
    assert cluster.outcomes(request) == ["ok"]
    assert cluster.log("n1") == "1 1:x=1"


def test_a_node_answers_itself_when_the_answer_of_the_leader_is_lost() -> None:
    cluster = led(3)
    request = cluster.ask("n2", "write", "x", 1)
    while cluster.network:
        cluster.drop(kind=Forwarded)
        cluster.deliver()
    assert cluster.answers(request) == []
    cluster.beat("n1")
    assert cluster.outcomes(request) == ["ok"]


def test_requests_go_to_the_next_leader() -> None:
    cluster = led(5)
    requests = [cluster.ask(n, "write", n, 1, client=n) for n in cluster.ids]
    cluster.drop()
    cluster.partition(["n1"], ["n2", "n3", "n4", "n5"])
    cluster.elect("n2", voters=["n3", "n4"])
    cluster.settle()
    cluster.beat("n2")
    assert [cluster.outcomes(request) for request in requests] == [[], *[["ok"]] * 4]
    cluster.heal()
    cluster.run(1.0)
    assert [cluster.outcomes(request) for request in requests] == [["ok"]] * 5


def test_fail_is_said_only_of_what_is_never_applied() -> None:
    cluster = RaftCluster(3)
    cluster.partition(["n1"], ["n2"], ["n3"])
    refused = cluster.ask("n1", "write", "x", 1)
    cluster.run(5.0)
    assert cluster.outcomes(refused) == ["fail"]
    cluster.heal()
    cluster.run(5.0)
    # A late copy of it must not make a lie of the answer.
    cluster.step("n1", refused)
    cluster.run(1.0)
    assert cluster.outcomes(refused) == ["fail", "fail"]
    assert cluster.value("n1", "x") is None

    (leader,) = cluster.leaders
    follower = next(n for n in cluster.ids if n != leader)
    cluster.partition([leader], [n for n in cluster.ids if n != leader])
    cluster.nodes[leader].timers.clear()
    handed = cluster.ask(follower, "write", "x", 2)
    cluster.nodes[follower].timers = {"requests": cluster.now_s}
    cluster.nodes[next(n for n in cluster.ids if n not in (leader, follower))].timers.clear()
    cluster.run(5.0)
    assert cluster.outcomes(handed) == ["info"]


def test_answers_are_forgotten_when_the_client_has_them() -> None:
    cluster = led(3)
    for i in range(50):
        cluster.ask("n2", "write", "x", i, client="tidy", sequence=i, acked=max(0, i - 3))
        cluster.settle()
    assert sorted(cluster["n1"]._map._sessions["tidy"].replies) == [46, 47, 48, 49]
    late = cluster.ask("n1", "write", "x", 0, client="tidy", sequence=0, acked=0)
    cluster.settle()
    assert "info" in cluster.outcomes(late)
    assert cluster.value("n1", "x") == 49
    # A client that jumps far ahead costs no loop over all the sequences between.
    cluster.ask("n1", "write", "x", 1, client="tidy", sequence=10**15, acked=10**15)
    cluster.settle()
    assert sorted(cluster["n1"]._map._sessions["tidy"].replies) == [10**15]


def test_answers_to_a_client_that_never_acknowledges_are_bounded() -> None:
    cluster = led(3)
    requests = [Request("endless", i, write_operation(i)) for i in range(2500)]
    cluster.step("n1", *requests)
    cluster.settle()
    cluster.beat("n1")
    for node in cluster.ids:
        session = cluster[node]._map._sessions["endless"]
        assert len(session.replies) <= 2048
        assert session.acked == min(session.replies)


def test_silent_clients_are_forgotten_alike_on_every_node() -> None:
    """Whatever batches they apply in, and with or without a snapshot on the way."""
    cluster = led(3, client_entries=5, snapshot_entries=8, snapshot_tail=2)
    cluster.cut = {("n1", "n3")}
    for i in range(60):
        cluster.ask("n1", "write", "x", i, client=f"c{i * i % 11}", sequence=i)
        if i % 7 == 0:
            cluster.settle()
    cluster.settle()
    cluster.cut = set()
    for _ in range(10):
        cluster.beat("n1")
        cluster.run(1.0)
    snapshots = [cluster[n]._take_snapshot() for n in cluster.ids]
    assert snapshots[0] == snapshots[1] == snapshots[2]
    assert 0 < len(snapshots[0].sessions) <= 5


# --- snapshots ---


def in_one_chunk(term: int, snapshot: Snapshot) -> InstallSnapshot:
    data = msgspec.msgpack.encode(snapshot)
    return InstallSnapshot(term, 0, snapshot.index, 0, data, True)


def behind(entries: int = 40, **options: Any) -> RaftCluster:
    """Three nodes whose third was away while the log was compacted."""
    cluster = led(3, snapshot_entries=10, snapshot_tail=2, **options)
    cluster.crash("n3")
    for i in range(entries):
        cluster.ask("n1", "write", f"k{i % 5}", i)
        cluster.settle()
    assert cluster["n1"].disk.first_index > 10
    cluster.restart("n3")
    return cluster


def test_a_node_that_is_far_behind_gets_a_snapshot() -> None:
    cluster = behind()
    request = cluster.ask("n3", "write", "late", 1)
    cluster.run(1.0)
    assert cluster["n3"].state() == cluster["n1"].state()
    assert cluster["n3"].disk.first_index > 10
    cluster.run(1.0)
    assert cluster.outcomes(request) == ["ok"]
    for node in cluster.ids:
        cluster.crash(node)
    for node in cluster.ids:
        cluster.restart(node)
    cluster.run(4.0)
    assert cluster.value("n3", "late") == 1
    assert len({str(cluster[n].state()) for n in cluster.ids}) == 1


def test_a_lost_snapshot_is_sent_again() -> None:
    cluster = behind()
    cluster.fire("n1", "heartbeat")
    while not cluster.find(kind=InstallSnapshot):
        cluster.deliver()
    cluster.drop(kind=InstallSnapshot)
    cluster.run(2 * cluster.parameters.election_timeout_max_s + 0.5)
    assert cluster["n3"].state() == cluster["n1"].state()


def test_a_node_that_is_a_little_behind_needs_no_snapshot() -> None:
    cluster = led(3, snapshot_entries=10, snapshot_tail=8)
    cluster.cut = {("n1", "n3")}
    seen = 0
    for i in range(80):
        cluster.ask("n1", "write", "x", i)
        cluster.settle()
        if i % 6 == 5:
            cluster.cut = set()
            cluster.fire("n1", "heartbeat")
            while cluster.network:
                seen += len(cluster.find(kind=InstallSnapshot))
                cluster.deliver()
            cluster.cut = {("n1", "n3")}
    assert cluster["n1"].disk.first_index > 50
    assert seen == 0


def test_a_snapshot_replaces_a_log_that_disagrees() -> None:
    """Also if the node crashes after any of the writes that this takes."""
    for surviving in range(5):
        cluster = led(3, snapshot_entries=10, snapshot_tail=2)
        cluster.partition(["n1"], ["n2", "n3"])
        for i in range(30):
            cluster.ask("n1", "write", "lost", i)
        cluster.drop()
        cluster.crash("n1")  # or it would hand them to the new leader
        cluster.restart("n1")
        cluster.elect("n2", voters=["n3"])
        cluster.settle()
        for i in range(15):
            cluster.ask("n2", "write", "kept", i)
            cluster.settle()
        cluster.beat("n2")
        cluster.cut = set()
        cluster.autosync = False
        # The snapshot that was lost is sent again.
        while not any(p.msg.data for p in cluster.find(dst="n1", kind=InstallSnapshot)):
            if not cluster.deliver():
                cluster.fire("n2", "heartbeat")
            for node in cluster.ids:
                cluster.sync(node)
        cluster.deliver(dst="n1", kind=InstallSnapshot)
        assert cluster["n1"].disk.last_index == cluster["n1"].disk.snapshot_index
        cluster.crash("n1", surviving=surviving)
        cluster.heal()
        cluster.run(6.0)
        assert len({str(cluster[n].state()) for n in cluster.ids}) == 1
        assert cluster.value("n1", "kept") == 14
        assert cluster.value("n1", "lost") is None


def test_a_refusal_of_what_was_compacted_meanwhile_is_answered_with_a_snapshot() -> None:
    cluster = RaftCluster(3, snapshot_entries=3, snapshot_tail=0)
    cluster.craft("n1", [1, 1, 1, 1, 3, 3, 3, 3], 3)
    cluster.craft("n2", [1, 1, 1, 1, 3, 3, 3, 3], 3)
    cluster.craft("n3", [1, 1, 1, 1, 2, 2, 2, 2], 3)
    cluster.elect("n1", voters=["n2"])
    cluster.deliver(src="n1", dst="n3", kind=AppendEntries)
    (refusal,) = cluster.find(src="n3", dst="n1", kind=AppendEntriesReply)
    assert (refusal.msg.index, refusal.msg.conflict_term) == (8, 2)
    cluster.deliver(src="n1", dst="n2", kind=AppendEntries)
    acks = [p.msg for p in cluster.find(src="n2", dst="n1", kind=AppendEntriesReply)]
    cluster.autosync = False
    cluster.step("n1", Message("n2", next(ack for ack in acks if ack.index == 9)))
    assert cluster["n1"].disk.snapshot_index == 9
    cluster.step("n1", Message("n3", refusal.msg))
    cluster.autosync = True
    cluster.sync("n1")
    cluster.settle()
    cluster.beat("n1")
    assert cluster.commits() == [9, 9, 9]
    assert cluster["n3"].state() == cluster["n1"].state()


def test_a_snapshot_answers_what_was_waiting_for_its_entries() -> None:
    cluster = led(3, snapshot_entries=5, snapshot_tail=0)
    request = cluster.ask("n3", "write", "x", 1)
    cluster.deliver(kind=Forward)
    cluster.cut = {("n1", "n3")}
    cluster.settle()
    for i in range(10):
        cluster.ask("n1", "write", "y", i)
        cluster.settle()
    assert cluster.answers(request) == []
    cluster.step("n3", Message("n1", in_one_chunk(1, cluster["n1"].disk.snapshot)))
    assert [(r.outcome, r.version) for r in cluster.answers(request)] == [("ok", 2)]


def test_an_old_snapshot_changes_nothing() -> None:
    cluster = behind()
    cluster.fire("n1", "heartbeat")
    while not cluster.find(kind=InstallSnapshot):
        cluster.deliver()
    (old,) = cluster.find(kind=InstallSnapshot)
    cluster.run(1.0)
    for i in range(30):
        cluster.ask("n1", "write", "x", i)
        cluster.settle()
    cluster.beat("n1")
    before = cluster["n3"].probe()
    cluster.receive(old)
    assert cluster["n3"].probe() == before
    assert cluster.value("n3", "x") == 29


# --- administration ---


def change(cluster: RaftCluster, at: str, what: Any, node: str) -> None:
    cluster.step(at, Message(at, ChangeMembership(what, node)))
    cluster.settle()
    for leader in cluster.leaders[:1]:
        cluster.beat(leader)


def test_members_are_removed_and_added_one_at_a_time() -> None:
    cluster = led(5)
    change(cluster, "n2", "remove", "n5")
    change(cluster, "n1", "remove", "n4")
    assert [cluster[n].members for n in ("n1", "n2", "n3")] == [("n1", "n2", "n3")] * 3
    # Two of three are a majority now.
    for node in ("n3", "n4", "n5"):
        cluster.crash(node)
    write = cluster.ask("n1", "write", "x", 1)
    cluster.settle()
    assert cluster.outcomes(write) == ["ok"]
    cluster.restart("n4")
    change(cluster, "n2", "add", "n4")
    cluster.run(1.0)
    assert cluster["n1"].members == cluster["n4"].members == ("n1", "n2", "n3", "n4")
    assert cluster.value("n4", "x") == 1
    # And two of four are none.
    cluster.crash("n4")
    write = cluster.ask("n1", "write", "x", 2)
    cluster.run(1.0)
    assert cluster.answers(write) == []


def test_a_node_that_does_not_catch_up_does_not_become_a_member() -> None:
    cluster = led(4)
    change(cluster, "n1", "remove", "n4")
    cluster.crash("n4")
    change(cluster, "n1", "add", "n4")
    assert cluster["n1"].members == ("n1", "n2", "n3")
    cluster.run(2 * cluster.parameters.election_timeout_max_s + 0.1)
    # It is given up, so that another change can be made.
    change(cluster, "n1", "remove", "n3")
    assert cluster["n1"].members == ("n1", "n2")


def test_a_change_waits_for_the_one_before() -> None:
    cluster = led(5)
    for node in ("n5", "n4"):
        cluster.step("n1", Message("n1", ChangeMembership("remove", node)))
    cluster.settle()
    assert cluster["n1"].members == ("n1", "n2", "n3", "n4")


def test_a_change_waits_for_an_entry_of_the_leaders_term() -> None:
    cluster = RaftCluster(3)
    cluster.elect("n1")
    assert cluster["n1"].role == "leader"
    cluster.step("n1", Message("n1", ChangeMembership("remove", "n3")))
    assert cluster["n1"].members == cluster.ids


def test_a_change_that_is_not_committed_is_undone_with_its_entry() -> None:
    cluster = led(5)
    cluster.partition(["n1"], ["n2", "n3", "n4", "n5"])
    change(cluster, "n1", "remove", "n5")
    assert cluster["n1"].members == ("n1", "n2", "n3", "n4")
    assert cluster["n1"].probe()["members"] == "n1,n2,n3,n4 (not committed)"
    cluster.elect("n2", voters=["n3", "n4"])
    cluster.settle()
    cluster.heal()
    cluster.run(2.0)
    assert cluster["n1"].members == cluster.ids
    assert cluster["n1"].probe()["members"] == "n1,n2,n3,n4,n5"


def test_membership_survives_restarts_and_snapshots() -> None:
    for snapshot_entries in (3, 1000):
        cluster = led(4, snapshot_entries=snapshot_entries, snapshot_tail=1)
        change(cluster, "n1", "remove", "n4")
        for i in range(10):
            cluster.ask("n1", "write", "x", i)
            cluster.settle()
        cluster.beat("n1")
        for node in cluster.ids:
            cluster.crash(node)
        for node in ("n1", "n2"):
            cluster.restart(node)
        assert cluster["n1"].members == ("n1", "n2", "n3")
        cluster.run(5.0)
        assert len(cluster.leaders) == 1


def test_a_leader_that_is_removed_hands_over() -> None:
    cluster = led(3)
    change(cluster, "n1", "remove", "n1")
    assert cluster["n1"].role == "follower"
    cluster.run(5.0)
    (leader,) = cluster.leaders
    assert leader in ("n2", "n3")
    write = cluster.ask(leader, "write", "x", 1)
    cluster.settle()
    assert cluster.outcomes(write) == ["ok"]


@pytest.mark.parametrize("removed", ["n1", "n2"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_removal_that_only_its_leader_knows_of_stops_no_majority(
    count: int, removed: str
) -> None:
    cluster = led(count)
    # As many are down as a majority can do without.
    up = cluster.ids[: count // 2 + 1]
    for node in cluster.ids[len(up) :]:
        cluster.crash(node)
    cluster.step("n1", Message("n1", ChangeMembership("remove", removed)))
    cluster.drop(src="n1")
    for node in up:
        cluster.crash(node)
        cluster.restart(node)
    cluster.run(10.0)
    assert cluster.leaders
    write = cluster.ask(cluster.leaders[0], "write", "x", 1)
    cluster.run(2.0)
    assert "ok" in cluster.outcomes(write)


def test_the_next_change_waits_until_the_last_one_is_confirmed() -> None:
    cluster = led(5)
    cluster.step("n1", Message("n1", ChangeMembership("remove", "n5")))
    for follower in ("n2", "n3"):
        cluster.append_to("n1", follower)
    assert cluster["n1"].commit == 2
    assert cluster.log("n1") == "1 1:[n1,n2,n3,n4] 1:[n1,n2,n3,n4]"
    assert cluster["n1"].probe()["members"] == "n1,n2,n3,n4 (not committed)"
    cluster.step("n1", Message("n1", ChangeMembership("remove", "n4")))
    assert cluster["n1"].members == ("n1", "n2", "n3", "n4")
    # The confirmation takes three of the four.
    cluster.append_to("n1", "n2")
    assert cluster["n1"].commit == 2
    cluster.append_to("n1", "n3")
    assert cluster["n1"].commit == 3
    cluster.step("n1", Message("n1", ChangeMembership("remove", "n4")))
    assert cluster["n1"].members == ("n1", "n2", "n3")


def test_no_snapshot_is_taken_between_a_change_and_its_confirmation() -> None:
    cluster = led(5, snapshot_entries=2, snapshot_tail=0)
    cluster.step("n1", Message("n1", ChangeMembership("remove", "n5")))
    for follower in ("n2", "n3"):
        cluster.append_to("n1", follower)
    assert cluster["n1"].applied == 2
    assert cluster["n1"].disk.snapshot_index < 2
    cluster.settle()
    cluster.beat("n1")
    assert cluster["n1"].disk.snapshot_index == 3
    assert cluster["n1"].disk.snapshot.members == ("n1", "n2", "n3", "n4")


def test_leadership_is_transferred_without_losing_a_request() -> None:
    cluster = led(3)
    cluster.step("n2", Message("n2", TransferLeadership("n3")))
    requests = []
    for i in range(10):
        requests.append(cluster.ask(cluster.ids[i % 3], "write", "x", i))
        cluster.deliver()
    cluster.run(1.0)
    assert cluster.leaders == ["n3"]
    assert cluster["n3"].term == 2
    assert [cluster.outcomes(request) for request in requests] == [["ok"]] * 10


def test_a_target_that_lags_behind_first_catches_up() -> None:
    cluster = led(3)
    cluster.ask("n1", "write", "x", 1)
    cluster.drop(dst="n3")
    cluster.settle()
    cluster.step("n1", Message("n1", TransferLeadership("n3")))
    assert cluster.find(kind=TimeoutNow) == []
    cluster.beat("n1")
    cluster.settle()
    assert cluster.leaders[0] == "n3"
    assert "1:x=1" in cluster.log("n3")


def test_a_transfer_to_a_dead_node_is_given_up() -> None:
    cluster = led(3)
    cluster.crash("n3")
    cluster.step("n1", Message("n1", TransferLeadership("n3")))
    request = cluster.ask("n2", "write", "x", 1)
    cluster.run(2.5)
    assert cluster.leaders == ["n1"]
    assert cluster.outcomes(request) == ["ok"]


# --- parameters ---


@pytest.mark.parametrize(
    "wrong",
    [
        {"heartbeat_s": 0.0},
        {"heartbeat_s": float("nan")},
        {"heartbeat_s": 0.5},
        {"election_timeout_min_s": 1.6},
        {"retry_s": 4.0},
        {"batch_entries": 0},
        {"snapshot_tail": -1},
        {"snapshot_chunk_bytes": 0},
        {"snapshot_chunk_bytes": 3 << 20},
        {"client_entries": 0},
        {"unknown": 1},
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(registry.InvalidConfiguration, match=next(iter(wrong))):
        registry.get("raft").configure("n1", ("n1", "n2", "n3"), wrong)


def test_the_defaults_are_valid() -> None:
    config = registry.get("raft").configure("n1", ("n1", "n2", "n3"))
    assert config.parameters == RaftParameters()


def test_a_pre_vote_is_no_promise() -> None:
    cluster = RaftCluster(3)
    cluster.run(0.0)
    for node in ("n1", "n2"):
        cluster.fire(node, "election")
        cluster.now_s += 2.0
    cluster.fire("n1", "election")
    cluster.fire("n2", "election")
    assert cluster.find(kind=PreVote)
    cluster.deliver(kind=PreVote)
    assert [cluster[n].term for n in cluster.ids] == [0, 0, 0]
    assert [cluster[n].vote for n in cluster.ids] == [None, None, None]
