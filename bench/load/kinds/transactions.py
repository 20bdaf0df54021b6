"""Workloads done with transactions: on lists, and on the accounts of a bank.

The first word of a list is the oldest. An account that has no key yet holds `BALANCE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from bench.load.kinds.procedures import Unreadable, state
from bench.load.kinds.tasks import STEPS, Step, Task
from chaos.systems.system import SystemClient, Transaction
from nodes.contract.replica import Operation, Reply, Request, Value

BALANCE: Final = 100
MOST_OPERATIONS: Final = 4
"""Of a transaction on lists."""
MOST_AMOUNT: Final = 5
"""Of a transfer."""

assert MOST_OPERATIONS < STEPS, "each element needs an id of its own"


class Transact(Request, frozen=True, kw_only=True):
    """A request for a transaction, which goes to a system's client only. ``operation`` says no more
    than its keys."""

    task: Task


class Transacted(Reply, frozen=True, kw_only=True):
    """The answer. ``answer``: what `perform` returned."""

    answer: Any


def asked(client: str, sequence: int, task: Task) -> Transact:
    """The request for a task."""
    operation = Operation("read", " ".join(task.keys))
    return Transact(client, sequence, operation, task=task)


def on_lists(
    id_: int,
    draw: Callable[[], float],
    reads: float,
    key: Callable[[Literal["read", "write"]], str],
) -> tuple[Step, ...]:
    """One to `MOST_OPERATIONS` operations. ``id_``: of the task; ``reads``: the share of reads."""
    steps: list[Step] = []
    for place in range(1 + int(draw() * MOST_OPERATIONS)):
        if draw() < reads:
            steps.append(("read", key("read"), None))
        else:
            steps.append(("append", key("write"), id_ + 1 + place))
    return tuple(steps)


def perform(client: SystemClient, task: Task) -> Any:
    """Do a task in one transaction. Returns the operations with what they saw, the balances of a
    bank, or whether an account had enough for a transfer. Raises what
    `SystemClient.transaction` does, and Unreadable."""
    answer: Any = None

    def work(at: Transaction) -> None:
        nonlocal answer
        if task.steps is not None:
            answer = [_step(at, step) for step in task.steps]
        elif task.deed == "read":
            answer = {account: _balance(at.read(account)) for account in task.keys}
        else:
            answer = _transfer(at, task.keys, task.amount)

    client.transaction(task.keys, work)
    return answer


def _step(at: Transaction, step: Step) -> Step:
    op, key, element = step
    if op == "append":
        at.append(key, str(element))
        return step
    return op, key, state("list-append", at.read(key))


def _transfer(at: Transaction, accounts: Sequence[str], amount: int) -> bool:
    source, target = accounts
    there, other = _balance(at.read(source)), _balance(at.read(target))
    if there < amount:
        return False
    at.write(source, there - amount)
    at.write(target, other + amount)
    return True


def _balance(held: Value) -> int:
    if held is None:
        return BALANCE
    if type(held) is not int:
        raise Unreadable(f"{held!r} is no balance")
    return held
