"""Several clusters that stay in one directory, and what their names may not do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest

from bench.record.cluster_file import read_cluster_file
from bench.record.run_folder import RunFolder
from chaos.clusters import by_name as clusters
from chaos.clusters.pids import started
from chaos.errors import TargetFailed
from chaos.targets import up as keeper_room
from tests.live.conftest import Typed, capbench, leftovers
from tests.waiting import wait_for

pytestmark = pytest.mark.live


def test_no_name_leads_out_of_our_folder(workspace: Path, typed: Typed) -> None:
    precious = workspace / "results" / "old" / "run"
    precious.parent.mkdir(parents=True)
    precious.touch()
    for name in ("../results", str(workspace / "results"), "", ".", "..", "a/b", "a+b", "#"):
        for command in ("up", "down", "status", "inject", "heal", "load", "members"):
            arguments = {"inject": ["broker-pause"], "members": ["add", "n1"]}.get(command, [])
            code, out, err = typed(command, *arguments, "--name", name)
            assert (code, out) == (2, ""), (command, name)
            assert "is no name; a name has letters" in err
    # Nor is a folder that somebody else made taken.
    theirs = workspace / ".capbench" / "demo" / "theirs"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    code, _, err = typed("up")
    assert (code, "demo: is there already and not of capbench's making" in err) == (2, True), err
    assert typed("down")[0] == 0
    assert theirs.exists()
    assert precious.exists()


def test_without_a_cluster_every_command_says_so_with_one_code(
    workspace: Path, typed: Typed
) -> None:
    asking = (
        ["status"],
        ["inject", "broker-pause"],
        ["heal"],
        ["load"],
        ["members", "add", "n1"],
        ["transfer-leadership", "n1"],
    )
    for arguments in asking:
        code, _, err = typed(*arguments)
        assert code == 3, arguments
        assert err == "capbench: no cluster is running here; start one with `capbench up`\n"
        code, _, err = typed(*arguments, "--name", "A")
        assert code == 3, arguments
        assert err == "capbench: cluster A is not running; start one with `capbench up`\n"
    code, out, _ = typed("down")
    assert (code, out) == (0, "no cluster is running here; start one with `capbench up`\n")
    before = workspace / ".capbench" / "cluster.json"
    before.parent.mkdir()
    before.write_text("{}")
    code, _, err = typed("status")
    assert (code, len(err.splitlines())) == (3, 1)
    assert ".capbench/cluster.json: is of an earlier version" in err


def test_each_of_two_clusters_is_reached_by_its_name_and_outlives_the_other(
    workspace: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPBENCH_NOTES", str(workspace / "notes"))
    for name, protocol in (("A", "gossip"), ("B", "raft")):
        done = capbench("up", "-p", protocol, "--nodes", "1", "--name", name, cwd=workspace)
        assert done.returncode == 0, done.stderr
    told = {each["cluster"]: each["protocol"] for each in typed.json("status")["clusters"]}
    assert told == {"A": "gossip", "B": "raft"}
    for arguments in (["inject", "broker-pause"], ["heal"], ["load"], ["members", "add", "n1"]):
        code, _, err = typed(*arguments)
        assert (code, "running: A, B; say which with --name" in err) == (2, True), (arguments, err)
    code, _, err = typed("down")
    assert (code, "running: A, B" in err) == (2, True)
    assert typed("members", "add", "n1", "--name", "B") == (0, "n1 is a member already\n", "")
    assert typed("heal", "--name", "A")[0] == 0

    # Nobody takes the folder of one that runs, or is only just starting.
    with pytest.raises(TargetFailed, match="running already, or just starting"):
        keeper_room.claim("A")
    assert not keeper_room.clear("A")

    assert typed("down", "--name", "B") == (0, "cluster B: stopped\n", "")
    assert typed.json("status")["cluster"] == "A"
    code, _, err = typed("load", "-t", "1s", "--rate", "50", "--out", "load")
    assert code in (0, 1), err
    assert RunFolder(workspace / "load").manifest().protocol == "gossip"
    assert read_cluster_file(None).cluster == "A", "Locust on its own finds it, too"

    # A name that is mistyped stops nothing, and is not taken for one that is stopped already.
    code, out, err = typed("down", "--name", "AA")
    assert (code, out) == (2, "")
    assert err == "capbench: no cluster here is named 'AA'; known: A\n"

    # Its keeper is killed: that is what is said, until the next one starts or it is cleared.
    pid = clusters.find("A").pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: leftovers(workspace) == [], "everything to end")
    for arguments in (["status"], ["status", "--name", "A"], ["heal"], ["load"]):
        code, _, err = typed(*arguments)
        assert code == 3, arguments
        assert "cluster A is not running: its keeper was killed; start one" in err, arguments
    assert clusters.known() == ["A"]

    # Beside one that lives it is shown, and neither steered nor stopped without its name.
    done = capbench("up", "-p", "gossip", "--nodes", "1", "--name", "C", cwd=workspace)
    assert done.returncode == 0, done.stderr
    alive, dead = typed.json("status")["clusters"]
    assert (alive["cluster"], alive["nodes"].keys()) == ("C", {"n1"})
    assert dead == {"cluster": "A", "not_running": "its keeper was killed"}
    code, out, _ = typed("status")
    assert (code, out.splitlines()[0].strip()) == (0, "C: gossip")
    assert "A: not running: its keeper was killed; `capbench down --name A`" in out
    assert typed("heal") == (0, "no fault is on\n", "")
    assert typed("down") == (0, "cluster C: stopped\n", "")
    removed = "cluster A: was not running; leftovers removed\n"
    assert typed("down") == (0, removed, "")
    assert clusters.known() == []
    assert not (workspace / ".capbench" / "A").exists()
    assert typed("down")[0] == 0


def test_a_folder_that_was_copied_is_no_cluster(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or `down` there would stop the one of the first folder."""
    monkeypatch.chdir(workspace)
    with keeper_room.claim("A"):
        folder = clusters.folder("A").resolve()
        keeper = clusters.Keeper(
            name="A",
            pid=os.getpid(),
            started=started(os.getpid()) or "",
            protocol="raft",
            nodes=1,
            broker="127.0.0.1:1",
            directory=str(folder),
        )
        (folder / "keeper.json").write_bytes(msgspec.json.encode(keeper))
        assert clusters.find(None) == keeper
        (workspace / "copy").mkdir()
        (workspace / ".capbench").rename(workspace / "copy" / ".capbench")
        monkeypatch.chdir(workspace / "copy")
        assert clusters.running("A") is None
