"""The drawing of a cycle: whole, and safe to put into a page."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.checkers.transactions import check_list_append
from bench.record.transactions.builder import transactions_of
from reports.charts.graph import Graph
from tests.transactions.brute_force import Txn, rows
from tests.transactions.test_list_append import a, r, txns

NAMESPACE = "{http://www.w3.org/2000/svg}"


def drawn(history: list[Txn], name: str) -> tuple[list[str], ElementTree.Element]:
    found = check_list_append(transactions_of(rows(history)))
    anomaly = next(each for each in found.anomalies if each.name == name)
    root = ElementTree.fromstring(Graph(anomaly).document(name))
    return [str(text.text) for text in root.iter(f"{NAMESPACE}text")], root


def edges(root: ElementTree.Element) -> list[ElementTree.Element]:
    """The curves, without their tips."""
    return [path for path in root.iter(f"{NAMESPACE}path") if "Q" in path.get("d", "")]


def test_transactions_and_edges_with_their_values() -> None:
    texts, root = drawn(txns([r("x"), a("y", 1)], [r("y"), a("x", 1)]), "G2-item")
    assert {"T1", "T2", "rw x: [] → 1", "rw y: [] → 1"} <= set(texts)
    assert "T1, p1, ok: read x [], append y 1" in texts
    assert len(list(root.iter(f"{NAMESPACE}rect"))) == 2
    assert len(edges(root)) == 2


def test_real_time_is_dashed_and_has_no_key() -> None:
    history = txns([a("x", 1)], [r("x")], t1=(0, 1), t2=(5, 6))
    texts, root = drawn(history, "G-single-realtime")
    assert "realtime" in texts
    dashes = [path.get("stroke-dasharray") for path in edges(root)]
    assert sorted(map(bool, dashes)) == [False, True]


def test_foreign_text_stays_text() -> None:
    key = "<script>&\x1b[31m"
    texts, _ = drawn(txns([r(key), a("y", 1)], [r("y"), a(key, 1)]), "G2-item")
    assert any("<script>" in text for text in texts)
    assert not any("\x1b" in text for text in texts)
