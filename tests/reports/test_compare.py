"""The comparison as text and as a table."""

from __future__ import annotations

import io

import msgspec
import pandas as pd
import pytest

from reports.data import compare
from reports.data.cost import Cost
from reports.data.summary import RunSummary


def pick(summaries: list[RunSummary], protocol: str, experiment: str) -> RunSummary:
    return next(s for s in summaries if (s.protocol, s.experiment) == (protocol, experiment))


def test_the_first_screen_tells_the_two_apart(summaries: list[RunSummary]) -> None:
    text = compare.first_screen(summaries)
    lines = text.splitlines()
    table = {line.split()[0]: line for line in lines if line.startswith(("raft ", "gossip "))}
    assert "1.000 | 0.000" in table["raft"]
    assert "1.000 | 1.000" in table["gossip"]
    assert "*" in table["gossip"]
    assert "*" not in table["raft"]
    said = " ".join(text.split())
    assert (
        "raft stayed consistent; in leader-partition, it served none of the minority's operations "
        "and all of the majority's (back in 1.2 s)."
    ) in said
    assert "gossip gave stale answers in leader-partition, as its claim (eventual) allows" in said
    assert "it served both sides of the cut in full." in said
    assert "of reads were stale" in said
    assert "not linearizable: c" in said


def test_systems_are_compared_by_what_was_lost_stale_and_spent(
    summaries: list[RunSummary],
) -> None:
    raft, gossip = (
        msgspec.structs.replace(
            pick(summaries, protocol, "leader-partition"), target="lab", lost_writes=lost, cost=cost
        )
        for protocol, lost, cost in (("raft", None, None), ("gossip", 1303, Cost(cpu_us=212.4)))
    )
    more = msgspec.structs.replace(gossip, lost_writes=0, seed=gossip.seed + 1)
    lines = compare.first_screen([raft, gossip, more]).splitlines()
    heads = next(line.split() for line in lines if line.startswith("protocol"))
    rows = [line.split() for line in reversed(lines) if line.startswith(("raft ", "gossip "))]
    table = {row[0]: row for row in rows}  # The first of several.
    assert heads[-4:] == ["lost", "stale", "CPU", "verdict"]
    assert table["raft"][-5:] == ["s", "–", "0", "–", "holds"]
    assert gossip.stale_reads is not None
    share = f"{gossip.stale_reads.fraction:.1%}"
    lost = table["gossip"].index("1,303")
    assert table["gossip"][lost : lost + 4] == ["1,303", share, "212", "µs"]
    assert "lost: writes that were acknowledged" in " ".join(lines)
    own = compare.first_screen([pick(summaries, "raft", "leader-partition")])
    assert "stale:" not in own


def test_plain_words_take_their_figures_from_one_experiment_and_name_it(
    summaries: list[RunSummary],
) -> None:
    run = pick(summaries, "raft", "leader-partition")

    def of(name: str, majority: float, minority: float, recovery_s: float | None) -> RunSummary:
        sides = msgspec.structs.replace(run.availability, majority=majority, minority=minority)
        return msgspec.structs.replace(
            run, experiment=name, availability=sides, recovery_s=recovery_s
        )

    runs = [of("one", 0.9, 0.2468, 1.0), of("two", 0.8226, 0.5, None), of("three", 0.95, 0.3, 1.0)]
    said = " ".join(compare.first_screen(runs).split())
    assert (
        "raft stayed consistent; in two, it served 0.500 of the minority's operations and 0.822 of "
        "the majority's (not back)."
    ) in said
    assert "0.246 of" not in said


def test_it_fits_into_120_columns_whatever_there_is(summaries: list[RunSummary]) -> None:
    many = [
        msgspec.structs.replace(run, experiment=f"{run.experiment}-{i}", seed=i)
        for i in range(5)
        for run in summaries
    ]
    broken = msgspec.structs.replace(many[0], verdict="invalid", reason="because " * 60)
    text = compare.first_screen([*many, broken])
    assert max(map(len, text.splitlines())) <= 120
    for experiment in {run.experiment for run in many}:
        assert experiment in text


def test_many_experiments_are_counted_and_simulated_is_said_once(
    summaries: list[RunSummary],
) -> None:
    stale = pick(summaries, "gossip", "leader-partition")
    runs = [
        msgspec.structs.replace(stale, experiment=f"e{i}", simulated=True, target="sim")
        for i in range(6)
    ]
    few = " ".join(compare.first_screen(runs[:3]).split())
    assert "gave stale answers in e0, e1, e2 (simulated), as its claim (eventual) allows" in few
    many = " ".join(compare.first_screen(runs).split())
    assert "gave stale answers in 6 experiments (simulated), as its claim" in many
    # What is broken is always named.
    broken = [msgspec.structs.replace(r, verdict="invalid", measured_model="none") for r in runs]
    told = " ".join(compare.first_screen(broken).split())
    assert "BROKE its claim (eventual) in e0, e1, e2, e3, e4, e5 (simulated)" in told
    mixed = " ".join(compare.first_screen([stale, runs[0]]).split())
    assert "in leader-partition, e0 (simulated), as its claim" in mixed


def test_unknown_and_refuted_are_never_called_valid(summaries: list[RunSummary]) -> None:
    run = pick(summaries, "raft", "healthy")
    unknown = msgspec.structs.replace(run, verdict="unknown", reason="there was too little load")
    text = compare.first_screen([unknown])
    assert "unknown *" in text
    assert "there was too little load" in text
    assert "holds *" not in text
    assert "stayed consistent;" not in text
    refuted = msgspec.structs.replace(
        run, verdict="invalid", measured_model="none", reason="a lost write"
    )
    text = compare.first_screen([refuted])
    assert "REFUTED *" in text
    assert "BROKE its claim (linearizable) in healthy: measured not even eventual" in text
    assert "a lost write" in text


def test_repeats_show_medians_and_the_worst_verdict(summaries: list[RunSummary]) -> None:
    run = pick(summaries, "raft", "leader-partition")
    never = msgspec.structs.replace(run, recovery_s=None, verdict="unknown")
    (cell,) = compare.matrix([run, run, never]).cells.values()
    assert cell.word == "unknown 1/3"
    assert cell.back_in == compare.seconds(run.recovery_s)
    (cell,) = compare.matrix([run, never, never]).cells.values()
    assert cell.back_in == "not back"
    slow = msgspec.structs.replace(
        run, throughput=msgspec.structs.replace(run.throughput, during=1)
    )
    (cell,) = compare.matrix([slow, run, run]).cells.values()
    assert cell.rate == run.throughput.during
    assert "3 repeats" in compare.heading([slow, run, run])


def test_simulated_runs_stand_apart_and_are_named(summaries: list[RunSummary]) -> None:
    run = pick(summaries, "raft", "healthy")
    simulated = msgspec.structs.replace(run, simulated=True)
    grid = compare.matrix([run, simulated])
    assert grid.experiments == ["healthy", "healthy (simulated)"]
    text = compare.first_screen([run, simulated])
    assert "healthy (simulated)" in text
    assert "· simulated" in text.splitlines()[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.000"),
        (0.9999, "0.999"),
        (0.996, "0.996"),
        (0.938, "0.938"),
        (0.8499, "0.849"),
        (0.0004, "<0.001"),
        (0.0, "0.000"),
        (None, "–"),
    ],
)
def test_a_share_is_never_rounded_to_a_better_one(value: float | None, text: str) -> None:
    assert compare.ratio(value) == text


def test_the_table_is_flat_and_survives_csv(summaries: list[RunSummary]) -> None:
    table = compare.table(summaries)
    assert len(table) == len(summaries)
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert read["availability_minority"].dropna().tolist() == [0.0, 1.0]
    assert list(read["protocol"]) == [run.protocol for run in summaries]


def test_a_run_alone_is_not_headed_as_a_comparison(summaries: list[RunSummary]) -> None:
    assert compare.first_screen(summaries).startswith("capbench compare · 5 nodes")
    assert compare.first_screen(summaries[:1]).startswith("capbench run · 5 nodes")


def test_nothing_to_compare_is_said() -> None:
    assert "no runs" in compare.first_screen([])


def test_a_run_that_was_cut_short_is_said_once(summaries: list[RunSummary]) -> None:
    ended = "did not reach its planned end"
    run = msgspec.structs.replace(
        summaries[0],
        verdict="unknown",
        reason=f"the run {ended}",
        missing=[f"the run was cut short: it {ended}", "no reports from the nodes"],
    )
    (cell,) = compare.matrix([run]).cells.values()
    assert cell.note() == f"unknown: the run {ended}; no reports from the nodes"


def test_who_was_served_before_a_fault_that_never_came_is_said_so(
    summaries: list[RunSummary],
) -> None:
    run = pick(summaries, "raft", "healthy")
    (whole,) = compare.matrix([run]).cells.values()
    assert compare.plain_line([whole]).endswith("of the operations.")
    ended = msgspec.structs.replace(run, verdict="unknown", cut_windows=["during", "after"])
    (cell,) = compare.matrix([ended]).cells.values()
    assert compare.plain_line([cell]).endswith("of the operations before the run was cut short.")


def test_several_cuts_are_told_together_and_settings_as_a_span(
    summaries: list[RunSummary],
) -> None:
    run = pick(summaries, "gossip", "leader-partition")
    runs = [
        msgspec.structs.replace(run, experiment=name, seed=seed)
        for seed, name in enumerate(("halves", "bridge", "leader-partition"), 7)
    ]
    cells = compare.matrix(runs).row("gossip")
    assert "in all 3 cuts, it served both sides in full" in compare.plain_line(cells)
    assert "seed 7 to 9" in compare.heading(runs)
    assert "seed 7 or 8" in compare.heading(runs[:2])
