"""Linearizability of registers whose written values are unique: exact, O(n log n), all keys at
once.

Theory of operation
-------------------
Every read names the write it saw, so nothing needs to be searched (Gibbons and Korach, "Testing
Shared Memories", SIAM J. Comput. 26(4), 1997, section 4). A *cluster* is one write with its reads;
the initial value of each key is a virtual write before everything. Per cluster, f is the earliest
finish and s the latest start. A linearization keeps the operations of a cluster together, so
cluster A must precede B iff f_A < s_B, and the history is linearizable iff no pair must precede
each other both ways:

    forward zone (f < s)     two of them must not overlap
    backward zone (s <= f)   must not lie strictly inside a forward zone

A CAS u -> v welds cluster v directly behind cluster u; such a *chain* is one block with one zone,
once its own order is found free of contradictions. An operation that ended ``info`` never
finished: unread it cannot conflict, read it is bounded by its readers. A CAS that ended ``info``
counts only if its value was seen by an operation that counts.

All comparisons are strict: a tie counts as concurrent. Time is offset by key, so that one sort and
one running maximum serve all keys.

Keys on which the values are not unique (a value written twice, the initial value written or deleted
back, a refused CAS that hides what it saw) are left out, and named in the `Finding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from bench.checkers.columns import (
    CAS,
    FAIL,
    INFO,
    NEVER,
    NULL,
    OK,
    READ,
    Bools,
    Columns,
    Int32s,
    Int64s,
)

Kind: TypeAlias = Literal[
    "never-written",
    "read-before-write",
    "refused-match",
    "two-cas-of-one-value",
    "cas-cycle",
    "chain-order",
    "overlap",
    "inside",
]
"""Why a history is not linearizable. ``never-written``: a value was seen that no operation can have
written. ``refused-match``: a CAS was refused although it saw what it expected. The last three are
the contradictions of time: in a chain of CAS, of two forward zones, of a backward in a forward
zone."""

_SPAN_LIMIT = 1 << 62


@dataclass(slots=True)
class Finding:
    """What the zones say. ``kind``: the first contradiction found, None if there is none.
    ``witness``: the rows that take part in it. ``left_out``: codes of the keys that were not
    checked. ``unexplained``: rows that saw a value of unknown origin, where that was allowed."""

    kind: Kind | None
    witness: list[int]
    left_out: list[int]
    unexplained: list[int]


@dataclass(slots=True)
class _Clusters:
    """Clusters by their number. ``f`` and ``s`` are relative times, 0 is before, ``span - 1``
    after all."""

    span: int
    start: Int64s  # by row
    finish: Int64s  # by row
    cluster: Int64s  # by row: the cluster that the row writes or reads, -1 for rows without a part
    parent: Int64s  # by row: the cluster that a CAS that counts expected, else -1
    is_read: Bools  # by row
    is_write: Bools  # by row
    key: Int64s
    write_row: Int64s
    exists: Bools
    f: Int64s
    s: Int64s


def unique_keys(c: Columns, initial: int = NULL) -> Bools:
    """By key: whether the zones decide it, because no value is written twice and nothing is
    hidden."""
    eligible = np.ones(len(c.keys), np.bool_)
    rows = np.flatnonzero((c.op != READ) & (c.outcome != FAIL) & c.applied)
    value = c.value[rows]
    times = np.bincount(value, minlength=len(c.values))
    if initial >= 0 and times[initial]:
        eligible[c.key[rows[value == initial]]] = False
    if len(times) and times.max() > 1:  # on one key, or each time on another?
        rows = rows[times[value] > 1]
        pairs = c.key[rows].astype(np.int64) * len(c.values) + c.value[rows]
        pairs.sort()
        eligible[pairs[1:][pairs[1:] == pairs[:-1]] // len(c.values)] = False
    hidden = (c.op == CAS) & (c.outcome == OK) & ~c.applied & (c.seen < 0)
    eligible[c.key[hidden]] = False
    return eligible


def check_zones(
    c: Columns, *, initial: int = NULL, writes_missing: bool = False, candidates: int = 24
) -> Finding:
    """Whether every key that `unique_keys` admits is linearizable.

    ``initial``: code of the value that each key holds at first. ``writes_missing``: operations may
    be missing from the history, so a value of unknown origin is no contradiction. ``candidates``:
    how many contradictions are looked at to find a small witness.
    """
    if len(c) == 0:
        return Finding(None, [], [], [])
    eligible = unique_keys(c, initial)
    left_out = np.flatnonzero(~eligible).tolist()
    admitted = eligible[c.key]

    matched = admitted & (c.op == CAS) & (c.outcome == OK) & ~c.applied & (c.seen == c.expected)
    if matched.any():
        return Finding("refused-match", [int(np.flatnonzero(matched)[0])], left_out, [])

    k = _build(c, admitted, initial)
    unexplained = _unwritten(c, k)
    if unexplained and not writes_missing:
        row = unexplained[0]
        told = c.expected[row] if k.is_write[row] else _told(c)[row]
        failed = (c.op != READ) & (c.outcome == FAIL) & (c.key == c.key[row]) & (c.value == told)
        witness = [*np.flatnonzero(failed)[:1].tolist(), *_with_evidence(c, k, [row])]
        return Finding("never-written", witness, left_out, unexplained)
    if unexplained:
        _assume_written(c, k, unexplained)

    kind, groups = _early_reads(k)
    if kind is None and (k.parent >= 0).any():
        kind, groups = _chains(k)
    elif kind is None:
        kind, groups = _zones(k, np.flatnonzero(k.exists))
    witness = _smallest(c, k, groups[:candidates], initial) if kind and candidates else []
    return Finding(kind, witness, left_out, unexplained)


def _told(c: Columns) -> Int32s:
    """By row: the value that the operation wrote, or that it saw."""
    refused = (c.op == CAS) & ~c.applied
    return np.where(refused, c.seen, c.value)


def _build(c: Columns, admitted: Bools, initial: int) -> _Clusters:
    n_values, n_keys = len(c.values), len(c.keys)
    told = _told(c)
    ok = c.outcome == OK
    refused = (c.op == CAS) & ok & ~c.applied
    is_read = admitted & ok & ((c.op == READ) | refused) & (told >= 0)
    is_write = admitted & (c.outcome != FAIL) & (c.op != READ) & ~refused
    takes_part = is_read | is_write
    is_cas = is_write & (c.op == CAS)

    # Number the pairs (key, value). Mostly a value belongs to one key: then its code is the number.
    rows = np.flatnonzero(takes_part)
    key, value = c.key[rows].astype(np.int64), told[rows].astype(np.int64)
    cas_rows = np.flatnonzero(is_cas)
    cas_key, cas_expected = c.key[cas_rows].astype(np.int64), c.expected[cas_rows].astype(np.int64)
    owner = np.full(n_values, -1, np.int64)
    owner[value] = key
    owner[cas_expected] = cas_key
    one_key = bool(
        ((owner[value] == key) | (value == initial)).all()
        and ((owner[cas_expected] == cas_key) | (cas_expected == initial)).all()
    )
    if one_key:
        first_initial = n_values
        cluster = np.where(value == initial, first_initial + key, value)
        expected = np.where(cas_expected == initial, first_initial + cas_key, cas_expected)
    else:
        pairs = np.concatenate((key * n_values + value, cas_key * n_values + cas_expected))
        distinct, numbered = np.unique(pairs, return_inverse=True)
        first_initial = len(distinct)
        at_first = np.concatenate((value, cas_expected)) == initial
        numbered = np.where(at_first, first_initial + pairs // n_values, numbered)
        cluster, expected = numbered[: len(rows)], numbered[len(rows) :]
    n_clusters = first_initial + n_keys

    cluster_of_row = np.full(len(c), -1, np.int64)
    cluster_of_row[rows] = cluster
    parent = np.full(len(c), -1, np.int64)
    parent[cas_rows] = expected
    _drop_uncounted(c, is_read, is_write, cluster_of_row, parent, n_clusters)

    # Times relative to the first: 0 is before all of them, span - 1 after all.
    origin = int(c.invoked.min()) - 1
    finite = c.completed != NEVER
    last = max(int(c.invoked.max()), int(c.completed[finite].max()) if finite.any() else 0)
    span = last - origin + 3
    if (
        span * (max(n_keys, len(cas_rows)) + 1) >= _SPAN_LIMIT
    ):  # offsets would overflow: use ranks instead
        times, ranks = np.unique(
            np.concatenate((c.invoked, c.completed[finite])), return_inverse=True
        )
        span = len(times) + 3
        start = ranks[: len(c)] + 1
        finish = np.full(len(c), span - 1, np.int64)
        finish[finite] = ranks[len(c) :] + 1
    else:
        start = c.invoked - origin
        finish = np.where(finite, c.completed, last + 2) - origin
    info = c.outcome == INFO
    finish[info] = span - 1

    write_row = np.full(n_clusters, -1, np.int64)
    writes = np.flatnonzero(is_write)
    write_row[cluster_of_row[writes]] = writes
    f = np.full(n_clusters, span - 1, np.int64)
    s = np.zeros(n_clusters, np.int64)
    key_of = np.zeros(n_clusters, np.int64)
    key_of[cluster_of_row[writes]] = c.key[writes]
    f[cluster_of_row[writes]] = finish[writes]
    s[cluster_of_row[writes]] = start[writes]
    f[first_initial:] = 0
    key_of[first_initial:] = np.arange(n_keys)
    reads = np.flatnonzero(is_read)
    of_reads = cluster_of_row[reads]
    np.minimum.at(f, of_reads, finish[reads])
    np.maximum.at(s, of_reads, start[reads])
    exists = write_row >= 0
    exists[first_initial:] = True
    return _Clusters(
        span,
        start,
        finish,
        cluster_of_row,
        parent,
        is_read,
        is_write,
        key_of,
        write_row,
        exists,
        f,
        s,
    )


def _drop_uncounted(
    c: Columns,
    is_read: Bools,
    is_write: Bools,
    cluster: Int64s,
    parent: Int64s,
    n_clusters: int,
) -> None:
    """Take out each CAS that ended ``info`` and whose value nobody saw: it may not have applied."""
    unsure = np.flatnonzero(is_write & (c.op == CAS) & (c.outcome == INFO))
    if len(unsure) == 0:
        return
    seen = np.zeros(n_clusters, np.bool_)
    seen[cluster[is_read]] = True
    sure = (parent >= 0) & (c.outcome == OK)
    seen[parent[sure]] = True
    writer = {int(cluster[row]): row for row in unsure.tolist()}
    todo = [number for number in writer if seen[number]]
    counted = set()
    while todo:
        row = writer[todo.pop()]
        counted.add(row)
        before = int(parent[row])
        if before in writer and writer[before] not in counted:
            todo.append(before)
    dropped = np.array([row for row in unsure.tolist() if row not in counted], np.int64)
    is_write[dropped] = False
    cluster[dropped] = -1
    parent[dropped] = -1


def _unwritten(c: Columns, k: _Clusters) -> list[int]:
    """The rows that saw a value which no operation can have written, earliest answer first."""
    read_rows = np.flatnonzero(k.is_read)
    bad = read_rows[~k.exists[k.cluster[read_rows]]]
    cas_rows = np.flatnonzero(k.parent >= 0)
    bad_cas = cas_rows[~k.exists[k.parent[cas_rows]]]
    rows = np.concatenate((bad, bad_cas))
    if len(rows) == 0:
        return []
    order = np.argsort(k.finish[rows], kind="stable")
    return [int(row) for row in rows[order]]


def _assume_written(c: Columns, k: _Clusters, rows: list[int]) -> None:
    """Let each value of unknown origin be written by an operation of which nothing is known."""
    for row in rows:
        is_parent = k.parent[row] >= 0 and not k.exists[k.parent[row]]
        number = int(k.parent[row] if is_parent else k.cluster[row])
        k.exists[number] = True
        k.key[number] = c.key[row]


_Found: TypeAlias = tuple[Kind | None, list[list[int]]]


def _early_reads(k: _Clusters) -> _Found:
    """A read that finished before its write began."""
    written = np.flatnonzero(k.write_row >= 0)
    rows = k.write_row[written]
    early = written[k.f[written] < k.start[rows]]
    if len(early) == 0:
        return None, []
    groups = []
    for number in early[:8].tolist():
        write = int(k.write_row[number])
        readers = np.flatnonzero(k.is_read & (k.cluster == number))
        groups.append([write, int(readers[np.argmin(k.finish[readers])])])
    return "read-before-write", groups


def _zones(k: _Clusters, blocks: Int64s) -> _Found:
    """Contradictions between blocks that are single clusters."""
    kind, pairs = _pairs(k.f[blocks], k.s[blocks], k.key[blocks], k.span)
    groups = [
        _rows_of(k, [int(blocks[a])], None) + _rows_of(k, [int(blocks[b])], None) for a, b in pairs
    ]
    return kind, groups


def _pairs(
    f: Int64s, s: Int64s, key: Int64s, span: int
) -> tuple[Kind | None, list[tuple[int, int]]]:
    """Pairs of blocks that must each precede the other, earliest first; up to 24 of them."""
    base = key * span
    f_at, s_at = f + base, s + base
    forward = np.flatnonzero(f < s)
    forward = forward[np.argsort(f_at[forward])]
    f_sorted, s_sorted = f_at[forward], s_at[forward]
    if len(forward) == 0:
        return None, []
    # If any two overlap, two neighbours do: a zone that reaches beyond the next reaches into it.
    bad = np.flatnonzero(f_sorted[1:] < s_sorted[:-1])
    if len(bad):
        return "overlap", [(int(forward[i]), int(forward[i + 1])) for i in bad[:24]]
    backward = np.flatnonzero(s <= f)
    s_backward = s_at[backward]
    order = np.argsort(s_backward)
    backward = backward[order]
    before = np.searchsorted(f_sorted, s_backward[order], "left") - 1
    inside = np.flatnonzero((before >= 0) & (s_sorted[np.maximum(before, 0)] > f_at[backward]))
    if len(inside) == 0:
        return None, []
    return "inside", [(int(forward[before[i]]), int(backward[i])) for i in inside[:24]]


def _chains(k: _Clusters) -> _Found:
    """The same with CAS: order each chain, check it in itself, then compare whole blocks."""
    cas_rows = np.flatnonzero(k.parent >= 0)
    parents, children = k.parent[cas_rows], k.cluster[cas_rows]
    child = np.full(len(k.f), -1, np.int64)
    child[parents] = children
    twice = np.flatnonzero(child[parents] != children)
    if len(twice):
        groups = []
        for i in twice[:8].tolist():
            other = int(k.write_row[child[parents[i]]])
            groups.append([*_writer(k, int(parents[i])), int(cas_rows[i]), other])
        return "two-cas-of-one-value", groups

    has_parent = np.zeros(len(k.f), np.bool_)
    has_parent[children] = True
    heads = np.flatnonzero((child >= 0) & ~has_parent)
    follow = child.tolist()
    walked: list[int] = []
    firsts: list[int] = []
    for head in heads.tolist():
        firsts.append(len(walked))
        number = head
        while number >= 0:
            walked.append(number)
            number = follow[number]
    order, first = np.array(walked, np.int64), np.array(firsts, np.int64)
    on_chain = np.zeros(len(k.f), np.bool_)
    on_chain[order] = True
    astray = np.flatnonzero(has_parent & ~on_chain)
    if len(astray):
        cycle = [int(astray[0])]
        while (following := follow[cycle[-1]]) != cycle[0]:
            cycle.append(following)
        return "cas-cycle", [[int(k.write_row[number]) for number in cycle]]

    if len(order):
        chain = np.zeros(len(order), np.int64)
        chain[first[1:]] = 1
        chain = np.cumsum(chain)
        f_at, s_at = k.f[order] + chain * k.span, k.s[order] + chain * k.span
        after = np.minimum.accumulate(f_at[::-1])[::-1]
        late = np.flatnonzero(after[1:] < s_at[:-1])
        if len(late):
            groups = []
            for i in late[:8].tolist():
                j = i + 1 + int(np.argmax(f_at[i + 1 :] < s_at[i]))
                groups.append(_rows_of(k, [int(x) for x in order[i : j + 1]], (0, j - i)))
            return "chain-order", groups

    single = np.flatnonzero(k.exists & ~on_chain)
    f_chain = np.minimum.reduceat(k.f[order], first) if len(order) else np.zeros(0, np.int64)
    s_chain = np.maximum.reduceat(k.s[order], first) if len(order) else np.zeros(0, np.int64)
    kind, pairs = _pairs(
        np.concatenate((k.f[single], f_chain)),
        np.concatenate((k.s[single], s_chain)),
        np.concatenate((k.key[single], k.key[order[first]])),
        k.span,
    )
    ends = np.append(first, len(order))

    def members(block: int) -> list[int]:
        if block < len(single):
            return [int(single[block])]
        block -= len(single)
        return [int(x) for x in order[ends[block] : ends[block + 1]]]

    return kind, [_rows_of(k, members(a), None) + _rows_of(k, members(b), None) for a, b in pairs]


def _writer(k: _Clusters, number: int) -> list[int]:
    row = int(k.write_row[number])
    return [row] if row >= 0 else []


def _rows_of(k: _Clusters, members: list[int], bounds: tuple[int, int] | None) -> list[int]:
    """Rows that pin a block down: who finished first, who started last, and the writes that link
    them. ``bounds``: places in ``members`` of the latest start and the earliest finish, if not
    those of the whole block."""
    numbers = np.array(members)
    last_start, first_finish = bounds or (
        int(np.argmax(k.s[numbers])),
        int(np.argmin(k.f[numbers])),
    )
    low, high = sorted((last_start, first_finish))
    rows = [row for number in members[low : high + 1] for row in _writer(k, number)]
    for number, times, wanted in (
        (members[first_finish], k.finish, int(k.f[members[first_finish]])),
        (members[last_start], k.start, int(k.s[members[last_start]])),
    ):
        mine = np.flatnonzero((k.cluster == number) & (times == wanted))
        rows.extend(mine[:1].tolist())
    return rows


def _smallest(c: Columns, k: _Clusters, groups: list[list[int]], initial: int) -> list[int]:
    """The smallest of the given contradictions, each without the rows it can do without. One that
    shows where its values come from is worth one row more."""
    best: list[int] = []
    cost = 0
    for group in groups:
        rows = shrink(c, _with_evidence(c, k, group), initial)
        if not rows:
            continue
        saw = {int(k.cluster[row]) for row in rows if k.is_read[row]}
        wrote = {int(k.cluster[row]) for row in rows if k.is_write[row]}
        strange = sum(number not in wrote and k.write_row[number] >= 0 for number in saw)
        if not best or len(rows) + strange < cost:
            best, cost = rows, len(rows) + strange
        if cost <= 3:
            break
    assert best, "a contradiction that its own operations do not show"
    return best


def _with_evidence(c: Columns, k: _Clusters, group: list[int]) -> list[int]:
    """``group``, and for each CAS in it that ended ``info`` the operations that prove it
    applied."""
    rows = set(group)
    todo = [row for row in group if k.parent[row] >= 0 and c.outcome[row] == INFO]
    while todo:
        number = k.cluster[todo.pop()]
        readers = np.flatnonzero(k.is_read & (k.cluster == number))
        proof = readers[:1] if len(readers) else np.flatnonzero(k.parent == number)[:1]
        for row in proof.tolist():
            if row not in rows:
                rows.add(row)
                if k.parent[row] >= 0 and c.outcome[row] == INFO:
                    todo.append(row)
    return sorted(rows)


def shrink(c: Columns, rows: list[int], initial: int) -> list[int]:
    """``rows`` without those that the contradiction does not need, in order of invocation; none if
    the rows alone are no contradiction. Values of unknown origin do not count as one."""
    part, initial = _renumbered(c.take(np.array(rows, np.int64)), initial)

    def contradicts(some: list[int]) -> bool:
        fewer = part.take(np.array(some, np.int64))
        return (
            check_zones(fewer, initial=initial, writes_missing=True, candidates=0).kind is not None
        )

    kept = list(range(len(rows)))
    if not contradicts(kept):
        return []
    # The latest reads go first, and writes last: what remains then tells where a value came from.
    by_use = sorted(kept, key=lambda place: (part.op[place] != READ, -part.invoked[place]))
    for place in by_use:
        fewer = [other for other in kept if other != place]
        if fewer and contradicts(fewer):
            kept = fewer
    return sorted((rows[place] for place in kept), key=lambda row: (int(c.invoked[row]), row))


def _renumbered(part: Columns, initial: int) -> tuple[Columns, int]:
    """``part`` with only as many numbers of keys and values as it needs."""
    old = np.concatenate((part.value, part.expected, part.seen, [initial]))
    known, codes = np.unique(old, return_inverse=True)
    codes = np.where(old >= 0, codes - int((known < 0).sum()), old)
    n = len(part)
    part.value = codes[:n].astype(np.int32)
    part.expected = codes[n : 2 * n].astype(np.int32)
    part.seen = codes[2 * n : 3 * n].astype(np.int32)
    part.values = [part.values[code] for code in known.tolist() if code >= 0]
    key_codes, keys = np.unique(part.key, return_inverse=True)
    part.key = keys.astype(np.int32)
    part.keys = [part.keys[code] for code in key_codes.tolist()]
    part.records = None
    return part, int(codes[-1])
