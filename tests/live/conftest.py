"""Real parts only: Mosquitto, Toxiproxy, node processes and Locust, driven as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]


def capbench(
    *arguments: str | Path, cwd: Path, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Type ``capbench ...`` in the directory ``cwd``."""
    return subprocess.run(
        [sys.executable, "-m", "chaos.cli", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def run_json(*arguments: str | Path, cwd: Path) -> tuple[int, dict[str, Any]]:
    """The exit code of a ``capbench ... --json`` and its result."""
    done = capbench(*arguments, "--json", cwd=cwd)
    assert done.stdout, f"nothing on standard output; standard error: {done.stderr}"
    return done.returncode, msgspec.json.decode(done.stdout)


def leftovers(directory: Path) -> list[str]:
    """Command lines of living processes that name ``directory``."""
    found = []
    for process in psutil.process_iter(["cmdline", "pid"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(directory) in line and process.info["pid"] != os.getpid():
            found.append(line)
    return found


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """A directory to work in, in which nothing is left running."""
    yield tmp_path
    capbench("down", cwd=tmp_path)
    assert leftovers(tmp_path) == []
