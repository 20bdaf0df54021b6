"""Real parts only: Mosquitto, Toxiproxy, node processes and Locust, driven as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from bench.record.run_folder import NodeRecord
from chaos.clusters.local import LocalCluster
from chaos.commands import main as cli
from tests.waiting import patience, wait_for

ROOT = Path(__file__).resolve().parents[2]


def capbench(
    *arguments: str | Path, cwd: Path, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Type ``capbench ...`` in the directory ``cwd``."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "chaos.commands.main", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=patience(timeout_s),
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
    for keeper in (tmp_path / ".capbench").glob("*/keeper.json"):
        capbench("down", "--name", keeper.parent.name, cwd=tmp_path)
    assert leftovers(tmp_path) == []


def next_statuses(cluster: LocalCluster) -> dict[str, NodeRecord]:
    """The next status of each node that tells one: what was done until now is in it."""
    since_ns, nodes = time.monotonic_ns(), set(cluster.monitor.statuses())

    def newer() -> dict[str, NodeRecord]:
        told = cluster.monitor.statuses()
        return {node: status for node, status in told.items() if status.t_ns > since_ns}

    wait_for(lambda: newer().keys() >= nodes, f"a status of {nodes}")
    return newer()


class Typed:
    """``capbench ...`` in this process, since each start of Python takes a second or two."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["capbench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = self._capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    def json(self, *arguments: str) -> Any:
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        return msgspec.json.decode(out)


@pytest.fixture
def typed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    monkeypatch.chdir(workspace)
    return Typed(monkeypatch, capsys)
