"""What a check of transactions says: levels, and anomalies with what proves them."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from bench.record.models.verdict import VerdictValue
from nodes.contract.replica import Outcome, Value

Level: TypeAlias = Literal[
    "read-uncommitted",
    "read-committed",
    "read-atomic",
    "causal",
    "repeatable-read",
    "snapshot-isolation",
    "serializable",
    "strong-session-serializable",
    "strict-serializable",
]
"""From the weakest to the strongest; of repeatable read and snapshot isolation none includes the
other."""

OperationName: TypeAlias = Literal["append", "read", "write"]
Operation: TypeAlias = tuple[OperationName, str, Value | list[Value]]
"""``("append", "x", 1)``, ``("read", "x", [1, 2])``, ``("write", "x", 7)``."""

TransactionModel: TypeAlias = Literal["list-append", "rw-register"]
EdgeKind: TypeAlias = Literal["ww", "wr", "rw", "process", "realtime"]


class Vertex(msgspec.Struct, kw_only=True, frozen=True):
    """A transaction of a witness. ``id``: as in the history, else the number of its line."""

    id: int
    process: str
    outcome: Outcome
    invoked_ns: int
    completed_ns: int | None
    operations: list[Operation]


class Edge(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Why one transaction comes before another; ``source`` and ``target`` are places among the
    vertices. ``ww``: the target put ``after`` in place of, or behind, ``before``. ``wr``: it saw
    ``after``. ``rw``: the source saw ``before``, which the target changed to ``after``. With
    ``process`` and ``realtime`` there is no key. ``told_by``: the transaction whose read says in
    which order two writes are."""

    source: int
    target: int
    kind: EdgeKind
    key: str | None = None
    before: Value | list[Value] = None
    after: Value | list[Value] = None
    told_by: int | None = None


class Anomaly(msgspec.Struct, kw_only=True, frozen=True):
    """``refutes``: the levels that forbid it. ``count``: how many were found, None if only whether
    there is one was asked. ``transactions`` and ``edges``: the smallest example that was found, and
    ``words`` the same as sentences."""

    name: str
    refutes: list[Level]
    count: int | None
    transactions: list[Vertex]
    edges: list[Edge]
    words: list[str]


class TransactionsCheck(msgspec.Struct, kw_only=True, frozen=True):
    """``verdict`` is that of ``level``. ``levels``: of each level whether the history refutes it;
    ``strongest``: those that it does not refute and of which no stronger one is so."""

    verdict: VerdictValue
    model: TransactionModel
    level: Level
    levels: dict[Level, VerdictValue]
    strongest: list[Level]
    algorithm: str
    transactions: int
    operations: int
    seconds: float
    summary: str
    anomalies: list[Anomaly]

    def headline(self) -> str:
        """The verdict in a sentence, without what proves it."""
        if self.verdict == "valid":
            return f"nothing contradicts {self.level}"
        if self.verdict == "unknown":
            return self.summary
        names = [each.name for each in self.anomalies if self.level in each.refutes]
        return f"{self.level} forbids what was found: {', '.join(names)}"

    def lines(self) -> list[str]:
        """All of it, for people."""
        told = [
            f"{self.transactions} transactions ({self.operations} operations) of {self.model}, by "
            f"{self.algorithm}"
        ]
        width = max(map(len, self.levels))
        told += [f"{level.ljust(width)}  {verdict}" for level, verdict in self.levels.items()]
        weakest = "unknown" if "unknown" in self.levels.values() else "none"
        told.append(f"strongest not refuted: {', '.join(self.strongest) or weakest}")
        for anomaly in self.anomalies:
            times = "" if anomaly.count in (None, 1) else f" ({anomaly.count} times)"
            told.append(f"{anomaly.name}{times}")
            told += [f"  {words}" for words in anomaly.words]
        return told


WEAKER: Final[dict[Level, tuple[Level, ...]]] = {
    "read-uncommitted": (),
    "read-committed": ("read-uncommitted",),
    "read-atomic": ("read-committed",),
    "causal": ("read-atomic",),
    "repeatable-read": ("read-committed",),
    "snapshot-isolation": ("read-committed",),
    "serializable": ("repeatable-read", "snapshot-isolation"),
    "strong-session-serializable": ("serializable", "causal"),
    "strict-serializable": ("strong-session-serializable",),
}
"""The next weaker levels of each."""
