"""Which write each operation saw: the common ground of the checkers of weaker models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.checkers.availability import FINAL_PROCESS_PREFIX
from bench.checkers.clusters import unique_keys
from bench.checkers.columns import CAS, FAIL, INFO, NEVER, NULL, OK, READ, Bools, Columns, Int64s

BEFORE_ALL = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class ReadsFrom:
    """Observations (one row may have several: siblings) and the writes that they saw.

    A write is known by its row; the initial value of a key by ``-1``. ``rows``: the observing
    operations; ``write``: what each saw; ``unknown``: observations of a value that nobody wrote.
    ``placed``, by row of a write: when its value was certainly in place (the earliest finish of the
    write and of all that saw it), `NEVER` for other rows. ``keys_left_out``: keys on which values
    are not unique, so that a read does not name its write; nothing of them is in here.
    """

    rows: Int64s
    write: Int64s
    unknown: Int64s
    writes: Int64s
    placed: Int64s
    is_final: Bools  # by row
    keys_left_out: int


def lanes(c: Columns, rows: Int64s) -> Int64s:
    """By row of ``rows``: whose program order it is in.

    That of its process, but for a write of unknown outcome after which its process went on: it may
    take effect after what the process did next, so it stands alone.
    """
    process = c.process[rows].astype(np.int64)
    order = np.lexsort((c.completed[rows], c.invoked[rows], process))
    is_last = np.ones(len(rows), np.bool_)
    is_last[order[:-1]] = process[order][1:] != process[order][:-1]
    alone = np.flatnonzero((c.outcome[rows] == INFO) & ~is_last)
    process[alone] = len(c.processes) + np.arange(len(alone))
    return process


def reads_from(c: Columns, initial: int = NULL) -> ReadsFrom:
    """Resolve every observation of ``c``: reads, and CAS, which see what they change or refuse."""
    eligible = unique_keys(c, initial)
    admitted = eligible[c.key] if len(c) else np.zeros(0, np.bool_)
    ok = c.outcome == OK
    refused = (c.op == CAS) & ok & ~c.applied
    writes = np.flatnonzero(admitted & (c.op != READ) & (c.outcome != FAIL) & ~refused)

    simple = np.flatnonzero(admitted & ok & (c.op == READ) & (c.value >= 0))
    of_refused = np.flatnonzero(admitted & refused & (c.seen >= 0))
    of_cas = np.flatnonzero(admitted & ok & (c.op == CAS) & c.applied)
    listed = [
        (row, code)
        for row, codes in c.siblings.items()
        if admitted[row] and ok[row]
        for code in codes
    ]
    several = np.array(listed, np.int64).reshape(-1, 2)
    rows = np.concatenate((simple, of_refused, of_cas, several[:, 0]))
    value = np.concatenate(
        (c.value[simple], c.seen[of_refused], c.expected[of_cas], several[:, 1])
    ).astype(np.int64)

    width = len(c.values) + 1
    pair = c.key[writes].astype(np.int64) * width + c.value[writes]
    order = np.argsort(pair)
    pair, by_pair = pair[order], writes[order]
    wanted = c.key[rows].astype(np.int64) * width + value
    place = np.searchsorted(pair, wanted)
    found = np.zeros(len(rows), np.bool_)
    inside = place < len(pair)
    found[inside] = pair[place[inside]] == wanted[inside]
    write = np.full(len(rows), -1, np.int64)
    write[found] = by_pair[place[found]]
    known = found | (value == initial)

    placed = np.full(len(c), NEVER)
    placed[writes] = c.completed[writes]
    np.minimum.at(placed, write[found], c.completed[rows[found]])
    names = np.array([name.startswith(FINAL_PROCESS_PREFIX) for name in c.processes], np.bool_)
    return ReadsFrom(
        rows=rows[known],
        write=write[known],
        unknown=rows[~known],
        writes=writes,
        placed=placed,
        is_final=names[c.process] if len(c) else np.zeros(0, np.bool_),
        keys_left_out=int((~eligible).sum()),
    )
