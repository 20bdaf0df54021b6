"""`capbench run --repeat` and `capbench compare`: which runs are made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.record.run_folder import RunFolder
from chaos.commands import main as cli
from chaos.commands import run as cli_run
from chaos.experiments.experiment import catalogue
from chaos.systems.catalogue import SYSTEMS
from chaos.systems.system import NotToBeHad, Programs, System
from nodes import registry

SHORT = """
title: Short
shows: what a test needs
protocols: [raft, gossip]
nodes: 3
seed: 4
workload: {arrival: {open_loop: 100/s}, mix: {read: 1, write: 1}}
duration: 4s
schedule:
  - {at: 1500ms, for: 500ms, fault: partition, groups: random}
"""


def typed(*arguments: str) -> int:
    """The exit code of ``capbench ...``, in this process."""
    sys.argv = ["capbench", *arguments]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    (tmp_path / "short.yaml").write_text(SHORT)
    return tmp_path


def test_repeats_have_seeds_that_count_up_and_intervals(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("run", "short.yaml", "--target", "sim", "--repeat", "3", "--json") == 0
    told: Any = msgspec.json.decode(capsys.readouterr().out)
    made = [(run["protocol"], run["seed"]) for run in told["runs"]]
    assert made == [(p, seed) for p in ("raft", "gossip") for seed in (4, 5, 6)]
    histories = {
        (Path(run["folder"]) / "history/load-1.jsonl").read_bytes() for run in told["runs"]
    }
    assert len(histories) == 6
    raft, gossip = told["repeats"]
    assert (raft["runs"], gossip["seeds"]) == (3, [4, 5, 6])
    during = raft["throughput"]["during"]
    assert during["low"] <= during["mean"] <= during["high"]
    assert typed("report", *(run["folder"] for run in told["runs"])) == 0
    assert "short raft (simulated), 3 runs: " in capsys.readouterr().out
    for wrong in (
        ("run", "--again", told["runs"][0]["folder"], "--repeat", "2"),
        ("run", "detector-sweep", "--repeat", "2"),
    ):
        assert typed(*wrong) == 2


def test_the_full_preset_is_every_protocol_in_every_experiment(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans: list[cli_run.Planned] = []
    folders: list[Path] = []

    def take(made: Any, place: cli_run.Place, *_: Any, **__: Any) -> None:
        plans.extend(made)
        folders.extend(place.folders)

    monkeypatch.setattr(cli_run, "_run_all", take)
    assert typed("compare", "--preset", "full", "--repeat", "2") == 0
    # What cannot be is said, and nothing else is left out.
    said = capsys.readouterr().err.splitlines()
    wanted = {(name, protocol) for name in catalogue() for protocol in registry.PROTOCOLS}
    made = {(experiment.name, protocol.name) for experiment, protocol, *_ in plans}
    left_out = {tuple(line.split(": ")[2].split()) for line in said}
    assert made | left_out == wanted
    assert made & left_out == set()
    assert all("not run: " in line and len(line.split(": ", 3)) == 4 for line in said)
    assert len(plans) == 2 * len(made) == len(set(folders))


def test_the_preset_of_systems_leaves_out_what_cannot_be_had(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans: list[cli_run.Planned] = []
    monkeypatch.setattr(cli_run, "_run_all", lambda made, *_, **__: plans.extend(made))

    def programs(system: System) -> Programs:
        if system.name == "etcd":
            raise NotToBeHad("no etcd")
        return Programs(paths={}, version="1")

    for kind in {type(system) for system in SYSTEMS.values()}:
        monkeypatch.setattr(kind, "programs", programs)
    assert typed("compare", "--preset", "systems") == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in said] == ["no etcd"] * 2
    targets = {(plan.subject.name, plan.target) for plan in plans}
    assert {("raft", "local"), ("redis-sentinel", "lab"), ("zookeeper", "lab")} <= targets
    assert ("etcd", "lab") not in targets


def test_a_protocol_without_a_parameter_of_the_experiment_is_told_and_left_out(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_run, "_run_all", lambda *_, **__: None)
    assert typed("compare", "--preset", "full") == 0
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "node-loss raft:" in one]
    assert "replication_factor" in line
    assert not (workspace / "results").exists()


def test_a_parameter_that_a_protocol_cannot_have_is_refused_before_anything_runs(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("compare", "short.yaml", "node-loss", "-p", "raft", "--target", "sim") == 2
    assert "raft has no parameter 'replication_factor'" in capsys.readouterr().err
    assert not (workspace / "results").exists()


def test_a_run_tells_how_late_its_faults_began(workspace: Path) -> None:
    from reports.data.metrics import summarise

    assert typed("run", "short.yaml", "--target", "sim", "--protocol", "raft", "-o", "out") == 0
    (folder,) = (RunFolder(path) for path in (workspace / "out").iterdir())
    (fault,) = folder.faults()
    assert fault.started_ns is not None
    assert summarise(folder).fault_lateness_ms == (fault.started_ns - fault.planned_ns) / 1e6
