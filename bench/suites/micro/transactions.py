"""Big histories of transactions that are strictly serializable by construction."""

from __future__ import annotations

import numpy as np

from bench.record.columns import INFO, NEVER, OK, Bools, Int64s
from bench.record.transactions.columns import (
    APPEND,
    EMPTY,
    READ,
    READ_LIST,
    WRITE,
    Lists,
    Transactions,
)
from nodes.contract.replica import Value

LONGEST = 100
"""Appends to a key; then another takes its place, since the lists of all reads would not fit into
any memory."""


def list_append_history(
    count: int, *, operations: int = 4, clients: int = 20, keys: int = 100, seed: int = 1
) -> Transactions:
    """``count`` transactions of appends and reads, half and half, on ``keys`` keys at a time."""
    rng = np.random.default_rng(seed)
    slot = rng.integers(0, keys, count * operations)
    is_append = rng.random(count * operations) < 0.5
    order = np.argsort(slot, kind="stable")
    appended = np.cumsum(is_append[order])
    starts = np.searchsorted(slot[order], np.arange(keys))
    before_slot = np.where(starts > 0, appended[starts - 1], 0)
    done = np.empty(len(slot), np.int64)  # appends to the slot before the operation
    done[order] = appended - is_append[order] - before_slot[slot[order]]
    generation, length = done // LONGEST, done % LONGEST
    _, key = np.unique(generation * keys + slot, return_inverse=True)
    lists, value = _lists(key, length, is_append, order)
    t = _timed(rng, count, clients, np.any(is_append.reshape(count, operations), axis=1))
    t.first = np.arange(count + 1) * operations
    t.kind = np.where(is_append, APPEND, READ_LIST).astype(np.int8)
    t.key = key.astype(np.int32)
    t.value = np.where(is_append, length + 1, value).astype(np.int32)
    t.value[np.repeat(t.outcome == INFO, operations) & ~is_append] = -1
    t.kind[t.value == -1] = READ
    t.lists = lists
    t.keys = [f"k{number}" for number in range(int(key.max()) + 1)]
    t.values = [None, *range(1, LONGEST + 1)]
    return t


def _lists(key: Int64s, length: Int64s, is_append: Bools, order: Int64s) -> tuple[Lists, Int64s]:
    """All prefixes of the lists that were read, and of each read its list. A list is numbered by
    the place of its last append."""
    by_key = order[np.argsort(key[order], kind="stable")]
    longest = np.zeros(int(key.max()) + 1, np.int64)
    np.maximum.at(longest, key[~is_append], length[~is_append])
    appends = by_key[is_append[by_key]]
    appends = appends[length[appends] < longest[key[appends]]]
    number = np.arange(1, len(appends) + 1)
    first = np.zeros(len(longest), np.int64)
    at_first = length[appends] == 0
    first[key[appends[at_first]]] = number[at_first]
    parent = np.where(at_first, EMPTY, number - 1)
    lists = Lists(
        parent=np.append(EMPTY, parent).astype(np.int32),
        last=np.append(0, length[appends] + 1).astype(np.int32),
        key=np.append(-1, key[appends]).astype(np.int32),
    )
    return lists, np.where(length > 0, first[key] + length - 1, EMPTY)


def register_history(
    count: int, *, operations: int = 4, clients: int = 20, keys: int = 100, seed: int = 1
) -> Transactions:
    """``count`` transactions of writes and reads, half and half."""
    rng = np.random.default_rng(seed)
    key = rng.integers(0, keys, count * operations)
    is_write = rng.random(count * operations) < 0.5
    order = np.argsort(key, kind="stable")
    place = np.where(is_write[order], np.arange(len(key)), -1)
    last = np.maximum.accumulate(place)
    starts = np.searchsorted(key[order], np.arange(keys))[key[order]]
    held = np.zeros(len(key), np.int64)
    held[order] = np.where(last >= starts, last + 1, 0)
    t = _timed(rng, count, clients, np.any(is_write.reshape(count, operations), axis=1))
    t.first = np.arange(count + 1) * operations
    t.kind = np.where(is_write, WRITE, READ).astype(np.int8)
    t.key = key.astype(np.int32)
    t.value = held.astype(np.int32)
    t.value[np.repeat(t.outcome == INFO, operations) & ~is_write] = -1
    t.keys = [f"k{number}" for number in range(keys)]
    values: list[Value] = [None, *range(1, len(key) + 1)]
    t.values = values
    return t


def _timed(rng: np.random.Generator, count: int, clients: int, may_be_lost: Bools) -> Transactions:
    """Transactions that take effect one after the other, each within an interval that reaches far
    towards the neighbours of the same client; of 1% nobody knows the outcome."""
    instant = np.cumsum(rng.integers(1, 2000, count)) + 10_000 * clients
    before = np.concatenate((instant[:1].repeat(clients) - 5000, instant[:-clients]))[:count]
    after = np.concatenate((instant[clients:], instant[-1:].repeat(clients) + 5000))[:count]
    unknown = may_be_lost & (rng.random(count) < 0.01)
    invoked = instant - ((instant - before) * 0.49 * rng.random(count)).astype(np.int64)
    completed = instant + ((after - instant) * 0.49 * rng.random(count)).astype(np.int64)
    completed[unknown] = NEVER
    nothing = np.zeros(0, np.int32)
    return Transactions(
        process=(np.arange(count) % clients).astype(np.int32),
        outcome=np.where(unknown, INFO, OK).astype(np.int8),
        id=np.arange(1, count + 1),
        invoked=invoked,
        completed=completed,
        takes_time=completed > invoked,
        first=np.zeros(1, np.int64),
        kind=nothing.astype(np.int8),
        key=nothing,
        value=nothing,
        lists=Lists(nothing, nothing, nothing),
        processes=[f"c{number}" for number in range(clients)],
        keys=[],
        values=[None],
    )
