"""list-append against the brute force, and against stores that keep their level by construction."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from bench.checkers.transactions import check_list_append
from bench.record.history import BadHistory
from bench.record.transactions.builder import transactions_of
from bench.record.transactions.verdict import TransactionsCheck
from bench.suites.micro.transactions import list_append_history
from tests.transactions.brute_force import History, Txn, levels_of_lists, rows
from tests.transactions.stores import KINDS, Store, tiny

COUNT = int(os.environ.get("TRANSACTION_TINY_HISTORIES", "400"))
RARE = (6239, 7653, 8477, 10871)
"""An aborted read beside a read of what is unknown; appends that nobody read in an order that has
to be tried; a cycle that comes twice through one transaction."""
KEEPS = {
    "strict": {"strict-serializable"},
    "serializable": {"serializable"},
    "snapshot": {"snapshot-isolation"},
    "read-committed": {"read-committed"},
    "read-uncommitted": {"read-uncommitted"},
}
SHOWS = {
    "serializable": "strict-serializable",
    "snapshot": "serializable",
    "read-committed": "snapshot-isolation",
    "read-uncommitted": "read-committed",
    "nothing": "read-uncommitted",
}


def check(history: History, **options: Any) -> TransactionsCheck:
    return check_list_append(transactions_of(rows(history)), **options)


def committed(history: History) -> bool:
    return any(txn.outcome == "ok" for txn in history)


def test_every_level_is_that_of_the_brute_force() -> None:
    for seed in (*range(COUNT), *RARE):
        history = tiny(seed)
        if committed(history):
            found = {level: v == "valid" for level, v in check(history).levels.items()}
            assert found == levels_of_lists(history), seed


def test_every_witness_contradicts_by_itself() -> None:
    """Its transactions alone are refuted by the brute force, at every level that it refutes."""
    seen = set()
    for seed in (*range(COUNT), *RARE):
        history = tiny(seed)
        for anomaly in check(history).anomalies:
            some = [history[vertex.id - 1] for vertex in anomaly.transactions]
            told = levels_of_lists(with_what_was_read(some, history))
            assert not any(told[level] for level in anomaly.refutes), (seed, anomaly)
            seen.add(anomaly.name)
    assert {"G1a", "G1b", "G1c", "G-single", "G2-item", "lost update", "internal"} <= seen


def with_what_was_read(some: History, history: History) -> History:
    """A witness, and what else its reads saw, as transactions that only wrote that."""
    written = {(k, v) for txn in some for name, k, v in txn.ops if name != "read"}
    more: History = []
    for txn in history:
        ops = tuple(
            (name, k, v) for name, k, v in txn.ops if name != "read" and (k, v) not in written
        )
        seen = {
            (k, each)
            for each_txn in some
            for name, k, v in each_txn.ops
            if name == "read" and v is not None
            for each in (v if isinstance(v, list) else [v])
        }
        ops = tuple(op for op in ops if (op[1], op[2]) in seen)
        if ops and txn not in some:
            more += [Txn(f"w{len(more)}", 0, None, "info", (op,)) for op in ops]
    return [*some, *more]


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_is_not_refuted_below_its_level_and_is_above(kind: str) -> None:
    refuted = False
    for seed in range(6):
        store = Store(kind, random.Random(seed), keys=5, clients=6, most_steps=5)
        found = check(store.run(400))
        for level in KEEPS.get(kind, set()):
            assert found.levels[level] == "valid", (seed, found.summary)  # type: ignore[index]
        if kind in SHOWS:
            refuted |= found.levels[SHOWS[kind]] == "invalid"  # type: ignore[index]
    assert refuted == (kind in SHOWS)


def txns(*of: Any, **times: tuple[int, int]) -> History:
    return [
        Txn(f"p{number}", *times.get(f"t{number}", (0, 100)), "ok", tuple(ops))
        for number, ops in enumerate(of, 1)
    ]


def a(key: str, value: int) -> tuple[str, str, int]:
    return ("append", key, value)


def r(key: str, *values: int) -> tuple[str, str, list[int]]:
    return ("read", key, list(values))


def names(history: History) -> set[str]:
    return {anomaly.name for anomaly in check(history).anomalies}


def test_a_witness_says_why() -> None:
    found = check(txns([a("x", 1)], [r("x")], t1=(0, 9), t2=(20, 29)))
    assert found.levels["strong-session-serializable"] == "valid"
    (anomaly,) = [each for each in found.anomalies if each.edges]
    assert anomaly.name == "G-single-realtime"
    assert anomaly.words == [
        "T2 began after T1 had ended",
        "T2 read x=[], without 1, which T1 wrote",
        "so T1 comes before itself: G-single-realtime",
    ]
    assert [(edge.kind, edge.key, edge.before, edge.after) for edge in anomaly.edges] == [
        ("realtime", None, None, None),
        ("rw", "x", [], 1),
    ]


def test_transactions_no_further_apart_than_the_clock_error_are_concurrent() -> None:
    history = txns([a("x", 1)], [r("x")], t1=(0, 9), t2=(20, 29))
    assert check(history, clock_error_ns=10).verdict == "invalid"
    assert check(history, clock_error_ns=11).verdict == "valid"


def test_over_the_budget_nothing_is_stated() -> None:
    history = txns([a("x", 1)], [r("x", 1)])
    assert check(history, budget_s=0).verdict == "unknown"
    assert check(history, memory_bytes=10).verdict == "unknown"
    assert check(txns([a("x", 1)], [r("x", 2)]), budget_s=0).verdict == "invalid"


def test_without_a_committed_transaction_nothing_is_known() -> None:
    assert check([Txn("p", 0, None, "info", (a("x", 1),))]).verdict == "unknown"
    assert check([]).verdict == "unknown"


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([("write", "x", 1)], "transaction 1: a write of x, and list-append has"),
        ([("read", "x", 1)], "transaction 1: a read of one value, not a list, of x"),
        ([a("x", 1), a("x", 1)], "transaction 1: 1 is appended to x for the second time"),
    ],
    ids=str,
)
def test_what_is_no_list_append_is_refused(ops: Any, message: str) -> None:
    with pytest.raises(BadHistory, match=message):
        check(txns(ops))


def test_a_retry_after_a_certain_failure_may_use_the_same_value() -> None:
    failed = Txn("p0", 0, 1, "fail", (a("x", 1),))
    assert check([failed, *txns([a("x", 1)], [r("x", 1)], t1=(5, 6))]).verdict == "valid"


@pytest.mark.parametrize("seed", range(2))
def test_a_large_history_with_lost_answers_is_strictly_serializable(seed: int) -> None:
    assert check_list_append(list_append_history(20_000, keys=20, seed=seed)).verdict == "valid"
