"""The oracle of the checkers: tries every order. For tiny histories only."""

from __future__ import annotations

from collections.abc import Sequence

from bench.checkers.columns import value_key
from bench.history import OperationRecord
from nodes.effects import Value


def is_linearizable(records: Sequence[OperationRecord], initial: Value = None) -> bool:
    """Whether some order of the operations explains every answer and keeps the real-time order.

    All of one key. Exponential: meant for at most about ten operations. A refused CAS whose
    ``seen`` is None has not told what it saw. Comparisons of time are strict: a tie counts as
    concurrent.
    """
    ops = [r for r in records if r.outcome == "ok" or (r.outcome == "info" and r.op != "read")]
    finish = [
        float("inf") if r.outcome == "info" or r.completed_ns is None else r.completed_ns
        for r in ops
    ]
    seen_states: set[tuple[frozenset[int], object]] = set()

    def search(left: frozenset[int], state: Value) -> bool:
        if all(ops[i].outcome == "info" for i in left):
            return True
        if (left, value_key(state)) in seen_states:
            return False
        seen_states.add((left, value_key(state)))
        for i in sorted(left):
            if any(finish[j] < ops[i].invoked_ns for j in left):
                continue
            for after in _apply(ops[i], state):
                if search(left - {i}, after):
                    return True
        return False

    return search(frozenset(range(len(ops))), initial)


def _apply(record: OperationRecord, state: Value) -> list[Value]:
    """The states that may follow, none if the answer does not fit ``state``."""
    if record.op == "write":
        assert not isinstance(record.value, list)
        return [record.value] if record.outcome == "ok" else [record.value, state]
    if record.op == "delete":
        return [None] if record.outcome == "ok" else [None, state]
    if record.op == "read":
        value = record.value
        if isinstance(value, list):
            if len(value) > 1:
                return []
            value = value[0] if value else None
        return [state] if value_key(value) == value_key(state) else []
    assert not isinstance(record.value, list)
    matches = value_key(state) == value_key(record.expected)
    if record.outcome == "info":
        return [record.value, state] if matches else [state]
    if record.applied is not False:
        return [record.value] if matches else []
    if matches:
        return []
    told = record.seen is None or value_key(record.seen) == value_key(state)
    return [state] if told else []
