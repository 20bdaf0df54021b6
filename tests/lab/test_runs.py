"""A run in the lab, as a user types it: etcd whose leader is cut off."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from bench.children import python
from bench.record.run_folder import RunFolder
from chaos.clusters.lab.links import Cut
from chaos.clusters.processes import ProcessGroup
from chaos.systems import catalogue
from chaos.systems.system import Programs
from chaos.targets import lab
from tests.live.conftest import capbench, leftovers, run_json
from tests.waiting import wait_for

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def etcd_run(place: Path, to_be_had: Callable[[str], Programs]) -> tuple[dict[str, Any], RunFolder]:
    """The one run that most of these tests look at, of a version that is named."""
    there = to_be_had("etcd").version
    name = f"etcd@{there}" if there in catalogue.get("etcd").versions else "etcd"
    code, told = run_json("run", "short.yaml", "-p", name, "-o", "out", cwd=place)
    (run,) = told["runs"]
    assert code == 0, run
    assert run["protocol"] == name
    return run, RunFolder(place / run["folder"])


def test_etcd_is_judged_like_a_protocol(etcd_run: tuple[dict[str, Any], RunFolder]) -> None:
    run, folder = etcd_run
    assert (run["target"], run["claim"]) == ("lab", "linearizable")
    assert run["verdict"] == "valid"
    assert run["measured_model"] == "linearizable"
    assert run["converged"] is True
    assert run["elections"] >= 1
    assert re.fullmatch(r"3\.\d+\.\d+.*", folder.manifest().versions["system"])
    assert run["setup"]["system"] == folder.manifest().versions["system"]


def test_it_is_warm_before_the_load(etcd_run: tuple[dict[str, Any], RunFolder]) -> None:
    _, folder = etcd_run
    (note,) = [note for note in folder.manifest().notes if note.startswith("warm-up: ")]
    assert note.endswith("until 80 in a second ended ok")
    assert not any("warm-up" in operation.key for operation in folder.operations())


def test_what_it_cost_is_measured_like_a_protocol(
    etcd_run: tuple[dict[str, Any], RunFolder], place: Path
) -> None:
    run, _ = etcd_run
    cost = run["cost"]
    # Three nodes that each write a log and talk to the others; no more than a second of CPU each.
    assert 100 < cost["cpu_us"] < 1e6
    assert 100 < cost["bytes_sent"] < 100_000
    assert 30 < cost["memory_mb"] < 3_000
    # Each write is in three logs.
    assert 0.5 < cost["syncs"] < 30
    for form, head in ((), " CPU "), (("--format", "md"), "| CPU |"):
        said = capbench("report", "out", *form, cwd=place).stdout
        assert head in said, form


def cuts(folder: RunFolder) -> list[Cut]:
    lines = (folder.path / "cuts.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Cut) for line in lines]


def test_a_cut_is_proved(etcd_run: tuple[dict[str, Any], RunFolder]) -> None:
    _, folder = etcd_run
    (fault,) = folder.faults()
    assert fault.parameters["chosen_by"] == "leader"
    found = cuts(folder)
    assert sorted(cut.link for cut in found) == sorted(fault.links)
    assert len(found) == 4
    assert [cut.bytes for cut in found] == [0, 0, 0, 0]
    assert sum(cut.connections for cut in found) > 0
    (note,) = [note for note in folder.manifest().notes if note.startswith("cuts: ")]
    assert "4 directed links were cut" in note
    assert "0 bytes passed" in note


def test_the_side_without_the_old_leader_elects_another(
    etcd_run: tuple[dict[str, Any], RunFolder],
) -> None:
    _, folder = etcd_run
    (fault,) = folder.faults()
    assert fault.groups is not None
    (old,), others = fault.groups
    assert fault.applied_ns is not None
    assert fault.heal_started_ns is not None
    leaders = {
        record.node
        for record in folder.node_records()
        if record.probe.get("role") == "leader"
        and fault.applied_ns < record.t_ns < fault.heal_started_ns
    }
    assert leaders & set(others)
    written = [
        each
        for each in folder.operations()
        if each.op == "write"
        and each.outcome == "ok"
        and each.completed_ns is not None
        and fault.applied_ns < each.invoked_ns
        and each.completed_ns < fault.heal_started_ns
    ]
    assert old not in {each.node for each in written}
    assert written


def test_nothing_is_left_of_it(etcd_run: tuple[dict[str, Any], RunFolder], place: Path) -> None:
    _, folder = etcd_run
    assert leftovers(place) == []
    assert [path.name for path in (folder.path / "cluster").iterdir() if path.is_dir()] == []
    assert not Path("/run/netns/n1").exists()


def test_a_killed_runner_leaves_nothing(place: Path, to_be_had: Callable[[str], Programs]) -> None:
    """The runner is an ordinary user's, also where these tests are root's."""
    to_be_had("etcd")
    is_root = os.geteuid() == 0
    as_user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if is_root else []
    run = [sys.executable, "-P", "-m", "chaos.commands.main", "run", "short.yaml", "-p", "etcd"]
    runner = subprocess.Popen(
        [*as_user, *run],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(place)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(etcds(place)) == 3, "three nodes of etcd")
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    wait_for(lambda: not leftovers(place), "the end of all that the runner had started")
    (said,) = capbench("list", cwd=place).stderr.splitlines()
    assert "was killed: removed the data of 3 nodes" in said


def test_a_lab_that_has_just_begun_ends_when_it_is_told_to(
    place: Path, to_be_had: Callable[[str], Programs]
) -> None:
    """Before it catches signals, the first process of a namespace never sees them."""
    to_be_had("etcd")
    directory = place / "begun"
    wanted = lab.order(catalogue.get("etcd"), ("n1",), directory, cluster="begun", socket="none")
    with ProcessGroup() as processes:
        inside = lab.Inside(processes, wanted)
        wait_for(lambda: inside.pid() is not None, "its first process")
        inside.stop()
        assert not processes.running("lab")
    assert leftovers(directory) == []


def etcds(place: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "etcd" and str(place) in " ".join(process.info["cmdline"] or [])
    ]


# --- what is refused ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("healthy", "-p", "etcd", "--target", "sim"), "etcd is a system, which the target sim"),
        (("healthy", "-p", "raft", "--target", "lab"), "raft is a protocol, which the target lab"),
        (("slow-disk", "-p", "etcd"), "the target lab has no fault 'slow-fsync'"),
        (("healthy", "-p", "etcd@9"), "etcd has no version '9'; to name: 3.4.23, 3.5.2, 3.7.3"),
    ],
    ids=["a system elsewhere", "a protocol in the lab", "a fault that cannot be", "a version"],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    place: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = capbench("run", *arguments, "-o", "refused", cwd=place)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not (place / "refused").exists()


@pytest.mark.parametrize(
    ("command", "reason", "hint"),
    [
        ("run short.yaml -p etcd -o none", "Operation not permitted", ""),
        ("compare --preset systems -o none", "Operation not permitted", ""),
        ("up -p etcd --name none", "No space left on device", "user.max_user_namespaces"),
    ],
)
def test_a_machine_that_refuses_namespaces_is_told(
    command: str, reason: str, hint: str, place: Path, tmp_path: Path
) -> None:
    unshare = tmp_path / "unshare"
    unshare.write_text(f"#!/bin/sh\necho 'unshare failed: {reason}' >&2\nexit 1")
    unshare.chmod(0o755)
    done = subprocess.run(
        [*python("chaos.commands.main"), *command.split()],
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "cannot make namespaces" in line
    assert reason in line
    assert hint in line
    assert not (place / "none").exists()
    assert not (place / ".capbench" / "none").exists()
