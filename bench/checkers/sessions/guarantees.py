"""The four session guarantees (Terry et al., "Session Guarantees for Weakly Consistent Replicated
Data", PDIS 1994), per key. A session is a process.

Values are never ordered by the time of their acknowledgement, only where there is no doubt: value v
is *older* than value u if v was certainly in place (the earliest finish of its write and of those
that saw it, but not before the write began) before the write of u began. For a session v is also
older if it had written or seen v before it wrote u, and v began before u.

- *Read your writes*: a read does not see an older value than the session wrote before.
- *Monotonic reads*: a read does not see an older value than the session read before.
- *Monotonic writes*: a node that has shown the later of two writes of a session does not show the
  earlier one afterwards.
- *Writes follow reads*: a node that has shown a write does not later show what its writer had read
  before writing it (`bench.checkers.sessions.follows`).

A CAS whose answer says what it saw is a read, too. *Before* and *afterwards* mean program order for
operations of one process and real time for others, with ties concurrent. A write that ended
``info`` and was seen comes after what its process did before; nothing needs to come after it.

Each violation contradicts linearizability, so a linearizable history has none. The last two
guarantees are about the node that answered: without ``node`` in the history they are *unknown*. Of
siblings the newest counts. Final reads belong to no session. Keys whose values are not unique are
left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import UNSET

from bench.checkers.reads_from import BEFORE_ALL, ReadsFrom, program_order, reads_from
from bench.checkers.sequential import CUT_SHORT, NO_READS
from bench.checkers.sessions.follows import Shown, value_numbers, writes_follow_reads
from bench.record import witness as words
from bench.record.columns import NEVER, NULL, OK, Columns, Int64s
from bench.record.verdict import Guarantee, Sessions, SessionsCheck, VerdictValue

GUARANTEES = ("read_your_writes", "monotonic_reads", "monotonic_writes", "writes_follow_reads")


@dataclass(frozen=True, slots=True)
class _Reads:
    """Reads in sessions, one row each. Of the value that each saw (the newest sibling): when it was
    certainly ``placed``; when its write ``began``, if that is of another process; and from which
    index in program order the process had ``known`` it."""

    rows: Int64s
    placed: Int64s
    began: Int64s
    known: Int64s


def check_sessions(
    c: Columns, initial: int = NULL, *, history_is_cut: bool = False
) -> SessionsCheck:
    """The verdict on the four guarantees together. ``history_is_cut``: operations may be missing,
    so the verdict is never *valid*."""
    began = time.perf_counter()
    seen = reads_from(c, initial, history_is_cut=history_is_cut)
    order = _Order(c)
    reads = _reads(c, seen, order.place)
    has_nodes = len(reads.rows) > 0 and bool((c.node[reads.rows] != _no_node(c)).all())
    found, witness_rows = _of_reads(c, seen, order, reads, has_nodes=has_nodes)
    if has_nodes:
        shown = Shown.of(c, seen)
        count, rows = _monotonic_writes(c, order, shown)
        found["monotonic_writes"] = Guarantee(violations=count)
        witness_rows = witness_rows or rows
        count, rows = writes_follow_reads(c, seen, order.place, shown, touches=order.touches)
        found["writes_follow_reads"] = Guarantee(violations=count)
        witness_rows = witness_rows or rows
    guarantees = {name: found.get(name, Guarantee()) for name in GUARANTEES}
    verdict, summary = _decide(guarantees, seen, len(reads.rows), history_is_cut=history_is_cut)
    witness = words.lines([c.record(row) for row in witness_rows])
    if witness:
        summary += f": {words.sentence(witness)}"
    return SessionsCheck(
        verdict=verdict,
        model="session guarantees",
        algorithm="real-time order of values",
        operations=len(c),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=witness,
        details=Sessions(**guarantees, keys_left_out=seen.keys_left_out),
    )


def _of_reads(
    c: Columns, seen: ReadsFrom, order: _Order, reads: _Reads, *, has_nodes: bool
) -> tuple[dict[str, Guarantee], list[int]]:
    """The guarantees about reads, and the rows of a witness."""
    own = seen.writes[(c.outcome[seen.writes] == OK) & ~seen.is_final[seen.writes]]
    session = _pairs(c.process, c.key, len(c.keys))
    at_node = session * (len(c.nodes) + 1) + c.node
    ok = np.flatnonzero(c.outcome[seen.rows] == OK)
    knowledge = {
        "read_your_writes": _Known(own, own),
        "monotonic_reads": _Known(seen.rows[ok], seen.write[ok]),
    }
    found: dict[str, Guarantee] = {}
    witness_rows: list[int] = []
    for name, known in knowledge.items():
        bad = _sees_older(c, order, session, known, reads)
        same = len(_sees_older(c, order, at_node, known, reads)) if has_nodes else UNSET
        found[name] = Guarantee(violations=len(bad), same_node=same)
        if len(bad) and not witness_rows:
            witness_rows = _witness(c, seen, order, session, known, reads, int(bad[0]))
    return found, witness_rows


def _decide(
    guarantees: Mapping[str, Guarantee], seen: ReadsFrom, reads: int, *, history_is_cut: bool
) -> tuple[VerdictValue, str]:
    broken = [
        f"{name.replace('_', ' ')}: {found.violations} violations"
        for name, found in guarantees.items()
        if found.violations
    ]
    if broken:
        return "invalid", ", ".join(broken)
    if history_is_cut:
        return "unknown", CUT_SHORT
    if reads == 0 and not seen.keys_left_out and not len(seen.unknown):
        return "unknown", NO_READS
    unchecked = [n.replace("_", " ") for n, found in guarantees.items() if found.violations is None]
    doubts = []
    if unchecked:
        doubts.append(f"not checked without nodes: {', '.join(unchecked)}")
    if seen.keys_left_out:
        doubts.append(f"{seen.keys_left_out} keys left out, their values are not unique")
    if len(seen.unknown):
        doubts.append(f"{len(seen.unknown)} reads of values that nobody wrote")
    if doubts:
        return "unknown", "; ".join(["no violation found", *doubts])
    return "valid", f"all four guarantees hold for {reads} reads"


def _no_node(c: Columns) -> int:
    return c.nodes.index("") if "" in c.nodes else -1


def _pairs(a: Int64s | Any, b: Int64s | Any, width: int) -> Int64s:
    joined: Int64s = a.astype(np.int64) * width + b
    return joined


@dataclass(frozen=True, slots=True)
class _Known:
    """``rows`` after which a session knows the writes ``write`` (-1: the initial value)."""

    rows: Int64s
    write: Int64s


class _Order:
    """``rows`` by process in program order; ``place``: the index of each row there. ``touches``:
    whether operations of one process touch, so that times do not give their order."""

    def __init__(self, c: Columns) -> None:
        order = program_order(c, np.arange(len(c)))
        self.place = np.empty(len(c), np.int64)
        self.place[order] = np.arange(len(c))
        self.rows = order
        ended, process = c.completed[order], c.process[order]
        touch = (process[1:] == process[:-1]) & (ended[:-1] >= c.invoked[order][1:])
        self.touches = bool((touch & (ended[:-1] != NEVER)).any())


def _reads(c: Columns, seen: ReadsFrom, place: Int64s) -> _Reads:
    in_session = ~seen.is_final[seen.rows] & (c.outcome[seen.rows] == OK)
    rows, write = seen.rows[in_session], seen.write[in_session]
    placed = np.where(write >= 0, seen.placed[write], BEFORE_ALL)
    is_others = (write >= 0) & (c.process[write] != c.process[rows])
    began = np.where(is_others, c.invoked[write], BEFORE_ALL)
    known = _first_known(c, seen, place, rows, write)
    distinct, number = np.unique(rows, return_inverse=True)
    if len(distinct) == len(rows):
        return _Reads(rows, placed, began, known)
    newest = []
    for column in (placed, began, known):
        newest.append(np.full(len(distinct), BEFORE_ALL))
        np.maximum.at(newest[-1], number, column)
    return _Reads(distinct, *newest)


def _first_known(c: Columns, seen: ReadsFrom, place: Int64s, rows: Int64s, write: Int64s) -> Int64s:
    """For each row and the value that it saw: the index in its process of the first operation that
    wrote or saw the value; not before the write, if it is of the same process."""
    ok = c.outcome[seen.rows] == OK
    acknowledged = seen.writes[c.outcome[seen.writes] == OK]
    knowing = np.concatenate((seen.rows[ok], acknowledged))
    known = np.concatenate((seen.write[ok], acknowledged))
    pairs = value_numbers(c, knowing, known) * len(c.processes) + c.process[knowing]
    order = np.lexsort((place[knowing], pairs))
    distinct, first = np.unique(pairs[order], return_index=True)
    wanted = value_numbers(c, rows, write) * len(c.processes) + c.process[rows]
    at = np.minimum(np.searchsorted(distinct, wanted), max(0, len(distinct) - 1))
    found = np.full(len(rows), NEVER)
    if len(distinct):
        here = distinct[at] == wanted
        found[here] = place[knowing[order[first[at[here]]]]]
    mine = (write >= 0) & (c.process[write] == c.process[rows])
    found[mine] = np.maximum(found[mine], place[write[mine]])
    return found


def _sees_older(c: Columns, order: _Order, group: Int64s, known: _Known, reads: _Reads) -> Int64s:
    """The indices in ``reads`` of those that saw an older value than one that the session had
    ``known``."""
    began = np.where(known.write >= 0, c.invoked[known.write], BEFORE_ALL)
    since = order.place[known.rows]
    newest = _known_before(group, known.rows, since, began, reads.rows, order.place)
    is_older = newest > reads.placed
    if order.touches:  # else times say the same
        mine = np.flatnonzero(
            (known.write >= 0) & (c.process[known.write] == c.process[known.rows])
        )
        written = order.place[known.write[mine]]
        own = _known_before(group, known.rows[mine], since[mine], written, reads.rows, order.place)
        is_older |= (own > reads.known) & (c.invoked[order.rows[np.maximum(own, 0)]] > reads.began)
    found: Int64s = np.flatnonzero(is_older)
    return found


def _known_before(
    group: Int64s, rows: Int64s, since: Int64s, floor: Int64s, queries: Int64s, invoked: Int64s
) -> Int64s:
    """For each query, the highest ``floor`` of the ``rows`` of its group that ended (``since``)
    before it began (``invoked``). One sort by group and time. An operation that begins when another
    ends did not begin after it."""
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
    order: _Order,
    session: Int64s,
    known: _Known,
    reads: _Reads,
    bad: int,
) -> list[int]:
    """The read, what the session knew before, and the writes of both values."""
    read = int(reads.rows[bad])
    write = known.write
    own = (write >= 0) & (c.process[write] == c.process[read])
    is_newer = (write >= 0) & (c.invoked[write] > reads.placed[bad])
    is_newer |= (
        own
        & (order.place[write] > reads.known[bad])
        & (c.invoked[write] > reads.began[bad])
        & order.touches
    )
    before = int(
        known.rows[
            (session[known.rows] == session[read])
            & (order.place[known.rows] < order.place[read])
            & is_newer
        ][0]
    )
    found = {read, before}
    for row in (read, before):
        of_row = seen.write[(seen.rows == row) & (seen.write >= 0)]
        found.update(of_row.tolist())
    return sorted(found)


def _monotonic_writes(c: Columns, order: _Order, shown: Shown) -> tuple[int, list[int]]:
    """Reads at one node that saw the later of two writes of a session, and then the earlier, which
    was acknowledged."""
    some = shown.write >= 0
    rows, write = shown.rows[some], shown.write[some]
    began = order.place[write]
    writer = _pairs(c.process[write], c.key[write], len(c.keys))
    at_node = writer * (len(c.nodes) + 1) + c.node[rows]
    asking = np.flatnonzero(c.outcome[write] == OK)
    orders = [(at_node, c.completed[rows], c.invoked[rows])]
    if order.touches:
        by_reader = at_node * len(c.processes) + c.process[rows]
        orders.append((by_reader, order.place[rows], order.place[rows]))
    bad = np.zeros(len(asking), np.bool_)
    for group, ended, asked in orders:
        known = _known_before(group, np.arange(len(rows)), ended, began, asking, asked)
        bad |= known > began[asking]
    found = np.flatnonzero(bad)
    if len(found) == 0:
        return 0, []
    i = int(asking[found[0]])
    mine = c.process[rows] == c.process[rows[i]]
    is_before = np.where(
        mine, order.place[rows] < order.place[rows[i]], c.completed[rows] < c.invoked[rows[i]]
    )
    is_before &= (at_node == at_node[i]) & (began > began[i])
    j = int(np.flatnonzero(is_before)[0])
    return len(found), sorted({int(write[i]), int(write[j]), int(rows[j]), int(rows[i])})
