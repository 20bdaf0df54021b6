"""Is the history sequentially consistent, as far as one key shows?

Lamport ("How to Make a Multiprocessor Computer That Correctly Executes Multiprocess Programs", IEEE
TC C-28(9), 1979): one order of all operations explains every answer and keeps the program order of
each process. Real time does not matter.

- Operations that ended ``fail`` and reads that ended ``info`` are left out.
- A change that ended ``info`` may or may not have taken effect. If it did, it comes after what its
  process did before, and possibly after what its process did next.
- A CAS reads and writes at one point.

For one register with unique written values this is decidable in linear time (Cantin, Lipasti,
Smith, "The Complexity of Verifying Memory Coherence and Consistency", IEEE TPDS 16(7), 2005,
section 4.3): a write and its reads stand together (a *cluster*), and the clusters of a chain of CAS
follow each other (a *block*). So program order orders the blocks, and must not form a cycle.

Any single key can refute a history with several keys. If none does, that is not enough for *valid*.
Where the replicas returned versions that are numbers, these suggest an order of all writes, and
with that order given it is easy to place the reads, or to see that they have no place. An order
that explains every answer is the proof, whatever the versions mean; without one the answer is
*unknown*. It is also *unknown* if the values of a key are not unique.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.checkers.arrays import walk_chains
from bench.checkers.reads_from import (
    Impossible,
    ReadsFrom,
    evidence,
    impossible,
    program_order,
    reads_from,
)
from bench.record import witness as words
from bench.record.columns import CAS, INFO, NULL, OK, Columns, Int64s
from bench.record.verdict import SequentialCheck, VerdictValue, WeakerModel, WitnessLine
from nodes.contract.replica import Version

CUT_SHORT = "the history was cut short, operations are missing from it"
NOTHING_OK = "no operation was answered ok"
NO_READS = "there are no reads"


def check_sequential(
    c: Columns,
    initial: int = NULL,
    *,
    history_is_cut: bool = False,
    versions: Sequence[Version] = (),
) -> SequentialCheck:
    """The verdict on all keys. Final reads are left out: no process made them. ``history_is_cut``:
    operations may be missing, so the verdict is never *valid*. ``versions``: by row, as the
    replicas returned them."""
    began = time.perf_counter()
    seen = reads_from(c, initial, history_is_cut=history_is_cut)
    never = impossible(c, seen, initial, history_is_cut=history_is_cut)
    found = never or _contradiction(c, seen)
    witness: list[WitnessLine] = []
    verdict: VerdictValue = "unknown"
    if found is not None:
        verdict, summary, witness = refuted(c, seen, found)
    elif doubt := doubts(c, seen, history_is_cut=history_is_cut):
        summary = doubt
    elif len(c.keys) > 1 and _is_explained(c, seen, versions):
        verdict = "valid"
        summary = f"one order of all operations on {len(c.keys)} keys explains every answer"
    elif len(c.keys) > 1:
        summary = f"none of {len(c.keys)} keys refutes it; several keys together are not decided"
    else:
        verdict, summary = "valid", "the program order of all processes fits one order"
    return SequentialCheck(
        verdict=verdict,
        model="sequential",
        algorithm="coherence of each key",
        operations=len(c),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=witness,
        details=WeakerModel(keys_left_out=seen.keys_left_out, impossible=never is not None),
    )


def _is_explained(c: Columns, seen: ReadsFrom, versions: Sequence[Version]) -> bool:
    """Whether the writes in the order of their versions, and each read as early as its process and
    what it saw allow, are an order that explains every answer. No other place of a read leaves
    more room to what its process did next."""
    rank = _ranks(seen, versions)
    if rank is None:
        return False
    next_at, previous_at = _neighbours(c, rank)
    saw = {
        row: rank.get(write, 0)
        for row, write in zip(seen.rows.tolist(), seen.write.tolist(), strict=True)
    }
    known = np.zeros(len(c), np.bool_)
    known[seen.rows] = known[seen.writes] = True
    if (~known & (c.outcome == OK)).any():
        return False
    rows = np.flatnonzero(known & ~seen.is_final)
    reached: dict[int, int] = {}
    for row in rows[program_order(c, rows)].tolist():
        process = int(c.process[row])
        at = reached.get(process, 0)
        if (own := rank.get(row)) is not None:
            if own <= at or (row in saw and saw[row] != previous_at[own]):
                return False
            at = own
        else:
            at = max(at, saw[row])
            if next_at.get((int(c.key[row]), saw[row]), at + 1) <= at:
                return False
        if c.outcome[row] != INFO:
            reached[process] = at
    return True


def _ranks(seen: ReadsFrom, versions: Sequence[Version]) -> dict[int, int] | None:
    """The place of each write that took effect, from 1, in the order of versions; None if they do
    not tell."""
    if not versions:
        return None
    told = {row: versions[row] for row in seen.writes.tolist()}
    for row, write in zip(seen.rows.tolist(), seen.write.tolist(), strict=True):
        if write >= 0 and told.get(write) is None and row not in told:
            told[write] = versions[row]
    numbers = {row: version for row, version in told.items() if isinstance(version, int)}
    if len(numbers) < len(told) or len(set(numbers.values())) < len(numbers):
        return None
    ordered = sorted(numbers, key=numbers.__getitem__)
    return {row: place for place, row in enumerate(ordered, 1)}


def _neighbours(
    c: Columns, rank: Mapping[int, int]
) -> tuple[dict[tuple[int, int], int], dict[int, int]]:
    """By key and place of a write, 0 for the initial value: the place of the next write of the key;
    and by place of a write: that of the one before it."""
    latest: dict[int, int] = {}
    next_at: dict[tuple[int, int], int] = {}
    previous_at: dict[int, int] = {}
    for row, place in rank.items():
        key = int(c.key[row])
        previous_at[place] = latest.get(key, 0)
        next_at[key, previous_at[place]] = latest[key] = place
    return next_at, previous_at


def refuted(
    c: Columns, seen: ReadsFrom, found: Impossible
) -> tuple[VerdictValue, str, list[WitnessLine]]:
    """The verdict on a history with a contradiction, in words and with its witness."""
    witness = words.lines([c.record(row) for row in evidence(c, seen, found.rows)])
    return "invalid", f"{found.what}: {words.sentence(witness)}", witness


def doubts(c: Columns, seen: ReadsFrom, *, history_is_cut: bool) -> str | None:
    """Why a history without a contradiction is not *valid*; None if it is."""
    if not (c.outcome == OK).any():
        return NOTHING_OK if len(c) else "there are no operations"
    if history_is_cut:
        return CUT_SHORT
    if seen.keys_left_out:
        return f"{seen.keys_left_out} keys left out, their values are not unique"
    return None


@dataclass(slots=True)
class _Blocks:
    """Blocks of clusters. By cluster: its block (identified by the first cluster) and its index in
    it. ``chained``: the clusters of blocks that have several; these begin with ``heads`` at
    ``begin``."""

    of: Int64s
    place: Int64s
    chained: Int64s
    heads: Int64s
    begin: Int64s


class _Clusters:
    """Clusters by number: first the initial values, by key, then the writes, by row."""

    def __init__(self, c: Columns, seen: ReadsFrom) -> None:
        self.c = c
        self.n_keys = len(c.keys)
        size = len(c) + self.n_keys
        saw = np.where(seen.write >= 0, seen.write + self.n_keys, c.key[seen.rows])
        self.of = np.full(len(c), -1, np.int64)
        self.of[seen.rows] = saw
        self.of[seen.writes] = seen.writes + self.n_keys
        is_cas = c.op[seen.rows] == CAS
        is_cas &= self.of[seen.rows] == seen.rows + self.n_keys
        self.children, self.parents = seen.rows[is_cas] + self.n_keys, saw[is_cas]
        self.size = size

    def writer(self, cluster: int) -> list[int]:
        """The row of the cluster's write; none for an initial value."""
        return [cluster - self.n_keys] if cluster >= self.n_keys else []

    def blocks(self) -> _Blocks | Impossible:
        """Join clusters that CAS chain, or return why that is impossible."""
        child = np.full(self.size, -1, np.int64)
        child[self.parents] = self.children
        twice = np.flatnonzero(child[self.parents] != self.children)
        if len(twice):
            parent = int(self.parents[twice[0]])
            both = (parent, int(self.children[twice[0]]), int(child[parent]))
            rows = [row for cluster in both for row in self.writer(cluster)]
            return Impossible(rows, "two CAS changed the same value")
        has_parent = np.zeros(self.size, np.bool_)
        has_parent[self.children] = True
        block, place = np.arange(self.size), np.zeros(self.size, np.int64)
        heads = np.flatnonzero((child >= 0) & ~has_parent)
        order, first = walk_chains(child, heads)
        lengths = np.diff(np.append(first, len(order)))
        block[order] = np.repeat(heads, lengths)
        place[order] = np.arange(len(order)) - np.repeat(first, lengths)
        has_parent[order] = False
        astray = np.flatnonzero(has_parent)
        if len(astray):
            cycle = [int(astray[0])]
            while (following := int(child[cycle[-1]])) != cycle[0]:
                cycle.append(following)
            rows = [row for cluster in cycle for row in self.writer(cluster)]
            return Impossible(rows, "CAS operations depend on each other in a circle")
        return _Blocks(block, place, order, heads, first)

    def between(self, blocks: _Blocks, a: int, b: int) -> list[int]:
        """The writes of one block between clusters ``a`` and ``b``, in either order."""
        low, high = sorted((int(blocks.place[a]), int(blocks.place[b])))
        if low == high:
            return self.writer(a)
        begin = int(blocks.begin[np.searchsorted(blocks.heads, blocks.of[a])])
        chain = blocks.chained[begin + low : begin + high + 1].tolist()
        return [row for cluster in chain for row in self.writer(cluster)]


def _steps(c: Columns, rows: Int64s) -> tuple[Int64s, Int64s]:
    """The pairs of consecutive rows, per process and key. An operation that ended ``info`` follows
    others, but nothing follows it."""
    rows = rows[program_order(c, rows, by_key=True)]
    places = np.arange(len(rows))
    certain = np.where(c.outcome[rows] != INFO, places, -1)
    last = np.concatenate(([-1], np.maximum.accumulate(certain)[:-1])) if len(rows) else certain
    same = last >= 0
    same &= (c.process[rows] == c.process[rows[last]]) & (c.key[rows] == c.key[rows[last]])
    return rows[last[same]], rows[same]


def _contradiction(c: Columns, seen: ReadsFrom) -> Impossible | None:
    several = [row for row in c.siblings if c.outcome[row] == OK]
    if several:
        return Impossible(
            [min(several)], "a read returned several values at once, a register has one"
        )
    clusters = _Clusters(c, seen)
    blocks = clusters.blocks()
    if isinstance(blocks, Impossible):
        return blocks
    before, after = _steps(c, np.flatnonzero((clusters.of >= 0) & ~seen.is_final))
    source, target = clusters.of[before], clusters.of[after]

    own = np.flatnonzero((source == target) & (after == target - clusters.n_keys))
    if len(own):
        rows = [int(before[own[0]]), int(after[own[0]])]
        return Impossible(rows, "a process read a value before it wrote it")
    inside = blocks.of[source] == blocks.of[target]
    back = np.flatnonzero(inside & (blocks.place[source] > blocks.place[target]))
    if len(back):
        i = int(back[0])
        rows = clusters.between(blocks, int(source[i]), int(target[i]))
        return Impossible(
            sorted({*rows, int(before[i]), int(after[i])}),
            "a process saw a value after a CAS had changed it",
        )
    back = np.flatnonzero(~inside & (blocks.of[target] < clusters.n_keys))
    if len(back):
        i = int(back[0])
        rows = [*clusters.writer(int(source[i])), int(before[i]), int(after[i])]
        rows += clusters.between(blocks, int(blocks.of[target[i]]), int(target[i]))
        return Impossible(sorted(set(rows)), "a process saw the initial value after a written one")
    return _cycle(clusters, blocks, before[~inside], after[~inside])


def _cycle(
    clusters: _Clusters, blocks: _Blocks, before: Int64s, after: Int64s
) -> Impossible | None:
    """Remove blocks without predecessors until none is left, or a cycle."""
    source, target = clusters.of[before].tolist(), clusters.of[after].tolist()
    sources, targets = blocks.of[source].tolist(), blocks.of[target].tolist()
    edges: dict[int, list[int]] = {}
    incoming: dict[int, int] = {}
    for number, (begin, end) in enumerate(zip(sources, targets, strict=True)):
        edges.setdefault(begin, []).append(number)
        incoming[end] = incoming.get(end, 0) + 1
    todo = [block for block in edges if block not in incoming]
    while todo:
        for number in edges.pop(todo.pop(), ()):
            end = targets[number]
            incoming[end] -= 1
            if incoming[end] == 0:
                del incoming[end]
                todo.append(end)
    left = [end for end in incoming if end in edges]
    if not left:
        return None
    into = {
        targets[number]: number
        for begin in edges
        for number in edges[begin]
        if targets[number] in incoming
    }
    block = left[0]
    path: list[int] = []
    visited: dict[int, int] = {}
    while block not in visited:
        visited[block] = len(path)
        path.append(into[block])
        block = sources[into[block]]
    path = path[visited[block] :]
    rows = {row for number in path for row in (int(before[number]), int(after[number]))}
    for number, earlier in zip(path, path[1:] + path[:1], strict=True):
        rows.update(clusters.between(blocks, source[number], target[earlier]))
    return Impossible(sorted(rows), "processes saw writes in different orders")
