"""The experiment node-loss, under virtual time, from its file to its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.record.run_folder import RunFolder
from bench.record.verdict import Convergence
from chaos.experiments import experiment as experiments
from chaos.experiments.experiment import Experiment, InvalidExperiment
from chaos.targets.runner import RunResult, run_experiment
from nodes.registry import get
from reports.data.metrics import RunTables, load
from reports.data.recovery import losses
from reports.formats.render import write_report


class Silent:
    def phase(self, text: str) -> None: ...

    def tick(self, done: float, total: float) -> None: ...


def changed(**fields: Any) -> Experiment:
    data = {**experiments.load("node-loss").as_data(), **fields}
    return experiments.validate(data, source="test", name="node-loss")


def run(
    path: Path, experiment: Experiment, parameters: Mapping[str, Any] | None = None
) -> RunResult:
    result = run_experiment(
        experiment,
        get("quorum"),
        folder_path=path,
        seed=experiment.seed,
        parameters=parameters,
        progress=Silent(),
        target="sim",
    )
    assert result.failure is None
    return result


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> RunTables:
    path = tmp_path_factory.mktemp("runs") / "run"
    run(path, experiments.load("node-loss"))
    return load(path)


def test_the_factor_is_back_within_three_detection_times_and_nothing_is_lost(
    tables: RunTables,
) -> None:
    (fault,) = RunFolder(tables.folder).faults()
    (gone,) = fault.nodes
    (loss,) = losses(tables)
    assert (loss.node, loss.killed) == (gone, True)
    assert loss.ranges == 10
    assert loss.bytes > 10_000
    assert loss.detected_s is not None
    assert 1.0 < loss.detected_s < 2.5
    assert loss.detections is not None
    assert loss.detections <= 3.0
    assert loss.failed_there > 0
    assert loss.failed_elsewhere == 0, "two of three replicas are a quorum"
    assert tables.verdict is not None
    checks = {check.name: check for check in tables.verdict.checks}
    assert tables.verdict.verdict == "valid"
    details = checks["convergence"].details
    assert isinstance(details, Convergence)
    assert details.converged is True
    assert details.lost_writes == 0


def test_the_last_status_of_each_node_has_the_factor_back(tables: RunTables) -> None:
    records = RunFolder(tables.folder).node_records()
    last = {r.node: r.probe for r in records if r.kind == "status" and r.probe}
    gone = losses(tables)[0].node
    for node, probe in last.items():
        if node != gone:
            assert probe["replication_ratio"] == 1.0
            assert f"{gone}:0" in probe["placement"]
            assert probe["suspects"] == gone


def test_final_reads_leave_out_who_is_gone_for_good(tables: RunTables) -> None:
    operations = RunFolder(tables.folder).operations()
    finals = [record for record in operations if record.process.startswith("final")]
    gone = losses(tables)[0].node
    assert {record.node for record in finals} == set(tables.manifest.nodes) - {gone}
    assert {record.outcome for record in finals} == {"ok"}


def test_the_report_shows_what_the_loss_cost(tables: RunTables, tmp_path: Path) -> None:
    page = write_report([tables.folder], tmp_path / "report.html").read_text()
    assert "Lost nodes" in page
    assert str(losses(tables)[0].operations) in page


def test_where_the_factor_is_not_restored_the_report_says_so(tmp_path: Path) -> None:
    """Two of three nodes cannot be lost: nobody has the say any more, or the data."""
    schedule = [
        {"at": "2s", "fault": "crash", "nodes": ["n1"], "restart": False},
        {"at": "2s", "fault": "crash", "nodes": ["n2"], "restart": False},
    ]
    parameters = {**experiments.load("node-loss").parameters, "ranges": 1}
    run(tmp_path / "run", changed(schedule=schedule, duration="12s", parameters=parameters))
    found = losses(load(tmp_path / "run"))
    assert found
    assert all(loss.restored_s is None for loss in found)
    assert all(loss.detections is None for loss in found)
    assert all(loss.failed_elsewhere > 0 for loss in found)


def test_a_run_without_a_loss_has_no_such_section(tmp_path: Path) -> None:
    run(tmp_path / "run", changed(schedule=[], duration="3s", objectives={}))
    assert losses(load(tmp_path / "run")) == []
    page = write_report([tmp_path / "run"], tmp_path / "report.html").read_text()
    assert "Lost nodes" not in page


def test_parameters_of_the_command_line_go_before_those_of_the_experiment(tmp_path: Path) -> None:
    result = run(
        tmp_path / "run", changed(schedule=[], duration="3s", objectives={}), {"ranges": 8}
    )
    recorded = RunFolder(result.folder).manifest().parameters
    assert (recorded["ranges"], recorded["replication_factor"]) == (8, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes": 2}, "parameters: protocol quorum: replication_factor is 0 (all nodes) to 2"),
        ({"protocols": ["raft"]}, "parameters: protocol raft has no parameter"),
        ({"parameters": {"ranges": 7, "replication_factor": 3}}, "parameters: protocol quorum"),
        (
            {
                "schedule": [
                    {"at": "2s", "for": "3s", "fault": "crash", "nodes": "all", "restart": False}
                ]
            },
            "for: makes no sense: what is crashed for good does not come back",
        ),
        (
            {"schedule": [{"at": "2s", "fault": "crash", "nodes": "all", "restart": "no"}]},
            "restart: must be a valid boolean",
        ),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidExperiment) as caught:
        changed(**fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
