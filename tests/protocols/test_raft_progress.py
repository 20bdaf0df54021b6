"""How a leader's view of a follower goes from Probe to Replicate, and over Snapshot."""

from __future__ import annotations

from nodes.contract.replica import Message
from nodes.protocols.raft import AppendEntriesReply, Outgoing, Progress, State
from tests.protocols.raft_cluster import RaftCluster


def test_a_follower_is_probed_until_it_says_where_the_logs_meet() -> None:
    progress = Progress(8)
    assert (progress.state, progress.next, progress.match) == (State.PROBE, 8, 0)
    progress.probed = True
    progress.become_probe(5)
    assert (progress.state, progress.next, progress.probed) == (State.PROBE, 5, False)
    assert progress.acknowledge(4)
    assert (progress.state, progress.next, progress.match) == (State.REPLICATE, 5, 4)


def test_what_was_sent_ahead_stays_sent_when_older_entries_are_acknowledged() -> None:
    progress = Progress(1)
    progress.acknowledge(0)
    progress.next = 10
    assert progress.acknowledge(6)
    assert not progress.acknowledge(3)
    assert (progress.state, progress.next, progress.match) == (State.REPLICATE, 10, 6)
    progress.acknowledge(12)
    assert progress.next == 13


def test_a_snapshot_is_done_when_its_last_entry_is_acknowledged() -> None:
    progress = Progress(3)
    progress.become_snapshot(Outgoing(20, b"data"))
    progress.acknowledge(19)
    assert (progress.state, progress.match) == (State.SNAPSHOT, 19)
    progress.acknowledge(20)
    assert (progress.state, progress.snapshot, progress.next) == (State.REPLICATE, None, 21)


def test_a_refusal_that_comes_late_does_not_move_the_search_on() -> None:
    cluster = RaftCluster(3)
    cluster.craft("n1", [1] * 20, term=1)
    cluster.lead("n1")
    leader = cluster["n1"]
    progress = leader._progress["n2"]
    refused = leader.disk.last_index
    # The logs meet at 5. Then a copy of an older refusal comes, of a place far behind that.
    progress.match = 0
    progress.become_probe(6)
    progress.acknowledge(5)
    late = AppendEntriesReply(leader.term, 0, False, refused, conflict_term=1, conflict_index=2)
    cluster.step("n1", Message("n2", late))
    assert progress.next == 6
