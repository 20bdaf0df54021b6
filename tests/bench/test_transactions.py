"""Workloads of transactions: planned, done through a client's method, judged in a run folder."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.checkers import check_run
from bench.load.client import Client
from bench.load.kinds.tasks import Task
from bench.load.kinds.transactions import Transacted, asked, perform
from bench.load.system_client import Prefixed, carried_out
from bench.load.workload import BadWorkload, Workload, make_workload, plan
from bench.record.history import HistoryWriter
from bench.record.models.run import Kind
from bench.record.run_folder import LoadSummary, RunFolder, write_json
from bench.record.verdict import Claim, Verdict, WorkloadCheck
from chaos.systems.system import Answer, NotApplied, SystemClient, Transaction
from chaos.targets.table import refuse_kind
from nodes.contract.replica import Operation, Reply, Value
from nodes.errors import Unsupported
from reports.charts.charts import totals
from reports.charts.witnesses import witnesses
from reports.data.metrics import load as tables_of
from tests.reports import synthetic

NODES = ("n1", "n2", "n3")
OFFERED = ["read", "write", "transaction"]
MS = 1_000_000


class Store(SystemClient):
    """Transactions one after the other, in memory. ``lies``: every seventh one is done on what was
    there five transactions ago."""

    def __init__(self, *, lies: bool = False) -> None:
        self.lies = lies
        self.states: list[dict[str, Value]] = [{}]

    def invoke(self, operation: Operation) -> Answer:
        raise NotImplementedError

    def transaction(self, keys: Sequence[str], work: Callable[[Transaction], None]) -> None:
        is_lie = self.lies and len(self.states) % 7 == 0
        at = _At(set(keys), self.states[-5 if is_lie else -1])
        work(at)
        self.states.append({**self.states[-1], **at.written})


class _At(Transaction):
    def __init__(self, keys: set[str], state: dict[str, Value]) -> None:
        self.keys, self.state = keys, state
        self.written: dict[str, Value] = {}

    def read(self, key: str) -> Value:
        assert key in self.keys
        return self.written.get(key, self.state.get(key))

    def write(self, key: str, value: Value) -> None:
        assert key in self.keys
        self.written[key] = value


def workload(kind: Kind, **changes: Any) -> Workload:
    fields = {"rate_per_s": 200.0, "keys": 4, "mix": {"read": 1, "write": 1}, "duration_s": 2.0}
    return msgspec.convert({**fields, "kind": kind, "seed": 1, **changes}, Workload)


def run(path: Path, kind: Kind, claim: Claim, *, lies: bool = False) -> Verdict:
    """A run whose requests are done in the order in which they were sent; replies take their time,
    and some get lost."""
    rng = random.Random(3)
    client, store = Client("load-1", timeout_s=0.3), Store(lies=lies)
    manifest = synthetic.manifest(synthetic.Shape("etcd", "healthy"))
    manifest = msgspec.structs.replace(
        manifest,
        claim=claim,
        kind=kind,
        operations=OFFERED,
        offered_per_s=200.0,
        load_started_ns=0,
        load_ended_ns=2000 * MS,
    )
    folder = RunFolder.create(path, manifest)
    ended, replies, last_ns = [], list[tuple[int, int, Reply]](), 0
    for planned in plan(workload(kind), NODES, operations=OFFERED):
        assert planned.intended_ns is not None
        last_ns = planned.intended_ns
        while replies and min(replies)[0] <= last_ns:
            at_ns, _, reply = replies.pop(replies.index(min(replies)))
            ended.append(client.on_reply(reply, at_ns))
        ended += client.expire(last_ns)
        request = client.invoke(planned, last_ns, last_ns)
        assert request is not None
        if rng.random() > 0.05:
            replies.append(
                (last_ns + rng.randrange(1, 40 * MS), request.sequence, carried_out(store, request))
            )
    ended += client.abandon()
    with HistoryWriter(folder.history_dir / "load-1.jsonl") as history:
        for record in filter(None, ended):
            history.append(record)
    with HistoryWriter(folder.model_dir / "load-1.jsonl") as model:
        for _, records in client.tasks.ended:
            for each in records:
                model.append_model(each)
    summary = LoadSummary(
        client="load-1",
        started_ns=0,
        ended_ns=last_ns,
        offered_per_s=200.0,
        intended=len(ended),
        invoked=len(ended),
        dropped=0,
        model_operations=model.count,
    )
    write_json(folder.load_dir / "load-1.json", summary)
    verdict = check_run(folder)
    folder.write_verdict(verdict)
    return verdict


def of_kind(verdict: Verdict) -> WorkloadCheck:
    (check,) = [check for check in verdict.checks if isinstance(check, WorkloadCheck)]
    return check


def test_transactions_on_lists_are_held_against_the_level_that_is_claimed(tmp_path: Path) -> None:
    good = run(tmp_path / "good", "list-append", "strict-serializable")
    assert (good.claim, good.verdict, good.measured_model) == (
        *("strict-serializable", "valid"),
        "strict-serializable",
    )
    told = of_kind(good).details.transactions
    assert told is not None
    assert told.operations > 2 * told.transactions
    bad = run(tmp_path / "bad", "list-append", "serializable", lies=True)
    assert (bad.verdict, of_kind(bad).verdict) == ("invalid", "invalid")
    assert bad.reason.startswith("serializable forbids what was found")
    assert "workload-witness" in [view.name for view in witnesses(tables_of(tmp_path / "bad"))]


def test_a_wrong_total_refutes_what_promises_snapshots_only(tmp_path: Path) -> None:
    good = run(tmp_path / "good", "bank", "serializable")
    assert (good.verdict, of_kind(good).verdict) == ("valid", "valid")
    bad = run(tmp_path / "bad", "bank", "snapshot-isolation", lies=True)
    assert (bad.verdict, of_kind(bad).verdict) == ("invalid", "invalid")
    (seen,), (wrong,) = (list(totals(tables_of(tmp_path / name))) for name in ("good", "bad"))
    assert "what there is" in seen.svg()
    assert "wrong" not in seen.svg()
    assert list(seen.data["total"]) == [400]
    check = of_kind(bad).details.model
    assert check is not None
    assert len(wrong.data) == min(20, check.anomalies["wrong total"].count)
    assert not (wrong.data["total"] == 400).any()
    assert wrong.data["t_s"].between(0, 2.1).all()
    assert "wrong" in wrong.svg()
    allowed = run(tmp_path / "allowed", "bank", "read-committed", lies=True)
    assert (allowed.verdict, of_kind(allowed).verdict) == ("valid", "invalid")
    assert allowed.reason.startswith("read-committed allows what was found")


def test_a_transaction_has_several_operations_on_several_keys() -> None:
    tasks = [each.task for each in plan(workload("list-append"), NODES, operations=OFFERED)]
    steps = [task.steps for task in tasks if task is not None and task.steps is not None]
    assert {len(each) for each in steps} == {1, 2, 3, 4}
    elements = [element for each in steps for op, _, element in each if op == "append"]
    assert len(set(elements)) == len(elements) > 300
    assert all(
        task.keys == tuple(dict.fromkeys(key for _, key, _ in task.steps or ()))
        for task in tasks
        if task is not None
    )
    # The parts are the whole.
    parts = [
        [each.task for each in plan(workload("bank"), NODES, operations=OFFERED, part=p, parts=2)]
        for p in range(2)
    ]
    whole = [each.task for each in plan(workload("bank"), NODES, operations=OFFERED)]
    assert sorted((t for part in parts for t in part if t), key=lambda task: task.id) == whole


def test_a_transfer_takes_no_more_than_there_is() -> None:
    store = Store()
    task = Task(1, "bank", "change", "bank", ("a", "b"), NODES, amount=100)
    assert perform(store, task) is True
    assert perform(store, task) is False
    assert store.states[-1] == {"a": 0, "b": 200}
    client = Client("c", timeout_s=1.0)
    (planned, *_) = [
        each
        for each in plan(workload("bank"), NODES, operations=OFFERED)
        if each.task is not None and each.task.deed == "change"
    ]
    assert planned.task is not None
    store.states[-1] = {planned.task.keys[0]: 0}
    request = client.invoke(planned, 0, 0)
    assert request is not None
    reply = carried_out(store, request)
    record = client.on_reply(reply, 1)
    assert record is not None
    ((_, (transfer,)),) = client.tasks.ended
    assert (reply.outcome, record.op, transfer.outcome) == ("ok", "transaction", "fail")


class Stopped(Store):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def transaction(self, keys: Sequence[str], work: Callable[[Transaction], None]) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "outcome"), [(NotApplied("no"), "fail"), (TimeoutError(), "info")], ids=["no", "late"]
)
def test_an_outcome_is_as_certain_as_the_client_says(error: Exception, outcome: str) -> None:
    task = Task(1, "bank", "change", "bank", ("a", "b"), NODES, amount=1)
    reply = carried_out(Stopped(error), asked("c", 0, task))
    assert (reply.outcome, isinstance(reply, Transacted)) == (outcome, False)


def test_what_is_no_list_makes_the_transaction_unknown() -> None:
    store = Store()
    store.states[-1] = {"k": 7}
    task = Task(1, "list-append", "read", "list-append", ("k",), NODES, (("read", "k", None),))
    assert carried_out(store, asked("c", 0, task)).outcome == "info"


def test_keys_behind_a_prefix() -> None:
    store = Store()
    task = Task(1, "list-append", "change", "list-append", ("k",), NODES, (("append", "k", 5),))
    perform(Prefixed(store, "mine-"), task)
    again = msgspec.structs.replace(task, steps=(*(task.steps or ()), ("read", "k", None)))
    assert perform(Prefixed(store, "mine-"), again)[-1] == ("read", "k", [5, 5])
    assert list(store.states[-1]) == ["mine-k"]


def test_transactions_are_enough_for_lists_and_needed_for_a_bank() -> None:
    refuse_kind("list-append", "p", ["transaction"])
    with pytest.raises(
        Unsupported, match=r"p: .*bank.* needs transaction.*it can do: register, set"
    ):
        refuse_kind("bank", "p", ["read", "write"])


@pytest.mark.parametrize("keys", [1, 101])
def test_a_bank_has_some_accounts_and_not_too_many(keys: int) -> None:
    fields = {"kind": "bank", "keys": keys, "mix": {"read": 1}, "duration_s": 1, "seed": 1}
    with pytest.raises(BadWorkload, match="a bank has 2 to 100 accounts"):
        make_workload(fields)
