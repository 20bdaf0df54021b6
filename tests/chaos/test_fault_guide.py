"""docs/ADDING_A_FAULT.md: what it says, done to a copy of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from chaos.faults import base as fault

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "ADDING_A_FAULT.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)


def added(text: str, after: str, line: str) -> str:
    """``text`` with a line more behind the first ``after``."""
    assert line not in text
    assert after in text
    return text.replace(after, f"{after}\n{line}", 1)


def test_the_guide_makes_a_fault(tmp_path: Path) -> None:
    """Class, import and `AnyFault`, quick test, and the commands of the third part."""
    kind, known, test = blocks("python")
    for package in ("chaos", "tests/chaos"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    room, faults = tmp_path / "chaos" / "link_faults.py", tmp_path / "chaos" / "faults.py"
    room.write_text(room.read_text() + "\n\n" + kind)
    begin, line, _, _, union, first, *_ = known.splitlines()
    faults.write_text(added(added(faults.read_text(), begin, line), union, f"{first}\n    |"))
    tests = tmp_path / "tests" / "chaos" / "test_faults.py"
    tests.write_text(tests.read_text() + "\n\n" + test)
    pytest, capbench = blocks("sh")[0].splitlines()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    for command in (
        pytest.replace(".venv/bin/pytest", f"{sys.executable} -m pytest -q"),
        capbench.replace("capbench", f"{sys.executable} -m chaos.commands.main"),
    ):
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("2 passed" if "pytest" in command else "trickle") in done.stdout


def test_the_guide_names_the_targets_as_they_are() -> None:
    targets = ("local", "compose", "attached", "sim")
    rows = re.findall(r"^\| `([A-Z_]+)`.*?\| (.*?)\| (.*?)\| (.*?)\|$", GUIDE, flags=re.MULTILINE)
    told = {}
    for name, *cells in rows:
        both, attached, sim = (cell.strip() == "yes" for cell in cells)
        told[name] = {t for t, on in zip(targets, (both, both, attached, sim), strict=True) if on}
    named = ("LIVE", "BY_ADDRESS", "EVERYWHERE", "ANYWHERE")
    assert told == {name: set(getattr(fault, name)) for name in named}
    default = re.search(r"`([A-Z_]+)` \(if you write nothing\)", GUIDE)
    assert default is not None
    assert getattr(fault, default[1]) == fault.Fault.TARGETS
