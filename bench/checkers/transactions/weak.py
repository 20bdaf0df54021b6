"""Read committed, read atomic and causal, for registers whose values are unique.

As Biswas and Enea define them ("On the Complexity of Checking Transactional Consistency", OOPSLA
2019): there is an order of the transactions that holds session order and write-read order, and in
which, whenever transaction r reads key x of w, each other writer of x that r *knows* is before w.
What r knows is, for read committed, what it read from before that read; for read atomic, whatever
it read from, or its session did before; for causal, all that is before r by session and write-read
order. So it is enough to infer these edges, and to look for a cycle. How few of them are enough is
from AWDIT (Moldrup and Pavlogiannis, arXiv 2504.06975, 2025): of each session the last writer of
the key, and of a transaction that was read from the side with fewer keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.checkers.transactions.registers import Registers
from bench.record.columns import INFO, Int32s, Int64s

_AT_ONCE: Final = 1 << 20
"""Lookups at a time, so that memory stays small."""


@dataclass(slots=True)
class Inferred:
    """``write`` is before ``source`` (-1: the initial value), since the transaction of ``read``,
    which read ``source``, knows the write. All are rows."""

    write: Int64s
    source: Int64s
    read: Int64s


@dataclass(slots=True)
class Known:
    """What each transaction read and wrote, for lookups by a number of transaction and key.
    ``firsts``: the first read of each transaction and key."""

    r: Registers
    final_pair: Int64s
    first_pair: Int64s
    first_place: Int64s
    before: Int32s
    """The transaction before each in its process that ended, -1 if there is none."""
    place: Int64s
    """The place of each in its process."""

    def write_of(self, pair: Int64s) -> Int64s:
        """The last write of some transactions to some keys, -1 if there is none."""
        return _lookup(self.final_pair, self.r.finals, pair)

    def first_read(self, pair: Int64s) -> Int64s:
        """The place among the reads of the first one, -1 if there is none."""
        return _lookup(self.first_pair, self.first_place, pair)


def known_of(r: Registers) -> Known:
    """Sorted, for lookups."""
    t = r.transactions
    read_pair = r.pair(r.reads)
    first = np.ones(len(r.reads), np.bool_)
    first[1:] = read_pair[1:] != read_pair[:-1]
    rows = np.flatnonzero(r.committed)
    rows = rows[np.lexsort((rows, t.takes_time[rows], t.invoked[rows], t.process[rows]))]
    places = np.arange(len(rows))
    ended = np.maximum.accumulate(np.where(t.outcome[rows] == INFO, -1, places))
    earlier = np.append(-1, ended[:-1])[: len(rows)]
    same = earlier >= 0
    same[same] &= t.process[rows[earlier[same]]] == t.process[rows[same]]
    before = np.full(len(t), -1, np.int32)
    before[rows[same]] = rows[earlier[same]]
    place = np.full(len(t), -1, np.int64)
    place[rows] = places
    return Known(r, r.pair(r.finals), read_pair[first], np.flatnonzero(first), before, place)


def _lookup(keys: Int64s, values: Int64s, wanted: Int64s) -> Int64s:
    if len(keys) == 0:
        return np.full(len(wanted), -1, np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], -1)


def read_committed(k: Known) -> Inferred:
    """A write of a transaction that was read from before a read of the same key."""
    r = k.r
    t, owner = r.transactions, r.owner
    # Reads of one key of different transactions, one after the other.
    pair = r.pair(r.reads)
    same = np.flatnonzero((pair[1:] == pair[:-1]) & (r.source[1:] != r.source[:-1]))
    earlier = r.source[same]
    some = earlier >= 0
    last = k.write_of(owner[earlier[some]] * np.int64(len(t.keys)) + t.key[earlier[some]])
    chained = Inferred(last, r.source[same + 1][some], r.reads[same + 1][some])
    # The first read of another key that the transaction read from wrote, after that.
    reader, writer, row = _read_from(r, first_rows=True)
    writes, of = _expand(k, writer)
    wanted = reader[of] * np.int64(len(t.keys)) + t.key[writes]
    group = np.searchsorted(pair, wanted)
    size = np.int64(len(t.kind) + 1)
    starts = np.searchsorted(pair, pair)
    later = np.searchsorted(starts * size + r.reads, group * size + row[of], side="right")
    there = later < len(pair)
    there[there] &= pair[later[there]] == wanted[there]
    place = later[there]
    found = Inferred(writes[there], r.source[place], r.reads[place])
    return _of_others(r, [chained, found])


def read_atomic(k: Known, sessions: bool = True) -> Inferred:
    """A write of a transaction that was read from, or of one before in the same process."""
    r = k.r
    t, owner = r.transactions, r.owner
    reader, writer, _ = _read_from(r, first_rows=False)
    writes, reads = _common(k, reader, writer)
    parts = [Inferred(writes, r.source[reads], r.reads[reads])]
    if sessions:
        first = k.first_place
        rows = r.reads[first]
        last = _last_writes(k, t.process[owner[rows]], t.key[rows], k.place[owner[rows]] - 1)
        some = last >= 0
        parts.append(Inferred(last[some], r.source[first[some]], rows[some]))
    return _of_others(r, parts)


def _read_from(r: Registers, *, first_rows: bool) -> tuple[Int64s, Int64s, Int64s]:
    """Pairs of transactions, each once: who read, from whom, and by which row first."""
    some = np.flatnonzero(r.source >= 0)
    rows = np.sort(r.reads[some]) if first_rows else r.reads[some]
    if first_rows:
        some = some[np.argsort(r.reads[some], kind="stable")]
    size = np.int64(len(r.transactions))
    code = r.owner[rows] * size + r.owner[r.source[some]]
    code, first = np.unique(code, return_index=True)
    return code // size, code % size, rows[first]


def _expand(k: Known, writer: Int64s) -> tuple[Int64s, Int64s]:
    """The last writes of each of some transactions, and to which place each belongs."""
    r = k.r
    return _ranges(r.finals, r.owner[r.finals], writer)


def _ranges(rows: Int64s, owners: Int32s, wanted: Int64s) -> tuple[Int64s, Int64s]:
    begin = np.searchsorted(owners, wanted)
    count = np.searchsorted(owners, wanted, side="right") - begin
    of = np.repeat(np.arange(len(wanted)), count)
    offset = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    return rows[begin[of] + offset], of


def _common(k: Known, reader: Int64s, writer: Int64s) -> tuple[Int64s, Int64s]:
    """Keys that the one wrote and the other read: the writes, and the places of the reads. Looked
    up from the side with fewer keys."""
    r, keys = k.r, np.int64(len(k.r.transactions.keys))
    key = k.r.transactions.key
    writers, readers = r.owner[r.finals], r.owner[r.reads[k.first_place]]
    many = _counts(writers, writer) > _counts(readers, reader)
    writes, of = _ranges(r.finals, writers, writer[~many])
    reads = k.first_read(reader[~many][of] * keys + key[writes])
    one = reads >= 0
    other_reads, of = _ranges(k.first_place, readers, reader[many])
    other_writes = k.write_of(writer[many][of] * keys + key[r.reads[other_reads]])
    two = other_writes >= 0
    return (
        np.concatenate((writes[one], other_writes[two])),
        np.concatenate((reads[one], other_reads[two])),
    )


def _counts(owners: Int32s, wanted: Int64s) -> Int64s:
    found: Int64s = np.searchsorted(owners, wanted, side="right") - np.searchsorted(owners, wanted)
    return found


def _last_writes(k: Known, process: Int32s, key: Int32s, upto: Int64s) -> Int64s:
    """The last write to a key by what a process had ended at a place, -1 if there is none."""
    r, t = k.r, k.r.transactions
    ended = r.finals[t.outcome[r.owner[r.finals]] != INFO]
    lane = t.process[r.owner[ended]] * np.int64(max(1, len(t.keys))) + t.key[ended]
    place = k.place[r.owner[ended]]
    order = np.lexsort((place, lane))
    size = np.int64(len(t) + 1)
    code = lane[order] * size + place[order]
    asked = process * np.int64(max(1, len(t.keys))) + key
    found = np.searchsorted(code, asked * size + upto, side="right") - 1
    there = found >= 0
    there[there] &= lane[order][found[there]] == asked[there]
    return np.where(there, ended[order][np.maximum(found, 0)] if len(ended) else -1, -1)


def _of_others(r: Registers, parts: list[Inferred]) -> Inferred:
    """Without writes of the transaction that was read, or of the reader itself."""
    write = np.concatenate([part.write for part in parts])
    source = np.concatenate([part.source for part in parts])
    read = np.concatenate([part.read for part in parts])
    owner = np.append(r.owner, -1)
    some = (write >= 0) & (owner[write] != owner[source]) & (owner[write] != owner[read])
    return Inferred(write[some], source[some], read[some])


class TooManySessions(Exception):
    """The clocks need more memory than allowed."""


def causal(k: Known, order: list[int], memory_bytes: int) -> Inferred:
    """The last write of each lane that is before the reader. ``order``: the transactions, each
    after what it read from and its session did before. Raises TooManySessions."""
    r, t = k.r, k.r.transactions
    clocks = _Clocks(k, memory_bytes)
    clocks.run(order)
    clock, lane, place = clocks.clock, clocks.lane, clocks.place
    first = k.first_place
    rows = r.reads[first]
    reader = r.owner[rows]
    parts = []
    lookup = _LaneWrites(r, lane, place)
    chunk = max(1, _AT_ONCE // clock.shape[1])
    for begin in range(0, len(first), chunk):
        some = slice(begin, begin + chunk)
        upto = clock[reader[some]]
        which, of_lane = np.nonzero(upto >= 0)
        known = upto[which, of_lane].astype(np.int64)
        write = lookup.last(of_lane, t.key[rows[some][which]], known)
        source = r.source[first[some][which]]
        there = np.flatnonzero(write >= 0)
        write, source, which = write[there], source[there], which[there]
        one, two = r.owner[write], r.owner[np.maximum(source, 0)]
        is_before = (source >= 0) & (clock[two, lane[one]] >= place[one])  # anyway
        parts.append(Inferred(write[~is_before], source[~is_before], rows[some][which[~is_before]]))
    nothing = np.zeros(0, np.int64)
    return _of_others(r, parts or [Inferred(nothing, nothing, nothing)])


class _Clocks:
    """Lanes: chains of transactions, each causally after the one before it. A process is a lane,
    and goes on in that of another that is at an end, if it knows all of that: else each process
    that ends, and each write of unknown outcome, would be one more for ever.

    ``clock``: of each transaction and lane the place of the last one that is before it, -1 if there
    is none; ``lane`` and ``place``: where each is itself.
    """

    def __init__(self, k: Known, memory_bytes: int) -> None:
        count = len(k.r.transactions)
        self.k = k
        self.most_lanes = memory_bytes // (4 * max(1, count))
        self.clock = np.full((count, 0), -1, np.int32)
        self.lane = np.full(count, -1, np.int32)
        self.place = np.full(count, -1, np.int64)
        self.ends = np.zeros(0, np.int32)
        """The place of the last one of each lane."""
        self._widen(min(32, self.most_lanes))
        self.lanes = 0

    def _widen(self, lanes: int) -> None:
        if lanes <= self.clock.shape[1] or lanes > self.most_lanes:
            raise TooManySessions(
                f"clocks of more than {self.clock.shape[1]} sessions need more than the memory "
                "allowed"
            )
        more = ((0, 0), (0, lanes - self.clock.shape[1]))
        self.clock = np.pad(self.clock, more, constant_values=-1)
        self.ends = np.pad(self.ends, more[1], constant_values=-1)

    def run(self, order: list[int]) -> None:
        """Go through the transactions."""
        reader, writer, _ = _read_from(self.k.r, first_rows=False)
        first = np.searchsorted(reader, np.arange(len(self.lane) + 1)).tolist()
        writers, before = writer.tolist(), self.k.before.tolist()
        committed = self.k.r.committed.tolist()
        lane_of, place = [-1] * len(before), [-1] * len(before)
        last: list[int] = []
        """The last transaction of each lane."""
        maximum = np.maximum
        for txn in order:
            if not committed[txn]:
                continue
            own = self.clock[txn]
            earlier = before[txn]
            sources = writers[first[txn] : first[txn + 1]]
            for each in (earlier, *sources) if earlier >= 0 else sources:
                maximum(own, self.clock[each], out=own)
                own[lane_of[each]] = max(own[lane_of[each]], place[each])
            if earlier >= 0 and last[lane_of[earlier]] == earlier:
                lane = lane_of[earlier]
            else:
                lane = self._lane(own)
                if lane == len(last):
                    last.append(-1)
            self.ends[lane] += 1
            lane_of[txn], place[txn], last[lane] = lane, int(self.ends[lane]), txn
        self.lane = np.array(lane_of, np.int32)
        self.place = np.array(place, np.int64)

    def _lane(self, own: Int32s) -> int:
        """One of which all is known, or a new one."""
        known = np.flatnonzero(own[: self.lanes] == self.ends[: self.lanes])
        if len(known):
            return int(known[np.argmin(self.ends[known])])
        if self.lanes == self.clock.shape[1]:
            self._widen(min(2 * self.lanes, self.most_lanes))
        self.lanes += 1
        return self.lanes - 1


class _LaneWrites:
    """The last writes of each lane and key."""

    def __init__(self, r: Registers, lane: Int32s, place: Int64s) -> None:
        t = r.transactions
        self.keys = np.int64(max(1, len(t.keys)))
        self.size = np.int64(len(t) + 1)
        both = lane[r.owner[r.finals]] * self.keys + t.key[r.finals]
        of_write = place[r.owner[r.finals]]
        order = np.lexsort((of_write, both))
        self.both = both[order]
        self.code = self.both * self.size + of_write[order]
        self.writes = r.finals[order]

    def last(self, lane: Int64s, key: Int32s, upto: Int64s) -> Int64s:
        """The last write to each key of each lane, at a place or before it; -1 if none."""
        wanted = lane * self.keys + key
        found = np.searchsorted(self.code, wanted * self.size + upto, side="right") - 1
        if len(self.code) == 0:
            return np.full(len(lane), -1, np.int64)
        there = (found >= 0) & (self.both[found] == wanted)
        return np.where(there, self.writes[found], -1)
