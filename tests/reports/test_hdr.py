"""HdrHistogram logs: what the library reads back are the figures of the report."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports.data.metrics import RunTables, load
from reports.formats.hdr import DIGITS, HIGHEST_NS, write_hdr
from tests.chaos.test_cli_compare import typed
from tests.reports import synthetic

hdrh = pytest.importorskip("hdrh", reason="the extra capbench[hdr] is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunTables:
    """A fifth is not served while the leader is cut off, and three were never sent."""
    folder = tmp_path_factory.mktemp("run") / "raft"
    return load(synthetic.leader_partition(folder, "raft", dropped=3).path)


def intervals(path: Path) -> list[Any]:
    """The histograms of a log, in its order, as the library reads them."""
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader

    reader = HistogramLogReader(str(path), HdrHistogram(1, HIGHEST_NS, DIGITS))
    found = iter(reader.get_next_interval_histogram, None)
    try:
        return list(found)
    finally:
        reader.close()


def test_a_log_has_the_counts_and_percentiles_of_each_phase(run: RunTables, tmp_path: Path) -> None:
    (path,) = write_hdr([("<raft> 7", run)], tmp_path)
    assert path.name == "raft-7.hlog"
    read = intervals(path)
    windows = run.windows[run.windows["side"] == "all"].set_index("phase")
    for phase in ("before", "during", "after"):
        own = [each for each in read if each.get_tag() == phase]
        merged = own[0]
        for each in own[1:]:
            merged.add(each)
        row: Any = windows.loc[phase]
        assert merged.get_total_count() == row["wanted"]
        for percentile in (50, 99):
            # The library rounds a rank to the nearest, and the report upwards.
            rank = math.ceil(percentile / 100 * row["wanted"])
            told = merged.get_value_at_percentile(100 * rank / row["wanted"]) / 1e6
            wanted = row[f"latency_ms_p{percentile}"]
            assert told == pytest.approx(2000 if math.isinf(wanted) else wanted, rel=0.001)
    assert windows.loc["during", "latency_ms_p99"] == math.inf


def test_what_was_answered_but_not_served_took_longer_than_the_time_out(
    run: RunTables, tmp_path: Path
) -> None:
    refused = replace(run, operations=run.operations.assign(served=False))
    (path,) = write_hdr([("raft", refused)], tmp_path)
    assert min(each.get_min_value() for each in intervals(path)) > 1.99e9


def test_intervals_are_seconds_in_order_of_time(run: RunTables, tmp_path: Path) -> None:
    (path,) = write_hdr([("raft", run)], tmp_path)
    stamps = [(each.get_start_time_stamp(), each.get_end_time_stamp()) for each in intervals(path)]
    assert stamps == sorted(stamps)
    assert {end - start for start, end in stamps} == {1000.0}
    assert len({start for start, _ in stamps}) == 20
    assert "raft in leader-partition, seed 7; nanoseconds" in path.read_text().splitlines()[0]


def test_the_command_writes_a_log_per_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    synthetic.healthy(tmp_path / "runs" / "one", "raft", seconds=1.0)
    assert typed("report", "runs", "-f", "hdr", "-o", "logs") == 0
    assert intervals(tmp_path / "logs" / "one.hlog")[0].get_tag() == "before"
    monkeypatch.setitem(sys.modules, "hdrh.log", None)
    assert typed("report", "runs", "-f", "hdr", "-o", "logs") == 2
    assert capsys.readouterr().err == (
        "capbench: --format hdr needs the library `hdrhistogram`: pip install 'capbench[hdr]'\n"
    )
