"""Against a baseline: what changed is found and named, chance and other plans are not."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from bench.record.run_folder import Manifest
from bench.record.verdict import Latency
from reports.data import difference
from reports.data.plan import Plan
from reports.data.summary import RunSummary
from reports.history import against as compared
from reports.history.against import Against, against, refusal
from tests import browser
from tests.chaos.test_cli_compare import typed
from tests.reports import synthetic
from tests.reports.test_history import noisy, runs_of

Side = list[tuple[RunSummary, Manifest]]


@pytest.fixture
def summary(summaries: list[RunSummary]) -> RunSummary:
    return next(s for s in summaries if (s.protocol, s.experiment) == ("raft", "leader-partition"))


def side(summary: RunSummary, p99: float, count: int, **fields: Any) -> Side:
    return runs_of(summary, {f"commit-{p99:g}": (p99, count)}, **fields)


def noise(side: Side, seed: int) -> Side:
    """All figures vary by a tenth, from run to run."""
    rng = random.Random(seed)
    for run, _ in side:
        p50, p99, during, back = (noisy(rng, middle, 1)[0] for middle in (5, 41, 50, 1.2))
        run.latency_ms = Latency(p50=p50, p99=p99, bound_ms=2000.0)
        run.throughput = replace(run.throughput, during=during)
        run.recovery_s = back
    return side


def changed(found: Against) -> list[tuple[str, str]]:
    return [(each.figure, each.result) for each in found.changed]


def test_a_slower_percentile_is_worse_and_a_quicker_one_better(summary: RunSummary) -> None:
    old, new = side(summary, 41, 5), side(summary, 63, 5)
    (worse,) = against(old, new).changed
    assert (worse.figure, worse.result) == ("latency p99", "worse")
    assert worse.words.startswith("latency p99 of raft in leader-partition: 41 ms [")
    assert worse.old.mean is not None
    assert worse.old.mean.low is not None
    assert worse.old.mean.low < 41.5 < 62 < worse.new.median  # type: ignore[operator]
    assert worse.p == pytest.approx(2 / 252)
    assert changed(against(new, old)) == [("latency p99", "better")]


def test_a_small_step_is_no_change_however_sure(summary: RunSummary) -> None:
    found = against(side(summary, 41, 8), side(summary, 46, 8))
    assert found.changed == []
    (row,) = [each for each in found.figures if each.figure == "latency p99"]
    assert (row.result, row.p < 0.05 if row.p else None) == ("no difference shown", True)


def test_three_runs_can_show_nothing_and_that_is_said(summary: RunSummary) -> None:
    found = against(side(summary, 41, 3), side(summary, 400, 3))
    assert (found.changed, found.undecided) == ([], True)
    assert "too few runs to show a difference in 1 figure: 4 on each side" in compared.text(found)
    assert not against(side(summary, 41, 4), side(summary, 400, 4)).undecided


def test_equal_versions_give_nothing_in_nineteen_of_twenty(summary: RunSummary) -> None:
    found = [
        against(noise(side(summary, 41, 6), seed), noise(side(summary, 41, 6), 1000 + seed))
        for seed in range(40)
    ]
    assert sum(bool(each.changed) for each in found) <= 2


def test_of_many_figures_some_would_differ_by_chance() -> None:
    """As in the example of a textbook: the third of four is not significant any more."""
    assert difference.corrected([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
        [0.02, 0.04, 0.04, 0.02]
    )
    assert difference.corrected([]) == []
    rng = random.Random(1)
    alarms = raw = 0
    for _ in range(200):
        chances = [rng.random() for _ in range(20)]
        raw += min(chances) < difference.LEVEL
        alarms += min(difference.corrected(chances)) < difference.LEVEL
    assert raw > 100
    assert alarms <= 20


def test_so_many_runs_can_show_one_change_alone() -> None:
    assert [difference.least_runs(n) for n in (1, 2, 7, 100)] == [4, 5, 6, 8]
    for runs in (4, 5):
        apart = difference.p_value(range(runs), range(10, 10 + runs))
        assert (apart * 2 < difference.LEVEL) == (runs == 5)


def test_never_back_is_worse_than_any_time(summary: RunSummary) -> None:
    old = noise(side(summary, 41, 8), 1)
    new = noise(side(summary, 41, 8), 2)
    for run, _ in new:
        run.recovery_s = None
    (worse,) = against(old, new).changed
    assert (worse.figure, worse.result, worse.new.words) == ("recovery", "worse", "never back")
    assert worse.new.median is None


def test_a_claim_refuted_in_one_run_is_worse_and_one_unknown_run_is_not(
    summary: RunSummary,
) -> None:
    old, new = side(summary, 41, 4), side(summary, 41, 4)
    new[2][0].verdict = "unknown"
    assert changed(against(old, new)) == []
    new[0][0].verdict = "invalid"
    found = against(old, new)
    assert changed(found) == [("verdict", "worse")]
    assert found.newly == {"invalid"}
    assert "holds -> REFUTED 1/4, unknown 1/4, holds 2/4" in compared.text(found)
    for run, _ in new:
        run.verdict = "unknown"
    assert against(old, new).newly == {"unknown"}
    assert against(new, old).newly == set()


def test_other_plans_are_refused_in_one_line_and_other_versions_are_not(
    summary: RunSummary,
) -> None:
    old, new = side(summary, 41, 4), side(summary, 63, 4)
    assert refusal(old, new) is None
    for run, _ in new:
        run.plan = Plan(experiment={"nodes": "7"}, setting=run.plan.setting)
    assert refusal(old, new) == (
        "raft in leader-partition was run by another plan: the baseline has nodes 5, "
        "the new runs have nodes 7"
    )
    other = side(replace(summary, protocol="paxos"), 41, 4)
    assert refusal(old, other) == "no protocol and experiment that both have"
    found = against(old, [*side(summary, 41, 4), *other])
    assert (found.only_old, found.only_new) == ([], ["paxos in leader-partition"])


def test_runs_cut_short_are_left_out_and_counted(summary: RunSummary) -> None:
    old, new = side(summary, 41, 5), side(summary, 63, 5)
    new[0][1].complete = False
    found = against(old, new)
    assert (found.runs, found.cut_short) == (4, 1)


def test_text_markdown_json_and_page_say_the_same(summary: RunSummary) -> None:
    found = against(side(summary, 41, 5), side(summary, 63, 5), ("<old>", "new"))
    (worse,) = found.changed
    text, markdown = compared.text(found), compared.markdown(found)
    for cell in compared.rows([worse])[0]:
        assert cell in text
    assert "&lt;old&gt;" in markdown
    assert "worse: latency p99 of raft in leader-partition: 41 ms" in markdown.replace("\\", "")
    told: Any = msgspec.json.decode(msgspec.json.encode(found))
    assert worse.result in [each["result"] for each in told["figures"]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs each: the same twice, and one that answers 20 ms later."""
    root = tmp_path_factory.mktemp("results")
    for number, (name, slow_s) in enumerate((("base", 0.0), ("same", 0.0), ("slow", 0.02))):
        for seed in range(4):
            synthetic.healthy(
                root / name / str(seed),
                "raft",
                seed=seed + 10 * number,
                seconds=2.0,
                latency_s=0.008 + slow_s,
            )
    return root


def test_the_command_tells_by_its_exit_code(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, same, slow = (str(results / name) for name in ("base", "same", "slow"))
    page = tmp_path / "against.html"
    assert typed("report", slow, "--against", base, "-o", str(page)) == 1
    said = capsys.readouterr().out
    assert "worse: latency p50 of raft in healthy: " in said
    assert browser.axe(page.read_text(), tmp_path)["violations"] == []
    assert "latency p50 of raft in healthy" in page.read_text()
    assert typed("report", base, "--against", slow, "--json") == 0
    told: Any = msgspec.json.decode(capsys.readouterr().out)
    assert "better" in [each["result"] for each in told["figures"]]
    assert typed("report", same, "--against", base, "-f", "md") == 0
    assert "no figure is shown to differ" in capsys.readouterr().out
    assert typed("report", f"{same}/0", "--against", f"{base}/0", "-f", "md") == 5
    assert "too few runs" in capsys.readouterr().out


def test_a_copy_of_a_run_is_no_other_run(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(results / "base", tmp_path / "base")
    shutil.copytree(results / "base" / "0", tmp_path / "base" / "copy")
    base = str(results / "base")
    assert typed("report", base, "--against", base, "--json") == 0
    alone, _ = capsys.readouterr()
    assert typed("report", str(tmp_path / "base"), "--against", base, "--json") == 0
    copied, error = capsys.readouterr()
    assert error == (
        f"capbench: left out: {tmp_path}/base/copy: the same run as {tmp_path}/base/0\n"
    )
    figures = [msgspec.json.decode(said)["figures"] for said in (alone, copied)]
    assert figures[0] == figures[1]


def test_a_run_without_its_manifest_is_missed(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(results / "base", tmp_path / "base")
    (tmp_path / "base" / "0" / "manifest.json").unlink()
    base = str(results / "base")
    assert typed("report", str(tmp_path / "base"), "--against", base, "-f", "md") == 5
    said, error = capsys.readouterr()
    assert "1 run of the new cannot be read: left out" in said
    assert f"left out: {tmp_path}/base/0: no manifest.json in it" in error
    typed("report", base, "--against", str(tmp_path / "base"), "-f", "md")
    assert "1 run of the baseline cannot be read: left out" in capsys.readouterr().out


def test_mistakes_are_one_line_with_exit_code_2(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(results / "base")
    for number in range(4):
        synthetic.healthy(tmp_path / "other" / str(number), "gossip", seed=number, seconds=2.0)
    for arguments, words in (
        ((str(tmp_path / "other"), "--against", base), "no protocol and experiment that both"),
        ((base, "--against", base, "--diff"), "--diff and --against exclude each other"),
        ((base, "--against", base, "-f", "csv"), "unknown format 'csv'; use html, md, json"),
        ((base, "--against", str(tmp_path / "nowhere")), "no such folder"),
        (("--against", base), "name a run folder"),
    ):
        assert typed("report", *arguments) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
