"""`make bench`: what it writes and prints. No figure is judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.checkers import check_history
from bench.checkers.linearizability import check_linearizable
from bench.measure.figures import figures_of, is_met, table, with_ratios
from bench.suites.micro.histories import linearizable_history, write_jsonl
from tests.waiting import patience

ROOT = Path(__file__).parents[2]


def environment(**variables: str) -> dict[str, str]:
    """Without the sign of being a worker of xdist, where pytest-benchmark measures nothing."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    return {**inherited, **variables}


def measured(name: str, seconds: float, **info: Any) -> dict[str, Any]:
    usual = {"figure": name, "ops_per_round": 10, "unit": "operations/CPU s", "goal": None}
    return {
        "extra_info": {**usual, "compared_with": None, **info},
        "stats": {"median": seconds},
    }


def test_all_suites_write_the_documented_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--only", "micro", str(tmp_path)],
        cwd=ROOT,
        env=environment(CAPBENCH_BENCH_SCALE="0.001"),
        capture_output=True,
        text=True,
        timeout=patience(120),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "latest.json").read_text())
    by_name = {figure["name"]: figure for figure in figures}
    assert len(by_name) == len(figures)
    for group in ("linearizability", "JSONL", "codec", "durable log", "vector clock", "quorum"):
        assert any(name.startswith(group) for name in by_name)
    for group in ("failure detector", "simulator", "list-append", "rw-register"):
        assert any(name.startswith(group) for name in by_name)
    for figure in figures:
        assert list(figure) == ["name", "value", "unit", "compared_with", "ratio", "goal"]
        assert figure["value"] > 0
        if figure["compared_with"] is None:
            assert figure["ratio"] is None
        else:
            other = by_name[figure["compared_with"]]
            assert figure["ratio"] == pytest.approx(figure["value"] / other["value"])
    goals = [figure for figure in figures if figure["goal"] is not None]
    missed = sum(not is_met(figure) for figure in goals)
    assert f"{missed} of {len(goals)} goals missed" in done.stdout
    hardware = json.loads((tmp_path / "hardware.json").read_text())
    assert hardware["cores"] == os.cpu_count()
    assert hardware["memory_bytes"] > 0


def test_a_failed_benchmark_leaves_no_figures(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--only", "micro", str(tmp_path)],
        cwd=ROOT,
        env=environment(PYTEST_ADDOPTS="--collect-nothing-like-this"),
        capture_output=True,
        text=True,
        timeout=patience(120),
    )
    assert done.returncode == 1
    assert "no figures were written" in done.stderr
    assert not (tmp_path / "latest.json").exists()


def test_figures_are_rates_unless_less_is_better() -> None:
    figures = with_ratios(
        figures_of(
            [
                measured("a", 2.0),
                measured("b", 1.0, compared_with="a", goal=11),
                measured("c", 5.0, unit="CPU s", ops_per_round=1, goal=5),
                measured("d", 5.0, unit="bytes/operation", value=151, goal=150),
            ]
        )
    )
    assert [figure["value"] for figure in figures] == [5, 10, 5, 151]
    assert [figure["ratio"] for figure in figures] == [None, 2, None, None]
    assert [is_met(figure) for figure in figures] == [None, False, True, False]
    verdicts = list(table(figures).columns[-1].cells)
    assert verdicts == ["", "below the goal", "reached", "above the goal"]


@pytest.mark.parametrize("cas", [0.0, 0.5, 1.0])
def test_the_histories_are_linearizable_and_read_back_the_same(tmp_path: Path, cas: float) -> None:
    c = linearizable_history(5000, clients=20, keys=5, seed=1, cas=cas)
    assert check_linearizable(c).verdict == "valid"
    path = tmp_path / "h.jsonl"
    write_jsonl(c, path)
    check = check_history(path)
    assert (check.verdict, check.algorithm, check.operations) == ("valid", "zones", 5000)
    wrong = c.take(c.id)
    wrong.value[wrong.op == 0] = wrong.value[wrong.op == 0][::-1]
    write_jsonl(wrong, path)
    assert check_history(path).verdict == "invalid"
