"""Sweeps of the simulator: the same whatever the process, every alarm is told, nothing found is
lost."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from chaos.commands.bugs import table
from chaos.commands.main import app
from chaos.seeds import simulate as seeds_of
from chaos.seeds.bugs import BugOutcome, BugSweep, hunt, sweep_bugs
from chaos.seeds.simulate import (
    Sweep,
    Workers,
    find_protocol,
    judge,
    local_workers,
    run_seed,
    sweep,
)
from nodes.simulator.bugs import all_bugs
from nodes.simulator.load import OperationRecord
from nodes.simulator.simulate import simulate
from tests.processes import begun, command_line
from tests.simulator import toy
from tests.waiting import patience

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
BUG = "raft-vote-not-persisted"


def start(*arguments: str, cwd: Path, hash_seed: int = 0) -> subprocess.Popen[str]:
    return begun(*arguments, cwd=cwd, env={"PYTHONHASHSEED": str(hash_seed)})


def capbench(*arguments: str, cwd: Path, hash_seed: int = 0) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``capbench ...``."""
    with start(*arguments, cwd=cwd, hash_seed=hash_seed) as process:
        out, err = process.communicate(timeout=patience(200))
    return process.returncode, out, err


def without_speed(text: str) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(text)
    assert data.pop("events_per_cpu_s") > 0
    return data


def swept(protocol: str, seeds: range, jobs: int, **options: Any) -> Sweep:
    with local_workers(jobs) as workers:
        return sweep(protocol, seeds, workers, **options)


@pytest.fixture(scope="module")
def rarely() -> BugOutcome:
    """A planted bug that does not show in the first seed, and where it shows."""
    rare = ("raft-restart-forgets-members", "raft-new-members-decide-alone", "raft-vote-kept")
    outcomes = (hunt(name, 100) for name in rare)
    return next(outcome for outcome in outcomes if outcome.caught and outcome.seeds > 1)


def test_a_seed_that_never_ends_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    class Round(toy.Toy):
        def on_ask(self, src: str, msg: toy.Ask) -> None:
            while msg:
                pass

    monkeypatch.setattr(seeds_of, "SEED_CPU_S", 0.2)
    (alarm,) = run_seed(toy.protocol(Round), 1).alarms
    assert alarm.check == "endless"
    assert "0.2 CPU seconds, now at test_simulate.py" in alarm.message
    assert "in on_ask" in alarm.message
    assert run_seed(toy.protocol(), 1).alarms == []


# --- determinism ---


def test_a_sweep_is_the_same_in_other_processes_with_another_hash_seed_and_other_jobs(
    tmp_path: Path,
) -> None:
    wanted = ("simulate", "--protocol", "raft", "--seeds", "11", "--first-seed", "3", "--json")
    code, one, _ = capbench(*wanted, "--jobs", "1", cwd=tmp_path, hash_seed=1)
    assert code == 0
    code, two, _ = capbench(*wanted, "--jobs", "2", cwd=tmp_path, hash_seed=77)
    assert code == 0
    assert without_speed(one) == without_speed(two)

    data = msgspec.json.decode(one)
    keys = ["protocol", "seeds", "alarms", "events", "events_per_cpu_s", "trace_hash"]
    assert list(data) == keys
    assert (data["protocol"], data["seeds"], data["alarms"]) == ("raft", 11, [])
    here = [simulate("raft", seed) for seed in range(3, 14)]
    digest = hashlib.blake2b(digest_size=16)
    for result in here:
        digest.update(result.trace_hash.encode())
    assert data["trace_hash"] == digest.hexdigest()
    assert data["events"] == sum(result.events for result in here)


def test_alarms_are_the_same_seed_by_seed_whatever_the_jobs() -> None:
    one, two = swept(BUG, range(1, 13), 1), swept(BUG, range(1, 13), 2)
    assert one.alarms == two.alarms != []
    assert one.trace_hash == two.trace_hash
    assert [outcome.seed for outcome in two.outcomes] == list(range(1, 13))
    for alarm in one.alarms:
        assert alarm in run_seed(find_protocol(BUG), alarm.seed).alarms


def test_other_seeds_give_another_hash() -> None:
    assert swept("raft", range(1, 3), 1).trace_hash != swept("raft", range(2, 4), 1).trace_hash


def test_until_bug_ends_with_the_first_seed_that_fails(rarely: BugOutcome) -> None:
    for jobs in (1, 2):
        found = swept(rarely.bug, range(1, 400), jobs, until_bug=True)
        assert [outcome.seed for outcome in found.outcomes] == list(range(1, rarely.seeds + 1))
        assert {alarm.seed for alarm in found.alarms} == {rarely.seeds}


# --- what is judged ---


def test_a_value_that_nobody_wrote_is_an_alarm_of_an_eventual_protocol() -> None:
    protocol = find_protocol("gossip")
    result = simulate(protocol, 2, duration_s=1.0)
    assert judge(protocol, result) == ([], None)
    read = next(r for r in result.history if r.op == "read" and r.outcome == "ok")
    read.value = "from nowhere"
    alarms, _ = judge(protocol, result)
    assert [alarm.check for alarm in alarms] == ["never-written"]
    assert "from nowhere" in alarms[0].message


def test_a_stale_read_is_an_alarm_where_linearizability_is_claimed_only() -> None:
    result = simulate("quorum", 2, duration_s=0.5)

    def done(process: str, op: Any, value: str | None, at_ns: int) -> OperationRecord:
        return OperationRecord(
            process=process,
            id=at_ns,
            op=op,
            key="k0",
            outcome="ok",
            invoked_ns=at_ns,
            completed_ns=at_ns + 1,
            value=value,
        )

    stale = [done("a", "write", "x", 10), done("b", "read", None, 20)]
    result = msgspec.structs.replace(result, history=stale)
    assert [a.check for a in judge(find_protocol("quorum"), result)[0]] == ["linearizability"]
    assert judge(find_protocol("gossip"), result) == ([], None)


def test_a_history_without_a_verdict_is_undecided_not_fine() -> None:
    result = msgspec.structs.replace(simulate("raft", 2, duration_s=0.2), history=[])
    alarms, undecided = judge(find_protocol("raft"), result)
    assert alarms == []
    assert undecided is not None
    outcome = msgspec.structs.replace(
        run_seed(find_protocol("raft"), 2), alarms=[], undecided=undecided
    )
    assert Sweep("raft", [outcome]).undecided == [outcome]


# --- what a person sees ---


def test_an_alarm_says_its_seed_what_was_seen_and_the_command_that_replays_it(
    tmp_path: Path,
) -> None:
    code, out, err = capbench(
        "simulate", "-p", BUG, "--seeds", "30", "--until-bug", "--jobs", "1", cwd=tmp_path
    )
    assert code == 4
    assert "simulate" in err
    assert "Traceback" not in err
    head, message, replay, *_ = out.splitlines()
    seed = head.removeprefix("seed ").split(":")[0]
    command = f"capbench simulate --protocol {BUG} --seed {seed} --trace"
    assert replay.strip() == f"replay it: {command}"

    code, out, _ = capbench(*command.split()[1:], cwd=tmp_path)
    assert code == 4
    assert out.splitlines()[0] == f"{BUG}, seed {seed}"
    assert out.rstrip().splitlines()[-1].endswith(message.strip())
    assert any(line.endswith("n1 starts") for line in out.splitlines())
    assert any("n2 <- Message(src='n1'" in line for line in out.splitlines())


def test_a_seed_that_does_not_fail_has_a_transcript_and_nothing_to_shrink(tmp_path: Path) -> None:
    code, out, _ = capbench("simulate", "-p", "raft", "--seed", "5", "--trace", cwd=tmp_path)
    assert code == 0
    assert simulate("raft", 5).trace_hash in out
    code, out, err = capbench("simulate", "-p", "raft", "--seed", "5", "--shrink", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.strip() == "capbench: seed 5 of raft raises no alarm: nothing to shrink"


def test_one_seed_as_json(tmp_path: Path) -> None:
    code, out, _ = capbench("simulate", "-p", "raft", "--seed", "5", "--json", cwd=tmp_path)
    assert code == 0
    assert msgspec.json.decode(out)["seeds"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "simulate --protocol nonsense",
        "simulate --protocol raft --seeds 0",
        "simulate --protocol raft --first-seed -1",
        "simulate --protocol raft --jobs 0",
        "simulate --protocol raft --minutes 0",
        "simulate --protocol raft --trace",
        "simulate --protocol raft --shrink",
        "simulate --protocol raft --seed 1 --trace --shrink",
        "simulate --protocol raft --seed 1 --trace --json",
        "simulate --protocol raft --seed 1 --seeds 7",
        "simulate --protocol raft --dask tcp://127.0.0.1:1 --jobs 2",
        "bugs --seeds 0",
        "bugs --jobs 0",
        "run healthy --target nonsense",
    ],
)
def test_bad_input_is_one_line(arguments: str, tmp_path: Path) -> None:
    code, out, err = capbench(*arguments.split(), cwd=tmp_path)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("capbench: ")
    assert list(tmp_path.iterdir()) == []


# --- an end before the end ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_keeps_and_prints_what_it_found(
    tmp_path: Path, number: signal.Signals
) -> None:
    with start(
        *("simulate", "-p", BUG, "--seeds", "100000", "--jobs", "2", "--json"), cwd=tmp_path
    ) as process:
        assert process.stderr is not None
        while " seeds, " not in process.stderr.readline():
            assert process.poll() is None
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.send_signal(number)
        out, err = process.communicate(timeout=patience(60))
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    data = msgspec.json.decode(out)
    assert 0 < data["seeds"] < 100000
    (after,) = re.findall(r"interrupted by .*; go on with --first-seed (\d+)$", err, re.M)
    assert 1 < int(after) <= data["seeds"] + 1
    assert data["alarms"]
    gone, alive = psutil.wait_procs(workers, timeout=patience(10))
    assert alive == []
    assert gone != []


def test_workers_go_when_the_sweep_is_killed(tmp_path: Path) -> None:
    with start(
        *("simulate", "-p", "raft", "--seeds", "100000", "--jobs", "2"), cwd=tmp_path
    ) as process:
        assert process.stderr is not None
        while " seeds, " not in process.stderr.readline():
            assert process.poll() is None
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate(timeout=patience(60))
    assert psutil.wait_procs(workers, timeout=patience(10))[1] == []


def test_a_worker_that_dies_ends_the_sweep_and_what_was_found_is_kept() -> None:
    killed: list[int] = []

    def kill_one(done: int, _: int) -> None:
        if not killed:
            worker = next(
                child
                for child in psutil.Process().children()
                if any("spawn_main" in part for part in command_line(child))
            )
            killed.append(done)
            worker.kill()

    result = swept("raft", range(1, 5000), 2, on_progress=kill_one)
    assert result.failure is not None
    assert killed[0] <= len(result.outcomes) < 4999


def test_a_sweep_ends_after_its_minutes(tmp_path: Path) -> None:
    code, out, _ = capbench(
        *("simulate", "-p", "raft", "--minutes", "0.01", "--jobs", "1", "--json"), cwd=tmp_path
    )
    assert code == 0
    assert msgspec.json.decode(out)["seeds"] > 0


# --- planted bugs ---


def test_every_planted_bug_has_a_row_caught_or_missed(
    rarely: BugOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    bugs = [bug for bug in all_bugs() if bug.name in (BUG, rarely.bug)]
    assert len(bugs) == 2
    monkeypatch.setattr("chaos.seeds.bugs.all_bugs", lambda: iter(bugs))
    with local_workers(1) as workers:
        assert [row.caught for row in sweep_bugs(1, workers).bugs] == [
            hunt(bug.name, 1).caught for bug in bugs
        ]
    done = CliRunner().invoke(app, ["bugs", "--seeds", "1", "--jobs", "1", "--json"])
    rows = {row["bug"]: row for row in msgspec.json.decode(done.stdout)}
    assert list(rows) == [bug.name for bug in bugs]
    for row in rows.values():
        assert list(row) == ["bug", "protocol", "caught", "check", "cpu_s_per_catch", "seeds"]
        assert (row["protocol"], row["seeds"]) == ("raft", 1)
    caught, missed = rows[BUG], rows[rarely.bug]
    assert caught["caught"] is True
    assert isinstance(caught["cpu_s_per_catch"], float)  # 0.0 where the clock is coarse
    assert caught["check"] == hunt(BUG, 1).check
    assert (missed["caught"], missed["check"], missed["cpu_s_per_catch"]) == (False, None, None)
    assert done.exit_code == 1, "a bug was missed"
    done = CliRunner().invoke(app, ["bugs", "--seeds", "1", "--jobs", "1"])
    assert "1 of 2 bugs caught" in done.stdout

    shrunk = ["bugs", "--seeds", "1", "--jobs", "1", "--shrink"]
    done = CliRunner().invoke(app, [*shrunk, "--json"])
    rows = {row["bug"]: row for row in msgspec.json.decode(done.stdout)}
    assert 0 < rows[BUG]["shrunk"] <= min(200, rows[BUG]["told"])
    assert rows[BUG]["shrink_cpu_s"] > 0
    assert [rows[rarely.bug][key] for key in ("told", "shrunk", "shrink_cpu_s")] == [None] * 3
    done = CliRunner().invoke(app, shrunk)
    assert "1 of 1 shrunk to at most 200 messages, crashes and operations" in done.stdout
    assert done.exit_code == 1


def test_every_planted_bug_is_in_the_sweep() -> None:
    tried: list[str] = []

    class Stopped(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            tried.append(args[0])
            raise KeyboardInterrupt

    result = sweep_bugs(3, Workers(Stopped(), 1))
    assert result.interrupted
    assert tried == [result.bugs[0].bug]
    assert [row.bug for row in result.bugs] == [bug.name for bug in all_bugs()]
    assert {(row.caught, row.seeds) for row in result.bugs} == {(False, 0)}


def test_the_table_of_bugs_calls_a_missed_one_missed() -> None:
    rows = [
        BugOutcome("one", "raft", True, "invariant", 0.125, 3),
        BugOutcome("two", "raft", False, None, None, 400),
        BugOutcome("three", "raft", False, None, None, 0),
    ]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table(BugSweep(rows)))
    told = {line.split()[0]: line for line in capture.get().splitlines()[2:]}
    assert "yes" in told["one"]
    assert "0.12" in told["one"]
    assert "MISSED" in told["two"]
    assert "not tried" in told["three"]


def test_a_hunt_ends_with_the_first_seed_that_catches(rarely: BugOutcome) -> None:
    planted = find_protocol(rarely.bug)
    assert run_seed(planted, rarely.seeds).alarms[0].check == rarely.check
    missed = hunt(rarely.bug, rarely.seeds - 1)
    assert (missed.caught, missed.check, missed.seeds) == (False, None, rarely.seeds - 1)
