"""Findings: what is read, what is refused in one line, and what counts as seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chaos.commands.findings import reproduce
from chaos.commands.findings.reproduce import Row
from chaos.findings import finding as findings
from chaos.findings.finding import BadFinding, Condition, load
from chaos.systems.catalogue import is_named

GOOD = """\
title: Something is lost
published: somebody said so
source: https://example.org/
system: etcd
beside: [redis-sentinel]
experiment: acknowledged-writes
seen: {lost_writes: ">= 1", stale_reads: "> 0"}
"""


def made(tmp_path: Path, text: str = GOOD) -> findings.Finding:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load(str(path))


@pytest.mark.parametrize("name", findings.names())
def test_those_that_come_with_it_can_be_run(name: str) -> None:
    found = load(name)
    assert all(map(is_named, found.systems))
    assert found.source.startswith("https://")
    assert found.here, "say what was seen when it was written"
    assert found.experiment.plan(), "without a fault nothing is shown"


def test_a_good_one(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found.systems == ("etcd", "redis-sentinel")
    assert found.experiment.name == "acknowledged-writes"
    assert [str(each) for each in found.seen] == ["lost writes >= 1", "stale reads > 0"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title:", "titel:", "mine.yaml: Object contains unknown field `titel`"),
        ("source: https://example.org/\n", "", "mine.yaml: Object missing required field `source`"),
        ("system: etcd", "system: etc", "mine.yaml: unknown system 'etc'; did you mean etcd?"),
        (
            "acknowledged-writes",
            "acknowledged",
            "mine.yaml: unknown experiment 'acknowledged'; did you mean acknowledged-writes?",
        ),
        ("acknowledged-writes", "{nodes: 3}", "mine.yaml: experiment:1: duration: is missing"),
        (
            "lost_writes",
            "lost_write",
            "mine.yaml: seen: unknown figure 'lost_write'; did you mean lost_writes?",
        ),
        (
            '">= 1"',
            '"many"',
            "mine.yaml: seen.lost_writes: 'many' is not a comparison; write it as \">= 1\"",
        ),
        ("seen: {", "seen: {}\nbeside2: {", "mine.yaml: Object contains unknown field `beside2`"),
        ("title: Something is lost", "title: [", "mine.yaml:3: "),
        (GOOD, "5", "mine.yaml: a finding is a mapping that begins with `title:`"),
    ],
    ids=lambda text: text[:20].strip() if text else "nothing",
)
def test_a_bad_one_is_told_in_a_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(BadFinding) as refused:
        made(tmp_path, GOOD.replace(old, new))
    (line,) = str(refused.value).splitlines()
    assert line.removeprefix(f"{tmp_path}/").startswith(said)


def test_one_that_is_not_there_is_told_in_a_line() -> None:
    with pytest.raises(BadFinding, match="redis-sentinel-partition"):
        load("redis-sentinel-partitio")
    with pytest.raises(BadFinding, match="No such file"):
        load("./nowhere.yaml")


class Stale(NamedTuple):
    fraction: float


class Run(NamedTuple):
    lost_writes: int | None
    stale_reads: Stale | None


@pytest.mark.parametrize(
    ("run", "shown"),
    [
        (Run(1, Stale(0.1)), True),
        (Run(1, Stale(0.0)), False),
        (Run(None, Stale(0.0)), False),
        (Run(None, Stale(0.1)), None),
        (Run(1, None), None),
    ],
    ids=["both", "one", "one, and one unknown", "unknown and one", "one and unknown"],
)
def test_all_conditions_count(tmp_path: Path, run: Any, shown: bool | None) -> None:
    assert made(tmp_path).shown_by(run) is shown


def row(seen: int, runs: int, undecided: int = 0, failed: int = 0) -> Row:
    return Row(
        system="etcd",
        version="3",
        seen=seen,
        runs=runs,
        undecided=undecided,
        failed=failed,
        measured={"lost_writes": [3.0, None, 1.0]},
    )


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([row(1, 5)], 0),
        ([row(0, 5), row(5, 5)], 1),
        ([row(0, 5, undecided=4)], 1),
        ([row(0, 5, undecided=5)], 5),
        ([row(1, 4, failed=1)], 3),
        ([row(1, 5), row(0, 4, failed=1)], 3),
    ],
    ids=["seen", "only beside it", "some do not tell", "none tells", "failed", "failed beside it"],
)
def test_the_exit_code_says_whether_it_was_seen(rows: list[Row], code: int) -> None:
    assert reproduce._code(rows) == code


def test_a_row_in_words() -> None:
    assert reproduce._said(row(2, 3, undecided=1, failed=1)) == (
        "etcd 3: seen in 2 of 3 runs here (lost writes: 2, 1 to 3; 1 do not tell; 1 failed)"
    )


def test_conditions_compare() -> None:
    run: Any = Run(2, None)
    told = [Condition("lost_writes", sign, 2).holds(run) for sign in (">=", "<=", ">", "<")]
    assert told == [True, True, False, False]
