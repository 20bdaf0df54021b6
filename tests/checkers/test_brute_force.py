"""Every checker against the definitions of the models, on tiny histories.

27,000 histories: ``CHECKER_TINY_HISTORIES=27000 pytest tests/checkers/test_brute_force.py``, which
`make nightly` does too.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from bench.checkers import check_history
from bench.checkers.causal import check_causal
from bench.checkers.sequential import check_sequential
from bench.checkers.sessions.guarantees import GUARANTEES, check_sessions
from bench.checkers.staleness import stale_reads
from bench.record.columns import Columns
from bench.record.history import BadHistory, OperationRecord
from bench.record.well_formed import columns_of
from nodes.contract.replica import Value
from tests.checkers import brute_force as by_definition
from tests.checkers.tiny import tiny_processes

HISTORIES = int(os.environ.get("CHECKER_TINY_HISTORIES", "1000"))


@dataclass(frozen=True)
class Judged:
    """A tiny history, and which models hold by definition."""

    seed: int
    records: list[OperationRecord]
    initial: Value
    clock_error: int
    linearizable: bool
    sequential: bool
    causal: bool

    def __str__(self) -> str:
        lines = sorted(self.records, key=lambda r: (r.process, r.invoked_ns))
        told = f"seed {self.seed}, initially {self.initial}, clock error {self.clock_error}:\n"
        return told + "\n".join(map(str, lines))

    @property
    def is_unique(self) -> bool:
        """Whether values name their writes on every key."""
        keys = {r.key for r in self.records}
        return by_definition.unique_keys(self.records, self.initial) == keys


@cache
def judged(seed: int) -> Judged:
    rng = random.Random(seed)
    records, initial = tiny_processes(rng)
    return judge(seed, records, initial, rng.choice((0, 0, 0, 1, 2, 5)))


def judge(
    seed: int, records: list[OperationRecord], initial: Value = None, clock_error: int = 0
) -> Judged:
    return Judged(
        seed,
        records,
        initial,
        clock_error,
        by_definition.is_linearizable(records, initial, processes=True, clock_error=clock_error),
        by_definition.is_sequential(records, initial),
        by_definition.is_causal(records, initial),
    )


def histories(count: int = HISTORIES) -> Iterator[Judged]:
    return map(judged, range(count))


def test_no_model_is_stated_that_is_refuted_and_no_violation_is_false() -> None:
    counts: Counter[str] = Counter()
    for h in histories():
        check = check_history(h.records, initial=h.initial, clock_error_ns=h.clock_error)
        stated = check.strongest
        assert h.linearizable <= h.sequential <= h.causal, f"the definitions disagree: {h}"
        if check.verdict == "valid":
            assert h.linearizable, f"a false valid: {h}"
        if check.verdict == "invalid":
            assert not h.linearizable, f"a false violation ({check.summary}): {h}"
        assert getattr(h, stated, True), f"{stated} is stated: {h}"
        if stated == "none":
            assert not h.causal, f"nothing is stated: {h}"
        counts[stated] += 1
        counts[check.verdict] += 1
    for name in ("linearizable", "sequential", "causal", "none", "unknown", "invalid"):
        assert counts[name] > HISTORIES // 300, counts


def test_sequential_and_causal_are_as_defined() -> None:
    counts: Counter[str] = Counter()
    for h in histories():
        c = Columns.from_records(h.records)
        code = c.code_of(h.initial)
        has_ok = any(r.outcome == "ok" for r in h.records)
        for check, want in (
            (check_sequential(c, code), h.sequential),
            (check_causal(c, code), h.causal),
        ):
            assert check.verdict != "valid" or want, f"{check.name}, a false valid: {h}"
            assert check.verdict != "invalid" or not want, (
                f"{check.name}, a false violation ({check.summary}): {h}"
            )
            if check.witness and check.name == "sequential":
                shown = {line.operation.id for line in check.witness}
                part = [r for r in h.records if r.id in shown]
                assert (
                    not by_definition.is_sequential(part, h.initial) or check.details.impossible
                ), f"{check.name}: the witness shows nothing: {check.summary}"
            if h.is_unique and has_ok and (check.name == "causal" or len(c.keys) == 1):
                assert check.verdict == ("valid" if want else "invalid"), (
                    f"{check.name} is not decided: {h}"
                )
            if check.details.impossible:
                assert not want
            counts[f"{check.name} {check.verdict}"] += 1
    assert min(counts.values()) > HISTORIES // 50, counts


def test_what_is_impossible_is_so_in_every_model() -> None:
    nothing = 0
    for h in histories():
        if by_definition.is_impossible(h.records, h.initial):
            assert not h.causal, h
            stated = check_history(h.records, initial=h.initial).strongest
            assert stated in ("none", "unknown"), h
            nothing += stated == "none"
    assert nothing > HISTORIES // 30


def test_sessions_and_staleness_are_as_defined() -> None:
    counts: Counter[str] = Counter()
    for h in histories():
        records, initial, error = h.records, h.initial, h.clock_error
        c = Columns.from_records(records).widened(error)
        code = c.code_of(initial)
        check = check_sessions(c, code)
        want = by_definition.session_violations(records, initial, clock_error=error)
        got = {name: getattr(check.details, name).violations or 0 for name in GUARANTEES}
        assert got == want, f"{check.summary}: {h}"
        if check.verdict == "valid":
            assert not any(want.values()), h
            assert h.is_unique, h
        counts.update(name for name in GUARANTEES if want[name])
        stale = stale_reads(c, code)
        ages = {records[row].id: age for row, age in zip(stale.rows, stale.age_ns, strict=True)}
        assert ages == by_definition.stale_ages(records, initial, clock_error=error), h
        counts["stale"] += bool(ages)
    assert min(counts[name] for name in (*GUARANTEES, "stale")) > 0, counts


def test_the_oracle_needs_to_try_the_least_causal_orders_only() -> None:
    small = [h for h in histories() if len(by_definition.that_say_something(h.records)) <= 4]
    verdicts: Counter[bool] = Counter()
    for h in small[:100]:
        want = by_definition.is_causal_in_any_order(h.records, h.initial)
        assert h.causal == want, h
        verdicts[want] += 1
    assert min(verdicts.values()) > 10, verdicts


def test_the_histories_are_well_formed() -> None:
    for h in histories():
        try:
            columns_of(h.records)
        except BadHistory as error:
            raise AssertionError(h) from error
