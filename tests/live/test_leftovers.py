"""A run that was killed in the middle of a partition: the next command cleans up, and says so."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from bench.record.run_folder import RunFolder
from chaos.clusters.leftovers import HELD_BY, clean_up, held
from chaos.clusters.locks import directory
from chaos.clusters.pids import started
from nodes.runtime import own_folder
from tests.live.conftest import capbench, leftovers
from tests.processes import begun, command_line
from tests.waiting import patience

pytestmark = pytest.mark.live

EXPERIMENT = """
title: Cut
shows: what a test needs
protocols: [gossip]
nodes: 3
workload: {arrival: {open_loop: 100/s}, mix: {write: 1}}
duration: 60s
schedule:
  - {at: 100ms, for: 59s, fault: partition, groups: halves}
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of their own for the notes of this test's commands."""
    monkeypatch.setenv("CAPBENCH_NOTES", str(tmp_path / "notes"))
    return directory()


def start(workspace: Path) -> tuple[subprocess.Popen[str], RunFolder]:
    """A run, as soon as its faults are on."""
    (workspace / "cut.yaml").write_text(EXPERIMENT)
    silent = subprocess.DEVNULL
    runner = begun("run", "cut.yaml", cwd=workspace, stdout=silent, stderr=silent)
    deadline = time.monotonic() + patience(60)
    while True:
        assert time.monotonic() < deadline, "the faults did not begin"
        assert runner.poll() is None
        for folder in (workspace / "results" / "cut").glob("*"):
            if len(RunFolder(folder).faults()) == 1 and any(
                RunFolder(folder).history_dir.iterdir()
            ):
                return runner, RunFolder(folder)
        time.sleep(0.05)


def children(runner: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(runner.pid).children(recursive=True)


def lives(process: psutil.Process) -> bool:
    """Whether it runs. Without an init that reaps orphans, the dead ones stay listed."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_killed_run_left_is_cleaned_up_by_the_next_command(
    workspace: Path, notes: Path
) -> None:
    runner, folder = start(workspace)
    family = children(runner)
    (guard,) = [child for child in family if "-I" in command_line(child)]
    bystander = subprocess.Popen(
        ["sleep", "600"], env={**os.environ, HELD_BY: "of-another-cluster"}, cwd=workspace
    )
    try:
        assert capbench("list", cwd=workspace).stderr == "", "it lives: nothing to clean up"
        # The guard first, so that nobody is left to end the others.
        guard.kill()
        runner.kill()
        runner.wait()
        orphans = [child for child in family if child != guard and lives(child)]
        assert len(orphans) >= 6, "broker, proxies, three nodes, load"
        done = capbench("list", cwd=workspace)
        assert done.returncode == 0
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"capbench: the run {folder.path.relative_to(workspace)} was killed")
        assert "mosquitto" in line
        assert "removed the data of 3 nodes; what it had recorded is kept" in line
        assert not any(lives(child) for child in orphans)
        assert leftovers(workspace) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert list(notes.glob("*.json")) == []
    assert capbench("list", cwd=workspace).stderr == "", "and once only"
    # What was recorded is there, and is no run that came to its end.
    assert len(folder.operations()) > 0
    assert capbench("check", folder.path, cwd=workspace).returncode == 5
    assert not any((folder.path / "cluster" / node).exists() for node in ("n1", "n2", "n3"))


def test_a_killed_runner_alone_takes_everything_along_and_is_told(
    workspace: Path, notes: Path
) -> None:
    runner, folder = start(workspace)
    family = children(runner)
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    deadline = time.monotonic() + patience(10)
    while any(lives(child) for child in family):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (line,) = capbench("list", cwd=workspace).stderr.splitlines()
    assert f"{folder.path.relative_to(workspace)} was killed: removed the data of 3 nodes" in line


def test_a_cluster_that_stays_and_whose_keeper_was_killed_keeps_its_data(
    workspace: Path, notes: Path
) -> None:
    """Whoever types the next command, in whatever folder; what still runs of it is ended."""
    done = capbench("up", "-p", "gossip", "--nodes", "1", "--name", "d1", cwd=workspace)
    assert done.returncode == 0, done.stderr
    folder = workspace / ".capbench" / "d1"
    keeper = psutil.Process(msgspec.json.decode((folder / "keeper.json").read_bytes())["pid"])
    family = keeper.children(recursive=True)
    (guard,) = [child for child in family if "-I" in command_line(child)]
    guard.kill()
    keeper.kill()
    elsewhere = workspace / "elsewhere"
    elsewhere.mkdir()
    (line,) = capbench("list", cwd=elsewhere).stderr.splitlines()
    assert line.startswith(f"capbench: the cluster d1 in {folder} was killed: ended ")
    assert "mosquitto" in line
    assert line.endswith("; its data and logs are kept until `capbench down`")
    assert not any(lives(child) for child in family)
    assert any((folder / "n1" / "data").iterdir())
    assert (folder / "n1.log").is_file()
    assert capbench("list", cwd=elsewhere).stderr == "", "and once only"
    assert capbench("down", cwd=workspace).returncode == 0
    assert not folder.exists()


def test_notes_that_somebody_else_could_have_written_are_not_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAPBENCH_NOTES")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = directory()
    place.chmod(0o777)
    with pytest.raises(PermissionError, match="only you can open"):
        clean_up()
    place.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    place.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="only you can open"):
        clean_up()


def test_who_lives_is_left_alone_and_a_pid_of_another_process_is_not_who_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAPBENCH_NOTES")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data, theirs = tmp_path / "n1", tmp_path / "theirs"
    own_folder.make(data)
    theirs.mkdir()
    with held("a-token", [data, theirs], tmp_path / "run"):
        (note,) = directory().glob("*.json")
        assert clean_up() == []
        assert data.exists()
        said = msgspec.json.decode(note.read_bytes())
        note.write_bytes(msgspec.json.encode({**said, "started": "another boot/1"}))
        (line,) = clean_up()
        assert line.startswith(
            f"the run {tmp_path / 'run'} was killed: removed the data of 1 nodes"
        )
        assert not data.exists()
        assert theirs.exists(), "what we did not make is never removed"


def test_a_process_that_ended_and_was_not_waited_for_holds_nothing() -> None:
    with subprocess.Popen(["true"]) as child:
        deadline = time.monotonic() + patience(10)
        while lives(psutil.Process(child.pid)):
            assert time.monotonic() < deadline
        assert started(child.pid) is None
    assert started(os.getpid()) is not None
