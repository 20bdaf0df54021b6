"""Files of our packages' names in the working folder are not imported, by nobody that we start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.run_folder import RunFolder

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


def test_what_lies_in_the_working_folder_is_not_taken_for_ours(workspace: Path) -> None:
    told = workspace / "told"
    for name in ("nodes", "bench", "reports", "chaos", "locust", "msgspec"):
        (workspace / f"{name}.py").write_text(DECOY.format(told=str(told)))
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
    for name in ("load", next((workspace / "run").glob("*/")).relative_to(workspace)):
        assert RunFolder(workspace / name).operations(), name
