"""The gate goes on where it stopped, says what it really ran, and forgets what other code did."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.paths import ROOT
from chaos.seeds import gate as gate_module
from chaos.seeds.gate import JUDGES, NO_JUDGES, SLICE, Gate, begin, code_hash, go_on
from chaos.seeds.simulate import Workers, local_workers, sweep
from tests.chaos.test_simulate import BUG, capbench, start
from tests.waiting import patience

TWO = ("heartbeat", "quorum")


def read(path: Path) -> Gate:
    return msgspec.json.decode(path.read_bytes(), type=Gate)


def test_protocols_have_turns_and_what_was_run_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "SLICE", 4)
    path = tmp_path / "gate.json"
    turns: list[str] = []
    with local_workers(1) as workers:
        gate, other_code = begin(path)
        assert not other_code
        go_on(gate, path, TWO, 6, workers, on_progress=lambda name, _: turns.append(name))
        assert turns == ["heartbeat", "quorum", "heartbeat", "quorum"]
        assert {name: line.seeds for name, line in read(path).lines.items()} == dict.fromkeys(
            TWO, 6
        )

        again, other_code = begin(path)
        assert not other_code
        turns.clear()
        go_on(again, path, TWO, 7, workers, on_progress=lambda name, _: turns.append(name))
        assert turns == ["heartbeat", "quorum"]
        whole = sweep("quorum", range(1, 8), workers)
    line = read(path).lines["quorum"]
    assert (line.seeds, line.events, line.alarms) == (7, whole.events, [])


def test_what_other_code_did_counts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gate.json"
    with local_workers(1) as workers:
        go_on(begin(path)[0], path, ["heartbeat"], 2, workers)
    assert begin(path)[0].lines["heartbeat"].seeds == 2
    monkeypatch.setattr(gate_module, "code_hash", lambda: "other")
    gate, other_code = begin(path)
    assert (gate.lines, other_code) == ({}, True)


def test_only_code_on_which_a_seed_depends_is_other_code(tmp_path: Path) -> None:
    for place in JUDGES:
        copy = shutil.copytree if (ROOT / place).is_dir() else shutil.copy
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / place, tmp_path / place)
    before = code_hash(tmp_path)
    assert before == code_hash()
    raft = tmp_path / "nodes/protocols/raft/replica.py"
    raft.write_text("# A comment.\n" + raft.read_text())
    for place in NO_JUDGES:
        path = tmp_path / place
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            file.write_text("OTHER = True\n")
    assert code_hash(tmp_path) == before
    raft.write_text(raft.read_text() + "OTHER = True\n")
    assert code_hash(tmp_path) != before


def test_a_seed_needs_nothing_of_what_is_no_judge() -> None:
    script = (
        "import sys; from chaos.seeds.simulate import find_protocol, run_seed;"
        "from nodes.registry import INTERNAL, PROTOCOLS;"
        "[run_seed(find_protocol(name), 1) for name in (*PROTOCOLS, *INTERNAL)];"
        "print(*sorted(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.split())
    assert "nodes.protocols.raft.replica" in loaded
    of_live = {place.removesuffix(".py").replace("/", ".") for place in NO_JUDGES[:-1]}
    assert loaded & of_live == set()


def test_an_interrupted_slice_keeps_the_seeds_in_front_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several workers later seeds may be ready first; the record knows only a first part."""
    path = tmp_path / "gate.json"

    def out_of_order(protocol: str, seeds: range, workers: Workers) -> object:
        with local_workers(1) as here:
            found = sweep(protocol, seeds[:4], here)
        del found.outcomes[1]
        found.interrupted = True
        return found

    monkeypatch.setattr(gate_module, "sweep", out_of_order)
    with local_workers(1) as workers:
        stopped = go_on(begin(path)[0], path, ["heartbeat"], SLICE, workers)
    assert stopped is not None
    assert stopped.interrupted
    assert read(path).lines["heartbeat"].seeds == 1


def test_an_alarm_is_told_with_its_replay(tmp_path: Path) -> None:
    code, out, _ = capbench("gate", "-p", BUG, "--seeds", "2", "--jobs", "1", cwd=tmp_path)
    assert code == 4
    assert f"capbench simulate --protocol {BUG} --seed 1 --trace" in out
    assert "2 of 2 seeds were run, " in out
    assert read(tmp_path / "results" / "gate.json").lines[BUG].alarms


def test_seeds_that_are_left_are_no_success(tmp_path: Path) -> None:
    wanted = ("gate", "-p", "heartbeat", "--jobs", "1")
    code, out, _ = capbench(*wanted, "--seeds", "9999", "--minutes", "0.001", cwd=tmp_path)
    assert code == 5
    assert "of 9,999 seeds were run, none with an alarm" in out
    ran = read(tmp_path / "results" / "gate.json").lines["heartbeat"].seeds
    assert 0 < ran < 9999
    code, out, _ = capbench(*wanted, "--seeds", str(ran), cwd=tmp_path)
    assert code == 0
    assert f"{ran} of {ran} seeds were run, none with an alarm" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_what_was_run_is_kept(tmp_path: Path, number: signal.Signals) -> None:
    wanted = ("gate", "-p", "heartbeat", "--seeds", "99999", "--jobs", "2")
    record = tmp_path / "results" / "gate.json"
    with start(*wanted, cwd=tmp_path) as process:
        while not record.exists():
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=patience(60))
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    assert f"; what was found so far is kept in {record.relative_to(tmp_path)}; " in err
    assert f"{read(record).lines['heartbeat'].seeds:,} of 99,999 seeds were run" in out


@pytest.mark.parametrize(
    "arguments", ["gate --seeds 0", "gate --minutes 0", "gate -p nonsense", "gate --jobs 0"]
)
def test_bad_input_is_one_line(arguments: str, tmp_path: Path) -> None:
    code, out, err = capbench(*arguments.split(), cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("capbench: ")
    assert len(err.splitlines()) == 1


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    record = tmp_path / "gate.json"
    record.write_text("{}")
    code, _, err = capbench("gate", "--record", str(record), "--seeds", "1", cwd=tmp_path)
    assert code == 2
    assert f"--record {record}: no record of a gate" in err
    assert record.read_text() == "{}"
