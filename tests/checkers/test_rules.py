"""One set of rules: both readers, the Python API and the schema take and refuse the same lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from bench.checkers import check_history
from bench.record import jsonl
from bench.record.columns import NEVER
from bench.record.history import BadHistory, OperationRecord
from bench.record.jsonl import read_columns
from bench.record.jsonl_lines import Lines, Names, read_lines

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "cases"
# A line of a register, that is: operations of models and transactions have rules of their own.
SCHEMA = Draft202012Validator(
    {
        **json.loads((ROOT / "docs" / "history.schema.json").read_text()),
        "anyOf": [{"$ref": "#/$defs/operation"}],
    }
)


class _Missing:
    """A field that is not there; its name is the same in every process of the test run."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()
WRITE = {
    "process": "a",
    "id": 1,
    "op": "write",
    "key": "k",
    "outcome": "ok",
    "invoked_ns": 1,
    "completed_ns": 2,
    "value": 7,
}


def line(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not MISSING}


def combinations() -> Iterator[dict[str, object]]:
    """Every operation and outcome, with each field there, null, or missing."""
    some = (MISSING, None, 7)
    for op, outcome, value, expected, applied, seen in product(
        ("read", "write", "cas", "delete"),
        ("ok", "fail", "info"),
        some,
        some,
        (MISSING, True, False),
        (MISSING, None, 8),
    ):
        yield line(
            process="b",
            id=2,
            op=op,
            key="k",
            outcome=outcome,
            invoked_ns=3,
            completed_ns=4,
            value=value,
            expected=expected,
            applied=applied,
            seen=seen,
        )


def said_by_reader(path: Path, *lines: dict[str, object], quickly: bool) -> str:
    """``ok`` or the reason, without the file's name. ``quickly``: in capbench's own layout."""
    separators = (",", ":") if quickly else (", ", ": ")
    path.write_text("".join(json.dumps(each, separators=separators) + "\n" for each in lines))
    try:
        check_history(path)
    except BadHistory as error:
        said = str(error)
    else:
        return "ok"
    where = f"{path}:{len(lines)}: "
    assert said.startswith(where), said
    return said.removeprefix(where)


def said_by_python(*lines: dict[str, object]) -> str:
    try:
        check_history([OperationRecord(**each) for each in lines])  # type: ignore[arg-type]
    except BadHistory as error:
        return str(error).removeprefix(f"record {len(lines)}: ")
    return "ok"


def test_all_take_and_refuse_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick: list[bool] = []

    def watched(block: bytes, processes: Names, keys: Names, nodes: Names) -> Lines | None:
        lines = read_lines(block, processes, keys, nodes)
        quick.append(lines is not None)
        return lines

    monkeypatch.setattr(jsonl, "read_lines", watched)
    path = tmp_path / "h.jsonl"
    taken = 0
    for each in combinations():
        general = said_by_reader(path, WRITE, each, quickly=False)
        assert said_by_reader(path, WRITE, each, quickly=True) == general, each
        assert said_by_python(WRITE, each) == general, each
        assert SCHEMA.is_valid(each) == (general == "ok"), (each, general)
        if general != "ok":
            assert general.startswith("field `"), general
        taken += general == "ok"
    assert quick.count(True) == quick.count(False) > 900
    reads, writes, deletes = 2 + 3 + 3, 2 * 3, 2 * 3
    cas = 4 * (1 + 1 + 3) + 4 + 4  # ok: applied is absent, true, or false with seen or without
    assert taken == reads + writes + deletes + cas


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value": MISSING}, "field `value` is missing"),
        ({"op": "cas"}, "field `expected` of a cas is missing"),
        ({"expected": None}, "field `expected` is for a cas only"),
        ({"applied": True}, "field `applied` is for a cas that ended ok only"),
        ({"seen": 3}, "field `seen` is for a refused cas only"),
        ({"op": "delete"}, "field `value` means nothing for a delete"),
        ({"completed_ns": None}, "completed_ns may be null only where outcome is info"),
        ({"completed_ns": MISSING}, "completed_ns may be null only where outcome is info"),
        ({"completed_ns": 0}, "completed_ns is before invoked_ns"),
        ({"id": 1}, "id 1 occurs twice"),
        ({"process": "a"}, "process 'a' has another operation open at this time"),
        ({"op": "write", "value": [1, 2]}, "only a read may have several values"),
        ({"invoked_ns": 2**63}, ""),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_the_same(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    bad = line(**{**WRITE, "process": "b", "id": 2, **changes})
    path = tmp_path / "h.jsonl"
    general = said_by_reader(path, WRITE, bad, quickly=False)
    assert general.startswith(reason)
    assert general != "ok"
    assert said_by_reader(path, WRITE, bad, quickly=True) == general
    assert said_by_python(WRITE, bad) == general or reason == ""


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b'"value":1,"value":1', "value"),
        (b'"value":1 , "value" : 1', "value"),
        (b'"value":1,"val\\u0075e":1', "value"),
        (b'"value":"a:b","id":3,"id":3', "id"),
        (b'"value":null,"node":null,"node":null', "node"),
        (b'"value":1,"version":{"n1":1,"n2":2},"version":{"n1":1}', "version"),
        (b'"value":"\\\\","error":"\\":{}","op":"write"', "op"),
    ],
)
def test_a_field_that_is_given_twice(tmp_path: Path, text: bytes, field: str) -> None:
    path = tmp_path / "h.jsonl"
    good = msgspec.json.encode(WRITE)
    plain = (
        b'{"process":"b","op":"write","key":"k","outcome":"ok","invoked_ns":5,"completed_ns":6,%s}'
    )
    path.write_bytes(b"\n".join((good, plain % text, b"")))
    with pytest.raises(BadHistory, match=f":2: field `{field}` is given twice"):
        read_columns(path)
    path.write_bytes(b"\n".join((good, plain % text.replace(text[text.rindex(b",") :], b""), b"")))
    if field == "op":
        return
    read_columns(path)


def test_colons_in_texts_are_no_fields(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    lines = [
        {**WRITE, "process": f"p{n}", "id": n, "value": f'{n}:"value": {n}', "error": "a: b"}
        for n in range(100)
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert len(read_columns(path)) == 100


def test_a_name_is_a_number_or_a_text(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    lines = [
        {**WRITE, "process": p, "id": n, "invoked_ns": 3 * n, "completed_ns": 3 * n + 1}
        for n, p in enumerate((1, 2, "2"))
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(BadHistory, match=":3: process 2 is both a number and a text"):
        read_columns(path)


# --- times ---

LEAST, MOST = -(2**63), 2**63 - 1


@pytest.mark.parametrize(
    ("w", "r"),
    [
        ((LEAST, LEAST + 1), (MOST - 1, MOST)),
        ((LEAST, LEAST + 1), (LEAST + 2, LEAST + 3)),
        ((MOST - 3, MOST - 2), (MOST - 1, MOST)),
        ((-1, 0), (MOST - 1, MOST)),
        ((1_760_000_000 * 10**9, 1_760_000_000 * 10**9 + 5), (MOST, MOST)),
    ],
)
def test_times_of_any_64_bits(tmp_path: Path, w: tuple[int, int], r: tuple[int, int]) -> None:
    write = {**WRITE, "invoked_ns": w[0], "completed_ns": w[1]}
    read = {
        **WRITE, "process": "b", "id": 2, "op": "read", "value": None,
        "invoked_ns": r[0], "completed_ns": r[1],
    }  # fmt: skip
    lost = {
        **WRITE, "process": "c", "id": 3, "value": 9, "outcome": "info",
        "invoked_ns": w[0], "completed_ns": None,
    }  # fmt: skip
    path = tmp_path / "h.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in (write, read, lost)))
    c = read_columns(path)
    assert [c.record(row).invoked_ns for row in range(3)] == [w[0], r[0], w[0]]
    assert [c.record(row).completed_ns for row in range(3)] == [w[1], r[1], None]
    assert c.completed[2] == NEVER
    assert not (c.completed[:2] == NEVER).any()
    records = [OperationRecord(**each) for each in (write, read, lost)]  # type: ignore[arg-type]
    for check in (check_history(path), check_history(records)):
        assert (check.verdict, check.strongest) == ("invalid", "sequential")
        assert [line.operation.invoked_ns for line in check.witness] == [w[0], r[0]]
    read["value"] = 7
    path.write_text("".join(json.dumps(each) + "\n" for each in (write, read, lost)))
    assert check_history(path).verdict == "valid"


def op(process: str, op: str, value: object, begin: int, end: int | None, **more: Any) -> Any:
    fields = {"process": process, "op": op, "key": "k", "value": value, "outcome": "ok", **more}
    return {**fields, "invoked_ns": begin, "completed_ns": end}


MS = 10**6


@pytest.mark.parametrize("far", [0, 1 << 62])
@pytest.mark.parametrize(
    ("lines", "initial", "error", "verdict", "strongest"),
    [
        # b's read that takes no time came first, however wide the other one is made.
        (
            [op("a", "write", 2, 1, 1), op("b", "read", 2, 2, 3), op("b", "read", None, 2, 2)],
            None, MS, "valid", "linearizable",
        ),
        # Program order holds inside the clock error.
        (
            [
                op("b", "write", 1, 8 * MS, 10 * MS),
                op("b", "read", 2, 11 * MS, 11 * MS),
                op("a", "write", 2, 4 * MS, 5 * MS),
            ],
            None, 2 * MS, "unknown", "unknown",
        ),
        # A process that reads what it writes afterwards.
        (
            [
                op("a", "read", 13, 12, 12),
                op("a", "write", 13, 12, None, outcome="info"),
                op("b", "read", 13, 1, 1),
            ],
            0, MS, "invalid", "unknown",
        ),
        (
            [op("a", "write", 1, 4, 5, outcome="info"), op("a", "read", 1, 4, 4)],
            None, 0, "invalid", "unknown",
        ),
        # What is apart by more than the clock error is in order.
        (
            [op("a", "write", 1, 0, 1), op("b", "read", None, 7, 8)],
            None, 5, "invalid", "sequential",
        ),
        (
            [op("a", "write", 1, 0, 1), op("b", "read", None, 6, 8)],
            None, 5, "valid", "linearizable",
        ),
    ],
)  # fmt: skip
def test_clock_errors_and_ties(
    tmp_path: Path,
    lines: list[dict[str, Any]],
    initial: Any,
    error: int,
    verdict: str,
    strongest: str,
    far: int,
) -> None:
    """``far``: beside an operation on another key, so far away that 64 bits hold it only once. Then
    the gaps of a process are not known, and what is valid may be unknown."""
    lines = [{"id": number, **each} for number, each in enumerate(lines)]
    if far:
        lines.append({**op("z", "write", 1, -far, -far), "id": 99, "key": "z"})
    path = tmp_path / "h.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    for given in (path, [OperationRecord(**each) for each in lines]):
        check = check_history(given, initial=initial, clock_error_ns=error)
        assert check.verdict in {verdict, "unknown" if far and verdict == "valid" else verdict}
        if not far:
            assert check.strongest == strongest


# --- small histories, each with its verdict by definition ---


@pytest.mark.parametrize(
    ("name", "verdict", "strongest"),
    [
        ("wall-clock", "invalid", "sequential"),
        ("only-fail", "unknown", "unknown"),
        ("only-info", "unknown", "unknown"),
        ("failed-cas-beside-a-lost-write", "invalid", "unknown"),
        ("info-cas-that-was-seen", "invalid", "unknown"),
        ("info-write-then-going-on", "invalid", "unknown"),
        ("refused-cas-that-saw-what-it-expected", "invalid", "none"),
        ("refused-cas-that-saw-null", "invalid", "sequential"),
    ],
)
def test_cases(name: str, verdict: str, strongest: str) -> None:
    path = CASES / f"{name}.jsonl"
    records = [msgspec.json.decode(each, type=OperationRecord) for each in with_ids(path)]
    for check in (check_history(path), check_history(records)):
        assert (check.verdict, check.strongest) == (verdict, strongest)


def with_ids(path: Path) -> list[bytes]:
    lines = [msgspec.json.decode(each) for each in path.read_bytes().splitlines()]
    return [msgspec.json.encode({**each, "id": n}) for n, each in enumerate(lines)]


@pytest.mark.parametrize(
    ("name", "place", "field"),
    [
        ("applied-on-write", 1, "applied"),
        ("cas-without-expected", 2, "expected"),
        ("expected-on-read", 1, "expected"),
        ("field-twice", 1, "value"),
        ("read-without-value", 2, "value"),
        ("write-without-value", 1, "value"),
    ],
)
def test_cases_that_are_refused(name: str, place: int, field: str) -> None:
    with pytest.raises(BadHistory, match=rf"{name}\.jsonl:{place}: field `{field}` "):
        check_history(CASES / f"{name}.jsonl")
