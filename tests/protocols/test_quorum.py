"""Quorum arithmetic, by its meaning: sets of replicas that meet."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.parts.quorum import Quorums, majority, reached_by_majority


@given(st.integers(1, 8))
def test_a_majority_is_the_fewest_that_always_meet(n: int) -> None:
    def always_meet(size: int) -> bool:
        sets = [set(c) for c in combinations(range(n), size)]
        return all(a & b for a in sets for b in sets)

    assert always_meet(majority(n))
    assert not always_meet(majority(n) - 1)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=7))
def test_a_majority_has_reached_the_highest_value_that_so_many_have(values: list[int]) -> None:
    def have(value: int) -> bool:
        return sum(v >= value for v in values) >= majority(len(values))

    reached = reached_by_majority(list(values))
    assert have(reached)
    assert not have(reached + 1)


@given(st.integers(1, 6), st.data())
def test_quorums_meet_iff_no_read_quorum_misses_a_write_quorum(n: int, data: st.DataObject) -> None:
    read, write = data.draw(st.integers(1, n)), data.draw(st.integers(1, n))
    quorums = Quorums.of(n, read, write)
    reads, writes = combinations(range(n), read), list(combinations(range(n), write))
    assert quorums.meet == all(set(r) & set(w) for r in reads for w in writes)
    assert quorums.tolerates == n - max(read, write)


def test_zero_stands_for_a_majority() -> None:
    assert Quorums.of(5) == Quorums(5, 3, 3)
    assert Quorums.of(4, 0, 2) == Quorums(4, 3, 2)
    assert Quorums.of(1) == Quorums(1, 1, 1)


@pytest.mark.parametrize(("n", "read", "write"), [(3, 4, 0), (3, 0, 4), (3, -1, 0), (0, 0, 0)])
def test_a_quorum_that_could_never_be_reached_is_refused(n: int, read: int, write: int) -> None:
    with pytest.raises(ValueError, match=r"read_quorum|write_quorum|at least one"):
        Quorums.of(n, read, write)
