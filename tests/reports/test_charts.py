"""What the charts draw, and what they say of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import altair as alt
import pandas as pd
import pytest
import vl_convert

from reports.charts import ChartView, bin_width_s, charts, role_spans
from reports.metrics import RunTables, load
from reports.render import inline_svg
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
    timed = {"rate", "availability", "latency-quantiles", "latency-points", "faults"}
    assert set(by_name(raft)) == {*timed, "roles"}
    assert set(by_name(gossip)) == {*timed, "witness"}


@pytest.mark.parametrize("name", ["raft", "gossip"])
def test_every_chart_is_drawn_explained_and_labelled(
    name: str, request: pytest.FixtureRequest
) -> None:
    for view in charts(request.getfixturevalue(name)):
        svg = view.svg()
        assert view.how.endswith(".")
        assert len(view.data)
        assert re.search(r'class="mark-(line|rect|symbol)', svg), view.name
        if view.name not in ("faults", "witness"):
            assert "partition n1 | n2 n3 n4 n5" in svg, view.name


def test_a_chart_is_also_a_png(raft: RunTables) -> None:
    assert by_name(raft)["rate"].png().startswith(b"\x89PNG")


def test_the_numbers_behind_availability_show_both_sides(raft: RunTables) -> None:
    data = by_name(raft)["availability"].data
    cut = data[data["t_s"].between(8, 11)]
    assert (cut["minority"] == 0).all()
    assert (cut["majority"] == 1).all()
    assert (data[data["t_s"] > 15][["minority", "majority"]] == 1).all().all()


def test_answers_after_the_heal_do_not_make_a_side_available(tmp_path: Path) -> None:
    def wait(record: object) -> None:
        """A minority that answers everything at once, when the partition is over."""
        assert hasattr(record, "node")
        if record.node == "n1" and 6e9 <= record.intended_ns - synthetic.T0 < 14e9:
            record.outcome, record.completed_ns = "ok", synthetic.ns(14.5)

    run = load(_changed(tmp_path, wait))
    data = by_name(run)["availability"].data
    assert not data[data["t_s"].between(7, 13)]["minority"].gt(0).any()
    operations = run.operations
    cut_off = (operations["node"] == "n1") & (operations["phase"] == "during")
    assert cut_off.any()
    assert operations["overdue"].tolist() == cut_off.tolist()


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
    kept = min(infos, 100)
    assert f"{200 - kept} of {oks} ok, {kept} of {infos} info" in view.note
    assert "at random" in view.note
    whole = next(v for v in charts(raft, most_points=10_000) if v.name == "latency-points")
    assert "at random" not in whole.note


def test_a_large_run_gives_small_charts(tmp_path: Path) -> None:
    folder = synthetic.leader_partition(tmp_path / "run", "raft", rate_per_s=5000)
    run = load(folder.path)
    assert len(run.operations) == 100_000
    for view in charts(run):
        assert len(inline_svg(view.svg(), "x", "x")) < 120_000, view.name
        assert len(view.data) <= 40


@pytest.mark.parametrize("span_s", [0.5, 10, 61, 3600, 1e6])
def test_bins_are_never_more_than_asked_for(span_s: float) -> None:
    width_s = bin_width_s(span_s, 80)
    assert span_s / width_s <= 80


def test_an_inline_drawing_has_ids_of_its_own_and_theme_colours(raft: RunTables) -> None:
    from reports.charts import COLOURS

    view = by_name(raft)["latency-points"]
    svg = inline_svg(view.svg(), "one", 'a "b" <c>')
    assert 'aria-label="a &quot;b&quot; &lt;c&gt;"' in svg
    assert all(name.startswith("one-") for name in re.findall(r'\bid="([^"]*)"', svg))
    assert set(re.findall(r'href="#([^"]*)"', svg)) <= set(re.findall(r'\bid="([^"]*)"', svg))
    assert "var(--blue)" in svg
    for colour in COLOURS.values():
        assert colour not in svg
    shown = len(re.findall("<use ", svg))
    assert shown >= 0.9 * min(600, len(raft.operations))


def test_two_drawings_on_a_page_do_not_share_clip_paths() -> None:
    clipped = alt.Chart(pd.DataFrame({"x": [1, 2]})).mark_point(clip=True).encode(x="x:Q")
    svg = vl_convert.vegalite_to_svg(clipped.to_dict())
    ids = [
        set(re.findall(r'\bid="([^"]*)"', inline_svg(svg, name, name))) for name in ("one", "two")
    ]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = re.findall(r"url\(#([^)]*)\)", inline_svg(svg, "one", "one"))
    assert used
    assert set(used) <= ids[0]


def _changed(path: Path, change: Callable[[object], None]) -> Path:
    """A raft partition whose operations went through ``change``."""
    import msgspec

    from bench.history import read_history

    folder = synthetic.leader_partition(path / "run", "raft")
    history = folder.history_dir / "load.jsonl"
    records = list(read_history(history))
    for record in records:
        change(record)
    history.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    return folder.path
