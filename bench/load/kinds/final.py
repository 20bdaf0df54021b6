"""The final reads of every key at every node, as reads of the workload's kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.load.kinds.procedures import Unreadable, present, state
from bench.load.kinds.tasks import STEPS, Step, Task, set_name, sets_of
from bench.record.history import OperationRecord
from bench.record.models.run import Kind, ModelRecord


def final_model_reads(
    kind: Kind, records: Sequence[OperationRecord], keys: Sequence[str]
) -> Iterator[ModelRecord]:
    """What each node held in the end of each object; nothing of an object that a node did not tell.
    Locks are not read."""
    if kind in ("register", "lock", "fenced-lock"):
        return
    told = {(record.node, record.key): record for record in records if record.outcome == "ok"}
    nodes = dict.fromkeys(record.node for record in records)
    objects = sets_of(keys) if kind == "set" else [(key,) for key in keys]
    for node in nodes:
        for number, mine in enumerate(objects):
            found = [told[node, key] for key in mine if (node, key) in told]
            if len(found) < len(mine):
                continue
            name = set_name(number) if kind == "set" else mine[0]
            try:
                yield _read(kind, name, mine, found)
            except Unreadable:
                continue


def final_transactions(
    kind: Kind, first_id: int, nodes: Sequence[str], keys: Sequence[str]
) -> Iterator[Task]:
    """A transaction at each node for each list, or for all accounts."""
    objects = [tuple(keys)] if kind == "bank" else [(key,) for key in keys]
    for number, (node, mine) in enumerate((node, mine) for node in nodes for mine in objects):
        steps: tuple[Step, ...] | None = None if kind == "bank" else (("read", mine[0], None),)
        id_ = first_id + number * (1 + STEPS)
        yield Task(id_, kind, "read", kind, mine, (node,), steps)


def _read(
    kind: Kind, name: str, keys: tuple[str, ...], found: Sequence[OperationRecord]
) -> ModelRecord:
    values = [record.value for record in found]
    value = present(keys, values) if kind == "set" else state(kind, values[0])
    read = ModelRecord(
        process=f"final.{found[0].node}.{name}",
        id=found[0].id,
        outcome="ok",
        invoked_ns=min(record.invoked_ns for record in found),
        completed_ns=max(record.completed_ns or record.invoked_ns for record in found),
        node=found[0].node,
    )
    if kind == "list-append":
        read.transaction = [("read", name, value)]
    else:
        read.op, read.key, read.value = "read", name, value
    return read
