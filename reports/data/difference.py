"""Whether the figures of two sets of repeats differ: the Mann-Whitney test, two-sided.

It compares ranks, so it assumes no distribution (Mann and Whitney, Annals of Mathematical
Statistics 18, 1947). With three runs on each side no result is significant; four are enough for a
single figure. Of many figures some differ by chance: see `corrected`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

LEVEL = 0.05
TEST = "Mann-Whitney, two-sided, p < 0.05"
_MOST_EXACT = 20_000
"""The most divisions of the runs into two groups that are enumerated."""


def shown(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the figures differ significantly; never with too few runs."""
    return p_value(one, other) < LEVEL


def p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """The probability of so large a difference of ranks by chance alone; 1 without values."""
    if not one or not other:
        return 1.0
    ranks = _ranks([*one, *other])
    expected = len(one) * (len(ranks) + 1) / 2
    distance = abs(sum(ranks[: len(one)]) - expected)
    if math.comb(len(ranks), len(one)) <= _MOST_EXACT:
        sums = [sum(chosen) for chosen in combinations(ranks, len(one))]
        return sum(abs(each - expected) >= distance - 1e-9 for each in sums) / len(sums)
    # The variance of the sum of ranks, reduced by ties.
    middle = (len(ranks) + 1) / 2
    spread = sum((rank - middle) ** 2 for rank in ranks) / (len(ranks) - 1)
    variance = len(one) * len(other) / len(ranks) * spread
    if not variance:
        return 1.0
    return math.erfc(max(distance - 0.5, 0.0) / math.sqrt(2 * variance))


def corrected(chances: Sequence[float]) -> list[float]:
    """The p-values of figures that are tested together, corrected for their number (Benjamini and
    Hochberg, Journal of the Royal Statistical Society B 57, 1995). Below `LEVEL`, a figure differs:
    of all that do, 5% are expected to be chance; where nothing changed, one comparison in 20 names
    anything."""
    order = sorted(range(len(chances)), key=lambda n: chances[n])
    least, found = 1.0, dict.fromkeys(order, 1.0)
    for place, n in reversed(list(enumerate(order, 1))):
        least = min(least, chances[n] * len(chances) / place)
        found[n] = least
    return [found[n] for n in range(len(chances))]


def is_possible(one: int, other: int) -> bool:
    """Whether so many runs of each side can show a difference at all."""
    return 2 / math.comb(one + other, one) < LEVEL


def least_runs(figures: int = 1) -> int:
    """How many runs of each side can show a change of one figure alone, among so many."""
    runs = 2
    while 2 / math.comb(2 * runs, runs) * figures >= LEVEL:
        runs += 1
    return runs


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1 on; equal values share their mean rank."""
    ordered = sorted(values)
    return [
        (ordered.index(value) + 1 + len(ordered) - ordered[::-1].index(value)) / 2
        for value in values
    ]
