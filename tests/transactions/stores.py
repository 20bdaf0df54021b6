"""Small stores that keep an isolation level by construction, and histories of their clients:
transactions side by side, step by step, with aborts, crashes and retries."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from tests.transactions.brute_force import History, Txn

KINDS = ("strict", "serializable", "snapshot", "read-committed", "read-uncommitted", "nothing")
MOST_WRITES = 6
"""In a tiny history: the brute force tries their orders."""


@dataclass
class _Client:
    process: int
    begin: int = 0
    steps: list[tuple[str, str]] = field(default_factory=list)
    done: list[tuple[str, str, Any]] = field(default_factory=list)
    snapshot: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    version: int = 0
    own: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class Store:
    """``kind``: how far transactions are kept apart. *strict*: all of a transaction happens at its
    last step. *serializable*: those that only read may do so from an old state. *snapshot*: all
    reads at the first step, and of two that change a key only the first commits.
    *read-committed*: each read sees what is committed, writes lock. *read-uncommitted*: writes are
    visible at once, and taken back by an abort. *nothing*: no locks either, and reads that lose or
    invent something now and then."""

    kind: str
    rng: random.Random
    keys: int = 2
    clients: int = 3
    most_steps: int = 3
    register: bool = False
    crash: float = 0.1
    abort: float = 0.1
    now: int = 0
    values: int = 0
    data: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    past: list[dict[str, tuple[Any, ...]]] = field(default_factory=lambda: [{}])
    changed: dict[str, int] = field(default_factory=dict)
    locks: dict[str, _Client] = field(default_factory=dict)
    history: History = field(default_factory=list)

    def run(self, count: int) -> History:
        """The history of ``count`` transactions, by their beginning."""
        idle = [_Client(number) for number in range(self.clients)]
        busy: list[_Client] = []
        started = 0
        while busy or started < count:
            self.now += 1
            if idle and started < count and (not busy or self.rng.random() < 0.4):
                client = idle.pop(self.rng.randrange(len(idle)))
                self._begin(client)
                busy.append(client)
                started += 1
                continue
            client = self.rng.choice(busy)
            if client.steps:
                if not self._step(client):
                    self._end(client, "fail")
                    busy.remove(client)
                    idle.append(client)
                continue
            busy.remove(client)
            fate = self.rng.random()
            if fate < self.crash:
                if self.rng.random() < 0.5:
                    self._commit(client)
                self._end(client, "info")
                client.process += 1000
            elif fate < self.crash + self.abort or not self._commit(client):
                self._end(client, "fail")
            else:
                self._end(client, "ok")
            idle.append(client)
        return sorted(self.history, key=lambda txn: txn.begin)

    def _begin(self, client: _Client) -> None:
        client.begin = self.now
        write = "write" if self.register else "append"
        client.steps = [
            (self.rng.choice(["read", write]), f"k{self.rng.randrange(self.keys)}")
            for _ in range(self.rng.randint(1, self.most_steps))
        ]
        client.done, client.own = [], {}
        client.snapshot, client.version = dict(self.data), len(self.past) - 1
        reads_only = all(name == "read" for name, _ in client.steps)
        if self.kind == "serializable" and reads_only:
            client.version = self.rng.randint(max(0, client.version - 4), client.version)
            client.snapshot = self.past[client.version]

    def _step(self, client: _Client) -> bool:
        """One more operation; False if it cannot be carried out."""
        name, key = client.steps.pop(0)
        if name == "read":
            client.done.append((name, key, self._read(client, key)))
            return True
        locks = self.kind in ("read-committed", "read-uncommitted")
        if locks and self.locks.setdefault(key, client) is not client:
            return False
        self.values += 1
        client.done.append((name, key, self.values))
        client.own.setdefault(key, []).append(self.values)
        if self.kind in ("read-uncommitted", "nothing"):
            self.data[key] = (*self.data.get(key, ()), self.values)
        return True

    def _told(self, values: tuple[Any, ...]) -> Any:
        if self.register:
            return values[-1] if values else None
        return list(values)

    def _read(self, client: _Client, key: str) -> Any:
        if self.kind in ("strict", "serializable", "snapshot"):
            base = client.snapshot.get(key, ())
        else:
            base = self.data.get(key, ())
        if self.kind not in ("read-uncommitted", "nothing"):
            base = (*base, *client.own.get(key, ()))
        if self.kind == "nothing" and base and self.rng.random() < 0.2:
            base = self.rng.choice([base[:-1], base[1:], base[::-1], (*base, base[0]), ()])
        return self._told(base)

    def _commit(self, client: _Client) -> bool:
        reads_only = not client.own
        if self.kind in ("strict", "serializable"):
            if self.kind == "strict" or not reads_only:
                client.snapshot, done, client.own = dict(self.data), client.done, {}
                client.done = []
                for name, key, value in done:
                    if name == "read":
                        client.done.append((name, key, self._read(client, key)))
                    else:
                        client.own.setdefault(key, []).append(value)
                        client.done.append((name, key, value))
        elif self.kind == "snapshot" and any(
            self.changed.get(key, 0) > client.version for key in client.own
        ):
            return False
        if self.kind not in ("read-uncommitted", "nothing") and client.own:
            for key, values in client.own.items():
                self.data[key] = (*self.data.get(key, ()), *values)
                self.changed[key] = len(self.past)
            self.past.append(dict(self.data))
        client.own = {}
        return True

    def _end(self, client: _Client, outcome: str) -> None:
        if self.kind == "read-uncommitted" and client.own:
            for key, values in client.own.items():
                self.data[key] = tuple(v for v in self.data.get(key, ()) if v not in values)
        client.own = {}
        for key in [key for key, holder in self.locks.items() if holder is client]:
            del self.locks[key]
        self.now += 1
        end = None if outcome == "info" else self.now
        told = tuple(
            (name, key, None if name == "read" and outcome != "ok" else value)
            for name, key, value in client.done
        )
        left = tuple((name, key, None) for name, key in client.steps if name == "read")
        self.history.append(Txn(f"p{client.process}", client.begin, end, outcome, told + left))


def tiny(seed: int, register: bool = False) -> History:
    """A history of up to five transactions, small enough for the brute force."""
    rng = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    while True:
        store = Store(
            kind,
            rng,
            keys=rng.randint(1, 3),
            clients=rng.randint(2, 4),
            most_steps=rng.randint(2, 4),
            register=register,
            crash=rng.choice([0, 0.2]),
            abort=rng.choice([0, 0.2]),
        )
        history = store.run(rng.randint(2, 5))
        if store.values <= MOST_WRITES:
            return twisted(history, rng) if rng.random() < 0.4 else history


def twisted(history: History, rng: random.Random) -> History:
    """The same with one answer, outcome or time changed."""
    place = rng.randrange(len(history))
    txn = history[place]
    reads = [number for number, op in enumerate(txn.ops) if op[0] == "read"]
    values = [value for other in history for name, _, value in other.ops if name != "read"]
    if reads and txn.outcome == "ok" and rng.random() < 0.8:
        number = rng.choice(reads)
        name, key, value = txn.ops[number]
        if isinstance(value, list):
            told: Any = list(value)
            some = [v for other in history for n, k, v in other.ops if n == "append" and k == key]
            rng.shuffle(told)
            told = rng.choice([told, told[:-1], told + some[:1], some, some[:1], some[::-1]])
        else:
            told = rng.choice([None, *values])
        ops = (*txn.ops[:number], (name, key, told), *txn.ops[number + 1 :])
        changed = Txn(txn.process, txn.begin, txn.end, txn.outcome, ops)
    elif txn.end is not None:
        outcome = rng.choice(["ok", "fail", "info"])
        end = None if outcome == "info" else txn.end + rng.choice([0, 1, 5])
        ops = txn.ops
        if outcome != txn.outcome:
            ops = tuple(op for op in ops if op[0] != "read") or ops[:0]
        changed = Txn(f"q{place}", txn.begin, end, outcome, ops)
    else:
        return history
    return [*history[:place], changed, *history[place + 1 :]]
