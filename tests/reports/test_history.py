"""Changes over versions: a planted one is found, and chance is not taken for one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.record.run_folder import Manifest
from bench.record.verdict import Latency
from reports.data.plan import SYSTEM, Plan
from reports.data.summary import RunSummary
from reports.history import changes
from reports.history import series as over_time
from tests import browser
from tests.chaos.test_cli_compare import typed
from tests.reports import synthetic


def noisy(rng: random.Random, middle: float, count: int) -> list[float]:
    return [rng.gauss(middle, middle / 10) for _ in range(count)]


def test_a_planted_step_is_found_at_its_version() -> None:
    found = []
    for seed in range(20):
        rng = random.Random(seed)
        values = [*noisy(rng, 40, 12), *noisy(rng, 63, 8)]
        versions = [n // 4 for n in range(20)]
        found.append([at for at, _ in changes.change_points(values, versions)])
    assert found.count([12]) >= 19


def test_up_and_down_again_are_two_changes() -> None:
    rng = random.Random(1)
    values = [*noisy(rng, 40, 10), *noisy(rng, 80, 10), *noisy(rng, 40, 10)]
    found = changes.change_points(values, [n // 5 for n in range(30)])
    assert [at for at, _ in found] == [10, 20]


def test_chance_alone_is_hardly_ever_a_change() -> None:
    """In 2% of series of ten versions at most, before small steps are left out."""
    for versions in ([n // 5 for n in range(10)], [n // 3 for n in range(30)]):
        alarms = 0
        for seed in range(100):
            values = noisy(random.Random(seed), 40, len(versions))
            alarms += bool(changes.change_points(values, versions))
        assert alarms <= 2


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.0] * 6, []),
        ([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [3]),
        ([1.0, 1.0, 0.0, 0.0], []),  # two runs on a side are too few
        ([], []),
        ([5.0, 5.1, 5.2, float("inf"), float("inf"), float("inf")], [3]),
    ],
)
def test_figures_without_noise(values: list[float], found: list[int]) -> None:
    versions = [n >= len(values) / 2 for n in range(len(values))]
    assert [at for at, _ in changes.change_points(values, versions)] == found


def test_within_a_version_nothing_can_change() -> None:
    assert changes.change_points([1.0] * 5 + [9.0] * 5, ["a"] * 10) == []


def runs_of(
    summary: RunSummary, versions: dict[str, tuple[float, int]], **fields: Any
) -> list[tuple[RunSummary, Manifest]]:
    """Commit -> (p99 in ms, number of runs)."""
    rng = random.Random(3)
    made = []
    for day, (commit, (p99, count)) in enumerate(versions.items(), 1):
        for number in range(count):
            manifest = synthetic.manifest(synthetic.Shape(summary.protocol, summary.experiment))
            manifest.commit, manifest.complete = commit, True
            manifest.started_utc = f"2026-11-{day:02}T10:{number:02}:00+00:00"
            latency = Latency(p50=5.0, p99=rng.gauss(p99, 1), bound_ms=2000.0)
            setting = {"target": "local", "commit": commit}
            plan = Plan(experiment={"nodes": "5"}, setting=setting, protocol={})
            changed = {"latency_ms": latency, "plan": plan, "seed": number, **fields}
            made.append((msgspec.structs.replace(summary, **changed), manifest))
    return made


@pytest.fixture
def summary(summaries: list[RunSummary]) -> RunSummary:
    return next(s for s in summaries if (s.protocol, s.experiment) == ("raft", "leader-partition"))


def test_a_change_is_said_with_its_version_and_figures(summary: RunSummary) -> None:
    runs = runs_of(summary, {"aaa1111": (41, 5), "bbb2222": (41, 5), "ccc3333": (63, 5)})
    (series,) = over_time.history(runs[::-1]).series
    assert [version.name for version in series.versions] == ["aaa1111", "bbb2222", "ccc3333"]
    (shift,) = series.shifts
    assert (shift.figure, shift.before, shift.version) == ("latency p99", "bbb2222", "ccc3333")
    assert shift.direction == "worse"
    assert shift.words.startswith(
        "latency p99 of raft in leader-partition went from 41 ms to 63 ms at ccc3333 (10 runs "
        "before, 5 after, p < "
    )


def test_two_identical_commits_give_nothing_in_nine_of_ten(summary: RunSummary) -> None:
    found = 0
    for seed in range(10):
        rng = random.Random(seed)
        runs = runs_of(summary, {"aaa1111": (41, 5), "bbb2222": (41, 5)})
        for run, _ in runs:
            p50, p99 = (noisy(rng, middle, 1)[0] for middle in (5, 41))
            run.latency_ms = Latency(p50=p50, p99=p99, bound_ms=2000.0)
            run.recovery_s = noisy(rng, 1.2, 1)[0]
        (series,) = over_time.history(runs).series
        found += bool(series.shifts)
    assert found <= 1


def test_a_refuted_claim_is_a_change_whatever_the_figures(summary: RunSummary) -> None:
    runs = runs_of(summary, {"aaa1111": (41, 1)})
    runs += runs_of(summary, {"zzz": (41, 0), "bbb2222": (41, 1)}, verdict="invalid")
    (series,) = over_time.history(runs).series
    assert [shift.words for shift in series.shifts] == [
        "the verdict of raft in leader-partition went from holds to REFUTED at bbb2222"
    ]
    assert "worse: the verdict" in over_time.text(over_time.history(runs))


def test_versions_of_a_system_are_its_own(summary: RunSummary) -> None:
    runs = runs_of(summary, {"aaa1111": (41, 8)})
    for number, (run, _) in enumerate(runs):
        run.plan.protocol[SYSTEM] = "etcd 3.5" if number < 4 else "etcd 3.6"
    (series,) = over_time.history(runs).series
    assert [version.name for version in series.versions] == ["etcd 3.5", "etcd 3.6"]


def test_what_cannot_be_compared_is_counted(summary: RunSummary) -> None:
    runs = runs_of(summary, {"aaa1111": (41, 2)})
    runs[0][1].complete = False
    found = over_time.history(runs)
    assert (found.series, found.alone, found.cut_short) == ([], 1, 1)
    said = over_time.text(found)
    assert "no plan has runs of two versions" in said
    assert "1 run of plans with one version only: not compared" in said


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three commits with three runs each; the last one answers 20 ms later."""
    root = tmp_path_factory.mktemp("results")
    for number, (commit, slow_s) in enumerate((("aaa1", 0.0), ("bbb2", 0.0), ("ccc3", 0.02))):
        for seed in range(3):
            folder = synthetic.healthy(
                root / commit / str(seed),
                "raft",
                seed=seed + 10 * number,
                seconds=3.0,
                latency_s=0.008 + slow_s,
            )
            manifest = folder.manifest()
            manifest.commit = commit
            manifest.started_utc = f"2026-11-0{number + 1}T10:00:0{seed}+00:00"
            folder.write_manifest(manifest)
    return root


def test_a_planted_slowdown_is_the_exit_code_of_the_command(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "history.html"
    assert typed("history", str(results), "-o", str(page)) == 1
    said = capsys.readouterr().out
    assert "worse: latency p50 of raft in healthy went from" in said
    assert "at ccc3" in said
    assert "at bbb2" not in said
    found = browser.axe(page.read_text(), tmp_path)
    assert found["violations"] == []
    same = [str(results / name) for name in ("aaa1", "bbb2")]
    assert typed("history", *same, "-o", str(page)) == 0
    assert "nothing changed in 1 series" in capsys.readouterr().out


def test_since_a_version_only_later_changes_decide(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = synthetic.healthy(tmp_path / "d", "raft", seconds=3.0, latency_s=0.028)
    manifest = later.manifest()
    manifest.commit, manifest.started_utc = "ddd4", "2026-11-09T10:00:00+00:00"
    later.write_manifest(manifest)
    given = (str(results), str(later.path), "-o", str(tmp_path / "h.html"))
    assert typed("history", *given, "--since", "ddd4") == 0
    assert typed("history", *given, "--since", "ccc3") == 1
    assert typed("history", *given, "--since", "eee") == 2
    assert "no run has that commit or version" in capsys.readouterr().err
    alone = ("history", str(results / "aaa1"), "-o", str(tmp_path / "h.html"), "--since")
    assert typed(*alone, "aaa1") == 0
    assert typed(*alone, "eee") == 2


def test_a_few_slow_runs_do_not_hide_that_all_others_became_slower(summary: RunSummary) -> None:
    """Of a busy machine, on which some runs take many times as long as the others."""
    runs = runs_of(summary, {"aaa1111": (41, 7), "bbb2222": (41, 7)})
    p99 = [12, 10, 14, 11, 16, 13, 60, 45, 62, 54, 48, 77, 300, 64]
    for (run, _), value in zip(runs, p99, strict=True):
        run.latency_ms = Latency(p50=5.0, p99=float(value), bound_ms=2000.0)
    (series,) = over_time.history(runs).series
    assert [(shift.figure, shift.version) for shift in series.shifts] == [
        ("latency p99", "bbb2222")
    ]
