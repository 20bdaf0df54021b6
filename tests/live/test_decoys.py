"""Files of our packages' names in the working folder are not imported, by nobody that we start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.record.run_folder import RunFolder
from tests.live.conftest import ROOT

pytestmark = pytest.mark.live

DECOY = """\
import os, sys
with open({told!r}, "a") as told:
    told.write(f"{{__name__}} of {{sys.argv}}\\n")
raise SystemExit("this is not the package")
"""
EXPERIMENT = """\
title: Short
shows: what a test needs
protocols: [gossip]
nodes: 1
workload: {arrival: {open_loop: 50/s}, mix: {write: 1}}
duration: 1s
"""


def lay_decoys(folder: Path) -> Path:
    """Who is imported writes its name into the file that is returned."""
    told = folder / "told"
    for name in ("nodes", "bench", "reports", "chaos", "locust", "msgspec"):
        (folder / f"{name}.py").write_text(DECOY.format(told=str(told)))
    return told


def test_what_lies_in_the_working_folder_is_not_taken_for_ours(workspace: Path) -> None:
    told = lay_decoys(workspace)
    # Nor are Locust's settings, by a run.
    (workspace / "locust.conf").write_text("tags = nonsense\n")
    (workspace / "short.yaml").write_text(EXPERIMENT)
    environment = {**os.environ, "CAPBENCH_NOTES": str(workspace / "notes")}
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):  # As a user has it.
        environment.pop(name, None)
    runs = {
        "run": ["run", "short.yaml", "--out", "run"],
        "list": ["list"],
        "up": ["up", "--protocol", "gossip", "--nodes", "1"],
        "load": ["load", "-t", "1s", "--rate", "50", "--processes", "2", "-u", "2", "-o", "load"],
        "status": ["status"],
        "down": ["down"],
        "simulate": ["simulate", "--protocol", "gossip", "--seeds", "2", "--jobs", "2"],
    }
    for name, arguments in runs.items():
        if name == "load":
            (workspace / "locust.conf").unlink()
        done = subprocess.run(
            [Path(sys.executable).with_name("capbench"), *arguments],
            cwd=workspace,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in (0, 5 if name == "run" else 0), (name, done.stderr)
        assert not told.exists(), (name, told.read_text())
    for folder in ("load", next((workspace / "run").glob("*/")).relative_to(workspace)):
        assert RunFolder(workspace / folder).operations(), folder


def test_nor_is_it_by_what_runs_in_containers(tmp_path: Path) -> None:
    """The image's own environment and command, without the image."""
    told = lay_decoys(tmp_path)
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    environment = dict(
        setting.split("=", 1)
        for setting in [line for line in lines if line.startswith("ENV ")][-1].split()[1:]
        if setting.startswith("PYTHON")
    )
    command = json.loads(lines[-1].removeprefix("CMD "))
    assert command[0] == "python"
    done = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not told.exists(), told.read_text()
    assert (done.returncode, "CAPBENCH_NODE is ''" in done.stderr) == (2, True), done.stderr
