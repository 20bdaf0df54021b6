"""`capbench soak`: what it looks at on a real cluster, and what it calls bounded. No figure of a
real cluster is judged."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import psutil
import pytest

from bench.measure import soak as soaking
from bench.measure.closed_loop import ClosedLoop
from bench.measure.soak import run_soak
from bench.record.soak_file import Sample, Soak
from chaos.progress import Lines
from reports.sweeps.soak import growth, verdict
from tests.live.conftest import capbench, leftovers
from tests.waiting import patience

LOAD = ClosedLoop(clients=8, seconds=0.1, warm_up_s=0.0)


@pytest.mark.live
def test_a_soak_looks_at_every_process_and_stops_at_its_operations(tmp_path: Path) -> None:
    arguments = ("--operations", "300", "--stretch-s", "0.1", "--clients", "2")
    done = capbench("soak", "-p", "gossip", *arguments, cwd=tmp_path)
    (out,) = (tmp_path / "results" / "soak").iterdir()
    soak = msgspec.json.decode((out / "soak.json").read_bytes(), type=Soak)
    # How many stretches that takes is the machine's business, and the verdict depends on it.
    assert done.returncode in (0, 1, 5), done.stderr
    assert soak.stopped is None
    assert soak.operations >= 300
    assert (soak.failed, soak.unanswered) == (0, 0)
    for sample in soak.samples:
        assert set(sample.rss_bytes) == {"broker", "n1", "n2", "n3", "load"}
        assert min(sample.rss_bytes.values()) > 1_000_000
        assert set(sample.disk_bytes) == {"n1", "n2", "n3"}
    assert soak.samples[-1].disk_bytes["n1"] > soak.samples[0].disk_bytes["n1"] / 2 > 0
    with (out / "samples.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 8 * len(soak.samples)
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "memory and disk: " in done.stdout
    assert leftovers(tmp_path) == []


@pytest.mark.live
def test_a_process_that_ends_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stretches: list[int] = []

    def kill_after_two(soak: Soak, live: object, *rest: object) -> None:
        stretch(soak, live, *rest)  # type: ignore[arg-type]
        stretches.append(soak.operations)
        if len(stretches) == 2:
            process: psutil.Process = live.processes["n2"]  # type: ignore[attr-defined]
            process.kill()
            psutil.wait_procs([process], timeout=patience(10))

    stretch = soaking._stretch
    monkeypatch.setattr(soaking, "_stretch", kill_after_two)
    soak, interrupted = run_soak(
        tmp_path,
        "gossip",
        LOAD,
        operations=10**9,
        nodes=3,
        command=[],
        progress=Lines(),
    )
    assert not interrupted
    assert soak.stopped is not None
    assert "ended during the load" in soak.stopped
    assert len(soak.samples) == 2
    assert verdict(soak) is None


def of(sizes: list[int], stopped: str | None = None) -> Soak:
    samples = [
        Sample(
            t_s=float(number),
            operations=number * 1000,
            ok_per_s=1000.0,
            rss_bytes={"n1": 50_000_000, "load": 90_000_000},
            disk_bytes={"n1": size},
        )
        for number, size in enumerate(sizes, 1)
    ]
    return Soak(
        capbench="0",
        command=[],
        started="",
        hardware={},
        protocol="raft",
        nodes=1,
        clients=1,
        value_bytes=1,
        keys=1,
        wanted=len(sizes) * 1000,
        stopped=stopped,
        samples=samples,
    )


def test_a_level_and_a_saw_are_bounded_and_what_grows_is_not() -> None:
    level = of([10_000_000] * 30)
    assert verdict(level) is True
    saw = of([4_000_000 + 4_000_000 * (number % 4) for number in range(60)])
    assert verdict(saw) is True
    grows = of([10_000_000 + 500_000 * number for number in range(30)])
    assert verdict(grows) is False
    told = {(row.what, row.process): row for row in growth(grows).itertuples()}
    assert told["memory", "n1"].bounded is True
    assert told["disk", "n1"].bounded is False
    # 500,000 bytes in 1,000 operations.
    assert told["disk", "n1"].bytes_per_operation == pytest.approx(500)
    # What grows while it warms up is no growth, and what is high then hides none.
    warm = of([1_000_000 * min(number, 10) for number in range(30)])
    assert verdict(warm) is True
    high = of([30_000_000] * 10 + [10_000_000] * 10 + [14_000_000] * 10)
    assert verdict(high) is False


def test_too_little_is_unknown_never_bounded() -> None:
    assert verdict(of([10_000_000] * 5)) is None
    assert verdict(of([])) is None
    assert verdict(of([10_000_000] * 30, stopped="interrupted")) is None
