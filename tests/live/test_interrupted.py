"""Ctrl-C in the middle of a fault of every kind at once, on every target that starts anything."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pytest

from bench.record.run_folder import RunFolder
from tests.live.conftest import capbench, leftovers
from tests.processes import begun
from tests.waiting import patience, wait_for

pytestmark = pytest.mark.live

EXPERIMENT = """\
title: Everything at once
shows: that whatever is on is healed
protocols: [gossip]
nodes: 5
workload:
  arrival: {open_loop: 100/s}
  mix: {read: 50, write: 50}
duration: 60s
schedule:
  - {at: 500ms, for: 50s, fault: partition, groups: [[n1, n2], [n3, n4, n5]]}
  - {at: 500ms, for: 50s, fault: latency, latency_ms: 20}
  - {at: 500ms, for: 50s, fault: stall, links: [[n3], [n4]]}
  - {at: 500ms, for: 50s, fault: flapping, links: [[n4], [n5]], period_ms: 300}
  - {at: 500ms, for: 50s, fault: replies-lost, node: n5}
  - {at: 500ms, for: 50s, fault: message-loss, share: 0.5}
  - {at: 500ms, for: 50s, fault: clock, nodes: [n3], offset_ms: 500}
  - {at: 500ms, for: 50s, fault: slow-fsync, nodes: [n3], delay_ms: 50}
  - {at: 500ms, for: 50s, fault: full-disk, nodes: [n4]}
  - {at: 1s, for: 50s, fault: crash, nodes: [n1]}
  - {at: 1s, for: 50s, fault: pause, nodes: [n2]}
  - {at: 2s, for: 50s, fault: broker-pause}
"""
FAULTS = EXPERIMENT.count("fault:")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A run in which all faults are on, of which no other test's command knows."""
    monkeypatch.setenv("CAPBENCH_NOTES", str(tmp_path / "notes"))
    (tmp_path / "all.yaml").write_text(EXPERIMENT)
    runner = begun("run", "all.yaml", "--out", "out", cwd=tmp_path)

    def are_on() -> bool:
        assert runner.poll() is None, runner.communicate()
        return any(len(RunFolder(path).faults()) == FAULTS for path in (tmp_path / "out").glob("*"))

    with runner:
        try:
            wait_for(are_on, "all faults")
            yield runner
        finally:
            runner.kill()


def ended(runner: subprocess.Popen[str], workspace: Path) -> tuple[str, RunFolder]:
    """What it said on standard error, and its folder. Nothing of it is left."""
    family = psutil.Process(runner.pid).children(recursive=True)
    _, errors = runner.communicate(timeout=patience(60))
    assert "Traceback" not in errors, errors
    assert runner.returncode == 130
    psutil.wait_procs(family, timeout=patience(10))
    assert leftovers(workspace) == []
    (path,) = (workspace / "out").iterdir()
    assert capbench("list", cwd=workspace).stderr == "", "there is nothing to clean up"
    folder = RunFolder(path)
    assert folder.manifest().complete is False
    assert len(folder.operations()) > 20
    return errors, folder


def test_ctrl_c_heals_and_keeps_what_there_is_with_a_report(
    run: subprocess.Popen[str], tmp_path: Path
) -> None:
    run.send_signal(signal.SIGINT)
    errors, folder = ended(run, tmp_path)
    assert "interrupted by Ctrl-C; what was recorded so far is kept in " in errors
    (load,) = [each for each in folder.loads() if each.stopped_early]
    for fault in folder.faults():
        assert fault.healed_ns is not None, fault
        assert fault.heal_started_ns is not None, fault
        assert fault.error is None, fault
        assert load.ended_ns < fault.heal_started_ns, "what ends a run is no outage in it"
    assert folder.manifest().cut_short_by.startswith("interrupted by Ctrl-C")
    verdict = folder.verdict()
    assert verdict is not None
    assert verdict.verdict == "unknown"
    (page,) = tmp_path.glob("**/report.html")
    assert "interrupted" in page.read_text()


def test_ctrl_c_twice_stops_now(run: subprocess.Popen[str], tmp_path: Path) -> None:
    run.send_signal(signal.SIGINT)
    time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    errors, folder = ended(run, tmp_path)
    assert len(folder.faults()) == FAULTS
    assert folder.verdict() is None, "nobody waits for a checker"
    assert list(tmp_path.glob("**/report.html")) == []
    place = folder.path.relative_to(tmp_path)
    told = f"stopped at once: interrupted by Ctrl-C; what was recorded so far is kept in {place}; "
    assert f"{told}check it: capbench check {place}\n" in errors
    # The history can be judged all the same, by the next command.
    done = capbench("check", folder.path, "--json", cwd=tmp_path)
    assert msgspec.json.decode(done.stdout)["verdict"] == "unknown"


def test_what_sigkill_leaves_of_all_that_is_ended_and_said(
    run: subprocess.Popen[str], tmp_path: Path
) -> None:
    family = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(family, timeout=patience(20))
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    said = capbench("list", cwd=tmp_path).stderr
    (path,) = (tmp_path / "out").iterdir()
    assert f"the run {path.relative_to(tmp_path)} was killed" in said
    assert leftovers(tmp_path) == []
    assert len(RunFolder(path).operations()) > 20, "what was recorded is kept"
    assert capbench("list", cwd=tmp_path).stderr == ""


SHORT = """\
title: Short
shows: what is left of it
protocols: [gossip]
nodes: 1
workload:
  arrival: {open_loop: 100/s}
  mix: {read: 50, write: 50}
duration: 1s
schedule:
  - {at: 100ms, for: 500ms, fault: pause, nodes: [n1]}
"""
PHASES = {
    "boot": "start 1 nodes",
    "start": "start the load",
    "load": "load for",
    "reads": "read every key",
    "check": "check",
    "report": "report: draw",
}


def test_sigkill_in_any_phase_leaves_nothing_after_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("CAPBENCH_NOTES", str(notes))
    (tmp_path / "short.yaml").write_text(SHORT)
    runners = {
        phase: begun(
            *("run", "short.yaml", "--out", phase), cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        for phase in PHASES
    }

    def kill_in(phase: str) -> str:
        """What it had said when it was killed."""
        runner = runners[phase]
        assert runner.stderr is not None
        with runner:
            said = []
            for line in runner.stderr:
                said.append(line)
                if PHASES[phase] in line.partition(": ")[2] or PHASES[phase] in line[:12]:
                    runner.kill()
                    break
            runner.wait()
            assert runner.returncode == -signal.SIGKILL, said
        return said[-1]

    with ThreadPoolExecutor(len(PHASES)) as threads:
        list(threads.map(kill_in, PHASES))
    done = capbench("list", cwd=tmp_path)
    assert done.returncode == 0
    told = done.stderr
    for phase in ("start", "load", "reads"):
        assert f"the run {phase}/" in told, told
    for phase in ("check", "report"):
        assert f"the run {phase}/" not in told, "its cluster was stopped before"
    assert list(notes.iterdir()) == []
    wait_for(lambda: leftovers(tmp_path) == [], "everything to end")
    assert list(tmp_path.glob("*/*/cluster/n1")) == [], "the data of the nodes"
    for phase in ("load", "reads", "check", "report"):
        (folder,) = (path for path in (tmp_path / phase).iterdir() if path.is_dir())
        assert RunFolder(folder).operations() or phase == "load", "what was recorded is kept"
    assert capbench("list", cwd=tmp_path).stderr == ""
