"""Systems that stay: two labs side by side, faults by hand, a load, and what `down` leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.record.run_folder import RunFolder
from chaos.systems.system import Programs
from tests.live.conftest import Typed, capbench, leftovers
from tests.waiting import wait_for

pytestmark = pytest.mark.live


def roles(typed: Typed, name: str) -> list[str]:
    told = typed.json("status", "--name", name)
    return [node["probe"]["role"] for node in told["nodes"].values() if node is not None]


def test_two_labs_side_by_side(
    place: Path,
    to_be_had: Callable[[str], Programs],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to_be_had("redis-sentinel")
    monkeypatch.chdir(place)
    typed = Typed(monkeypatch, capsys)
    names = ("one", "two")
    try:
        for name in names:
            # In a process of its own: it leaves a keeper.
            done = capbench("up", "-p", "redis-sentinel", "--name", name, cwd=place)
            assert done.returncode == 0, done.stderr
        for name in names:
            assert sorted(roles(typed, name)) == ["follower", "follower", "leader"]
        typed.json("inject", "partition", "groups=leader-alone", "--name", "one")
        # The sentinels fail over in the one, and nothing happens in the other.
        wait_for(lambda: roles(typed, "one").count("leader") == 2, "a second master", every_s=0.2)
        assert roles(typed, "two").count("leader") == 1
        assert len(typed.json("status", "--name", "one")["faults"]) == 1
        load = ("load", "--rate", "50", "--run-time", "2s", "--name", "one", "-o", "load")
        loaded = typed.json(*load)
        assert loaded["operations"]["write"].keys() == {"ok"}
        folder = RunFolder(place / "load")
        assert (folder.manifest().protocol, folder.manifest().target) == ("redis-sentinel", "lab")
        typed.json("heal", "--name", "one")
        wait_for(lambda: roles(typed, "one").count("leader") == 1, "one master", every_s=0.2)
    finally:
        for name in names:
            typed("down", "--name", name)
    wait_for(lambda: not leftovers(place), "the end of both")
    assert os.listdir(place / ".capbench") == []
