"""Large histories, linearizable by construction, for benchmarks and tests of the checkers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.record.columns import (
    CAS,
    INFO,
    KINDS,
    NEVER,
    NOT_TOLD,
    OK,
    OUTCOMES,
    READ,
    WRITE,
    Columns,
)

REFUSED = 0.1
"""The share of CAS operations that expect a wrong value."""


def linearizable_history(
    count: int, *, clients: int, keys: int, seed: int, cas: float = 0.0
) -> Columns:
    """``count`` operations, half of them reads, 1% of the updates with unknown outcome. ``cas``:
    the share of CAS among the updates.

    Each operation takes effect at a distinct instant, in the middle of an interval that reaches far
    towards the client's previous and next operations.
    """
    rng = np.random.default_rng(seed)
    instant = np.cumsum(rng.integers(1, 2000, count)) + 10_000 * clients
    before = np.concatenate((instant[:1].repeat(clients) - 5000, instant[:-clients]))
    after = np.concatenate((instant[clients:], instant[-1:].repeat(clients) + 5000))
    key = rng.integers(0, keys, count)
    is_update = rng.random(count) < 0.5
    unknown = is_update & (rng.random(count) < 0.01)
    is_cas = is_update & (rng.random(count) < cas)
    refused = is_cas & ~unknown & (rng.random(count) < REFUSED)

    # By key, in order of the instants: an update writes its index.
    order = np.argsort(key, kind="stable")
    place = np.where((is_update & ~refused)[order], np.arange(count), -1)
    last = np.concatenate(([-1], np.maximum.accumulate(place)[:-1]))
    first = np.searchsorted(key[order], np.arange(keys))[key[order]]
    held = np.zeros(count, np.int64)
    held[order] = np.where(last >= first, last + 1, 0)
    own = np.zeros(count, np.int64)
    own[order] = np.arange(count) + 1
    nobodys = count + 1

    client = np.arange(count) % clients
    done = instant + ((after - instant) * 0.49 * rng.random(count)).astype(np.int64)
    node = rng.integers(0, 5, count).astype(np.int32)
    invoked = instant - ((instant - before) * 0.49 * rng.random(count)).astype(np.int64)
    completed = np.where(unknown, NEVER, done)
    return Columns(
        process=client.astype(np.int32),
        id=np.arange(count),
        op=np.where(is_cas, CAS, np.where(is_update, WRITE, READ)).astype(np.int8),
        outcome=np.where(unknown, INFO, 0).astype(np.int8),
        key=key.astype(np.int32),
        value=np.where(is_update, own, held).astype(np.int32),
        expected=np.where(refused, nobodys, np.where(is_cas, held, 0)).astype(np.int32),
        seen=np.where(refused, held, NOT_TOLD).astype(np.int32),
        applied=~refused,
        node=node,
        invoked=invoked,
        completed=completed,
        takes_time=completed > invoked,
        processes=[f"c{i}" for i in range(clients)],
        keys=[f"k{i}" for i in range(keys)],
        nodes=[f"n{i}" for i in range(5)],
        values=[None, *range(1, count + 2)],
    )


def write_jsonl(c: Columns, path: Path) -> None:
    """Write ``c`` as a history file (docs/HISTORY_FORMAT.md). A client gives up an operation with
    unknown outcome at once and goes on."""
    columns = (c.process, c.id, c.op, c.key, c.outcome, c.invoked, c.completed, c.value, c.node)
    cas = (c.expected, c.applied, c.seen)
    with path.open("w") as file:
        for start in range(0, len(c), 100_000):
            part = slice(start, start + 100_000)
            rows = zip(*(column[part].tolist() for column in (*columns, *cas)), strict=True)
            for process, number, op, key, outcome, invoked, completed, value, node, *more in rows:
                end = invoked + 1 if completed == NEVER else completed
                file.write(
                    f'{{"process":"c{process}","id":{number},"op":"{KINDS[op]}","key":"k{key}",'
                    f'"outcome":"{OUTCOMES[outcome]}","invoked_ns":{invoked},"completed_ns":{end},'
                    f'"value":{value or "null"}{_of_cas(op, outcome, more)},"node":"n{node}"}}\n'
                )


def _of_cas(op: int, outcome: int, more: list[int]) -> str:
    if op != CAS:
        return ""
    expected, applied, seen = more
    if outcome != OK:
        return f',"expected":{expected or "null"}'
    observed = f',"seen":{seen or "null"}' if seen != NOT_TOLD else ""
    return f',"expected":{expected or "null"},"applied":{str(bool(applied)).lower()}{observed}'
