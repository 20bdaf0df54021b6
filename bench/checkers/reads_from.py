"""Which write each operation saw: the common basis of the checkers of weaker models.

An operation with unknown outcome certainly *took effect* once its value was seen, and only then is
it included. A CAS that took effect read what it expected, whatever its outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.checkers.availability import FINAL_PROCESS_PREFIX
from bench.checkers.clusters import unique_keys
from bench.record.columns import CAS, FAIL, INFO, NEVER, NULL, OK, READ, Bools, Columns, Int64s

BEFORE_ALL = np.iinfo(np.int64).min
_NOBODY = -2


@dataclass(frozen=True, slots=True)
class ReadsFrom:
    """Observations, several for a row that read siblings, and the writes that they saw.

    A write is identified by its row, the initial value of a key by ``-1``. ``rows``: the observing
    operations; ``write``: the write that each saw; ``unknown``: observations of a value that nobody
    wrote. ``writes``: the rows that certainly took effect. ``placed``, by row of a write: when its
    value was certainly in place (the earliest finish of the write and of all that saw it, but not
    before it began); `NEVER` for other rows. ``keys_left_out``: how many keys were left out because
    their values are not unique and a read does not identify its write.
    """

    rows: Int64s
    write: Int64s
    unknown: Int64s
    writes: Int64s
    placed: Int64s
    is_final: Bools  # by row
    keys_left_out: int


@dataclass(frozen=True, slots=True)
class Impossible:
    """What no model allows: the ``rows`` that show it, and a description."""

    rows: list[int]
    what: str


def program_order(c: Columns, rows: Int64s, *, by_key: bool = False) -> Int64s:
    """The permutation that sorts ``rows`` (ascending) by process and program order. At one instant,
    operations that take no time come before one that does; further ties go by row. The order is the
    same for `Columns.widened`. ``by_key``: order each key of a process by itself."""
    keys = (c.key[rows],) if by_key else ()
    order: Int64s = np.lexsort((c.takes_time[rows], c.invoked[rows], *keys, c.process[rows]))
    return order


def final_rows(c: Columns) -> Bools:
    """Which rows are the final reads of a run, made by no process."""
    if not c.has_final_reads:
        return np.zeros(len(c), np.bool_)
    names = np.array([name.startswith(FINAL_PROCESS_PREFIX) for name in c.processes], np.bool_)
    return names[c.process] & (c.op == READ) if len(c) else np.zeros(0, np.bool_)


def impossible(
    c: Columns, seen: ReadsFrom, initial: int = NULL, *, history_is_cut: bool = False
) -> Impossible | None:
    """A contradiction in every model, on any key, even with values that are not unique: a CAS
    refused although it saw what it expected, or a value that nobody can have written. The latter
    proves nothing if operations are missing."""
    refused = (c.op == CAS) & (c.outcome == OK) & ~c.applied
    matched = np.flatnonzero(refused & (c.seen >= 0) & (c.seen == c.expected))
    if len(matched):
        return Impossible(
            [int(matched[0])], "a CAS was refused although it saw the value that it expected"
        )
    if history_is_cut:
        return None
    writes = np.flatnonzero((c.op != READ) & (c.outcome != FAIL) & ~refused)
    rows, value = _observations(c, np.ones(len(c), np.bool_))
    width = len(c.values) + 1
    written = c.key[writes].astype(np.int64) * width + c.value[writes]
    wanted = c.key[rows].astype(np.int64) * width + value
    from_nowhere = np.flatnonzero((value != initial) & ~np.isin(wanted, written))
    nobodys = np.concatenate((rows[from_nowhere], seen.unknown))
    if len(nobodys) == 0:
        return None
    return Impossible([int(nobodys.min())], "a value was read that nobody wrote")


def _observations(c: Columns, admitted: Bools) -> tuple[Int64s, Int64s]:
    """The operations that certainly saw a value: reads, and CAS, which see what they change or
    refuse. One row per sibling."""
    ok = admitted & (c.outcome == OK)
    refused = (c.op == CAS) & ~c.applied
    simple = np.flatnonzero(ok & (c.op == READ) & (c.value >= 0))
    of_refused = np.flatnonzero(ok & refused & (c.seen >= 0))
    of_cas = np.flatnonzero(ok & (c.op == CAS) & c.applied)
    listed = [(row, code) for row, codes in c.siblings.items() if ok[row] for code in codes]
    several = np.array(listed, np.int64).reshape(-1, 2)
    rows = np.concatenate((simple, of_refused, of_cas, several[:, 0]))
    value = np.concatenate(
        (c.value[simple], c.seen[of_refused], c.expected[of_cas], several[:, 1])
    ).astype(np.int64)
    return rows, value


def reads_from(c: Columns, initial: int = NULL, *, history_is_cut: bool = False) -> ReadsFrom:
    """Resolve every observation of ``c``.

    ``history_is_cut``: operations may be missing. Then a value that nobody wrote says nothing, and
    null or the initial value may come from a missing deletion: such observations are left out.
    """
    eligible = unique_keys(c, initial)
    admitted = eligible[c.key] if len(c) else np.zeros(0, np.bool_)
    refused = (c.op == CAS) & (c.outcome == OK) & ~c.applied
    writes = np.flatnonzero(admitted & (c.op != READ) & (c.outcome != FAIL) & ~refused)
    rows, value = _observations(c, admitted)
    # A CAS with unknown outcome, too, if it took effect.
    unsure = np.flatnonzero(admitted & (c.op == CAS) & (c.outcome == INFO))
    rows = np.concatenate((rows, unsure))
    value = np.concatenate((value, c.expected[unsure].astype(np.int64)))

    width = len(c.values) + 1
    pair = c.key[writes].astype(np.int64) * width + c.value[writes]
    order = np.argsort(pair)
    pair, by_pair = pair[order], writes[order]
    wanted = c.key[rows].astype(np.int64) * width + value
    place = np.searchsorted(pair, wanted)
    found = np.zeros(len(rows), np.bool_)
    inside = place < len(pair)
    found[inside] = pair[place[inside]] == wanted[inside]
    write = np.full(len(rows), _NOBODY, np.int64)
    write[found] = by_pair[place[found]]
    write[value == initial] = -1
    if len(unsure):
        counts = _counts(rows, write, unsure)
        rows, write, value = rows[counts], write[counts], value[counts]
    was_seen = np.zeros(len(c), np.bool_)
    was_seen[write[write >= 0]] = True
    writes = writes[(c.outcome[writes] == OK) | was_seen[writes]]

    if history_is_cut:
        says = (write != _NOBODY) & (value != initial) & (value != NULL)
        rows, write = rows[says], write[says]
    known, found = write != _NOBODY, write >= 0
    placed = np.full(len(c), NEVER)
    placed[writes] = c.completed[writes]
    np.minimum.at(placed, write[found], c.completed[rows[found]])
    placed[writes] = np.maximum(placed[writes], c.invoked[writes])  # if a read came before it
    return ReadsFrom(
        rows=rows[known],
        write=write[known],
        unknown=rows[~known],
        writes=writes,
        placed=placed,
        is_final=final_rows(c),
        keys_left_out=int((~eligible).sum()),
    )


def _counts(rows: Int64s, write: Int64s, unsure: Int64s) -> Bools:
    """Which observations count: all but those of a CAS with unknown outcome whose value no counting
    observation saw. ``unsure``: the rows of these CAS, at the end of ``rows``."""
    sure = len(rows) - len(unsure)
    expected = dict(zip(unsure.tolist(), write[sure:].tolist(), strict=True))
    todo = [row for row in np.unique(write[:sure]).tolist() if row in expected]
    took_effect = set(todo)
    while todo:
        parent = expected[todo.pop()]
        if parent in expected and parent not in took_effect:
            took_effect.add(parent)
            todo.append(parent)
    counts = np.ones(len(rows), np.bool_)
    counts[sure:] = [row in took_effect for row in unsure.tolist()]
    return counts


def evidence(c: Columns, seen: ReadsFrom, rows: list[int]) -> list[int]:
    """``rows``, and for each of them with unknown outcome an operation that saw its value."""
    found = set(rows)
    todo = [row for row in rows if c.outcome[row] == INFO]
    while todo:
        saw = int(seen.rows[seen.write == todo.pop()][0])
        if saw not in found:
            found.add(saw)
            if c.outcome[saw] == INFO:
                todo.append(saw)
    return sorted(found)
