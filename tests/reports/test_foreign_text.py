"""Foreign text: keys, values, names of processes and files on a terminal, in Markdown and JUnit."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from bench.checkers.standalone import check_history
from bench.record.printable import columns, escaped, printable
from bench.record.witness import timeline
from reports.data.summary import cut
from reports.formats.junit import _text
from reports.formats.markdown import escape

HOSTILE = "k\x00\x1b[31m\x1b]0;title\x07\r\n\t\x7f\x9b31m\u202e\u2066\u200b\ud800\ufffe"


@pytest.mark.parametrize("clean", [printable, escaped, cut, escape, _text])
def test_no_character_that_acts_is_left(clean: object) -> None:
    assert callable(clean)
    for text in (HOSTILE, HOSTILE * 100, *map(chr, range(0x3100))):
        said = clean(text)
        left = {unicodedata.category(each) for each in said} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl"}
        assert not left - ({"Cc"} if clean is _text and "\n" in text else set()), text
    assert "k" in clean(HOSTILE)
    assert clean("ключ 日本 k17=882") == "ключ 日本 k17=882"


def test_what_is_escaped_can_be_read() -> None:
    assert printable("a\x00\x1b[31m\n\u202e") == r"a\x00\x1b[31m\n\u202e"
    long = printable("a" * 1000 + "b" * 1_000_000)
    assert long == "a" * 30 + "…" + "b" * 30
    assert columns("日本k") == 5


def history(path: Path, process: str, key: str, value: object) -> Path:
    write = {"process": process, "op": "write", "key": key, "value": value, "outcome": "ok"}
    read = {"process": "b", "op": "read", "key": key, "value": None, "outcome": "ok"}
    lines = [
        write | {"invoked_ns": 0, "completed_ns": 5},
        read | {"invoked_ns": 6, "completed_ns": 7},
    ]
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)) + b"\n")
    return path


@pytest.mark.parametrize(
    ("process", "key", "value"),
    [
        ("a\x00b", "k\x1b[31mred", 1),
        ("клиент-😀\"'<b>&", "ключ/🔑\n\t\u202e", "\x7f\u202e"),
        ("日本" * 150, "k" * 300, "v" * 5000),
    ],
)
def test_bars_stay_in_their_columns_whatever_the_names(
    tmp_path: Path, process: str, key: str, value: object
) -> None:
    check = check_history(history(tmp_path / "h.jsonl", process, key, value))
    assert check.verdict == "invalid"
    assert check.summary.isprintable()
    assert len(check.summary) < 600
    first, second = timeline(check.witness).split("\n")
    assert first.isprintable()
    assert second.isprintable()
    begin = columns(first[: first.index("|")])
    assert begin < 60
    # The second operation begins after the first one's end, in the terminal's columns.
    assert columns(second[: second.index("|")]) > columns(first[: first.rindex("-|") + 1])


def test_a_junit_text_is_xml() -> None:
    element = ET.Element("case", {"name": _text(HOSTILE)})
    assert ET.fromstring(ET.tostring(element, encoding="unicode")).get("name") == _text(HOSTILE)
