"""docs/SECURITY.md: every row of its tables names a test that verifies it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "SECURITY.md").read_text()
NAME = re.compile(r"`(test_\w+)`")


def rows() -> list[str]:
    """Of the tables whose last column names the test, without their heads."""
    tables = re.findall(r"^\|.*\| tested by \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [row for table in tables for row in table.splitlines()]


def test_every_row_names_a_test_that_is_there() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", text, re.MULTILINE))
    assert len(rows()) > 15
    for row in rows():
        named = NAME.findall(row.rpartition("|")[0].rpartition("|")[2])
        assert named, row
        assert set(named) <= there, row


def test_every_table_says_what_tests_it() -> None:
    assert len(re.findall(r"^\|[-|]+\|$", PAGE, re.MULTILINE)) == PAGE.count("| tested by |")


def test_nobody_is_named_and_no_address() -> None:
    assert not re.search(r"[\w.]+@[\w.]+|https?://", PAGE)
