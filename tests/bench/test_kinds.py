"""Workloads of counters, sets, locks and lists, done on a register."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from bench.checkers.models import check_model
from bench.checkers.transactions import check_transactions
from bench.load.client import Client
from bench.load.kinds.final import final_model_reads
from bench.load.kinds.procedures import RELEASES, TRIES
from bench.load.kinds.tasks import SET_SIZE, STEPS
from bench.load.workload import PlannedOperation, Workload, plan
from bench.record.history import OperationRecord
from bench.record.models.jsonl import read_lines
from bench.record.models.run import Kind, ModelRecord
from bench.record.models.source import Source
from bench.record.transactions.jsonl import read_transactions
from bench.record.verdict import VerdictValue
from nodes.contract.replica import Operation, Reply, Request, Value

KINDS = [kind for kind in get_args(Kind) if kind not in ("register", "bank")]
NODES = ("n1", "n2", "n3")
MS = 1_000_000


def workload(kind: Kind, **changes: object) -> Workload:
    fields = {"rate_per_s": 200.0, "keys": 3, "mix": {"read": 1.0, "write": 1.0}, "duration_s": 2.0}
    if kind == "set":
        fields["keys"] = 30
    return msgspec.convert({**fields, "kind": kind, "seed": 1, **changes}, Workload)


class Store:
    """Registers in memory. ``lies``: what it does wrong."""

    def __init__(self, lies: str = "") -> None:
        self.held: dict[str, Value] = {}
        self.before: dict[str, Value] = {}
        self.lies = lies
        self.writes = 0

    def apply(self, operation: Operation) -> dict[str, object]:
        """What is answered."""
        key, value = operation.key, operation.value
        held = self.held.get(key)
        if operation.op == "read":
            return {"value": self.before.get(key) if self.lies == "stale reads" else held}
        self.writes += 1
        if operation.op == "cas" and held != operation.expected and self.lies != "blind cas":
            return {"applied": False, "seen": held}
        if self.lies == "lost writes" and self.writes % 5 == 0:
            return {}
        assert not isinstance(value, list)
        self.before[key], self.held[key] = held, value
        return {}


def driven(work: Workload, store: Store, seed: int, losses: float) -> list[ModelRecord]:
    """The plan on a store, at which requests and replies take random times or get lost."""
    rng = random.Random(seed)
    client = Client("c", timeout_s=0.3, in_flight=64)
    operations = plan(work, NODES)
    arriving: list[tuple[int, int, object]] = []
    number = 0

    def at(time_ns: int, what: object) -> None:
        nonlocal number
        number += 1
        arriving.append((time_ns, number, what))

    def send(planned: PlannedOperation, now_ns: int, intended_ns: int | None) -> None:
        request = client.invoke(planned, now_ns, intended_ns)
        if request is None:
            client.tasks.not_sent(planned.id)
        elif rng.random() >= losses:
            at(now_ns + rng.randrange(1, 40 * MS), request)

    for planned in operations:
        assert planned.intended_ns is not None
        at(planned.intended_ns, planned)
    records: list[ModelRecord] = []
    while arriving:
        arriving.sort(key=lambda each: each[:2], reverse=True)
        now_ns, _, what = arriving.pop()
        client.expire(now_ns)
        if isinstance(what, PlannedOperation):
            send(what, now_ns, what.intended_ns)
        elif isinstance(what, Request):
            said = store.apply(what.operation)
            if rng.random() >= losses:
                reply = msgspec.convert({"client": "c", "sequence": what.sequence, **said}, _Reply)
                at(now_ns + rng.randrange(1, 40 * MS), reply)
        elif isinstance(what, _Reply):
            client.on_reply(what.reply(), now_ns)
        while client.due:
            send(*(due := client.due.pop())[:1], now_ns, due[1])
        if not arriving and client.open_count:
            at(now_ns + 400 * MS, None)
        records += [each for _, done in client.tasks.ended for each in done]
        client.tasks.ended.clear()
    return records


class _Reply(msgspec.Struct, frozen=True):
    client: str
    sequence: int
    value: Value = None
    applied: bool | None = None
    seen: Value = None

    def reply(self) -> Reply:
        return Reply(
            self.client,
            self.sequence,
            "ok",
            value=self.value,
            applied=self.applied,
            seen=self.seen,
        )


def judged(kind: Kind, records: list[ModelRecord]) -> VerdictValue:
    lines = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
    source = Source(Path("test"), "test", lines, io.BytesIO())
    if kind == "list-append":
        return check_transactions(read_transactions(source), kind).verdict
    return check_model(read_lines(source), kind).verdict


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("losses", [0.0, 0.1])
def test_on_a_store_that_keeps_its_word_nothing_is_refuted(kind: Kind, losses: float) -> None:
    records = driven(workload(kind), Store(), seed=3, losses=losses)
    outcomes = {record.outcome for record in records}
    assert "ok" in outcomes
    assert ("info" in outcomes) == (losses > 0)
    assert judged(kind, records) == "valid"


@pytest.mark.parametrize(
    ("kind", "lies"),
    [
        ("counter", "stale reads"),
        ("counter", "blind cas"),
        ("set", "lost writes"),
        ("set-full", "blind cas"),
        ("set-full", "stale reads"),
        ("lock", "blind cas"),
        ("fenced-lock", "blind cas"),
        ("list-append", "blind cas"),
        ("list-append", "stale reads"),
    ],
)
def test_a_store_that_lies_is_found(kind: Kind, lies: str) -> None:
    assert judged(kind, driven(workload(kind), Store(lies), seed=3, losses=0.0)) == "invalid"


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_plan_are_the_whole_and_their_ids_do_not_meet(kind: Kind) -> None:
    work = workload(kind)
    whole = [each.task for each in plan(work, NODES)]
    parts = [[each.task for each in plan(work, NODES, part=part, parts=3)] for part in range(3)]
    together = [task for part in parts for task in part if task is not None]
    assert sorted(together, key=lambda task: task.id) == whole
    ids = [task.id for task in whole if task is not None]
    assert all(later - earlier > STEPS for earlier, later in pairwise(ids))
    deeds = [task.deed for task in whole if task is not None]
    assert 0.3 < deeds.count("read") / len(deeds) < (0.95 if kind == "set" else 0.7)


def test_elements_of_sets_are_added_once_each_through_the_whole_load() -> None:
    added = [
        each
        for each in plan(workload("set"), NODES)
        if each.task is not None and each.task.deed == "change"
    ]
    names = [each.task.keys[0] for each in added if each.task is not None]
    assert names == [f"k{number}" for number in range(len(names))]
    assert len(names) in (29, 30)
    times = [each.intended_ns or 0 for each in added]
    assert times[len(times) // 2] > 800 * MS
    assert {each.task.target for each in added if each.task} == {
        f"set{number}" for number in range(-(-30 // SET_SIZE))
    }


class Script:
    """One task, answered by hand."""

    def __init__(self, kind: Kind, deed: str) -> None:
        self.client = Client("c", timeout_s=1.0)
        self.planned = next(
            each
            for each in plan(workload(kind), NODES)
            if each.task is not None and each.task.deed == deed
        )
        self.now_ns = 0
        self.request = self.client.invoke(self.planned, 0, 0)
        self.sent = [self._asked()]
        self.nodes = [self.planned.node]

    def _asked(self) -> str:
        assert self.request is not None
        return self.request.operation.op

    def answer(self, **said: object) -> None:
        """The open request is answered ok; the next step is sent."""
        assert self.request is not None
        self.now_ns += 1
        reply = Reply("c", self.request.sequence, "ok", **said)  # type: ignore[arg-type]
        self.client.on_reply(reply, self.now_ns)
        self._next()

    def time_out(self) -> None:
        """Nobody answers."""
        self.now_ns += 2_000_000_000
        self.client.expire(self.now_ns)
        self._next()

    def _next(self) -> None:
        self.request = None
        for planned, intended_ns in self.client.due:
            assert intended_ns == self.now_ns, "a step is wanted when the one before it has ended"
            self.request = self.client.invoke(planned, self.now_ns, intended_ns)
            self.sent.append(self._asked())
            self.nodes.append(planned.node)
        self.client.due.clear()

    def did(self) -> list[tuple[str | None, str]]:
        """What the task did, once it has ended."""
        ((_, records),) = self.client.tasks.ended
        return [(record.op, record.outcome) for record in records]


def test_a_change_is_tried_again_on_what_the_refusal_saw() -> None:
    script = Script("counter", "change")
    script.answer(value="4 99")
    script.answer(applied=False, seen="5 98")
    assert script.request is not None
    assert script.request.operation.expected == "5 98"
    assert str(script.request.operation.value).startswith("6 ")
    script.answer(applied=True)
    assert (script.did(), script.sent) == ([("add", "ok")], ["read", "cas", "cas"])


def test_a_change_that_is_always_refused_has_failed() -> None:
    script = Script("counter", "change")
    script.answer(value=None)
    while script.request is not None:
        script.answer(applied=False, seen=f"{len(script.sent)} 98")
    assert script.did() == [("add", "fail")]
    assert script.sent.count("cas") == TRIES


def test_a_change_of_unknown_outcome_is_not_tried_again() -> None:
    script = Script("counter", "change")
    script.answer(value=None)
    script.time_out()
    assert (script.did(), script.sent) == ([("add", "info")], ["read", "cas"])


def test_a_change_that_only_read_has_certainly_failed() -> None:
    script = Script("counter", "change")
    script.time_out()
    assert script.did() == [("add", "fail")]


def test_what_is_open_when_the_load_ends_is_unknown_for_ever() -> None:
    script = Script("counter", "change")
    script.client.abandon()
    ((_, (record,)),) = script.client.tasks.ended
    assert (record.outcome, record.completed_ns) == ("info", None)
    assert script.client.due == []


def test_a_lock_whose_acquire_is_unknown_is_released_elsewhere() -> None:
    script = Script("lock", "change")
    script.answer(value=None)
    script.time_out()
    script.time_out()
    script.answer(applied=True)
    assert script.did() == [("acquire", "info"), ("release", "info"), ("release", "ok")]
    assert len(set(script.nodes)) > 1, "the node that was asked may be cut off"


def test_a_lock_that_nobody_answers_for_is_given_up() -> None:
    script = Script("lock", "change")
    script.answer(value=None)
    while script.request is not None:
        script.time_out()
    assert script.did() == [("acquire", "info")] + RELEASES * [("release", "info")]


def test_a_lock_that_is_held_is_not_asked_for() -> None:
    script = Script("fenced-lock", "change")
    script.answer(value="held 3 17")
    assert (script.did(), script.sent) == ([("acquire", "fail")], ["read"])


def test_a_step_that_is_dropped_ends_its_task() -> None:
    script = Script("counter", "change")
    assert script.request is not None
    script.client.on_reply(Reply("c", script.request.sequence, "ok", value="1 7"), 5)
    ((step, _),) = script.client.due
    script.client.tasks.not_sent(step.id)
    assert script.did() == [("add", "fail")]


def test_what_no_procedure_writes_makes_a_read_unknown() -> None:
    script = Script("counter", "read")
    script.answer(value="seven")
    assert script.did() == [("read", "info")]


def finals(values: dict[str, Value]) -> Iterator[OperationRecord]:
    for number, (key, value) in enumerate(values.items()):
        yield OperationRecord(
            process="f",
            id=number,
            op="read",
            key=key,
            value=value,
            outcome="ok",
            invoked_ns=number,
            completed_ns=number + 10,
            node="n1",
        )


def test_final_reads_are_reads_of_the_kind() -> None:
    keys = [f"k{number}" for number in range(10)]
    told = list(finals({key: 7 if key in ("k2", "k9") else None for key in keys}))
    reads = list(final_model_reads("set", told, keys))
    assert [(read.key, read.value) for read in reads] == [("set0", ["k2"]), ("set1", ["k9"])]
    assert (reads[0].invoked_ns, reads[0].completed_ns) == (0, 17)
    # Of the second set one key is not told: nothing is said of it.
    assert [read.key for read in final_model_reads("set", told[:-1], keys)] == ["set0"]
    (read,) = final_model_reads("counter", list(finals({"k0": "5 99"})), ["k0"])
    assert (read.key, read.value) == ("k0", 5)
    (read,) = final_model_reads("list-append", list(finals({"k0": "5 99"})), ["k0"])
    assert read.transaction == [("read", "k0", [5, 99])]


def test_a_process_is_used_again_unless_nobody_knows_what_it_did() -> None:
    records = driven(workload("counter"), Store(), seed=3, losses=0.1)
    unknown = {record.process: record.invoked_ns for record in records if record.outcome == "info"}
    assert unknown
    assert all(
        record.invoked_ns <= unknown.get(record.process, record.invoked_ns) for record in records
    )
    assert len({record.process for record in records}) < len(records) / 2
