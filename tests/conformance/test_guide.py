"""docs/ADDING_A_PROTOCOL.md: its code is the example, and what it says about running works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.example import EXAMPLE_FILE, PRIMARY_FILE

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "ADDING_A_PROTOCOL.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)


def lines(text: str) -> list[str]:
    """What counts: not the empty lines, nor the marks that name a part for the guide."""
    return [line for line in text.splitlines() if line.strip() and "# [guide: " not in line]


def test_the_blocks_of_the_guide_make_up_the_example() -> None:
    assert len(blocks("python")) == 9
    assert lines("\n".join(blocks("python"))) == lines(EXAMPLE_FILE.read_text())


def test_the_fixed_primary_of_the_guide_is_the_one_that_is_tested() -> None:
    assert blocks("python file=primary.py") == [PRIMARY_FILE.read_text()]


@pytest.mark.parametrize("number", [0, 1])
def test_the_pasted_blocks_run_as_the_guide_says(tmp_path: Path, number: int) -> None:
    """The simulator's command, and the conformance suite's (with few seeds)."""
    (tmp_path / "newest.py").write_text("\n\n".join(blocks("python")))
    command = blocks("sh")[number].replace(".venv/bin/python", sys.executable)
    command = command.replace(".venv/bin/pytest", f"{sys.executable} -m pytest")
    command = command.replace("newest.py", str(tmp_path / "newest.py"))
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=ROOT,
        env={**os.environ, "CAPBENCH_SEEDS": "10", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ["\n[]\n" in done.stdout, " passed" in done.stdout][number], done.stdout
