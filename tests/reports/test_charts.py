"""What the charts draw, and what they say of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from bench.record.history import OperationRecord, read_history
from bench.record.run_folder import FaultRecord, NodeRecord
from reports.charts.charts import bin_width_s, charts, role_spans
from reports.charts.charts_of_runs import SHARES
from reports.charts.drawing import COLOURS
from reports.charts.quiet import sentences
from reports.charts.view import ChartView
from reports.data.cost import Cost, in_words, quantity
from reports.data.metrics import RunTables, fault_label, load
from tests.reports import synthetic


@pytest.fixture(scope="module")
def raft(runs: dict[str, Path]) -> RunTables:
    return load(runs["raft-leader-partition"])


@pytest.fixture(scope="module")
def gossip(runs: dict[str, Path]) -> RunTables:
    return load(runs["gossip-leader-partition"])


def by_name(run: RunTables) -> dict[str, ChartView]:
    return {view.name: view for view in charts(run)}


def test_each_run_gets_the_charts_that_it_has_data_for(raft: RunTables, gossip: RunTables) -> None:
    timed = {"rate", "latency-quantiles", "latency-points"}
    others = {"percentiles", "phases", "timeline"}
    assert set(by_name(raft)) == {*timed, *others, "availability", "roles"}
    assert set(by_name(gossip)) == {*timed, *others, "witness"}


def test_what_a_chart_would_not_show_is_said_in_a_sentence(
    runs: dict[str, Path], raft: RunTables, gossip: RunTables
) -> None:
    healthy = load(runs["raft-healthy"])
    assert list(sentences(raft)) == []
    (served,) = sentences(gossip)
    assert served == "All that was wanted was served within 2 s, at every moment."
    assert list(sentences(healthy)) == [
        served,
        "n1 led throughout, in term 1; there was no election.",
    ]
    names = set(by_name(healthy))
    assert not names & {"availability", "roles", "phases", "timeline", "faults"}


def test_several_faults_have_a_chart_of_their_own(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "raft")
    (fault,) = folder.faults()
    folder.append_fault(msgspec.structs.replace(fault, number=1, groups=None, nodes=["n2"]))
    assert "faults" in by_name(load(folder.path))


def test_the_label_of_a_fault_has_its_units_and_no_internals() -> None:
    def label(fault: str, **parameters: object) -> str:
        return fault_label(FaultRecord(number=0, fault=fault, parameters=parameters, planned_ns=0))

    own = {"chosen_by": "experiment", "seed": 21012492797651, "links": "all"}
    assert label("latency", latency_ms=50, **own) == "latency 50 ms"
    assert label("jitter", latency_ms=60, jitter_ms=50) == "jitter latency 60 ms 50 ms"
    assert label("message-loss", share=0.2, **own) == "message-loss share 0.2"
    assert label("crash", restart=False) == "crash no restart"
    assert label("partition", one_way=True) == "partition one way"


@pytest.mark.parametrize("name", ["raft", "gossip"])
def test_every_chart_is_drawn_explained_and_labelled(
    name: str, request: pytest.FixtureRequest
) -> None:
    for view in charts(request.getfixturevalue(name)):
        svg = view.svg()
        assert view.how.endswith(".")
        assert len(view.data)
        assert re.search(r'class="mark (line|bar|marks)', svg), view.name
        if view.name not in ("faults", "witness", "percentiles", "phases"):
            assert "partition n1 | n2 n3 n4 n5" in svg, view.name


def test_a_chart_is_also_a_png(raft: RunTables) -> None:
    assert by_name(raft)["rate"].png().startswith(b"\x89PNG")


def test_the_numbers_behind_availability_show_both_sides(raft: RunTables) -> None:
    data = by_name(raft)["availability"].data
    cut = data[data["t_s"].between(8, 11)]
    assert (cut["minority"] == 0).all()
    assert (cut["majority"] == 1).all()
    healed = data[data["t_s"] > 15]
    assert (healed["all"] == 1).all()
    assert healed[["minority", "majority"]].isna().all().all(), "there are no sides any more"


def test_answers_after_the_time_out_do_not_make_a_side_available(tmp_path: Path) -> None:
    def wait(record: OperationRecord) -> None:
        """A minority that answers everything at once, when the partition is over."""
        assert record.intended_ns is not None
        if record.node == "n1" and 6e9 <= record.intended_ns - synthetic.T0 < 14e9:
            record.outcome, record.completed_ns = "ok", synthetic.ns(14.5)

    run = load(_changed(tmp_path, wait))
    data = by_name(run)["availability"].data
    assert not data[data["t_s"].between(7, 11)]["minority"].gt(0).any()
    operations = run.operations
    late = operations["latency_ms"] > 2000
    assert late.any()
    assert set(operations.loc[late, "node"]) == {"n1"}
    assert (operations["served"] == ~late).all()


def test_role_spans_follow_the_leaders(raft: RunTables) -> None:
    spans = role_spans(raft)
    led = spans[spans["role"] == "leader"].set_index("node")
    assert led.loc["n1", "term"] == 1
    assert led.loc["n1", "from_s"] == 0
    assert led.loc["n1", "to_s"] == pytest.approx(14, abs=0.1)
    assert led.loc["n3", "term"] == 2
    assert led.loc["n3", "from_s"] == pytest.approx(7.2)
    for _, own in spans.groupby("node"):
        assert (own["to_s"].iloc[:-1].to_numpy() == own["from_s"].iloc[1:].to_numpy()).all()


def test_single_operations_are_sampled_and_the_rare_ones_kept(raft: RunTables) -> None:
    view = next(v for v in charts(raft, most_points=200) if v.name == "latency-points")
    infos = int((raft.operations["outcome"] == "info").sum())
    oks = int((raft.operations["outcome"] == "ok").sum())
    ended = oks + infos
    assert f"{round(200 * oks / ended)} of {oks} ok, 20 of {infos} info" in view.note
    assert "at random" in view.note
    half = next(v for v in charts(raft, most_points=600) if v.name == "latency-points")
    assert f"{round(600 * oks / ended)} of {oks} ok" in half.note
    assert f"{round(600 * infos / ended)} of {infos} info" in half.note, "the same share"
    whole = next(v for v in charts(raft, most_points=10_000) if v.name == "latency-points")
    assert "at random" not in whole.note


def test_a_large_run_gives_small_charts(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "raft", rate_per_s=5000)
    run = load(folder.path)
    assert len(run.operations) == 100_000
    for view in charts(run):
        assert len(view.inline()) < 20_000, view.name
        assert len(view.data) <= 40


@pytest.mark.parametrize("span_s", [0.5, 10, 61, 3600, 1e6])
def test_bins_are_never_more_than_asked_for(span_s: float) -> None:
    width_s = bin_width_s(span_s, 80)
    assert span_s / width_s <= 80


def test_a_drawing_has_the_colours_of_the_page_or_of_a_file_of_its_own(raft: RunTables) -> None:
    view = by_name(raft)["latency-points"]
    inline, document = view.inline(), view.svg()
    assert "var(--blue)" in inline
    assert not any(colour in inline for colour in COLOURS.values())
    assert "var(--" not in document
    assert COLOURS["blue"] in document
    ElementTree.fromstring(document)
    dots = re.search(r'class="mark marks" stroke="var\(--blue\)"[^>]* d="([^"]*)"', inline)
    assert dots is not None
    assert dots[1].count("M") > 250, "300 are drawn; some lie on the same pixel"


def test_the_percentile_curve_goes_as_far_as_was_served(raft: RunTables) -> None:
    data = by_name(raft)["percentiles"].data
    for phase in ("before", "during", "after"):
        own = raft.operations[raft.operations["phase"] == phase]
        curve = data.set_index("share")[phase].dropna()
        reached = [p for p in SHARES if len(own) * (1 - p) >= 1 and p <= own["served"].mean()]
        assert curve.index.max() == max(reached)
        latencies = own["latency_ms"].where(own["served"], np.inf).sort_values().to_numpy()
        assert curve[0.5] == pytest.approx(latencies[math.ceil(len(own) / 2) - 1], abs=1e-6)
        assert curve.is_monotonic_increasing


def test_phases_show_what_chance_alone_moves(raft: RunTables) -> None:
    data = by_name(raft)["phases"].data.set_index("phase")
    windows = raft.windows[raft.windows["side"] == "all"].set_index("phase")
    for phase in data.index:
        row, window = data.loc[phase], windows.loc[phase]
        ok, seconds = window["served"], window["seconds"]
        assert row["ok_per_s"] == pytest.approx(ok / seconds, abs=0.001)
        assert row["high"] - row["low"] == pytest.approx(4 * ok**0.5 / seconds, abs=0.01)
    availability = data["availability"]
    assert availability["during"] < availability["before"]


def test_the_timeline_shows_single_clients_around_the_fault(raft: RunTables) -> None:
    view = by_name(raft)["timeline"]
    applied = raft.faults["applied_s"].iloc[0]
    begin, end = map(float, re.findall(r"([\d.]+) s", view.note)[:2])
    assert begin < applied < end
    assert (view.data["invoked_s"] < end).all()
    assert not (view.data["completed_s"] < begin).any()
    assert re.match(r"\d+ of \d+ operations", view.note)


def test_the_chart_says_when_nobody_was_answered(tmp_path: Path) -> None:
    def silent(record: OperationRecord) -> None:
        """Nothing is answered between 16 and 17.5 s."""
        if (
            record.completed_ns is not None
            and 16 < (record.completed_ns - synthetic.T0) / 1e9 < 17.5
        ):
            record.outcome, record.completed_ns = "info", None

    run = load(_changed(tmp_path, silent))
    found = [(b, e) for b, e in run.silences if b < 17.5 and e > 16]
    assert len(found) == 1
    assert found[0][0] == pytest.approx(16, abs=0.3)
    assert found[0][1] == pytest.approx(17.5, abs=0.3)
    assert f"{found[0][1] - found[0][0]:.1f} s" in by_name(run)["availability"].note


def test_a_run_whose_only_fault_never_healed_has_all_charts(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "raft")
    (fault,) = folder.faults()
    folder.faults_path.unlink()
    fault.heal_started_ns = fault.healed_ns = None
    folder.append_fault(fault)
    run = load(folder.path)
    assert run.faults["healed_s"].isna().all()
    assert "timeline" in by_name(run)


def test_what_nodes_counted_is_summed_over_restarts(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "raft")
    # The load is from 0 to 20 s.
    for node, times, counts in (
        ("n1", [0.0, 5.0, 10.0], [5, 10, 30]),
        ("n2", [0.0, 5.0, 10.0], [100, 3, 7]),
        ("n3", [-2.0, 2.0, 16.0, 24.0], [0, 10, 10, 26]),
    ):
        for at_s, count in zip(times, counts, strict=True):
            folder.append_node(
                NodeRecord(
                    t_ns=synthetic.ns(at_s),
                    node=node,
                    kind="status",
                    counters={
                        "messages_sent": count,
                        "links_down": 9 - count % 2,
                        "cpu_us": 10 * count,
                        "memory_peak_kb": 1000 * count,
                    },
                )
            )
    run = load(folder.path)
    # n1: 25 more. n2: it had 100, and was then a new process, which counted to 7. n3: half of what
    # it counted on both sides of the begin, and of the end.
    assert run.counters == {"messages_sent": 25 + 7 + 5 + 8, "cpu_us": 250 + 70 + 50 + 80}
    ok = int(run.operations["served"].sum())
    assert run.summary.cost == Cost(messages=45 / ok, cpu_us=450 / ok, memory_mb=30 + 100 + 26)
    assert in_words("messages_sent", 32, ok) == ("messages sent", "32", quantity(32 / ok))
    assert in_words("log_commit_us", 2_340_000, 2000)[1:] == ("2.34 s", "1.17 ms")


def _changed(path: Path, change: Callable[[OperationRecord], None]) -> Path:
    """A raft partition whose operations went through ``change``."""

    folder = synthetic.leader_partition(path / "run", "raft")
    history = folder.history_dir / "load.jsonl"
    records = list(read_history(history))
    for record in records:
        change(record)
    history.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    return folder.path
