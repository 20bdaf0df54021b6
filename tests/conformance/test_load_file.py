"""A protocol from a user's file: loaded and usable, or refused in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nodes.registry import PROTOCOLS, InvalidConfiguration, load_file
from tests.conformance.example import EXAMPLE, EXAMPLE_FILE

ROOT = Path(__file__).resolve().parents[2]
TEXT = EXAMPLE_FILE.read_text()


def test_a_loaded_protocol_is_known_by_its_name_in_this_process() -> None:
    script = (
        "import sys; from nodes.registry import get, load_file;"
        "from nodes.simulator.simulate import simulate;"
        "(protocol,) = load_file(sys.argv[1]); assert load_file(sys.argv[1]) == (protocol,);"
        "assert get('newest') is protocol; print(simulate('newest', 1, duration_s=1.0).alarms)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(EXAMPLE_FILE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.py").symlink_to("loop.py")
    with pytest.raises(InvalidConfiguration, match=r"loop\.py: a link that leads nowhere"):
        load_file(tmp_path / "loop.py")


def test_a_file_is_imported_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(TEXT.replace('"newest"', '"mine"'))
    try:
        first = load_file(file)
        assert [protocol.name for protocol in first] == ["mine"]
        assert load_file(str(file)) is first
        assert PROTOCOLS["mine"] is first[0]
    finally:
        del PROTOCOLS["mine"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("syntax.py", "def (:\n", "SyntaxError"),
        ("broken.py", "import no_such_module\n", "No module named 'no_such_module'"),
        ("nothing.py", "x = 1\n", "registers no protocol"),
        ("taken.py", TEXT.replace('"newest"', '"raft"'), "there is a protocol 'raft' already"),
        ("late.py", TEXT.replace('"newest"', '"late"') + "\n1 / 0\n", "ZeroDivisionError"),
        ("text.txt", TEXT, "its name must end in .py"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    before = dict(PROTOCOLS)
    modules = set(sys.modules)
    with pytest.raises(InvalidConfiguration) as caught:
        load_file(file)
    line = str(caught.value)
    assert reason in line
    assert name in line
    assert "\n" not in line
    assert before == PROTOCOLS, "what is refused leaves nothing behind"
    assert {m for m in set(sys.modules) - modules if m.startswith("capbench_protocol")} == set()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="there is no protocol file"):
        load_file(tmp_path / "none.py")
    with pytest.raises(InvalidConfiguration, match="there is no protocol file"):
        load_file(tmp_path)


def test_the_example_is_not_left_among_the_registered() -> None:
    assert EXAMPLE.name not in PROTOCOLS
