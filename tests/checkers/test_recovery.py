"""Time to recover: operations that wait through an election, and end ok in the end, hide
nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.checkers import availability
from bench.checkers.outages import outages, pauses, silences
from bench.record.history import OperationRecord
from bench.record.run_folder import FaultRecord, Manifest
from bench.record.verdict import Availability

MS = 1_000_000
NODES = ["n1", "n2", "n3"]
EVERY_MS = 10


def recovery(answered_ms: Callable[[int], int | None], nodes: list[str] = NODES) -> float | None:
    """``recovery_s`` of the load that `details` describes."""
    return details(answered_ms, nodes).recovery_s


def details(
    answered_ms: Callable[[int], int | None], nodes: list[str], ask: str = "any"
) -> Availability:
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
        experiment={"workload": {"ask": ask}},
        protocol="raft",
        claim="linearizable",
        nodes=NODES,
        target="local",
        seed=1,
        started_utc="",
        load_started_ns=0,
        load_ended_ns=12_000 * MS,
        complete=True,
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


def test_what_was_under_way_when_a_fault_struck_counts_as_hit_by_it() -> None:
    """The operations of the last 30 ms before the fault are lost with those of the first second."""
    assert recovery(lambda at: None if 1970 <= at < 3000 else at + 3) == pytest.approx(1.013)


def test_an_outage_that_began_long_before_a_fault_is_not_its_own_and_yet_nobody_is_back() -> None:
    found = details(lambda at: None if 1000 <= at < 3000 else at + 3, NODES)
    assert found.recovery_s == pytest.approx(1.0, abs=0.02)
    (outage,) = found.outages
    assert (outage.fault, outage.begin_s) == (None, 1.0)


def test_clients_that_choose_the_side_themselves_are_all_hit_by_a_cut() -> None:
    """All ask n1, alone on its side, until 4 s, and then the others."""
    found = [
        details(
            lambda at: None if 2000 <= at < 4000 else at + 3,
            ["n1" if at < 4000 else "n2" for at in range(0, 12_000, EVERY_MS)],
            ask,
        ).recovery_s
        for ask in ("any", "leader")
    ]
    assert found == [0.0, pytest.approx(2.0, abs=0.02)]


def test_an_outage_that_begins_after_the_heal_is_said_and_not_called_a_recovery() -> None:
    found = details(lambda at: None if 9200 <= at < 10_000 else at + 3, NODES)
    assert found.recovery_s == 0.0
    assert [outage.fault for outage in found.outages] == [None]


def test_one_operation_of_a_hundred_is_no_outage_and_two_are() -> None:
    lost = {10_000}  # no cut is on: 100 were wanted in that second
    assert details(lambda at: None if at in lost else at + 3, NODES).outages == []
    lost.add(10_500)
    found = details(lambda at: None if at in lost else at + 3, NODES)
    assert len(found.outages) == 1


def test_a_load_that_pauses_is_no_silence_and_its_outage_ends_when_it_goes_on() -> None:
    wanted = np.arange(0, 10, 0.01)
    wanted = wanted[(wanted < 3) | (wanted >= 6)]
    stamps = (wanted * 1e9).astype(np.int64)
    answers = stamps + 3 * MS
    found = pauses(stamps, answers, 10_000 * MS)
    assert len(silences(found, stamps, 0, 10_000 * MS).starts) == 0
    # Of the last four before the pause, which were wanted at once, one is served.
    stamps = np.sort(np.concatenate((stamps, [stamps[299]] * 3)))
    answers = stamps + 3 * MS
    served = ~np.isin(np.arange(len(stamps)), (299, 300, 301))
    silent = silences(pauses(stamps, answers[served], 10_000 * MS), stamps, 0, 10_000 * MS)
    (outage,) = outages(stamps, served, silent, 10_000 * MS)
    assert outage.end_ns is not None
    assert (outage.start_ns / 1e9, outage.end_ns / 1e9) == pytest.approx((2.99, 6))
