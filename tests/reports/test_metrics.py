"""Run folders to tables and figures."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bench.record.run_folder import BadRunFolder, RunFolder
from bench.record.verdict import AvailabilityCheck
from reports.data.metrics import load, summarise
from tests.reports import synthetic

CORE = {
    "experiment": str,
    "protocol": str,
    "target": str,
    "seed": int,
    "folder": str,
    "claim": str,
    "verdict": str,
    "measured_model": str,
    "throughput": {"before", "during", "after"},
    "availability": {"before", "during", "after", "majority", "minority"},
    "recovery_s": (float, type(None)),
    "operations": {"ok", "fail", "info"},
    "converged": (bool, type(None)),
}
ADDED: dict[str, Any] = {
    "latency_ms": {"p50", "p99", "bound_ms"},
    "window_latency_ms": {"before", "during", "after", "majority", "minority"},
    "within_1s": {"before", "during", "after", "majority", "minority"},
    "service_s": float,
    "definitions": int,
    "cut_windows": list,
    "faults": list,
    "elections": (int, type(None)),
    "simulated": bool,
    "dropped": int,
    "fault_lateness_ms": (float, type(None)),
    "stale_reads": (dict, type(None)),
    "converged_s": (float, type(None)),
    "counterexample": (str, type(None)),
    "reason": str,
    "setup": {"nodes", "offered_per_s", "cores", "broker", "system"},
    "missing": list,
    "objectives": list,
    "plan": {"experiment", "setting", "protocol"},
    "cost": (dict, type(None)),
    "latency_p10_ms": (float, type(None)),
    "lost_writes": (int, type(None)),
}


def test_the_json_of_a_run_has_the_documented_shape(runs: dict[str, Path]) -> None:
    for path in runs.values():
        data = msgspec.json.decode(msgspec.json.encode(summarise(RunFolder(path))))
        assert set(data) == set(CORE) | set(ADDED)
        for name, kind in {**CORE, **ADDED}.items():
            if isinstance(kind, set):
                assert set(data[name]) == kind
            else:
                assert isinstance(data[name], kind), name


def test_a_leader_partition_shows_a_dip_an_election_and_a_dead_minority(
    runs: dict[str, Path],
) -> None:
    summary = summarise(RunFolder(runs["raft-leader-partition"]))
    assert summary.availability.minority == 0
    assert summary.availability.majority == 1
    assert summary.availability.before == 1
    assert summary.availability.after == 1
    assert summary.throughput.during is not None
    assert summary.throughput.before is not None
    assert summary.throughput.during < 0.9 * summary.throughput.before
    assert summary.elections == 1
    assert summary.recovery_s is not None
    assert 0.5 < summary.recovery_s < 8
    # A fifth of what was wanted during the cut was never answered.
    assert (summary.latency_ms.p99, summary.latency_ms.bound_ms) == (None, 2000)
    majority = summary.window_latency_ms.majority.p99
    assert majority is not None
    assert majority > 500
    assert summary.window_latency_ms.minority.at("p50") == math.inf
    assert summary.operations.info > 0
    assert summary.counterexample is None


def test_a_tenth_of_what_was_wanted_took_no_longer_than_p10(runs: dict[str, Path]) -> None:
    for name, phase in (("raft-leader-partition", "during"), ("raft-healthy", "before")):
        run = load(runs[name])
        here = run.operations[run.operations["phase"] == phase]
        lost = (run.dropped["phase"] == phase).sum()
        latencies = sorted(here.loc[here["served"], "latency_ms"])
        tenth = latencies[math.ceil((len(here) + lost) / 10) - 1]
        assert run.summary.latency_p10_ms == pytest.approx(tenth)
        assert latencies[0] < tenth < latencies[len(latencies) // 2]


def test_elections_before_the_load_do_not_count(runs: dict[str, Path]) -> None:
    summary = summarise(RunFolder(runs["raft-healthy"]))
    assert summary.elections == 0
    assert summary.availability.during is None
    assert summary.recovery_s is None


def test_gossip_stays_up_and_is_refuted_as_linearizable(runs: dict[str, Path]) -> None:
    summary = summarise(RunFolder(runs["gossip-leader-partition"]))
    assert summary.availability.minority == 1
    assert summary.verdict == "valid"
    assert summary.measured_model == "eventual"
    assert summary.counterexample is not None
    assert "read" in summary.counterexample
    assert summary.stale_reads is not None
    assert 0 < summary.stale_reads.fraction < 1
    assert summary.elections is None


def test_the_figures_are_those_of_the_checker(runs: dict[str, Path]) -> None:
    for path in runs.values():
        run = load(path)
        assert run.verdict is not None
        (details,) = (c.details for c in run.verdict.checks if isinstance(c, AvailabilityCheck))
        summary = run.summary
        assert summary.availability == details.availability
        assert summary.throughput == details.throughput
        assert summary.recovery_s == details.recovery_s
        for name, counts in details.windows.items():
            side = name if name in ("majority", "minority", "none") else "all"
            phase = name if side == "all" else "during"
            table = run.windows
            row = table[(table["side"] == side) & (table["phase"] == phase)]
            inside, lost = run.operations, run.dropped
            if phase != "all":
                inside, lost = inside[inside["phase"] == phase], lost[lost["phase"] == phase]
            if side != "all":
                inside, lost = inside[inside["side"] == side], lost[lost["side"] == side]
            assert row["wanted"].item() == counts.wanted == len(inside) + len(lost)
            assert row["served"].item() == counts.served == inside["served"].sum()
            assert row["dropped"].item() == counts.dropped == len(lost)


def test_a_verdict_of_an_older_version_is_judged_anew_and_that_is_said(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "raft")
    now = load(folder.path)
    assert not any("definitions" in text for text in now.missing)
    told = json.loads(folder.verdict_path.read_text())
    told |= {"schema_version": 1, "verdict": "unknown", "checks": []}
    folder.verdict_path.write_text(json.dumps(told))
    kept = folder.verdict_path.read_bytes()
    again = load(folder.path)
    assert (again.summary.verdict, again.summary.recovery_s) == ("valid", now.summary.recovery_s)
    assert len(again.verdicts) == len(now.verdicts) > 3
    (said,) = [text for text in again.missing if "definitions" in text]
    assert "verdict.json is of version 1, before the current definitions (4)" in said
    assert folder.verdict_path.read_bytes() == kept, "a report changes nothing"

    history = folder.history_dir / "load.jsonl"
    history.write_bytes(b"not json\n" + history.read_bytes())
    broken = load(folder.path)
    assert broken.summary.verdict == "unknown"
    assert any("cannot be checked again: " in text for text in broken.missing)


def test_the_operations_table_counts_from_the_load_and_from_the_intended_time(
    runs: dict[str, Path],
) -> None:
    run = load(runs["raft-leader-partition"])
    records = [r for r in RunFolder(run.folder).operations() if not r.process.startswith("final")]
    table = run.operations
    assert len(table) == len(records)
    for number in (0, 400, len(records) - 1):
        record, row = records[number], table.iloc[number]
        assert record.intended_ns is not None
        assert record.completed_ns is not None
        assert row["id"] == record.id
        assert row["key"] == record.key
        assert row["intended_s"] == pytest.approx((record.intended_ns - synthetic.T0) / 1e9)
        assert row["latency_ms"] == pytest.approx(
            (record.completed_ns - record.intended_ns) / 1e6, abs=1e-3
        )
    cut = table[table["phase"] == "during"]
    assert cut["intended_s"].between(6.0, 14.02).all()
    assert set(cut.loc[cut["node"] == "n1", "side"]) == {"minority"}
    assert set(cut.loc[cut["node"] == "n2", "side"]) == {"majority"}


def test_dropped_operations_are_not_available(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "gossip", dropped=100)
    summary = summarise(folder)
    assert summary.dropped == 100
    assert summary.availability.during is not None
    assert summary.availability.during < 0.9


def test_a_run_without_operations_has_tables_and_says_what_is_missing(tmp_path: Path) -> None:
    manifest = synthetic.manifest(synthetic.Shape("raft", "healthy"))
    folder = RunFolder.create(tmp_path / "run", manifest)
    run = load(folder.path)
    assert len(run.operations) == 0
    assert run.summary.verdict == "unknown"
    assert run.summary.throughput.before is None
    text = " ".join(run.missing)
    assert "no operations" in text
    assert "not checked" in text


def test_a_run_that_was_cut_short_keeps_what_it_had(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "raft")
    whole = len(load(folder.path).operations)
    history = folder.history_dir / "load.jsonl"
    history.write_bytes(history.read_bytes()[:-40_000])
    (folder.load_dir / "load.json").unlink()
    folder.verdict_path.unlink()
    manifest = folder.manifest()
    manifest.complete = False
    manifest.load_ended_ns = None
    folder.write_manifest(manifest)
    faults = folder.faults_path.read_text()
    folder.faults_path.write_text(faults.replace(str(synthetic.ns(14.02)), "null"))
    run = load(folder.path)
    assert 0 < len(run.operations) < whole
    text = " ".join(run.missing)
    assert "cut short" in text
    assert "left no summary" in text
    assert run.summary.throughput.before is not None


def test_a_broken_line_is_named_and_the_lines_before_it_count(tmp_path: Path) -> None:
    folder = synthetic.healthy(tmp_path / "run", "raft")
    history = folder.history_dir / "load.jsonl"
    lines = history.read_bytes().splitlines(keepends=True)
    history.write_bytes(b"".join([*lines[:100], b"not json\n", *lines[100:]]))
    run = load(folder.path)
    assert len(run.operations) == 100
    assert any("load.jsonl:101" in text for text in run.missing)


def test_another_schema_version_is_said(tmp_path: Path) -> None:
    folder = synthetic.healthy(tmp_path / "run", "raft")
    manifest = folder.manifest()
    manifest.schema_version = 0
    folder.write_manifest(manifest)
    assert any("schema version 0" in text for text in load(folder.path).missing)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRunFolder, match=r"manifest\.json"):
        load(tmp_path)


def test_node_roles_come_from_events_and_status(runs: dict[str, Path]) -> None:
    nodes = load(runs["raft-leader-partition"]).nodes
    led = nodes[nodes["role"] == "leader"]
    assert set(led["node"]) == {"n1", "n3"}
    assert np.isfinite(led["term"].astype(float)).all()


def test_the_command_line_starts_without_pandas_and_the_drawing_of_pngs() -> None:
    code = (
        "import sys, reports.data.metrics, reports.data.compare, reports.formats.render;"
        "print([m for m in ('pandas', 'vl_convert') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
