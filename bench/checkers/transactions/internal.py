"""What a transaction saw of itself: its operations on one key, one after the other.

Two kinds. A transaction that does not see what it wrote itself is possible at no level: Adya's
definition of a history forbids it. That a key changes under a transaction, by others, is forbidden
from read atomic and repeatable read upwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.checkers.transactions.findings import Findings
from bench.checkers.transactions.lists import Versions, number_of_appends
from bench.record.columns import NOT_TOLD, OK, Bools, Int32s, Int64s
from bench.record.transactions.columns import APPEND, EMPTY, READ_LIST, WRITE, Transactions


@dataclass(slots=True)
class Groups:
    """Rows by transaction and key, in the order in which they were sent. ``place_of_write`` and
    ``place_of_read``: the last write, or read, before each of the same transaction and key; -1 if
    there is none. ``place_of_next``: the next write."""

    row: Int64s
    is_read: Bools
    place_of_write: Int64s
    place_of_read: Int64s
    place_of_next: Int64s


def groups(
    t: Transactions, owner: Int32s, committed: Bools, of_keys: Bools | None = None
) -> Groups:
    """The operations of committed transactions whose results are known; of some keys only."""
    is_write = (t.kind == APPEND) | (t.kind == WRITE)
    is_told = is_write | ((t.value != NOT_TOLD) & (t.outcome[owner] == OK))
    if of_keys is not None:
        is_told &= of_keys[t.key]
    rows = np.flatnonzero(is_told & committed[owner])
    code = owner[rows].astype(np.int64) * max(1, len(t.keys)) + t.key[rows]
    order = np.argsort(code, kind="stable")
    row, code = rows[order], code[order]
    places = np.arange(len(row))
    starts = np.ones(len(row), np.bool_)
    starts[1:] = code[1:] != code[:-1]
    start = np.maximum.accumulate(np.where(starts, places, 0))
    is_read = ~is_write[row]
    ends = np.ones(len(row), np.bool_)
    ends[:-1] = starts[1:]
    end = np.minimum.accumulate(np.where(ends, places, len(row))[::-1])[::-1]
    following = np.where(is_read, len(row), places)
    following = np.minimum.accumulate(following[::-1])[::-1]
    following = np.where(is_read & (following <= end), following, -1)
    return Groups(
        row, is_read, _last_before(~is_read, start), _last_before(is_read, start), following
    )


def _last_before(which: Bools, start: Int64s) -> Int64s:
    places = np.where(which, np.arange(len(which)), -1)
    found = np.full(len(which), -1, np.int64)
    found[1:] = np.maximum.accumulate(places)[:-1]
    return np.where(found >= start, found, -1)


def note_internal_of_lists(t: Transactions, v: Versions, g: Groups, findings: Findings) -> None:
    """Reads that do not fit to what their transaction read or appended before."""
    number = np.where(g.is_read, np.maximum(t.value[g.row], EMPTY), EMPTY)
    has_written = g.is_read & (g.place_of_write >= 0)
    own_row = g.row[g.place_of_write]
    own = has_written & (v.last_append[number] != own_row)
    _note(t, g, own, g.place_of_write, "internal (own writes)", findings)
    number_of = number_of_appends(t, v)
    early = np.flatnonzero(g.is_read & (g.place_of_next >= 0))
    seen = v.of_list[number[early]]
    too_early = np.zeros(len(g.row), np.bool_)
    next_number = number_of[g.row[g.place_of_next[early]]]
    too_early[early] = v.is_in_order[seen] & (next_number <= seen)
    _note(t, g, too_early, g.place_of_next, "internal (own writes)", findings)
    again = np.flatnonzero(g.is_read & (g.place_of_read >= 0) & ~own)
    earlier = g.place_of_read[again]
    between = np.cumsum(~g.is_read)
    appended: Int64s = between[again] - between[earlier]
    expected = number[again]
    todo = np.flatnonzero(appended > 0)
    while len(todo):
        expected[todo] = t.lists.parent[expected[todo]]
        appended[todo] -= 1
        todo = todo[appended[todo] > 0]
    changed = np.zeros(len(g.row), np.bool_)
    changed[again] = expected != number[earlier]
    _note(t, g, changed, g.place_of_read, "internal", findings)
    _note_reversed(t, v, g, number_of, findings)


def _note_reversed(
    t: Transactions, v: Versions, g: Groups, number_of: Int32s, findings: Findings
) -> None:
    """Appends of one transaction to one key, the later of which is in a list before the earlier, or
    without it."""
    pairs = np.flatnonzero(~g.is_read & (g.place_of_write >= 0))
    earlier = g.row[g.place_of_write[pairs]]
    found = np.flatnonzero(number_of[earlier] > number_of[g.row[pairs]])
    if len(found):
        one, two = int(earlier[found[0]]), int(g.row[pairs[found[0]]])
        reads = np.flatnonzero((t.kind == READ_LIST) & (t.key == t.key[two]))
        seen = v.of_list[t.value[reads]]
        holds = reads[v.is_in_order[seen] & (seen >= number_of[two])]
        words = (
            f"{t.keys[t.key[two]]} has what a transaction appended later without, or before, what "
            "it appended first"
        )
        findings.note("incompatible order", [one, two, int(holds[0])], words, len(found))


_WHY = {
    "internal": "a transaction read {key} twice, and it had changed",
    "internal (own writes)": "a transaction sees of {key} not what it wrote itself, or sees it "
    "before it wrote it",
}


def _note(
    t: Transactions, g: Groups, which: Bools, other: Int64s, name: str, findings: Findings
) -> None:
    if which.any():
        place = int(np.argmax(which))
        row = int(g.row[place])
        findings.note(
            name,
            [int(g.row[other[place]]), row],
            _WHY[name].format(key=t.keys[t.key[row]]),
            int(which.sum()),
        )


def note_lost_updates(t: Transactions, owner: Int32s, g: Groups, findings: Findings) -> None:
    """Transactions that read the same version of a key before they changed it: one of them changed
    what it had not seen. ``t.value`` of reads names versions."""
    first_read = g.is_read & (g.place_of_read < 0) & (g.place_of_write < 0)
    changes = np.flatnonzero(~g.is_read & (g.place_of_write < 0) & (g.place_of_read >= 0))
    read = changes
    first = np.maximum.accumulate(np.where(first_read, np.arange(len(g.row)), 0))[read]
    if len(changes) == 0:
        return
    row = g.row[first]
    code = t.key[row].astype(np.int64) * (int(t.value.max(initial=0)) + 1) + t.value[row]
    order = np.argsort(code, kind="stable")
    same = np.flatnonzero(code[order][1:] == code[order][:-1]) + 1
    if len(same):
        one, two = order[same[0] - 1], order[same[0]]
        key = t.keys[t.key[row[two]]]
        findings.note(
            "lost update",
            [int(row[one]), int(g.row[changes[one]]), int(row[two]), int(g.row[changes[two]])],
            f"two transactions read the same version of {key}, and both changed it",
            len(same),
        )
