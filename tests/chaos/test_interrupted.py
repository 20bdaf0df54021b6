"""A command that is ended from outside says so in one line, whichever it is."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.record.run_folder import RunFolder
from chaos.interrupted import Interrupted, recording, signals_as_exit
from chaos.systems.etcd import Etcd
from chaos.systems.system import Programs
from chaos.targets import lab, table
from tests.live.conftest import Typed
from tests.processes import begun
from tests.waiting import patience, wait_for

BOTH = pytest.mark.parametrize(
    ("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)


def test_sigterm_leaves_through_the_finally_blocks() -> None:
    before = signal.getsignal(signal.SIGTERM)
    healed = False

    def run() -> None:
        nonlocal healed
        with signals_as_exit():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
            finally:
                healed = True

    with pytest.raises(SystemExit) as ended:
        run()
    assert healed
    assert ended.value.code == 128 + signal.SIGTERM
    assert Interrupted().exit_code == ended.value.code
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    try:
        with signals_as_exit():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def ends_in(monkeypatch: pytest.MonkeyPatch, which: int) -> Callable[[signal.Signals], None]:
    """The ``which``th run that is begun, at any target, gets the signal instead of a cluster."""

    def arrange(number: signal.Signals) -> None:
        begun: list[Any] = []
        simulated = table.TARGETS["sim"].conduct

        def conduct(run: Any) -> str | None:
            begun.append(run)
            if len(begun) < which:
                return simulated(run)
            os.kill(os.getpid(), number)
            signal.pause()
            return None

        for name in ("sim", "lab"):
            target = table.Target(table.TARGETS[name].cluster, conduct)
            monkeypatch.setitem(table.TARGETS, name, target)
        monkeypatch.setattr(lab, "refuse", lambda: None)
        monkeypatch.setattr(Etcd, "programs", lambda _: Programs(paths={}, version="1"))

    return arrange


@BOTH
@pytest.mark.parametrize(
    ("arguments", "label", "folder"),
    [
        ("run healthy -p raft --target sim -o out", "healthy raft", "out/"),
        (
            "compare healthy -p raft -p gossip --target sim -o out",
            "healthy gossip",
            "out/runs/healthy-gossip",
        ),
        (
            "reproduce etcd-serializable-reads -o out",
            "etcd-serializable-reads etcd-serializable",
            "out/runs/",
        ),
    ],
    ids=["run", "compare", "reproduce"],
)
def test_a_run_says_where_it_lies_and_what_to_do(
    arguments: str,
    label: str,
    folder: str,
    number: signal.Signals,
    code: int,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ends_in(monkeypatch, 2 if arguments.startswith("compare") else 1)(number)
    ended, _, err = Typed(monkeypatch, capsys)(*arguments.split())
    assert ended == code
    (line,) = [line for line in err.splitlines() if line.startswith("capbench: ")]
    begin = (
        f"capbench: {label}: interrupted by {name}; what was recorded so far is kept in {folder}"
    )
    assert line.startswith(begin)
    manifests = [RunFolder(path.parent).manifest() for path in Path("out").glob("**/manifest.json")]
    (reason,) = [each.cut_short_by for each in manifests if not each.complete]
    assert reason.startswith(f"interrupted by {name}")
    if name == "Ctrl-C":
        assert Path(line.split("the report: ")[1]).is_file()
    else:
        assert "; judge it: capbench check out/" in line
        assert line.endswith("capbench report out") == arguments.startswith("compare")


@pytest.mark.parametrize("files", [[], ["runs/raft/manifest.json"]])
def test_what_is_kept_is_said_where_anything_is(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for file in files:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("{}")

    def record() -> None:
        with signals_as_exit(), recording("a run", tmp_path, "judge it"):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as ended:
        record()
    kept = f"what was recorded so far is kept in {tmp_path}; judge it"
    told = kept if files else "nothing was recorded yet"
    assert str(ended.value) == f"a run: interrupted by Ctrl-C; {told}"


@BOTH
def test_any_other_command_says_so_too(
    number: signal.Signals,
    code: int,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def kill() -> list[str]:
        os.kill(os.getpid(), number)
        signal.pause()
        return []

    monkeypatch.setattr("chaos.clusters.leftovers.clean_up", kill)
    ended, out, err = Typed(monkeypatch, capsys)("list")
    assert (ended, out, err) == (code, "", f"capbench: interrupted by {name}\n")
    monkeypatch.setattr("chaos.clusters.leftovers.clean_up", list)
    monkeypatch.setattr("chaos.commands.histories.judge.judge", lambda *_: kill())
    (tmp_path / "history.jsonl").write_text("")
    ended, out, err = Typed(monkeypatch, capsys)("check", str(tmp_path / "history.jsonl"))
    assert (ended, out, err) == (code, "", f"capbench: interrupted by {name}\n")


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "arguments",
    [
        "simulate --protocol raft --seeds 100000 --jobs 2",
        "gate -p raft --jobs 2",
        "mutants -p raft --jobs 2",
        "bugs --jobs 2",
    ],
    ids=lambda each: each.split()[0],
)
def test_ctrl_c_at_a_terminal_reaches_workers_too_and_they_say_nothing(
    arguments: str, tmp_path: Path
) -> None:
    """A terminal sends it to all processes of the foreground, workers as well."""
    command = begun(*arguments.split(), cwd=tmp_path, start_new_session=True)
    me = psutil.Process(command.pid)
    with command:
        try:
            wait_for(lambda: any(w.cpu_times().user > 0.7 for w in me.children()), "busy workers")
            workers = me.children(recursive=True)
            os.killpg(command.pid, signal.SIGINT)
            out, err = command.communicate(timeout=patience(60))
        finally:
            command.kill()
    assert command.returncode == 130, err
    assert "Traceback" not in out + err
    (line,) = [line for line in err.splitlines() if not re.match(r"[a-z ]+: [\d,]+ of ", line)]
    assert line.startswith(f"capbench: {arguments.split()[0]}")
    assert ": interrupted by Ctrl-C" in line
    wait_for(lambda: not any(map(is_alive, workers)), "no worker left")
