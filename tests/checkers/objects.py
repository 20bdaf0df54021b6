"""Histories that are correct by construction, of any length: each operation takes effect at one
instant between its beginning and its end.

Some are never answered (*info*): their process goes on under a new name, and they take effect late
or never. Some fail for certain, and are tried again.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

import msgspec

CLIENTS = 20
PER_KEY = 20
"""Operations of a key, so that what is read of it stays short."""


class Object:
    """``model``: whose operations these are."""

    def __init__(self, model: str, rng: random.Random) -> None:
        self.model, self.rng = model, rng
        self.state: dict[str, Any] = defaultdict(lambda: None)
        self.next = 0

    def key(self) -> str:
        """One of those that are in use now."""
        return f"k{self.next // (8 * PER_KEY)}.{self.rng.randrange(8)}"

    def wanted(self) -> dict[str, Any]:
        """What a client asks for."""
        self.next += 1
        n, key, read = self.next, self.key(), self.rng.random() < 0.5
        match self.model:
            case "set" | "set-full":
                return {"key": key, **({"op": "read"} if read else {"op": "add", "value": n})}
            case "counter":
                add = {"op": "add", "value": self.rng.choice((1, 2, 5))}
                return {"key": key, **({"op": "read"} if read else add)}
            case "queue" | "total-queue":
                put = {"op": "enqueue", "value": n}
                return {"key": key, **({"op": "dequeue"} if read else put)}
            case "bank":
                return {"op": "read"} if read else {"op": "transfer", "value": n}
            case "unique-ids":
                return {"op": "generate"}
            case "append-kv":
                return {
                    "key": key,
                    **({"op": "read"} if read else {"op": "append", "value": f"{n},"}),
                }
            case "register" | "cas-register":
                if read:
                    return {"op": "read", "key": key}
                if self.model == "register" or self.rng.random() < 0.5:
                    return {"op": "write", "key": key, "value": n}
                return {"op": "cas", "key": key, "value": n, "expected": self.state[key]}
            case "list-append" | "rw-register":
                change = "append" if self.model == "list-append" else "write"
                ops = [
                    [self.rng.choice(("read", change)), self.key(), 10 * n + place]
                    for place in range(self.rng.randrange(1, 4))
                ]
                return {"transaction": ops}
        raise AssertionError(self.model)

    def carried_out(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The operation, with its answer."""
        if "transaction" in asked:
            return {"transaction": [self._step(*step) for step in asked["transaction"]]}
        key, op = asked.get("key", ""), asked["op"]
        value: Any = asked.get("value")
        held = self.state[key]
        match op:
            case "read" if self.model in ("set", "set-full"):
                return {**asked, "value": sorted(held or ())}
            case "read" if self.model == "counter":
                return {**asked, "value": held or 0}
            case "read" if self.model == "bank":
                self.state[key] = held = held or [10, 10, 10]
                return {**asked, "value": dict(zip("abc", held, strict=True))}
            case "read" if self.model == "append-kv":
                return {**asked, "value": held or ""}
            case "read":
                return {**asked, "value": held}
            case "add" if self.model == "counter":
                self.state[key] = (held or 0) + value
            case "add":
                self.state[key] = (held or set()) | {value}
            case "enqueue":
                self.state[key] = held = held or deque()
                held.append(value)
            case "dequeue":
                return {**asked, "value": held.popleft() if held else None}
            case "transfer":
                self.state[key] = held = held or [10, 10, 10]
                one, two = self.rng.sample(range(3), 2)
                if held[one]:
                    held[one], held[two] = held[one] - 1, held[two] + 1
            case "generate":
                self.next += 1
                return {**asked, "value": self.next}
            case "append":
                self.state[key] = (held or "") + value
            case "write":
                self.state[key] = value
            case "cas":
                if held != asked["expected"]:
                    return {**asked, "applied": False, "seen": held}
                self.state[key] = value
        return asked

    def _step(self, op: str, key: str, value: Any) -> list[Any]:
        held = self.state[key]
        if op == "read":
            return [op, key, held]
        self.state[key] = [*(held or []), value] if op == "append" else value
        return [op, key, value]


class Locks(Object):
    """Locks: who holds one releases it next."""

    def __init__(self, model: str, rng: random.Random) -> None:
        super().__init__(model, rng)
        self.numbers: dict[str, int] = defaultdict(int)

    def wanted(self) -> dict[str, Any]:
        """An acquire."""
        self.next += 1
        return {"op": "acquire", "key": self.key()}

    def carried_out(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Held by somebody: it fails."""
        key = asked["key"]
        if asked["op"] == "release":
            self.state[key] = None
            return asked
        if self.state[key]:
            return {**asked, "outcome": "fail"}
        self.state[key] = True
        self.numbers[key] += 1
        return {**asked, "value": self.numbers[key]} if self.model == "fenced-lock" else asked


def lines(model: str, operations: int, seed: int) -> Iterator[bytes]:
    """The lines of a history."""
    rng = random.Random(f"{model}/{seed}")
    locks = model in ("lock", "mutex", "fenced-lock")
    thing = Locks(model, rng) if locks else Object(model, rng)
    heap: list[tuple[int, int, str, Any]] = []
    number = born = 0

    def at(time_ns: int, what: str, about: Any) -> None:
        nonlocal number
        number += 1
        heapq.heappush(heap, (time_ns, number, what, about))

    for born in range(CLIENTS):
        at(rng.randrange(100), "ask", {"process": f"c{born}"})
    asked = 0
    while heap:
        now, _, what, about = heapq.heappop(heap)
        if what == "ask" and asked < operations:
            asked += 1
            again = about.get("again")
            wish = thing.wanted() if again is None else again
            operation = {"wish": wish, "process": about["process"], "invoked_ns": now, "id": asked}
            fate = rng.random()
            if fate < 0.01:
                # Never carried out, and said so.
                at(now + rng.randrange(1, 60), "fail", operation)
            elif fate < 0.03:
                # Nobody is told; half of them take effect, some long afterwards.
                if rng.random() < 0.5:
                    at(now + rng.choice((5, 50, 5000)), "late", operation)
                gone = rng.random() < 0.5
                told = None if gone else now + 60
                yield _line(operation, wish, "info", told)
                born += 1
                at(now + 61, "ask", {"process": f"c{born}"})
            else:
                at(now + rng.randrange(1, 60), "do", operation)
        elif what == "late":
            thing.carried_out(about["wish"])
        elif what == "do":
            about["answer"] = thing.carried_out(about["wish"])
            at(now + rng.randrange(1, 60), "tell", about)
        elif what in ("fail", "tell"):
            answer = about["wish"] if what == "fail" else about["answer"]
            outcome = answer.pop("outcome", "ok") if what == "tell" else "fail"
            yield _line(about, answer, outcome, now)
            after: dict[str, Any] = {"process": about["process"]}
            if what == "fail":
                after["again"] = about["wish"]
            elif locks and outcome == "ok" and answer["op"] == "acquire":
                after["again"] = {"op": "release", "key": answer["key"]}
            at(now + rng.randrange(1, 30), "ask", after)


def _line(operation: dict[str, Any], done: dict[str, Any], outcome: str, end: int | None) -> bytes:
    fields = {name: operation[name] for name in ("process", "id", "invoked_ns")}
    return msgspec.json.encode({**fields, **done, "outcome": outcome, "completed_ns": end}) + b"\n"
