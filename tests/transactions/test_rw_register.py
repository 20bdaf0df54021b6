"""rw-register against the brute force, and against stores that keep their level by construction."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest

from bench.checkers.transactions import check_rw_register
from bench.record.history import BadHistory
from bench.record.transactions.builder import transactions_of
from bench.record.transactions.verdict import Level, TransactionsCheck
from bench.suites.micro.transactions import register_history
from tests.transactions.brute_force import History, Txn, levels_of_registers, rows
from tests.transactions.stores import Store, tiny
from tests.transactions.test_list_append import KEEPS, committed, txns, with_what_was_read

COUNT = int(os.environ.get("TRANSACTION_TINY_HISTORIES", "400"))
EXACT: tuple[Level, ...] = ("read-uncommitted", "read-committed", "read-atomic", "causal")


def check(history: History, **options: Any) -> TransactionsCheck:
    return check_rw_register(transactions_of(rows(history)), **options)


def test_no_level_is_stated_that_the_brute_force_does_not() -> None:
    unknown: Counter[str] = Counter()
    for seed in range(COUNT):
        history = tiny(seed, register=True)
        if committed(history):
            found, told = check(history).levels, levels_of_registers(history)
            assert set(found) == set(told)
            for level, verdict in found.items():
                unknown[level] += verdict == "unknown"
                assert verdict == "unknown" or (verdict == "valid") == told[level], (seed, level)
    assert not any(unknown[level] for level in EXACT)
    assert max(unknown.values()) <= COUNT // 100


def test_every_witness_contradicts_by_itself() -> None:
    seen = set()
    for seed in range(COUNT):
        history = tiny(seed, register=True)
        for anomaly in check(history).anomalies:
            some = [history[vertex.id - 1] for vertex in anomaly.transactions]
            told = levels_of_registers(with_what_was_read(some, history))
            assert not any(told[level] for level in anomaly.refutes), (seed, anomaly)
            seen.add(anomaly.name)
    assert {"G1a", "G1b", "fractured read", "lost update", "internal", "unwritten value"} <= seen


@pytest.mark.parametrize("kind", ["strict", "snapshot", "read-committed"])
def test_a_store_is_not_refuted_at_its_level(kind: str) -> None:
    for seed in range(4):
        store = Store(kind, random.Random(seed), keys=30, clients=6, most_steps=4, register=True)
        found = check(store.run(150))
        for level in KEEPS[kind]:
            assert found.levels[level] != "invalid", (seed, found.summary)  # type: ignore[index]
        kept: tuple[Level, ...] = ("read-committed",) if kind == "read-committed" else EXACT
        for level in kept:
            assert found.levels[level] == "valid", (seed, found.summary)
        if kind == "strict":
            assert found.verdict == "valid", found.summary


def w(key: str, value: int) -> tuple[str, str, int]:
    return ("write", key, value)


def r(key: str, value: int | None) -> tuple[str, str, int | None]:
    return ("read", key, value)


def test_what_is_assumed_of_the_order_of_versions_is_an_option() -> None:
    cycle = txns([r("x", None), w("y", 1)], [r("y", None), w("x", 1)])
    assert check(cycle).levels["serializable"] == "invalid"
    free = check(cycle, initial_state=False)
    assert free.levels["serializable"] == "unknown"
    lost = txns([w("x", 1)], [r("x", 1), w("x", 2)], [r("x", 2), w("y", 1)], [r("y", 1), r("x", 1)])
    assert check(lost).levels["snapshot-isolation"] == "invalid"
    stale = txns([w("x", 1)], [w("x", 2)], [r("x", 1)], t1=(0, 1), t2=(2, 3), t3=(4, 5))
    assert [each.name for each in check(stale).anomalies] == ["G-single-realtime"]
    assert check(stale, real_time=False).levels["strict-serializable"] != "valid"
    assert check(stale).strongest == ["strong-session-serializable"]


def test_the_weak_levels_alone() -> None:
    history = txns([w("x", 1), w("y", 1)], [r("x", 1), r("y", None)])
    found = check(history, level="causal", levels=["read-committed", "read-atomic", "causal"])
    assert found.levels == {
        "read-committed": "invalid",
        "read-atomic": "invalid",
        "causal": "invalid",
    }
    fractured = txns([w("x", 1), w("y", 1)], [r("y", None), r("x", 1)])
    found = check(fractured, level="read-committed", levels=["read-atomic"])
    assert found.levels == {"read-committed": "valid", "read-atomic": "invalid"}


def test_where_few_orders_are_possible_all_are_tried() -> None:
    # Neither the times nor the dependencies alone lead to an order that fits.
    for seed in (770, 1107, 3153):
        history = tiny(seed, register=True)
        found = check(history, level="strict-serializable")
        assert found.levels["serializable"] == "valid"
        assert levels_of_registers(history)["serializable"]
        # What is left open says what was tried, and what would decide it.
        assert "no order that was tried (" in found.summary
        assert "list-append tells the order" in found.summary


def test_a_value_that_is_written_twice_leaves_its_key_undecided() -> None:
    history = txns([w("x", 1)], [w("x", 1)], [r("x", 1), r("y", None)], [w("y", 1)])
    assert set(check(history).levels.values()) == {"unknown"}
    bad = [*history, *txns([r("y", 7)])]
    bad[-1] = Txn("z", 0, 1, "ok", bad[-1].ops)
    assert check(bad).levels["read-uncommitted"] == "invalid"


def test_more_sessions_than_memory_is_unknown() -> None:
    history = txns(*([w("x", n)] for n in range(30)))
    found = check(history, level="causal", memory_bytes=3500, levels=["causal"])
    assert found.verdict == "unknown"


@pytest.mark.parametrize("keys", [5, 20, 100])
def test_an_order_is_found_for_a_large_history_with_lost_answers(keys: int) -> None:
    found = check_rw_register(register_history(2000, keys=keys))
    assert set(found.levels.values()) == {"valid"}, found.summary


def test_what_is_no_register_is_refused() -> None:
    with pytest.raises(BadHistory, match="transaction 1: an append to, or a list read of, x"):
        check(txns([("append", "x", 1)]))
