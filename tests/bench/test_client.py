"""Requests, replies, timeouts and logical processes, without any I/O."""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load.client import NOT_SENT, STILL_OPEN, TIMEOUT, Client, Lateness
from bench.load.workload import PlannedOperation
from bench.record.history import OperationRecord
from nodes.contract.replica import Operation, OperationKind, Outcome, Reply, Request, Value, Version

SECOND = 1_000_000_000


def operation(
    number: int, op: OperationKind = "write", *, node: str = "n1", key: str = "k"
) -> PlannedOperation:
    value = number if op in ("write", "cas") else None
    return PlannedOperation(number, None, node, op, key, value)


def client(in_flight: int | None = None) -> Client:
    return Client("c", timeout_s=2.0, in_flight=in_flight)


def sent(of: Client, planned: PlannedOperation, now_ns: int = 0) -> Request:
    request = of.invoke(planned, now_ns)
    assert request is not None
    return request


def answered(
    of: Client,
    request: Request,
    outcome: Outcome = "ok",
    now_ns: int = 1,
    *,
    value: Value | list[Value] = None,
    version: Version = None,
    applied: bool | None = None,
    seen: Value = None,
    error: str | None = None,
) -> OperationRecord:
    reply = Reply(request.client, request.sequence, outcome, value, version, applied, seen, error)
    record = of.on_reply(reply, now_ns)
    assert record is not None
    return record


def test_a_record_says_what_was_asked_and_answered() -> None:
    load = client()
    read = load.invoke(operation(4, "read", node="n2"), 30, intended_ns=20)
    assert read is not None
    record = answered(load, read, now_ns=90, value=[1, 2], version={"n1": 3})
    assert record == OperationRecord(
        process="c.p1",
        id=4,
        op="read",
        key="k",
        outcome="ok",
        intended_ns=20,
        invoked_ns=30,
        completed_ns=90,
        value=[1, 2],
        node="n2",
        version={"n1": 3},
    )


def test_a_write_keeps_its_own_value_whatever_the_reply_says() -> None:
    load = client()
    assert answered(load, sent(load, operation(5)), value=None).value == 5
    assert answered(load, sent(load, operation(6)), "fail", error="no").value == 6


def test_a_read_that_failed_has_no_value() -> None:
    load = client()
    assert answered(load, sent(load, operation(5, "read")), "fail", value=9).value is None


def test_a_reply_counts_once_and_only_for_its_client() -> None:
    load = client()
    request = sent(load, operation(1))
    assert load.on_reply(Reply("other", request.sequence, "ok"), 1) is None
    answered(load, request)
    assert load.on_reply(Reply("c", request.sequence, "ok"), 2) is None
    assert load.on_reply(Reply("c", 77, "ok"), 2) is None
    assert load.unmatched == 3


def test_no_answer_in_time_is_info_and_a_late_one_changes_nothing() -> None:
    load = client()
    first, second = sent(load, operation(1), 0), sent(load, operation(2), 5)
    assert load.next_deadline_ns() == 2 * SECOND
    assert load.expire(2 * SECOND - 1) == []
    (record,) = load.expire(2 * SECOND)
    assert (record.id, record.outcome, record.error) == (1, "info", TIMEOUT)
    assert record.completed_ns == 2 * SECOND
    assert load.on_reply(Reply("c", first.sequence, "ok"), 2 * SECOND + 1) is None
    assert load.next_deadline_ns() == 2 * SECOND + 5
    answered(load, second)
    assert load.next_deadline_ns() is None
    assert load.expire(100 * SECOND) == []


def test_abandoned_operations_never_completed() -> None:
    load = client()
    sent(load, operation(1))
    (record,) = load.abandon()
    assert (record.outcome, record.completed_ns, record.error) == ("info", None, STILL_OPEN)
    assert load.open_count == 0


def test_what_was_not_sent_failed_for_certain() -> None:
    load = client()
    record = load.not_sent(sent(load, operation(1)), 9)
    assert (record.outcome, record.completed_ns, record.error) == ("fail", 9, NOT_SENT)
    assert answered(load, sent(load, operation(2))).process == record.process


def test_a_process_is_used_again_after_ok_and_fail_and_retired_after_info() -> None:
    load = client()
    processes = []
    for number, outcome in enumerate(("ok", "fail", "info", "ok"), 1):
        outcome_: Outcome = outcome  # type: ignore[assignment]
        processes.append(answered(load, sent(load, operation(number)), outcome_).process)
    assert processes == ["c.p1", "c.p1", "c.p1", "c.p2"]


def test_more_than_the_cap_is_dropped() -> None:
    load = client(in_flight=2)
    first = sent(load, operation(1))
    sent(load, operation(2))
    assert load.invoke(operation(3), 0) is None
    answered(load, first)
    assert load.invoke(operation(4), 0) is not None
    assert load.open_count == 2


def test_acked_is_the_oldest_open_sequence() -> None:
    load = client()
    first, second = sent(load, operation(1)), sent(load, operation(2))
    assert (first.sequence, first.acked, second.sequence, second.acked) == (0, 0, 1, 0)
    answered(load, second)
    assert sent(load, operation(3)).acked == 0
    answered(load, first)
    assert sent(load, operation(4)).acked == 2
    load.expire(100 * SECOND)
    assert sent(load, operation(5)).acked == 4


def test_cas_expects_what_was_seen_last() -> None:
    load = client()

    def expected() -> Value:
        request = sent(load, operation(99, "cas"))
        answered(load, request, "fail")
        return request.operation.expected

    assert expected() is None
    answered(load, sent(load, operation(1)))
    assert expected() == 1
    answered(load, sent(load, operation(2, "read")), value=41)
    assert expected() == 41
    record = answered(load, sent(load, operation(3, "cas")), applied=True)
    assert (record.expected, record.value, record.applied) == (41, 3, True)
    assert expected() == 3
    refused = answered(load, sent(load, operation(4, "cas")), applied=False, seen=50)
    assert (refused.applied, refused.seen) == (False, 50)
    assert expected() == 50
    answered(load, sent(load, operation(5, "read")), value=[6, 7])
    assert expected() == 50
    answered(load, sent(load, operation(6, "delete")))
    assert expected() is None
    assert sent(load, operation(7, "cas", key="other")).operation.expected is None


def test_a_write_does_not_depend_on_what_was_read() -> None:
    load = client()
    answered(load, sent(load, operation(1, "read")), value=1, version={"n1": 2})
    assert sent(load, operation(2)).operation == Operation("write", "k", 2)


def asked(of: Client, number: int, node: str) -> tuple[Request, str]:
    """The request, and the node that it is sent to."""
    request = sent(of, operation(number, node=node))
    return request, of.node_of(request)


def test_who_leads_is_asked_from_the_reply_that_said_so_on() -> None:
    load = Client("c", timeout_s=2.0, may_lead=("n1", "n2", "n3"))
    first, node = asked(load, 1, "n3")
    assert (node, load.asked_leader) == ("n3", 0)
    load.on_reply(Reply("c", first.sequence, "ok", leader="n2"), 1)
    second, node = asked(load, 2, "n1")
    assert (node, load.asked_leader) == ("n2", 1)
    record = answered(load, second)
    assert (record.node, record.process) == ("n2", "c.p2")
    # A reply that names nobody says nothing.
    assert asked(load, 3, "n1")[1] == "n2"


@pytest.mark.parametrize("name", ["n4", "", "n2 ", "leader"])
def test_a_name_that_is_no_member_is_not_asked(name: str) -> None:
    load = Client("c", timeout_s=2.0, may_lead=("n1", "n2", "n3"))
    first, _ = asked(load, 1, "n1")
    load.on_reply(Reply("c", first.sequence, "ok", leader=name), 1)
    assert asked(load, 2, "n3")[1] == "n3"


def test_whoever_leads_the_planned_node_is_asked_unless_the_workload_wants_the_leader() -> None:
    load = client()
    first, _ = asked(load, 1, "n1")
    load.on_reply(Reply("c", first.sequence, "ok", leader="n2"), 1)
    assert asked(load, 2, "n3")[1] == "n3"
    assert load.asked_leader == 0


@pytest.mark.parametrize("outcome", ["fail", "info", "timeout", "not sent"])
def test_a_leader_that_fails_is_asked_no_more(outcome: str) -> None:
    load = Client("c", timeout_s=2.0, may_lead=("n1", "n2", "n3"))
    first, _ = asked(load, 1, "n1")
    load.on_reply(Reply("c", first.sequence, "ok", leader="n2"), 1)
    request, node = asked(load, 2, "n3")
    assert node == "n2"
    if outcome == "timeout":
        load.expire(3 * SECOND)
    elif outcome == "not sent":
        load.not_sent(request, 2)
    else:
        told: Outcome = outcome  # type: ignore[assignment]
        load.on_reply(Reply("c", request.sequence, told, leader="n2"), 2)
    third, node = asked(load, 3, "n3")
    assert node == "n3"
    # That node is asked as planned: what fails there says nothing of the leader.
    load.on_reply(Reply("c", third.sequence, "ok", leader="n1"), 3 * SECOND)
    assert asked(load, 4, "n3")[1] == "n1"


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["invoke", "ok", "fail", "info", "expire", "late"]),
            st.integers(0, 9),
        ),
        max_size=80,
    )
)
def test_processes_are_sequential_pinned_and_never_outlive_an_info(
    steps: list[tuple[str, int]],
) -> None:
    load = client(in_flight=6)
    now = 0
    invoked: list[Request] = []
    waiting: list[Request] = []
    records: list[OperationRecord] = []
    for number, (what, choice) in enumerate(steps, 1):
        now += choice * SECOND // 4
        if what == "invoke":
            request = load.invoke(operation(number, node=f"n{choice % 3}"), now)
            if request is None:
                assert load.open_count == 6
                continue
            assert all(request.acked <= other.sequence for other in waiting)
            assert not invoked or request.acked >= invoked[-1].acked
            invoked.append(request)
            waiting.append(request)
        elif what == "expire":
            ended = load.expire(now)
            records += ended
            waiting = [r for r in waiting if r.operation.value not in {e.id for e in ended}]
        elif what == "late" and invoked:
            request = invoked[choice % len(invoked)]
            if request not in waiting:
                assert load.on_reply(Reply("c", request.sequence, "ok"), now) is None
        elif what in ("ok", "fail", "info") and waiting:
            outcome: Outcome = what  # type: ignore[assignment]
            request = waiting.pop(choice % len(waiting))
            records.append(answered(load, request, outcome, now))
    records += load.abandon()
    assert Counter(r.id for r in records) == Counter(r.operation.value for r in invoked)
    stories: dict[str, list[OperationRecord]] = {}
    for record in sorted(records, key=lambda record: record.id):
        stories.setdefault(record.process, []).append(record)
    for story in stories.values():
        assert len({record.node for record in story}) == 1
        assert all(record.outcome != "info" for record in story[:-1])
        for earlier, later in itertools.pairwise(story):
            assert earlier.completed_ns is not None
            assert earlier.completed_ns <= later.invoked_ns


def test_lateness_quantiles() -> None:
    lateness = Lateness()
    assert lateness.quantile_ms(0.5) is None
    late_ns = np.random.default_rng(1).lognormal(14, 1.5, 20_000).astype(int)
    for value in late_ns:
        lateness.add(int(value))
    for share in (0.5, 0.99):
        exact = float(np.quantile(late_ns, share, method="inverted_cdf")) / 1e6
        assert exact <= (lateness.quantile_ms(share) or 0) * 1.001
        assert lateness.quantile_ms(share) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("outcome", ["ok", "fail", "info"])
def test_what_comes_behind_an_operation_is_due_only_when_it_ended_ok(outcome: Outcome) -> None:
    load = client()
    write = operation(2)
    read = load.invoke(msgspec.structs.replace(operation(1, "read"), then=write), 30, 20)
    assert read is not None
    assert (load.due, load.given_up) == ([], [])
    answered(load, read, outcome)
    behind = [(write, 20)]
    assert load.due == (behind if outcome == "ok" else [])
    assert load.given_up == ([] if outcome == "ok" else behind)


def test_what_comes_behind_an_operation_without_an_answer_is_given_up() -> None:
    load = client()
    for number in (1, 3):
        planned = operation(number, "read")
        sent(load, msgspec.structs.replace(planned, then=operation(number + 1)), number)
    load.expire(2 * SECOND + 1)
    assert [planned.id for planned, _ in load.given_up] == [2]
    load.abandon()
    assert [planned.id for planned, _ in load.given_up] == [2, 4]
    assert load.due == []
