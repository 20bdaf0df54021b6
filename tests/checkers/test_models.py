"""The checkers of sets, counters, queues, locks and so on, against the objects themselves.

20,000 histories of each: ``CHECKER_TINY_HISTORIES=20000 pytest tests/checkers/test_models.py``.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from itertools import chain

import msgspec
import pytest

from bench.checkers.models import check_model
from bench.record.models.operations import Operation
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
