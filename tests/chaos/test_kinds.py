"""Runs of workloads of other kinds than registers, simulated: judged by the model of the kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.checkers import check_run
from bench.record.run_folder import RunFolder
from bench.record.verdict import Verdict, WorkloadCheck
from chaos.experiments.experiment import Experiment, InvalidExperiment, load, validate
from chaos.targets.runner import run_experiment
from chaos.targets.table import refuse_kind
from nodes import registry
from nodes.errors import Unsupported
from reports.charts.view import ChartView
from reports.charts.witnesses import witnesses
from reports.data.metrics import load as tables_of
from tests.chaos.test_simulate import capbench
from tests.chaos.test_simulate_target import Quiet


def experiment(kind: str, **changes: Any) -> Experiment:
    document: dict[str, Any] = {
        "title": "Short",
        "shows": "What a test needs.",
        "protocols": ["raft"],
        "nodes": 3,
        "seed": 7,
        "workload": {
            "kind": kind,
            "arrival": {"open_loop": "100/s"},
            "keys": {"count": 40 if kind == "set" else 5},
            "mix": {"read": 50, "write": 50},
            "timeout": "500ms",
        },
        "duration": "3s",
    }
    return validate({**document, **changes}, source="test", name="test")


def run(tmp_path: Path, kind: str, protocol: str, **changes: Any) -> Verdict:
    result = run_experiment(
        experiment(kind, **changes),
        registry.get(protocol),
        folder_path=tmp_path / protocol,
        seed=7,
        progress=Quiet(),
        target="sim",
    )
    assert result.failure is None
    assert result.verdict is not None
    return result.verdict


def of_kind(verdict: Verdict) -> WorkloadCheck:
    (check,) = [check for check in verdict.checks if isinstance(check, WorkloadCheck)]
    return check


GONE_WITH_A_NODE = [
    {"at": "500ms", "for": "2500ms", "fault": "partition", "groups": [["n1"], ["n2", "n3"]]},
    {"at": "2s", "fault": "crash", "nodes": ["n1"], "restart": False},
]


def test_a_set_on_quorums_of_one_loses_elements_and_on_raft_none(tmp_path: Path) -> None:
    weak = run(tmp_path, "set", "quorum-weak", schedule=GONE_WITH_A_NODE)
    check = of_kind(weak)
    assert (weak.verdict, check.verdict) == ("invalid", "invalid")
    assert check.details.model is not None
    assert check.details.model.anomalies["lost"].count > 1
    assert [step.operation.op for step in check.details.model.witness][:1] == ["add"]
    assert weak.reason.startswith(f"as a set, {check.summary}")
    # Read back, it is the same.
    folder = RunFolder(tmp_path / "quorum-weak")
    assert folder.verdict() == weak
    raft = run(tmp_path, "set", "raft", schedule=GONE_WITH_A_NODE)
    assert (raft.verdict, of_kind(raft).verdict) == ("valid", "valid")
    assert "as a set, nothing contradicts" in raft.reason


def test_a_counter_on_stale_reads_is_refuted_which_their_claim_allows(tmp_path: Path) -> None:
    partition = [{"at": "1s", "for": "1s", "fault": "partition", "groups": "leader-alone"}]
    stale = run(tmp_path, "counter", "raft-stale-read", schedule=partition)
    assert (stale.verdict, of_kind(stale).verdict) == ("valid", "invalid")
    raft = run(tmp_path, "counter", "raft", schedule=partition)
    assert (raft.verdict, of_kind(raft).verdict) == ("valid", "valid")


def test_without_some_of_the_operations_nothing_is_said(tmp_path: Path) -> None:
    run(tmp_path, "lock", "raft", duration="500ms")
    folder = RunFolder(tmp_path / "raft")
    (path,) = [path for path in folder.model_histories() if path.stem == "load-1"]
    path.write_bytes(path.read_bytes()[:-10])
    verdict = check_run(folder)
    assert (verdict.verdict, of_kind(verdict).verdict) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("kind", "protocol", "can"), [("counter", "gossip", "register, set"), ("lock", "quorum", "set")]
)
def test_a_protocol_without_cas_is_refused_before_the_start(
    kind: Any, protocol: str, can: str
) -> None:
    with pytest.raises(Unsupported, match=f"{protocol}: .*{kind}.* needs cas.*{can}"):
        refuse_kind(kind, protocol, registry.get(protocol).operations)
    refuse_kind("set", protocol, registry.get(protocol).operations)


def test_the_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    code, _, said = capbench(
        "run", "healthy", "--kind", "counter", "-p", "gossip", "--target", "sim", cwd=tmp_path
    )
    assert (code, said.count("\n")) == (2, 1)
    assert "gossip: a workload of the kind 'counter' needs cas" in said
    assert not list(tmp_path.iterdir())


def test_the_kind_of_a_run_replaces_the_experiments_own() -> None:
    assert load("healthy").load.kind == "register"
    sets = load("healthy", "set")
    assert (sets.load.kind, sets.load.keys.count) == ("set", 1000)
    assert load("healthy", "lock").load.keys.count == 50
    with pytest.raises(InvalidExperiment, match="kind"):
        load("healthy", "sets")


def test_sets_have_more_keys_where_the_file_does_not_say_how_many() -> None:
    document = experiment("set").as_data()
    del document["workload"]["keys"]
    assert validate(document, source="test", name="test").load.keys.count == 1000


def drawn(folder: Path) -> dict[str, ChartView]:
    return {view.name: view for view in witnesses(tables_of(folder))}


def test_the_witness_of_the_kind_is_drawn_with_its_sentence_and_numbers(tmp_path: Path) -> None:
    partition = [{"at": "1s", "for": "1s", "fault": "partition", "groups": "leader-alone"}]
    verdict = run(tmp_path, "counter", "raft-stale-read", schedule=partition)
    view = drawn(tmp_path / "raft-stale-read")["workload-witness"]
    check = of_kind(verdict).details.model
    assert check is not None
    assert view.how.startswith(check.summary)
    assert list(view.data["operation"]) == [step.role for step in check.witness]
    assert all(step.operation.process in view.svg() for step in check.witness)


def test_the_cycle_of_transactions_is_drawn_as_a_graph(tmp_path: Path) -> None:
    partition = [{"at": "1s", "for": "1s", "fault": "partition", "groups": "leader-alone"}]
    verdict = run(tmp_path, "list-append", "raft-stale-read", schedule=partition, seed=8)
    check = of_kind(verdict).details.transactions
    assert check is not None
    assert check.verdict == "invalid"
    (anomaly, *_) = [each for each in check.anomalies if each.edges]
    view = drawn(tmp_path / "raft-stale-read")["workload-witness"]
    assert anomaly.name in view.title
    assert view.how.startswith(anomaly.words[0][:60])
    assert list(view.data["edge"]) == [edge.kind for edge in anomaly.edges]
    assert all(f"T{vertex.id}" in view.svg() for vertex in anomaly.transactions)
