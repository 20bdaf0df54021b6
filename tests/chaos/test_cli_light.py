"""What is asked often is answered at once: nothing is imported that it does not need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.experiments.experiment import names
from chaos.seeds.detector_sweep import NAME, NODES
from nodes.faults.catalogue import FAULTS
from nodes.registry import PROTOCOLS
from tests.live.conftest import ROOT, capbench

LATER = (
    "numpy",
    "pandas",
    "jinja2",
    "paho",
    "locust",
    "requests",
    "bench.checkers",
    "chaos.clusters.links",
)
OF_EXPERIMENTS = ("pydantic", "ruamel.yaml", "nodes.registry")


OF_SCIENCE = ("pandas", "scipy", "jinja2", "paho", "locust")
HISTORY = """\
{"process":"a","id":0,"op":"write","key":"x","value":1,"outcome":"ok","invoked_ns":1,"completed_ns":2}
{"process":"b","id":1,"op":"read","key":"x","value":1,"outcome":"ok","invoked_ns":3,"completed_ns":4}
"""


@pytest.mark.parametrize(
    ("command", "later", "lines"),
    [
        ("--help", LATER + OF_EXPERIMENTS, 20),
        ("list", LATER, 20),
        ("faults", LATER, 20),
        ("check few.jsonl", OF_SCIENCE, 3),
    ],
)
def test_a_command_imports_what_it_needs(
    command: str, later: tuple[str, ...], lines: int, tmp_path: Path
) -> None:
    (tmp_path / "few.jsonl").write_text(HISTORY)
    code = (
        f"import sys; sys.argv = ['capbench', *{command!r}.split()]\n"
        "from chaos.commands import main as cli\n"
        "try:\n    cli.main()\n"
        f"finally:\n    print([m for m in {later!r} if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert len(done.stdout.splitlines()) > lines


def test_a_terminal_of_another_alphabet_is_served(tmp_path: Path) -> None:
    (tmp_path / "ключ.jsonl").write_text("nonsense")
    done = subprocess.run(
        [sys.executable, "-m", "chaos.commands.main", "check", "ключ.jsonl"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert r"\u043a\u043b\u044e\u0447.jsonl:1: " in done.stderr


def test_the_list_names_whatever_a_run_takes(tmp_path: Path) -> None:
    listed = json.loads(capbench("list", "--json", cwd=tmp_path).stdout)
    assert {each["name"] for each in listed["protocols"]} == set(PROTOCOLS)
    assert {each["name"] for each in listed["faults"]} == set(FAULTS)
    experiments = {each["name"]: each for each in listed["experiments"]}
    assert set(experiments) == {*names(), NAME}
    assert experiments[NAME]["nodes"] == NODES
    assert NAME in capbench("list", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("typed", "begun", "wanted", "other"),
    [
        ("run healthy --protocol", "raf", "raft-stale-read", "gossip"),
        ("run", "leader", "leader-partition", "healthy"),
        ("run", "det", "detector-sweep", "healthy"),
        ("compare healthy", "leader-pa", "leader-partition", "healthy"),
        ("compare --experiment", "hal", "halves", "healthy"),
        ("compare --preset", "qu", "quick", "full"),
        ("run healthy --target", "com", "compose", "local"),
        ("inject", "part", "partition", "pause"),
        ("report results --format", "j", "junit", "html"),
        ("simulate -p", "raft-vote", "raft-vote-not-persisted", "gossip"),
        ("members", "re", "remove", "add"),
        ("check history.jsonl --model", "c", "cas-register", "auto"),
    ],
)
def test_a_shell_completes_names(typed: str, begun: str, wanted: str, other: str) -> None:
    """As the script that ``--show-completion`` prints for bash asks for it."""
    words = f"capbench {typed} {begun}"
    code = "import sys; sys.argv = ['capbench']; from chaos.commands.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_CAPBENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert wanted in done.stdout.split(), done.stderr
    assert other not in done.stdout.split()
