"""The examples of the literature, by their names and places there.

- Berenson, Bernstein, Gray, Melton, O'Neil, O'Neil, "A Critique of ANSI SQL Isolation Levels",
  SIGMOD 1995: sections 3 and 4, by the names of their phenomena and histories.
- Adya, "Weak Consistency", MIT 1999, chapters 3 and 4; Adya, Liskov, O'Neil, "Generalized Isolation
  Level Definitions", ICDE 2000: by the names of their histories and phenomena.
- Cerone, Bernardi, Gotsman, "A Framework for Transactional Consistency Models with Atomic
  Visibility", CONCUR 2015: figure 2.
- Kingsbury, Alvaro, "Elle", VLDB 14(3), 2020: sections 4 and 7.
- Biswas, Enea, "On the Complexity of Checking Transactional Consistency", OOPSLA 2019: section 2.

Values are unique here where the papers' are not. A register's write is an append where the order of
the versions has to be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pytest

from bench.checkers.transactions import check_list_append, check_rw_register
from bench.record.transactions.builder import transactions_of
from bench.record.transactions.verdict import WEAKER
from tests.transactions.brute_force import (
    History,
    Txn,
    levels_of_lists,
    levels_of_registers,
    rows,
)
from tests.transactions.test_list_append import a, r, txns


def w(key: str, value: int) -> tuple[str, str, int]:
    return ("write", key, value)


def v(key: str, value: int | None) -> tuple[str, str, int | None]:
    return ("read", key, value)


def failed(*ops: Any) -> Txn:
    return Txn("aborted", 0, 100, "fail", tuple(ops))


@dataclass(frozen=True)
class Example:
    """``anomaly`` that has to be found; ``strongest``: the levels that are left."""

    source: str
    history: History
    anomaly: str
    strongest: tuple[str, ...]


LISTS: Final = [
    Example(
        "Adya, H_wcycle; Berenson P0, dirty write",
        txns([a("x", 1), a("y", 1)], [a("x", 2), a("y", 2)], [r("x", 1, 2), r("y", 2, 1)]),
        "G0",
        (),
    ),
    Example(
        "Adya, G1a, aborted reads",
        [failed(a("x", 1)), *txns([r("x", 1)])],
        "G1a",
        ("read-uncommitted",),
    ),
    Example(
        "Adya, G1b, intermediate reads",
        txns([a("x", 1), a("x", 2)], [r("x", 1)], [r("x", 1, 2)]),
        "G1b",
        ("read-uncommitted",),
    ),
    Example(
        "Adya, G1c, circular information flow",
        txns([a("x", 1), r("y", 1)], [a("y", 1), r("x", 1)]),
        "G1c",
        ("read-uncommitted",),
    ),
    Example(
        "Elle, section 4, dirty update",
        [failed(a("x", 1)), *txns([a("x", 2)], [r("x", 1, 2)])],
        "dirty update",
        ("read-uncommitted",),
    ),
    Example(
        "Berenson H4 (P4), lost update; Cerone figure 2",
        txns([a("x", 1)], [r("x", 1), a("x", 2)], [r("x", 1), a("x", 3)], [r("x", 1, 2, 3)]),
        "lost update",
        ("read-committed",),
    ),
    Example(
        "Berenson A5A and H2, read skew; Adya, G-single",
        txns([r("x"), r("y", 1)], [a("x", 1), a("y", 1)]),
        "G-single",
        ("read-committed",),
    ),
    Example(
        "Berenson H5 (A5B), write skew; Cerone figure 2; Adya, G2-item",
        txns([r("x"), r("y"), a("y", 1)], [r("x"), r("y"), a("x", 1)]),
        "G2-item",
        ("snapshot-isolation",),
    ),
    Example(
        "Cerone figure 2, long fork",
        txns([a("x", 1)], [a("y", 1)], [r("x", 1), r("y")], [r("x"), r("y", 1)]),
        "long fork",
        ("read-committed",),
    ),
    Example(
        "G-nonadjacent: a long fork of three",
        txns(
            [a("x", 1)],
            [a("y", 1)],
            [a("z", 1)],
            [r("x", 1), r("y")],
            [r("y", 1), r("z")],
            [r("z", 1), r("x")],
        ),
        "G-nonadjacent",
        ("read-committed",),
    ),
    Example(
        "Elle, section 7, TiDB: the same list read by two transactions that append to it",
        txns(
            [a("34", 2), a("34", 1)],
            [r("34", 2, 1), a("36", 5), a("34", 4)],
            [a("34", 5)],
            [r("34", 2, 1, 5, 4)],
        ),
        "G-single",
        ("read-committed",),
    ),
    Example(
        "Elle, section 7, FaunaDB: a transaction does not see its own append",
        txns([a("0", 6), r("0")]),
        "internal (own writes)",
        (),
    ),
    Example(
        "Elle, section 4, internal: a list changes under a transaction",
        txns([r("x"), r("x", 1)], [a("x", 1)]),
        "internal",
        ("read-committed",),
    ),
    Example(
        "Elle, section 4, inconsistent observations",
        txns([a("x", 1)], [a("x", 2)], [r("x", 1, 2)], [r("x", 2)]),
        "incompatible order",
        (),
    ),
    Example(
        "Elle, section 4, duplicate elements",
        txns([a("x", 1)], [r("x", 1, 1)]),
        "duplicate elements",
        (),
    ),
    Example("Elle, section 4, garbage read", txns([a("x", 1)], [r("x", 7)]), "unwritten value", ()),
    Example(
        "Elle, section 7, YugaByte DB: real time is not kept",
        txns([a("x", 1)], [r("x")], t1=(0, 1), t2=(5, 6)),
        "G-single-realtime",
        ("strong-session-serializable",),
    ),
    Example(
        "lost elements: an acknowledged append that no later read has",
        txns([a("x", 1)], [r("x")], t1=(0, 1), t2=(5, 6)),
        "lost elements",
        ("strong-session-serializable",),
    ),
    Example(
        "a session that goes back: G-single-process",
        [
            Txn("p", 0, 1, "ok", (r("x", 1),)),
            Txn("p", 2, 3, "ok", (r("x"),)),
            Txn("q", 0, 9, "ok", (a("x", 1),)),
        ],
        "G-single-process",
        ("serializable",),
    ),
    Example(
        "a session whose writes go back: G0-process",
        [
            Txn("p", 0, 1, "ok", (a("x", 1),)),
            Txn("p", 2, 3, "ok", (a("x", 2),)),
            Txn("q", 0, 9, "ok", (r("x", 2, 1),)),
        ],
        "G0-process",
        ("serializable",),
    ),
]

REGISTERS: Final = [
    Example(
        "Berenson H1, inconsistent read of a transfer that runs",
        txns(
            [w("x", 50), w("y", 51)],
            [v("x", 50), w("x", 10), v("y", 51), w("y", 90)],
            [v("x", 10), v("y", 51)],
        ),
        "non-monotonic read",
        ("read-uncommitted",),
    ),
    Example(
        "Biswas and Enea, section 2: read committed, not read atomic",
        txns([w("x", 1), w("y", 1)], [v("y", None), v("x", 1)]),
        "fractured read",
        ("read-committed",),
    ),
    Example(
        "Biswas and Enea, section 2: not even read committed",
        txns([w("x", 1), w("y", 1)], [v("x", 1), v("y", None)]),
        "non-monotonic read",
        ("read-uncommitted",),
    ),
    Example(
        "Cerone figure 2, causality violation",
        txns([w("x", 1)], [v("x", 1), w("y", 1)], [v("y", 1), v("x", None)]),
        "causality violation",
        ("read-atomic",),
    ),
    Example(
        "Cerone figure 2, long fork: causal",
        txns([w("x", 1)], [w("y", 1)], [v("x", 1), v("y", None)], [v("x", None), v("y", 1)]),
        "long fork",
        ("causal",),
    ),
    Example(
        "Cerone figure 2, lost update: causal",
        txns([v("x", None), w("x", 1)], [v("x", None), w("x", 2)]),
        "lost update",
        ("causal",),
    ),
    Example(
        "Galera (its issue 609): an overwritten value is read beside what overwrote it",
        [
            Txn("2", 0, 1, "ok", (w("1", 2272),)),
            Txn("2", 9, 10, "ok", (v("1", 2272), v("0", 6211))),
            Txn("4", 4, 5, "ok", (v("1", 2272), w("0", 6211), w("1", 6212))),
        ],
        "fractured read",
        ("read-committed",),
    ),
]


@pytest.mark.parametrize("example", LISTS, ids=lambda example: example.source)
def test_lists(example: Example) -> None:
    found = check_list_append(transactions_of(rows(example.history)))
    assert example.anomaly in {anomaly.name for anomaly in found.anomalies}
    assert tuple(found.strongest) == example.strongest
    told = levels_of_lists(example.history)
    assert {level: verdict == "valid" for level, verdict in found.levels.items()} == told


@pytest.mark.parametrize("example", REGISTERS, ids=lambda example: example.source)
def test_registers(example: Example) -> None:
    found = check_rw_register(transactions_of(rows(example.history)))
    assert example.anomaly in {anomaly.name for anomaly in found.anomalies}
    assert set(example.strongest) <= set(found.strongest)
    told = levels_of_registers(example.history)
    assert {level: verdict == "valid" for level, verdict in found.levels.items()} == told


def test_every_level_is_the_strongest_of_some_example() -> None:
    strongest = {level for example in LISTS + REGISTERS for level in example.strongest}
    assert strongest == set(WEAKER) - {"repeatable-read", "strict-serializable"}
