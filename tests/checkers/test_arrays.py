"""What the checkers compute faster than NumPy does: against the obvious ways."""

from __future__ import annotations

import numpy as np
import pytest

from bench.checkers.arrays import count_below, walk_chains


@pytest.mark.parametrize("seed", range(40))
def test_counting_finds_what_searchsorted_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, reach = rng.integers(1, 2000), 1 << int(rng.integers(1, 62))
    numbers = rng.integers(0, reach, size)
    if seed % 2:  # most of them close together, so that the table is of little help
        numbers[: size // 2] = numbers[0] // 2 + np.arange(size // 2) // 3
    numbers.sort()
    limits = np.concatenate((rng.choice(numbers, 300), rng.integers(0, reach, 300), [0]))
    assert np.array_equal(count_below(numbers, limits), np.searchsorted(numbers, limits))


def test_counting_in_nothing() -> None:
    nothing = np.zeros(0, np.int64)
    assert count_below(nothing, np.array([5])).tolist() == [0]
    assert count_below(np.array([5]), nothing).tolist() == []


@pytest.mark.parametrize("seed", range(40))
def test_chains_come_in_their_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 3000))
    order = rng.permutation(size)
    child = np.full(size, -1)
    child[order[:-1]] = order[1:]
    child[order[rng.random(size) < rng.choice((0.001, 0.1, 0.5))]] = -1
    if size > 10 and seed % 2:
        child[order[9]] = order[0]  # perhaps a circle, which no head leads to
    has_parent = np.isin(np.arange(size), child)
    heads = np.flatnonzero((child >= 0) & ~has_parent)

    wanted: list[int] = []
    firsts: list[int] = []
    for head in heads.tolist():
        firsts.append(len(wanted))
        number = head
        while number >= 0:
            wanted.append(number)
            number = int(child[number])
    walked, first = walk_chains(child, heads)
    assert walked.tolist() == wanted
    assert first.tolist() == firsts
