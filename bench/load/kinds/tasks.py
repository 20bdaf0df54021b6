"""What is wanted of a workload of another kind than registers.

Each wanted operation is a `Task`. A plan of registers decides when, where and on which key; what is
no read of its mix changes the object. Objects are

- ``counter``, ``set-full``, ``list-append``, ``lock`` and ``fenced-lock``: one for each key, whose
  whole state is the value of that key, changed by ``cas``;
- ``set``: one for every `SET_SIZE` keys, each of which is an element: it is in once its key was
  written. That needs no ``cas``, but a read of several keys is no snapshot of them, so the model is
  the weaker one. Elements are added once each, spread over the whole load; when all are in, or it
  is too early for the next one, the set is read instead;
- ``list-append`` and ``bank``, where transactions are offered: one for all keys, each of which is a
  list or an account (`bench.load.kinds.transactions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from bench.record.models.run import Kind

STEPS: Final = 64
"""Ids that a task takes: one for each request that it may send, and its own."""
SET_SIZE: Final = 8
DEFAULT_KEYS: Final[dict[Kind, int]] = {"set": 1000, "bank": 8}
"""Keys of a workload of this kind that does not say how many."""

Deed: TypeAlias = Literal["read", "change"]
Step: TypeAlias = tuple[Literal["append", "read"], str, Any]
"""As docs/HISTORY_FORMAT.md has an operation of a transaction."""


class Task(msgspec.Struct, frozen=True, gc=False):
    """``id`` is unique in the plan, as are the `STEPS` numbers after it. ``target``: the name of
    the object. ``keys``: those that it is kept in; of a `set` that is changed, the key of the new
    element, of a transfer the account it is from and the one it is to. ``nodes``: all of the
    cluster; the first is asked. ``steps``: of a transaction on lists. ``amount``: of a transfer."""

    id: int
    kind: Kind
    deed: Deed
    target: str
    keys: tuple[str, ...]
    nodes: tuple[str, ...]
    steps: tuple[Step, ...] | None = None
    amount: int = 0

    @property
    def is_transaction(self) -> bool:
        """Whether it is done in one."""
        return self.steps is not None or self.kind == "bank"


class Elements:
    """The elements of sets: which is added next, and when. ``adds``: how many adds the plan wants;
    None: nobody knows."""

    def __init__(self, names: Sequence[str], adds: float | None) -> None:
        self._names = names
        self._every = 1.0 if adds is None else max(1.0, adds / len(names))
        self._wanted = self._added = 0

    def next(self) -> int | None:
        """The number of the element to add now, if one is due."""
        self._wanted += 1
        if self._added == len(self._names) or self._wanted <= self._added * self._every:
            return None
        self._added += 1
        return self._added - 1

    def begun(self, number: int) -> int:
        """A set that has elements already, or the first one; ``number``: any."""
        return number % max(1, -(-self._added // SET_SIZE))


def set_name(number: int) -> str:
    """What a set is called."""
    return f"set{number}"


def sets_of(keys: Sequence[str]) -> list[tuple[str, ...]]:
    """The keys of each set."""
    return [tuple(keys[at : at + SET_SIZE]) for at in range(0, len(keys), SET_SIZE)]
