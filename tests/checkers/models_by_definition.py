"""The oracle of the models: each object by what it does, one operation after the other, and every
order of the operations tried. For tiny histories only."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import combinations
from typing import Any, TypeAlias

from bench.record.models.verdict import Operation

Ops: TypeAlias = Sequence[Operation]
Step: TypeAlias = Callable[[Any, Operation], Iterable[Hashable]]
"""From a state and an operation to the states that may follow, none if it cannot answer so."""


def end(op: Operation) -> float:
    if op.outcome == "info" or op.completed_ns is None:
        return float("inf")
    return op.completed_ns


def has_an_order(ops: Ops, step: Step, initial: Hashable) -> bool:
    """Herlihy and Wing: some order of all operations, those of unknown outcome as far as they took
    effect, explains every answer and keeps real time, and the order of each process."""
    ops = [op for op in ops if op.outcome != "fail"]
    before = {
        (i, j)
        for i, a in enumerate(ops)
        for j, b in enumerate(ops)
        if i != j and (end(a) < b.invoked_ns or _sent_before(a, i, b, j))
    }
    known: set[Any] = set()

    def search(left: frozenset[int], state: Hashable) -> bool:
        if all(ops[i].outcome == "info" for i in left):
            return True
        if (left, state) in known:
            return False
        known.add((left, state))
        for i in sorted(left):
            if ops[i].outcome == "info" and search(left - {i}, state):
                return True
            if any((j, i) in before for j in left):
                continue
            if any(search(left - {i}, after) for after in step(state, ops[i])):
                return True
        return False

    return search(frozenset(range(len(ops))), initial)


def _sent_before(a: Operation, i: int, b: Operation, j: int) -> bool:
    if a.process != b.process or a.outcome == "info":
        return False
    never = float("inf")
    ends = [never if op.completed_ns is None else op.completed_ns for op in (a, b)]
    return (a.invoked_ns, ends[0], i) < (b.invoked_ns, ends[1], j)


# --- sets ---


def set_step(state: frozenset[Any], op: Operation) -> Iterable[Hashable]:
    if op.op == "add":
        return [state | {op.value}]
    if op.value is None or op.outcome == "info":
        return [state]
    return [state] if sorted(op.value) == sorted(state) else []


def is_set_full(ops: Ops) -> bool:
    return has_an_order(ops, set_step, frozenset())


def is_set(ops: Ops) -> bool:
    """Nothing unexpected, twice, or lost, by the words of docs/CONSISTENCY.md."""
    reads = [op for op in ops if op.op == "read" and op.outcome == "ok" and op.value is not None]
    adds = [op for op in ops if op.op == "add" and op.outcome != "fail"]
    for read in reads:
        if len(set(read.value)) < len(read.value):
            return False
        for element in read.value:
            if not any(a.value == element and a.invoked_ns <= end(read) for a in adds):
                return False
    for element in {op.value for op in adds}:
        known = min(
            [end(a) for a in adds if a.value == element]
            + [end(r) for r in reads if element in r.value]
        )
        late = [r for r in reads if element not in r.value and r.invoked_ns > known]
        having = [r for r in reads if element in r.value]
        if any(all(h.invoked_ns < r.invoked_ns for h in having) for r in late):
            return False
    return True


# --- counters ---


def is_counter(ops: Ops) -> bool:
    """Each read is what was certainly added before it and any part of what may have been; where
    nobody subtracts, reads do not go back."""
    adds = [op for op in ops if op.op == "add" and op.outcome != "fail"]
    reads = [op for op in ops if op.op == "read" and op.outcome == "ok" and op.value is not None]
    for read in reads:
        certain = [a for a in adds if end(a) < read.invoked_ns]
        perhaps = [a for a in adds if a not in certain and a.invoked_ns <= end(read)]
        sums = {
            sum(a.value for a in (*certain, *some))
            for n in range(len(perhaps) + 1)
            for some in combinations(perhaps, n)
        }
        if read.value not in sums:
            return False
    if any(add.value < 0 for add in adds):
        return True
    return not any(
        end(a) < b.invoked_ns and b.value < a.value for a in reads for b in reads if a is not b
    )


# --- queues ---


def expanded(ops: Ops) -> list[Operation]:
    """A drain is as many dequeues, and one that finds the queue empty."""
    found = []
    for op in ops:
        if op.op != "drain" or op.outcome != "ok":
            found.append(op)
            continue
        for place, value in enumerate([*op.value, None]):
            found.append(
                Operation(
                    process=f"{op.process}/{op.id}/{place}",
                    id=op.id,
                    op="dequeue",
                    value=value,
                    outcome="ok",
                    invoked_ns=op.invoked_ns,
                    completed_ns=op.completed_ns,
                )
            )
    return found


def bag_step(state: frozenset[Any], op: Operation) -> Iterable[Hashable]:
    if op.op == "enqueue":
        return [state | {op.value}]
    if op.outcome == "info":
        return [state, *(state - {each} for each in state)]
    if op.value is None:
        return [] if state else [state]
    return [state - {op.value}] if op.value in state else []


def is_total_queue(ops: Ops) -> bool:
    return has_an_order(expanded(ops), bag_step, frozenset())


def producers_step(state: tuple[tuple[str, Any], ...], op: Operation) -> Iterable[Hashable]:
    """The elements in order, each with its producer; the first of each producer can be taken."""
    if op.op == "enqueue":
        return [(*state, (op.process, op.value))]
    firsts = [
        place
        for place, (producer, _) in enumerate(state)
        if all(other != producer for other, _ in state[:place])
    ]
    if op.outcome == "info":
        return [state, *(state[:place] + state[place + 1 :] for place in firsts)]
    if op.value is None:
        return [] if state else [state]
    return [state[:place] + state[place + 1 :] for place in firsts if state[place][1] == op.value]


def is_queue(ops: Ops) -> bool:
    return has_an_order(expanded(ops), producers_step, ())


# --- locks ---


def lock_step(state: str, op: Operation) -> Iterable[Hashable]:
    if op.op == "acquire":
        return [op.process] if state == "" else []
    return [""] if state == op.process else []


def is_lock(ops: Ops) -> bool:
    return has_an_order(ops, lock_step, "")


def mutex_step(state: bool, op: Operation) -> Iterable[Hashable]:
    return [not state] if state == (op.op == "release") else []


def is_mutex(ops: Ops) -> bool:
    return has_an_order(ops, mutex_step, False)


def is_fenced_lock(ops: Ops) -> bool:
    acquired = [op for op in ops if op.op == "acquire" and op.outcome == "ok"]
    return not any(
        a.value == b.value
        or (end(a) < b.invoked_ns and a.value > b.value)
        or (end(b) < a.invoked_ns and b.value > a.value)
        for a, b in combinations(acquired, 2)
    )


# --- the others ---


def is_bank(ops: Ops) -> bool:
    reads = [op.value for op in ops if op.op == "read" and op.outcome == "ok"]
    accounts = {account for read in reads for account in read}
    return all(
        set(read) == accounts
        and None not in read.values()
        and min(read.values(), default=0) >= 0
        and sum(read.values()) == sum(reads[0].values())
        for read in reads
    )


def is_unique_ids(ops: Ops) -> bool:
    ids = [op.value for op in ops if op.outcome == "ok"]
    return len(set(ids)) == len(ids)


def text_step(state: str, op: Operation) -> Iterable[Hashable]:
    if op.op == "append":
        return [state + op.value]
    if op.op == "write":
        return [op.value]
    if op.outcome == "info":
        return [state]
    return [state] if op.value == state else []


def is_append_kv(ops: Ops) -> bool:
    return has_an_order(ops, text_step, "")
