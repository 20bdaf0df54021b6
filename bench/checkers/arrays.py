"""What NumPy lacks, or does more slowly."""

from __future__ import annotations

import numpy as np

from bench.record.columns import Int64s


def count_below(numbers: Int64s, limits: Int64s) -> Int64s:
    """For each limit, how many of the sorted ``numbers`` are less: `np.searchsorted` with a table
    of starting points, which is several times faster for unsorted limits. All are at least 0."""
    if len(numbers) == 0 or len(limits) == 0:
        return np.zeros(len(limits), np.int64)
    most = max(int(numbers[-1]), int(limits.max()))
    shift = max(0, most.bit_length() - len(numbers).bit_length() - 1)
    table = np.bincount((numbers >> shift) + 1, minlength=(most >> shift) + 2).cumsum()
    found: Int64s = table[limits >> shift]
    padded = np.append(numbers, most)
    todo = np.flatnonzero(padded[found] < limits)
    for _ in range(8):
        found[todo] += 1
        todo = todo[padded[found[todo]] < limits[todo]]
    found[todo] = np.searchsorted(numbers, limits[todo], "left")
    return found


def walk_chains(child: Int64s, heads: Int64s) -> tuple[Int64s, Int64s]:
    """The concatenated chains that begin at ``heads``, and the start of each. ``child``: the
    successor of each number, -1 at the end of a chain.

    All are walked at once, in pieces: one number in 16, drawn at random, begins a piece. A Python
    loop over each number would take most of a checker's time.
    """
    draw = np.random.default_rng(0).integers(0, 16, len(child) + 1, np.uint8)
    is_first = draw == 0
    is_first[heads] = True
    is_first[-1] = True  # where child -1 points
    firsts = np.flatnonzero(is_first[:-1])
    piece = np.full(len(child), -1, np.int64)
    depth = np.zeros(len(child), np.int64)
    length = np.empty(len(firsts), np.int64)
    follower = np.empty(len(firsts), np.int64)
    pieces, numbers, steps = np.arange(len(firsts)), firsts, 0
    while len(numbers):
        piece[numbers], depth[numbers] = pieces, steps
        steps += 1
        numbers = child[numbers]
        ends = is_first[numbers]
        length[pieces[ends]], follower[pieces[ends]] = steps, numbers[ends]
        pieces, numbers = pieces[~ends], numbers[~ends]

    begin = np.full(len(firsts) + 1, -1, np.int64)  # of each piece, in the order of the chains
    lengths, following = length.tolist(), np.where(follower < 0, -1, piece[follower]).tolist()
    chains, place = [], 0
    for number in piece[heads].tolist():
        chains.append(place)
        while number >= 0:
            begin[number] = place
            place += lengths[number]
            number = following[number]
    walked = np.flatnonzero(begin[piece] >= 0)
    order = np.empty(place, np.int64)
    order[begin[piece[walked]] + depth[walked]] = walked
    return order, np.array(chains, np.int64)
