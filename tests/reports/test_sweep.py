"""The tables of a sweep: ratios to the base point, what is missing, and the model beside it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from msgspec import structs

from bench.record.sweep_file import Calibration, Point, Sweep, SweepRow
from reports.sweeps.sweep import first_screen, load_figure, of_dimension, table, write_files
from reports.sweeps.sweep_tables import tables

FRAME_US, OPERATION_US, BYTE_US = 50.0, 10.0, 0.001


def row(point: Point, ok_per_s: float, publishes: float) -> SweepRow:
    """A point at which a PUBLISH, an operation at a node and a byte cost what is said above."""
    size = 3.0 * point.value_bytes + 160
    cpu_us = publishes * FRAME_US + point.nodes * OPERATION_US + size * BYTE_US
    return SweepRow(
        point=point,
        seconds=1.0,
        ok=int(ok_per_s),
        ok_per_s=ok_per_s,
        latency_ms_p50=1.0,
        latency_ms_p99=2.0,
        messages=6.0,
        publishes=publishes,
        bytes=size,
        fsyncs=0.1,
        log_bytes=300.0,
        fsync_us=200.0,
        forwarded=0.0,
        cpu_us={"broker": 5.0, "n1": cpu_us - 11, "n2": 2.0, "n3": 1.0, "load": 3.0},
        rss_bytes={"broker": 1, "n1": 40, "n2": 30, "n3": 20},
    )


@pytest.fixture
def sweep() -> Sweep:
    base = Point(protocol="raft")
    return Sweep(
        capbench="0",
        command=[],
        started="2026-01-01T00:00:00+00:00",
        hardware={"cores": 2, "processor": "<b>"},
        seconds=1.0,
        warm_up_s=1.0,
        calibration=Calibration(
            broker_messages_per_s={100: 50_000.0, 16384: 20_000.0}, fsync_us=200.0
        ),
        rows=[
            row(base, 10_000.0, 0.2),
            row(Point(protocol="raft", clients=1), 2_000.0, 6.0),
            row(Point(protocol="raft", value_bytes=16384), 2_500.0, 0.3),
            row(Point(protocol="raft", nodes=5), 5_000.0, 0.4),
            SweepRow(point=Point(protocol="raft", nodes=7), missing="n7 <did> not start"),
        ],
    )


def test_a_row_for_each_point_also_for_missing_ones(sweep: Sweep) -> None:
    figures = table(sweep)
    assert len(figures) == 5
    assert list(of_dimension(figures, "nodes")["nodes"]) == [3, 5, 7]
    assert list(of_dimension(figures, "nodes")["missing"].notna()) == [False, False, True]
    assert len(of_dimension(figures, None)) == 1
    base = figures.iloc[0]
    assert base["cpu_us"] == pytest.approx(sum(sweep.rows[0].cpu_us.values()))
    assert base["cpu_us_other_nodes"] == pytest.approx(3.0)
    assert base["rss_bytes_node"] == 40
    assert math.isnan(figures.iloc[4]["ok_per_s"])
    only_missing = structs.replace(sweep, rows=sweep.rows[4:])
    assert len(table(only_missing)) == 1
    assert "missing" in first_screen(only_missing)
    assert "1 of 1 points are missing" in tables(only_missing)


def test_the_model_knows_the_points_that_made_it_and_no_other(sweep: Sweep) -> None:
    figures = table(sweep)
    assert list(figures["calibrates"]) == [True, True, True, False, False]
    one = figures.iloc[1]
    # One client is what its round is made of: the model gives it back.
    assert one["model_per_s"] == pytest.approx(one["ok_per_s"], rel=1e-6)
    assert one["theory_messages"] == 6
    # More nodes, less throughput; said of the missing point, too.
    said = list(of_dimension(figures, "nodes")["model_per_s"])
    assert said == sorted(said, reverse=True)
    without = structs.replace(sweep, rows=sweep.rows[:2])
    assert table(without)["model_per_s"].isna().all()


def test_markdown_has_ratios_to_the_base_point(sweep: Sweep) -> None:
    text = tables(sweep)
    growth = text[text.index("throughput relative to the base") :].splitlines()
    assert growth[2] == "| protocol | 5 nodes | 7 nodes | 16,384 B | 1 client |"
    assert growth[4] == "| raft | 0.50 | missing | 0.25 | 0.20 |"
    assert "1 of 5 points are missing" in text
    assert "<b>" not in text
    model = text[text.index("Model") :].splitlines()
    assert "(1.00)" in model[4]


def test_the_page_says_what_is_missing_and_escapes_it(sweep: Sweep, tmp_path: Path) -> None:
    page = write_files(tmp_path, sweep).read_text()
    assert "n7 &lt;did&gt; not start" in page
    assert "<did>" not in page
    assert "1 of 5 points are missing" in page
    assert page.count("<svg") == 2 + 3 * 4


def test_latency_stands_against_throughput_for_every_protocol(sweep: Sweep) -> None:
    others = [
        structs.replace(r, point=structs.replace(r.point, protocol="paxos")) for r in sweep.rows
    ]
    both = table(structs.replace(sweep, rows=others[::-1] + sweep.rows))
    chart = load_figure(both)
    assert [row[:3] for row in chart.rows] == [
        [protocol, clients, rate]
        for protocol in ("paxos", "raft")
        for clients, rate in (("1", "2,000"), ("128", "10,000"))
    ]
    assert chart.svgs[0].count('class="mark line"') == 2
