"""Foreign histories: what is read, what is refused, and that the schema says the same."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from bench.checkers import check_history
from bench.record.columns import NEVER, NOT_TOLD, Columns
from bench.record.history import ABSENT, MAX_LINE_BYTES, BadHistory, OperationRecord
from bench.record.jsonl import Line, read_columns

WRITE = {
    "process": "c1",
    "op": "write",
    "key": "k",
    "value": 1,
    "invoked_ns": 0,
    "completed_ns": 5,
    "outcome": "ok",
}


def write(path: Path, *lines: dict[str, object] | str | bytes) -> Path:
    encoded = [
        line
        if isinstance(line, bytes)
        else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return path


def refusal(tmp_path: Path, *lines: dict[str, object] | str | bytes) -> str:
    with pytest.raises(BadHistory) as caught:
        read_columns(write(tmp_path / "h.jsonl", *lines))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'h.jsonl'}:")
    return message.removeprefix(f"{tmp_path / 'h.jsonl'}:")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "2: "),
        ("", "2: empty line"),
        ("[]", "2: Expected `object`"),
        ({**WRITE, "completed": 7}, "2: Object contains unknown field `completed`"),
        (
            {k: v for k, v in WRITE.items() if k != "outcome"},
            "2: Object missing required field `outcome`",
        ),
        (
            {**WRITE, "op": "append"},
            "2: Invalid enum value 'append' - at `$.op`; it is one of read, write, cas, delete",
        ),
        (
            {**WRITE, "outcome": "OK"},
            "2: Invalid enum value 'OK' - at `$.outcome`; it is one of ok, fail, info",
        ),
        ({**WRITE, "value": float("nan")}, "2: "),
        ({**WRITE, "value": {"a": 1}}, "2: Expected"),
        ({**WRITE, "value": [1, 2]}, "2: only a read may have several values"),
        ({**WRITE, "invoked_ns": 1.5}, "2: Expected `int`"),
        ({**WRITE, "invoked_ns": 2**70}, "2: "),
        ({**WRITE, "process": 2**63}, "2: an integer has more than 64 bits - at `$.process`"),
        ({**WRITE, "process": 2**70}, "2: an integer has more than 64 bits - at `$.process`"),
        ({**WRITE, "key": -(2**70)}, "2: "),
        ({**WRITE, "intended_ns": 2**64}, "2: "),
        ({**WRITE, "completed_ns": -1}, "2: completed_ns is before invoked_ns"),
        ({**WRITE, "completed_ns": None}, "2: completed_ns may be null only where outcome is info"),
        (
            {**WRITE, "invoked_ns": 4, "completed_ns": 9},
            "2: process 'c1' has another operation open",
        ),
        (b'{"process": "\xff"}', "2: byte 14 of the line, 0xff, is not UTF-8"),
        (b" " * (MAX_LINE_BYTES + 1), "2: line of more than 4194304 bytes"),
        (b'{"value": "' + b"x" * (10 << 20) + b'"}', "2: line of more than 4194304 bytes"),
        (b"[" * 100_000, "2: "),
    ],
    ids=str,
)
def test_refused(tmp_path: Path, line: dict[str, object] | str | bytes, reason: str) -> None:
    after = {**WRITE, "invoked_ns": 10, "completed_ns": 11}
    assert refusal(tmp_path, WRITE, line, after).startswith(reason)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("bits", [16, 32])
def test_other_encodings_are_named(tmp_path: Path, encoding: str, bits: int) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes((json.dumps(WRITE) + "\n").encode(encoding.replace("16", str(bits))))
    with pytest.raises(BadHistory, match=rf"is UTF-{bits}: convert it to UTF-8 \(iconv"):
        read_columns(path)


def test_the_schema_has_the_same_bounds() -> None:
    path = Path(__file__).parents[2] / "docs" / "history.schema.json"
    properties = json.loads(path.read_text())["$defs"]["operation"]["properties"]
    whole = [name for name, each in properties.items() if "integer" in each.get("type", ())]
    assert len(whole) == 6
    for name in whole:
        assert (properties[name]["minimum"], properties[name]["maximum"]) == (-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("told", "value"), [([], None), ([7], 7), ([7, 7], 7), ([7, 7.0], 7), ([1, True], [1, True])]
)
def test_a_list_of_one_distinct_value_is_that_value(
    tmp_path: Path, told: list[object], value: object
) -> None:
    read = {**WRITE, "op": "read", "process": "c2", "value": told}
    c = read_columns(write(tmp_path / "h.jsonl", read))
    assert c.record(0).value == value
    d = Columns.from_records([OperationRecord(**read, id=1)])  # type: ignore[arg-type]
    assert bool(d.siblings) == bool(c.siblings) == isinstance(value, list)


def test_a_duplicate_id_is_refused(tmp_path: Path) -> None:
    later = {**WRITE, "invoked_ns": 10, "completed_ns": 11}
    message = refusal(
        tmp_path, {**WRITE, "id": 7}, {**later, "id": 8}, {**WRITE, "process": 2, "id": 7}
    )
    assert message == "3: id 7 occurs twice"


def test_a_process_is_over_after_an_operation_that_never_ended(tmp_path: Path) -> None:
    lost = {**WRITE, "outcome": "info", "completed_ns": None}
    later = {**WRITE, "invoked_ns": 10, "completed_ns": 11}
    assert refusal(tmp_path, lost, later).startswith("2: process 'c1' has another operation open")
    given_up = {**lost, "completed_ns": 9}
    c = read_columns(write(tmp_path / "h.jsonl", given_up, {**later, "value": 2}))
    assert c.completed.tolist() == [NEVER, 11]


def test_the_bad_line_is_found_far_into_the_file(tmp_path: Path) -> None:
    lines = [
        json.dumps({**WRITE, "value": i, "invoked_ns": 10 * i, "completed_ns": 10 * i + 5})
        for i in range(30_000)
    ]
    lines[25_123] = lines[25_123].replace("write", "wrote")
    assert refusal(tmp_path, *lines).startswith("25124: Invalid enum value 'wrote'")


def test_columns_are_those_of_the_records(tmp_path: Path) -> None:
    records = [
        OperationRecord(
            process="a",
            id=1,
            op="write",
            key="x",
            value="v",
            outcome="ok",
            invoked_ns=0,
            completed_ns=1,
        ),
        OperationRecord(
            process="b",
            id=2,
            op="read",
            key="x",
            value=["v", True],
            outcome="ok",
            invoked_ns=0,
            completed_ns=4,
            node="n2",
        ),
        OperationRecord(
            process="a",
            id=3,
            op="cas",
            key="y",
            expected=1,
            value=True,
            applied=False,
            seen=1.5,
            outcome="ok",
            invoked_ns=2,
            completed_ns=3,
        ),
        OperationRecord(
            process="c", id=4, op="delete", key="y", value=None, outcome="info", invoked_ns=2
        ),
        OperationRecord(
            process="d",
            id=5,
            op="cas",
            key="y",
            expected=1,
            value=2,
            applied=False,
            outcome="ok",
            invoked_ns=2,
            completed_ns=3,
        ),
    ]
    path = tmp_path / "h.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    c = read_columns(path)
    assert [c.record(row) for row in range(len(c))] == records
    assert c.seen[4] == NOT_TOLD
    d = Columns.from_records(records)
    assert [d.values[i] for i in d.value[:1]] == [c.values[i] for i in c.value[:1]]


def test_a_late_cas_changes_nothing_for_the_lines_before_it(tmp_path: Path) -> None:
    records = [
        OperationRecord(
            process=f"p{i % 7}",
            id=i,
            op="write" if i % 2 else "read",
            key=f"k{i % 3}",
            value=(i, None, "v", 1.5)[i % 4] if i > 20_000 else i,
            outcome="ok",
            invoked_ns=10 * i,
            completed_ns=10 * i + 5,
            node="n1" if i % 5 else None,
        )
        for i in range(25_000)
    ]
    for i in range(20_000, 25_000, 9):
        records[i] = msgspec.structs.replace(
            records[i],
            op="cas",
            value=-i,
            expected=i,
            applied=i % 2 == 0,
            seen=i if i % 2 else ABSENT,
        )
    path = tmp_path / "h.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    c = read_columns(path)
    assert [c.record(row) for row in range(len(c))] == records


def test_null_that_was_seen_is_told(tmp_path: Path) -> None:
    refused = {**WRITE, "op": "cas", "expected": 3, "applied": False}
    told = read_columns(write(tmp_path / "a.jsonl", {**refused, "seen": None}))
    hidden = read_columns(write(tmp_path / "b.jsonl", refused))
    assert (told.seen[0], hidden.seen[0]) == (0, NOT_TOLD)


def test_numbers_name_processes_and_keys_too(tmp_path: Path) -> None:
    path = write(tmp_path / "h.jsonl", {**WRITE, "process": 3, "key": 7})
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # a hand-written file may lack the newline
    c = read_columns(path)
    assert (c.processes, c.keys, c.id.tolist()) == (["3"], ["7"], [1])


def test_an_empty_node_is_no_node(tmp_path: Path) -> None:
    later = {**WRITE, "invoked_ns": 10, "completed_ns": 11}
    path = write(tmp_path / "h.jsonl", {**WRITE, "node": ""}, later, {**WRITE, "process": 2})
    named = write(tmp_path / "n.jsonl", {**WRITE, "node": ""}, {**later, "node": "n1"})
    assert len(set(read_columns(path).node.tolist())) == 1
    c = read_columns(named)
    assert [c.record(row).node for row in range(2)] == [None, "n1"]
    assert c.node[0] == c.nodes.index("")


def test_check_history(tmp_path: Path) -> None:
    path = write(
        tmp_path / "h.jsonl",
        WRITE,
        {**WRITE, "op": "read", "value": None, "process": "c2", "invoked_ns": 6, "completed_ns": 9},
    )
    check = check_history(path)
    assert (check.verdict, check.model, check.algorithm) == ("invalid", "register", "zones")
    assert check.strongest == "sequential"
    assert [line.role for line in check.witness] == ["wrote k=1 (ok)", "1 ns later read k=null"]
    assert check_history(path, initial=5).details.kind == "never-written"


def test_a_register_has_no_cas(tmp_path: Path) -> None:
    path = write(
        tmp_path / "h.jsonl", WRITE, {**WRITE, "op": "cas", "process": "c2", "expected": 1}
    )
    with pytest.raises(BadHistory, match=r"h\.jsonl:2: a register has no cas"):
        check_history(path, model="register")
    assert check_history(path).model == "cas-register"


def test_the_schema_names_the_same_fields() -> None:
    path = Path(__file__).parents[2] / "docs" / "history.schema.json"
    schema = json.loads(path.read_text())["$defs"]["operation"]
    generated = msgspec.json.schema(Line)["$defs"]["Line"]
    assert set(schema["properties"]) == set(generated["properties"])
    assert set(schema["required"]) == set(generated["required"])
    assert schema["additionalProperties"] is False
    for name in ("op", "outcome"):
        assert sorted(schema["properties"][name]["enum"]) == generated["properties"][name]["enum"]
