from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from chaos.clusters.processes import (
    NoFreePorts,
    ProcessError,
    ProcessGroup,
    free_ports,
    last_words,
)

WaitUntil = Callable[[Callable[[], bool], str], object]
SLEEP = ["sleep", "300"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " print('ready', flush=True); time.sleep(300)",
]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_nobody_outlives_a_killed_parent(tmp_path: Path, wait_until: WaitUntil) -> None:
    script = f"""
import pathlib, time
from chaos.clusters.processes import ProcessGroup
group = ProcessGroup()
log = pathlib.Path({str(tmp_path)!r}) / "log"
children = [group.spawn(f"sleep{{i}}", {SLEEP!r}, stdout_path=log) for i in range(3)]
children.append(group.spawn("stubborn", {STUBBORN!r}, stdout_path=log))
nested = ["sh", "-c", "sleep 300 & echo $! > {tmp_path}/nested.partial;"
          " mv {tmp_path}/nested.partial {tmp_path}/nested; wait"]
children.append(group.spawn("nested", nested, stdout_path=log))
print(*[child.pid for child in children], group._guard.pid, flush=True)
time.sleep(300)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 6
    wait_until((tmp_path / "nested").exists, "the grandchild")
    pids.append(int((tmp_path / "nested").read_text()))
    guard = pids[5]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guard, number)
    assert not any(is_gone(pid) for pid in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: all(is_gone(pid) for pid in pids), "the end of all children")


def test_close_stops_those_that_will_and_kills_those_that_will_not(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    log = tmp_path / "sub" / "log"
    with ProcessGroup() as group:
        polite = group.spawn("polite", SLEEP, stdout_path=log)
        stopped = group.spawn("stopped", SLEEP, stdout_path=log)
        stubborn = group.spawn("stubborn", STUBBORN, stdout_path=log)
        wait_until(lambda: b"ready" in log.read_bytes(), "the stubborn child")
        stopped.send_signal(signal.SIGSTOP)
        group.terminate(grace_s=0.5)
        assert group.ended() == {}, "none of them ended on its own"
        assert stubborn.returncode == -signal.SIGKILL
    assert polite.returncode == -signal.SIGTERM
    assert stopped.returncode == -signal.SIGTERM
    group.close()
    with pytest.raises(ProcessError, match="cannot start late: the process group is closed"):
        group.spawn("late", SLEEP, stdout_path=log)


def test_a_killed_child_can_be_started_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ProcessGroup() as group:
        first = group.spawn("n1", SLEEP, stdout_path=log)
        with pytest.raises(ProcessError, match="cannot start n1: it is running already"):
            group.spawn("n1", SLEEP, stdout_path=log)
        group.kill("n1")
        assert first.returncode == -signal.SIGKILL
        assert not group.running("n1")
        group.kill("n1")
        second = group.spawn("n1", SLEEP, stdout_path=log)
        assert group.running("n1")
        assert second.pid != first.pid
        with pytest.raises(ProcessError, match="there is no such process"):
            group.kill("n2")


PARENT = """
import os, signal, subprocess, sys, time
os.setsid()
child = subprocess.Popen(["sleep", "300"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(300)
"""
"""Its child is in a session of its own, as PostgreSQL's is."""


def test_a_signal_reaches_all_that_a_child_has_started(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    log = tmp_path / "log"
    with ProcessGroup() as group:
        parent = group.spawn("n1", [sys.executable, "-c", PARENT], stdout_path=log)
        wait_until(lambda: log.exists() and log.read_bytes().endswith(b"\n"), "the grandchild")
        pids = [parent.pid, int(log.read_text())]

        def all_are(*states: str) -> bool:
            return all(psutil.Process(pid).status() in states for pid in pids)

        assert group.signal_all("n1", signal.SIGSTOP)
        wait_until(lambda: all_are(psutil.STATUS_STOPPED), "both to be stopped")
        assert group.signal_all("n1", signal.SIGCONT)
        wait_until(lambda: all_are(psutil.STATUS_SLEEPING), "both to go on")
        group.kill_all("n1")
        assert all(is_gone(pid) for pid in pids), "it waits for the end of both"
        assert not group.signal_all("n1", signal.SIGSTOP)
        assert group.ended() == {}


def test_who_ended_on_its_own_is_told(tmp_path: Path, wait_until: WaitUntil) -> None:
    log = tmp_path / "log"
    with ProcessGroup() as group:
        group.spawn("fails", ["sh", "-c", "echo why; exit 7"], stdout_path=log)
        group.spawn("killed", SLEEP, stdout_path=log)
        group.kill("killed")
        wait_until(lambda: not group.running("fails"), "the end of the child")
        assert group.ended() == {"fails": 7}
        assert log.read_text() == "why\n"
        with pytest.raises(ProcessError, match=r"cannot start x: .*No such file"):
            group.spawn("x", [tmp_path / "nothing"], stdout_path=log)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (["starts", "stops"], "stops"),
        (
            ['{"level":"panic","error":"no room"}', "panic: no WAL", "", "main()", "\tmain.go:1"],
            "room",
        ),
        (["panic: no WAL", "", "goroutine 1 [running]:", "\tmain.go:1"], "panic: no WAL"),
    ],
)
def test_last_words_tell_the_reason_not_the_end_of_a_trace(
    log: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "n1.log").write_text("\n".join(log))
    assert said in last_words(tmp_path / "n1.log").split(" ends: ")[1]


def test_ports_are_free_low_and_not_given_twice() -> None:
    ports = free_ports(40)
    again = free_ports(40)
    assert len({*ports, *again}) == 80
    assert all(1024 < port < 32768 for port in [*ports, *again])
    sockets = []
    for port in ports:
        taken = socket.create_server(("127.0.0.1", port))
        sockets.append(taken)
    # Twice 300 goes more than once round the block.
    assert not {*free_ports(300), *free_ports(300)} & set(ports)
    for taken in sockets:
        taken.close()
    with pytest.raises(NoFreePorts, match="501 free ports wanted"):
        free_ports(501)


def test_two_runs_side_by_side_get_different_ports() -> None:
    script = (
        "import sys; from chaos.clusters.processes import free_ports;"
        " print(*free_ports(300), flush=True); sys.stdin.read()"
    )
    ours = set(free_ports(300))
    others = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    theirs = []
    for other in others:
        assert other.stdout is not None
        theirs.append({int(port) for port in other.stdout.readline().split()})
    for other in others:
        other.communicate()
    first, second = theirs
    assert len(ours) == len(first) == len(second) == 300
    assert not ours & first
    assert not ours & second
    assert not first & second
