"""Where results go: a name that the tool made up is nobody else's; one that was given is kept."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.record.run_folder import RunFolder
from chaos.commands import main as cli
from chaos.commands import run as cli_run
from chaos.targets.folders import new_file, new_folder

SHORT = """
title: Short
shows: what a test needs
protocols: [raft, gossip]
nodes: 3
seed: 4
workload: {arrival: {open_loop: 40/s}, mix: {read: 1, write: 1}}
duration: 1s
"""


def typed(*arguments: str) -> int:
    """The exit code of ``capbench ...``, in this process."""
    sys.argv = ["capbench", *arguments]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(cli_run, "stamp", lambda: "2026-01-02T03-04-05")
    (tmp_path / "short.yaml").write_text(SHORT)
    (tmp_path / "other.yaml").write_text(SHORT.replace("seed: 4", "seed: 5"))
    return tmp_path


def runs(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("**/manifest.json"))


def test_many_at_once_get_a_folder_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: new_folder(tmp_path / "a" / "12-raft-7"), range(64)))
        files = list(pool.map(lambda _: new_file(tmp_path / "page.html"), range(64)))
    assert len(set(made)) == 64
    assert all(path.is_dir() for path in made)
    assert {path.name for path in made} >= {"12-raft-7", "12-raft-7-2", "12-raft-7-64"}
    assert len(set(files)) == 64
    assert {path.name for path in files} >= {"page.html", "page-2.html", "page-64.html"}


def test_runs_of_one_second_lie_beside_each_other(workspace: Path) -> None:
    for _ in range(2):
        assert typed("run", "short.yaml", "--target", "sim", "--out", "same") in (0, 5)
    first = "2026-01-02T03-04-05"
    assert runs(workspace / "same") == [
        f"{first}-gossip-4",
        f"{first}-gossip-4-2",
        f"{first}-raft-4",
        f"{first}-raft-4-2",
    ]
    assert (workspace / "same" / f"{first}-report.html").stat().st_size > 1000
    assert (workspace / "same" / f"{first}-report-2.html").stat().st_size > 1000


def test_comparisons_of_one_second_lie_beside_each_other(workspace: Path) -> None:
    for _ in range(2):
        assert typed("compare", "short.yaml", "-p", "gossip", "--target", "sim") in (0, 5)
    made = sorted(path.name for path in (workspace / "results/compare").iterdir())
    assert made == ["2026-01-02T03-04-05-4", "2026-01-02T03-04-05-4-2"]


def test_a_folder_that_was_named_is_refused_before_the_first_run(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare = ("compare", "--target", "sim", "--out", "mine", "-e", "short.yaml")
    assert typed(*compare, "-p", "gossip") in (0, 5)
    before = runs(workspace)
    assert typed(*compare, "-p", "raft", "-p", "gossip") == 2
    assert "mine/runs/short-gossip holds a run already; give another" in capsys.readouterr().err
    assert runs(workspace) == before


def test_own_experiments_are_compared(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of arguments and options, each with the protocols that it names."""
    compare = ("compare", "short.yaml", "--experiment", "other.yaml", "--target", "sim")
    assert typed(*compare, "-o", "a") in (0, 5)
    wanted = ["other-gossip", "other-raft", "short-gossip", "short-raft"]
    assert runs(workspace / "a") == wanted
    assert RunFolder(workspace / "a/runs/other-raft").manifest().seed == 5
    assert "short" in (out := capsys.readouterr().out)
    assert "other" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("short.yaml", "short.yaml"), "short.yaml is given twice"),
        (("short.yaml", "-e", "./short.yaml"), "short is given twice"),
        (("short.yaml", "-p", "raft", "-p", "raft"), "--protocol: raft is given twice"),
        (("nothing.yaml",), "nothing.yaml: No such file or directory"),
        (("detector-sweep",), "unknown experiment 'detector-sweep'"),
        (("leader-partitoin",), "did you mean leader-partition?"),
        (("twice.yaml",), "twice.yaml:4: protocols[1]: 'raft' is named twice"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_starts(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    (workspace / "twice.yaml").write_text(SHORT.replace("raft, gossip", "raft, raft"))
    assert typed("compare", *arguments, "--target", "sim") == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert not (workspace / "results").exists()
