"""Sequential, causal and the session guarantees, each against a slow definition of itself."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from bench.checkers.budget import Budget
from bench.checkers.causal import check_causal
from bench.checkers.sequential import check_sequential
from bench.checkers.sessions.guarantees import GUARANTEES, check_sessions
from bench.checkers.staleness import stale_reads
from bench.checkers.zones import check_zones
from bench.record.columns import NEVER, Columns
from bench.record.history import OperationRecord
from bench.record.verdict import SequentialCheck
from bench.suites.micro.histories import linearizable_history
from nodes.contract.replica import OperationKind, Value, Version
from tests.checkers import brute_force as by_definition
from tests.checkers.tiny import tiny_processes

HISTORIES = 3000


def history(
    rng: random.Random, *, processes: int, keys: int, length: int, siblings: bool = False
) -> list[OperationRecord]:
    """Processes that read and write one after the other; a read sees some write of the history, of
    any time, with a leaning towards what was written last."""
    plan = []
    for p in range(processes):
        now = rng.randint(0, 3)
        for _ in range(rng.randint(1, length)):
            end = now + rng.randint(1, 6)
            plan.append((now, end, p, rng.choice("rrww"), rng.randrange(keys)))
            now = end + rng.randint(1, 3)
    plan.sort()
    written: dict[int, list[int]] = {key: [] for key in range(keys)}
    for number, (_, _, _, kind, key) in enumerate(plan):
        if kind == "w":
            written[key].append(number)
    records = []
    for number, (start, end, p, kind, key) in enumerate(plan):
        value: Value | list[Value] = number
        info = kind == "w" and rng.random() < 0.1
        if kind == "r":
            known = [w for w in written[key] if plan[w][0] < end]
            value = rng.choice([None, *known, *known[-2:], *known[-1:] * 3])
            if rng.random() < 0.05 and written[key]:
                value = rng.choice(written[key])
            if siblings and len(known) > 1 and rng.random() < 0.2:
                value = rng.sample(known, 2)
        records.append(
            OperationRecord(
                process=f"c{p}",
                id=number,
                op="read" if kind == "r" else "write",
                key=f"k{key}",
                outcome="info" if info else "ok",
                invoked_ns=start,
                completed_ns=None if info else end,
                value=value,
                node=f"n{rng.randrange(2)}",
            )
        )
    return records


# --- sequential ---


def test_sequential_agrees_with_every_merge() -> None:
    verdicts = {True: 0, False: 0}
    for seed in range(HISTORIES):
        records = history(random.Random(seed), processes=3, keys=1, length=4)
        want = by_definition.is_sequential(records)
        check = check_sequential(Columns.from_records(records))
        assert (check.verdict == "valid") == want, f"seed {seed}: {check.summary}"
        if not want:
            ids = {line.operation.id for line in check.witness}
            part = [record for record in records if record.id in ids]
            assert not by_definition.is_sequential(part), f"seed {seed}: {check.summary}"
        verdicts[want] += 1
    assert min(verdicts.values()) > HISTORIES // 10, verdicts


def test_several_keys_refute_but_do_not_prove() -> None:
    refuted = 0
    for seed in range(300):
        records = history(random.Random(seed), processes=3, keys=2, length=4)
        by_key = [[r for r in records if r.key == key] for key in ("k0", "k1")]
        want = all(by_definition.is_sequential(part) for part in by_key)
        check = check_sequential(Columns.from_records(records))
        assert (check.verdict == "invalid") == (not want), f"seed {seed}: {check.summary}"
        if all(by_key):
            assert check.verdict != "valid"
        refuted += not want
    assert 30 < refuted < 270


def with_several_keys(count: int) -> Iterator[tuple[list[OperationRecord], Value, random.Random]]:
    for seed in itertools.count():
        records, initial = tiny_processes(rng := random.Random(seed))
        if len({record.key for record in records}) > 1:
            yield records, initial, rng
            count -= 1
        if not count:
            return


def judged(
    records: Sequence[OperationRecord], initial: Value, versions: Sequence[Version]
) -> SequentialCheck:
    columns = Columns.from_records(records)
    return check_sequential(columns, columns.code_of(initial), versions=versions)


def test_an_order_by_versions_is_a_proof_whatever_they_are() -> None:
    proved = 0
    for records, initial, rng in with_several_keys(1500):
        # Mostly the order in which they were sent; sometimes some have none, or two have one.
        numbers = sorted(range(len(records)), key=lambda i: records[i].invoked_ns)
        versions: list[Version] = [0] * len(records)
        for place, i in enumerate(numbers):
            versions[i] = place
        for _ in range(rng.choice((0, 0, 1, 3))):
            versions[rng.randrange(len(versions))] = rng.choice((None, 1, 2, 5))
        if judged(records, initial, versions).verdict == "valid":
            assert by_definition.is_sequential(records, initial), records
            proved += 1
    assert proved > 200


def test_the_right_versions_prove_every_sequential_history() -> None:
    proved = 0
    for records, initial, _ in with_several_keys(300):
        check = judged(records, initial, ())
        assert check.verdict != "valid"
        changes = sum(record.op != "read" for record in records)
        if check.details.keys_left_out or changes > 3 or "none of" not in check.summary:
            continue
        if by_definition.is_sequential(records, initial):
            assert any(
                judged(records, initial, versions).verdict == "valid"
                for versions in itertools.permutations(range(len(records)))
            ), records
            proved += 1
    assert proved > 50


Told = tuple[str, OperationKind, str, Value, int | None]
"""A process, what it did to which key, the value, and its version."""


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        (
            # Who saw the later write did not see the earlier one.
            [
                ("a", "write", "x", 1, 2),
                ("a", "write", "y", 2, 1),
                ("b", "read", "y", 2, 1),
                ("b", "read", "x", None, None),
            ],
            "unknown",
        ),
        (
            # The CAS comes after a write that it did not see.
            [
                ("a", "write", "y", 1, 1),
                ("a", "write", "y", 2, 2),
                ("a", "write", "x", 9, 3),
                ("b", "read", "x", 9, 3),
                ("b", "cas", "y", 3, 4),
            ],
            "unknown",
        ),
        (
            # A write that nobody answered may take effect after what its process did next.
            [
                ("a", "write", "x", 1, None),
                ("a", "read", "x", None, None),
                ("b", "read", "x", 1, 1),
                ("b", "read", "y", None, None),
            ],
            "valid",
        ),
    ],
    ids=["writes of a process in another order", "a cas of an old value", "a write without answer"],
)
def test_what_an_order_of_several_keys_must_keep(operations: list[Told], expected: str) -> None:
    records = [
        OperationRecord(
            process=process,
            id=number,
            op=op,
            key=key,
            outcome="info" if op == "write" and version is None else "ok",
            invoked_ns=2 * number,
            completed_ns=2 * number + 1,
            value=value,
            node="n1",
            version=version,
        )
        for number, (process, op, key, value, version) in enumerate(operations)
    ]
    for record in records:
        if record.op == "cas":
            record.expected, record.applied = 1, True
    check = judged(records, None, [record.version for record in records])
    assert check.verdict == expected, check.summary
    assert by_definition.is_sequential(records) == (expected == "valid")


# --- causal ---


def is_causal(records: Sequence[OperationRecord]) -> bool:
    """The patterns of Bouajjani et al., over the closure as a matrix."""
    n = len(records)
    after = np.zeros((n, n), np.bool_)
    writer = {(r.key, r.value): i for i, r in enumerate(records) if r.op == "write"}
    for a, b in by_definition.program_order(records):
        after[a, b] = True
    values: dict[int, list[Value]] = {}
    for i, r in enumerate(records):
        if r.op == "read":
            values[i] = list(r.value) if isinstance(r.value, list) else [r.value]
            for value in values[i]:
                if value is not None:
                    after[writer[r.key, value], i] = True
    for k in range(n):
        after |= np.outer(after[:, k], after[k])
    if after.diagonal().any():
        return False
    for i, saw in values.items():
        outdated = 0
        for value in saw:
            newer = [
                w
                for (key, other), w in writer.items()
                if key == records[i].key and other != value and after[w, i]
            ]
            if value is not None:
                newer = [w for w in newer if after[writer[records[i].key, value], w]]
            outdated += bool(newer)
        if outdated == len(saw):
            return False
    return True


@pytest.mark.parametrize("siblings", [False, True])
def test_causal_agrees_with_the_closure(siblings: bool) -> None:
    verdicts = {True: 0, False: 0}
    for seed in range(HISTORIES):
        records = history(random.Random(seed), processes=4, keys=2, length=5, siblings=siblings)
        want = is_causal(records)
        check = check_causal(Columns.from_records(records))
        assert (check.verdict == "valid") == want, f"seed {seed}: {check.summary}"
        verdicts[want] += 1
    assert min(verdicts.values()) > HISTORIES // 10, verdicts


def test_causal_over_its_budget_is_unknown() -> None:
    records = history(random.Random(1), processes=4, keys=2, length=5)
    check = check_causal(Columns.from_records(records), budget=Budget(60, 1, configurations=1))
    assert check.verdict == "unknown"


# --- sessions and staleness ---


def test_sessions_agree_with_every_pair() -> None:
    totals = dict.fromkeys(GUARANTEES, 0)
    for seed in range(HISTORIES):
        records = history(random.Random(seed), processes=4, keys=2, length=5)
        want = by_definition.session_violations(records)
        check = check_sessions(Columns.from_records(records))
        got = {name: getattr(check.details, name).violations or 0 for name in GUARANTEES}
        assert got == want, f"seed {seed}: {check.summary}"
        assert bool(check.witness) == any(want.values())
        for name in GUARANTEES:
            totals[name] += want[name]
    assert min(totals.values()) > 30, totals


def test_without_nodes_two_guarantees_are_unknown() -> None:
    kinds: tuple[OperationKind, ...] = ("write", "read")
    records = [
        OperationRecord(
            process="c",
            id=i,
            op=op,
            key="k",
            value=1,
            outcome="ok",
            invoked_ns=9 * i,
            completed_ns=9 * i + 5,
        )
        for i, op in enumerate(kinds)
    ]
    details = check_sessions(Columns.from_records(records)).details
    assert details.read_your_writes.violations is not None
    assert details.monotonic_writes.violations is None
    assert details.writes_follow_reads.violations is None


def test_stale_reads_agree_with_every_pair() -> None:
    stale_in_all = 0
    for seed in range(HISTORIES):
        records = history(random.Random(seed), processes=4, keys=2, length=5)
        found = stale_reads(Columns.from_records(records))
        writer = {(r.key, r.value): r for r in records if r.op == "write"}
        got = dict(zip(found.rows.tolist(), found.age_ns.tolist(), strict=True))
        k_of = dict(zip(found.rows.tolist(), found.k.tolist(), strict=True))
        for row, r in enumerate(records):
            if r.op != "read":
                continue
            placed = float("-inf")
            if r.value is not None:
                same = [x for x in records if x.key == r.key and x.value == r.value]
                placed = min(NEVER if x.completed_ns is None else x.completed_ns for x in same)
                placed = max(placed, writer[r.key, r.value].invoked_ns)
            newer = [
                x
                for x in writer.values()
                if x.key == r.key
                and x.completed_ns is not None
                and placed < x.invoked_ns
                and x.completed_ns < r.invoked_ns
            ]
            ages = [r.invoked_ns - x.completed_ns for x in newer if x.completed_ns is not None]
            assert got.get(row) == max(ages, default=None), f"seed {seed} row {row}"
            if newer:
                assert 1 <= k_of[row] <= len(newer)
                stale_in_all += 1
    assert stale_in_all > HISTORIES // 2


# --- a big history that is linearizable by construction ---


def test_no_false_violation_on_a_million_linearizable_operations() -> None:
    c = linearizable_history(1_000_000, clients=50, keys=100, seed=3)
    assert check_zones(c).kind is None
    assert len(stale_reads(c).rows) == 0
    check = check_sessions(c)
    assert check.verdict == "valid", check.summary
    assert {getattr(check.details, name).violations for name in GUARANTEES} == {0}
    some = linearizable_history(30_000, clients=20, keys=10, seed=4)
    assert check_causal(some).verdict == "valid"
    assert check_sequential(some).verdict == "unknown"  # several keys are never proven
    one_key = linearizable_history(30_000, clients=20, keys=1, seed=5)
    assert check_sequential(one_key).verdict == "valid"
