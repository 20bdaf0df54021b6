"""How each task is done with reads, writes and cas, without I/O.

A procedure is a generator: it yields a `Step`, which is sent, and gets the record of how it ended,
None if it was not sent. Before and after it says to its `Ledger` which operation of the model
begins and ends there.

Outcomes stay certain: an operation ends ``fail`` only if no request that could have changed
anything was sent, or each was certainly not applied (a cas that was refused). Nothing is sent again
after an unknown outcome, but for the release of a lock, whose ``cas`` expects a value that is
written once only: it can be applied once.

All values are written once in a run, since a task's id is in them; so what the requests did is a
history of registers that can be judged exactly, too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final, NamedTuple, TypeAlias

from bench.load.kinds.tasks import STEPS, Task
from bench.record.history import ABSENT, OperationRecord, RecordedOperation
from bench.record.models.run import ModelRecord
from nodes.contract.replica import Outcome, Value

TRIES: Final = 8
"""Of a cas that is refused since another was faster."""
RELEASES: Final = 4
"""Attempts to release a lock, until one has a certain outcome."""


class Step(NamedTuple):
    """One request. ``node``: to which, None: to that of the task."""

    op: RecordedOperation
    key: str
    value: int | str | None = None
    expected: Value = None
    node: str | None = None


class Unreadable(ValueError):
    """A value that no procedure writes."""


Procedure: TypeAlias = Generator[Step, OperationRecord | None, None]
Change: TypeAlias = Generator[Step, OperationRecord | None, tuple[Outcome, str]]


class Ledger:
    """The operations of the model that one task has done. ``process``: who does them."""

    def __init__(self, task: Task, process: str, intended_ns: int | None) -> None:
        self.records: list[ModelRecord] = []
        self.answer: Any = None
        """Of a transaction, what it returned."""
        self._task, self._process, self._intended_ns = task, process, intended_ns
        self._op, self._value = "", ABSENT
        self._since: int | None = None
        self._until: int | None = None
        self._open = False
        self._error: str | None = None

    def begin(self, op: str, value: Any = ABSENT) -> None:
        """The next step is the first of this operation. ``value``: what is asked for."""
        self._op, self._value, self._open = op, value, True
        self._since = self._error = None

    def step(self, record: OperationRecord, answer: Any) -> None:
        """A step has ended."""
        self.answer = answer
        if self._since is None:
            self._since = record.invoked_ns
        self._until = record.completed_ns
        self._error = record.error

    def end(self, outcome: Outcome, value: Any = ABSENT) -> None:
        """The operation has ended. ``value``: its answer."""
        if not self._open or self._since is None:
            self._open = False
            return
        told = self._value if value is ABSENT else value
        record = ModelRecord(
            process=self._process,
            id=self._task.id + len(self.records),
            outcome=outcome if self._until is not None else "info",
            invoked_ns=self._since,
            completed_ns=self._until,
            intended_ns=None if self.records else self._intended_ns,
            node=self._task.nodes[0],
            error=None if outcome == "ok" else self._error,
        )
        if self._task.kind == "list-append":
            if self._task.is_transaction:
                record.transaction = told
            else:
                seen = None if told is ABSENT else told
                record.transaction = [(self._op, self._task.target, seen)]
        else:
            record.op, record.key, record.value = self._op, self._task.target, told
        self.records.append(record)
        self._open = False


def procedure(task: Task, ledger: Ledger) -> Procedure:
    """What to do for a task."""
    if task.is_transaction:
        return _transact(task, ledger)
    if task.kind in ("lock", "fenced-lock"):
        return _hold(task, ledger)
    if task.deed == "read":
        return _read(task, ledger)
    if task.kind == "set":
        return _write_element(task, ledger)
    return _change(task, ledger)


def state(kind: str, held: Value | list[Value]) -> Any:
    """What an object is, by the value of its key. Raises Unreadable."""
    if held is not None and not isinstance(held, str):
        raise Unreadable(f"{held!r} is no value of a {kind}")
    try:
        if kind == "counter":
            return int((held or "0").partition(" ")[0])
        return [int(element) for element in (held or "").split()]
    except ValueError:
        raise Unreadable(f"{held!r} is no value of a {kind}") from None


def _transact(task: Task, ledger: Ledger) -> Procedure:
    if task.steps is not None:
        ledger.begin("transaction", list(task.steps))
    elif task.deed == "read":
        ledger.begin("read")
    else:
        source, target = task.keys
        ledger.begin("transfer", {"from": source, "to": target, "amount": task.amount})
    said = yield Step("transaction", " ".join(task.keys))
    outcome = "fail" if said is None else said.outcome
    if outcome != "ok" or task.deed == "read" or task.steps is not None:
        ledger.end(outcome, ledger.answer if outcome == "ok" else ABSENT)
    else:
        # Of an account that has not enough nothing is taken.
        ledger.end("ok" if ledger.answer else "fail")


def _read(task: Task, ledger: Ledger) -> Procedure:
    ledger.begin("read")
    found: list[Value | list[Value]] = []
    for key in task.keys:
        said = yield Step("read", key)
        if said is None or said.outcome != "ok":
            # What a read saw nobody knows then, and it has changed nothing.
            ledger.end("info" if said is None else said.outcome)
            return
        found.append(said.value)
    if task.kind == "set":
        ledger.end("ok", present(task.keys, found))
    else:
        ledger.end("ok", state(task.kind, found[0]))


def present(keys: tuple[str, ...], found: list[Value | list[Value]]) -> list[str]:
    """The elements of a set whose keys hold something."""
    return [key for key, held in zip(keys, found, strict=True) if held not in (None, [])]


def _write_element(task: Task, ledger: Ledger) -> Procedure:
    ledger.begin("add", task.keys[0])
    said = yield Step("write", task.keys[0], task.id)
    ledger.end("fail" if said is None else said.outcome)


def _change(task: Task, ledger: Ledger) -> Procedure:
    if task.kind == "counter":
        ledger.begin("add", 1)
        outcome, _ = yield from _by_cas(
            task, lambda held: f"{state('counter', held) + 1} {task.id}"
        )
    else:
        ledger.begin("append" if task.kind == "list-append" else "add", task.id)
        outcome, _ = yield from _by_cas(task, lambda held: f"{held or ''} {task.id}".strip())
    ledger.end(outcome)


def _by_cas(task: Task, change: Callable[[Value], str | None]) -> Change:
    """Change a key by a rule; its outcome, and what was written last. ``change``: from what it
    holds to what it shall hold, None: leave it."""
    wanted, held = "", ABSENT
    for _ in range(TRIES):
        if held is ABSENT:
            read = yield Step("read", task.keys[0])
            if read is None or read.outcome != "ok":
                return "fail", ""
            held = read.value
        changed = change(held)
        if changed is None:
            return "fail", ""
        wanted = changed
        said = yield Step("cas", task.keys[0], wanted, held)
        if said is None or said.outcome == "fail":
            return "fail", ""
        if said.outcome == "info" or said.applied is not False:
            return said.outcome, wanted
        held = said.seen
    return "fail", ""


def _hold(task: Task, ledger: Ledger) -> Procedure:
    """Acquire a lock, hold it for as long as a read takes, and release it. What is kept is who
    holds it, or held it last: ``held`` or ``free``, a number that grows, and the task."""
    ledger.begin("acquire")

    def take(held: Value) -> str | None:
        how, number = _holder(held)
        return None if how == "held" else f"held {number + 1} {task.id}"

    outcome, mine = yield from _by_cas(task, take)
    number = _holder(mine or None)[1]
    ledger.end(outcome, number if outcome == "ok" and task.kind == "fenced-lock" else ABSENT)
    if outcome == "fail":
        return
    if outcome == "ok":
        yield Step("read", task.keys[0])
    for attempt in range(RELEASES):
        # The node that was asked may be the one that is cut off: another is asked next.
        node = task.nodes[attempt % len(task.nodes)]
        ledger.begin("release")
        free = f"free {number} {task.id + attempt}"
        said = yield Step("cas", task.keys[0], free, mine, node)
        if said is None:
            return
        refused = said.outcome == "ok" and said.applied is False
        ledger.end("fail" if refused else said.outcome)
        if said.outcome == "ok":
            return


def _holder(held: Value | list[Value]) -> tuple[str, int]:
    if held is None:
        return "free", 0
    words = held.split() if isinstance(held, str) else []
    if len(words) != 3 or words[0] not in ("held", "free") or not words[1].isdigit():
        raise Unreadable(f"{held!r} is no value of a lock")
    return words[0], int(words[1])


assert 2 * TRIES + 1 + RELEASES < STEPS, "each step needs an id of its own"
