"""The sweep over failure detectors: what a run counts, that it is a function of its seed, and the
page that comes of it."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import msgspec
import pytest

from chaos.commands.main import main
from chaos.progress import Lines
from chaos.seeds.detector_sweep import (
    NODES,
    Job,
    Network,
    Plan,
    grid,
    jobs_of,
    measure,
    run_sweep,
    trade_offs,
)
from nodes.parts.failure_detector import CountingParameters, PhiParameters
from nodes.simulator.network import Quality
from reports.sweeps.detector_sweep import (
    FACTORS,
    DetectorRow,
    Sweep,
    first_screen,
    load_sweep,
    table,
    write_page,
)

SHORT = Plan(runs=1, warm_up_s=60, observe_s=600, crashes=2, detect_s=60, trust_s=60)
TINY = Plan(runs=1, warm_up_s=5, observe_s=20, crashes=1, detect_s=15, trust_s=15)


def rows_of(network: Network, plan: Plan = SHORT) -> dict[str, DetectorRow]:
    job = Job(network, 1, (CountingParameters(),), (PhiParameters(),), plan)
    return {row.detector: row for row in measure(job)}


def test_on_a_calm_network_every_crash_is_seen_by_everybody_and_nothing_else() -> None:
    for row in rows_of(Network(factor="loss", value=0.0)).values():
        assert row.mistakes == row.undetected == row.untrusted == row.suspected_before == 0
        assert row.suspected_s == 0
        assert len(row.detections_s) == len(row.trusts_s) == SHORT.crashes * (NODES - 1)
        assert row.observed_s == SHORT.observe_s * NODES * (NODES - 1)
        # A crash is somewhere between two heartbeats; see the bound in `CountingDetector`.
        assert all(1 < after_s < 5 + 4 + 1 for after_s in row.detections_s)
        assert all(0 < after_s < 13 for after_s in row.trusts_s)


def test_a_worse_network_costs_counting_mistakes_and_phi_time() -> None:
    calm = rows_of(Network(factor="loss", value=0.0))
    lossy = rows_of(Network(factor="loss", value=0.4, quality=Quality(loss=0.4)))
    assert lossy["counting"].mistakes > 20 > lossy["phi"].mistakes
    assert lossy["counting"].suspected_s > lossy["counting"].mistakes
    assert len(lossy["counting"].mistakes_s) <= lossy["counting"].mistakes
    assert min(lossy["phi"].detections_s) > max(calm["phi"].detections_s)


def test_links_that_are_down_most_of_the_time_are_suspected_by_counting_all_the_time() -> None:
    row = rows_of(Network(factor="flapping", value=0.8, down=0.8))["counting"]
    assert row.suspected_s == pytest.approx(row.observed_s)
    assert row.mistakes == 0, "they were suspected before, and stayed so"
    assert row.detections_s == []
    assert row.suspected_before + row.undetected == SHORT.crashes * (NODES - 1)


def test_flaps_shorter_than_a_heartbeat_interval_are_no_mistake() -> None:
    mild = rows_of(Network(factor="flapping", value=0.05, down=0.05))["counting"]
    assert mild.mistakes == 0, "0.6 s cost at most one heartbeat"


def test_the_grid_covers_every_factor_and_each_run_has_both_detectors() -> None:
    assert {network.factor for network in grid()} == set(FACTORS)
    for job in jobs_of(1, Plan()):
        assert job.counting
        assert job.phi
    assert len(jobs_of(1, Plan(runs=3))) == 3 * len(grid() + trade_offs())


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    run_sweep(folder, 3, 2, Lines(), TINY)
    return folder


def test_a_sweep_is_a_function_of_its_seed(sweep_folder: Path, tmp_path: Path) -> None:
    page = run_sweep(tmp_path, 3, 1, Lines(), TINY)
    again = page.parent / "sweep.json"
    assert again.read_bytes() == (sweep_folder / "sweep.json").read_bytes()
    other = [measure(job) for job in jobs_of(4, TINY)[:3]]
    assert [row for rows in other for row in rows] != load_sweep(again).rows[:6]


def test_a_folder_is_never_written_over(
    sweep_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def run(out: Path, *_: object) -> Path:
        assert out.is_dir()
        written.append(out)
        shutil.copy(sweep_folder / "sweep.json", out)
        return out / "report.html"

    monkeypatch.setattr("chaos.seeds.detector_sweep.run_sweep", run)
    monkeypatch.chdir(tmp_path)
    for number, options in enumerate(([], [], ["-o", "named"], ["-o", str(sweep_folder)])):
        monkeypatch.setattr(sys, "argv", ["capbench", "run", "detector-sweep", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == (0 if number < 3 else 2)
    assert len(set(written)) == 3


def test_the_page_says_simulated_and_has_every_part(sweep_folder: Path) -> None:
    page = (sweep_folder / "report.html").read_text()
    assert '<span class="tag">simulated</span>' in page
    assert page.count("<svg") == 3 * len(FACTORS) + len(trade_offs())
    for title, _ in FACTORS.values():
        assert f"<h2>{title}</h2>" in page
    assert "http" not in page.replace("http-equiv", "")
    screen = first_screen(sweep_folder / "sweep.json")
    assert "simulated" in screen
    assert len(screen.splitlines()) == 2 + 2 * len(grid())


def row(**fields: object) -> DetectorRow:
    return msgspec.convert(
        {"factor": "loss", "value": 0.1, "detector": "phi", "setting": 8.0, "seed": 1, **fields},
        DetectorRow,
    )


def sweep_of(*rows: DetectorRow) -> Sweep:
    return Sweep(
        seed=1,
        nodes=5,
        heartbeat_every_s=2,
        check_every_s=1,
        flap_period_s=12,
        counting=msgspec.to_builtins(CountingParameters()),
        phi=msgspec.to_builtins(PhiParameters()),
        plan=msgspec.to_builtins(Plan()),
        rows=list(rows),
    )


def test_figures_are_taken_over_all_seeds() -> None:
    (figures,) = table(
        sweep_of(
            row(
                observed_s=3600.0,
                mistakes=3,
                suspected_s=36.0,
                mistakes_s=[2.0, 4.0],
                detections_s=[5.0, 7.0],
                undetected=1,
            ),
            row(observed_s=7200.0, mistakes=3, detections_s=[12.0], trusts_s=[1.0], untrusted=2),
        )
    ).to_dict("records")
    assert figures["observed_h"] == 3
    assert figures["false_per_h"] == figures["upper_per_h"] == 2
    assert figures["suspected"] == pytest.approx(36 / 10800)
    assert figures["mistake_s"] == 3
    assert (figures["detect_s"], figures["detect_worst_s"]) == (8, 12)
    assert (figures["undetected"], figures["untrusted"], figures["trust_s"]) == (1, 2, 1)


def test_no_mistake_seen_is_not_called_none(tmp_path: Path) -> None:
    sweep = sweep_of(row(observed_s=3600.0 * 30), row(detector="counting", observed_s=360.0))
    data = tmp_path / "sweep.json"
    data.write_bytes(msgspec.json.encode(sweep))
    figures = table(sweep)
    assert list(figures["upper_per_h"]) == [0.1, 30.0]
    assert math.isnan(figures["detect_s"][0])
    screen = first_screen(data)
    assert "<\u00a00.1" in screen
    assert "<\u00a030" in screen
    page = write_page(data, tmp_path / "page.html").read_text()
    assert "&lt;\u00a00.1" in page or "<\u00a00.1" in page


def test_what_does_not_apply_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["capbench", "run", "detector-sweep", "--nodes", "3"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "capbench: run: detector-sweep is simulated: it takes --seed, --out and --json\n"
    )
