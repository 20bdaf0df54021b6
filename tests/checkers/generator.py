"""Small random histories for the checkers' tests, some linearizable, some not."""

from __future__ import annotations

import random

from bench.record.history import ABSENT, OperationRecord
from nodes.contract.replica import Outcome, Value


def tiny_history(
    rng: random.Random,
    *,
    most: int = 6,
    cas: bool = True,
    unique: bool = True,
    initial: Value = None,
    keys: int = 1,
) -> list[OperationRecord]:
    """Up to ``most`` operations per key on a register.

    Each takes effect at a random instant of its interval, and then, sometimes, an answer or an
    interval is spoiled. ``unique``: no value is written twice, nothing is deleted and each refused
    CAS tells what it saw. Processes are as many as operations: whether intervals of one process
    overlap is no matter of linearizability.
    """
    records: list[OperationRecord] = []
    for number in range(keys):
        records.extend(_one_key(rng, f"k{number}", len(records), most, cas, unique, initial))
    rng.shuffle(records)
    return records


def _one_key(
    rng: random.Random,
    key: str,
    first_id: int,
    most: int,
    cas: bool,
    unique: bool,
    initial: Value,
) -> list[OperationRecord]:
    count = rng.randint(1, most)
    length = rng.choice((4, 8, 16))
    plan = []
    for _ in range(count):
        instants = sorted(rng.randint(0, length) for _ in range(3))
        plan.append((instants[1] + rng.random() * 0.5, instants[0], instants[2]))
    plan.sort()
    state: Value = initial
    spoil = rng.choice((0.0, 0.1, 0.4))
    written: list[Value] = [initial]
    records = []
    for place, (_, start, end) in enumerate(plan):
        identity = first_id + place
        kinds = ["read", "read", "write"] + ["cas"] * (2 * cas) + ["delete"] * (not unique)
        kind = rng.choice(kinds)
        outcome: Outcome = rng.choices(("ok", "info", "fail"), (8, 2, 1))[0]
        fresh = 100 + identity if unique else rng.choice((1, 2, 3))
        takes_effect = outcome == "ok" or (outcome == "info" and rng.random() < 0.5)
        value: Value = None
        expected: Value = None
        seen: Value = ABSENT
        applied: bool | None = None
        if kind == "read":
            value = state
            if rng.random() < spoil:
                value = rng.choice(
                    [*written, *written, 100 + rng.randrange(first_id, first_id + count)]
                )
        elif kind == "write":
            value = fresh
            if takes_effect:
                state = fresh
        elif kind == "delete":
            if takes_effect:
                state = None
        else:
            value = fresh
            expected = state if rng.random() < 0.7 else rng.choice(written)
            if spoil > 0.3 and rng.random() < 0.3:
                expected = 100 + rng.randrange(first_id, first_id + count)
            applied = expected == state or (spoil > 0.3 and rng.random() < 0.3)
            if rng.random() < spoil / 4:
                applied = not applied
            if not applied:
                seen = state if unique or rng.random() < 0.7 else ABSENT
                if rng.random() < spoil / 4:
                    seen = rng.choice(written)
            elif takes_effect:
                state = fresh
        if kind in ("write", "cas"):
            written.append(fresh)
        shift = rng.randint(-length // 2, length // 2) if rng.random() < spoil else 0
        records.append(
            OperationRecord(
                process=f"c{identity}",
                id=identity,
                op=kind,  # type: ignore[arg-type]
                key=key,
                outcome=outcome,
                invoked_ns=1000 + start + shift,
                completed_ns=None if outcome == "info" else 1000 + end + shift,
                value=value,
                expected=expected,
                applied=applied if outcome == "ok" else None,
                seen=seen if outcome == "ok" else ABSENT,
            )
        )
    return records
