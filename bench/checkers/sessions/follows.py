"""Writes follow reads: a node that has shown a write does not later show what its writer had seen
before writing it.

For each session and each value that it saw, the session's later writes on the key *follow* the
value. The value written by an applied CAS follows the value that it saw. Once a node has shown a
follower, it must not show the value. O(n log n) in the reads, times the sessions that saw one
value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.checkers.reads_from import ReadsFrom
from bench.record.columns import CAS, INFO, NEVER, OK, Bools, Columns, Int64s


def value_numbers(c: Columns, rows: Int64s, write: Int64s) -> Int64s:
    """What each of ``rows`` saw, as a number: the row of the write; initial values come after
    these, by key."""
    return np.where(write >= 0, write, len(c) + c.key[rows])


@dataclass(frozen=True, slots=True)
class Shown:
    """What nodes have shown: ``rows`` that returned a single value, and its ``write``, -1 for the
    initial value."""

    rows: Int64s
    write: Int64s

    @classmethod
    def of(cls, c: Columns, seen: ReadsFrom) -> Shown:
        """Without reads of several values: they show no order."""
        single = c.outcome == OK
        single[list(c.siblings)] = False
        some = single[seen.rows]
        return cls(seen.rows[some], seen.write[some])


@dataclass(frozen=True, slots=True)
class _Follows:
    """The writes of ``session`` from index ``since`` on follow ``value``; ``is_one``: only the one
    at ``since`` does."""

    value: Int64s
    session: Int64s
    since: Int64s
    is_one: Bools


def writes_follow_reads(
    c: Columns, seen: ReadsFrom, place: Int64s, shown: Shown, *, touches: bool
) -> tuple[int, list[int]]:
    """How many reads break the guarantee, and the rows that show it. ``place``: the index of each
    row in program order; ``touches``: whether operations of one process touch, so that times do not
    give that order."""
    session = _numbered(c.process.astype(np.int64) * len(c.keys) + c.key)
    follows = _follows(c, seen, place, session, shown)
    node = c.node[shown.rows].astype(np.int64)
    orders = [(node, c.completed[shown.rows], c.invoked[shown.rows])]
    if touches:
        by_reader = _numbered(node * len(c.processes) + c.process[shown.rows])
        orders.append((by_reader, place[shown.rows], place[shown.rows]))
    bad = np.zeros(len(shown.rows), np.bool_)
    for where, ended, asked in orders:
        bad |= _earliest(c, place, session, shown, follows, where, ended) < asked
    found = np.flatnonzero(bad)
    if len(found) == 0:
        return 0, []
    return len(found), _example(c, seen, place, session, shown, int(found[0]))


def _numbered(codes: Int64s) -> Int64s:
    """Renumber codes densely."""
    numbers: Int64s = np.unique(codes, return_inverse=True)[1]
    return numbers


def _follows(c: Columns, seen: ReadsFrom, place: Int64s, session: Int64s, shown: Shown) -> _Follows:
    """One row for each session and value that it saw, from the first time on; and one for each CAS
    with unknown outcome, which its process's next operations need not follow."""
    value = value_numbers(c, shown.rows, shown.write)
    ok = np.flatnonzero(~seen.is_final[shown.rows])
    rows = shown.rows[ok]
    wrote = (c.op[rows] == CAS) & c.applied[rows]
    since = place[rows] + np.where(wrote, 0, 1)
    order = np.lexsort((since, value[ok], session[rows]))
    ok, rows, since = ok[order], rows[order], since[order]
    is_first = np.ones(len(ok), np.bool_)
    is_first[1:] = (value[ok][1:] != value[ok][:-1]) | (session[rows][1:] != session[rows][:-1])
    ok, rows, since = ok[is_first], rows[is_first], since[is_first]
    unsure = seen.rows[c.outcome[seen.rows] == INFO]
    itself = value_numbers(c, unsure, seen.write[c.outcome[seen.rows] == INFO])
    return _Follows(
        np.concatenate((value[ok], itself)),
        np.concatenate((session[rows], session[unsure])),
        np.concatenate((since, place[unsure])),
        np.arange(len(ok) + len(unsure)) >= len(ok),
    )


def _earliest(
    c: Columns,
    place: Int64s,
    session: Int64s,
    shown: Shown,
    follows: _Follows,
    where: Int64s,
    ended: Int64s,
) -> Int64s:
    """For each row of ``shown``: when (``ended``) a follower of its value was first shown at the
    same node (``where``); `NEVER` if none was."""
    value = value_numbers(c, shown.rows, shown.write)
    # Which followers were shown where, and when first: by node, session, and index of the write.
    some = np.flatnonzero(shown.write >= 0)
    order = np.lexsort(
        (ended[some], place[shown.write[some]], session[shown.write[some]], where[some])
    )
    some = some[order]
    is_first = np.ones(len(some), np.bool_)
    is_first[1:] = (shown.write[some][1:] != shown.write[some][:-1]) | (
        where[some][1:] != where[some][:-1]
    )
    some = some[is_first]
    at, first = where[some], ended[some]
    of, nth = session[shown.write[some]], place[shown.write[some]]

    # Pair each value and its followers with each node at which the value was read.
    width = int(where.max(initial=0)) + 1
    asked, back = np.unique(value * width + where, return_inverse=True)
    low = np.searchsorted(asked, follows.value * width)
    count = np.searchsorted(asked, (follows.value + 1) * width) - low
    pair = np.repeat(np.arange(len(low)), count)
    spot = np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count) + low[pair]

    sessions = int(session.max(initial=0)) + 1
    keys = np.concatenate(
        (at * sessions + of, asked[spot] % width * sessions + follows.session[pair])
    )
    _, number = np.unique(keys, return_inverse=True)
    span = len(c) + 1
    sorted_keys = number[: len(some)] * span + nth
    asks = number[len(some) :] * span
    begin = np.searchsorted(sorted_keys, asks + follows.since[pair])
    until = np.where(follows.is_one[pair], follows.since[pair] + 1, len(c))
    end = np.searchsorted(sorted_keys, asks + until)
    group = np.cumsum(np.diff(sorted_keys // span, prepend=0) != 0)
    earliest = _lowest(first, group, begin, end, follows.is_one[pair])
    # A write does not follow itself, even if a process saw it before it wrote it.
    own = follows.value[pair]
    itself = np.flatnonzero((own < len(c)) & (begin < end))
    of_value = sorted_keys[begin[itself]] // span * span + place[own[itself]]
    is_mine = session[own[itself]] == follows.session[pair[itself]]
    at_itself = np.searchsorted(sorted_keys, of_value)
    is_mine &= (at_itself >= begin[itself]) & (at_itself < end[itself])
    is_mine[is_mine] = sorted_keys[at_itself[is_mine]] == of_value[is_mine]
    for i, j in zip(itself[is_mine].tolist(), at_itself[is_mine].tolist(), strict=True):
        others = np.concatenate((first[begin[i] : j], first[j + 1 : end[i]]))
        earliest[i] = others.min(initial=NEVER)

    of_asked = np.full(len(asked), NEVER)
    np.minimum.at(of_asked, spot, earliest)
    result: Int64s = of_asked[back]
    return result


def _lowest(first: Int64s, group: Int64s, begin: Int64s, end: Int64s, is_one: Bools) -> Int64s:
    """The lowest of ``first[begin:end]``, the rest or one element of a group; `NEVER` if empty."""
    lowest = np.full(len(begin), NEVER)
    some = np.flatnonzero(begin < end)
    one = is_one[some]
    lowest[some] = np.where(one, first[begin[some]], _suffix_min(first, group)[begin[some]])
    return lowest


def _suffix_min(values: Int64s, group: Int64s) -> Int64s:
    """The minimum from each index to the end of its group; groups are in ascending order."""
    levels, ranks = np.unique(values, return_inverse=True)
    span = len(levels) + 1
    offset = group * span
    lowest = np.minimum.accumulate((ranks + offset)[::-1])[::-1] - offset
    result: Int64s = levels[lowest]
    return result


def _example(
    c: Columns, seen: ReadsFrom, place: Int64s, session: Int64s, shown: Shown, bad: int
) -> list[int]:
    """The read ``bad`` of ``shown``, the follower, the read that showed it, and what it follows."""
    rows, value = shown.rows, value_numbers(c, shown.rows, shown.write)
    asked = rows[bad]
    everybody = value_numbers(c, seen.rows, seen.write)
    saw = seen.rows[(everybody == value[bad]) & ~seen.is_final[seen.rows]]
    before = np.where(
        c.process[rows] == c.process[asked],
        place[rows] < place[asked],
        c.completed[rows] < c.invoked[asked],
    )
    before &= (c.node[rows] == c.node[asked]) & (shown.write >= 0) & (value != value[bad])
    before &= np.isin(session[shown.write], session[saw])
    for showing in np.flatnonzero(before).tolist():
        follower = int(shown.write[showing])
        is_earlier = (session[saw] == session[follower]) & (
            ((place[saw] < place[follower]) & (c.outcome[saw] == OK)) | (saw == follower)
        )
        if is_earlier.any():
            return sorted({int(saw[is_earlier][0]), follower, int(rows[showing]), int(asked)})
    raise AssertionError("no read showed the follower")
