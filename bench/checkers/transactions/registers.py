"""What transactions that read and write registers saw: of each read, the write that it names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.checkers.transactions.findings import Findings
from bench.checkers.transactions.internal import Groups, groups, note_lost_updates
from bench.record.columns import FAIL, INFO, NOT_TOLD, NULL, OK, Bools, Int32s, Int64s
from bench.record.history import BadHistory
from bench.record.transactions.columns import READ, WRITE, Transactions


@dataclass(slots=True)
class Registers:
    """``reads``: rows of reads of what others wrote, by transaction and key; ``source`` of each,
    the write, -1 for null: nothing was written yet. ``finals``: the last write of each committed
    transaction to each key, by transaction and key. ``left_out``: how many keys have a value that
    was written twice, so that a read does not name its write."""

    transactions: Transactions
    owner: Int32s
    committed: Bools
    grouped: Groups
    reads: Int64s
    source: Int64s
    finals: Int64s
    left_out: int

    def pair(self, rows: Int64s) -> Int64s:
        """Transaction and key of some rows, as one number."""
        t = self.transactions
        return self.owner[rows] * np.int64(max(1, len(t.keys))) + t.key[rows]


def registers_of(t: Transactions, findings: Findings) -> Registers:
    """The reads with their writes, and what is wrong with either alone. Raises BadHistory for other
    operations."""
    owner = t.owner()
    fits = (t.kind == READ) | (t.kind == WRITE)
    if not fits.all():
        row = int(np.argmin(fits))
        raise BadHistory(
            f"transaction {int(t.id[owner[row]])}: an append to, or a list read of, "
            f"{t.keys[t.key[row]]}, and rw-register has reads and writes of values; use the model "
            "list-append"
        )
    written, twice = _writes(t, owner)
    source = _sources(t, written)
    source[twice[t.key]] = -2
    told = (t.kind == READ) & (t.value != NOT_TOLD) & (t.outcome[owner] == OK) & ~twice[t.key]
    committed = t.outcome == OK
    seen = source[told & (source >= 0)]
    committed[owner[seen[t.outcome[owner[seen]] == INFO]]] = True
    grouped = groups(t, owner, committed, ~twice)
    _note_alone(t, owner, told, source, findings)
    external = _external(t, owner, grouped, source, findings)
    note_lost_updates(t, owner, grouped, findings)
    writes = grouped.row[~grouped.is_read]
    code = owner[writes] * np.int64(max(1, len(t.keys))) + t.key[writes]
    is_last = np.ones(len(writes), np.bool_)
    is_last[:-1] = code[1:] != code[:-1]
    finals = writes[is_last]
    r = Registers(
        t, owner, committed, grouped, external, source[external], finals, int(twice.sum())
    )
    _note_intermediate(r, findings)
    return r


def _writes(t: Transactions, owner: Int32s) -> tuple[Int64s, Bools]:
    """The writes, and the keys to which a value was written twice. What failed, and was tried again
    with the same value, counts once."""
    rows = np.flatnonzero(t.kind == WRITE)
    code = t.key[rows] * np.int64(len(t.values)) + t.value[rows]
    failed = t.outcome[owner[rows]] == FAIL
    order = np.lexsort((failed, code))
    same = np.flatnonzero(code[order][1:] == code[order][:-1]) + 1
    twice = np.zeros(len(t.keys), np.bool_)
    again = order[same]
    twice[t.key[rows[again[~failed[again]]]]] = True
    return np.delete(rows, again), twice


def _sources(t: Transactions, written: Int64s) -> Int64s:
    """Of each operation the write of its value; -1 for null, -2 where there is none."""
    source = np.full(len(t.kind), -2, np.int64)
    if len(written):
        code = t.key[written] * np.int64(len(t.values)) + t.value[written]
        order = np.argsort(code, kind="stable")
        wanted = t.key * np.int64(len(t.values)) + t.value
        place = np.minimum(np.searchsorted(code[order], wanted), len(code) - 1)
        found = code[order][place] == wanted
        source[found] = written[order[place[found]]]
    source[t.value == NULL] = -1
    return source


def _note_alone(
    t: Transactions, owner: Int32s, told: Bools, source: Int64s, findings: Findings
) -> None:
    phantom = np.flatnonzero(told & (source == -2))
    if len(phantom):
        row = int(phantom[0])
        words = f"{t.values[t.value[row]]!r} of {t.keys[t.key[row]]} was read, and nobody wrote it"
        findings.note("unwritten value", [row], words, len(phantom))
    rows = np.flatnonzero(told & (source >= 0))
    aborted = rows[(t.outcome[owner[source[rows]]] == FAIL) & (owner[source[rows]] != owner[rows])]
    if len(aborted):
        row = int(aborted[0])
        findings.note(
            "G1a",
            [int(source[row]), row],
            f"{t.values[t.value[row]]!r} of {t.keys[t.key[row]]} was read, and the transaction "
            "that wrote it was never committed",
            len(aborted),
        )


def _external(
    t: Transactions, owner: Int32s, g: Groups, source: Int64s, findings: Findings
) -> Int64s:
    """Reads of what others wrote; notes those that do not fit to their own transaction."""
    known = g.is_read
    after_own = known & (g.place_of_write >= 0)
    own_row = g.row[g.place_of_write]
    mine = np.where(source[g.row] >= 0, owner[np.maximum(source[g.row], 0)] == owner[g.row], False)
    wrong = (after_own & (source[g.row] != own_row)) | (known & ~after_own & mine)
    if wrong.any():
        place = int(np.argmax(wrong))
        rows = [int(own_row[place])] if after_own[place] else [int(source[g.row[place]])]
        words = (
            f"a transaction sees of {t.keys[t.key[g.row[place]]]} not what it wrote itself, or "
            "sees it before it wrote it"
        )
        findings.note("internal (own writes)", [*rows, int(g.row[place])], words, int(wrong.sum()))
    outside = known & ~after_own & ~mine
    again = outside & (g.place_of_read >= 0)
    changed = again & (t.value[g.row] != t.value[g.row[g.place_of_read]])
    if changed.any():
        place = int(np.argmax(changed))
        rows = [int(g.row[g.place_of_read[place]]), int(g.row[place])]
        words = f"a transaction read {t.keys[t.key[rows[0]]]} twice, and it had changed"
        findings.note("internal", rows, words, int(changed.sum()))
    committed = np.where(source >= 0, t.outcome[owner[np.maximum(source, 0)]] != FAIL, True)
    return g.row[outside & (source[g.row] >= -1) & committed[g.row]]


def _note_intermediate(r: Registers, findings: Findings) -> None:
    """G1b: reads of what its transaction overwrote itself."""
    t = r.transactions
    is_final = np.zeros(len(t.kind), np.bool_)
    is_final[r.finals] = True
    some = np.flatnonzero((r.source >= 0) & ~is_final[np.maximum(r.source, 0)])
    if len(some):
        row, write = int(r.reads[some[0]]), int(r.source[some[0]])
        own = np.flatnonzero((r.owner == r.owner[write]) & (t.key == t.key[write]))
        last = int(own[t.kind[own] == WRITE][-1])
        findings.note(
            "G1b",
            [write, last, row],
            f"{t.values[t.value[write]]!r} of {t.keys[t.key[write]]} was read, and its transaction "
            "wrote another one after it",
            len(some),
        )
