"""Mutants of a small protocol: what is caught, what survives, and what is known of it later."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from chaos.seeds.mutants import hunt as hunt_module
from chaos.seeds.mutants.marks import EQUIVALENT, BadMarks, Marks
from chaos.seeds.mutants.operators import Mutant, mutants_of
from chaos.seeds.mutants.record import Record, in_order, report
from chaos.seeds.mutants.sources import Target, chosen
from chaos.seeds.mutants.trial import Trial
from chaos.seeds.simulate import local_workers
from nodes.registry import INTERNAL, PROTOCOLS, InvalidConfiguration
from tests.chaos.test_simulate import ROOT, capbench, start
from tests.conformance.example import PRIMARY_FILE
from tests.waiting import patience, wait_for

WAITS = """        index = self.disk.append(request)
        waited = 0
        while waited < 3:
            waited += 1
"""
"""A loop that a mutant does not leave."""


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    """A protocol whose copies nobody checks, under a name that is free."""
    text = PRIMARY_FILE.read_text().replace('name="primary-backup"', 'name="mutable"')
    path = tmp_path / "mutable.py"
    path.write_text(text.replace("        index = self.disk.append(request)\n", WAITS))
    return path


def line_of(path: Path, text: str) -> int:
    return next(n for n, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def mutants(path: Path, *only: str, seconds: float = 0.2, more: str = "") -> tuple[int, Any, str]:
    wanted = [word for text in only for word in ("--only", f"mutable.py:{line_of(path, text)}")]
    code, out, err = capbench(
        *("mutants", "-p", "mutable.py", "--jobs", "1", "--json", *wanted),
        *("--seconds-each", str(seconds), *more.split()),
        cwd=path.parent,
    )
    return code, msgspec.json.decode(out) if out else None, err


def changes(code: str) -> set[str]:
    """Of the body of a function."""
    source = f"def f(self, x, y) -> int:\n{textwrap.indent(textwrap.dedent(code), '    ')}\n"
    found = mutants_of(source.encode(), "a.py")
    for mutant in found:
        compile(mutant.apply(source.encode()), "a.py", "exec")
    return {mutant.change for mutant in found}


# --- which there are ---


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("x.y(x < y)", {"drop `x.y(x < y)`", "`<` to `<=`"}),
        ("x.y(x is not None)", {"drop `x.y(x is not None)`", "`is not` to `is`"}),
        ("return x + 7", {"return `0`", "`+` to `-`", "`7` to `8`", "`7` to `6`"}),
        ("return 0", {"`0` to `1`"}),
        ("if x:\n    return", {"`x` is True", "`x` is False"}),
        (
            "if x and not y:\n    self.a = x\nelse:\n    self.b = y",
            {
                *("`x and (not y)` is True", "`x and (not y)` is False", "`and` to `or`"),
                *("leave out `x`", "leave out `not y`", "drop `not` of `y`"),
                *("drop `self.a = x`", "drop `self.b = y`"),
            },
        ),
        ("z = max(x, y)", {"`max` to `min`", "only `x`", "only `y`"}),
        ("z = f(x, y)", {"swap `x` and `y`"}),
        ("z = f(x, x)", set()),
        (
            "for z in x:\n    y.z()\n    break",
            {"no turn over `x`", "drop `y.z()`", "drop `break`", "`break` to `continue`"},
        ),
        ("while x:\n    x -= y", {"`x` is False", "drop `x -= y`", "`-=` to `+=`"}),
        ("z = [a for a in x if a]", {"`a` is True", "`a` is False"}),
        ("z = x[y:]", {"`y` plus 1"}),
        (
            "self.out.send(x, y)",
            {"drop `self.out.send(x, y)`", "swap `x` and `y`", "`early=True`"},
        ),
        (
            "self.out.reply(x, early=True)",
            {"drop `self.out.reply(x, early=True)`", "`True` to `False`"},
        ),
        (
            "self.out.reply(x, early=y)",
            {"drop `self.out.reply(x, early=y)`", "`y` is True", "`y` is False"},
        ),
        ("z = 1 if x else 1.5", {"`x` is True", "`x` is False", "`1` to `2`", "`1` to `0`"}),
        # What nobody could catch, or anybody would.
        ('"""Words about 1 < 2."""', set()),
        ("assert x < y", set()),
        ("if x < 1:\n    raise BadMessage(y)", {"`x < 1` is True"}),
        ("check_reach(x)\nself._check_entry(x)", set()),
        ("raise ValueError(x + 1)", set()),
        ("self.out.mark('x', term=1)", set()),
        ("z: int = x", set()),
        ("z = f'{x + 1}'", set()),
    ],
)
def test_what_is_changed(code: str, wanted: set[str]) -> None:
    assert changes(code) == wanted


def test_judges_and_parameters_are_left_alone() -> None:
    source = b"""
class Safe(Invariant):
    def observe(self, x): return x < 1
class Safer(Safe):
    def observe(self, x): return x < 2
class Knobs(Parameters):
    def check(self, x): return x < 1
LIMIT = 3
class Replica:
    PARTS = 3
    def watched(self): return self.x + 1
    def step(self, x): return x < 1
"""
    assert {mutant.function for mutant in mutants_of(source, "a.py")} == {"Replica.step"}


def test_a_mutant_is_known_by_its_content() -> None:
    source = b"def f(x):\n    x.a()\n    x.b()\n    x.a()\n"
    before = {mutant.key for mutant in mutants_of(source, "a.py")}
    assert len(before) == 3
    assert {mutant.key for mutant in mutants_of(b"\n\nimport sys\n" + source, "a.py")} == before


def test_a_protocol_is_its_package_and_the_parts_that_it_uses() -> None:
    files = Target(["paxos", "raft"]).files
    assert {"nodes/protocols/paxos/replica.py", "nodes/parts/synod.py"} <= set(files)
    judges = ("claims.py", "invariants.py", "knobs.py", "pace.py")
    assert not [file for file in [*files, *Target(["gossip"]).files] if file.endswith(judges)]
    assert files["nodes/protocols/paxos/replica.py"] == ["paxos", "paxos-basic"]
    # Whoever is asked for, a part is run by all that use it.
    shared = Target(["raft"]).files["nodes/parts/forwarding.py"]
    assert shared == ["paxos", "paxos-basic", "raft", "raft-stale-read"]
    assert "nodes/protocols/paxos/replica.py" not in Target(["raft"]).files


def test_a_sample_is_drawn_by_content_and_grows() -> None:
    target = Target(["heartbeat"])
    few, more = in_order(target.mutants, 1, 2), in_order(target.mutants, 1, 3)
    assert [mutant for mutant in more if mutant in few] == few
    assert [sum(mutant.file == file for mutant in few) for file in target.files] == [2, 2]
    assert in_order(target.mutants[::-1], 1, 2) == few
    assert in_order(target.mutants, 2, 2) != few


# --- what becomes of them ---


def test_a_mistake_is_caught_and_what_nobody_looks_at_survives(protocol: Path) -> None:
    code, found, _ = mutants(
        protocol, 'if request.operation.op == "read"', "self.out.send(peer, Entries("
    )
    assert code == 1
    (score,) = found["scores"]
    assert score["caught"] > 0
    # Copies that are never sent: the answers come from the first node, and nobody asks the others.
    survivor = next(each for each in found["survivors"] if "drop" in each["mutant"]["change"])
    assert survivor["trial"]["status"] == "survived"
    assert survivor["trial"]["cpu_s"] >= 0.2
    removed = [line for line in survivor["diff"].splitlines() if line.startswith("-  ")]
    added = [line for line in survivor["diff"].splitlines() if line.startswith("+  ")]
    assert len(removed) == len(added) == 1
    assert added[0].strip("+ ") == "pass"


def test_a_call_goes_on_where_the_last_one_stopped(protocol: Path) -> None:
    read = 'if request.operation.op == "read"'
    record = protocol.parent / "results" / "mutants.json"
    _, found, _ = mutants(protocol, read, more="--sample 1")
    assert found["left"] == 0
    kept = msgspec.json.decode(record.read_bytes(), type=Record)
    ((key, trial),) = kept.trials[str(protocol)].items()
    # What is known is not tried again: what the record says of it stays.
    known = msgspec.structs.replace(trial, message="known")
    kept.trials[str(protocol)][key] = known
    record.write_bytes(msgspec.json.encode(kept))
    mutants(protocol, read)
    after = msgspec.json.decode(record.read_bytes(), type=Record).trials[str(protocol)]
    assert after[key] == known
    assert len(after) > 1
    protocol.write_text(protocol.read_text() + "\n# other code\n")
    code, found, err = mutants(protocol, read, more="--minutes 0.00001")
    assert code == 5
    assert found["left"] == len(after)
    assert "was made with other code and no longer counts" in err


def test_a_budget_is_part_of_what_is_known(tmp_path: Path) -> None:
    mutant = chosen(Target(["heartbeat"]), ["replica.py"])[0]
    record = Record("code")
    record.add(["a"], mutant, Trial(status="survived", budget_s=5))
    assert record.find(["a"], mutant, 5) is not None
    assert record.find(["a"], mutant, 6) is None
    assert record.find(["a", "b"], mutant, 5) is None
    record.add(["a"], mutant, Trial(status="caught", budget_s=60, cpu_s=7))
    assert record.find(["a"], mutant, 8) is not None
    assert record.find(["a"], mutant, 6) is None


def test_a_record_that_cannot_be_written_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(["heartbeat"])

    def survives(mutant: Mutant, protocols: list[str], budget_s: float) -> Trial:
        return Trial(status="survived", budget_s=budget_s)

    monkeypatch.setattr(hunt_module, "try_mutant", survives)
    path = tmp_path / "nowhere" / "mutants.json"
    with local_workers(1) as workers, pytest.raises(FileNotFoundError):
        hunt_module.hunt(target.mutants[:1], target, Record("code"), path, workers, budget_s=1)


TRY = """
import sys
from chaos.seeds.mutants import trial
from chaos.seeds.mutants.sources import Target, chosen
import msgspec
trial.SEED_CPU_S, trial.MEMORY_BYTES = 0.25, 100 << 20
only, change, text, budget_s, protocol = sys.argv[1:]
target = Target([protocol])
(mutant,) = [m for m in chosen(target, [only]) if m.change == change]
if text:
    mutant = msgspec.structs.replace(mutant, text=text)
print(msgspec.json.encode(trial.try_mutant(mutant, [protocol], float(budget_s))).decode())
"""


def tried(
    path: Path,
    line: str,
    change: str,
    text: str = "",
    budget_s: float = 0.5,
    protocol: str = "mutable.py",
) -> Trial:
    """One mutant alone; ``text``: instead of its own."""
    only = f"{path.name}:{line_of(path, line)}"
    done = subprocess.run(
        [sys.executable, "-c", TRY, only, change, text, str(budget_s), protocol],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=patience(60),
    )
    return msgspec.json.decode(done.stdout, type=Trial)


def test_a_mutant_that_never_ends_is_ended_and_not_caught(protocol: Path) -> None:
    assert tried(protocol, "waited += 1", "drop `waited += 1`").status == "died"


def test_a_mutant_that_eats_memory_is_caught_by_it(protocol: Path) -> None:
    eats = "waited += len([0] * 10**9)"
    trial = tried(protocol, "waited += 1", "drop `waited += 1`", eats)
    assert (trial.status, trial.check) == ("caught", "exception")


def test_a_mutant_that_is_no_python_does_not_count(protocol: Path) -> None:
    trial = tried(protocol, "waited += 1", "drop `waited += 1`", "waited +=")
    assert trial.status == "broken"
    assert trial.message is not None
    assert trial.message.startswith("SyntaxError")


def test_a_mutant_that_does_not_begin_does_not_count(protocol: Path) -> None:
    trial = tried(protocol, "self.is_primary = self.id ==", "`==` to `!=`", "@")
    assert trial.status == "broken"


def test_an_alarm_of_the_protocol_itself_is_no_catch(protocol: Path) -> None:
    text = protocol.read_text()
    protocol.write_text(text.replace("waited = 0\n", "waited = 0 if index < 2 else None\n"))
    trial = tried(protocol, 'if request.operation.op == "read"', "`==` to `!=`", budget_s=0.1)
    assert trial.status == "survived"


def test_the_simulator_counts_majorities_by_itself() -> None:
    """Or a protocol whose majorities are too large would be given as many nodes as it asks for."""
    path = ROOT / "nodes" / "parts" / "quorum.py"
    trial = tried(path, "return n // 2 + 1", "`1` to `2`", budget_s=20, protocol="quorum")
    assert (trial.status, trial.check) == ("caught", "liveness")


# --- equivalent ones ---


def marked(mutant: Mutant, path: Path, **other: str) -> Path:
    fields = {name: getattr(mutant, name) for name in ("file", "function", "line", "change")}
    lines = [f"{name} = '''{text}'''" for name, text in {**fields, **other}.items()]
    path.write_text("[[equivalent]]\n" + "\n".join(lines) + "\n")
    return path


def test_what_is_marked_is_counted_and_left_out_of_the_score(tmp_path: Path) -> None:
    target = Target(["heartbeat"])
    one, other = chosen(target, ["detector/replica.py"])[:2]
    marks = Marks(target, marked(one, tmp_path / "marks.toml", reason="it is so"))
    assert (marks.reason(one), marks.reason(other)) == ("it is so", None)
    record = Record("code")
    record.add(target.files[one.file], other, Trial(status="caught", budget_s=60))
    # Of before it was marked.
    record.add(target.files[one.file], one, Trial(status="survived", budget_s=60))
    found = report(target, [one, other], [other], record, marks, 60)
    (score,) = found.scores
    assert (score.mutants, score.equivalent, score.counted, score.share) == (2, 1, 1, 1.0)
    assert score.is_whole
    assert (found.survivors, found.left, found.stale, found.falls_short) == ([], 0, [], False)


def test_a_mark_that_means_nothing_any_more_is_told(tmp_path: Path) -> None:
    target = Target(["heartbeat"])
    path = marked(target.mutants[0], tmp_path / "marks.toml", reason="so", line="no such line")
    assert [mark.line for mark in Marks(target, path).stale] == ["no such line"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("equivalent = 3", "array"), ("[[equivalent]]\nfile = 'a'", "missing"), ("?", "Invalid")],
)
def test_marks_that_are_none_are_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "marks.toml"
    path.write_text(text)
    with pytest.raises(BadMarks, match=said):
        Marks(Target(["heartbeat"]), path)


def test_a_mark_needs_a_reason(tmp_path: Path) -> None:
    target = Target(["heartbeat"])
    with pytest.raises(BadMarks, match="without a reason"):
        Marks(target, marked(target.mutants[0], tmp_path / "marks.toml", reason=" "))


def test_our_own_marks_can_be_read() -> None:
    """Which of them mean nothing any more, the command tells."""
    target = Target([*PROTOCOLS, *INTERNAL])
    marks = Marks(target, EQUIVALENT)
    assert {mark.file for mark in marks.stale} <= set(target.files)
    assert any(marks.reason(mutant) for mutant in target.mutants)


# --- the command ---


def test_a_signal_ends_it_and_what_was_found_is_kept(protocol: Path) -> None:
    record = protocol.parent / "results" / "mutants.json"
    with start(
        *("mutants", "-p", "mutable.py", "--jobs", "1", "--only", "mutable.py"),
        *("--seconds-each", "2"),
        cwd=protocol.parent,
    ) as process:
        wait_for(record.exists, "a first mutant")
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=patience(60))
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert re.search(r"\d+ are left to try", out)
    assert record.exists()
    wait_for(lambda: not any(each.is_running() for each in family), "the end of its processes")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("-p nonsense", "unknown protocol"),
        ("--seconds-each 0", "0"),
        ("--sample 0", "0"),
        ("-p heartbeat --only nothing.py", "no mutant of nothing.py; there are of nodes/"),
        ("-p heartbeat --only detector/replica.py:1", "no mutant begins there, but on "),
    ],
)
def test_bad_input_is_one_line(arguments: str, said: str, tmp_path: Path) -> None:
    code, out, err = capbench("mutants", *arguments.split(), cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("capbench: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    record = tmp_path / "mutants.json"
    record.write_text("{}")
    code, _, err = capbench("mutants", "-p", "heartbeat", "--record", str(record), cwd=tmp_path)
    assert code == 2
    assert f"--record {record}: no record of mutants" in err


def test_only_takes_the_end_of_a_path() -> None:
    target = Target(["heartbeat"])
    assert {each.file for each in chosen(target, ["parts/failure_detector.py"])} == {
        "nodes/parts/failure_detector.py"
    }
    with pytest.raises(InvalidConfiguration, match=r"no mutant of r\.py"):
        chosen(target, ["r.py"])
