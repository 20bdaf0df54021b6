"""The Python environment, made for real for a small project that needs no network."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from setup.bootstrap import CannotSetUp, Machine, environment, is_usable

from .conftest import SmallProject

pytestmark = pytest.mark.long


def version_of_ballast(project: SmallProject) -> str:
    command: list[str | Path] = [project.python, "-c", "import ballast; print(ballast.VERSION)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def capbench_says(project: SmallProject) -> str:
    command = [project.python.with_name("capbench")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_installs_what_is_pinned_and_the_project_once(
    project: SmallProject, machine: Machine, uv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(project.root, machine)
    assert "created .venv with uv" in capsys.readouterr().out
    assert version_of_ballast(project) == "1.0"
    assert capbench_says(project) == "small runs"

    project.wheel("1.0").unlink()  # a second installation would fail
    environment(project.root, machine)
    assert capsys.readouterr().out.splitlines() == ["setup: environment  .venv is up to date"]


def test_follows_the_pins(project: SmallProject, machine: Machine, uv: Path) -> None:
    environment(project.root, machine)
    project.pin("1.1")
    environment(project.root, machine)
    assert version_of_ballast(project) == "1.1"


@pytest.mark.usefixtures("uv")
def test_refuses_a_package_whose_hash_differs(project: SmallProject, machine: Machine) -> None:
    good = project.wheel("1.0").read_bytes()
    pins = (project.root / "requirements" / "dev.txt").read_text()
    project.wheel("1.0").write_bytes(good + b"\0")
    with pytest.raises(CannotSetUp, match="could not be installed"):
        environment(project.root, machine)
    with pytest.raises(subprocess.CalledProcessError):
        version_of_ballast(project)

    project.wheel("1.0").write_bytes(good)
    assert (project.root / "requirements" / "dev.txt").read_text() == pins
    environment(project.root, machine)  # the failure left no stamp behind
    assert version_of_ballast(project) == "1.0"


def test_makes_a_broken_environment_anew(project: SmallProject, machine: Machine, uv: Path) -> None:
    environment(project.root, machine)
    project.python.unlink()
    project.python.symlink_to(project.root / "python-that-was-uninstalled")
    environment(project.root, machine)
    assert is_usable(project.python)
    assert capbench_says(project) == "small runs"


def test_an_environment_that_set_up_did_not_make_is_not_removed(
    project: SmallProject, machine: Machine
) -> None:
    mine = project.root / ".venv" / "mine"
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(CannotSetUp, match=r"set-up did not make it: move it away"):
        environment(project.root, machine)
    assert mine.exists()


def test_pip_does_it_where_uv_is_not_to_be_had(
    project: SmallProject, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(project.root, machine)
    said = capsys.readouterr().out
    assert "created .venv with venv" in said
    assert "uv could not be installed; pip does it" in said
    assert version_of_ballast(project) == "1.0"
    assert capbench_says(project) == "small runs"


def test_pip_does_it_where_uv_fails(
    project: SmallProject,
    machine: Machine,
    program: Callable[[str, str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    program("uv", "echo no index here; exit 2")
    environment(project.root, machine)
    assert "| no index here" in capsys.readouterr().out
    assert version_of_ballast(project) == "1.0"


def test_an_environment_that_moved_is_installed_again(
    project: SmallProject, machine: Machine, uv: Path, tmp_path: Path
) -> None:
    environment(project.root, machine)
    moved = project.root.rename(tmp_path / "elsewhere")
    project.root = moved
    environment(moved, dataclasses.replace(machine))
    assert capbench_says(project) == "small runs"
