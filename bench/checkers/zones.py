"""Linearizability of registers with unique written values: exact, O(n log n), all keys at once.

Theory of operation
-------------------
Every read identifies the write it saw, so no search is needed (Gibbons and Korach, "Testing Shared
Memories", SIAM J. Comput. 26(4), 1997, section 4). A *cluster* is a write with its reads; the
initial value of each key is a virtual write before everything. In a cluster, f is the earliest
finish and s the latest start. A linearization keeps the operations of a cluster together, so
cluster A must precede B iff f_A < s_B, and the history is linearizable iff no two clusters must
precede each other:

    forward zone (f < s)     two of them must not overlap
    backward zone (s <= f)   must not lie strictly inside a forward zone

A CAS u -> v places cluster v directly after cluster u; such a *chain* is one block with one zone,
once its own order is known to have no contradiction. An operation that ended ``info`` never
finished: unread it cannot conflict, read it is bounded by its readers. A CAS that ended ``info``
counts only if an operation that counts saw its value.

All comparisons are strict: a tie counts as concurrent. Times are offset by key, so that one sort
and one running maximum serve all keys.

Keys with values that are not unique (a value written twice, the initial value written or deleted
back, a refused CAS that hides what it saw) are left out, and listed in the `Finding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from bench.checkers.arrays import count_below, walk_chains
from bench.checkers.clusters import Clusters, Writes, build, keys_of_unique_values, write_rows
from bench.record.columns import FAIL, INFO, NULL, READ, Columns, Int32s, Int64s

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
contradictions in time: within a chain of CAS, between two forward zones, and of a backward zone
inside a forward zone."""


@dataclass(slots=True)
class Finding:
    """The result. ``kind``: of the first contradiction found, None if there is none. ``witness``:
    its rows. ``left_out``: the codes of the keys not checked. ``unexplained``: rows that saw a
    value of unknown origin, if that was allowed."""

    kind: Kind | None
    witness: list[int]
    left_out: list[int]
    unexplained: list[int]


def check_zones(
    c: Columns, *, initial: int = NULL, writes_missing: bool = False, candidates: int = 24
) -> Finding:
    """Whether every key that `unique_keys` admits is linearizable.

    ``initial``: the code of the initial value. ``writes_missing``: operations may be missing from
    the history, so a value of unknown origin is no contradiction. ``candidates``: how many
    contradictions are examined for a small witness.
    """
    if len(c) == 0:
        return Finding(None, [], [], [])
    writes = Writes.of(c, write_rows(c))
    eligible = keys_of_unique_values(c, writes, initial)
    left_out = np.flatnonzero(~eligible).tolist()
    if left_out:
        writes = Writes.of(c, writes.rows[eligible[c.key[writes.rows]]])

    matched = np.flatnonzero(~c.applied & (c.seen == c.expected))
    matched = matched[eligible[c.key[matched]]]
    if len(matched):
        return Finding("refused-match", [int(matched[0])], left_out, [])

    k = build(c, writes, eligible, initial)
    unexplained = _unwritten(c, k)
    if unexplained and not writes_missing:
        row = unexplained[0]
        told = c.expected[row] if row in writes.rows else c.value[row]
        told = told if c.applied[row] else c.seen[row]
        failed = (c.op != READ) & (c.outcome == FAIL) & (c.key == c.key[row]) & (c.value == told)
        witness = [*np.flatnonzero(failed)[:1].tolist(), *_with_evidence(c, k, [row])]
        return Finding("never-written", witness, left_out, unexplained)

    kind, groups = _early_reads(k)
    if kind is None and len(k.cas):
        kind, groups = _chains(k)
    elif kind is None:
        kind, groups = _zones(k)
    witness = _smallest(c, k, groups[:candidates], initial) if kind and candidates else []
    return Finding(kind, witness, left_out, unexplained)


def _unwritten(c: Columns, k: Clusters) -> list[int]:
    """The rows that saw a value that no operation can have written, earliest answer first."""
    if len(k.f) == k.known:
        return []
    reads, cas = k.of_reads >= k.known, k.parents >= k.known
    rows = np.concatenate((k.reads[reads], k.writes[k.cas[cas]]))
    finish = np.concatenate((k.read_finished[reads], k.write_finished[k.cas[cas]]))
    return rows[np.lexsort((rows, finish))].tolist()  # type: ignore[no-any-return]


_Found: TypeAlias = tuple[Kind | None, list[list[int]]]


def _early_reads(k: Clusters) -> _Found:
    """A read that finished before its write began."""
    early = np.flatnonzero(k.f[: k.written] < k.started)
    if len(early) == 0:
        return None, []
    groups = [[*k.writer(number), *k.first_to_finish(number)] for number in early[:8].tolist()]
    return "read-before-write", groups


def _zones(k: Clusters) -> _Found:
    """Contradictions between blocks that are single clusters."""
    kind, pairs = _pairs(k.f, k.s, k.key, k.span)
    return kind, [_rows_of(k, [a], None) + _rows_of(k, [b], None) for a, b in pairs]


def _pairs(
    f: Int64s, s: Int64s, key: Int64s | Int32s, span: int
) -> tuple[Kind | None, list[tuple[int, int]]]:
    """Pairs of blocks that must each precede the other, earliest first; up to 24 of them."""
    base = key * np.int64(span)
    f_at, s_at = f + base, s + base
    forward = np.flatnonzero(f < s)
    f_sorted, s_sorted = np.sort(f_at[forward]), np.sort(s_at[forward])
    # Disjoint zones end in the order in which they begin. So both arrays can be sorted separately:
    # the i-th end is before the next beginning for all i iff no zones overlap.
    if (f_sorted[1:] < s_sorted[:-1]).any():
        forward = forward[np.argsort(f_at[forward])]
        # If any two overlap, two neighbours do: a zone that reaches past the next overlaps it.
        bad = np.flatnonzero(f_at[forward[1:]] < s_at[forward[:-1]])
        return "overlap", [(int(forward[i]), int(forward[i + 1])) for i in bad[:24]]
    backward = np.flatnonzero(s <= f)
    # How many forward zones began before: the last of them has its end at the same index.
    before = count_below(f_sorted, s_at[backward])
    ends = np.concatenate(([-1], s_sorted))
    inside = np.flatnonzero(ends[before] > f_at[backward])
    if len(inside) == 0:
        return None, []
    inside = inside[np.argsort(s_at[backward[inside]])][:24]
    forward = forward[np.argsort(f_at[forward])]
    return "inside", [(int(forward[before[i] - 1]), int(backward[i])) for i in inside.tolist()]


def _chains(k: Clusters) -> _Found:
    """The same with CAS: order each chain, check it by itself, then compare whole blocks."""
    parents, children = k.parents, k.cas
    child = np.full(len(k.f), -1, np.int64)
    child[parents] = children
    twice = np.flatnonzero(child[parents] != children)
    if len(twice):
        groups = []
        for i in twice[:8].tolist():
            pair = (int(children[i]), int(child[parents[i]]))
            groups.append([row for number in (int(parents[i]), *pair) for row in k.writer(number)])
        return "two-cas-of-one-value", groups

    has_parent = np.zeros(len(k.f), np.bool_)
    has_parent[children] = True
    heads = np.flatnonzero((child >= 0) & ~has_parent)
    order, first = walk_chains(child, heads)
    on_chain = np.zeros(len(k.f), np.bool_)
    on_chain[order] = True
    astray = np.flatnonzero(has_parent & ~on_chain)
    if len(astray):
        cycle = [int(astray[0])]
        while (following := int(child[cycle[-1]])) != cycle[0]:
            cycle.append(following)
        return "cas-cycle", [[row for number in cycle for row in k.writer(number)]]

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

    single = np.flatnonzero(~on_chain)
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


def _rows_of(k: Clusters, members: list[int], bounds: tuple[int, int] | None) -> list[int]:
    """The rows that determine the zone of a block: the first to finish, the last to start, and the
    writes that link them. ``bounds``: the indices in ``members`` of the latest start and the
    earliest finish, if not those of the whole block."""
    numbers = np.array(members)
    last_start, first_finish = bounds or (
        int(np.argmax(k.s[numbers])),
        int(np.argmin(k.f[numbers])),
    )
    low, high = sorted((last_start, first_finish))
    rows = [row for number in members[low : high + 1] for row in k.writer(number)]
    return [
        *rows,
        *k.first_to_finish(members[first_finish]),
        *k.last_to_start(members[last_start]),
    ]


def _smallest(c: Columns, k: Clusters, groups: list[list[int]], initial: int) -> list[int]:
    """The smallest of the given contradictions, each without the rows that it does not need.
    Showing where its values come from is worth one row more."""
    best: list[int] = []
    cost = 0
    for group in groups:
        rows = shrink(c, _with_evidence(c, k, group), initial)
        if not rows:
            continue
        saw = k.of_reads[np.isin(k.reads, rows)]
        wrote = np.flatnonzero(np.isin(k.writes, rows))
        strange = len(np.setdiff1d(saw[saw < k.written], wrote))
        if not best or len(rows) + strange < cost:
            best, cost = rows, len(rows) + strange
        if cost <= 3:
            break
    assert best, "the operations of the contradiction do not show it"
    return best


def _with_evidence(c: Columns, k: Clusters, group: list[int]) -> list[int]:
    """``group``, and for each CAS in it that ended ``info`` the operations that prove it was
    applied."""
    rows = set(group)
    mine = k.cas[np.isin(k.writes[k.cas], group)]
    todo = mine[c.outcome[k.writes[mine]] == INFO].tolist()
    while todo:
        number = todo.pop()
        proof = k.readers(number)[:1].tolist()
        if not proof:
            follower = int(k.cas[np.flatnonzero(k.parents == number)[0]])
            proof = k.writer(follower)
            if proof[0] not in rows and c.outcome[proof[0]] == INFO:
                todo.append(follower)
        rows.update(proof)
    return sorted(rows)


def shrink(c: Columns, rows: list[int], initial: int) -> list[int]:
    """``rows`` without those that the contradiction does not need, in order of invocation; empty if
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
    # Drop the latest reads first and writes last: the rest shows where a value came from.
    by_use = sorted(kept, key=lambda place: (part.op[place] != READ, -part.invoked[place]))
    for place in by_use:
        fewer = [other for other in kept if other != place]
        if fewer and contradicts(fewer):
            kept = fewer
    return sorted((rows[place] for place in kept), key=lambda row: (int(c.invoked[row]), row))


def _renumbered(part: Columns, initial: int) -> tuple[Columns, int]:
    """``part`` with its keys and values renumbered densely."""
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
