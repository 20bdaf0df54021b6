"""A check ends when its budget does, wherever it is, and says what it had found until then."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bench.checkers import standalone
from bench.checkers.budget import Budget, OverBudget
from bench.checkers.models import banks, check, counters, ids, locks, queues, sets
from bench.checkers.staleness import check_staleness
from bench.checkers.transactions import cycles, list_append, rw_register
from chaos.commands.histories import judge as judging
from chaos.commands.histories.judge import Asked, judge

began: list[int] = []


@pytest.fixture(autouse=True)
def over_when_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is over once something is busy, not some time before on a slow machine."""
    began.clear()

    def look(_: Budget) -> None:
        if began:
            raise OverBudget("time")

    monkeypatch.setattr(Budget, "look", look)


def busy(*_: object, **__: object) -> None:
    """Python code that would not end for a long time."""
    began.append(1)
    until = time.monotonic() + 300.0
    while time.monotonic() < until:
        pass


ADDS = [("add", 1), ("read", [1])]
LOCKS: list[tuple[str, Any]] = [("acquire", 3), ("release", None)]
TRANSACTIONS = [("transaction", [["append", "x", 1], ["read", "x", [1]]])]
WRITES = [("transaction", [["write", "x", 1], ["read", "x", 1]])]
CASES: dict[str, tuple[object, str, list[tuple[str, Any]]]] = {
    "set-full": (sets, "keys_of", ADDS),
    "counter": (counters, "keys_of", [("add", 1), ("read", 1)]),
    "queue": (queues, "keys_of", [("enqueue", 1), ("dequeue", 1)]),
    "lock": (locks, "keys_of", [(op, None) for op, _ in LOCKS]),
    "fenced-lock": (locks, "keys_of", LOCKS),
    "bank": (banks, "keys_of", [("read", {"a": 1})]),
    "unique-ids": (ids, "keys_of", [("generate", 1)]),
    "append-kv": (check, "texts_as_registers", [("append", "a"), ("read", "a")]),
    "list-append": (list_append, "dependencies", TRANSACTIONS),
    "rw-register": (rw_register, "known_of", WRITES),
}


def asked(path: Path, model: str, operations: list[tuple[str, Any]]) -> Asked:
    lines = []
    for number, (op, value) in enumerate(operations):
        line: dict[str, Any] = {"process": 1, "outcome": "ok"}
        line |= {"invoked_ns": 10 * number, "completed_ns": 10 * number + 5}
        if op == "transaction":
            line["transaction"] = value
        else:
            line |= {"op": op} if value is None else {"op": op, "value": value}
            line |= {"key": "k"} if model in ("register", "append-kv") else {}
        lines.append(json.dumps(line))
    (path / "history.jsonl").write_text("\n".join(lines) + "\n")
    return Asked(path / "history.jsonl", model, None, None, None, 0, json=True)


@pytest.mark.parametrize("model", CASES)
def test_what_takes_too_long_is_unknown(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, name, operations = CASES[model]
    question = asked(tmp_path, model, operations)
    assert judge(question, 60.0, 4 << 30) == "valid"
    capsys.readouterr()
    monkeypatch.setattr(module, name, busy)
    assert judge(question, 60.0, 4 << 30) == "unknown"
    said = json.loads(capsys.readouterr().out)
    assert "out of time" in said["summary"]
    assert said.get("levels", {}).get("read-uncommitted", "unknown") == "unknown"


def test_each_check_of_a_register_is_stopped_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question = asked(tmp_path, "register", [("write", 1), ("read", 1)])
    monkeypatch.setattr(
        standalone,
        "check_staleness",
        lambda c, **more: busy() if len(c) else check_staleness(c, **more),
    )
    assert judge(question, 60.0, 4 << 30) == "valid"
    checks = {each["name"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert "out of time" not in checks["sessions"]["summary"]
    stopped = checks["staleness"]
    assert (stopped["verdict"], stopped["operations"]) == ("unknown", 2)
    assert "out of time" in stopped["summary"]


def test_what_was_found_in_time_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sets._Set, "_note_order", busy)
    assert judge(asked(tmp_path, "set-full", [*ADDS, ("read", [])]), 60.0, 4 << 30) == "invalid"
    said = json.loads(capsys.readouterr().out)
    assert (list(said["anomalies"]), said["strongest"]) == (["lost"], "none")
    # Of transactions, too; levels that are refuted by what had no example yet are not known.
    monkeypatch.setattr(cycles.Search, "process", busy)
    back = [*TRANSACTIONS, ("transaction", [["read", "x", []]])]
    worse = [*back, ("transaction", [["append", "y", 1], ["read", "y", []]])]
    assert judge(asked(tmp_path, "list-append", back), 60.0, 4 << 30) == "unknown"
    capsys.readouterr()
    assert judge(asked(tmp_path, "list-append", worse), 60.0, 4 << 30) == "invalid"
    assert "internal (own writes)" in capsys.readouterr().out


def test_a_watch_leaves_nothing_behind_and_is_of_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(OverBudget), Budget().watched():
        busy()
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGVTALRM) is before
    ended: list[bool] = []

    def elsewhere() -> None:
        with Budget().watched():
            ended.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert ended == [True]


def test_a_history_that_does_not_fit_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judging, "read_any", busy)
    assert judge(asked(tmp_path, "queue", []), 60.0, 4 << 30) == "unknown"
    assert "more memory than --memory allows" in json.loads(capsys.readouterr().out)["summary"]
