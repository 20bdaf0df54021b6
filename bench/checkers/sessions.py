"""The four session guarantees (Terry et al., "Session Guarantees for Weakly Consistent Replicated
Data", PDIS 1994), per key. A session is a process.

Versions are never ordered by the time of their acknowledgement, but only where real time leaves no
doubt: value v is *older* than value u iff v was certainly in place (the earliest finish of its
write and its reads, but not before the write began) before the write of u began.

- *Read your writes*: a read does not see an older value than one that the session wrote before.
- *Monotonic reads*: nor an older one than the session read before.
- *Monotonic writes*: a node that has shown the later of two writes of a session does not show the
  earlier one afterwards.
- *Writes follow reads*: a node that has shown a write does not show afterwards what its writer had
  read before writing.

Each of these contradicts linearizability, so a linearizable history has none of them. The last two
are about the node that answered: without ``node`` in the history they are *unknown*. Of siblings
the newest counts. Ties are concurrent. Final reads belong to no session. Keys whose values are not
unique are left out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.checkers.reads_from import BEFORE_ALL, ReadsFrom, reads_from
from bench.checkers.sequential import CUT_SHORT
from bench.record import witness as words
from bench.record.columns import NEVER, NULL, OK, Columns, Int64s
from bench.record.run_folder import Check, VerdictValue

GUARANTEES = ("read_your_writes", "monotonic_reads", "monotonic_writes", "writes_follow_reads")


@dataclass(frozen=True, slots=True)
class _Reads:
    """Reads in sessions, one row each. ``oldest``: when the value was certainly in place (of the
    newest, where there are siblings); ``newest``: when its write began."""

    rows: Int64s
    oldest: Int64s
    newest: Int64s


def check_sessions(c: Columns, initial: int = NULL, *, history_is_cut: bool = False) -> Check:
    """The verdict on the four guarantees together. ``history_is_cut``: operations may be missing,
    so *valid* is not to be had.

    Details, per guarantee: ``violations`` (reads), None if it could not be checked; of the first
    two ``same_node``, those in which both operations went to one node. ``keys_left_out``.
    """
    began = time.perf_counter()
    seen = reads_from(c, initial, history_is_cut=history_is_cut)
    reads = _reads(c, seen)
    details: dict[str, Any] = {name: {"violations": None} for name in GUARANTEES}
    witness_rows: list[int] = []

    own = seen.writes[(c.outcome[seen.writes] == OK) & ~seen.is_final[seen.writes]]
    has_nodes = len(reads.rows) > 0 and bool((c.node[reads.rows] != _no_node(c)).all())
    session = _pairs(c.process, c.key, len(c.keys))
    at_node = session * (len(c.nodes) + 1) + c.node
    floors = {
        "read_your_writes": (own, c.completed[own], c.invoked[own]),
        "monotonic_reads": (reads.rows, c.completed[reads.rows], reads.newest),
    }
    for name, (rows, since, floor) in floors.items():
        known = _known_before(session, rows, since, floor, reads.rows, c.invoked)
        bad = np.flatnonzero(known > reads.oldest)
        details[name]["violations"] = len(bad)
        if has_nodes:
            here = _known_before(at_node, rows, since, floor, reads.rows, c.invoked)
            details[name]["same_node"] = int((here > reads.oldest).sum())
        if len(bad) and not witness_rows:
            witness_rows = _witness(c, seen, session, rows, since, floor, reads, int(bad[0]))
    if has_nodes:
        for name, count, rows_found in (
            ("monotonic_writes", *_monotonic_writes(c, seen)),
            ("writes_follow_reads", *_writes_follow_reads(c, seen)),
        ):
            details[name]["violations"] = count
            witness_rows = witness_rows or rows_found
    details["keys_left_out"] = seen.keys_left_out

    broken = {name: details[name]["violations"] for name in GUARANTEES}
    verdict: VerdictValue = "valid"
    if any(broken.values()):
        verdict = "invalid"
        summary = ", ".join(
            f"{name.replace('_', ' ')}: {count} violations"
            for name, count in broken.items()
            if count
        )
    elif history_is_cut:
        verdict, summary = "unknown", CUT_SHORT
    elif len(reads.rows) == 0 or seen.keys_left_out or len(seen.unknown) or not has_nodes:
        verdict = "unknown"
        unchecked = [name.replace("_", " ") for name in GUARANTEES if broken[name] is None]
        summary = "no violation found" + (
            f"; not checked without nodes: {', '.join(unchecked)}" if unchecked else ""
        )
        if seen.keys_left_out:
            summary += f"; {seen.keys_left_out} keys left out, their values are not unique"
        if len(seen.unknown):
            summary += f"; {len(seen.unknown)} reads of values that nobody wrote"
        if len(reads.rows) == 0:
            summary = "there are no reads"
    else:
        summary = f"all four guarantees hold for {len(reads.rows)} reads"
    witness = words.lines([c.record(row) for row in witness_rows])
    if witness:
        summary += f": {words.sentence(witness)}"
    return Check(
        name="sessions",
        verdict=verdict,
        model="session guarantees",
        algorithm="real-time order of values",
        operations=len(c),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=witness,
        details=details,
    )


def _no_node(c: Columns) -> int:
    return c.nodes.index("") if "" in c.nodes else -1


def _pairs(a: Int64s | Any, b: Int64s | Any, width: int) -> Int64s:
    joined: Int64s = a.astype(np.int64) * width + b
    return joined


def _reads(c: Columns, seen: ReadsFrom) -> _Reads:
    in_session = ~seen.is_final[seen.rows]
    rows, write = seen.rows[in_session], seen.write[in_session]
    oldest = np.where(write >= 0, seen.placed[write], BEFORE_ALL)
    newest = np.where(write >= 0, c.invoked[write], BEFORE_ALL)
    distinct, place = np.unique(rows, return_inverse=True)
    if len(distinct) == len(rows):
        return _Reads(rows, oldest, newest)
    old = np.full(len(distinct), BEFORE_ALL)
    new = np.full(len(distinct), BEFORE_ALL)
    np.maximum.at(old, place, oldest)
    np.maximum.at(new, place, newest)
    return _Reads(distinct, old, new)


def _known_before(
    group: Int64s, rows: Int64s, since: Int64s, floor: Int64s, queries: Int64s, invoked: Int64s
) -> Int64s:
    """For each query: the highest ``floor`` of those ``rows`` of its group that ended (``since``)
    before it began. One sort: by group, by time, and what ends before what begins at the same
    instant."""
    n = len(rows)
    groups = np.concatenate((group[rows], group[queries]))
    times = np.concatenate((since, invoked[queries]))
    is_floor = np.concatenate((np.ones(n, np.bool_), np.zeros(len(queries), np.bool_)))
    order = np.lexsort((is_floor, times, groups))  # at a tie the query comes first
    ranks = np.unique(floor, return_inverse=True)
    height = np.concatenate((ranks[1] + 1, np.zeros(len(queries), np.int64)))[order]
    _, number = np.unique(groups[order], return_inverse=True)
    span = len(ranks[0]) + 1
    top = np.maximum.accumulate(height + number * span) - number * span
    highest = np.full(len(order), BEFORE_ALL)
    some = top > 0
    highest[some] = ranks[0][top[some] - 1]
    known = np.empty(len(order), np.int64)
    known[order] = highest
    result: Int64s = known[n:]
    return result


def _witness(
    c: Columns,
    seen: ReadsFrom,
    session: Int64s,
    rows: Int64s,
    since: Int64s,
    floor: Int64s,
    reads: _Reads,
    bad: int,
) -> list[int]:
    """The read, what the session knew before, and the writes of both values."""
    read = int(reads.rows[bad])
    candidates = np.flatnonzero(
        (session[rows] == session[read]) & (since < c.invoked[read]) & (floor > reads.oldest[bad])
    )
    before = int(rows[candidates[0]])
    found = {read, before}
    for row in (read, before):
        of_row = seen.write[(seen.rows == row) & (seen.write >= 0)]
        found.update(of_row.tolist())
    return sorted(found)


def _node_reads(c: Columns, seen: ReadsFrom) -> tuple[Int64s, Int64s]:
    """Observations of written values by single-valued reads: rows and the writes that they saw."""
    single = np.ones(len(c), np.bool_)
    single[list(c.siblings)] = False
    some = (seen.write >= 0) & single[seen.rows]
    return seen.rows[some], seen.write[some]


def _monotonic_writes(c: Columns, seen: ReadsFrom) -> tuple[int, list[int]]:
    """At one node: the later of two writes of one session, then the earlier."""
    rows, write = _node_reads(c, seen)
    acknowledged = c.outcome[write] == OK
    rows, write = rows[acknowledged], write[acknowledged]
    group = np.zeros(len(c), np.int64)
    writer = _pairs(c.process[write], c.key[write], len(c.keys))
    group[rows] = writer * (len(c.nodes) + 1) + c.node[rows]
    began = c.invoked[write]
    known = _known_before(group, rows, c.completed[rows], began, rows, c.invoked)
    bad = np.flatnonzero(known > began)
    if len(bad) == 0:
        return 0, []
    i = int(bad[0])
    j = int(np.flatnonzero((group[rows] == group[rows[i]]) & (began == known[i]))[0])
    return len(bad), sorted({int(write[i]), int(write[j]), int(rows[j]), int(rows[i])})


def _writes_follow_reads(c: Columns, seen: ReadsFrom) -> tuple[int, list[int]]:
    """At one node: a write, then what its writer had read before writing.

    For each pair (session, value that it read first at t) the writes of the session on that key
    after t depend on the value. Per node: once it has shown one of them, it must not show the
    value again. A write does not follow itself.
    """
    rows, write = _node_reads(c, seen)
    own = ~seen.is_final[rows]
    pair = c.process[rows[own]].astype(np.int64) * len(c) + write[own]
    order = np.lexsort((c.completed[rows[own]], pair))
    _, first = np.unique(pair[order], return_index=True)
    reading = rows[own][order][first]
    value = write[own][order][first]
    written = seen.writes[c.outcome[seen.writes] == OK]
    session = _pairs(c.process, c.key, len(c.keys))
    written = written[np.lexsort((c.invoked[written], session[written]))]
    times, ranks = np.unique(
        np.concatenate((c.invoked[written], c.completed[reading])), return_inverse=True
    )
    span = len(times) + 1
    groups, number = np.unique(
        np.concatenate((session[written], session[reading])), return_inverse=True
    )
    n = len(written)
    place = np.searchsorted(number[:n] * span + ranks[:n], number[n:] * span + ranks[n:], "right")
    follows = place < n
    follows[follows] = number[place[follows]] == number[n:][follows]
    reading, value, place = reading[follows], value[follows], place[follows]
    last_of_group = np.searchsorted(number[:n], np.arange(len(groups)), "right") - 1
    if len(reading) == 0:
        return 0, []

    # Where a process read a value and wrote it afterwards, the write does not follow itself.
    own_value = np.flatnonzero(
        (session[value] == session[reading]) & (c.invoked[value] > c.completed[reading])
    )
    count = 0
    example: list[int] = []
    for node in range(len(c.nodes)):
        here = c.node[rows] == node
        shown = np.full(len(c), NEVER)
        np.minimum.at(shown, write[here], c.completed[rows[here]])
        last_asked = np.full(len(c), BEFORE_ALL)
        np.maximum.at(last_asked, write[here], c.invoked[rows[here]])
        earliest = _suffix_min(shown[written], number[:n])[place]
        for i in own_value.tolist():
            others = written[place[i] : last_of_group[number[place[i]]] + 1]
            earliest[i] = shown[others[others != value[i]]].min(initial=NEVER)
        bad = np.flatnonzero(earliest < last_asked[value])
        count += len(bad)
        if len(bad) and not example:
            i = int(bad[0])
            group_end = int(last_of_group[number[int(place[i])]])
            run = written[int(place[i]) : group_end + 1]
            run = run[run != value[i]]
            follower = int(run[np.argmin(shown[run])])
            of_follower = rows[here & (write == follower)]
            of_value = rows[here & (write == value[i])]
            example = [
                int(reading[i]),
                follower,
                int(of_follower[np.argmin(c.completed[of_follower])]),
                int(of_value[np.argmax(c.invoked[of_value])]),
            ]
    return count, sorted(set(example))


def _suffix_min(values: Int64s, group: Int64s) -> Int64s:
    """The minimum from each place to the end of its group; groups are in ascending order."""
    levels, ranks = np.unique(values, return_inverse=True)
    span = len(levels) + 1
    offset = group * span
    lowest = np.minimum.accumulate((ranks + offset)[::-1])[::-1] - offset
    result: Int64s = levels[lowest]
    return result
