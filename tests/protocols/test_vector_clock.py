"""Vector clocks: the laws that gossip relies on, for arbitrary clocks."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.parts.vector_clock import compare, covers, dominates, increment, merge

NODES = ("n1", "n2", "n3")
clocks = st.dictionaries(st.sampled_from(NODES), st.integers(0, 4))


@pytest.mark.parametrize(
    ("a", "b", "order"),
    [
        ({}, {}, "equal"),
        ({"n1": 1}, {"n1": 1}, "equal"),
        ({"n1": 0}, {}, "equal"),
        ({}, {"n1": 1}, "before"),
        ({"n1": 1}, {"n1": 2}, "before"),
        ({"n1": 2, "n2": 1}, {"n1": 1}, "after"),
        ({"n1": 1}, {"n2": 1}, "concurrent"),
        ({"n1": 2, "n2": 1}, {"n1": 1, "n2": 2}, "concurrent"),
    ],
)
def test_the_four_orders(a: dict[str, int], b: dict[str, int], order: str) -> None:
    assert compare(a, b) == order


@given(clocks, clocks)
def test_compare_is_the_pointwise_order(a: dict[str, int], b: dict[str, int]) -> None:
    pairs = [(a.get(node, 0), b.get(node, 0)) for node in NODES]
    less = any(x < y for x, y in pairs)
    greater = any(x > y for x, y in pairs)
    expected = {
        (False, False): "equal",
        (True, False): "before",
        (False, True): "after",
        (True, True): "concurrent",
    }[less, greater]
    assert compare(a, b) == expected
    assert dominates(a, b) == (expected in ("after", "equal"))


@given(clocks, clocks, clocks)
def test_merge_is_the_least_upper_bound(
    a: dict[str, int], b: dict[str, int], c: dict[str, int]
) -> None:
    both = merge(a, b)
    assert dominates(both, a)
    assert dominates(both, b)
    if dominates(c, a) and dominates(c, b):
        assert dominates(c, both)
    assert merge(b, a) == both
    assert merge(merge(a, b), c) == merge(a, merge(b, c)) == merge(a, b, c)
    assert compare(merge(a, a), a) == "equal"


@given(clocks, st.sampled_from(NODES))
def test_an_increment_is_later_by_exactly_one_event(a: dict[str, int], node: str) -> None:
    later = increment(a, node)
    assert compare(a, later) == "before"
    assert sum(later.values()) == sum(a.values()) + 1
    assert covers(later, node, later[node])
    assert not covers(a, node, later[node])


@given(clocks, clocks, st.sampled_from(NODES))
def test_no_operation_changes_its_arguments(
    a: dict[str, int], b: dict[str, int], node: str
) -> None:
    before = copy.deepcopy((a, b))
    increment(a, node)
    merge(a, b)
    compare(a, b)
    assert (a, b) == before
