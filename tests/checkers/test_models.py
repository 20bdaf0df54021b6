"""The checkers of sets, counters, queues, locks and so on, against the objects themselves.

20,000 histories of each: ``CHECKER_TINY_HISTORIES=20000 pytest tests/checkers/test_models.py``.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from itertools import chain
from pathlib import Path

import msgspec
import pytest

from bench.checkers.budget import Budget
from bench.checkers.models import check_model
from bench.checkers.models.check import FAMILIES
from bench.record.history import BadHistory
from bench.record.models.jsonl import ModelLine
from bench.record.models.operations import Operations
from bench.record.models.read import read_any
from bench.record.models.source import BLOCK_BYTES
from bench.record.models.verdict import Operation
from tests.checkers.tiny_models import MODELS, operations_of, rare

HISTORIES = int(os.environ.get("CHECKER_TINY_HISTORIES", "400"))
OPEN = (
    "touch in time",
    "was never read",
    "were never read",
    "nobody acquired",
    "no operation was answered ok",
    "of unknown outcome",
)
"""Why a verdict may be *unknown*."""


@pytest.mark.parametrize("model", MODELS)
def test_verdicts_are_those_of_the_object(model: str) -> None:
    make, holds = MODELS[model]
    counts: Counter[str] = Counter()
    some = (make(random.Random(seed)) for seed in range(HISTORIES))
    for seed, ops in enumerate(chain(some, rare(model))):
        check = check_model(operations_of(ops), model)
        told = f"seed {seed}: {check.summary}\n" + "\n".join(map(str, ops))
        assert msgspec.json.decode(msgspec.json.encode(check))["verdict"] == check.verdict
        want = holds(ops)
        assert check.verdict != "valid" or want, f"a false valid: {told}"
        assert check.verdict != "invalid" or not want, f"a false violation: {told}"
        if check.verdict == "unknown":
            assert any(why in check.summary for why in OPEN), told
        counts[check.verdict] += 1
    assert counts["valid"] > HISTORIES // 10, counts
    assert counts["invalid"] > HISTORIES // 20, counts
    assert counts["unknown"] < HISTORIES // 2, counts


def part_of(ops: list[Operation], shown: set[int]) -> list[Operation]:
    """The operations of a witness. Of the elements that a set was read to have, those stay that are
    added in it, or by nobody, or that are there twice: the others have their adds elsewhere."""
    part = [op for op in ops if op.id in shown]
    others = {op.value for op in ops if op.op == "add" and op.outcome != "fail"}
    others -= {op.value for op in part if op.op == "add"}
    found = []
    for op in part:
        if op.op == "read" and isinstance(op.value, list):
            value = [e for e in op.value if e not in others or op.value.count(e) > 1]
            op = msgspec.structs.replace(op, value=value)
        found.append(op)
    return found


@pytest.mark.parametrize("model", MODELS)
def test_each_witness_contradicts_by_itself(model: str) -> None:
    make, holds = MODELS[model]
    shown = 0
    for ops in chain(rare(model), (make(random.Random(seed)) for seed in range(HISTORIES))):
        check = check_model(operations_of(ops), model)
        if check.verdict == "invalid":
            part = part_of(ops, {step.operation.id for step in check.witness})
            told = "\n".join(map(str, ops)) + f"\n{check.summary}:\n" + "\n".join(map(str, part))
            assert part, told
            assert not holds(part), told
            shown += 1
    assert shown > HISTORIES // 20


# --- files ---

ADD = {"process": 1, "op": "add", "value": 7, "invoked_ns": 0, "completed_ns": 5, "outcome": "ok"}
READ = {**ADD, "op": "read", "value": [7], "invoked_ns": 6, "completed_ns": 9}


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def verdict_on(path: Path, model: str = "auto") -> tuple[str, str]:
    """Which model a file is of, and the verdict."""
    read = read_any(path, model)
    assert isinstance(read.history, Operations)
    return read.model, check_model(read.history, read.model).verdict


def test_the_schema_names_the_same_fields() -> None:
    path = Path(__file__).parents[2] / "docs" / "history.schema.json"
    schema = json.loads(path.read_text())["$defs"]["operation_of_a_model"]
    generated = msgspec.json.schema(ModelLine)["$defs"]["ModelLine"]
    assert set(schema["properties"]) == set(generated["properties"])
    assert set(schema["required"]) == set(generated["required"])
    known = {op for family in FAMILIES for op in family.operations} | {"append", "write"}
    assert schema["properties"]["op"]["enum"] == sorted(known)


@pytest.mark.parametrize(
    ("line", "model", "says"),
    [
        ({**READ, "value": 7}, "set", "2: a read of a set is a list"),
        ({**ADD, "process": 2, "value": [1]}, "set", "2: an element is"),
        ({**READ, "op": "enqueue"}, "set", "2: 'enqueue': a set has add, read"),
        ({**READ, "key": None, "colour": 1}, "set", "2: Object contains unknown field `colour`"),
        ({**READ, "col\nour": 1}, "set", "2: Object contains unknown field `col\\nour`"),
        ({k: v for k, v in READ.items() if k != "value"}, "set", "2: field `value` is missing"),
        ({**READ, "invoked_ns": 3}, "set", "2: process '1' has another operation open"),
        ({**READ, "completed_ns": None}, "set", "2: completed_ns may be null only"),
        (READ, "counter", "2: what is read of a counter is an integer"),
        ({**READ, "op": "add", "value": "x"}, "counter", "2: what is added of a counter is"),
        ({**READ, "value": [7, 1 << 63]}, "set", "2: an integer has more than 64 bits"),
        ({**READ, "process": 2, "value": {"a": -(1 << 64)}}, "bank", "2: an integer has more"),
        ({**READ, "process": 2, "op": "grow"}, "auto", "the operations (add, grow) do not tell"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(
    tmp_path: Path, line: object, model: str, says: str
) -> None:
    path = written(tmp_path / "h.jsonl", ADD, line)
    with pytest.raises(BadHistory) as caught:
        verdict_on(path, model)
    assert says in str(caught.value)


def test_lines_that_begin_with_reads_of_maps_are_no_register(tmp_path: Path) -> None:
    read = {**READ, "value": {"a": 7}}
    path = written(tmp_path / "h.jsonl", read)
    with pytest.raises(BadHistory, match=r"\(read\) do not tell the model; say it: --model"):
        verdict_on(path)
    wide = {**read, "value": {"a": "x" * 1000}}
    some = range(10, BLOCK_BYTES // 500, 2)
    later = [{**wide, "invoked_ns": n, "completed_ns": n + 1} for n in some]
    path = written(tmp_path / "h.jsonl", *later, {**READ, "process": 2, "op": "write", "value": 1})
    with pytest.raises(BadHistory, match="1: a register holds no object"):
        verdict_on(path)


def test_each_key_is_an_object_of_its_own(tmp_path: Path) -> None:
    elsewhere = {**READ, "process": 2, "key": "y", "value": []}
    path = written(tmp_path / "h.jsonl", {**ADD, "key": "x"}, {**READ, "key": "x"}, elsewhere)
    assert verdict_on(path) == ("set-full", "valid")


def test_for_how_long_elements_were_missed_is_told() -> None:
    def read(number: int, begin: int, *seen: int) -> Operation:
        return Operation(
            process=f"r{number}",
            id=number,
            op="read",
            value=list(seen),
            outcome="ok",
            invoked_ns=begin,
            completed_ns=begin + 1,
        )

    s = 1_000_000_000
    add = Operation(
        process="a", id=0, op="add", value=1, outcome="ok", invoked_ns=0, completed_ns=s
    )
    check = check_model(operations_of([add, read(1, 4 * s), read(2, 5 * s, 1)]), "set-full")
    assert (check.verdict, check.strongest) == ("invalid", "set")
    assert check.anomalies["stale"].count == 1
    assert check.details["stale_s"] == {"p50": 3.0, "p99": 3.0, "max": 3.0}


def test_the_totals_of_a_bank_are_thinned_out_but_for_a_few_that_are_wrong() -> None:
    def read(number: int) -> Operation:
        return Operation(
            process="r",
            id=number,
            op="read",
            value={"a": number, "b": (11 if number % 500 == 7 else 10) - number},
            outcome="ok",
            invoked_ns=10 * number,
            completed_ns=10 * number + 5,
        )

    details = check_model(operations_of([read(n) for n in range(2000)]), "bank").details
    wrong = [[10 * number + 5, 11] for number in range(7, 2000, 500)]
    assert details["total"] == 10
    assert [each for each in details["totals"] if each[1] != 10] == wrong
    assert len(details["totals"]) <= 204


@pytest.mark.parametrize(("name", "verdict"), [("c01-ok", "valid"), ("c01-bad", "invalid")])
def test_appended_texts_of_porcupine(name: str, verdict: str) -> None:
    path = Path(__file__).parent / "edn_cases" / f"{name}.edn"
    assert verdict_on(path) == ("append-kv", verdict)


def test_large_histories_take_seconds_not_hours() -> None:
    """A million elements in a set would take a quadratic check days; here a tenth of that."""
    count = 100_000
    adds = [
        Operation(
            process=f"c{n % 20}",
            id=n,
            op="add",
            value=n,
            outcome="ok",
            invoked_ns=20 * (n // 20) + 1,
            completed_ns=20 * (n // 20) + 19,
        )
        for n in range(count)
    ]
    last = Operation(
        process="r",
        id=count,
        op="read",
        value=[n for n in range(count) if n != 77],
        outcome="ok",
        invoked_ns=20 * count,
        completed_ns=20 * count + 1,
    )
    check = check_model(operations_of([*adds, last]), "set")
    assert (check.verdict, check.anomalies["lost"].count) == ("invalid", 1)
    assert check.witness[0].operation.value == 77


def added_at_once(amounts: list[int], seen: int) -> list[Operation]:
    adds = [
        Operation(process=f"c{n}", id=n, op="add", value=amount, outcome="info", invoked_ns=1)
        for n, amount in enumerate(amounts)
    ]
    read = Operation(
        process="r", id=99, op="read", value=seen, outcome="ok", invoked_ns=5, completed_ns=9
    )
    return [*adds, read]


@pytest.mark.parametrize("large", [1, 1 << 30])
def test_a_read_of_a_counter_is_some_sum_of_what_was_open(large: int) -> None:
    amounts = [3 * large, 5 * large, -4 * large]
    possible = {0, 3, 5, 8, -4, -1, 1, 4}
    for seen in range(-5, 10):
        check = check_model(operations_of(added_at_once(amounts, seen * large)), "counter")
        assert check.verdict == ("valid" if seen in possible else "invalid"), seen


def test_more_sums_than_there_is_time_or_memory_for_are_unknown() -> None:
    amounts = [(1 << 38) + (1 << n) for n in range(30)]
    operations = operations_of(added_at_once(amounts, amounts[3] + 1))
    for budget, what in ((Budget(0.0), "time"), (Budget(60.0, 1 << 20), "memory")):
        check = check_model(operations, "counter", budget=budget)
        assert (check.verdict, check.summary.endswith(f"out of {what}")) == ("unknown", True)
