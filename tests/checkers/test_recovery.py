"""Time to recover: operations that wait through an election, and end ok in the end, hide
nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.checkers import availability
from bench.history import OperationRecord
from bench.run_folder import FaultRecord, Manifest

MS = 1_000_000
NODES = ["n1", "n2", "n3"]
EVERY_MS = 10


def recovery(answered_ms: Callable[[int], int | None], nodes: list[str] = NODES) -> float | None:
    """``recovery_s`` of the load that `details` describes."""
    seconds: float | None = details(answered_ms, nodes)["recovery_s"]
    return seconds


def details(answered_ms: Callable[[int], int | None], nodes: list[str]) -> dict[str, Any]:
    """What the checker finds in a load of 12 s with a fault from 2 s to 9 s. ``answered_ms``: when
    the operation that was intended at a given time was answered ok; None: never."""
    records = []
    for number, at in enumerate(range(0, 12_000, EVERY_MS)):
        end = answered_ms(at)
        records.append(
            OperationRecord(
                process=f"p{number}",
                id=number,
                op="write",
                key="k",
                value=number,
                outcome="info" if end is None else "ok",
                node=nodes[number % len(nodes)],
                invoked_ns=at * MS,
                intended_ns=at * MS,
                completed_ns=None if end is None else end * MS,
            )
        )
    manifest = Manifest(
        capbench_version="0",
        experiment_name="x",
        experiment={},
        protocol="raft",
        claim="linearizable",
        nodes=NODES,
        target="local",
        seed=1,
        started_utc="",
        load_started_ns=0,
        load_ended_ns=12_000 * MS,
    )
    fault = FaultRecord(
        number=0,
        fault="partition",
        groups=[["n1"], ["n2", "n3"]],
        planned_ns=2000 * MS,
        started_ns=2000 * MS,
        applied_ns=2000 * MS,
        heal_started_ns=9000 * MS,
        healed_ns=9000 * MS,
    )
    return availability.check_availability(manifest, records, [fault], []).details


def promptly(at: int) -> int:
    return at + 3


def test_a_load_that_nothing_disturbed_recovered_at_once() -> None:
    assert recovery(promptly) == 0.0


def test_operations_that_waited_through_an_election_count_as_not_served() -> None:
    def waits(at: int) -> int:
        return max(at, 3300) + 3 if 2000 <= at < 3300 else at + 3

    assert recovery(waits) == pytest.approx(1.3, abs=0.02)


def test_operations_that_got_no_answer_count_as_not_served() -> None:
    assert recovery(lambda at: None if 2000 <= at < 4500 else at + 3) == pytest.approx(
        2.5, abs=0.04
    )


def test_a_stall_long_after_the_recovery_is_not_part_of_it() -> None:
    def stalls(at: int) -> int:
        for begin, end in ((2000, 3000), (7000, 7600)):
            if begin <= at < end:
                return end + 3
        return at + 3

    assert recovery(stalls) == pytest.approx(1.0, abs=0.02)


def test_a_short_breath_between_two_silences_is_no_recovery() -> None:
    def breathes(at: int) -> int:
        for begin, end in ((2000, 3000), (3500, 4200)):
            if begin <= at < end:
                return end + 3
        return at + 3

    assert recovery(breathes) == pytest.approx(2.2, abs=0.02)


def test_who_never_came_back_within_the_load_has_no_recovery() -> None:
    assert recovery(lambda at: None if at >= 2000 else at + 3) is None


def during(answered_ms: Callable[[int], int | None]) -> dict[str, float]:
    """The counts of the window *during*."""
    counts: dict[str, float] = details(answered_ms, NODES)["windows"]["during"]
    return counts


def test_an_answer_after_the_heal_is_no_answer_of_the_fault() -> None:
    """Killed at 2 s, back at 9 s, every operation answered then: nobody was served meanwhile."""
    counts = during(lambda at: max(at, 9000) + 3 if 2000 <= at < 9000 else at + 3)
    assert (counts["ok"], counts["straddlers"]) == (0, 0)
    assert counts["total"] == 700


def test_who_was_only_just_asked_at_the_end_is_left_out() -> None:
    """Every answer takes 50 ms, the fault ends at 9 s: what was asked after 8.95 s could not end
    in time, and says nothing against the protocol."""
    counts = during(lambda at: at + 50)
    assert counts["straddlers"] == 4
    assert counts["ok"] == counts["total"] == 696
