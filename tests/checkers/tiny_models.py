"""Tiny random histories of each model: a real object runs, and now and then an answer is wrong."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench.record.models.jsonl import read_lines
from bench.record.models.operations import Operations
from bench.record.models.source import Source
from bench.record.models.verdict import Operation
from tests.checkers import models_by_definition as by_definition

MOST = 6


def operations_of(ops: list[Operation]) -> Operations:
    """As read from a file."""
    lines = []
    for op in ops:
        line = msgspec.to_builtins(op)
        lines.append(msgspec.json.encode({"value": None, **line}) + b"\n")
    return read_lines(Source(Path("h.jsonl"), "h.jsonl", b"".join(lines), io.BytesIO(b"")))


def plan(rng: random.Random, kinds: str | list[str]) -> list[Operation]:
    """Operations of up to three processes, without values."""
    found: list[Operation] = []
    fates = rng.choice(((1, 0, 0), (8, 1, 1), (4, 3, 1)))
    for name in "abc"[: rng.randint(1, 3)]:
        now, process, born = rng.randint(0, 3), name, 0
        for _ in range(rng.randint(1, 4)):
            finish = now + rng.randint(0, 4)
            outcome = rng.choices(("ok", "info", "fail"), fates)[0]
            endless = outcome == "info" and rng.random() < 0.5
            found.append(
                Operation(
                    process=process,
                    id=len(found),
                    op=rng.choice(kinds),
                    outcome=outcome,  # type: ignore[arg-type]
                    invoked_ns=now,
                    completed_ns=None if endless else finish,
                )
            )
            if endless:
                born += 1
                process = f"{name}{born}"
            now = finish + rng.randint(0, 2)
    rng.shuffle(found)
    found = sorted(found[:MOST], key=lambda op: op.invoked_ns)
    for number, op in enumerate(found):
        op.id = number
    return found


def run(
    rng: random.Random,
    ops: list[Operation],
    do: Callable[[Any, Operation], tuple[Any, Any]],
    state: Any,
    wrong: Callable[[Operation, Any], Any],
) -> list[Operation]:
    """Let each operation take effect somewhere between its invocation and its end. ``do``: from a
    state and an operation to the state after it, and its answer. ``wrong``: another answer."""
    how_often = rng.choice((0.0, 0.1, 0.3))
    points = {}
    for op in ops:
        last = op.invoked_ns + 12 if op.completed_ns is None else op.completed_ns
        if op.outcome == "info":
            last += rng.randint(0, 6)
        points[op.id] = (rng.uniform(op.invoked_ns, last), op.id)
    for op in sorted(ops, key=lambda op: points[op.id]):
        if op.outcome == "fail" or (op.outcome == "info" and rng.random() < 0.5):
            continue
        state, answer = do(state, op)
        if op.outcome == "ok" and answer is not NOTHING:
            op.value = wrong(op, answer) if rng.random() < how_often else answer
    return ops


NOTHING = object()
"""The answer of what is only told that it was done."""


def tiny_set(rng: random.Random) -> list[Operation]:
    ops = plan(rng, ["add", "add", "read"])
    some = rng.choice(([1, 2, 3, 4, 5, 6], [1, 2]))
    for number, op in enumerate(ops):
        op.value = (some[number % len(some)]) if op.op == "add" else None
    elements = [op.value for op in ops if op.op == "add"] or [1]

    def do(state: frozenset[int], op: Operation) -> tuple[Any, Any]:
        return (state | {op.value}, NOTHING) if op.op == "add" else (state, sorted(state))

    def wrong(op: Operation, answer: list[int]) -> Any:
        one = rng.choice([*elements, 9])
        return rng.choice(
            (
                [e for e in answer if e != one],
                [*answer, one],
                sorted({*answer, one}),
                [e for e in answer if rng.random() < 0.5],
            )
        )

    return run(rng, ops, do, frozenset(), wrong)


def tiny_counter(rng: random.Random) -> list[Operation]:
    ops = plan(rng, ["add", "add", "read"])
    amounts = rng.choice(([1], [1, 2, 5], [1, -1], [3, -2]))
    for op in ops:
        op.value = rng.choice(amounts) if op.op == "add" else None

    def do(state: int, op: Operation) -> tuple[Any, Any]:
        return (state + op.value, NOTHING) if op.op == "add" else (state, state)

    return run(rng, ops, do, 0, lambda _, answer: answer + rng.choice((-2, -1, 1, 2)))


def tiny_queue(rng: random.Random) -> list[Operation]:
    ops = plan(rng, ["enqueue", "enqueue", "dequeue", "dequeue", "drain"])
    for op in ops:
        op.value = op.id + 1 if op.op == "enqueue" else None
        if op.op == "drain" and op.outcome == "info":
            op.op = "dequeue"
    elements = [op.value for op in ops if op.op == "enqueue"] or [1]

    def do(state: tuple[int, ...], op: Operation) -> tuple[Any, Any]:
        if op.op == "enqueue":
            return (*state, op.value), NOTHING
        if op.op == "drain":
            return (), list(state)
        return (state[1:], state[0]) if state else (state, None)

    def wrong(op: Operation, answer: Any) -> Any:
        if op.op == "drain":
            return [e for e in [*answer, rng.choice(elements)] if rng.random() < 0.7]
        return rng.choice([*elements, None, 9])

    return run(rng, ops, do, (), wrong)


def tiny_lock(rng: random.Random) -> list[Operation]:
    """Each process acquires and releases; whether it is granted, chance says half of the time."""
    ops = plan(rng, ["acquire", "release"])
    turn: dict[str, int] = {}
    orderly = rng.random() < 0.7
    for op in ops:
        if orderly and op.op:
            turn[op.process] = turn.get(op.process, 0) + 1
            op.op = "acquire" if turn[op.process] % 2 else "release"
    state, tokens = "", 0
    for op in sorted(ops, key=lambda op: (by_definition.end(op), op.id)):
        allowed = state == ("" if op.op == "acquire" else op.process)
        if not allowed and rng.random() < 0.7 and op.completed_ns is not None:
            op.outcome = "fail"
        if op.outcome == "ok":
            state = op.process if op.op == "acquire" else ""
        if op.op == "acquire":
            tokens += 1
            op.value = tokens if rng.random() < 0.7 else rng.randint(1, 4)
    return ops


def tiny_bank(rng: random.Random) -> list[Operation]:
    ops = plan(rng, ["transfer", "read", "read"])
    for op in ops:
        op.value = (
            {"from": "a", "to": "b", "amount": rng.randint(1, 6)} if op.op != "read" else None
        )

    def do(state: dict[str, int], op: Operation) -> tuple[Any, Any]:
        if op.op == "read":
            return state, dict(state)
        amount = op.value["amount"]
        if state["a"] < amount:
            return {"a": state["a"] + state["b"], "b": 0}, NOTHING
        return {"a": state["a"] - amount, "b": state["b"] + amount}, NOTHING

    def wrong(op: Operation, answer: dict[str, Any]) -> Any:
        return rng.choice(
            ({"a": 5}, {"a": None, "b": 5}, {**answer, "b": 99}, {"a": -1, "b": 11}, {**answer})
        )

    return run(rng, ops, do, {"a": 5, "b": 5}, wrong)


def tiny_ids(rng: random.Random) -> list[Operation]:
    ops = plan(rng, ["generate"])
    for op in ops:
        op.value = rng.randint(1, 20)
    return ops


def tiny_texts(rng: random.Random) -> list[Operation]:
    ops = plan(rng, rng.choice((["append", "append", "read"], ["append", "write", "read", "read"])))
    texts = rng.choice(("ABCDEF", "ABCDEF", "AABBCC"))
    for op in ops:
        op.value = texts[op.id] if op.op != "read" else None
        if op.op == "write":
            op.value = op.value.lower()

    def do(state: str, op: Operation) -> tuple[Any, Any]:
        if op.op == "append":
            return state + op.value, NOTHING
        return (op.value, NOTHING) if op.op == "write" else (state, state)

    def wrong(op: Operation, answer: str) -> Any:
        letters = [*answer, *rng.sample(texts, 1)]
        rng.shuffle(letters)
        return rng.choice((answer[:-1], answer[1:], "".join(letters), answer + texts[0]))

    return run(rng, ops, do, "", wrong)


MODELS: dict[str, tuple[Callable[[random.Random], list[Operation]], Callable[[Any], bool]]] = {
    "set": (tiny_set, by_definition.is_set),
    "set-full": (tiny_set, by_definition.is_set_full),
    "counter": (tiny_counter, by_definition.is_counter),
    "queue": (tiny_queue, by_definition.is_queue),
    "total-queue": (tiny_queue, by_definition.is_total_queue),
    "lock": (tiny_lock, by_definition.is_lock),
    "mutex": (tiny_lock, by_definition.is_mutex),
    "fenced-lock": (tiny_lock, by_definition.is_fenced_lock),
    "bank": (tiny_bank, by_definition.is_bank),
    "unique-ids": (tiny_ids, by_definition.is_unique_ids),
    "append-kv": (tiny_texts, by_definition.is_append_kv),
}
"""Each model: how its histories are made, and what it is."""


RARE: dict[str, list[list[str]]] = {
    "set": [
        ["a add 1 0 1", "b add 2 0 1", "c read [1] 0 9", "d read [2] 0 9"],
        ["a add 1 0 1", "b add 2 2 3", "c read [2] 0 9"],
        ["a add 1 0 9", "b add 2 0 9", "c read [2] 0 9"],
        ["a add 1 0 ?", "b read [1] 1 2", "b read [] 3 4", "b read [1] 5 6"],
    ],
    "counter": [
        ["a add 1 0 ?", "b read 1 1 2", "b read 0 4 5"],
        ["a add 1 0 ?", "b read 1 1 2", "c read 0 2 3"],
        ["a add 1 0 ?", "d add -1 0 ?", "b read 1 1 2", "c read 0 3 4"],
    ],
    "queue": [
        ["a enqueue 1 0 1", "b dequeue null 2 3", "b dequeue 1 4 5"],
        [
            *("a enqueue 1 0 0", "b enqueue 2 0 2", "c dequeue 2 5 6", "c dequeue 1 10 11"),
            "d dequeue null 7 8",
        ],
        [
            *("a enqueue 1 0 2", "b dequeue null 4 10", "c dequeue null 6 ?", "d enqueue 2 0 5"),
            "e dequeue 2 11 12",
        ],
        ["a enqueue 1 0 2", "b enqueue 2 1 2", "c dequeue 1 3 4", "d dequeue null 2 3"],
    ],
}
RARE["set-full"], RARE["total-queue"] = RARE["set"], RARE["queue"]


def rare(model: str) -> list[list[Operation]]:
    """Histories that chance seldom makes. Of each operation: process, what, value, from, until."""
    found = []
    for lines in RARE.get(model, []):
        ops = []
        for number, line in enumerate(lines):
            process, op, value, begin, end = line.split()
            ops.append(
                Operation(
                    process=process,
                    id=number,
                    op=op,
                    value=msgspec.json.decode(value),
                    outcome="info" if end == "?" else "ok",
                    invoked_ns=int(begin),
                    completed_ns=None if end == "?" else int(end),
                )
            )
        found.append(ops)
    return found
