"""Clusters of a history: each write with its reads, numbered, and their times.

`bench.checkers.zones` compares them. A value identifies its write, so values must be unique per
key.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.record.columns import (
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

_SPAN_LIMIT = 1 << 62


@dataclass(slots=True)
class Writes:
    """The writes that may have taken effect: ``rows``, and the code of the ``value`` of each.
    ``by_value``: by code, the index in ``rows`` of a write of that value, -1 if there is none.
    ``distinct``: no two write the same value, so ``by_value`` is exact."""

    rows: Int64s
    value: Int64s
    by_value: Int64s
    distinct: bool

    @classmethod
    def of(cls, c: Columns, rows: Int64s) -> Writes:
        value = c.value[rows].astype(np.int64)
        places = np.arange(len(rows))
        by_value = np.full(len(c.values), -1)
        by_value[value] = places  # of two writes of one value, one is lost
        return cls(rows, value, by_value, bool((by_value[value] == places).all()))


@dataclass(slots=True)
class Clusters:
    """Clusters by number: first those of the writes, then the initial value of each key, then
    values of unknown origin. ``f`` and ``s`` are relative times: 0 is before everything, ``span -
    1`` after everything."""

    span: int
    writes: Int64s  # row of the write, of each cluster that has one
    reads: Int64s  # rows
    of_reads: Int64s  # the cluster of each of them
    cas: Int64s  # clusters of the CAS that count
    parents: Int64s  # the cluster whose value each of them expected
    written: int  # how many clusters have a write: the first number of an initial value
    known: int  # the first number of a value of unknown origin
    key: Int64s
    started: Int64s  # of each write
    f: Int64s
    s: Int64s
    read_started: Int64s
    read_finished: Int64s
    write_finished: Int64s

    def writer(self, number: int) -> list[int]:
        """The row of the cluster's write, if it has one."""
        return [int(self.writes[number])] if number < self.written else []

    def readers(self, number: int) -> Int64s:
        """The rows of the cluster's reads."""
        mine: Int64s = self.reads[self.of_reads == number]
        return mine

    def first_to_finish(self, number: int) -> list[int]:
        """The row whose finish is the cluster's."""
        if number < self.written and self.write_finished[number] == self.f[number]:
            return self.writer(number)
        mine = (self.of_reads == number) & (self.read_finished == self.f[number])
        return self.reads[mine][:1].tolist()  # type: ignore[no-any-return]

    def last_to_start(self, number: int) -> list[int]:
        """The row whose start is the cluster's."""
        if number < self.written and self.started[number] == self.s[number]:
            return self.writer(number)
        mine = (self.of_reads == number) & (self.read_started == self.s[number])
        return self.reads[mine][:1].tolist()  # type: ignore[no-any-return]


def unique_keys(c: Columns, initial: int = NULL) -> Bools:
    """For each key, whether zones can decide it: no value is written twice and nothing is
    hidden."""
    return keys_of_unique_values(c, Writes.of(c, write_rows(c)), initial)


def write_rows(c: Columns) -> Int64s:
    rows: Int64s = np.flatnonzero((c.op != READ) & (c.outcome != FAIL) & c.applied)
    return rows


def keys_of_unique_values(c: Columns, writes: Writes, initial: int) -> Bools:
    eligible = np.ones(len(c.keys), np.bool_)
    if initial >= 0 and writes.by_value[initial] >= 0:
        eligible[c.key[writes.rows[writes.value == initial]]] = False
    if not writes.distinct:  # on one key, or on different keys?
        pairs = c.key[writes.rows].astype(np.int64) * len(c.values) + writes.value
        pairs.sort()
        eligible[pairs[1:][pairs[1:] == pairs[:-1]] // len(c.values)] = False
    hidden = ~c.applied & (c.seen < 0)
    eligible[c.key[hidden]] = False
    return eligible


def build(c: Columns, writes: Writes, eligible: Bools, initial: int) -> Clusters:
    n_keys, written = len(c.keys), len(writes.rows)
    known = written + n_keys
    refused = np.flatnonzero(~c.applied)
    is_read = (c.outcome == OK) & (c.op == READ) & (c.value >= 0)
    is_read[refused] = True
    if not eligible.all():
        is_read &= eligible[c.key]
    reads = np.flatnonzero(is_read)
    observed = c.value[reads]
    if len(refused):
        observed = np.where(c.applied[reads], observed, c.seen[reads])
    cas = np.flatnonzero(c.op[writes.rows] == CAS)

    # Which write wrote what was seen and expected? It must be on the same key.
    rows = np.concatenate((reads, writes.rows[cas])) if len(cas) else reads
    value: Int64s = np.concatenate((observed, c.expected[writes.rows[cas]])).astype(np.int64)
    key, write_key = c.key[rows], c.key[writes.rows]
    cluster = writes.by_value[value]
    at_first = np.flatnonzero(value == initial)
    astray = write_key[cluster] != key if written else np.ones(len(rows), np.bool_)
    astray |= cluster < 0
    cluster[at_first] = written + key[at_first]
    astray[at_first] = False
    n_clusters = known
    if astray.any():
        cluster, n_clusters = _by_key_and_value(c, writes, key, value, initial)
    of_reads, parents = cluster[: len(reads)], cluster[len(reads) :]
    if len(cas):
        cas, parents = _counted(c, writes, of_reads, cas, parents, n_clusters)

    span, (started, finished, read_started, read_finished) = _relative(
        c, writes.rows, reads, most=max(n_keys, len(cas)) + 1
    )
    unknown = n_clusters - known
    f = np.concatenate((finished, np.zeros(n_keys, np.int64), np.full(unknown, span - 1)))
    s = np.concatenate((started, np.zeros(n_keys + unknown, np.int64)))
    np.minimum.at(f, of_reads, read_finished)
    np.maximum.at(s, of_reads, read_started)
    keys: Int64s = np.concatenate((write_key, np.arange(n_keys), np.zeros(unknown, np.int64)))
    if unknown:
        keys[cluster] = key
    return Clusters(
        span=span,
        writes=writes.rows,
        reads=reads,
        of_reads=of_reads,
        cas=cas,
        parents=parents,
        written=written,
        known=known,
        key=keys,
        started=started,
        f=f,
        s=s,
        read_started=read_started,
        read_finished=read_finished,
        write_finished=finished,
    )


def _by_key_and_value(
    c: Columns, writes: Writes, key: Int32s, value: Int64s, initial: int
) -> tuple[Int64s, int]:
    """The clusters of (key, value) pairs, and how many there are. A value may belong to several
    keys or to no write."""
    written, known = len(writes.rows), len(writes.rows) + len(c.keys)
    pairs = key * np.int64(len(c.values)) + value
    of_writes = c.key[writes.rows].astype(np.int64) * len(c.values) + writes.value
    order = np.argsort(of_writes)
    of_writes = np.append(of_writes[order], -1)
    place = np.searchsorted(of_writes[:-1], pairs)
    cluster = np.append(order, -1)[place]
    cluster[of_writes[place] != pairs] = -1
    cluster[value == initial] = written + key[value == initial]
    strange = np.flatnonzero(cluster < 0)
    distinct, number = np.unique(pairs[strange], return_inverse=True)
    cluster[strange] = known + number
    return cluster, known + len(distinct)


def _relative(c: Columns, writes: Int64s, reads: Int64s, most: int) -> tuple[int, list[Int64s]]:
    """The span, then start and finish of the writes and of the reads, relative to the first. 0 is
    before everything, ``span - 1`` after everything: open operations end there. If ``most`` spans
    would overflow, ranks replace times."""
    times = [c.invoked[writes], c.completed[writes], c.invoked[reads], c.completed[reads]]
    origin = int(c.invoked.min()) - 1
    never = [np.flatnonzero(some == NEVER) for some in times]
    for some, endless in zip(times, never, strict=True):
        some[endless] = origin
        some -= origin
    span = max(int(some.max(initial=0)) for some in times) + 3
    if span * most >= _SPAN_LIMIT:
        distinct, ranks = np.unique(np.concatenate(times), return_inverse=True)
        span = len(distinct) + 3
        times = np.split(ranks + 1, np.cumsum([len(some) for some in times])[:-1])
    for some, endless in zip(times, never, strict=True):
        some[endless] = span - 1
    return span, times


def _counted(
    c: Columns, writes: Writes, of_reads: Int64s, cas: Int64s, parents: Int64s, n_clusters: int
) -> tuple[Int64s, Int64s]:
    """``cas`` and ``parents`` without each CAS that ended ``info`` and whose value nobody saw: it
    may not have been applied, and as a write without an end it cannot conflict."""
    is_unsure = c.outcome[writes.rows[cas]] == INFO
    unsure = np.flatnonzero(is_unsure)
    if len(unsure) == 0:
        return cas, parents
    seen = np.zeros(n_clusters, np.bool_)
    seen[of_reads] = True
    seen[parents[~is_unsure]] = True
    before = dict(zip(cas[unsure].tolist(), parents[unsure].tolist(), strict=True))
    todo = cas[unsure][seen[cas[unsure]]].tolist()
    counted = set(todo)
    while todo:
        parent = before[todo.pop()]
        if parent in before and parent not in counted:
            counted.add(parent)
            todo.append(parent)
    dropped = np.array([number not in counted for number in before], np.bool_)
    remains = np.ones(len(cas), np.bool_)
    remains[unsure[dropped]] = False
    return cas[remains], parents[remains]
