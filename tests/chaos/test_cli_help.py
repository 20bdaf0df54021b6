"""The help of every command says what it does and shows how to type it; shells can complete it."""

from __future__ import annotations

import os
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
    steps = [step["run"] for step in workflow["jobs"]["compare"]["steps"] if "run" in step]
    typed = [shlex.split(step.split(">>")[0]) for step in steps]
    assert typed[0] == ["make", "setup"]
    for program, name, *arguments in typed[1:]:
        assert program == ".venv/bin/capbench"
        command = GROUP.commands[name]  # type: ignore[attr-defined]
        command.make_context(name, list(arguments))  # raises for what it does not know


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
