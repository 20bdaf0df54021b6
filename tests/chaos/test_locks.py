"""A lock has one holder at a time, and leaves no file behind."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from chaos.clusters import locks
from chaos.clusters.containers import installation
from chaos.errors import TargetFailed


def test_one_at_a_time_though_the_file_comes_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    first = locks.take(path)
    assert first is not None
    assert locks.take(path) is None
    real, leaving = fcntl.flock, [first]

    def flock(file: IO[bytes], operation: int) -> None:
        """The holder leaves between the opening of the file and its locking."""
        while leaving:
            locks.give_back(path, leaving.pop())
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    second = locks.take(path)
    assert second is not None
    assert locks.take(path) is None
    locks.give_back(path, second)
    assert list(tmp_path.iterdir()) == []


def test_a_command_leaves_no_lock_of_its_ports(tmp_path: Path) -> None:
    code = "from chaos.clusters.processes import free_ports; print(free_ports(3))"
    root = Path(__file__).resolve().parents[2]
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", code],
            env={"TMPDIR": str(tmp_path), "PYTHONPATH": str(root)},
            check=True,
            capture_output=True,
        )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_that_of_an_installation_lies_where_only_this_user_can_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("CAPBENCH_NOTES", str(notes))
    with installation._alone("demo"):
        assert [path.name for path in notes.iterdir()] == ["installation-demo.lock"]
        assert notes.stat().st_mode & 0o077 == 0
        with pytest.raises(TargetFailed, match="another run is using"), installation._alone("demo"):
            pass
    assert list(notes.iterdir()) == []
