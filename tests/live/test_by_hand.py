"""`capbench inject` and `capbench heal` on a cluster that stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from bench.record.run_folder import RunFolder
from tests.live.conftest import Typed, capbench, leftovers
from tests.processes import begun, command_line
from tests.waiting import patience, wait_for

pytestmark = pytest.mark.live


def up(workspace: Path) -> None:
    done = capbench("up", "--protocol", "raft", "--nodes", "3", cwd=workspace)
    assert done.returncode == 0, done.stderr


def probe(typed: Typed, node: str) -> dict[str, Any]:
    record = typed.json("status")["nodes"][node]
    return {} if record is None else record["probe"]


def keeper(workspace: Path) -> int:
    (path,) = (workspace / ".capbench").glob("*/keeper.json")
    return int(msgspec.json.decode(path.read_bytes())["pid"])


def node_pid(workspace: Path, node: str) -> int:
    for process in psutil.Process(keeper(workspace)).children(recursive=True):
        if f"/{node}/settings.json" in " ".join(command_line(process)):
            return process.pid
    raise AssertionError(f"{node} does not run")


def test_a_fault_by_hand_bites_and_its_end_restores(workspace: Path, typed: Typed) -> None:
    up(workspace)
    (fault,) = typed.json("inject", "partition", "groups=isolate", "node=n2")["faults"]
    assert fault["groups"] == [["n2"], ["n1", "n3"]]
    wait_for(lambda: probe(typed, "n2").get("leader") is None, "n2 to lose its leader")
    assert probe(typed, "n1")["leader"] in ("n1", "n3")
    assert "fault 0: partition groups=isolate node=n2 (n2 | n1 n3) on for " in typed("status")[1]

    # A second one, over it, that ends by itself.
    code, out, err = typed("inject", "crash", "nodes=[n3]", "--for", "300ms")
    assert code == 0, err
    assert '1: crash nodes=["n3"]' in out
    wait_for(lambda: [f["number"] for f in typed.json("status")["faults"]] == [0], "its end")
    assert node_pid(workspace, "n3")

    (healed,) = typed.json("heal", "0")["faults"]
    assert healed["healed_ns"] is not None
    wait_for(lambda: probe(typed, "n2").get("ready"), "n2 to find a leader")
    assert typed.json("status")["faults"] == []
    assert typed("heal")[1] == "no fault is on\n"
    recorded = RunFolder(workspace / ".capbench" / "demo").faults()
    assert [(r.number, r.fault, r.error) for r in recorded] == [
        (0, "partition", None),
        (1, "crash", None),
    ]
    assert all(r.healed_ns is not None for r in recorded)

    # What cannot be is said in a line, and changes nothing.
    for wrong, code, said in [
        (("inject", "partition", "groups=thirds"), 2, "inject: groups: unknown group 'thirds'"),
        (("inject", "partition"), 2, "inject: groups: is missing"),
        (("inject", "partitoin"), 2, "did you mean partition?"),
        (("inject", "crash", "nodes=[n9]"), 2, "unknown node 'n9'"),
        (("inject", "crash", "nodes"), 2, "use field=value"),
        (("inject", "network-disconnect", "nodes=[n1]"), 2, "it works on: compose"),
        (("inject", "crash", "nodes=[n1"), 2, "not YAML"),
        (("inject", "crash", "nodes=all", "--for", "soon"), 2, "not a duration"),
        (("heal", "7"), 2, "no fault 7 is on (on: none)"),
        (("inject", "bit-flip", "nodes=[n1]"), 3, "nothing in it is old"),
    ]:
        ended, _, err = typed(*wrong)
        assert (ended, said in err) == (code, True), (wrong, err)
    assert typed.json("status")["faults"] == []

    # Nor does garbage on the socket end the keeper.
    path = workspace / ".capbench" / "demo" / "socket"
    assert path.stat().st_mode & 0o077 == 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"\xff{nonsense\n")
        assert b'"refused":"' in connection.recv(10_000)
    assert typed.json("status")["faults"] == []


def test_what_was_injected_during_a_load_stands_in_its_folder(
    workspace: Path, typed: Typed
) -> None:
    up(workspace)
    typed.json("inject", "pause", "nodes=[n1]", "--for", "100ms")
    wait_for(lambda: typed.json("status")["faults"] == [], "a fault before the load to end")
    command = "load -t 8s --rate 50 -o loaded"
    silent = subprocess.DEVNULL
    loaded = begun(*command.split(), cwd=workspace, stdout=silent, stderr=None)
    began = workspace / "loaded" / "load"
    wait_for(lambda: any(began.glob("*.started")), "the load to begin")
    (fault,) = typed.json("inject", "partition", "groups=leader-alone", "--for", "2s")["faults"]
    assert loaded.wait(patience(60)) in (0, 1)
    (recorded,) = RunFolder(workspace / "loaded").faults()
    assert (recorded.number, recorded.groups) == (1, fault["groups"])
    checked = capbench("check", "loaded", "--json", cwd=workspace)
    (found,) = [
        each
        for each in msgspec.json.decode(checked.stdout)["checks"]
        if each["name"] == "availability"
    ]
    assert set(found["details"]["windows"]) > {"before", "during"}
    assert [each["number"] for each in found["details"]["faults"]] == [1]


def test_a_killed_keeper_leaves_nothing_and_another_starts(workspace: Path, typed: Typed) -> None:
    up(workspace)
    for fault in (("pause", "nodes=[n1]"), ("partition", "groups=halves"), ("broker-pause",)):
        code, _, err = typed("inject", *fault)
        assert code == 0, (fault, err)
    os.kill(keeper(workspace), signal.SIGKILL)
    wait_for(lambda: leftovers(workspace) == [], "everything to end")
    code, _, err = typed("heal")
    assert code == 3
    assert "start one with `capbench up`" in err
    up(workspace)
    assert typed.json("status")["faults"] == []
