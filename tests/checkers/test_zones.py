"""The zone algorithm: against brute force, and by its rules one by one."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from itertools import count

import pytest

from bench.checkers.clusters import unique_keys
from bench.checkers.linearizability import check_linearizable
from bench.checkers.zones import check_zones, shrink
from bench.record.columns import Columns
from bench.record.history import ABSENT, OperationRecord
from nodes.contract.replica import OperationKind, Outcome, Value
from tests.checkers.brute_force import is_linearizable
from tests.checkers.generator import tiny_history

HISTORIES = int(os.environ.get("CHECKER_HISTORIES", "8000"))
"""How many tiny histories are compared with brute force; 100,000 for a full proof."""


_PROCESSES = count()


def op(
    kind: OperationKind,
    interval: str,
    value: Value | list[Value] = None,
    *,
    outcome: Outcome = "ok",
    expected: Value = None,
    applied: bool | None = None,
    seen: Value = ABSENT,
    key: str = "k",
) -> OperationRecord:
    """One operation of a process of its own; ``interval`` is drawn: ``"  [--]"`` is from 2 to 5; no
    ``]``: it never ended."""
    assert interval.strip(" -[]") == ""
    start = interval.index("[")
    end = interval.find("]")
    return OperationRecord(
        process=f"c{next(_PROCESSES)}",
        id=0,
        op=kind,
        key=key,
        outcome=outcome,
        invoked_ns=start,
        completed_ns=end if end >= 0 else None,
        value=value,
        expected=expected,
        applied=applied,
        seen=seen,
    )


def verdict_of(*records: OperationRecord, **options: bool | int | None) -> tuple[str, object, int]:
    check = check_linearizable(Columns.from_records(records), **options)  # type: ignore[arg-type]
    return check.verdict, check.details.kind, len(check.witness)


VALID = ("valid", None, 0)

CASES: list[tuple[str, tuple[object, ...], Sequence[OperationRecord]]] = [
    ("one after the other", VALID, [op("write", "[-]", 1), op("read", "    [-]", 1)]),
    ("initial value", VALID, [op("read", "[-]", None), op("write", "    [-]", 1)]),
    (
        "initial value read too late",
        ("invalid", "inside", 2),
        [op("write", "[-]", 1), op("read", "    [-]", None)],
    ),
    (
        "stale read",
        ("invalid", "inside", 3),
        [op("write", "[-]", 1), op("write", "    [-]", 2), op("read", "        [-]", 1)],
    ),
    (
        "a read that touches the end of the next write may be before it",
        VALID,
        [op("write", "[-]", 1), op("write", "    [-]", 2), op("read", "      [-]", 1)],
    ),
    (
        "new, then old (by whom the new was written does not matter)",
        ("invalid", "inside", 3),
        [
            op("write", "[-]", 1),
            op("write", "    [----------]", 2),
            op("read", "      [-]", 2),
            op("read", "          [-]", 1),
        ],
    ),
    (
        "read from the future",
        ("invalid", "read-before-write", 2),
        [op("read", "[-]", 1), op("write", "    [-]", 1)],
    ),
    ("value from nowhere", ("invalid", "never-written", 1), [op("read", "[-]", 9)]),
    (
        "value of a failed write",
        ("invalid", "never-written", 2),
        [op("write", "[-]", 1, outcome="fail"), op("read", "    [-]", 1)],
    ),
    (
        "failed operations say nothing",
        VALID,
        [op("write", "[-]", 1), op("read", "    [-]", 7, outcome="fail")],
    ),
    (
        "reads of unknown outcome say nothing",
        VALID,
        [op("write", "[-]", 1), op("read", "    [", 7, outcome="info")],
    ),
    (
        "a write of unknown outcome may come late",
        VALID,
        [
            op("write", "[", 1, outcome="info"),
            op("write", "  [-]", 2),
            op("read", "      [-]", 2),
            op("read", "          [-]", 1),
        ],
    ),
    (
        "a write of unknown outcome does not come twice",
        ("invalid", "overlap", 3),
        [
            op("write", "[", 1, outcome="info"),
            op("read", "  [-]", 1),
            op("write", "      [-]", 2),
            op("read", "          [-]", 2),
            op("read", "              [-]", 1),
        ],
    ),
    (
        "true is not 1",
        ("invalid", "never-written", 1),
        [op("write", "[-]", 1), op("read", "[-]", True)],
    ),
    ("1.0 is 1", VALID, [op("write", "[-]", 1), op("read", "    [-]", 1.0)]),
    (
        "two CAS from one value",
        ("invalid", "two-cas-of-one-value", 2),
        [
            op("cas", "[-]", 1, expected=None, applied=True),
            op("cas", "[-]", 2, expected=None, applied=True),
        ],
    ),
    (
        "CAS of a value that nobody wrote",
        ("invalid", "never-written", 1),
        [op("cas", "[-]", 1, expected=5, applied=True)],
    ),
    (
        "a circle of CAS",
        ("invalid", "cas-cycle", 2),
        [
            op("cas", "[----]", 1, expected=2, applied=True),
            op("cas", "[----]", 2, expected=1, applied=True),
        ],
    ),
    (
        "CAS in the wrong order of time",
        ("invalid", "chain-order", 2),
        [
            op("cas", "[-]", 2, expected=1, applied=True),
            op("cas", "    [-]", 1, expected=None, applied=True),
        ],
    ),
    (
        "a CAS of unknown outcome that nobody saw may not have been",
        VALID,
        [
            op("cas", "[", 1, expected=None, outcome="info"),
            op("cas", "  [-]", 2, expected=None, applied=True),
        ],
    ),
    (
        "a CAS of unknown outcome whose value was seen has been",
        ("invalid", "two-cas-of-one-value", 3),
        [
            op("cas", "[", 1, expected=None, outcome="info"),
            op("cas", "  [-]", 2, expected=None, applied=True),
            op("read", "  [---]", 1),
        ],
    ),
    (
        "so has one whose value another one needed",
        ("invalid", "two-cas-of-one-value", 4),
        [
            op("cas", "[", 1, expected=None, outcome="info"),
            op("cas", "[", 3, expected=1, outcome="info"),
            op("cas", "  [-]", 2, expected=None, applied=True),
            op("read", "  [---]", 3),
        ],
    ),
    (
        "nothing comes between the two values of a CAS",
        ("invalid", "inside", 3),
        [
            op("write", "[-]", 1),
            op("write", "    [-]", 2),
            op("cas", "        [-]", 3, expected=1, applied=True),
        ],
    ),
    (
        "a refused CAS is a read of what it saw",
        ("invalid", "inside", 3),
        [
            op("write", "[-]", 1),
            op("write", "    [-]", 2),
            op("cas", "        [-]", 3, expected=9, applied=False, seen=1),
        ],
    ),
    (
        "a CAS refused although it saw what it expected",
        ("invalid", "refused-match", 1),
        [op("write", "[-]", 1), op("cas", "    [-]", 3, expected=1, applied=False, seen=1)],
    ),
    (
        "siblings are not a register",
        ("invalid", "siblings", 1),
        [op("write", "[-]", 1), op("write", "[-]", 2), op("read", "    [-]", [1, 2])],
    ),
    ("a list of one is that one", VALID, [op("write", "[-]", 1), op("read", "    [-]", [1])]),
    (
        "keys have nothing to do with each other",
        VALID,
        [
            op("write", "[-]", 1, key="a"),
            op("write", "    [-]", 2, key="b"),
            op("read", "        [-]", 1, key="a"),
        ],
    ),
    (
        "the same value on two keys",
        ("invalid", "inside", 3),
        [
            op("write", "[-]", 1, key="a"),
            op("write", "[-]", 1, key="b"),
            op("write", "    [-]", 2, key="b"),
            op("read", "        [-]", 1, key="a"),
            op("read", "        [-]", 1, key="b"),
        ],
    ),
]


@pytest.mark.parametrize(("want", "records"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_case(want: tuple[object, ...], records: Sequence[OperationRecord]) -> None:
    assert verdict_of(*records) == want


def test_no_operations_are_unknown() -> None:
    assert verdict_of()[0] == "unknown"


def test_a_cut_history_may_lack_the_write() -> None:
    read = op("read", "[-]", 9)
    assert verdict_of(read, history_is_cut=True)[0] == "unknown"
    stale = [op("write", "[-]", 1), op("write", "    [-]", 2), op("read", "        [-]", 1)]
    assert verdict_of(*stale, read, history_is_cut=True) == ("invalid", "inside", 3)


def test_a_cut_history_may_lack_a_delete() -> None:
    records = [
        op("delete", "[-]", key="other"),
        op("write", "[-]", 1),
        op("read", "    [-]", None),
    ]
    assert verdict_of(*records, history_is_cut=True)[0] == "unknown"


def test_the_clock_error_widens_intervals() -> None:
    stale = [op("write", "[-]", 1), op("write", "    [-]", 2), op("read", "        [-]", 1)]
    gap = 8 - 6
    assert verdict_of(*stale, clock_error_ns=gap - 1)[0] == "invalid"
    assert verdict_of(*stale, clock_error_ns=gap) == VALID


def test_agrees_with_brute_force() -> None:
    found: dict[str | None, int] = {}
    for seed in range(HISTORIES):
        rng = random.Random(seed)
        keys, initial = rng.choice((1, 1, 2)), rng.choice((None, None, 7))
        history = tiny_history(
            rng, keys=keys, initial=initial, cas=rng.random() < 0.6, most=6 if keys == 1 else 4
        )
        c = Columns.from_records(history)
        code = c.code_of(initial)
        admitted = unique_keys(c, code)
        finding = check_zones(c, initial=code)
        want = all(
            is_linearizable([r for r in history if r.key == key], initial)
            for number, key in enumerate(c.keys)
            if admitted[number]
        )
        assert (finding.kind is None) == want, f"seed {seed}: {finding} {history}"
        if finding.kind not in (None, "never-written"):
            _assert_minimal(c, finding.witness, code, seed)
        found[finding.kind] = found.get(finding.kind, 0) + 1
    rare = {kind for kind, count in found.items() if count < HISTORIES // 4000}
    assert len(found) >= 8, f"the generator misses kinds of contradiction: {found}"
    assert not rare, f"the generator hardly makes {rare}: {found}"


def _assert_minimal(c: Columns, witness: list[int], initial: int, seed: int) -> None:
    assert witness, f"seed {seed}"
    assert shrink(c, witness, initial) == witness, f"seed {seed}: can do with less than {witness}"
