"""Transactions as rows and as JSON lines: what is read, what is refused, what the schema says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.record.columns import INFO, NEVER, NOT_TOLD, OK
from bench.record.history import BadHistory
from bench.record.transactions.builder import transactions_of
from bench.record.transactions.columns import EMPTY
from bench.record.transactions.jsonl import TransactionLine, read_transactions

LINE: dict[str, Any] = {
    "process": 1,
    "outcome": "ok",
    "invoked_ns": 0,
    "completed_ns": 9,
    "transaction": [["append", "x", 1], ["read", "x", [1]], ["write", 7, "v"], ["read", 7, None]],
}


def write(path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    open_end = {**LINE, "process": "c2", "outcome": "info", "completed_ns": None, "id": 70}
    t = read_transactions(write(tmp_path / "h.jsonl", LINE, open_end))
    assert [tuple(step) for step in LINE["transaction"][:2]] == t.operations(0)[:2]
    assert t.operations(0)[2:] == [("write", "7", "v"), ("read", "7", None)]
    assert t.outcome.tolist() == [OK, INFO]
    assert t.completed.tolist() == [9, NEVER]
    assert t.id.tolist() == [1, 70]
    assert t.processes == ["1", "c2"]
    assert t.value[t.first[1] + 1] == NOT_TOLD
    assert t.owner().tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({**LINE, "transaction": [["append", "x", None]]}, "field `transaction`: append of null"),
        ({**LINE, "transaction": [["write", "x", [1]]]}, "field `transaction`: write of a list"),
        ({**LINE, "transaction": [["add", "x", 1]]}, "Invalid enum value 'add'"),
        (
            {**LINE, "transaction": [["read", "x"]]},
            "Expected `array` of length 3 - at",
        ),
        ({**LINE, "transaction": [["read", None, 1]]}, "Expected `int | str`, got `null`"),
        (
            {**LINE, "transaction": [["append", "x", 1 << 64]]},
            "an integer has more than 64 bits - at ",
        ),
        ({**LINE, "op": "read"}, "Object contains unknown field `op`"),
        ({**LINE, "completed_ns": -1}, "completed_ns is before invoked_ns"),
        ({**LINE, "completed_ns": None}, "completed_ns may be null only where outcome is info"),
        ({**LINE, "invoked_ns": 8, "completed_ns": 10}, "process '1' has another operation open"),
        ({**LINE, "process": "1", "invoked_ns": 10, "completed_ns": 11}, "process 1 is both a num"),
        (json.dumps(LINE).encode()[:-1] + b', "outcome": "ok"}', "field `outcome` is given twice"),
        (b" ", "empty line"),
        (b'{"process": "\xff"}', "byte 14 of the line, 0xff, is not UTF-8"),
    ],
    ids=str,
)
def test_refused(tmp_path: Path, line: Any, reason: str) -> None:
    with pytest.raises(BadHistory) as refused:
        read_transactions(write(tmp_path / "h.jsonl", LINE, line))
    place, _, said = str(refused.value).partition("h.jsonl:2: ")
    assert said.startswith(reason), place + said


def reads(*lists: Any) -> list[list[Any]]:
    """What comes back of lists that were read of one key."""
    rows = [
        ("c", 2 * i, 2 * i + 1, "ok", [("read", "x", values)]) for i, values in enumerate(lists)
    ]
    t = transactions_of(rows)  # type: ignore[arg-type]
    return [t.operations(i)[0][2] for i in range(len(t))]  # type: ignore[misc]


@pytest.mark.parametrize(
    "lists",
    [
        [[], [1], [1, 2], [1, 2, 3], [1]],
        [[3, 4, 5], [3], [3, 4]],
        [[1, 2, 3], [1, 3], [1, 3, 4], [1, 2, 3, 4], [1, 2], [1, 2, 3, 4, 5], [1, 3]],
        [[2, 1], [2, True], [2, 1], [2, True, 3], [2, 1, 3]],
        [[False], [0], [False, 1], [0, 1]],
        [["a", 1.5], ["a", 2], [1, 1], [1, 1, 1]],
    ],
    ids=str,
)
def test_lists_come_back_whatever_they_share(lists: list[list[Any]]) -> None:
    told = reads(*lists)
    assert json.dumps(told) == json.dumps(lists)


def test_a_list_is_kept_once() -> None:
    rows = [
        ("c", 2 * i, 2 * i + 1, "ok", [("read", key, values)])
        for i, (key, values) in enumerate(
            [("x", [1, 2, 3]), ("x", [1, 2]), ("y", [1, 2]), ("x", []), ("x", [1, 4]), ("x", [1])]
        )
    ]
    t = transactions_of(rows)  # type: ignore[arg-type]
    assert len(t.lists) == 1 + 3 + 2 + 1
    assert t.value[3] == EMPTY
    assert (t.lists.parent[1:] < range(1, len(t.lists))).all()


def test_rows_are_held_to_the_same_rules() -> None:
    row: Any = ("c", 0, 9, "ok", [])
    with pytest.raises(BadHistory, match="transaction 2: process 'c' has another operation open"):
        transactions_of([row, row])
    with pytest.raises(BadHistory, match="transaction 1: a time or an id is no integer of 64 bits"):
        transactions_of([("c", 1 << 63, None, "info", [])])


def test_the_schema_names_the_same_fields() -> None:
    path = Path(__file__).parents[2] / "docs" / "history.schema.json"
    schema = json.loads(path.read_text())["$defs"]["transaction"]
    generated = msgspec.json.schema(TransactionLine)["$defs"]["TransactionLine"]
    assert set(schema["properties"]) == set(generated["properties"])
    assert set(schema["required"]) == set(generated["required"])
    assert schema["additionalProperties"] is False
