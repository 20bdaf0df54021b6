"""docs/ADDING_A_SYSTEM.md: its code is the example, and a run finds the example's bug."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from chaos.clusters.lab import sandbox
from chaos.commands import run as cli_run
from chaos.targets.subjects import findable
from tests.live.conftest import Typed, capbench, run_json

pytestmark = pytest.mark.live
EXAMPLE = Path(__file__).with_name("example_system.py")
GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "ADDING_A_SYSTEM.md").read_text()


def test_the_blocks_of_the_guide_make_up_the_example() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)

    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.strip()]

    assert lines("\n".join(blocks)) == lines(EXAMPLE.read_text())


def test_a_run_finds_the_bug_of_the_example(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        sandbox.refuse()
        sandbox.nft()
    except sandbox.NoLab as error:
        pytest.skip(str(error))
    shutil.copy(EXAMPLE, place / "my_system.py")
    code, told = run_json("run", "short.yaml", "-p", "./my_system.py", cwd=place)
    (run,) = told["runs"]
    assert code == 4
    assert (run["protocol"], run["verdict"]) == ("my-system", "invalid")
    assert run["counterexample"]
    # It can be repeated from its folder, which alone does not make us execute a file.
    again: list[cli_run.Planned] = []
    monkeypatch.setattr(cli_run, "_run_all", lambda plans, *_, **__: again.extend(plans))
    monkeypatch.chdir(place)
    type_ = Typed(monkeypatch, capsys)
    code, _, refused = type_("run", "--again", run["folder"])
    assert (code, again) == (2, [])
    assert f"-p {place / 'my_system.py'}" in refused
    assert type_("run", "--again", run["folder"], "-p", "my_system.py")[0] == 0
    assert type_("run", "--again", run["folder"], "-p", "my_system.py", "-p", "etcd")[0] == 2
    ((_, subject, target, _),) = again
    assert (subject.name, target) == ("my-system", "lab")
    assert findable(subject) == str(place / "my_system.py")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import chaos.systems\n", "it registers no system"),
        ("import chaos.systems\nraise ValueError('oh')\n", "ValueError: oh"),
        (
            "from chaos.systems.catalogue import SYSTEMS, register\nregister(SYSTEMS['etcd'])\n",
            "there is a system 'etcd' already",
        ),
    ],
    ids=["nothing in it", "an error in it", "a name that is taken"],
)
def test_a_file_that_is_no_system_is_told_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    done = capbench("run", "healthy", "-p", "./mine.py", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"capbench: system file ./mine.py: {said}"]
