"""Which model the operations of a history are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bench.record.history import BadHistory
from bench.record.models.operations import Operations
from bench.record.models.transactions import OPERATION, part_names

MODELS: Final = {
    "register": "reads, writes, deletes",
    "cas-register": "and cas",
    "append-kv": "reads, writes (put) and appends of texts",
    "set": "adds and reads; what is in at the end counts",
    "set-full": "adds and reads, linearizable",
    "counter": "adds and reads of numbers",
    "queue": "enqueues and dequeues, in order of each producer",
    "total-queue": "enqueues and dequeues in any order",
    "lock": "acquires and releases",
    "mutex": "the same, but anybody may release",
    "fenced-lock": "acquires with a number that grows, and releases",
    "unique-ids": "generates",
    "bank": "transfers, and reads of all accounts",
    "list-append": "transactions of appends and reads",
    "rw-register": "transactions of writes and reads",
}
"""Each model, and the operations that it has."""

REGISTERS: Final = ("register", "cas-register")
TRANSACTIONS: Final = ("list-append", "rw-register")


def choose(operations: Operations) -> str:
    """The model that the operations must be of. Raises BadHistory where they do not tell."""
    ops = operations.ops()
    if not ops:
        return "register"
    for vocabulary, decide in _RULES:
        if ops <= vocabulary:
            model = decide(operations)
            if model is not None:
                return model
            if ops == {"read"}:
                break
    seen = ", ".join(sorted(ops)) or "none"
    raise BadHistory(
        f"{operations.name}: the operations ({seen}) do not tell the model; say it: --model "
        + ", ".join(MODELS)
    )


def _of_transactions(operations: Operations) -> str | None:
    return "list-append" if "append" in part_names(operations) else "rw-register"


def _of_reads(operations: Operations) -> str | None:
    """What only reads show: registers hold one value, sets many, banks one for each account."""
    kinds = {type(value) for value in operations.told("read")}
    if list in kinds or dict in kinds:
        return None
    return "register"


def _of_adds(operations: Operations) -> str | None:
    """A set is read as a list, a counter as a number."""
    reads = operations.told("read")
    if reads and all(isinstance(value, list) for value in reads):
        return "set-full"
    if reads and all(type(value) is int for value in reads):
        return "counter"
    return None


def _of_transfers(operations: Operations) -> str | None:
    reads = operations.told("read")
    return "bank" if all(isinstance(value, dict) for value in reads) else None


def _named(model: str) -> Callable[[Operations], str | None]:
    return lambda operations: model if len(operations) else None


_RULES: Final[list[tuple[set[str], Callable[[Operations], str | None]]]] = [
    ({OPERATION}, _of_transactions),
    ({"read", "write", "delete"}, _of_reads),
    ({"read", "write", "delete", "cas"}, _named("cas-register")),
    ({"read", "write", "append"}, _named("append-kv")),
    ({"add", "read"}, _of_adds),
    ({"enqueue", "dequeue", "drain"}, _named("queue")),
    ({"acquire", "release"}, _named("lock")),
    ({"generate"}, _named("unique-ids")),
    ({"transfer", "read"}, _of_transfers),
]
