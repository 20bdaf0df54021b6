"""How stale were the reads?

A read of value u is *stale* if some acknowledged write on the key began after u was certainly in
place (the earliest finish of its write and of those that saw it, but not before the write began)
and ended before the read began. An answered CAS, refused or applied, is such a read, too. Two
figures:

- ``age``: how long such a write had been acknowledged when the read began, the longest over all of
  them: the t of t-visibility.
- ``k``: at least this many acknowledged writes were newer than what the read saw.

O(n log n). Reads of a value written more than once (null, if keys are deleted) count as
``undecided``. Of siblings the newest counts. Final reads are left out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.checkers.reads_from import final_rows
from bench.checkers.sequential import CUT_SHORT, NO_READS
from bench.record.columns import CAS, FAIL, NEVER, NULL, OK, READ, Columns, Int64s
from bench.record.verdict import Quantiles, Staleness, StalenessCheck, Visibility
from bench.record.witness import deed, duration

BEFORE_ALL = np.iinfo(np.int64).min
VISIBLE_AFTER_S = (0.0, 0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Ages at which t-visibility is reported."""


@dataclass(frozen=True, slots=True)
class StaleReads:
    """``rows``: the stale reads; ``age_ns`` and ``k`` of each; ``newer``: the first acknowledged
    write that each missed. ``reads``: how many were decided; ``undecided``: how many could not
    be."""

    rows: Int64s
    age_ns: Int64s
    k: Int64s
    newer: Int64s
    reads: int
    undecided: int


def stale_reads(c: Columns, initial: int = NULL, *, history_is_cut: bool = False) -> StaleReads:
    """The stale reads of ``c``. ``initial``: the code of the initial value. ``history_is_cut``:
    operations may be missing, and null or the initial value may come from a missing deletion: such
    reads stay undecided."""
    n_values = len(c.values)
    final = final_rows(c)
    is_cas = (c.op == CAS) & (c.outcome == OK)
    refused = is_cas & ~c.applied
    observed = np.where(is_cas, np.where(refused, c.seen, c.expected), c.value).astype(np.int64)
    observes = (c.outcome == OK) & ((c.op == READ) | is_cas) & (observed >= 0)
    writes = (c.op != READ) & (c.outcome != FAIL) & ~refused
    pair = c.key.astype(np.int64) * n_values + observed
    of_write = c.key.astype(np.int64) * n_values + c.value

    if initial < 0 and not writes.any():
        none = np.zeros(0, np.int64)
        several = [row for row in c.siblings if not final[row] and c.outcome[row] == OK]
        return StaleReads(none, none, none, none, 0, int((observes & ~final).sum()) + len(several))
    written, times = np.unique(of_write[writes], return_counts=True)
    at_first = np.arange(len(c.keys), dtype=np.int64) * n_values + initial
    known = np.union1d(written, at_first) if initial >= 0 else written
    placed = np.full(len(known), NEVER)
    where = np.searchsorted(known, of_write[writes])
    np.minimum.at(placed, where, c.completed[writes])
    began = np.full(len(known), BEFORE_ALL)
    np.maximum.at(began, where, c.invoked[writes])
    where = np.searchsorted(known, pair[observes])
    exists = (where < len(known)) & (known[np.minimum(where, len(known) - 1)] == pair[observes])
    np.minimum.at(placed, where[exists], c.completed[observes][exists])
    placed = np.maximum(placed, began)
    if initial >= 0:
        placed[np.searchsorted(known, at_first)] = BEFORE_ALL
    repeated = np.isin(known, written[times > 1])
    if initial >= 0:
        repeated |= np.isin(known, np.intersect1d(written, at_first))
    if history_is_cut:
        repeated |= np.isin(known % n_values, (NULL, initial))

    reads = np.flatnonzero(observes & ~final)
    place = np.searchsorted(known, pair[reads])
    found = (place < len(known)) & (known[np.minimum(place, len(known) - 1)] == pair[reads])
    decided = found.copy()
    decided[found] = ~repeated[place[found]]
    undecided = int((~decided).sum())
    reads, since = reads[decided], placed[place[decided]]
    rows, sinces = [reads], [since]
    for row, codes in c.siblings.items():
        if final[row] or c.outcome[row] != OK:
            continue
        pairs = np.array([int(c.key[row]) * n_values + code for code in codes], np.int64)
        spot = np.searchsorted(known, pairs)
        spot = np.minimum(spot, len(known) - 1)
        if (known[spot] != pairs).any() or repeated[spot].any():
            undecided += 1
            continue
        rows.append(np.array([row], np.int64))
        sinces.append(placed[spot].max(keepdims=True))
    reads, since = np.concatenate(rows), np.concatenate(sinces)

    acknowledged = np.flatnonzero(writes & (c.outcome == OK))
    return _by_key(c, reads, since, acknowledged, undecided)


def _by_key(
    c: Columns, reads: Int64s, since: Int64s, acknowledged: Int64s, undecided: int
) -> StaleReads:
    """The stale reads, key by key: those that began after the end of a write that began after
    ``since``."""
    stale_rows, ages, ks, newer_rows = [], [], [], []
    by_key = np.argsort(c.key[reads], kind="stable")
    reads, since = reads[by_key], since[by_key]
    acknowledged = acknowledged[np.lexsort((c.invoked[acknowledged], c.key[acknowledged]))]
    keys = np.arange(len(c.keys))
    read_low, read_high = (
        np.searchsorted(c.key[reads], keys),
        np.searchsorted(c.key[reads], keys, "right"),
    )
    write_low, write_high = (
        np.searchsorted(c.key[acknowledged], keys),
        np.searchsorted(c.key[acknowledged], keys, "right"),
    )
    for number in keys.tolist():
        rows = reads[read_low[number] : read_high[number]]
        writes = acknowledged[write_low[number] : write_high[number]]
        if len(rows) == 0 or len(writes) == 0:
            continue
        starts, ends = c.invoked[writes], c.completed[writes]
        earliest = np.minimum.accumulate(ends[::-1])[::-1]
        read_start = c.invoked[rows]
        first = np.searchsorted(starts, since[read_low[number] : read_high[number]], "right")
        has_later = first < len(writes)
        first_end = np.where(has_later, earliest[np.minimum(first, len(writes) - 1)], NEVER)
        stale = np.flatnonzero(first_end < read_start)
        if len(stale) == 0:
            continue
        ended = np.searchsorted(np.sort(ends), read_start[stale], "left")
        stale_rows.append(rows[stale])
        ages.append(c.times.apart(read_start[stale], first_end[stale]))
        ks.append(np.maximum(1, ended - first[stale]))
        newer_rows.append(_first_to_end(writes, ends, earliest, first[stale]))
    if not stale_rows:
        none = np.zeros(0, np.int64)
        return StaleReads(none, none, none, none, len(reads), undecided)
    return StaleReads(
        np.concatenate(stale_rows),
        np.concatenate(ages),
        np.concatenate(ks),
        np.concatenate(newer_rows),
        len(reads),
        undecided,
    )


def _first_to_end(writes: Int64s, ends: Int64s, earliest: Int64s, first: Int64s) -> Int64s:
    """From each index in ``first`` on, the write that ended first."""
    holds = np.where(ends == earliest, np.arange(len(ends)), len(ends))
    return writes[np.minimum.accumulate(holds[::-1])[::-1][first]]


def check_staleness(
    c: Columns, *, initial: int = NULL, history_is_cut: bool = False
) -> StalenessCheck:
    """A measurement: ``verdict`` is valid if there were reads, else unknown. If operations may be
    missing (``history_is_cut``) it is unknown, and the stale reads are a lower bound."""
    began = time.perf_counter()
    found = stale_reads(c, initial, history_is_cut=history_is_cut)
    age_s = found.age_ns / 1e9
    worst: str | None = None
    age = _quantiles(age_s) if len(age_s) else None
    summary = f"none of {found.reads} reads was stale"
    if age is not None:
        oldest = int(np.argmax(found.age_ns))
        read = c.record(int(found.rows[oldest]))
        write = c.record(int(found.newer[oldest]))
        worst = (
            f"{write.process} {deed(write)}, then {duration(int(found.age_ns[oldest]))} later "
            f"{read.process} {deed(read)}"
        )
        at_least = "at least " if history_is_cut else ""
        summary = (
            f"{at_least}{len(found.rows)} of {found.reads} reads were stale "
            f"(median {age.p50:.3g} s, worst {age.max:.3g} s): {worst}"
        )
    elif not found.reads:
        summary = "of no read it is known which write it saw" if found.undecided else NO_READS
    elif history_is_cut:
        summary = f"{CUT_SHORT}; no stale one among {found.reads} reads"
    return StalenessCheck(
        verdict="valid" if found.reads and not history_is_cut else "unknown",
        model="none",
        algorithm="suffix minimum per key",
        operations=len(c),
        seconds=time.perf_counter() - began,
        summary=summary,
        details=Staleness(
            reads=found.reads,
            stale=len(found.rows),
            share=len(found.rows) / found.reads if found.reads else None,
            undecided=found.undecided,
            age_s=age,
            k=_quantiles(found.k) if len(age_s) else None,
            t_visibility=[
                Visibility(t_s=t, share=float((age_s > t).sum()) / found.reads)
                for t in VISIBLE_AFTER_S
                if found.reads
            ],
            worst=worst,
        ),
    )


def _quantiles(numbers: Int64s | NDArray[np.float64]) -> Quantiles:
    p50, p90, p99 = np.quantile(numbers, (0.5, 0.9, 0.99))
    return Quantiles(p50=float(p50), p90=float(p90), p99=float(p99), max=float(numbers.max()))
