"""Is the history sequentially consistent, as far as one key shows?

For one register with unique written values this is decided in linear time (Cantin, Lipasti, Smith,
"The Complexity of Verifying Memory Coherence and Consistency", IEEE TPDS 16(7), 2005, section
4.3): the operations that belong to one write stand together, so the program order of each process
orders the writes, and there must be no cycle. Real time plays no part.

A history with several keys is refuted by any one key. That none does is not enough for *valid*:
then the answer is *unknown*. So it is where a key has CAS, or values that are not unique.
"""

from __future__ import annotations

import time

import numpy as np

from bench.checkers import witness as words
from bench.checkers.columns import CAS, INFO, NULL, OK, Columns
from bench.checkers.reads_from import ReadsFrom, lanes, reads_from
from bench.run_folder import Check, VerdictValue


def check_sequential(c: Columns, initial: int = NULL) -> Check:
    """The verdict on all keys. Final reads are left out: no process made them."""
    began = time.perf_counter()
    seen = reads_from(c, initial)
    rows, summary = _contradiction(c, initial, seen)
    for row in list(rows):  # a write of unknown outcome has been, because it was seen
        if c.outcome[row] == INFO:
            rows.append(int(seen.rows[seen.write == row][0]))
    rows = sorted(set(rows))
    witness = words.lines([c.record(row) for row in rows])
    has_cas = bool(((c.op == CAS) & (c.outcome == OK)).any())
    verdict: VerdictValue = "unknown"
    if rows:
        verdict, summary = "invalid", f"{summary}: {words.sentence(witness)}"
    elif len(c) == 0:
        summary = "there are no operations"
    elif seen.keys_left_out or has_cas:
        summary = "values that are not unique, or CAS, are not decided"
    elif len(c.keys) > 1:
        summary = f"none of {len(c.keys)} keys refutes it; several keys together are not decided"
    else:
        verdict, summary = "valid", "the program order of all processes fits one order"
    return Check(
        name="sequential",
        verdict=verdict,
        model="sequential",
        algorithm="coherence of each key",
        operations=len(c),
        seconds=time.perf_counter() - began,
        summary=summary,
        witness=witness,
        details={"keys_left_out": seen.keys_left_out},
    )


def _contradiction(c: Columns, initial: int, seen: ReadsFrom) -> tuple[list[int], str]:
    if len(seen.unknown):
        return [int(seen.unknown[0])], "a value was read that nobody wrote"
    if c.siblings:
        return [min(c.siblings)], "a read returned several values at once, a register has one"
    has_cas = np.zeros(len(c.keys), np.bool_)
    has_cas[c.key[c.op == CAS]] = True

    n_keys = len(c.keys)
    cluster = np.full(len(c), -1, np.int64)  # the initial value of a key is its number, then writes
    read = seen.write >= 0
    cluster[seen.rows[read]] = seen.write[read] + n_keys
    cluster[seen.rows[~read]] = c.key[seen.rows[~read]]
    was_seen = np.zeros(len(c), np.bool_)
    was_seen[seen.write[read]] = True
    sure = seen.writes[(c.outcome[seen.writes] != INFO) | was_seen[seen.writes]]
    cluster[sure] = sure + n_keys
    rows = np.flatnonzero((cluster >= 0) & ~seen.is_final & ~has_cas[c.key])
    lane = lanes(c, rows)
    order = np.lexsort((c.completed[rows], c.invoked[rows], c.key[rows], lane))
    rows, lane = rows[order], lane[order]

    same = (lane[1:] == lane[:-1]) & (c.key[rows][1:] == c.key[rows][:-1])
    before, after = rows[:-1][same], rows[1:][same]
    own = np.flatnonzero((cluster[before] == cluster[after]) & (after == cluster[after] - n_keys))
    if len(own):
        return [
            int(before[own[0]]),
            int(after[own[0]]),
        ], "a process read a value before it wrote it"
    back = np.flatnonzero((cluster[after] < n_keys) & (cluster[before] >= n_keys))
    if len(back):
        i = int(back[0])
        write = int(cluster[before[i]]) - n_keys
        return (
            sorted({write, int(before[i]), int(after[i])}),
            "a process saw the initial value after a written one",
        )
    moves = cluster[before] != cluster[after]
    return _cycle(
        cluster[before[moves]].tolist(),
        cluster[after[moves]].tolist(),
        before[moves].tolist(),
        after[moves].tolist(),
        n_keys,
    )


def _cycle(
    sources: list[int], targets: list[int], before: list[int], after: list[int], n_keys: int
) -> tuple[list[int], str]:
    """Take away what nothing precedes until nothing is left, or a cycle."""
    edges: dict[int, list[int]] = {}
    incoming: dict[int, int] = {}
    for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
        edges.setdefault(source, []).append(number)
        incoming[target] = incoming.get(target, 0) + 1
    todo = [cluster for cluster in edges if cluster not in incoming]
    while todo:
        for number in edges.pop(todo.pop(), ()):
            target = targets[number]
            incoming[target] -= 1
            if incoming[target] == 0:
                del incoming[target]
                todo.append(target)
    left = {target for target in incoming if target in edges}
    if not left:
        return [], ""
    into = {
        targets[number]: number
        for source in edges
        for number in edges[source]
        if targets[number] in incoming
    }
    cluster = next(iter(left))
    path: list[int] = []
    visited: dict[int, int] = {}
    while cluster not in visited:
        visited[cluster] = len(path)
        path.append(into[cluster])
        cluster = sources[into[cluster]]
    rows = {row for number in path[visited[cluster] :] for row in (before[number], after[number])}
    rows |= {
        sources[number] - n_keys for number in path[visited[cluster] :] if sources[number] >= n_keys
    }
    return sorted(rows), "processes saw writes in different orders"
