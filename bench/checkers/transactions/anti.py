"""Anti-dependencies of many reads on many writes: each read of a key before each of some writes."""

from __future__ import annotations

import numpy as np

from bench.checkers.transactions.graph import ONWARD, RW, Edges, edges
from bench.record.columns import Int32s, Int64s
from bench.record.transactions.columns import Transactions


def before_all(
    t: Transactions, owner: Int32s, reads: Int64s, writes: Int64s, first_helper: int
) -> list[Edges]:
    """Each transaction of ``reads`` before each other one of ``writes`` of the same key.

    That is two helpers a key, from ``first_helper`` on: one before those that only write, and one
    before those that read, too, which is for all others.

    ``writes``: one of each transaction and key.
    """
    keys = len(t.keys)
    reads = reads[np.isin(t.key[reads], t.key[writes])]
    read_pair = owner[reads] * np.int64(keys) + t.key[reads]
    read_pair, first = np.unique(read_pair, return_index=True)
    reads = reads[first]
    pair = owner[writes] * np.int64(keys) + t.key[writes]
    writes = writes[np.argsort(pair, kind="stable")]
    pair = np.sort(pair)
    place = np.minimum(np.searchsorted(pair, read_pair), max(0, len(pair) - 1))
    changes = pair[place] == read_pair if len(pair) else np.zeros(len(reads), np.bool_)
    its_write = writes[place[changes]] if len(pair) else writes
    both = np.zeros(len(t.kind), np.bool_)
    both[its_write] = True
    only = writes[~both[writes]]
    readers = reads[~changes]
    first, second = first_helper, first_helper + keys
    return [
        *_round(t, owner, reads[changes], its_write),
        edges(RW, owner[reads], first + t.key[reads], reads),
        edges(ONWARD, first + t.key[only], owner[only], None, only),
        edges(RW, owner[readers], second + t.key[readers], readers),
        edges(ONWARD, second + t.key[its_write], owner[its_write], None, its_write),
    ]


def _round(t: Transactions, owner: Int32s, reads: Int64s, writes: Int64s) -> list[Edges]:
    """Transactions that read a version of a key and changed it: each comes before all others, which
    a circle of them says."""
    order = np.argsort(t.key[reads], kind="stable")
    reads, writes = reads[order], writes[order]
    key = t.key[reads]
    if len(key) < 2:
        return []
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    following = np.arange(1, len(key) + 1)
    following[np.append(starts[1:], len(key)) - 1] = starts
    target = writes[following]
    return [edges(RW, owner[reads], owner[target], reads, target)]
