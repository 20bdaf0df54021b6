"""Repeats: means with bootstrap intervals."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from reports.data import compare
from reports.data.cost import Cost
from reports.data.repeats import between, interval, lines, repeats, rows
from reports.data.summary import RunSummary
from reports.formats.experiments import intervals_of
from tests.reports.test_compare import pick


def test_an_interval_holds_the_mean_and_narrows_with_more_runs() -> None:
    values = list(np.random.default_rng(5).exponential(10, 40))
    few, many = interval(values[:5]), interval(values)
    for one, count in ((few, 5), (many, 40)):
        assert one is not None
        assert one.low is not None
        assert one.high is not None
        assert one.runs == count
        assert one.mean == pytest.approx(np.mean(values[:count]))
        assert min(values[:count]) <= one.low < one.mean < one.high <= max(values[:count])
    assert many.high - many.low < few.high - few.low  # type: ignore[union-attr,operator]
    assert interval(values) == many, "the same runs give the same interval"


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(100):
        one = interval(list(rng.normal(50, 10, 20)))
        assert one is not None
        covered += bool(one.low <= 50 <= one.high)  # type: ignore[operator]
    assert 86 <= covered <= 99  # nominally 95; the percentile bootstrap is a little too narrow


def test_what_cannot_have_an_interval_has_none() -> None:
    assert interval([]) is None
    one = interval([3.0])
    assert one is not None
    assert (one.mean, one.low, one.high, one.runs) == (3.0, None, None, 1)
    same = interval([2.0, 2.0, 2.0])
    assert same is not None
    assert (same.low, same.high) == (2.0, 2.0)


def test_runs_of_one_experiment_and_protocol_are_repeats(summaries: list[RunSummary]) -> None:
    run = pick(summaries, "raft", "leader-partition")
    assert repeats([run]) == []
    other = pick(summaries, "gossip", "leader-partition")
    never = msgspec.structs.replace(run, recovery_s=None, verdict="unknown", seed=run.seed + 1)
    (one,) = repeats([run, other, never])
    assert (one.protocol, one.runs, one.seeds) == ("raft", 2, [run.seed, run.seed + 1])
    assert one.verdicts == {"valid": 1, "unknown": 1}
    assert one.never_back == 1
    assert one.recovery_s is not None
    assert one.recovery_s.runs == 1, "a run that was never back has no time to average"
    assert one.throughput["during"].mean == pytest.approx(run.throughput.during)
    (line,) = lines([run, never])
    assert "leader-partition raft, 2 runs: " in line
    assert "not back in 1 of 2" in line
    nearly = msgspec.structs.replace(
        run, availability=msgspec.structs.replace(run.availability, during=0.99996)
    )
    assert "availability 0.999 [0.999 to 0.999]" in lines([nearly, nearly])[0]
    simulated = msgspec.structs.replace(run, simulated=True)
    assert "raft (simulated), 2 runs" in lines([simulated, simulated])[0]


def test_a_percentile_beyond_the_time_out_is_no_number_to_average(
    summaries: list[RunSummary],
) -> None:
    run = pick(summaries, "raft", "leader-partition")
    quick = msgspec.structs.replace(
        run, latency_ms=msgspec.structs.replace(run.latency_ms, p99=100.0)
    )
    assert run.latency_ms.at("p99") == math.inf
    (one,) = repeats([quick, run, run])
    assert one.latency_ms_p99 is not None
    assert (one.latency_ms_p99.mean, one.latency_ms_p99.runs, one.over_time_out) == (100, 1, 2)
    assert "p99 longer than the time-out in 2 of 3" in lines([quick, run, run])[0]
    assert rows(one)[-2:] == [("p99, ms", 1, "100", "100", "–"), ("p99", 2, "> time-out", "–", "–")]
    cells = [
        compare.matrix(runs).cells.values() for runs in ([quick, run, run], [quick, quick, run])
    ]
    assert [cell.latency("p99") for (cell,) in cells] == ["> 2 s", "100 ms"]


def test_intervals_on_the_page_have_the_digits_of_their_figures() -> None:
    one = interval([294.3, 298.02, 297.5])
    told = {name: between(name, one) for name in ("rate", "p99", "back_in")}
    assert told["rate"] == told["p99"] == "294 to 298"
    assert told["back_in"] == "294.3 to 298.0"
    assert between("minority", interval([0.2459, 0.25])) == "0.245 to 0.250"


def test_every_cost_of_repeats_has_its_interval(summaries: list[RunSummary]) -> None:
    run = pick(summaries, "raft", "leader-partition")
    runs = [
        msgspec.structs.replace(run, cost=Cost(messages=6.0, cpu_us=cpu_us, memory_mb=80.0))
        for cpu_us in (210.0, 214.4, 260.0)
    ]
    (one,) = repeats(runs)
    assert rows(one)[-3:] == [
        ("messages per operation", 3, "6", "6", "6 to 6"),
        ("CPU per operation, µs", 3, "214", "228", "210 to 260"),
        ("memory of all nodes, at most, MB", 3, "80", "80", "80 to 80"),
    ]
    (cell,) = compare.matrix(runs).cells.values()
    assert intervals_of(cell)["cpu_us"] == "210 to 260"


def test_there_is_no_interval_below_a_median_that_counts_other_runs(
    summaries: list[RunSummary],
) -> None:
    run = pick(summaries, "raft", "leader-partition")
    quick = [
        msgspec.structs.replace(
            run, latency_ms=msgspec.structs.replace(run.latency_ms, p99=p99), recovery_s=p99 / 100
        )
        for p99 in (100.0, 110.0)
    ]
    never = msgspec.structs.replace(run, recovery_s=None)
    (all_quick,), (mixed,) = (
        compare.matrix(runs).cells.values() for runs in (quick, [*quick, never, never, never])
    )
    assert {"p99", "back_in"} <= intervals_of(all_quick).keys()
    assert not {"p99", "back_in"} & intervals_of(mixed).keys()
