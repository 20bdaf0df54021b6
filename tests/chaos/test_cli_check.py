"""`capbench check` on histories: the verdict is the exit code, and a mistake is one line."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from chaos.commands.main import main
from tests.reports import synthetic

WRITE = {"process": 1, "op": "write", "key": "x", "value": 7, "outcome": "ok"}
READ = {"process": 2, "op": "read", "key": "x", "outcome": "ok"}


def history(tmp_path: Path, *lines: dict[str, object]) -> Path:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return path


def check(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["capbench", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_a_stale_read_is_refuted_with_the_operations_that_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = history(
        tmp_path,
        {**WRITE, "invoked_ns": 0, "completed_ns": 90},
        {**READ, "value": None, "invoked_ns": 100, "completed_ns": 170},
    )
    assert check(monkeypatch, path, "--json") == 4
    result = msgspec.json.decode(capsys.readouterr().out)
    assert set(result) == {
        *("verdict", "model", "algorithm", "strongest", "operations", "seconds", "witness"),
        *("reason", "checks"),
    }
    assert [check["name"] for check in result["checks"]] == [
        *("sequential", "causal", "sessions", "staleness", "convergence")
    ]
    assert (result["verdict"], result["strongest"]) == ("invalid", "sequential")
    assert [line["operation"]["op"] for line in result["witness"]] == ["write", "read"]
    assert check(monkeypatch, path, "--initial", "null") == 4
    assert "wrote x=7 (ok)" in capsys.readouterr().out


def test_clocks_of_several_hosts_may_differ_by_a_bound_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ms = 1_000_000
    path = history(
        tmp_path,
        {**WRITE, "invoked_ns": 0, "completed_ns": 90 * ms},
        {**READ, "value": None, "invoked_ns": 100 * ms, "completed_ns": 170 * ms},
    )
    assert check(monkeypatch, path, "--clock-error", "9ms") == 4
    assert check(monkeypatch, path, "--clock-error", "10ms") == 0
    assert check(monkeypatch, path, "--clock-error", "soon") == 2
    assert "--clock-error: 'soon' is not a duration; use a number" in capsys.readouterr().err


def test_a_run_folder_keeps_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = synthetic.healthy(tmp_path / "run", "raft")
    assert folder.manifest().clock_error_ns == 0
    assert check(monkeypatch, folder.path, "--clock-error", "5ms") == 0
    assert folder.manifest().clock_error_ns == 5_000_000
    assert check(monkeypatch, folder.path) == 0
    assert folder.manifest().clock_error_ns == 5_000_000


def test_a_run_of_before_is_judged_anew_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "raft")
    told = msgspec.json.decode(folder.verdict_path.read_bytes())
    folder.verdict_path.write_bytes(
        msgspec.json.encode({**told, "schema_version": 1, "checks": []})
    )
    assert check(monkeypatch, folder.path) == 0
    text = capsys.readouterr().out
    said = "judged again by the current definitions (version 4); verdict.json was of version 1"
    assert said in text
    assert "availability: valid (1200 operations): served within 2 s: before 1.000" in text
    kept = folder.verdict()
    assert kept is not None
    assert (kept.schema_version, len(kept.checks)) == (4, len(told["checks"]))
    assert check(monkeypatch, folder.path) == 0
    assert "judged again" not in capsys.readouterr().out


def test_what_the_keys_held_at_first_can_be_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = history(tmp_path, {**READ, "value": 0, "invoked_ns": 0, "completed_ns": 5})
    assert check(monkeypatch, path) == 4
    assert check(monkeypatch, path, "--initial", "0") == 0


def test_a_search_over_its_budget_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred overlapping writes of two values, and reads that see them in turn."""
    lines: list[dict[str, object]] = [
        {**WRITE, "process": f"w{n}", "value": n % 2, "invoked_ns": n, "completed_ns": 9000 + n}
        for n in range(200)
    ]
    lines += [
        {**READ, "process": f"r{n}", "value": n % 2, "invoked_ns": 300 + n, "completed_ns": 8000}
        for n in range(200)
    ]
    lines.append({**READ, "process": "z", "value": 5, "invoked_ns": 9500, "completed_ns": 9600})
    lines.append({**WRITE, "process": "y", "value": 5, "invoked_ns": 9700, "completed_ns": 9800})
    lines.append({**WRITE, "process": "x", "value": 5, "invoked_ns": 1, "completed_ns": None})
    lines[-1]["outcome"] = "info"
    assert check(monkeypatch, history(tmp_path, *lines), "--budget", "1ms") == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "soon"], "--budget: 'soon' is not a duration; use a number with a unit: 10s"),
        (["--memory", "4X"], "--memory: '4X' is not a size"),
        (["--model", "heap"], "unknown model 'heap'; use"),
        (["--initial", "[1]"], "--initial: a value is null, a bool, number or string"),
        (["--initial", "'"], '--initial: "\'" is not JSON'),
        (["--initial", "NaN"], "--initial: 'NaN' is not JSON"),
        (["--initial", "Infinity"], "--initial: 'Infinity' is not JSON"),
        (
            ["--initial", "9" * 9000],
            "--initial: a value is null, a bool, number or string (Integer",
        ),
    ],
)
def test_a_wrong_option_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    path = history(tmp_path, {**WRITE, "invoked_ns": 0, "completed_ns": 90})
    assert check(monkeypatch, path, *arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_bad_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {**WRITE, "invoked_ns": 0, "completed_ns": 90}
    path = history(tmp_path, good, {**READ, "invoked_ns": 9, "completed_ns": 5})
    assert check(monkeypatch, path) == 2
    assert "history.jsonl:2:" in capsys.readouterr().err
    assert check(monkeypatch, tmp_path / "absent.jsonl") == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'\xef\xbb\xbf{"process":1}\n', "begins with a byte order mark"),
        ('{"process":1}\n'.encode("utf-16"), "is UTF-16"),
        ('{"process":1}\n'.encode("utf-16-le"), "is UTF-16"),
        ('{"process":1}\n'.encode("utf-16-be"), "is UTF-16"),
        (gzip.compress(b'{"process":1}\n', mtime=0), "is compressed with gzip"),
        (b'{"value":%s}\n' % (b"9" * 400), "an integer has more than 64 bits - at `$.value`"),
        (b'{"value":%s}\n' % (b"9" * 9000), "Integer value out of range"),
        (b'{"process":1,"value":NaN}\n', "JSON is malformed"),
        (b"\0\1\2\n", "JSON is malformed"),
    ],
)
def test_what_is_no_history_is_one_line_with_the_files_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    says: str,
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)
    assert check(monkeypatch, path) == 2
    error = capsys.readouterr().err
    assert says in error
    assert f"{path}:" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["absent.jsonl", "", "/proc/self/mem", "h.jsonl/x", "x" * 300])
def test_a_file_that_cannot_be_read_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "h.jsonl").write_text("")
    assert check(monkeypatch, tmp_path / name) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / name) in error
    assert error.count("\n") == 1


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = msgspec.json.encode({**WRITE, "invoked_ns": 0, "completed_ns": 90}) + b"\n"
    stale = msgspec.json.encode({**READ, "value": None, "invoked_ns": 91, "completed_ns": 92})

    def typed(content: bytes) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return check(monkeypatch, "-")

    assert typed(good) == 0
    assert "standard input: valid" in capsys.readouterr().out
    assert typed(good + stale) == 4
    assert typed(b"") == 5
    assert typed(good + b"{}\n") == 2
    assert "standard input:2: Object missing required field" in capsys.readouterr().err


@pytest.mark.parametrize("outcome", ["fail", "info"])
def test_nothing_that_ended_ok_is_unknown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: str,
) -> None:
    path = history(tmp_path, {**WRITE, "outcome": outcome, "invoked_ns": 0, "completed_ns": 90})
    assert check(monkeypatch, path) == 5
    told = capsys.readouterr().out
    assert "unknown: no operation was answered ok" in told
    assert "strongest model not refuted: unknown" in told


def test_a_named_pipe_is_not_waited_for_and_that_of_a_shell_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "history.jsonl"
    os.mkfifo(pipe)
    assert check(monkeypatch, pipe) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "history.jsonl: is a named pipe" in line
    assert "| capbench check -" in line
    reading, writing = os.pipe()
    try:
        os.write(
            writing, msgspec.json.encode({**WRITE, "invoked_ns": 0, "completed_ns": 9}) + b"\n"
        )
        os.close(writing)
        assert check(monkeypatch, f"/dev/fd/{reading}") == 0
    finally:
        os.close(reading)


def test_a_queue_is_judged_as_its_operations_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enqueue = {**WRITE, "op": "enqueue", "invoked_ns": 0, "completed_ns": 5}
    del enqueue["key"]
    drain = {**enqueue, "op": "drain", "value": [], "invoked_ns": 9, "completed_ns": 12}
    path = history(tmp_path, enqueue, drain)
    assert check(monkeypatch, path) == 4
    told = capsys.readouterr().out
    assert "invalid: 7 was enqueued, nobody took it, and the queue was empty" in told
    assert "2 operations of a queue, by pairs of elements" in told
    assert "4 ns later drain [] (ok)" in told
    assert check(monkeypatch, path, "--json", "--model", "total-queue") == 4
    result = msgspec.json.decode(capsys.readouterr().out)
    assert result["anomalies"]["lost"]["count"] == 1
    assert [step["operation"]["op"] for step in result["witness"]] == ["enqueue", "drain"]
    assert check(monkeypatch, path, "--model", "register") == 2
    assert "Invalid enum value 'enqueue'" in capsys.readouterr().err
    assert check(monkeypatch, path, "--clock-error", "1ms") == 2
    assert "--clock-error is for registers and transactions" in capsys.readouterr().err


def test_numbers_of_a_lock_that_are_not_looked_at_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether they grow is of another model, which the operations alone do not tell."""
    acquire = {**WRITE, "op": "acquire", "value": 7, "invoked_ns": 0, "completed_ns": 5}
    release = {**acquire, "op": "release", "value": None, "invoked_ns": 6, "completed_ns": 9}
    again = {**acquire, "process": "b", "id": 9, "invoked_ns": 10, "completed_ns": 12}
    path = history(tmp_path, acquire, release, again)
    assert check(monkeypatch, path) == 0
    assert "was not looked at; growing numbers are of a fenced-lock" in capsys.readouterr().out
    assert check(monkeypatch, path, "--model", "fenced-lock") == 4
    silent = [{**each, "value": None} for each in (acquire, release, again)]
    assert check(monkeypatch, history(tmp_path, *silent)) == 0
    assert "not looked at" not in capsys.readouterr().out


def test_a_history_in_edn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.edn"
    path.write_text(
        "{:process 0 :type :invoke :f :write :value 1}\n{:process 0 :type :ok :f :write :value 1}\n"
        "{:process 1 :type :invoke :f :read :value nil}\n{:process 1 :type :ok :f :read :value nil}"
    )
    assert check(monkeypatch, path) == 0
    assert check(monkeypatch, path, "--nil-reads", "null") == 4
    path.write_text("{:process 0 :type :ok :f :write :value 1}\n")
    assert check(monkeypatch, path) == 2
    assert f"{path}:1: process 0 completes what it never invoked" in capsys.readouterr().err


def test_who_reads_only_the_first_lines_gets_the_verdict_too(tmp_path: Path) -> None:
    """As with ``| head -1``; Click would end with 1, and that means something else."""
    path = history(
        tmp_path,
        {**WRITE, "invoked_ns": 0, "completed_ns": 90},
        {**READ, "value": None, "invoked_ns": 100, "completed_ns": 170},
    )
    read, written = os.pipe()
    os.close(read)
    command = [sys.executable, "-P", "-m", "chaos.commands.main", "check", str(path)]
    done = subprocess.run(command, stdout=written, stderr=subprocess.PIPE, check=False)
    os.close(written)
    assert (done.returncode, done.stderr) == (4, b"")


def test_reads_of_repeated_values_are_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writes = [
        {**WRITE, "value": value, "invoked_ns": at, "completed_ns": at + 5}
        for value, at in ((1, 0), (2, 10), (1, 20))
    ]
    path = history(tmp_path, *writes, {**READ, "value": 1, "invoked_ns": 30, "completed_ns": 40})
    assert check(monkeypatch, path) == 0
    told = capsys.readouterr().out
    assert "no reads" not in told
    assert "of no read it is known which write it saw" in told
    assert "1 keys left out, their values are not unique" in told


@pytest.mark.parametrize("here", [".", ""])
def test_a_folder_that_holds_no_run_is_named_even_if_it_is_this_one(
    here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check(monkeypatch, here) == 2
    assert capsys.readouterr().err == (
        f"capbench: {tmp_path}: no manifest.json in it; is this a run folder?\n"
    )
