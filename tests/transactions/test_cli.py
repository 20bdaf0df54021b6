"""`capbench check` of transactions: the verdict is the exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from chaos.commands.main import main


def check(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["capbench", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def write(tmp_path: Path, *transactions: list[list[Any]]) -> Path:
    """A file of transactions at one time."""
    path = tmp_path / "history.jsonl"
    times = {"invoked_ns": 0, "completed_ns": 9, "outcome": "ok"}
    lines = [{"process": n, "transaction": t, **times} for n, t in enumerate(transactions)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


SKEW: list[list[Any]] = [
    [["read", "y", []], ["append", "x", 1]],
    [["read", "x", []], ["append", "y", 1]],
]


def test_a_level_is_judged_and_all_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, *SKEW)
    assert check(monkeypatch, path) == 4
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{path}: invalid: strict-serializable forbids what was found: G2-item"
    assert "  strongest not refuted: snapshot-isolation" in told
    assert "    T1 read y=[], without 1, which T2 wrote" in told
    assert check(monkeypatch, path, "--level", "snapshot-isolation") == 0
    assert "valid: nothing contradicts snapshot-isolation" in capsys.readouterr().out


def test_what_is_not_decided_is_not_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "open.jsonl"
    line = {"process": 1, "transaction": [["append", "x", 1]], "invoked_ns": 0}
    path.write_text(json.dumps({**line, "completed_ns": None, "outcome": "info"}) + "\n")
    assert check(monkeypatch, path) == 5
    assert "  strongest not refuted: unknown" in capsys.readouterr().out.splitlines()


def test_json_has_the_cycle_as_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, *SKEW)
    assert check(monkeypatch, path, "--model", "list-append", "--json") == 4
    body = json.loads(capsys.readouterr().out)
    assert body["levels"]["serializable"] == "invalid"
    (anomaly,) = body["anomalies"]
    assert [vertex["id"] for vertex in anomaly["transactions"]] == [1, 2]
    assert {(e["source"], e["target"], e["kind"]) for e in anomaly["edges"]} == {
        (0, 1, "rw"),
        (1, 0, "rw"),
    }


def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, [["append", "x", 1], ["append", "x", 1]])
    assert check(monkeypatch, path) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"capbench: {path}: transaction ")
    assert "1 is appended to x for the second time" in told
    assert check(monkeypatch, path, "--initial", "1") == 2
    assert check(monkeypatch, path, "--level", "read-comitted") == 2
    assert "read-committed" in capsys.readouterr().err
