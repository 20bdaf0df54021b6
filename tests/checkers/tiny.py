"""Tiny random histories of processes, with everything that the format has."""

from __future__ import annotations

import random

from bench.record.history import ABSENT, OperationRecord
from nodes.contract.replica import Outcome, Value

MOST = 6


def tiny_processes(rng: random.Random) -> tuple[list[OperationRecord], Value]:
    """Up to six operations of up to three processes on one key or two, and what keys hold at first.

    Times are small, so that many touch, also within a process; or far apart. Values mostly are
    unique; what was seen is mostly some value of the key, now and then one that nobody wrote.
    """
    keys = rng.choice((["x"], ["x"], ["x", "y"]))
    initial: Value = rng.choice((None, None, None, 7))
    unique = rng.random() < 0.8
    gaps = rng.choice(((1, 3), (1, 3), (0, 1)))
    fates: tuple[int, int, int] = rng.choice(((8, 1, 0), (6, 3, 1), (3, 4, 1)))
    kinds = rng.choice(("rw", "rrw", "rwc", "rwcd", "rcc"))
    plan: list[tuple[int, int, str, str, str, Outcome, bool]] = []
    for name in "abc"[: rng.randint(1, 3)]:
        now, process, born = rng.randint(0, 3), name, 0
        for _ in range(rng.randint(1, 3)):
            finish = now + rng.randint(0, 4)
            outcome: Outcome = rng.choices(("ok", "info", "fail"), fates)[0]
            is_endless = outcome == "info" and rng.random() < 0.5
            plan.append(
                (now, finish, process, rng.choice(kinds), rng.choice(keys), outcome, is_endless)
            )
            if is_endless:
                born += 1
                process = f"{name}{born}"
            now = finish + rng.randint(*gaps)
    rng.shuffle(plan)
    plan = sorted(plan[:MOST], key=lambda each: each[0])
    values: dict[str, list[Value]] = {key: [initial] for key in keys}
    for number, (_, _, _, kind, key, _, _) in enumerate(plan):
        if kind in "wc":
            values[key].append(number + 1 if unique else rng.choice((1, 2, True, 7)))
        elif kind == "d":
            values[key].append(None)
    fresh = {key: iter(list(values[key][1:])) for key in keys}
    strange = rng.choice((0.0, 0.0, 0.05))

    def some(key: str) -> Value:
        return 99 if rng.random() < strange else rng.choice(values[key])

    records = []
    for number, (begin, finish, process, kind, key, outcome, is_endless) in enumerate(plan):
        record = OperationRecord(
            process=process,
            id=number,
            op={"r": "read", "w": "write", "c": "cas", "d": "delete"}[kind],  # type: ignore[arg-type]
            key=key,
            outcome=outcome,
            invoked_ns=begin,
            completed_ns=None if is_endless else finish,
            node=rng.choice(("n1", "n1", "n2")),
        )
        written = ABSENT if kind == "r" else next(fresh[key])
        if kind == "r":
            record.value = some(key)
        elif kind != "d":
            record.value = written
        if kind == "c":
            record.expected = some(key)
            if outcome == "ok" and rng.random() < 0.4:
                record.applied = False
                record.seen = ABSENT if rng.random() < 0.2 else some(key)
            elif outcome == "ok" and rng.random() < 0.5:
                record.applied = True
        records.append(record)
    rng.shuffle(records)
    _stretch(records, rng)
    return records, initial


def _stretch(records: list[OperationRecord], rng: random.Random) -> None:
    """Change times, but not their order: now and then so coarse that many are one instant, or with
    a gap in them that 64 bits hold, but not twice."""
    coarse = rng.choice((1, 1, 1, 2, 3))
    gap = rng.choice((0, 0, 0, 0, 0, 0, 1 << 61, 1 << 62))
    begins = rng.randint(1, 12)

    def moved(time: int) -> int:
        time //= coarse
        return time + gap if time >= begins else time - (gap >> 1)

    for record in records:
        record.invoked_ns = moved(record.invoked_ns)
        if record.completed_ns is not None:
            record.completed_ns = moved(record.completed_ns)
