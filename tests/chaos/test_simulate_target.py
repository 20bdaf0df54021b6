"""The simulated target: the experiments of the local one, under virtual time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.load.workload import plan
from bench.record.history import OperationRecord
from bench.record.run_folder import RunFolder
from chaos.experiments.experiment import Experiment, load, validate
from chaos.targets.run import Run
from chaos.targets.runner import RunResult, run_experiment
from chaos.targets.simulator import CLIENT, SimulatedCluster
from chaos.targets.table import refuse_unsupported
from nodes import registry
from nodes.contract.replica import Operation, Reply, Request
from nodes.errors import Unsupported
from nodes.faults.base import Fault, Resolved
from nodes.faults.capabilities import DamagesLogs
from nodes.faults.nodes import (
    BrokerDisconnect,
    Clock,
    CrashPointFault,
    Duplicate,
    FailingFsync,
    Loss,
    NoSpace,
    Reorder,
    SlowDisk,
)
from nodes.protocols.raft import Raft
from nodes.wire.links import GROUP
from reports.charts.anomaly import read_messages
from reports.data.metrics import summarise
from reports.data.summary import witness_of
from reports.formats.render import write_report
from tests.chaos.test_simulate import capbench

EXPERIMENT: dict[str, Any] = {
    "title": "Short",
    "shows": "What a test needs.",
    "protocols": ["raft"],
    "nodes": 5,
    "seed": 7,
    "workload": {
        "arrival": {"open_loop": "200/s"},
        "keys": {"count": 10},
        "mix": {"read": 50, "write": 40, "cas": 10},
        "timeout": "500ms",
    },
    "duration": "4s",
}


class Quiet:
    def phase(self, text: str) -> None:
        pass

    def tick(self, done: float, total: float) -> None:
        pass


def experiment(*schedule: dict[str, Any], **changes: Any) -> Experiment:
    data = {**EXPERIMENT, **changes, "schedule": list(schedule)}
    return validate(data, source="test", name="short")


def simulated(
    path: Path, wanted: Experiment, protocol: str = "raft", seed: int = 7
) -> tuple[RunResult, RunFolder]:
    result = run_experiment(
        wanted,
        registry.get(protocol),
        folder_path=path,
        seed=seed,
        progress=Quiet(),
        target="sim",
    )
    return result, RunFolder(path)


def during(folder: RunFolder, number: int = 0) -> list[OperationRecord]:
    """What was wanted while a fault was on."""
    fault = folder.faults()[number]
    assert fault.applied_ns is not None
    assert fault.healed_ns is not None
    return [
        record
        for record in folder.operations()
        if record.intended_ns is not None
        and fault.applied_ns <= record.intended_ns < fault.healed_ns
    ]


# --- the same experiment ---


def test_a_run_looks_like_any_other_run_and_is_marked_as_simulated(tmp_path: Path) -> None:
    wanted = experiment({"at": "1s", "for": "1500ms", "fault": "partition", "groups": "halves"})
    result, folder = simulated(tmp_path / "run", wanted)
    assert result.failure is None
    assert result.verdict is not None
    assert result.verdict.verdict == "valid"
    assert result.verdict.converged is True
    manifest = folder.manifest()
    assert (manifest.target, manifest.simulated, manifest.complete) == ("sim", True, True)
    assert {record.kind for record in folder.node_records()} == {"status", "event"}
    assert {record.node for record in folder.node_records()} == set(wanted.node_ids())
    finals = [r for r in folder.operations() if r.process.startswith("final")]
    assert len(finals) == 5 * 10
    assert {r.outcome for r in finals} == {"ok"}
    (summary,) = [load for load in folder.loads() if load.client == CLIENT]
    assert summary.intended == summary.invoked == len(folder.operations()) - len(finals)

    assert summarise(folder).simulated is True
    page = tmp_path / "report.html"
    write_report([folder.path], page)
    assert "All rates are simulated." in page.read_text()


def test_the_workload_is_the_plan_of_the_local_target(tmp_path: Path) -> None:
    wanted = experiment()
    _, folder = simulated(tmp_path / "run", wanted, seed=11)
    start_ns = folder.manifest().load_started_ns
    assert start_ns is not None
    records = [r for r in folder.operations() if not r.process.startswith("final")]
    told = {
        r.id: (r.op, r.key, r.node, None if r.op == "read" else r.value, r.intended_ns)
        for r in records
    }
    planned = {}
    for p in plan(wanted.workload(seed=11), wanted.node_ids()):
        assert p.intended_ns is not None
        planned[p.id] = (p.op, p.key, p.node, p.value, start_ns + p.intended_ns)
    assert told == planned
    assert all(r.process.startswith("load-1.p") for r in records)


def test_the_same_seed_gives_the_same_bytes_in_other_processes(tmp_path: Path) -> None:
    arguments = ("run", "leader-partition", "-p", "raft", "--target", "sim", "--json")
    folders = []
    for hash_seed, out in ((1, "one"), (2, "two")):
        code, said, err = capbench(*arguments, "--out", out, cwd=tmp_path, hash_seed=hash_seed)
        assert code == 0, err
        (summary,) = msgspec.json.decode(said)["runs"]
        assert (summary["simulated"], summary["verdict"]) == (True, "valid")
        folders.append(tmp_path / summary["folder"])
    one, two = folders
    names = [f"history/{CLIENT}.jsonl", "history/final.jsonl", "faults.jsonl", "workload.json"]
    names += [f"load/{CLIENT}.json", *(f"nodes/n{n}.jsonl" for n in range(1, 6))]
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes() != b"", name


def test_another_seed_gives_another_history(tmp_path: Path) -> None:
    histories = []
    for seed in (1, 2):
        _, folder = simulated(tmp_path / str(seed), experiment(), seed=seed)
        histories.append((folder.history_dir / f"{CLIENT}.jsonl").read_bytes())
    assert histories[0] != histories[1]


# --- faults ---


def test_a_leader_that_is_cut_off_serves_nobody_and_the_others_elect_another(
    tmp_path: Path,
) -> None:
    wanted = experiment({"at": "1s", "for": "2s", "fault": "partition", "groups": "leader-alone"})
    result, folder = simulated(tmp_path / "run", wanted)
    (fault,) = folder.faults()
    start_ns = folder.manifest().load_started_ns
    assert start_ns is not None
    assert fault.started_ns == fault.applied_ns == fault.planned_ns == start_ns + 1_000_000_000
    assert fault.healed_ns == fault.planned_heal_ns == start_ns + 3_000_000_000
    assert fault.groups is not None
    (alone,), others = fault.groups
    leaders = [r for r in folder.node_records() if r.name == "become_leader"]
    assert [r.node for r in leaders if r.t_ns < fault.started_ns][-1] == alone
    assert next(r.node for r in leaders if r.t_ns > fault.started_ns) in others
    # Elected by then, and with no answer before the heal.
    late = [
        record
        for record in during(folder)
        if fault.started_ns + 900_000_000 < record.invoked_ns < fault.healed_ns - 500_000_000
    ]
    assert {r.outcome for r in late if r.node == alone} == {"info"}
    assert {r.outcome for r in late if r.node in others} == {"ok"}
    assert result.verdict is not None
    assert result.verdict.measured_model == "linearizable"


def test_clients_that_ask_the_leader_go_with_it_to_the_next(tmp_path: Path) -> None:
    asked = {**EXPERIMENT["workload"], "ask": "leader"}
    crash = {"at": "1s", "for": "2s", "fault": "crash", "nodes": "leader"}
    _, folder = simulated(tmp_path / "run", experiment(crash, workload=asked))
    (fault,) = folder.faults()
    assert fault.started_ns is not None
    (old,) = fault.nodes
    records = [r for r in folder.operations() if not r.process.startswith("final")]
    before = [r.node for r in records if r.invoked_ns < fault.started_ns]
    # The first go to all in turn, until one is answered.
    assert set(before[20:]) == {old}
    (new,) = {r.node for r in records if r.invoked_ns > fault.started_ns + 1_500_000_000}
    assert new != old
    (load,) = [load for load in folder.loads() if load.client == CLIENT]
    assert 0.5 * len(records) < load.asked_leader < len(records)
    told = folder.manifest().experiment["workload"]
    assert told["ask"] == "leader"


def test_gossip_answers_on_both_sides(tmp_path: Path) -> None:
    wanted = experiment(
        {"at": "1s", "for": "2s", "fault": "partition", "groups": "halves"},
        workload={**EXPERIMENT["workload"], "mix": {"read": 50, "write": 50}},
    )
    result, folder = simulated(tmp_path / "run", wanted, "gossip")
    assert {r.outcome for r in during(folder)} == {"ok"}
    assert result.verdict is not None
    assert result.verdict.verdict == "valid"
    assert result.verdict.measured_model != "linearizable"


def test_faults_choose_by_the_seed_as_at_the_local_target(tmp_path: Path) -> None:
    entry = {"at": "1s", "for": "1s", "fault": "partition", "groups": "halves"}
    sides = {}
    for seed in (1, 2, 3):
        _, folder = simulated(tmp_path / str(seed), experiment(entry), seed=seed)
        sides[seed] = folder.faults()[0].groups
    again, folder = simulated(tmp_path / "again", experiment(entry), "gossip", seed=2)
    assert folder.faults()[0].groups == sides[2], "whatever the protocol"
    assert len({str(groups) for groups in sides.values()}) > 1
    assert again.failure is None


def test_nodes_that_were_killed_come_back_with_what_was_acknowledged(tmp_path: Path) -> None:
    wanted = experiment({"at": "1s", "for": "1s", "fault": "crash", "nodes": "all"})
    result, folder = simulated(tmp_path / "run", wanted)
    names = [r.name for r in folder.node_records() if r.node == "n3"]
    assert names.index("killed") < names.index("restarted")
    assert {r.outcome for r in during(folder)} == {"info"}
    assert result.verdict is not None
    assert result.verdict.verdict == "valid"
    assert any(r.outcome == "ok" and r.op == "write" for r in folder.operations())


def test_latency_between_nodes_is_felt_while_it_lasts(tmp_path: Path) -> None:
    wanted = experiment({"at": "1s", "for": "2s", "fault": "latency", "latency_ms": 40})
    _, folder = simulated(tmp_path / "run", wanted)
    fault = folder.faults()[0]
    assert fault.started_ns is not None
    assert fault.healed_ns is not None

    def took_ms(records: Sequence[OperationRecord]) -> list[float]:
        return [(r.completed_ns - r.invoked_ns) / 1e6 for r in records if r.completed_ns]

    writes = [r for r in folder.operations() if r.op == "write"]
    before = [r for r in writes if (r.completed_ns or 0) < fault.started_ns]
    slow = [
        record
        for record in writes
        if record.invoked_ns >= fault.started_ns
        and fault.healed_ns > (record.completed_ns or fault.healed_ns)
    ]
    assert min(took_ms(slow)) > 79, "to another node and back"
    assert max(took_ms(before)) < 79


def test_between_two_partitions_back_to_back_there_is_no_moment_without_one(
    tmp_path: Path,
) -> None:
    wanted = experiment(
        {"at": "1s", "for": "1s", "fault": "partition", "groups": "isolate", "node": "n1"},
        {"at": "2s", "for": "1s", "fault": "partition", "groups": "isolate", "node": "n1"},
    )
    _, folder = simulated(tmp_path / "run", wanted)
    assert {r.outcome for r in [*during(folder, 0), *during(folder, 1)] if r.node == "n1"} <= {
        "info",
        "ok",
    }
    one, two = folder.faults()
    lines = folder.faults_path.read_text().splitlines()
    told = [msgspec.json.decode(line) for line in lines]
    assert [(t["number"], t["healed_ns"] is not None) for t in told] == [
        (0, False),
        (1, False),
        (0, True),
        (1, True),
    ]
    assert one.healed_ns == two.started_ns


def make_cluster(path: Path, wanted: Experiment, seed: int = 1) -> SimulatedCluster:
    protocol = registry.get("gossip")
    workload = wanted.workload()
    folder = RunFolder(path)
    folder.nodes_dir.mkdir(parents=True)
    return SimulatedCluster(Run(wanted, protocol, workload, folder, seed, {}, Quiet()))


def test_wall_clocks_are_right_unless_the_experiment_says_otherwise(tmp_path: Path) -> None:
    for seed in range(8):
        cluster = make_cluster(tmp_path / str(seed), experiment(), seed).cluster
        assert {host.clock.wall_error_s for host in cluster.hosts.values()} == {0.0}, seed


@pytest.mark.parametrize(("link", "is_applied"), [((GROUP, "n1"), False), (("n1", GROUP), True)])
def test_a_lost_request_is_not_applied_and_one_with_a_lost_reply_is(
    link: tuple[str, str], is_applied: bool, tmp_path: Path
) -> None:
    cluster = make_cluster(tmp_path, experiment())
    replies: list[Reply] = []
    cluster.connect("c", replies.append)

    def send(sequence: int) -> None:
        cluster.send("n1", Request("c", sequence, Operation("write", "k0", sequence)))

    def run() -> None:
        cluster.run_until(cluster.now_ns() + 100_000_000, lambda: False)

    send(0)
    cluster.links.cut([link])  # while it is under way
    run()
    assert replies == []
    assert ("k0" in cluster.cluster.states()["n1"]) is is_applied
    send(1)
    cluster.links.heal([link])
    send(2)
    run()
    # What was sent into the cut is lost, whenever the cut heals.
    lost = 1 if is_applied else 2
    assert [reply.sequence for reply in replies] == [1, 2][lost - 1 :]


class Simulated:
    """A simulated cluster of gossip, one client, and faults that begin and end by hand."""

    def __init__(self, path: Path) -> None:
        self.cluster = make_cluster(path, experiment())
        self.replies: list[Reply] = []
        self.cluster.connect("c", self.replies.append)
        self._sequence = 0
        self.run(2.0)

    def run(self, seconds: float) -> None:
        end_ns = self.cluster.now_ns() + int(seconds * 1e9)
        self.cluster.run_until(end_ns, lambda: False, slice_s=0.01)

    def begin(self, fault: Fault) -> Resolved:
        resolved = fault.resolve(self.cluster, random.Random(1))
        fault.apply(self.cluster, resolved)
        return resolved

    def write(self, value: Any, within_s: float = 0.3) -> bool:
        """Write at n1. Whether it was answered in time."""
        self._sequence += 1
        request = Request("c", self._sequence, Operation("write", "k0", value))
        self.cluster.send("n1", request)
        self.run(within_s)
        return any(reply.sequence == self._sequence for reply in self.replies)

    def holds(self) -> Any:
        """What n1 has under k0."""
        return self.cluster.cluster.states()["n1"]["k0"][0]

    def is_up(self) -> bool:
        return self.cluster.cluster.hosts["n1"].up


@pytest.fixture
def it(tmp_path: Path) -> Simulated:
    return Simulated(tmp_path)


def test_messages_meet_their_fate_on_their_link_only(it: Simulated) -> None:
    link, other = it.cluster.cluster.links["n1", "n2"], it.cluster.cluster.links["n1", "n3"]
    fault: Fault = Loss(share=1.0, links=("n1->n2",))
    resolved = it.begin(fault)
    it.run(10)
    assert link.lost == link.sent - link.delivered > 0
    assert other.lost == 0
    fault.undo(it.cluster, resolved)
    lost = link.lost
    it.run(10)
    assert link.lost == lost

    it.run(1)
    doubled = link.delivered + link.lost - link.sent
    fault = Duplicate(share=1.0, links=("n1->n2",))
    resolved = it.begin(fault)
    sent = link.sent
    it.run(10)
    fault.undo(it.cluster, resolved)
    meanwhile = link.sent - sent
    it.run(1)
    assert link.delivered + link.lost - link.sent - doubled == meanwhile > 0

    fault = Reorder(share=1.0, delay_ms=60_000, links=("n1->n2",))
    resolved = it.begin(fault)
    sent, delivered = link.sent, link.delivered
    it.run(5)
    assert link.delivered - delivered < link.sent - sent, "most are held back"
    fault.undo(it.cluster, resolved)
    it.run(61)
    assert link.delivered + link.lost - link.sent == doubled + meanwhile, "none is lost"


def test_clocks_go_wrong_and_the_wall_clock_comes_right(it: Simulated) -> None:
    wrong, right = (it.cluster.cluster.hosts[node].clock for node in ("n1", "n2"))
    fault = Clock(nodes=("n1",), offset_ms=-5000)
    resolved = it.begin(fault)
    assert wrong.wall() - right.wall() == pytest.approx(-5)
    fault.undo(it.cluster, resolved)
    assert wrong.wall() == right.wall()
    fault = Clock(nodes=("n1",), drift=0.5)
    before = wrong.now()
    resolved = it.begin(fault)
    it.run(4)
    assert wrong.now() - before == pytest.approx(6, abs=0.01)
    assert wrong.wall() - right.wall() == pytest.approx(2, abs=0.02)
    fault.undo(it.cluster, resolved)
    assert wrong.wall() == right.wall()
    before = wrong.now()
    fault.undo(it.cluster, it.begin(Clock(nodes=("n1",), jump_ms=3000)))
    assert wrong.now() - before == pytest.approx(3), "a jump of the monotonic clock stays"


def test_a_slow_disk_delays_the_answer(it: Simulated) -> None:
    assert it.write(1)
    fault = SlowDisk(nodes=("n1",), delay_ms=700)
    resolved = it.begin(fault)
    assert not it.write(2, within_s=0.6)
    fault.undo(it.cluster, resolved)
    it.run(0.7)  # what the disk was at is done
    assert it.write(3, within_s=0.3)


@pytest.mark.parametrize("fault", [NoSpace(nodes=("n1",)), FailingFsync(nodes=("n1",))])
def test_a_node_whose_disk_fails_stops_until_the_end(it: Simulated, fault: Fault) -> None:
    assert it.write("kept")
    resolved = it.begin(fault)
    assert not it.write("lost")
    assert not it.is_up()
    fault.undo(it.cluster, resolved)
    assert it.is_up()
    assert it.write("after")


@pytest.mark.parametrize(("point", "kept"), [("before-fsync", "old"), ("after-fsync", "new")])
def test_a_node_crashes_at_the_point_that_was_named(it: Simulated, point: Any, kept: str) -> None:
    assert it.write("old")
    fault = CrashPointFault(nodes=("n1",), point=point)
    resolved = it.begin(fault)
    assert it.is_up(), "nothing is written yet"
    assert not it.write("new")
    assert not it.is_up()
    fault.undo(it.cluster, resolved)
    assert it.holds() == (kept,)
    assert it.write("after"), "it crashes once only"
    fault.undo(it.cluster, it.begin(fault))
    assert it.write("spared"), "without a write there is no crash"


def test_a_node_without_its_broker_serves_nobody(it: Simulated) -> None:
    fault = BrokerDisconnect(nodes=("n1",))
    resolved = it.begin(fault)
    assert not it.write(1)
    assert it.is_up()
    fault.undo(it.cluster, resolved)
    assert it.write(2)


# --- the messages around an anomaly ---


def test_the_messages_around_an_anomaly_are_kept_and_drawn(tmp_path: Path) -> None:
    cut = {"at": "1s", "for": "2s", "fault": "partition", "groups": "halves"}
    mix = {"read": 50, "write": 50}
    wanted = experiment(cut, workload={**EXPERIMENT["workload"], "mix": mix})
    result, folder = simulated(tmp_path / "run", wanted, "gossip")
    lines = witness_of(result.verdict)
    messages = read_messages(folder.path)
    assert messages is not None
    assert set(messages.nodes) == {line.operation.node for line in lines}
    stamps_ns = [
        stamp_ns
        for line in lines
        for stamp_ns in (line.operation.invoked_ns, line.operation.completed_ns)
        if stamp_ns is not None
    ]
    assert len(stamps_ns) == 2 * len(lines)
    assert 0 < len(messages.story.arrows) <= messages.total
    for arrow in messages.story.arrows:
        assert {arrow.src, arrow.dst} <= set(messages.nodes)
        assert min(stamps_ns) / 1e9 <= arrow.sent_s <= max(stamps_ns) / 1e9
    # The replay is the run: what crossed the cut while it was on did not arrive.
    (fault,) = folder.faults()
    applied_ns, healed_ns = fault.applied_ns, fault.healed_ns
    assert applied_ns is not None
    assert healed_ns is not None
    links = {tuple(link) for link in fault.links}
    on = [
        arrow
        for arrow in messages.story.arrows
        if (arrow.src, arrow.dst) in links and applied_ns < arrow.sent_s * 1e9 < healed_ns
    ]
    assert {arrow.fate for arrow in on} == {"cut"}
    asked = [m.at_s for m in messages.story.moments if m.text.startswith("asked-")]
    assert asked == sorted(line.operation.invoked_ns / 1e9 for line in lines)
    page = tmp_path / "report.html"
    write_report([folder.path], page)
    assert "The messages around it" in page.read_text()

    _, raft = simulated(tmp_path / "raft", experiment(cut))
    assert read_messages(raft.path) is None, "nothing is anomalous"


# --- what goes wrong ---


def test_an_operation_that_the_protocol_has_not_ends_fail(tmp_path: Path) -> None:
    _, folder = simulated(tmp_path / "run", experiment(), "gossip")
    refused = [r for r in folder.operations() if r.op == "cas"]
    assert refused
    assert {(r.outcome, r.error) for r in refused} == {("fail", "unsupported")}


def test_operations_over_the_cap_are_dropped_and_counted(tmp_path: Path) -> None:
    arrival = {"open_loop": "200/s", "in_flight": 5}
    wanted = experiment(
        {"at": "1s", "for": "2s", "fault": "crash", "nodes": "all"},
        workload={**EXPERIMENT["workload"], "arrival": arrival},
    )
    _, folder = simulated(tmp_path / "run", wanted)
    (summary,) = [load for load in folder.loads() if load.client == CLIENT]
    assert summary.dropped == len(summary.dropped_intended_ns) > 100
    assert len(summary.dropped_nodes) == summary.dropped
    assert len(set(summary.dropped_nodes)) > 1
    assert summary.intended == summary.invoked + summary.dropped
    assert summary.intended == len(list(plan(wanted.workload(), wanted.node_ids())))


def test_the_write_of_a_read_modify_write_waits_for_its_read(tmp_path: Path) -> None:
    wanted = experiment(
        {"at": "1s", "for": "2s", "fault": "requests-lost", "node": "n2"},
        workload={"arrival": {"open_loop": "200/s", "in_flight": 40}, "ycsb": "f"},
    )
    _, folder = simulated(tmp_path / "run", wanted)
    by_id = {r.id: r for r in folder.operations() if not r.process.startswith("final")}
    (summary,) = [load for load in folder.loads() if load.client == CLIENT]
    assert summary.intended == summary.invoked + summary.dropped
    assert summary.invoked == len(by_id)
    dropped = 0
    for item in plan(wanted.workload(), wanted.node_ids()):
        read = by_id.get(item.id)
        write = None if item.then is None else by_id.get(item.then.id)
        dropped += (read is None) + (item.then is not None and write is None)
        if read is None or write is None:
            assert write is None
            continue
        assert item.then is not None
        assert read.outcome == "ok"
        assert read.completed_ns is not None
        assert write.invoked_ns >= read.completed_ns
        assert write.value == item.then.value
    assert summary.dropped == dropped > 10
    assert any(item.id not in by_id for item in plan(wanted.workload(), wanted.node_ids()))


def test_a_replica_that_breaks_ends_the_run_and_the_history_counts_as_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(self: Raft, name: str) -> None:
        if self.env.now() > deadline_s[self.id]:
            raise AssertionError("it broke")
        on_timer(self, name)

    on_timer = Raft.on_timer
    deadline_s: dict[str, float] = {}
    build = Raft.__init__

    def init(self: Raft, config: Any, env: Any, disk: Any) -> None:
        deadline_s[config.node] = env.now() + 3
        build(self, config, env, disk)

    monkeypatch.setattr(Raft, "__init__", init)
    monkeypatch.setattr(Raft, "on_timer", break_down)
    result, folder = simulated(tmp_path / "run", experiment())
    assert result.failure is not None
    assert "AssertionError: it broke" in result.failure
    assert folder.manifest().complete is False
    assert result.failure in folder.manifest().notes
    assert folder.operations() != []
    assert result.verdict is not None
    assert result.verdict.verdict == "unknown"


def test_a_fault_that_the_target_has_not_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = experiment({"at": "1s", "for": "1s", "fault": "crash", "nodes": "all"})
    fault = type(wanted.plan()[0].fault)
    refuse_unsupported(wanted, "sim", registry.get("raft"))
    monkeypatch.setattr(fault, "NEEDS", (DamagesLogs,))
    with pytest.raises(
        Unsupported, match=r"the target sim has no fault 'crash'; .* compose, local"
    ):
        simulated(tmp_path / "run", wanted)
    assert not (tmp_path / "run").exists()


def test_the_catalogue_runs_in_the_simulator() -> None:
    for name in ("healthy", "leader-partition", "latency-50ms"):
        refuse_unsupported(load(name), "sim", registry.get("raft"))
