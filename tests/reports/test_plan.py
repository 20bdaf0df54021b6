"""Only runs of one plan are repeats; the others stand apart, and what differs is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.record.run_folder import Manifest
from reports.data import compare
from reports.data.metrics import load
from reports.data.plan import plan_of
from reports.data.repeats import repeats
from reports.data.summary import RunSummary
from reports.formats.diff import diff
from tests.reports import synthetic

WORKLOAD = {"arrival": {"open_loop": "60/s"}, "seed": 3}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunSummary, Manifest]:
    run = load(synthetic.healthy(tmp_path_factory.mktemp("run") / "r", "raft").path)
    manifest = run.manifest
    manifest.experiment["workload"] = WORKLOAD
    return run.summary, manifest


def changed(one: tuple[RunSummary, Manifest], **fields: Any) -> tuple[RunSummary, Manifest]:
    manifest = msgspec.structs.replace(one[1], **fields)
    summary = msgspec.structs.replace(
        one[0],
        plan=plan_of(manifest),
        target=manifest.target,
        simulated=manifest.simulated,
        seed=manifest.seed,
    )
    return summary, manifest


Made = Callable[..., RunSummary]


@pytest.fixture
def made(one: tuple[RunSummary, Manifest]) -> Made:
    return lambda **fields: changed(one, **fields)[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 8},
        {"seed": 8, "experiment": {"workload": {**WORKLOAD, "seed": 8}}},
        {"started_utc": "2027-01-01T00:00:00Z", "command": ["other"], "notes": ["n"]},
        {"hardware": {"cores": 2, "load_average_before": 7.1}},
        {"versions": {"python": "3.11.2", "pandas": "9"}},
        {"experiment": {"title": "Other words", "shows": "x", "workload": WORKLOAD}},
        {"experiment": {"workload": {**WORKLOAD, "ask": "any"}}},  # As older runs did.
    ],
)
def test_what_changes_nothing_in_a_run_makes_no_other_plan(
    made: Made, fields: dict[str, Any]
) -> None:
    same = {
        "experiment": {"workload": WORKLOAD},
        "hardware": {"cores": 2},
        "versions": {"python": "3.11.2"},
    }
    first, second = made(**same), made(**{**same, **fields})
    assert first.plan == second.plan
    assert [each.runs for each in repeats([first, second])] == [2]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"nodes": ["n1", "n2", "n3"]}, "plan 1 has nodes 5; plan 2 has nodes 3"),
        (
            {"experiment": {"workload": {"arrival": {"open_loop": "90/s"}}}},
            "plan 2 has workload.arrival.open_loop 90/s",
        ),
        ({"experiment": {"workload": {**WORKLOAD, "ask": "leader"}}}, "workload.ask leader"),
        (
            {"experiment": {"schedule": [{"at": "1s", "fault": "crash"}]}},
            "schedule.1.fault crash",
        ),
        ({"commit": "fedcba9"}, "plan 1 has commit 0123abc; plan 2 has commit fedcba9"),
        ({"versions": {"broker": "another"}}, "plan 2 has no python, broker another"),
        ({"hardware": {"cores": 64}}, "machine.cores 64"),
    ],
)
def test_another_plan_has_a_column_of_its_own_and_it_is_said_why(
    made: Made, fields: dict[str, Any], said: str
) -> None:
    runs = [made(), made(**fields), made(seed=9)]
    grid = compare.matrix(runs)
    assert grid.experiments == ["healthy · plan 1", "healthy · plan 2"]
    assert [len(cell.runs) for cell in grid.cells.values()] == [2, 1]
    (told,) = grid.plans
    assert said in told
    assert [(each.column, each.runs) for each in repeats(runs)] == [("healthy · plan 1", 2)]
    assert "no repeats of each other: healthy (local)" in compare.first_screen(runs)


def test_other_parameters_or_another_claim_have_a_row_of_their_own(made: Made) -> None:
    runs = [made(), made(parameters={"lease_ms": 10}), made(claim="eventual")]
    grid = compare.matrix(runs)
    assert grid.protocols == ["raft · variant 1", "raft · variant 2", "raft · variant 3"]
    assert grid.experiments == ["healthy"]
    assert repeats(runs) == []
    (told,) = grid.plans
    assert "variant 2 has claim linearizable, lease_ms 10" in told


def test_parameters_that_an_experiment_sets_make_no_variant(made: Made) -> None:
    other = msgspec.structs.replace(made(parameters={"lease_ms": 10}), experiment="lease")
    assert compare.matrix([made(), other]).protocols == ["raft"]


def test_targets_have_columns_of_their_own_and_are_named(made: Made) -> None:
    local, compose = made(), made(target="compose")
    simulated = made(target="sim", simulated=True)
    grid = compare.matrix([local, compose, simulated])
    assert grid.experiments == ["healthy (local)", "healthy (compose)", "healthy (simulated)"]
    assert "live on local and compose (mosquitto" in compare.heading([local, compose])
    assert "live on compose (" in compare.heading([compose])
    assert "live (" in compare.heading([local])
    assert repeats([local, compose, simulated]) == []


def test_a_diff_compares_each_plan_with_its_own(one: tuple[RunSummary, Manifest]) -> None:
    def run(nodes: int, rate: float, **fields: Any) -> tuple[RunSummary, Manifest]:
        names = [f"n{number}" for number in range(nodes)]
        summary, manifest = changed(one, nodes=names, **fields)
        summary.throughput = msgspec.structs.replace(summary.throughput, before=rate)
        return summary, manifest

    old = [run(3, 100.0), run(5, 300.0)]
    for fields in ({}, {"commit": "fedcba9"}):
        found = diff(old, [run(5, 300.0, **fields), run(3, 50.0, **fields)])
        assert found.compared == 2
        ((old_rate, new_rate),) = [
            (change.old, change.new) for change in found.changes if change.kind == "throughput"
        ]
        assert (old_rate, new_rate) == (100.0, 50.0)
    # The only one of each side is compared, and the note says that it is of another plan.
    (change,) = diff([run(3, 100.0)], [run(5, 300.0)]).changes
    assert change.new == 300.0
    # Which of two it should be compared with is not known.
    found = diff(old, [run(7, 300.0)])
    assert (found.compared, found.only_new) == (0, ["healthy raft"])


def test_the_table_of_runs_names_the_plan(made: Made) -> None:
    table = compare.table([made(), made(seed=8), made(target="compose")])
    first, second, third = table["plan"]
    assert first == second != third


def test_a_folder_of_before_has_a_plan_too(tmp_path: Path) -> None:
    folder = synthetic.healthy(tmp_path / "run", "raft")
    manifest = folder.manifest()
    manifest.experiment, manifest.versions, manifest.hardware = {}, {}, {}
    folder.write_manifest(manifest)
    assert load(folder.path).summary.plan == plan_of(manifest)


def test_a_system_stands_beside_the_protocols_of_the_local_target(made: Made) -> None:
    raft = made(versions={"python": "3.11.2", "broker": "mosquitto 2"})

    def etcd(version: str) -> RunSummary:
        run = made(target="lab", versions={"python": "3.11.2", "system": version})
        return msgspec.structs.replace(run, protocol="etcd")

    table = compare.matrix([raft, etcd("3.4.23")])
    assert len(table.experiments) == 1
    assert table.plans == []
    assert table.protocols == ["raft", "etcd"]
    both = compare.matrix([raft, etcd("3.4.23"), etcd("3.5.2")])
    assert both.protocols == ["raft", "etcd · variant 1", "etcd · variant 2"]
    elsewhere = made(target="compose", versions={"python": "3.11.2", "broker": "mosquitto 2"})
    assert len(compare.matrix([raft, etcd("3.4.23"), elsewhere]).experiments) == 2
