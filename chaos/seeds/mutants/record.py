"""What became of which mutant, so that a later call goes on, and the score of each file.

The record is of one code: when the protocols, the simulator or the checkers change, it counts no
more.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.paths import ROOT
from chaos.seeds.gate import OfCode, code_hash, kept
from chaos.seeds.mutants.marks import Equivalent, Marks
from chaos.seeds.mutants.operators import Mutant
from chaos.seeds.mutants.sources import Target
from chaos.seeds.mutants.trial import Trial
from nodes.errors import InvalidInput

GOAL = 0.9
"""The share of the mutants of each file, but for the equivalent ones, that must be caught."""


class BadRecord(InvalidInput):
    """A file that is no record of mutants: one line."""


class Record(OfCode):
    """``trials``: by the protocols that were run, joined with ``+``, and `Mutant.key`."""

    trials: dict[str, dict[str, Trial]] = msgspec.field(default_factory=dict)

    def find(self, protocols: Sequence[str], mutant: Mutant, budget_s: float) -> Trial | None:
        """What became of it with that budget, if that is known."""
        trial = self.trials.get("+".join(protocols), {}).get(mutant.key)
        if trial is None or (trial.status == "caught" and trial.cpu_s <= budget_s):
            return trial
        return trial if trial.budget_s == budget_s else None

    def add(self, protocols: Sequence[str], mutant: Mutant, trial: Trial) -> None:
        """One more."""
        self.trials.setdefault("+".join(protocols), {})[mutant.key] = trial


def begin(path: Path, target: Target) -> tuple[Record, bool]:
    """The record at ``path``, or a new one; and whether there was one of other code, which counts
    no more. Raises BadRecord, OSError."""
    digest = hashlib.blake2b(code_hash().encode(), digest_size=16)
    for file in target.files:
        if not file.startswith("nodes/"):
            digest.update((ROOT / file).read_bytes())
    return kept(path, Record(digest.hexdigest()), "mutants", BadRecord)


# --- which are tried ---


def in_order(mutants: Sequence[Mutant], seed: int, sample: int | None = None) -> list[Mutant]:
    """In an order that is drawn from their content, so that the first ones are a fair sample and
    stay the same after edits elsewhere. ``sample``: at most so many of each file."""

    def drawn(mutant: Mutant) -> bytes:
        return hashlib.blake2b(f"{seed}/{mutant.key}".encode(), digest_size=8).digest()

    counts: dict[str, int] = {}
    chosen = []
    for mutant in sorted(mutants, key=drawn):
        counts[mutant.file] = counts.get(mutant.file, 0) + 1
        if sample is None or counts[mutant.file] <= sample:
            chosen.append(mutant)
    return chosen


# --- the score ---


class Score(msgspec.Struct):
    """Of a file: how many mutants there are, and what became of those that were tried.
    ``equivalent``: marked, and not tried."""

    file: str
    mutants: int = 0
    equivalent: int = 0
    caught: int = 0
    survived: int = 0
    died: int = 0
    broken: int = 0

    @property
    def counted(self) -> int:
        """How many were tried that count: what cannot be imported does not."""
        return self.caught + self.survived + self.died

    @property
    def is_whole(self) -> bool:
        """Whether all that count were tried."""
        return self.counted + self.broken + self.equivalent == self.mutants

    @property
    def share(self) -> float | None:
        """The share that was caught. None: none was tried."""
        return self.caught / self.counted if self.counted else None


class Survivor(msgspec.Struct, frozen=True):
    """A mutant that was tried and not caught."""

    mutant: Mutant
    trial: Trial
    diff: str


class Report(msgspec.Struct):
    """What is known of some mutants. ``left``: how many of those that were wanted are still to be
    tried; ``stale``: marks of their files that mean none of the mutants that there are."""

    scores: list[Score]
    survivors: list[Survivor]
    left: int
    stale: list[Equivalent]

    @property
    def falls_short(self) -> bool:
        """Whether a file misses the goal."""
        return any(score.share is not None and score.share < GOAL for score in self.scores)


def report(
    target: Target,
    mutants: Sequence[Mutant],
    wanted: Sequence[Mutant],
    record: Record,
    marks: Marks,
    budget_s: float,
) -> Report:
    """``wanted``: those of ``mutants`` that were to be tried."""
    known: dict[str, Trial] = {}
    for mutant in mutants:
        trial = record.find(target.files[mutant.file], mutant, budget_s)
        if trial is not None and marks.reason(mutant) is None:
            known[mutant.key] = trial
    found = {file: Score(file) for file in target.files}
    for mutant in mutants:
        score = found[mutant.file]
        score.mutants += 1
        score.equivalent += marks.reason(mutant) is not None
        if mutant.key in known:
            status = known[mutant.key].status
            setattr(score, status, getattr(score, status) + 1)
    survivors = [
        Survivor(mutant, known[mutant.key], diff(mutant))
        for mutant in mutants
        if mutant.key in known and known[mutant.key].status in ("survived", "died")
    ]
    return Report(
        scores=[score for score in found.values() if score.mutants],
        survivors=survivors,
        left=sum(mutant.key not in known for mutant in wanted),
        stale=marks.stale,
    )


def diff(mutant: Mutant) -> str:
    """The change as a unified diff."""
    before = (ROOT / mutant.file).read_bytes()
    after = mutant.apply(before)
    lines = difflib.unified_diff(
        before.decode().splitlines(),
        after.decode().splitlines(),
        f"a/{mutant.file}",
        f"b/{mutant.file}",
        lineterm="",
        n=2,
    )
    return "\n".join(lines)
