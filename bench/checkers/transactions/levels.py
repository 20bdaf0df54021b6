"""Which levels forbid which anomalies.

ANSI's levels by their dependencies, as Adya defines them (thesis, chapter 4): PL-1 forbids G0, PL-2
also G1, PL-2.99 also G2-item, PL-3 also G2. Here no operation has a predicate, so repeatable read
(PL-2.99) and serializable (PL-3) forbid the same. Snapshot isolation forbids every cycle without
two adjacent rw edges (Cerone and Gotsman, "Analysing Snapshot Isolation", PODC 2016, theorem 9).
"""

from __future__ import annotations

from typing import Final

from bench.record.transactions.verdict import WEAKER, Level
from bench.record.verdict import VerdictValue

LEVELS: Final[tuple[Level, ...]] = (
    "read-uncommitted",
    "read-committed",
    "repeatable-read",
    "snapshot-isolation",
    "serializable",
    "strong-session-serializable",
    "strict-serializable",
)

_WEAKEST: Final[dict[str, tuple[Level, ...]]] = {
    "unwritten value": ("read-uncommitted",),
    "duplicate elements": ("read-uncommitted",),
    "incompatible order": ("read-uncommitted",),
    "internal (own writes)": ("read-uncommitted",),
    "G0": ("read-uncommitted",),
    "G1a": ("read-committed",),
    "G1b": ("read-committed",),
    "G1c": ("read-committed",),
    "dirty update": ("read-committed",),
    "internal": ("repeatable-read", "snapshot-isolation", "read-atomic"),
    "lost update": ("repeatable-read", "snapshot-isolation"),
    "cyclic versions": ("repeatable-read", "snapshot-isolation"),
    "G-single": ("repeatable-read", "snapshot-isolation"),
    "G-single (any order)": ("repeatable-read", "snapshot-isolation"),
    "long fork": ("repeatable-read", "snapshot-isolation"),
    "G-nonadjacent": ("repeatable-read", "snapshot-isolation"),
    "G2-item": ("repeatable-read",),
    "lost elements": ("strict-serializable",),
}
"""The weakest levels that forbid each; every stronger level does, too. A cycle with an edge of
process order refutes strong session serializability, one of real time the strict one."""


_WITH_SESSIONS: Final[tuple[Level, ...]] = (
    "read-committed",
    "read-atomic",
    "causal",
    "strong-session-serializable",
    "strict-serializable",
)
_WEAKEST_WITH_SESSIONS: Final[dict[str, Level]] = {
    "G1c (session)": "read-committed",
    "non-monotonic read": "read-committed",
    "fractured read": "read-atomic",
    "causality violation": "causal",
}
"""Of registers: what contradicts read committed, read atomic or causal, all of which hold session
order, does not refute levels that have none."""


def stronger(level: Level) -> list[Level]:
    """A level and all that are stronger."""
    found = [level]
    for each, weaker in WEAKER.items():  # from the weakest on
        if any(other in found for other in weaker):
            found.append(each)
    return found


def refuted_by(name: str) -> list[Level]:
    """The levels that forbid an anomaly, weakest first."""
    if name in _WEAKEST_WITH_SESSIONS:
        return list(_WITH_SESSIONS[_WITH_SESSIONS.index(_WEAKEST_WITH_SESSIONS[name]) :])
    if name.endswith("-process"):
        weakest: tuple[Level, ...] = ("strong-session-serializable",)
    elif name.endswith("-realtime"):
        weakest = ("strict-serializable",)
    else:
        weakest = _WEAKEST[name]
    found = {level for each in weakest for level in stronger(each)}
    return [level for level in WEAKER if level in found]


def strongest(levels: dict[Level, VerdictValue]) -> list[Level]:
    """The levels that are not refuted, but for those that a stronger one of them includes."""
    valid = [level for level, verdict in levels.items() if verdict == "valid"]
    return [
        level
        for level in valid
        if not any(other != level and other in stronger(level) for other in valid)
    ]
