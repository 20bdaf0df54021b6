"""Where a series of figures changed: E-divisive, with a t-test for what is more than chance.

A split is where the energy statistic of both sides is largest (Matteson and James, Journal of the
American Statistical Association 109, 2014); sides are split again until nothing is left. Then each
split is tested by Welch's t-test against its neighbouring segments, the weakest first, and dropped
unless it is significant (Fleming et al., Hunter, ICPE 2023, who replace the permutation test of the
first paper so that the same series always gives the same result). The level is divided by the
number of places at which the series could have been split.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.001
"""The most likely chance difference that is still a change."""
_WEAK = 0.05
"""A split below this level stays until all are tested."""
LEAST = 3
"""Runs on each side of a change."""

Floats = NDArray[np.float64]


def change_points(values: Sequence[float], versions: Sequence[Hashable]) -> list[tuple[int, float]]:
    """The places at which the series changed, each the index of the first value after it, and the
    probability of such a difference by chance. Only between values of different ``versions`` can
    there be one. Infinite values count as twice the largest finite one."""
    data = _finite(values)
    places = [n for n in range(1, len(data)) if versions[n] != versions[n - 1]]
    points = sorted(_splits(data, 0, len(data), places))
    while points:
        bounds = [0, *points, len(data)]
        chances = [
            _chance(data[before:at], data[at:after])
            for before, at, after in zip(bounds, points, bounds[2:], strict=False)
        ]
        worst = max(range(len(points)), key=lambda n: chances[n])
        if chances[worst] * len(places) <= LEVEL:
            return list(zip(points, chances, strict=True))
        del points[worst]
    return []


def _finite(values: Sequence[float]) -> Floats:
    data = np.asarray(values, dtype=float)
    known = data[np.isfinite(data)]
    return np.where(np.isfinite(data), data, 2 * np.abs(known).max() if len(known) else 1.0)


def _splits(data: Floats, begin: int, end: int, places: Sequence[int]) -> list[int]:
    own = [at for at in places if begin + LEAST <= at <= end - LEAST]
    if not own:
        return []
    best = max(own, key=lambda at: _energy(data[begin:at], data[at:end]))
    if _chance(data[begin:best], data[best:end]) > _WEAK:
        # Up and down again hides in a test of the two whole sides.
        rest = [*_splits(data, begin, best, places), *_splits(data, best, end, places)]
        return [best, *rest] if rest else []
    return [best, *_splits(data, begin, best, places), *_splits(data, best, end, places)]


def _energy(one: Floats, other: Floats) -> float:
    """How far apart two samples are, weighted by their sizes."""

    def distance(a: Floats, b: Floats) -> float:
        return float(np.abs(a[:, None] - b[None, :]).mean())

    weight = len(one) * len(other) / (len(one) + len(other))
    return weight * (2 * distance(one, other) - distance(one, one) - distance(other, other))


def _chance(one: Floats, other: Floats) -> float:
    """The two-sided p-value of Welch's t-test; 1 with too few values."""
    from scipy.special import stdtr

    if min(len(one), len(other)) < LEAST:
        return 1.0
    apart = abs(float(one.mean() - other.mean()))
    parts = [float(each.var(ddof=1)) / len(each) for each in (one, other)]
    spread = sum(parts)
    if spread <= (1e-9 * max(1e-12, apart)) ** 2:  # The figure is the same in all runs of a side.
        return 0.0 if apart > 1e-12 else 1.0
    freedom = spread**2 / sum(
        part**2 / (len(each) - 1) for part, each in zip(parts, (one, other), strict=True)
    )
    return float(2 * stdtr(freedom, -apart / math.sqrt(spread)))
