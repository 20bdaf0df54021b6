"""`reports.load`: tidy tables of one run or of many, with what is missing said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import reports
from bench.record.run_folder import BadRunFolder, RunFolder
from reports.data import tables
from reports.data.folders import find_runs, run_name
from tests.reports import synthetic

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("comparison")
    synthetic.leader_partition(root / "runs" / "leader-partition-raft", "raft")
    synthetic.leader_partition(root / "runs" / "leader-partition-gossip", "gossip", simulated=True)
    synthetic.healthy(root / "runs" / "healthy-raft", "raft", seed=9)
    return root


def test_a_comparison_is_one_set_of_tables_whose_rows_say_their_run(comparison: Path) -> None:
    loaded = reports.load(comparison)
    names = {"leader-partition-raft", "leader-partition-gossip", "healthy-raft"}
    assert set(loaded.runs["run"]) == set(loaded.operations["run"]) == names
    for table in (loaded.operations, loaded.windows, loaded.verdicts, loaded.nodes, loaded.runs):
        assert list(table.columns[:5]) == list(tables.KEYS)
    assert set(loaded.faults["run"]) == names - {"healthy-raft"}
    counts = loaded.operations.groupby("run", observed=True).size()
    for path in find_runs(comparison):
        alone = reports.load(path)
        assert len(alone.operations) == counts[path.name] == 1200
        mine = loaded.windows[loaded.windows["run"] == path.name].reset_index(drop=True)
        pd.testing.assert_frame_equal(
            mine.drop(columns="run"),
            alone.windows.drop(columns="run"),
            check_categorical=False,
            check_dtype=False,
        )
    by_seed = loaded.operations.groupby("seed")["run"].unique()
    assert list(by_seed[9]) == ["healthy-raft"]
    simulated = loaded.operations[loaded.operations["simulated"]]
    assert set(simulated["protocol"]) == {"gossip"}


def test_the_columns_are_those_that_the_documentation_names(comparison: Path) -> None:
    told = tables.Tables.__doc__ or ""
    loaded = reports.load(comparison)
    for name in ("operations", "faults", "windows", "verdicts", "nodes"):
        assert f"``{name}``" in told
        paragraph = told.split(f"``{name}``")[1].split("\n\n    ``")[0]
        for column in getattr(loaded, name).columns[len(tables.KEYS) :]:
            assert column in paragraph, f"{name}: {column}"


def test_units_and_outcomes_agree_with_the_figures_of_the_run(comparison: Path) -> None:
    loaded = reports.load(comparison / "runs" / "leader-partition-raft")
    operations = loaded.operations
    latency_ms = (operations["completed_s"] - operations["intended_s"]) * 1e3
    pd.testing.assert_series_equal(latency_ms, operations["latency_ms"], check_names=False)
    (figures,) = loaded.runs.to_dict("records")
    assert figures["operations_ok"] == (operations["outcome"] == "ok").sum()
    claim = loaded.verdicts[loaded.verdicts["check"] == "claim"].iloc[0]
    assert (claim["model"], claim["verdict"]) == ("linearizable", "valid")
    during = loaded.windows.query("phase == 'during' and side == 'all'").iloc[0]
    assert during["availability"] == figures["availability_during"]


def test_what_is_missing_is_said_and_the_rest_is_there(tmp_path: Path) -> None:
    synthetic.healthy(tmp_path / "whole", "raft")
    short = synthetic.leader_partition(tmp_path / "short", "raft")
    manifest = short.manifest()
    manifest.complete, manifest.load_ended_ns = False, None
    short.write_manifest(manifest)
    short.verdict_path.unlink()
    (short.load_dir / "load.json").unlink()
    RunFolder.create(tmp_path / "empty", synthetic.manifest(synthetic.Shape("raft", "healthy")))
    old = synthetic.healthy(tmp_path / "old", "gossip")
    told = json.loads(old.manifest_path.read_text())
    told["schema_version"] = 0
    for later in ("hardware", "versions", "notes", "offered_per_s", "parameters", "commit"):
        del told[later]
    old.manifest_path.write_text(json.dumps(told))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")

    loaded = reports.load(tmp_path)
    assert set(loaded.runs["run"]) == {"whole", "short", "empty", "old"}
    assert set(loaded.operations["run"]) == {"whole", "short", "old"}
    missing = "\n".join(loaded.missing)
    for sentence in (
        "broken: not loaded: ",
        "short: the run was cut short",
        "short: no verdict",
        "short: a client process left no summary",
        "empty: no operations",
        "old: the folder has schema version 0",
    ):
        assert sentence in missing
    assert "whole: " not in missing
    assert set(loaded.runs.set_index("run").loc[["short", "empty"], "verdict"]) == {"unknown"}
    alone = reports.load(tmp_path / "empty")
    assert len(alone.operations) == 0
    assert "latency_ms" in alone.operations.columns


def test_a_folder_that_is_none_or_has_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRunFolder, match="no such folder"):
        reports.load(tmp_path / "nowhere")
    with pytest.raises(BadRunFolder, match="no run in it"):
        reports.load(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(BadRunFolder, match=r"not loaded: .*manifest\.json"):
        reports.load(tmp_path)


def test_runs_are_found_below_and_not_within_runs_nor_through_links(tmp_path: Path) -> None:
    run = synthetic.healthy(tmp_path / "a" / "runs" / "one", "raft").path
    (run / "again").mkdir()
    (run / "again" / "manifest.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert find_runs(tmp_path) == [run]
    assert run_name(run, tmp_path) == "a/one"
    assert run_name(run, run) == "one"
    other = synthetic.healthy(tmp_path / "a" / "one", "gossip").path
    assert sorted(run_name(path, tmp_path) for path in (run, other)) == ["a/one", "a/runs/one"]
    assert sorted(reports.load(tmp_path).runs["run"]) == ["a/one", "a/runs/one"]


def test_pandas_is_not_loaded_before_a_folder_is() -> None:
    code = "import sys, reports; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_example_runs_and_prints_what_it_promises(comparison: Path) -> None:
    example = ROOT / "examples" / "notebook.py"
    done = subprocess.run(
        [sys.executable, str(example), str(comparison)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "leader-partition" in done.stdout
    for heading in ("Slowest operations", "Availability second by second", "Latency by node"):
        assert heading in done.stdout
