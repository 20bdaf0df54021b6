"""Anomalies that are no cycles: collected by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Finding:
    """``rows``: the operations that contradict each other. ``words``: why. ``others``: transactions
    between them."""

    rows: list[int]
    words: str
    count: int = 1
    others: Sequence[int] = ()


@dataclass(slots=True)
class Findings:
    """By the name of the anomaly: how many, and the first example."""

    by_name: dict[str, Finding] = field(default_factory=dict)

    def note(
        self, name: str, rows: list[int], words: str, count: int = 1, others: Sequence[int] = ()
    ) -> None:
        """One more, or ``count`` more."""
        finding = self.by_name.get(name)
        if finding is None:
            self.by_name[name] = Finding(rows, words, count, others)
        else:
            finding.count += count
