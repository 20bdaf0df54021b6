"""`make bench-compare`: it fails on what really became slower, and on nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import compare
from tests.bench.test_micro import environment
from tests.waiting import patience

ROOT = Path(__file__).parents[2]
SUITE = """
import os
import time
import pytest

WORK = {"quick": 20_000, "other": 20_000, os.environ.get("SLOW", ""): 40_000}


@pytest.mark.parametrize("name", ["quick", "other"])
def bench_work(benchmark, name):
    benchmark.pedantic(lambda: sum(range(WORK[name])), rounds=60, iterations=5, warmup_rounds=2)


def bench_awaited(aio_benchmark):
    calls = []

    async def sleep():
        import asyncio

        calls.append("begun")
        await asyncio.sleep(0.01)
        calls.append("ended")
        return len(calls)

    last = aio_benchmark.pedantic(sleep, rounds=3, iterations=2)
    count = 3 * 2 + 1  # pytest-benchmark calls once more
    assert calls == ["begun", "ended"] * count and last == len(calls)


@pytest.mark.benchmark(timer=time.perf_counter, max_time=0.1, min_rounds=5)
def bench_awaited_too(aio_benchmark):
    ended = []

    async def sleep(seconds):
        import asyncio

        await asyncio.sleep(seconds)
        ended.append(seconds)
        return len(ended)

    assert aio_benchmark(sleep, 0.001) == len(ended) >= 5
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "bench_it.py").write_text(SUITE)
    (folder / "conftest.py").write_text("from bench.suites.conftest import aio_benchmark\n")
    return folder


def typed(suite: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    saved = suite.parent / "saved.json"
    return subprocess.run(
        [sys.executable, "-m", "bench.compare", *arguments, "--file", str(saved), str(suite)],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=patience(120),
    )


def test_a_planted_slowdown_fails_and_the_same_code_does_not(suite: Path) -> None:
    assert typed(suite, "--save").returncode == 0
    # Twice the work is there at any noise; what has not changed may vary on a busy machine.
    slow = typed(suite, SLOW="quick")
    assert slow.returncode == compare.REGRESSION, slow.stdout + slow.stderr
    lines = [line for line in slow.stderr.splitlines() if line.startswith("bench-compare: ")]
    assert any("bench_it.py::bench_work[quick] takes " in line for line in lines)
    same = typed(suite, "--percent", "90")
    assert same.returncode == 0, same.stdout + same.stderr
    assert "0 of 4 benchmarks are slower by more than 90%" in same.stdout


def test_it_measures_the_time_of_awaiting(suite: Path) -> None:
    done = typed(suite, "--save")
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads((suite.parent / "saved.json").read_text())
    assert "bench_awaited" in {each["name"] for each in run["benchmarks"]}


def test_there_must_be_a_saved_run_of_this_machine(suite: Path) -> None:
    none = typed(suite)
    assert none.returncode == compare.NOTHING_TO_COMPARE
    assert "saved.json: not found; save a run first: make bench-save" in none.stderr
    saved = suite.parent / "saved.json"
    saved.write_text("{}")
    assert "not a saved run" in typed(suite).stderr
    assert typed(suite, "--save").returncode == 0
    run = json.loads(saved.read_text())
    run["machine_info"]["node"] = "elsewhere"
    saved.write_text(json.dumps(run))
    other = typed(suite)
    assert other.returncode == compare.NOTHING_TO_COMPARE
    assert "is of another machine (host 'elsewhere'" in other.stderr
    assert "Traceback" not in other.stderr


def test_slower_is_by_the_median_and_only_what_both_have() -> None:
    before = {"a": 1.0, "b": 1.0, "c": 1.0, "gone": 1.0}
    now = {"a": 1.2, "b": 1.21, "c": 0.1, "new": 9.0}
    assert compare.slower(before, now, 20) == {"b": 1.21}


def test_a_suspect_is_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what is too slow each time is a regression."""
    machine = {"machine_info": {"node": "here", "cpu": {}}}

    def run(**seconds: float) -> dict[str, Any]:
        rows = [{"fullname": n, "stats": {"median": s}} for n, s in seconds.items()]
        return {**machine, "benchmarks": rows}

    path = tmp_path / "saved.json"
    path.write_text(json.dumps(run(busy=1.0, slow=1.0, same=1.0)))
    runs = [run(busy=2.0, slow=2.0, same=1.0), run(busy=1.0, slow=1.9), run(slow=1.8)]
    asked = []

    def measure(suites: list[str], keep: Path | None = None) -> dict[str, Any]:
        asked.append(suites)
        return runs[len(asked) - 1]

    monkeypatch.setattr(compare, "measure", measure)
    assert compare.compare(["all"], path, 20) == compare.REGRESSION
    assert len(asked) == 3
