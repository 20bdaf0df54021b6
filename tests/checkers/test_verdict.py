"""The verdict on a whole run folder."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from bench.checkers import check_run
from bench.checkers.verdict import steps_of_an_operation
from bench.record.history import HistoryWriter, OperationRecord
from bench.record.run_folder import BadRunFolder, LoadSummary, Manifest, RunFolder, write_json
from bench.record.verdict import Linearizability, Model, Verdict
from bench.record.witness import shown
from nodes.contract.replica import OperationKind, Value

S = 1_000_000_000
NODES = ["n1", "n2", "n3"]


class Run:
    """A run folder in the making: one operation each 10 ms, one process each."""

    def __init__(self, path: Path, *, claim: Model, offered_per_s: float | None = 100.0) -> None:
        self.records: list[OperationRecord] = []
        self.folder = RunFolder.create(
            path,
            Manifest(
                capbench_version="0",
                experiment_name="e",
                experiment={},
                protocol="p",
                claim=claim,
                nodes=NODES,
                target="t",
                seed=1,
                started_utc="",
                offered_per_s=offered_per_s,
                load_started_ns=0,
                load_ended_ns=2 * S,
                complete=True,
            ),
        )

    def add(
        self, op: OperationKind, value: Value | list[Value], node: str = "n1", key: str = "k"
    ) -> None:
        """The next operation, ok."""
        at = len(self.records) * S // 100
        number = len(self.records)
        self.records.append(
            OperationRecord(
                process=f"c{number}",
                id=number,
                op=op,
                key=key,
                outcome="ok",
                invoked_ns=at,
                completed_ns=at + 1000,
                value=value,
                node=node,
            )
        )

    def fill(self, count: int = 200) -> None:
        """Writes and reads of another key, all in order, up to ``count`` operations."""
        while len(self.records) < count:
            number = len(self.records)
            self.add("write", number, key="busy")
            self.add("read", number, key="busy")

    def verdict(self, *, final: bool = True, cut: bool = False) -> Verdict:
        """Write the folder and judge it."""
        with HistoryWriter(self.folder.history_dir / "load.jsonl") as history:
            for record in self.records:
                history.append(record)
        if not cut:
            write_json(self.folder.load_dir / "load.json", summary("load", len(self.records)))
        if final:
            last: dict[str, Value | list[Value]] = {}
            for record in self.records:
                if record.op == "write":
                    last[record.key] = record.value
            with HistoryWriter(self.folder.history_dir / "final.jsonl") as history:
                for number, (key, value) in enumerate(last.items()):
                    for place, node in enumerate(NODES):
                        history.append(
                            OperationRecord(
                                process=f"final-{node}",
                                id=10_000 + 10 * number + place,
                                op="read",
                                key=key,
                                outcome="ok",
                                invoked_ns=3 * S,
                                completed_ns=4 * S,
                                value=value,
                                node=node,
                            )
                        )
            write_json(self.folder.load_dir / "final.json", summary("final", 0))
        verdict = check_run(self.folder)
        self.folder.write_verdict(verdict)
        assert self.folder.verdict() == verdict, "it does not survive being written"
        return verdict


def summary(client: str, count: int) -> LoadSummary:
    return LoadSummary(
        client=client,
        started_ns=0,
        ended_ns=2 * S,
        offered_per_s=None,
        intended=count,
        invoked=count,
        dropped=0,
    )


def stale(run: Run) -> None:
    """A stale read, that every eventual system may give."""
    run.add("write", "old", "n1")
    run.add("write", "new", "n1")
    run.add("read", "old", "n2")


def test_a_good_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", claim="linearizable")
    run.fill()
    got = run.verdict()
    assert (got.verdict, got.measured_model, got.converged) == ("valid", "linearizable", True)


@pytest.mark.parametrize(("claim", "verdict"), [("linearizable", "invalid"), ("eventual", "valid")])
def test_a_stale_read(tmp_path: Path, claim: Model, verdict: str) -> None:
    run = Run(tmp_path / "r", claim=claim)
    stale(run)
    run.fill()
    got = run.verdict()
    assert (got.verdict, got.measured_model) == (verdict, "causal")
    assert [line.role.split(" later ")[-1] for line in got.checks[0].witness] == [
        'wrote k="old" at n1 (ok)',
        'wrote k="new" at n1 (ok)',
        'read k="old" from n2',
    ]


def test_final_reads_are_operations(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", claim="linearizable")
    run.fill()
    run.records[-2].value = run.records[-1].value = -1
    run.records[-1].op = "read"
    verdict = run.verdict()
    assert verdict.verdict == "valid"
    lost = Run(tmp_path / "lost", claim="linearizable")
    lost.fill()
    lost.add("write", "kept")
    lost.add("write", "gone")
    lost.records[-1].key = "k"
    lost.records.insert(
        0, lost.records.pop(-2)
    )  # `kept` is read at the end, `gone` was written last
    lost.records[0].invoked_ns, lost.records[-1].invoked_ns = 0, S
    lost.records[0].completed_ns, lost.records[-1].completed_ns = 1, S + 1
    lost.records.append(lost.records.pop(0))
    got = lost.verdict()
    assert (got.verdict, got.checks[0].witness[-1].operation.process[:5]) == ("invalid", "final")


def test_a_value_from_nowhere_refutes_every_claim(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", claim="eventual")
    run.fill()
    run.add("read", "never")
    got = run.verdict()
    assert (got.verdict, got.measured_model) == ("invalid", "none")


def test_a_history_that_was_cut_short(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", claim="linearizable")
    run.fill()
    run.add("read", "never")
    got = run.verdict(cut=True)
    assert got.verdict == "unknown"
    assert "cut short" in got.reason


def test_a_cut_history_can_still_be_refuted(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", claim="linearizable")
    stale(run)
    run.fill()
    assert run.verdict(cut=True).verdict == "invalid"


def test_without_operations_nothing_is_known(tmp_path: Path) -> None:
    got = Run(tmp_path / "r", claim="linearizable").verdict()
    assert (got.verdict, got.measured_model, got.converged) == ("unknown", "unknown", None)


def test_without_final_reads_convergence_is_unknown(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", claim="eventual")
    stale(run)
    run.fill()
    got = run.verdict(final=False)
    assert (got.verdict, got.converged) == ("unknown", None)


def test_a_run_without_its_load_proves_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", claim="linearizable")
    run.fill(138)
    got = run.verdict()
    assert got.verdict == "unknown"
    assert "there was too little load: 69 of 100" in got.reason
    enough = Run(tmp_path / "enough", claim="linearizable")
    enough.fill(140)
    assert enough.verdict().verdict == "valid"


def test_reads_at_the_end_were_offered_by_nobody() -> None:
    """Eight requests for each read of a set, and more of these at the end than in the load."""
    load = LoadSummary(
        client="load",
        started_ns=0,
        ended_ns=1,
        offered_per_s=100.0,
        intended=450,
        invoked=450,
        dropped=0,
        model_operations=100,
    )
    last = replace(load, client="final", offered_per_s=None, intended=3000, model_operations=375)
    assert steps_of_an_operation([load, last]) == 4.5
    assert steps_of_an_operation([last]) == 1.0


def test_what_was_wanted_and_not_served_is_no_load(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", claim="linearizable")
    run.fill()
    for record in [record for record in run.records if record.op == "read"][:70]:
        record.outcome = "fail"
    got = run.verdict()
    assert got.verdict == "unknown"
    assert "there was too little load: 65 of 100" in got.reason


def test_a_small_load_does_not_excuse_a_contradiction(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", claim="linearizable")
    stale(run)
    assert run.verdict().verdict == "invalid"


def test_siblings_refute_a_register(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", claim="linearizable")
    run.add("write", 1, "n1", "s")
    run.records.append(run.records.pop())
    run.add("write", 2, "n2", "s")
    run.records[-1].invoked_ns = run.records[0].invoked_ns
    run.add("read", [1, 2], "n3", "s")
    run.fill()
    got = run.verdict()
    assert got.verdict == "invalid"
    details = got.checks[0].details
    assert isinstance(details, Linearizability)
    assert details.kind == "siblings"


def test_long_values_are_shown_by_their_ends() -> None:
    assert shown("7") == '"7"'
    assert shown("x" * 195 + "1774") == '"' + "x" * 23 + "…" + "x" * 19 + '1774"'
    assert shown("." * 195 + "1774") == '"…1774"', "what a load pads values with says nothing"
    assert shown("....1774") == '"....1774"'


def test_checks_of_another_version_are_read_as_far_as_they_fit(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", claim="eventual")
    run.fill()
    names = [check.name for check in run.verdict().checks]
    folder = run.folder
    told = msgspec.json.decode(folder.verdict_path.read_bytes())
    assert [check["name"] for check in told["checks"]] == names
    told["checks"].append({**told["checks"][0], "name": "of tomorrow"})
    for check in told["checks"]:
        if check["name"] == "availability":
            check["details"] = {"windows": {"before": 0.5}}
    write_json(folder.verdict_path, told)
    with pytest.raises(BadRunFolder, match=r"verdict\.json"):
        folder.verdict()
    write_json(folder.verdict_path, {**told, "schema_version": 1})
    kept = folder.verdict()
    assert kept is not None
    assert [check.name for check in kept.checks] == [n for n in names if n != "availability"]
