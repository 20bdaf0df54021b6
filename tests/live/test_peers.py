"""`make bench-peers`: a real etcd beside our raft."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from bench.measure.etcd import NoEtcd, Programs, etcd_cluster, programs, summary
from tests.live.conftest import ROOT, capbench
from tests.processes import command_line
from tests.waiting import patience, wait_for

# The first time etcd is got, and its client built.
pytestmark = [pytest.mark.long, pytest.mark.live, pytest.mark.timeout(900)]

SAID = """
Summary:
  Total:\t0.6540 secs.
  Slowest:\t0.0151 secs.
  Average:\t0.0052 secs.
  Requests/sec:\t3058.3064

Latency distribution:
  10% in 0.0027 secs.
  50% in 0.0047 secs.
  99% in 0.0128 secs.
  99.9% in 0.0150 secs.
"""


@pytest.fixture(scope="module")
def found() -> Programs:
    try:
        return programs()
    except NoEtcd as error:
        pytest.skip(f"no etcd can be had here: {error}")


@contextmanager
def typed(folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command, ended whatever the test says."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.measure.peers", str(folder)],
        cwd=ROOT,
        env={**os.environ, "CAPBENCH_BENCH_SCALE": "0.05", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def etcds(keeper: int) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process(keeper).children(recursive=True)
        if "--initial-cluster" in command_line(process)
    ]


def test_the_figures_are_those_of_etcds_client() -> None:
    puts = summary(SAID)
    assert (puts.ok_per_s, puts.latency_ms_p50, puts.latency_ms_p99) == (3058.3064, 4.7, 12.8)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("", "did not print its rate"),
        (SAID.replace("99% in", "99%"), "did not print its p99"),
        (SAID + "\nError distribution:\n  [3]\tetcdserver: no leader\n", "[3]\tetcdserver: no"),
    ],
)
def test_what_is_no_result_is_not_read_as_one(said: str, complaint: str) -> None:
    with pytest.raises(NoEtcd) as error:
        summary(said)
    assert complaint in str(error.value)


def test_both_are_measured_in_one_run(found: Programs, tmp_path: Path) -> None:
    with typed(tmp_path) as process:
        printed, said = process.communicate(timeout=patience(240))
    assert process.returncode == 0, said
    figures = {each["name"]: each for each in json.loads((tmp_path / "peers.json").read_text())}
    assert len(figures) == 2 * 3 * 3 * 2
    for clients, goal in ((1, 0.7), (16, 1.0), (128, 1.0)):
        theirs = figures[f"peers: etcd, {clients} in flight"]
        ours = figures[f"peers: raft, {clients} in flight"]
        assert theirs["value"] > 10
        assert ours["ratio"] == pytest.approx(ours["value"] / theirs["value"])
        assert ours["goal"] == pytest.approx(goal * theirs["value"])
        # A closed loop: clients = rate x latency, within what percentiles can be off.
        for each in ("etcd", "raft"):
            rate = figures[f"peers: {each}, {clients} in flight"]["value"]
            p50 = figures[f"peers: {each}, {clients} in flight, p50"]["value"]
            p99 = figures[f"peers: {each}, {clients} in flight, p99"]["value"]
            assert 0 < p50 <= p99
            assert rate * p50 / 1000 < 2 * clients
    machine = json.loads((tmp_path / "peers-hardware.json").read_text())
    assert machine["etcd"] == found.version
    assert "goals missed" in printed


def test_three_nodes_replicate_and_nothing_is_left(found: Programs) -> None:
    with etcd_cluster(found) as etcd:
        assert len(etcd.endpoints) == 3
        assert etcd.put(clients=4, total=100).ok_per_s > 0
        running = etcds(os.getpid())
        assert len(running) == 3
    assert not any(process.is_running() for process in running)


def test_a_killed_run_leaves_nothing(
    found: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with typed(tmp_path) as process:
        running: list[psutil.Process] = wait_for(
            lambda: three if len(three := etcds(process.pid)) == 3 else [], "three nodes of etcd"
        )
        process.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs(running, timeout=patience(10))
    assert left == []
    assert list(tmp_path.glob("capbench-tmp-*"))
    assert capbench("list", cwd=tmp_path).returncode == 0
    assert not list(tmp_path.glob("capbench-tmp-*"))


def test_what_is_in_the_place_of_etcd_and_not_ours_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.systems.etcd.on_path", lambda program: None)
    theirs = tmp_path / "etcd-server" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    with pytest.raises(NoEtcd, match="etcd-server: is there already and not of capbench's making"):
        programs(tmp_path)
    assert theirs.read_text() == "theirs"


def test_without_etcd_it_says_so(tmp_path: Path) -> None:
    """One line, exit code 3; here etcd is a program that cannot serve."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, does in (("etcd", 'echo "etcd Version: 0.0.0"; exit 1'), ("etcd-benchmark", "exit")):
        (tools / name).write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "etcd Version: 0" && exit 0\n{does}\n'
        )
        (tools / name).chmod(0o755)
    with typed(tmp_path, PATH=f"{tools}:{os.environ['PATH']}") as process:
        _, said = process.communicate(timeout=patience(60))
    assert process.returncode == 3, said
    assert said.splitlines()[-1] == (
        "peers: etcd did not start: etcd Version: 0.0.0; no figures were written"
    )
    assert not (tmp_path / "peers.json").exists()
