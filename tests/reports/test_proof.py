"""A fault that did nothing shows nothing: its run is unknown, whatever the checkers found."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.record.run_folder import FaultRecord, NodeRecord, RunFolder
from reports.data.compare import first_screen
from reports.data.metrics import RunTables, load
from reports.formats.render import write_report
from tests.reports import synthetic

APPLIED_S, HEALED_S = 6.01, 14.02
NODES = synthetic.NODES


def with_fault(path: Path, **fields: object) -> RunFolder:
    """A raft partition whose fault was another."""
    folder = synthetic.leader_partition(path / "run", "raft")
    (fault,) = folder.faults()
    folder.append_fault(msgspec.structs.replace(fault, **fields))
    return folder


def tell(folder: RunFolder, node: str, at_s: float, **counters: int) -> None:
    folder.append_node(
        NodeRecord(t_ns=synthetic.ns(at_s), node=node, kind="status", counters=counters)
    )


def event(folder: RunFolder, node: str, at_s: float, name: str) -> None:
    folder.append_node(NodeRecord(t_ns=synthetic.ns(at_s), node=node, kind="event", name=name))


def took_place(run: RunTables) -> bool | None:
    (proof,) = run.proofs
    return proof.took_place


@pytest.mark.parametrize(
    ("fault", "counter"),
    [
        ("partition", "messages_cut"),
        ("message-loss", "messages_lost"),
        ("duplication", "messages_duplicated"),
    ],
)
def test_what_nodes_counted_shows_it_or_denies_it(tmp_path: Path, fault: str, counter: str) -> None:
    folder = with_fault(tmp_path, fault=fault)
    assert took_place(load(folder.path)) is None
    # Before and after it, not while it was on.
    for at_s, count in ((1.5, 0), (5.5, 7), (14.5, 7), (17.5, 9)):
        tell(folder, "n1", at_s, messages_sent=round(100 * at_s), **{counter: count})
    run = load(folder.path)
    assert took_place(run) is False
    assert run.summary.verdict == "unknown"
    assert "0 of 900 that were sent" in run.summary.reason
    for at_s, count in ((5.5, 1), (14.5, 3)):
        tell(folder, "n2", at_s, messages_sent=0, **{counter: count})
    run = load(folder.path)
    assert took_place(run) is True
    assert run.summary.verdict == "valid"


@pytest.mark.parametrize(
    ("fault", "passed", "seen"),
    [
        ("partition", 3, True),
        ("partition", 90, False),
        ("flapping", 80, True),
        ("flapping", 100, None),
    ],
)
def test_a_cut_shows_in_what_both_ends_of_a_live_link_tell(
    tmp_path: Path, fault: str, passed: int, seen: bool | None
) -> None:
    folder = with_fault(tmp_path, fault=fault, links=[("n1", "n2")])
    # What is heard at 6.2 s was under way when the cut began.
    for at_s, sent, heard in ((5.5, 50, 50), (6.2, 60, 60), (7, 70, 60), (13, 170, 60 + passed)):
        for node, left, came in (("n1", {"n2": sent}, {}), ("n2", {}, {"n1": heard})):
            record = NodeRecord(t_ns=synthetic.ns(at_s), node=node, kind="status")
            record.sent, record.heard = left, came
            folder.append_node(record)
    (proof,) = load(folder.path).proofs
    assert proof.took_place is seen
    if seen is not False:
        assert f"of 100 messages sent on the links that were cut, {passed} passed" in proof.seen


def test_a_crash_shows_in_events_and_only_the_simulator_records_them_all(tmp_path: Path) -> None:
    folder = with_fault(tmp_path, fault="crash", groups=None, nodes=["n2"], links=[])
    assert took_place(load(folder.path)) is None, "live, nobody promises that"
    manifest = folder.manifest()
    manifest.simulated = True
    folder.write_manifest(manifest)
    event(folder, "n2", 3.0, "killed")
    event(folder, "n3", 8.0, "killed")
    assert took_place(load(folder.path)) is False, "of that node, at that time"
    event(folder, "n2", APPLIED_S, "killed")
    event(folder, "n2", HEALED_S, "restarted")
    run = load(folder.path)
    assert took_place(run) is True
    assert run.proofs[0].seen == "n2 killed at 6.0 s; n2 restarted at 14.0 s"
    for count in range(10):
        event(folder, "n2", 7.0 + count / 10, "killed")
    seen = load(folder.path).proofs[0].seen
    assert seen.endswith("n2 killed at 7.4 s; and 6 more such events"), seen


def test_lost_requests_show_in_the_operations(tmp_path: Path) -> None:
    hit = with_fault(tmp_path / "hit", fault="requests-lost", groups=None, nodes=["n1"])
    assert took_place(load(hit.path)) is True
    missed = with_fault(tmp_path / "missed", fault="requests-lost", groups=None, nodes=["n2"])
    run = load(missed.path)
    assert took_place(run) is False
    assert run.summary.verdict == "unknown"


def test_a_fault_that_was_never_applied_makes_the_cell_unknown_everywhere(tmp_path: Path) -> None:
    folder = with_fault(
        tmp_path, applied_ns=None, heal_started_ns=None, healed_ns=None, error="no such link"
    )
    run = load(folder.path)
    reason = "fault 0 (partition): it was never applied: no such link"
    assert run.summary.verdict == "unknown"
    assert reason in run.summary.reason
    page = write_report([folder.path], tmp_path / "report.html").read_text()
    assert '<a class="spot unknown"' in page
    assert "✔" not in page
    assert reason in page
    assert "unknown *" in first_screen([run.summary])


def test_what_nothing_can_show_changes_nothing(tmp_path: Path) -> None:
    folder = with_fault(tmp_path, fault="latency", groups=None)
    run = load(folder.path)
    assert took_place(run) is None
    assert run.summary.verdict == "valid"


def test_a_refuted_claim_stays_refuted(tmp_path: Path) -> None:
    folder = with_fault(tmp_path, applied_ns=None)
    verdict = folder.verdict()
    assert verdict is not None
    verdict.verdict, verdict.reason = "invalid", "a lost write"
    folder.write_verdict(verdict)
    summary = load(folder.path).summary
    assert (summary.verdict, summary.reason) == ("invalid", "a lost write")


def test_the_last_record_of_a_fault_counts(tmp_path: Path) -> None:
    record = FaultRecord(number=0, fault="latency", planned_ns=synthetic.ns(6))
    folder = synthetic.healthy(tmp_path / "run", "raft")
    folder.append_fault(record)
    assert took_place(load(folder.path)) is False
    folder.append_fault(msgspec.structs.replace(record, applied_ns=synthetic.ns(6)))
    assert took_place(load(folder.path)) is None


def test_slow_links_show_in_how_long_operations_took(tmp_path: Path) -> None:
    """Of a protocol that waits for other nodes; of one that does not, nothing is denied."""
    (slow,) = load(synthetic.latency(tmp_path / "raft", "raft").path).proofs
    assert slow.took_place is True
    assert "the median operation took 1" in slow.seen
    gossip = load(synthetic.latency(tmp_path / "gossip", "gossip").path)
    (alone,) = gossip.proofs
    assert alone.took_place is None
    assert gossip.summary.verdict == "valid"


def test_what_slowed_operations_is_not_told_while_two_faults_are_on(tmp_path: Path) -> None:
    folder = synthetic.latency(tmp_path / "run", "raft")
    (fault,) = folder.faults()
    folder.append_fault(msgspec.structs.replace(fault, number=1, fault="slow-fsync"))
    assert [proof.took_place for proof in load(folder.path).proofs] == [None, None]


def test_messages_on_slow_links_are_counted_with_their_delay(tmp_path: Path) -> None:
    """Of gossip, which answers without waiting for other nodes."""
    folder = synthetic.latency(tmp_path / "run", "gossip", simulated=True)
    for at_s, count in ((5.0, 10), (15.0, 1010)):
        counters = {"messages_slowed": count, "slowed_us": count * 51_200}
        folder.append_node(
            NodeRecord(t_ns=synthetic.ns(at_s), node="n1", kind="status", counters=counters)
        )
    (proof,) = load(folder.path).proofs
    assert proof.took_place is True
    assert proof.seen == "1000 messages on slower links, which took 51.2 ms on average"
