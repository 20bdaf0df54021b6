"""What is broken around a run ends it with one clear line and its exit code; what was recorded is
kept."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.record.run_folder import NodeRecord, RunFolder
from chaos.clusters.local import LocalCluster
from chaos.clusters.processes import ProcessGroup
from chaos.errors import TargetFailed
from nodes import registry
from tests.live.conftest import ROOT, leftovers
from tests.waiting import patience

EXPERIMENT = """\
title: Short
shows: what a run says when something around it is broken
protocols: [gossip]
nodes: 3
workload:
  arrival: {{open_loop: {rate}/s, in_flight: {in_flight}}}
  mix: {{read: 50, write: 50}}
duration: 3s
schedule:
  - {{at: 2s, for: 500ms, fault: partition, groups: halves}}
"""


DYING = """\
import os, sys
if any("/n2/settings.json" in argument for argument in sys.orig_argv):
    print("the last words of n2", flush=True)
    os._exit(7)
"""


def run(
    directory: Path,
    target: str,
    *,
    rate: float = 50,
    in_flight: int = 64,
    file_bytes: int | None = None,
    path: Path | None = None,
    python_path: Path | None = None,
) -> tuple[int, list[str]]:
    """The exit code and the lines on standard error."""
    (directory / "short.yaml").write_text(EXPERIMENT.format(rate=rate, in_flight=in_flight))

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    command = [sys.executable, "-m", "chaos.commands.main", "run", "short.yaml", "--out", "out"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    if python_path is not None:
        env["PYTHONPATH"] += f"{os.pathsep}{python_path}"
    if path is not None:
        env["PATH"] = f"{path}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        [*command, "--target", target],
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=patience(100),
        preexec_fn=limit,
    )
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("capbench:")]
    return done.returncode, lines


def test_a_load_that_was_not_there_is_unknown_not_valid(tmp_path: Path) -> None:
    code, _ = run(tmp_path, "sim", rate=5000, in_flight=1)
    assert code == 5
    [manifest] = (tmp_path / "out").glob("*/manifest.json")
    verdict = RunFolder(manifest.parent).verdict()
    assert verdict is not None
    assert verdict.verdict == "unknown"
    assert verdict.reason.startswith("there was too little load")


def test_a_history_without_operations_is_no_run(tmp_path: Path) -> None:
    code, lines = run(tmp_path, "sim", rate=0.01)
    assert code == 3
    assert len(lines) == 1
    assert "the history has no operations" in lines[0]


def test_a_full_disk_for_the_run_folder_is_one_line(tmp_path: Path) -> None:
    code, lines = run(tmp_path, "sim", rate=1000, file_bytes=20_000)
    assert code == 3
    assert len(lines) == 1
    assert re.search(r"/history/\S+\.jsonl: File too large$", lines[0]), lines
    [manifest] = (tmp_path / "out").glob("*/manifest.json")
    assert RunFolder(manifest.parent).operations(), "what was recorded is kept"


@pytest.mark.live
def test_a_broker_that_does_not_come_up_is_one_line(tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "mosquitto"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho no such listener\nexit 1\n")
    fake.chmod(0o755)
    code, lines = run(tmp_path, "local", path=fake.parent)
    assert code == 3
    assert len(lines) == 1
    assert "broker on port" in lines[0]
    assert "no such listener" in lines[0]
    assert leftovers(tmp_path) == []


@pytest.mark.live
def test_a_node_that_dies_at_start_is_one_line_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(DYING)
    code, lines = run(tmp_path, "local", python_path=tmp_path)
    assert code == 3
    assert len(lines) == 1
    assert "n2 ended with code 7" in lines[0]
    assert "the last words of n2" in lines[0]
    assert leftovers(tmp_path) == []


@pytest.mark.live
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rate": 0.01}, "the history has no operations"),
        # Who meets the limit first tells of it: the runner, or the load that cannot record.
        (
            {"rate": 2000, "file_bytes": 60_000},
            r"/\S+: File too large|File too large: '\S+'|the load did not end in time",
        ),
    ],
)
def test_the_local_target_says_it_in_one_line_too(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    code, lines = run(tmp_path, "local", **changes)
    assert (code, len(lines)) == (3, 1), lines
    assert re.search(says, lines[0]), lines
    assert leftovers(tmp_path) == []


def test_what_is_not_recorded_of_the_nodes_ends_a_run_and_nothing_before(tmp_path: Path) -> None:
    told = []

    def full(record: NodeRecord) -> None:
        told.append(record)
        raise OSError(errno.ENOSPC, "No space left on device", "run/nodes/n1.jsonl")

    gossip = registry.get("gossip")
    cluster = LocalCluster(gossip, ("n1",), tmp_path, cluster="x", record=full, proxied=False)
    with ProcessGroup() as cluster.processes:
        cluster.check()
        for _ in range(2):
            cluster._tell("n1", "resumed")
        with pytest.raises(TargetFailed, match=r"^run/nodes/n1\.jsonl: No space left on device$"):
            cluster.check()
    assert len(told) == 1, "one line is enough"
