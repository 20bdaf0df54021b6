"""From the events of an EDN history to its operations: invocations and completions are paired by
process.

Real time is the order of the events in the file, as for Jepsen itself: its clients may have noted
times in another order. The times of the file, if it has any, tell how long something took.

- An operation that is still open at the end of the file may have taken effect: it is ``info``.
- After an ``info`` Jepsen goes on under a new number. Where one goes on under its old number, what
  was open may still take effect later.
- With independent keys, each value is a tuple of the key and the value.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from bench.record.columns import INFO, NEVER, OK, Bools, Int32s, Int64s, Times
from bench.record.edn.events import INVOKE, MOST_CHARACTERS, Events, read_events
from bench.record.history import BadHistory
from bench.record.models.operations import Operations
from bench.record.models.source import Source

_SYNONYMS: Final = {"get": "read", "r": "read", "put": "write", "w": "write"}
_MAY_BE_UNTOLD: Final = ("read", "cas", "dequeue", "drain", "txn", "generate")
"""Operations whose value does not tell whether keys are independent."""


def read_operations(source: Source, *, null_is_told: bool) -> Operations:
    """The operations of an EDN history. Raises BadHistory, which names file and line."""
    operations = paired(read_events(source.blocks(MOST_CHARACTERS), source.name), source.name)
    operations.null_is_told = null_is_told
    return operations


def paired(events: Events, name: str) -> Operations:
    """Each invocation with its completion."""
    invoked, completed = _pairs(events, name)
    has_end = completed >= 0
    outcome = np.full(len(invoked), INFO, np.int8)
    outcome[has_end] = events.kind[completed[has_end]] - 1
    value = events.value[invoked]
    # A client may leave out what it had been asked: then that is meant.
    told = has_end & (outcome == OK)
    told[told] &= events.value[completed[told]] >= 0
    value[told] = events.value[completed[told]]
    processes, process = np.unique(events.process[invoked], return_inverse=True)
    operations = Operations(
        name=name,
        process=process.astype(np.int32),
        id=invoked if events.index is None else events.index[invoked],
        op=events.f[invoked],
        key=events.key[invoked],
        value=value,
        outcome=outcome,
        invoked=invoked,
        completed=np.where(has_end & (outcome != INFO), completed, NEVER),
        gave_up=np.where(has_end, completed, NEVER),
        line=events.line[invoked],
        processes=[str(number) for number in processes.tolist()],
        names=[_SYNONYMS.get(each, each) for each in events.names],
        keys=[],
        values=events.values,
    )
    if events.time is not None:
        operations.times = Times(0, np.maximum.accumulate(events.time))
    _name_keys(operations)
    return operations


def _pairs(events: Events, name: str) -> tuple[Int64s, Int64s]:
    """The places of the invocations, and of their completions, -1 where there is none."""
    order = np.argsort(events.process, kind="stable")
    process, is_invoke = events.process[order], events.kind[order] == INVOKE
    follows = np.zeros(len(order), np.bool_)
    follows[1:] = process[1:] == process[:-1]
    after_invoke = np.zeros(len(order), np.bool_)
    after_invoke[1:] = follows[1:] & is_invoke[:-1]
    _refuse_first(events, name, order[is_invoke & after_invoke], "has another operation open")
    astray = ~is_invoke & ~after_invoke
    is_info = events.kind[order] == INFO + 1
    _refuse_first(events, name, order[astray & ~is_info], "completes what it never invoked")
    ends = np.flatnonzero(~is_invoke & after_invoke)
    completed = np.full(len(order), -1, np.int64)
    completed[order[ends - 1]] = order[ends]
    invoked = np.flatnonzero(events.kind == INVOKE)
    found: Int64s = completed[invoked]
    same = events.f[invoked[found >= 0]] == events.f[found[found >= 0]]
    _refuse_first(events, name, found[found >= 0][~same], "completes another :f than it invoked")
    return invoked, found


def _refuse_first(events: Events, name: str, places: Int64s, what: str) -> None:
    if len(places):
        place = int(places.min())
        line, process = int(events.line[place]), int(events.process[place])
        raise BadHistory(f"{name}:{line}: process {process} {what}")


def _name_keys(operations: Operations) -> None:
    """Make names of the keys; split the tuples of independent keys."""
    used = operations.key >= 0
    if not used.any():
        split = _split(operations)
        if split is not None:
            operations.key, operations.value, operations.keys, operations.values = split
        return
    codes, places = np.unique(operations.key[used], return_inverse=True)
    names = _key_names(operations, [operations.values[code] for code in codes.tolist()])
    distinct = {each: number for number, each in enumerate(dict.fromkeys(names))}
    numbers = np.array([distinct[each] for each in names], np.int32)
    operations.key[used] = numbers[places]
    operations.keys = list(distinct)


def _key_names(operations: Operations, keys: list[Any]) -> list[str]:
    for key in keys:
        if isinstance(key, list | dict | None):
            raise BadHistory(f"{operations.name}: a key is a number, a text or a keyword: {key!r}")
    return [str(key) for key in keys]


def _is_tuple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not isinstance(value[0], list | dict)


def _split(operations: Operations) -> tuple[Int32s, Int32s, list[str], list[Any]] | None:
    """Key and value of each operation, where keys are independent; None where they are not."""
    values = operations.values
    used = np.unique(operations.value[operations.value >= 0])
    is_tuple = np.zeros(len(values), np.bool_)
    is_tuple[used] = [_is_tuple(values[code]) for code in used.tolist()]
    if not is_tuple.any() or not _are_independent(operations, is_tuple):
        return None
    has_value = operations.value >= 0
    other = np.flatnonzero(~has_value | ~is_tuple[operations.value])
    if len(other):
        raise operations.refused(
            int(other[0]), "not a tuple of key and value, as with other operations"
        )
    keys: dict[str, int] = {}
    key_of = np.full(len(values), -1, np.int32)
    names = _key_names(operations, [values[code][0] for code in used.tolist()])
    key_of[used] = [keys.setdefault(name, len(keys)) for name in names]
    inner: list[Any] = [value[1] if _is_tuple(value) else None for value in values]
    return key_of[operations.value], operations.value, list(keys), inner


def _are_independent(operations: Operations, is_tuple: Bools) -> bool:
    """Whether tuples are keys and values. What is written, added or enqueued tells; where there is
    no such operation, a ``cas`` or a transaction, whose value is a list anyhow."""
    code = np.where(operations.value >= 0, operations.value, 0)
    there = (operations.value >= 0) & np.array([v is not None for v in operations.values])[code]
    speaks = there.copy()
    speaks[operations.rows_of(*_MAY_BE_UNTOLD)] = False
    if speaks.any():
        return bool(is_tuple[code[speaks]].all())
    lists = operations.rows_of("cas", "txn")
    lists = lists[there[lists]]
    return len(lists) > 0 and all(
        _is_tuple(operations.values[each]) and isinstance(operations.values[each][1], list)
        for each in np.unique(operations.value[lists]).tolist()
    )
