"""Temporary folders: gone at the end, or with the next command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodes.runtime import own_folder
from nodes.runtime.scratch import scratch, sweep

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, time
from pathlib import Path
from nodes.runtime.scratch import scratch
with scratch("work", Path(sys.argv[1])) as folder:
    (folder / "file").write_text("in use")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_it_is_there_and_ours_until_the_end_however_that_comes(tmp_path: Path) -> None:
    def use() -> None:
        with scratch("work", tmp_path) as folder:
            assert own_folder.is_ours(folder)
            assert folder.stat().st_mode & 0o077 == 0
            (folder / "deep").mkdir()
            (folder / "deep" / "file").touch()
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_uses_stays_until_that_is_killed(tmp_path: Path) -> None:
    user = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert user.stdout is not None
        folder = Path(user.stdout.readline().strip())
        with scratch("other", tmp_path):
            assert (folder / "file").read_text() == "in use"
    finally:
        user.kill()
        user.communicate()
    assert folder.is_dir()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_without_our_mark_is_removed(tmp_path: Path) -> None:
    """Nor what a link leads to, even if that is ours."""
    theirs, linked = tmp_path / "capbench-tmp-theirs", tmp_path / "linked"
    theirs.mkdir()
    own_folder.make(linked)
    (theirs / "file").touch()
    (linked / "file").touch()
    (tmp_path / "capbench-tmp-link").symlink_to(linked)
    (tmp_path / "capbench-tmp-file").touch()
    sweep(tmp_path)
    assert (theirs / "file").exists()
    assert (linked / "file").exists()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_named_pipe_in_the_place_of_a_mark_holds_nobody_up(tmp_path: Path) -> None:
    folder = tmp_path / "capbench-tmp-pipe"
    folder.mkdir()
    os.mkfifo(folder / own_folder.MARK)
    sweep(tmp_path)
    assert folder.is_dir()
