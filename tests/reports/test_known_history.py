"""The figures of the histories that are known by construction, wherever they are printed: one place
computes them, and all print the same."""

from __future__ import annotations

import csv
import html
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from bench.checkers.verdict import check_run
from reports.data import compare
from reports.data.cases import cases_of
from reports.data.metrics import RunTables, load
from reports.data.rows import fault_rows, window_rows
from reports.formats.export import write_csv
from reports.formats.junit import junit
from reports.formats.markdown import markdown
from reports.formats.render import write_report
from tests.known import ALL, Known

SHOWN = {
    # available, majority | minority, p99, back in; the same in an objective's words
    "partition": ("0.845", "0.996 | 0.242", "> 2 s", "1.2 s", "> 2000 ms", "1.21 s"),
    "slow-links": ("0.998", "– | –", "200 ms", "0.0 s", "200 ms", "0 s"),
    "congestion": ("0.525", "– | –", "> 2 s", "8.0 s", "> 2000 ms", "8 s"),
    "overlapping": ("1.000", "– | –", "1.4 s", "1.5 s", "1420 ms", "1.497 s"),
    "repeated-cuts": ("0.733", "1.000 | 0.000", "> 2 s", "0.6 s", "> 2000 ms", "0.61 s"),
    "never-back": ("0.000", "– | –", "> 2 s", "not back", "> 2000 ms", "never back"),
}


@dataclass(frozen=True)
class Written:
    """A known history as a run folder, judged, and its tables."""

    known: Known
    run: RunTables

    @property
    def shown(self) -> tuple[str, ...]:
        return SHOWN[self.known.name]


@pytest.fixture(scope="module", params=ALL, ids=lambda known: known.name)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    known: Known = request.param
    folder = known.write(tmp_path_factory.mktemp("known") / known.name)
    folder.write_verdict(check_run(folder))
    return Written(known, load(folder.path))


def test_the_verdict_file_and_the_summary_have_the_known_figures(written: Written) -> None:
    known, run = written.known, written.run
    verdict = json.loads((run.folder / "verdict.json").read_text())
    (check,) = [check for check in verdict["checks"] if check["name"] == "availability"]
    assert known.problems(check["details"]) == []
    summary: dict[str, Any] = json.loads(msgspec.json.encode(run.summary))
    assert summary["recovery_s"] == known.recovery_s
    assert summary["window_latency_ms"] == known.latency_ms
    assert summary["latency_ms"] == known.latency_ms["during"]
    for name in known.latency_ms:
        assert summary["availability"][name] == known.share(name)
        assert summary["within_1s"][name] == known.share(name, quick=True)
    assert [(f["back_in_s"], f["longest_silence_s"]) for f in summary["faults"]] == [
        (back, silence) for _, _, back, _, silence in known.of_faults
    ]
    during = known.windows["during"]
    assert summary["throughput"]["during"] == during[1] / during[4]


def test_the_tables_and_their_csv_have_them(written: Written, tmp_path: Path) -> None:
    known, run = written.known, written.run
    write_csv([("run", run)], tmp_path)
    rows = list(csv.DictReader((tmp_path / "windows.csv").read_text().splitlines()))
    got = {
        row["side"] if row["side"] != "all" else row["phase"]: (
            *(int(row[name]) for name in ("wanted", "served", "dropped")),
            float(row["seconds"]),
            float(row["availability"]),
            float(row["within_1s"]),
        )
        for row in rows
    }
    assert got == {
        name: (wanted, served, dropped, seconds, served / wanted, quick / wanted)
        for name, (wanted, served, quick, dropped, seconds) in known.windows.items()
    }
    for row in rows:
        name = row["side"] if row["side"] != "all" else row["phase"]
        for part in ("p50", "p99"):
            if name in known.latency_ms:
                value = known.latency_ms[name][part]
                want = math.inf if value is None else value
                assert float(row[f"latency_ms_{part}"]) == want, name
    faults = list(csv.DictReader((tmp_path / "faults.csv").read_text().splitlines()))
    assert [
        (int(float(f["wanted"])), int(float(f["served"])), float(f["back_in_s"])) for f in faults
    ] == [
        (wanted, served, math.inf if back is None else back)
        for wanted, served, back, _, _ in known.of_faults
    ]
    (figures,) = csv.DictReader((tmp_path / "runs.csv").read_text().splitlines())
    bound = known.latency_ms["during"]["bound_ms"]
    assert float(figures["window_latency_ms_during_bound_ms"]) == bound
    assert figures["recovery_s"] == ("" if known.recovery_s is None else str(known.recovery_s))


def test_the_operations_add_up_to_the_windows(written: Written) -> None:
    known, run = written.known, written.run
    for name, (wanted, served, _, dropped, _) in known.windows.items():
        column = "side" if name in ("majority", "minority", "none") else "phase"
        here, lost = run.operations, run.dropped
        if name != "all":
            here, lost = here[here[column] == name], lost[lost[column] == name]
        assert (len(here) + len(lost), here["served"].sum(), len(lost)) == (wanted, served, dropped)


def test_the_terminal_has_them(written: Written) -> None:
    available, sides, _, back, *_ = written.shown
    text = compare.first_screen([written.run.summary])
    (line,) = [line for line in text.splitlines() if line.startswith("raft ")]
    if sides != "– | –":
        assert re.search(rf"{re.escape(sides)}\s+{back}\b", line)
    elif available != "1.000":
        assert re.search(rf" {available}\s+{back}\b", line)
    else:
        assert written.shown[2] in line  # where all were served, their latency tells more


def in_words(back: str) -> str:
    return {"0.0 s": "no outage", "not back": "not back"}.get(back, f"back in {back}")


def test_markdown_has_them(written: Written) -> None:
    available, sides, p99, back, *_ = written.shown
    text = markdown(cases_of([("run", written.run)]))
    (line,) = [line for line in text.splitlines() if line.startswith("| **raft**")]
    both = sides.split(" | ")
    said = "" if "–" in sides else f"majority {both[0]}, minority {both[1]}<br>"
    assert f"available {available}<br>{said}{in_words(back)}<br>p99 {html.escape(p99)} |" in line


def test_junit_has_them(written: Written) -> None:
    available, *_, p99, back = written.shown
    root = ET.fromstring(junit(cases_of([("run", written.run)])))
    cases = {case.attrib["name"]: case[0] for case in root.iter("testcase")}

    def ending(name: str) -> tuple[str, str]:
        case = cases[f"objective: {name}"]
        return case.tag, (case.text or "").removeprefix(f"{name}: ")

    assert ending("before p99 <= 10ms") == ("system-out", "met, 10 ms")
    whole = available == "1.000"
    assert ending("during availability >= 1") == (
        ("system-out", "met, 1.000") if whole else ("failure", f"missed, {available}")
    )
    in_time = p99 == "200 ms"
    assert ending("during p99 <= 1s") == (
        ("system-out", f"met, {p99}") if in_time else ("failure", f"missed, {p99}")
    )
    kind, text = ending("after recovery <= 1s")
    assert back in text
    recovery = written.known.recovery_s
    assert (kind == "system-out") == (recovery is not None and recovery <= 1)


def test_junit_has_the_figures_as_properties_of_the_run(written: Written) -> None:
    available, sides, p99, back, *_ = written.shown
    root = ET.fromstring(junit(cases_of([("run", written.run)])))
    figures = {each.attrib["name"]: each.attrib["value"] for each in root.iter("property")}
    assert figures["during availability"] == available
    assert figures["during p99"] == p99
    assert figures["back in"] == back
    shown = [figures.get(f"during availability.{side}", "–") for side in ("majority", "minority")]
    assert " | ".join(shown) == sides
    assert {"before p50", "before throughput", "longest silence", "outages"} <= figures.keys()


def test_a_share_reads_the_same_in_every_print_out(written: Written, tmp_path: Path) -> None:
    """Terminal, plain words, check, Markdown, JUnit, its objectives, the page and its tables."""
    run = written.run
    judged = cases_of([("run", run)])
    assert run.verdict is not None
    (check,) = [check for check in run.verdict.checks if check.name == "availability"]
    page = write_report([run.folder], tmp_path / "report.html").read_text()
    texts = {
        "terminal": compare.first_screen([run.summary]),
        "check": check.summary,
        "Markdown": markdown(judged),
        "JUnit": junit(judged),
        "page": html.unescape(re.sub(r"<[^>]+>", " ", page)),
    }
    exact = {
        value
        for name in ("during", "majority", "minority")
        if (value := getattr(run.summary.availability, name)) is not None
    }
    for value in exact - {0.0, 1.0}:
        right = f"{math.floor(value * 1000 + 1e-9) / 1000:.3f}"
        for name, text in texts.items():
            near = set(re.findall(rf"(?<![\d.]){right[:4]}\d*", text))
            assert near <= {right} or value > 0.9, name  # there are many of about 0.99
            assert right in near or name == "terminal"  # it has the sides, or the whole
            assert f"{value * 100:.1f}%" not in text, name


def test_the_page_has_them(written: Written, tmp_path: Path) -> None:
    available, sides, p99, back, *_ = written.shown
    page = write_report([written.run.folder], tmp_path / "report.html").read_text()
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    flat = " ".join(text.split())
    if "–" in sides:
        assert f"available {available}" in flat
    else:
        majority, minority = sides.split(" | ")
        assert f"majority {majority} minority {minority}" in flat
    assert f"p99 during {p99} {in_words(back)}" in flat
    for row in [*window_rows(written.run), *fault_rows(written.run)]:
        assert " ".join(" ".join(row).split()) in flat
    for row in window_rows(written.run):
        assert "inf" not in row
        assert "nan" not in row


def test_rows_say_in_words_what_is_no_number(written: Written) -> None:
    columns = list(written.run.windows.columns)
    rows = {
        row[1] if row[1] != "all" else row[0]: dict(zip(columns, row, strict=True))
        for row in window_rows(written.run)
    }
    for name, found in written.known.latency_ms.items():
        if found["bound_ms"] is not None:
            value = found["p99"]
            assert rows[name]["latency_ms_p99"] == ("> 2 s" if value is None else f"{value:.4g}")
    back = [
        row[list(written.run.faults.columns).index("back_in_s")] for row in fault_rows(written.run)
    ]
    assert back == [
        "not back" if b is None else f"{b:.4g}" for _, _, b, _, _ in written.known.of_faults
    ]
