"""What the checkers of the models find: contradictions by name, each with its first operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.record.columns import OK, Bools, Int64s
from bench.record.models.operations import Operations


@dataclass(slots=True)
class Found:
    """``rows``: operations that contradict each other. ``words``: why. ``count``: how many such
    contradictions there are."""

    rows: list[int]
    words: str
    count: int


@dataclass(slots=True)
class Findings:
    """By name, in the order in which they were found. ``undecided``: why a history without a
    contradiction is not *valid* yet. ``details``: figures."""

    by_name: dict[str, Found] = field(default_factory=dict)
    undecided: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, rows: list[int], words: str, count: int = 1) -> None:
        """So many more of a kind."""
        found = self.by_name.setdefault(name, Found(rows, words, 0))
        found.count += count


def keys_of(o: Operations) -> list[tuple[str, Int64s]]:
    """The objects of a history, and the rows of each; the name is empty where there is only one."""
    if len(o) == 0:
        return []
    order = np.argsort(o.key, kind="stable")
    ends = np.flatnonzero(np.diff(o.key[order])) + 1
    parts = np.split(order, ends)
    return [("" if o.key[rows[0]] < 0 else o.keys[o.key[rows[0]]], rows) for rows in parts]


def named(o: Operations, rows: Int64s, *names: str) -> Int64s:
    """Those of ``rows`` that are operations of these names."""
    codes = [code for code, name in enumerate(o.names) if name in names]
    return rows[np.isin(o.op[rows], codes)]


def ended_ok(o: Operations, rows: Int64s) -> Int64s:
    """Those of ``rows`` that ended ok."""
    is_ok: Bools = o.outcome[rows] == OK
    return rows[is_ok]
