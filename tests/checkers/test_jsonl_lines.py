"""The quick reader of capbench's own lines: what the general reader says, it says too."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bench.record import jsonl
from bench.record.columns import Columns, Int32s
from bench.record.history import ABSENT, BadHistory, OperationRecord
from bench.record.jsonl import read_columns
from bench.record.jsonl_lines import Names, read_lines
from bench.suites.micro.histories import linearizable_history, write_jsonl
from nodes.contract.replica import OperationKind, Outcome


def is_read_quickly(block: bytes) -> bool:
    return read_lines(block, Names({}), Names({}), Names({})) is not None


def encoded(records: list[OperationRecord]) -> bytes:
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def some_records(rng: random.Random, count: int) -> list[OperationRecord]:
    """Records with every field that the quick reader knows, in all combinations."""
    start = rng.choice((0, 5, 10**9, 10**17, 1_760_000_000 * 10**9))
    records = []
    for number in range(count):
        op: OperationKind = rng.choice(("read", "write", "cas", "delete"))
        is_cas = op == "cas"
        value = rng.choice((None, number, 10 ** rng.randint(0, 18)))
        invoked = start + 10 * number + rng.randint(0, 9)
        is_over = rng.random() < 0.9
        outcome: Outcome = rng.choice(("ok", "ok", "fail", "info")) if is_over else "info"
        applied = rng.choice((None, True, False)) if is_cas and outcome == "ok" else None
        records.append(
            OperationRecord(
                process=f"{rng.choice(('c', 'load-1.p', 'long-name-'))}{number}",
                id=start + number,
                op=op,
                key=rng.choice(("k", "key-12", "exactly8", "fifteen-letters")),
                outcome=outcome,
                invoked_ns=invoked,
                completed_ns=invoked + rng.randint(0, 10**9) if is_over else None,
                intended_ns=invoked - 1 if invoked and rng.random() < 0.5 else None,
                value=None if op == "delete" else value,
                expected=rng.choice((None, 7, number)) if is_cas else ABSENT,
                applied=applied,
                seen=rng.choice((None, 3, number, ABSENT)) if applied is False else ABSENT,
                node=rng.choice((None, "n1", "n22")),
                version=rng.choice((None, number)),
            )
        )
    return records


Said = tuple[str, Columns | None]


@pytest.fixture
def both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bytes], tuple[Said, Said]]:
    """What the two ways to read a history say."""
    path = tmp_path / "h.jsonl"

    def read(tries: int) -> Said:
        monkeypatch.setattr(jsonl, "_TRIES", tries)
        try:
            return "", read_columns(path)
        except BadHistory as error:
            return str(error), None

    def both(content: bytes) -> tuple[Said, Said]:
        path.write_bytes(content)
        return read(8), read(0)

    return both


def assert_same(quick: Said, general: Said) -> None:
    assert quick[0] == general[0]
    if quick[1] is None or general[1] is None:
        return
    for field in fields(Columns):
        mine, theirs = getattr(quick[1], field.name), getattr(general[1], field.name)
        if field.name in ("value", "expected", "seen"):  # numbered in one order or another
            mine, theirs = _values(quick[1], mine), _values(general[1], theirs)
        if field.name == "values":
            mine, theirs = set(map(repr, mine)), set(map(repr, theirs))
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype, field.name
            assert np.array_equal(mine, theirs), field.name
        else:
            assert mine == theirs, field.name


def _values(c: Columns, codes: Int32s) -> list[object]:
    return [c.values[code] if code >= 0 else int(code) for code in codes.tolist()]


@pytest.mark.parametrize("seed", range(30))
def test_both_read_the_same(both_ways: Callable[[bytes], tuple[Said, Said]], seed: int) -> None:
    rng = random.Random(seed)
    content = encoded(some_records(rng, rng.randint(1, 60)))
    assert is_read_quickly(content)
    quick, general = both_ways(content)
    assert general[1] is not None, general
    assert_same(quick, general)


@pytest.mark.parametrize("seed", range(300))
def test_both_say_the_same_of_a_spoiled_file(
    both_ways: Callable[[bytes], tuple[Said, Said]], seed: int
) -> None:
    rng = random.Random(seed)
    content = bytearray(encoded(some_records(rng, 12)))
    for _ in range(rng.choice((1, 1, 1, 2))):
        place = rng.randrange(len(content))
        way = rng.randrange(4)
        if way == 0:
            content[place] = rng.choice(b'0123456789-.eE",:{}[]\\\n\t tfn\x00\x7f\x80\xff')
        elif way == 1:
            content.insert(place, rng.choice(b'0019-."\\\n x,'))
        elif way == 2:
            del content[place : place + rng.choice((1, 1, 3, 16))]
        else:
            other = rng.randrange(len(content))
            content[place:place] = content[other : other + rng.randint(1, 20)]
    assert_same(*both_ways(bytes(content)))


@pytest.mark.parametrize(
    "line",
    [
        b'{"process":"a","id":01,"op":"read","key":"k","outcome":"ok","invoked_ns":0}',
        b'{"process":"a","id":1,"op":"read","key":"k","outcome":"ok","invoked_ns":0,"value":-1}',
        b'{"process":"a","id":1,"op":"read","key":"k","outcome":"ok","invoked_ns":0,"value":true}',
        b'{"process":"a","id":1,"op":"read","key":"k","outcome":"ok","invoked_ns":0,"value":1.5}',
        b'{"process":"a","id":1,"op":"rea","key":"k","outcome":"ok","invoked_ns":0}',
        b'{"process":"a","id":1,"op":"read","key":"k","outcome":"okk","invoked_ns":0}',
        b'{"process":"a","id":1,"op":"read","key":"k","outcome":"ok","invoked_ns":0} ',
        b'{"process":"a","id":1,"op":"read","key":"k","outcome":"ok","invoked_ns":0}}',
        b'{"process":"a","id":1,"op":"read","key":"k\x01","outcome":"ok","invoked_ns":0}',
        b'{"process":"a","id":1,"op":"read","key":"\\u0041","outcome":"ok","invoked_ns":0}',
        b'{"process":"\xc3\xa9","id":1,"op":"read","key":"k","outcome":"ok","invoked_ns":0}',
        b'{"process":"a","id":1,"op":"cas","key":"k","outcome":"ok","invoked_ns":0,"applied":12345}',
        b'{"process":"a","id":12345678901234567890,"op":"read","key":"k","outcome":"ok","invoked_ns":0}',
        b'{"process":"sixteen-letters-","id":1,"op":"read","key":"k","outcome":"ok","invoked_ns":0}',
        b"",
        b"x",
    ],
)
def test_what_it_leaves_to_the_general_reader(line: bytes) -> None:
    good = b'{"process":"a","id":1,"op":"read","key":"k","outcome":"ok","invoked_ns":0}\n'
    good = good.replace(b"}", b',"value":null}')
    assert is_read_quickly(good)
    assert not is_read_quickly(good + line + b"\n" + good)
    assert not is_read_quickly(good + good.rstrip(b"\n"))


def test_many_names_are_told_apart(both_ways: Callable[[bytes], tuple[Said, Said]]) -> None:
    """More than the table has places."""
    records = [
        OperationRecord(
            process=f"p{i % 9000}",
            id=i,
            op="read",
            key=f"a-long-key-{i % 7001}",
            value=None,
            outcome="ok",
            invoked_ns=i,
            completed_ns=i,
        )
        for i in range(20_000)
    ]
    content = encoded(records)
    assert is_read_quickly(content)
    assert_same(*both_ways(content))


def test_the_histories_of_the_benchmarks_are_read_quickly(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    write_jsonl(linearizable_history(2000, clients=20, keys=5, seed=1, cas=0.5), path)
    assert is_read_quickly(path.read_bytes())
