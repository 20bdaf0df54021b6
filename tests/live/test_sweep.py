"""`capbench sweep` on real clusters: what it counts, what it writes, and what it says of points
that it could not measure. No figure is judged here."""

from __future__ import annotations

import csv
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from bench.measure.sweep import PROTOCOLS, VALUES, measure, points_of, run_sweep
from bench.record.sweep_file import DIMENSIONS, BadSweep, Point, Sweep, read_sweep
from chaos.commands.main import main
from chaos.progress import Lines
from tests.live.conftest import capbench
from tests.processes import begun
from tests.waiting import patience

pytestmark = pytest.mark.live


def test_a_point_counts_what_theory_says() -> None:
    """One client at its time: nothing to coalesce, so messages are those of the protocol."""
    row = measure(Point(protocol="quorum", nodes=3, clients=1, value_bytes=2000), 0.7, 0.2)
    assert row.missing is None
    assert row.ok > 0
    assert (row.failed, row.unanswered) == (0, 0)
    # Two phases, a message to each of two peers and one back, request and reply; anti-entropy and
    # what was under way when the last reply came are the rest.
    assert row.messages == pytest.approx(10, rel=0.15)
    assert row.publishes == pytest.approx(row.messages, rel=0.15)
    # The value travels in the request and to two peers.
    assert row.bytes is not None
    assert 3 * 2000 < row.bytes < 6 * 2000
    assert row.fsyncs is not None
    assert row.fsyncs >= 2
    assert row.log_bytes is not None
    assert row.log_bytes > 2 * 2000
    assert set(row.cpu_us) == {"broker", "n1", "n2", "n3", "load"}
    assert min(row.cpu_us.values()) > 0
    assert row.other_cores is not None
    assert 0 <= row.other_cores <= (os.cpu_count() or 1)
    assert set(row.rss_bytes) == {"broker", "n1", "n2", "n3"}


def test_points_vary_one_dimension_at_a_time() -> None:
    points = points_of(PROTOCOLS)
    assert len(set(points)) == len(points) == 4 * (1 + 2 + 3 + 3 + 1 + 1)
    base = Point(protocol="raft")
    for point in points_of(["raft"]):
        assert sum(getattr(point, d) != getattr(base, d) for d in DIMENSIONS) <= 1
    for dimension, values in VALUES.items():
        assert {getattr(point, dimension) for point in points} == set(values)
    assert points_of(["raft"], ["nodes"]) == [base, *points_of(["raft"])[1:3]]


def test_a_sweep_writes_a_table_and_a_page_and_goes_on_where_points_are_missing(
    tmp_path: Path,
) -> None:
    arguments = ("sweep", "-p", "gossip", "-d", "proxied", "--quick", "--seconds", "0.4")
    out = tmp_path / "out"
    done = capbench(*arguments, "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gossip *" in done.stdout
    assert "2 of 2: gossip, 3 nodes, 100 B, 128 clients, proxied" in done.stderr
    sweep = read_sweep(out / "sweep.json")
    assert [row.point.proxied for row in sweep.rows] == [False, True]
    assert sweep.rows[1].cpu_us["toxiproxy"] > 0
    assert sweep.calibration is not None
    assert min(sweep.calibration.broker_messages_per_s.values()) > 0
    with (out / "points.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["ok_per_s"]) for line in lines] == [row.ok_per_s for row in sweep.rows]
    for line, row in zip(lines, sweep.rows, strict=True):
        assert float(line["cpu_us"]) == pytest.approx(sum(row.cpu_us.values()))
    assert "| gossip |" in (out / "tables.md").read_text()
    page = (out / "report.html").read_text()
    assert "Toxiproxy" in page
    assert "<svg" in page
    assert "Whose CPU time" in page

    # What is there is not measured again, and not mixed with what was measured otherwise.
    def go_on(seconds: float) -> tuple[Sweep, bool]:
        points = points_of(["gossip"], ["proxied"])
        return run_sweep(out, points, seconds=seconds, warm_up_s=0.4, command=[], progress=Lines())

    assert go_on(0.4) == (sweep, False)
    with pytest.raises(BadSweep, match=r"measured for 0\.4 s each"):
        go_on(0.5)


def test_ctrl_c_keeps_what_was_measured_and_names_what_was_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = "sweep -p gossip -d nodes --seconds 0.4 --out"
    sweep = begun(*command.split(), out, cwd=tmp_path)
    assert sweep.stderr is not None
    for line in sweep.stderr:
        if "2 of 3: gossip, 5 nodes" in line:
            break
    started = psutil.Process(sweep.pid).children(recursive=True)
    sweep.send_signal(signal.SIGINT)
    stdout, stderr = sweep.communicate(timeout=patience(60))
    assert sweep.returncode == 130
    assert "2 of 3 points are missing" in stderr
    assert stdout.count("missing: not measured") == 2
    rows = read_sweep(out / "sweep.json").rows
    assert [row.missing is None for row in rows] == [True, False, False]
    assert [row.point.nodes for row in rows] == [3, 5, 7]
    assert "points are missing" in (out / "report.html").read_text()
    assert psutil.wait_procs(started, timeout=patience(20))[1] == []


def test_a_point_without_a_cluster_is_missing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("bench.measure.live.START_TIMEOUT_S", 0.0)
    row = measure(Point(protocol="raft"), 0.2, 0.1)
    assert row.missing is not None
    assert "did not start" in row.missing
    assert row.ok_per_s is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["-d", "size"],
            "unknown dimension 'size'; use nodes, value_bytes, clients, proxied, coalesced",
        ),
        (["--seconds", "0"], "--seconds: '0': use 0.1 to"),
        (["-p", "rafft"], "rafft"),
        (["--out", "."], "not a sweep"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["capbench", "sweep", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
