"""The help of every command says what it does and shows how to type it; shells can complete it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
import typer
from ruamel.yaml import YAML

from chaos.commands.main import app
from tests.chaos.test_simulate import ROOT

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_of_itself(name: str) -> None:
    command = GROUP.commands[name]  # type: ignore[attr-defined]
    text = " ".join((command.help or "").split())
    assert "Example" in text, name
    assert f"capbench {name}" in text, name
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_the_help_of_all_has_an_example() -> None:
    assert "Example" in (GROUP.help or "")
    assert {"run", "compare", "simulate", "serve"} <= set(COMMANDS)


def test_the_github_actions_example_types_what_there_is() -> None:
    (workflow,) = YAML(typ="safe").load_all((ROOT / "examples" / "github-actions.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert steps[0]["run"] == "make setup"
    lines = [line for step in steps for line in step["run"].splitlines()]
    found = [re.search(r"\.venv/bin/capbench ([^>|)]*)", line) for line in lines]
    typed = [shlex.split(match[1]) for match in found if match]
    assert {name for name, *_ in typed} == {"compare", "history", "report", "run"}
    for name, *arguments in typed:
        known = [each.replace("$seed", "1") for each in arguments]
        command = GROUP.commands[name]  # type: ignore[attr-defined]
        command.make_context(name, known)  # raises for what it does not know


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(shell: str) -> None:
    """As the script that ``--show-completion`` prints asks for it."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "_CAPBENCH_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "capbench comp",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "capbench comp",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": "comp",
    }
    command = "import sys; sys.argv = ['capbench']; from chaos.commands.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "compare" in done.stdout, done.stderr
    assert "simulate" not in done.stdout
