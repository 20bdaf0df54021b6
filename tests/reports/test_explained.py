"""A refuted claim is explained by its own refutation, wherever the run is told of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.checkers import check_run
from bench.record.history import HistoryWriter, OperationRecord
from bench.record.run_folder import RunFolder, write_json
from bench.record.verdict import (
    AnyCheck,
    CausalCheck,
    ConvergenceCheck,
    LinearizabilityCheck,
    SequentialCheck,
    SessionsCheck,
    Verdict,
    WitnessLine,
)
from bench.record.witness import sentence
from nodes.simulator.story import Arrow, Story
from reports.charts.anomaly import Messages
from reports.data.cases import cases_of
from reports.data.compare import first_screen
from reports.data.metrics import load
from reports.data.summary import counterexample, explained_check, explanation, witness_of
from reports.formats.junit import junit
from reports.formats.markdown import markdown
from reports.formats.render import write_report
from tests.reports import synthetic
from tests.reports.synthetic import ns

CLAIMS = ("linearizable", "sequential", "causal", "eventual")
REFUTES = {
    "linearizable": "linearizability",
    "sequential": "sequential",
    "causal": "causal",
    "eventual": "convergence",
}


def operation(number: int, process: str, op: str, key: str, value: int) -> OperationRecord:
    return OperationRecord(
        process=process,
        id=number,
        op=op,  # type: ignore[arg-type]
        key=key,
        outcome="ok",
        invoked_ns=ns(number),
        completed_ns=ns(number + 0.5),
        value=value,
        node="n1",
    )


def stale_and_lost(path: Path, claim: str) -> RunFolder:
    """A read of k6 is stale, in one process after it had read the newer value; a later write of k41
    is lost."""
    shape = synthetic.Shape("quorum-weak", "two-anomalies", claim=claim, simulated=True)
    manifest = synthetic.manifest(shape)
    manifest.offered_per_s = None
    folder = RunFolder.create(path, manifest)
    told = [
        ("c1", "write", "k6", 1),
        ("c1", "write", "k6", 2),
        ("c2", "read", "k6", 2),
        ("c2", "read", "k6", 1),
        ("c1", "write", "k41", 10),
        ("c1", "write", "k41", 11),
    ]
    with HistoryWriter(folder.history_dir / "load.jsonl") as writer:
        for number, (process, op, key, value) in enumerate(told, 1):
            writer.append(operation(number, process, op, key, value))
    finals = [(node, key) for node in synthetic.NODES for key in ("k6", "k41")]
    with HistoryWriter(folder.history_dir / "final.jsonl") as writer:
        for number, (node, key) in enumerate(finals, 100):
            read = operation(number, "final-1", "read", key, {"k6": 2, "k41": 10}[key])
            read.node = node
            writer.append(read)
    for name in ("load", "final"):
        write_json(
            folder.load_dir / f"{name}.json",
            {
                "client": name,
                "started_ns": ns(0),
                "ended_ns": ns(20),
                "offered_per_s": None,
                "intended": 6,
                "invoked": 6,
                "dropped": 0,
            },
        )
    folder.write_verdict(check_run(folder))
    return folder


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_form_explains_the_refutation_of_the_claim(tmp_path: Path, claim: str) -> None:
    folder = stale_and_lost(tmp_path / "run", claim)
    run = load(folder.path)
    assert run.verdict is not None
    assert run.verdict.verdict == "invalid"
    (own,) = [c for c in run.verdict.checks if c.name == REFUTES[claim]]
    others = [
        line.operation.id
        for check in run.verdict.checks
        if check is not own
        for line in check.witness
    ]
    assert own.witness
    assert others
    told = sentence(own.witness)

    assert counterexample(run.verdict) == told
    page = write_report([folder.path], tmp_path / "report.html").read_text()
    listed = re.search(r'<ol class="witness">(.*?)</ol>', page, re.DOTALL)
    assert listed is not None
    assert [line.role in listed[1] for line in witness_of(run.verdict)] == [True] * len(own.witness)
    assert listed[1].count("<li>") == len(own.witness)
    assert "Why the claim is refuted" in page
    named = [("run", run)]
    forms = [
        " ".join(first_screen([run.summary]).split()),
        markdown(cases_of(named)),
        junit(cases_of(named)),
    ]
    for text in forms:
        assert told in text
    if claim == "eventual":
        for text in [*forms, listed[1]]:
            assert "k41=11" in text
            assert "k6" not in text, "a stale read, which eventual allows"


def test_the_messages_are_those_around_the_witness_that_is_shown(tmp_path: Path) -> None:
    folder = stale_and_lost(tmp_path / "run", "eventual")
    verdict = folder.verdict()
    arrow = Arrow(src="n1", dst="n2", label="Write", text="", sent_s=1, arrived_s=2, fate="arrived")
    own = [line.operation.id for line in witness_of(verdict)]
    stale = [3, 4]
    for witness, drawn in ((own, True), (stale, False), ([], False)):
        kept = Messages(nodes=["n1", "n2"], story=Story([arrow], []), total=1, witness=witness)
        write_json(folder.path / "messages.json", kept)
        page = write_report([folder.path], tmp_path / "report.html").read_text()
        assert ("<h3>The messages around it</h3>" in page) == drawn
        assert ("The messages around it are not in the folder" in page) != drawn


def check(kind: Any, model: str) -> AnyCheck:
    """A check of this kind that refutes; nobody asks for its figures here."""
    name = kind.__name__
    line = WitnessLine(operation=operation(1, name, "read", name, 1), role=f"read {name}")
    found: AnyCheck = kind(
        verdict="invalid",
        model=model,
        algorithm="",
        operations=1,
        seconds=0,
        summary=f"{name} says so",
        witness=[line],
        details=None,
    )
    return found


EVERY = [
    check(LinearizabilityCheck, "linearizable"),
    check(SequentialCheck, "sequential"),
    check(CausalCheck, "causal"),
    check(SessionsCheck, "session guarantees"),
    check(ConvergenceCheck, "eventual"),
]


@pytest.mark.parametrize("reason", [None, *EVERY])
@pytest.mark.parametrize("claim", CLAIMS)
def test_of_all_that_was_found_the_refuting_check_is_shown(
    claim: str, reason: AnyCheck | None
) -> None:
    """The reason decides, as a value from nowhere refutes eventual by the check of linearizability;
    a folder whose reason is told in other words is judged by its model."""
    verdict = Verdict(
        claim=claim,  # type: ignore[arg-type]
        verdict="invalid",
        measured_model="none",
        reason=reason.summary if reason else "in other words",
        checks=EVERY,
    )
    shown = explained_check(verdict)
    assert shown is not None
    assert shown.name == (reason.name if reason else REFUTES[claim])
    assert explanation(verdict) == "Why the claim is refuted"


def test_a_refutation_without_a_witness_borrows_none() -> None:
    own = msgspec.structs.replace(check(ConvergenceCheck, "eventual"), witness=[])
    verdict = Verdict(
        claim="eventual",
        verdict="invalid",
        measured_model="none",
        reason=own.summary,
        checks=[EVERY[0], own],
    )
    assert explained_check(verdict) is None
    assert counterexample(verdict) is None


@pytest.mark.parametrize(
    ("claim", "found", "said"),
    [
        ("eventual", EVERY[0], "Why it is not linearizable (its claim, eventual, allows this)"),
        ("causal", EVERY[1], "Why it is not sequential (its claim, causal, allows this)"),
        (
            "eventual",
            EVERY[3],
            "Which session guarantees it does not keep (its claim, eventual, allows this)",
        ),
        ("none", EVERY[4], "Why it is not eventual (its claim, none, allows this)"),
        ("linearizable", EVERY[4], "What does not decide the claim (linearizable)"),
    ],
)
def test_what_a_claim_allows_is_said_to_be_allowed(claim: str, found: AnyCheck, said: str) -> None:
    verdict = Verdict(
        claim=claim,  # type: ignore[arg-type]
        verdict="valid",
        measured_model="unknown",
        reason="",
        checks=[found],
    )
    assert explanation(verdict) == said
    assert explained_check(verdict) is found
