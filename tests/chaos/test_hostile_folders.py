"""Run folders that somebody else made: one bad run is one line of the list and of the page, waits
for nobody, and reads and writes nothing outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.record.run_folder import BadRunFolder, RunFolder
from chaos.commands.serve import make_server, rows
from reports import load as load_tables
from reports.data.folders import find_runs, load_run
from reports.formats.render import write_report
from tests.bench.test_files import directory, huge, link_nowhere, link_out, link_to_zeros, pipe
from tests.chaos.test_cli_compare import typed
from tests.reports.test_explained import stale_and_lost
from tests.waiting import patience

SECRET = "nobody is to see this"
FILES = (
    "manifest.json",
    "verdict.json",
    "faults.jsonl",
    "history/load.jsonl",
    "load/load.json",
    "nodes/n1.jsonl",
    "messages.json",
)
THINGS: tuple[Callable[[Path], None], ...] = (
    directory,
    pipe,
    link_to_zeros,
    link_nowhere,
    link_out,
    huge,
)


def changed(**fields: Any) -> Callable[[Path], None]:
    """The file, with other fields."""

    def change(path: Path) -> None:
        told = msgspec.json.decode(path.read_bytes())
        path.write_bytes(json_text({**told, **fields}))

    return change


def holds(content: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    return change


def json_text(told: Any) -> bytes:
    """Also of numbers that have more than 64 bits."""
    return json.dumps(told).encode() + b"\n"


def check(name: str, **details: Any) -> dict[str, Any]:
    return {
        "name": name,
        "verdict": "valid",
        "model": "none",
        "algorithm": "",
        "operations": 1,
        "seconds": 1e308,
        "summary": "",
        "details": details,
    }


def operation(**fields: Any) -> bytes:
    told = {"process": "p", "id": 1, "op": "read", "key": "k", "outcome": "ok", "invoked_ns": 1}
    return json_text({**told, "completed_ns": 2, "value": None, **fields})


def event(name: str, **details: Any) -> bytes:
    told = {"t_ns": 1, "node": "n1", "kind": "event", "name": name, "details": details}
    return json_text(told)


def status(**fields: Any) -> bytes:
    return json_text({"t_ns": 1, "node": "n1", "kind": "status", **fields})


DEEP = b"[" * 200_000
SENSELESS: list[tuple[str, Callable[[Path], None]]] = [
    ("manifest.json", holds(b'{\n  "schema_version": 1,\n  "capb')),
    ("manifest.json", holds(DEEP)),
    ("manifest.json", holds(b'{"experiment_name": "\xff"}')),
    ("manifest.json", changed(load_started_ns=2**70)),
    ("manifest.json", changed(load_started_ns=-(2**62), load_ended_ns=2**62)),
    ("manifest.json", changed(load_started_ns=5, load_ended_ns=-5)),
    ("manifest.json", changed(seed=10**400)),
    ("manifest.json", changed(offered_per_s=1e308, hardware={"cores": 10**400})),
    ("manifest.json", changed(nodes=[], claim="none")),
    ("manifest.json", changed(experiment={"objectives": [1], "shows": {"a": 1}, "workload": 7})),
    ("manifest.json", changed(experiment={"objectives": {"before": {"availability": ">= x"}}})),
    ("manifest.json", changed(experiment_name="\x1b[2J" * 9, versions={"broker": " ", "x": "\n"})),
    ("verdict.json", holds(b"{")),
    ("verdict.json", changed(checks=[check("staleness", share="x", age_s=7, worst={"a": 1})])),
    ("verdict.json", changed(checks=[check("convergence", converged_within_s=[])])),
    ("verdict.json", changed(checks=[check("availability", windows=[])])),
    ("faults.jsonl", holds(DEEP + b"\n")),
    ("faults.jsonl", holds(b'{"number": -1, "fault": "", "planned_ns": 9e99}\n')),
    (
        "faults.jsonl",
        holds(b'{"number": 1, "fault": "partition", "planned_ns": 1, "groups": [[], ["x"]],'),
    ),
    (
        "faults.jsonl",
        holds(
            b'{"number": 1, "fault": "partition", "planned_ns": 1, "groups": [["n1"], ["x"], []],'
            b'"applied_ns": -4611686018427387904, "healed_ns": 4611686018427387904}\n'
        ),
    ),
    ("nodes/n1.jsonl", holds(event("under_replicated") + event("re_replicated", range=1))),
    ("nodes/n1.jsonl", holds(event("suspect", node=[1]) + event("under_replicated", lost=[1]))),
    (
        "nodes/n1.jsonl",
        holds(b'{"t_ns": 1, "node": "n1", "kind": "status", "probe": {"role": []}}\n'),
    ),
    (
        "nodes/n1.jsonl",
        holds(
            b'{"t_ns": 1, "node": "n1", "kind": "status", "counters": {"a": 1' + b"0" * 99 + b"}}\n"
        ),
    ),
    ("history/load.jsonl", holds(operation(invoked_ns=2**70, completed_ns=2**71))),
    ("history/load.jsonl", holds(operation(intended_ns=-(2**62)) + operation(id=2**62))),
    ("history/load.jsonl", holds(operation(id=10**400))),
    ("history/load.jsonl", holds(operation(value=[1, "a", None], version={"n1": 10**400}))),
    ("load/load.json", changed(dropped=2**62, dropped_intended_ns=[2**62, -(2**62)])),
    ("messages.json", holds(b'{"nodes": [], "story": {"arrows": [], "moments": []}, "total": 0}')),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stale_and_lost(tmp_path_factory.mktemp("base") / "run", "eventual").path


def spoiled(base: Path, to: Path, name: str, make: Callable[[Path], None]) -> Path:
    shutil.copytree(base, to)
    place = to / name
    if place.exists() and make in THINGS:
        place.unlink()
    make(place)
    if make is link_out:
        (place.parent / "secret").write_text(f'"{SECRET}"\n')
    return to


@pytest.fixture(scope="module")
def hostile(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    shutil.copytree(base, root / "good")
    for name in FILES:
        for make in THINGS if name == "manifest.json" else THINGS[:2]:
            spoiled(base, root / f"{name.replace('/', '-')} {make.__name__}", name, make)
    for name in ("history", "load", "nodes"):
        folder = root / f"{name} is a link"
        shutil.copytree(base, folder)
        shutil.rmtree(folder / name)
        (folder / name).symlink_to(base / name)
    for number, (name, make) in enumerate(SENSELESS):
        spoiled(base, root / f"senseless {number} {name.replace('/', '-')}", name, make)
    for odd in (b"\xff\xfe", b"<script>alert(1)<", b"\x1b[2J\n", b"a" * 250):
        shutil.copytree(base, Path(os.fsdecode(os.path.join(os.fsencode(root), odd))))
    return root


Get = Callable[[str], tuple[int, str]]


@pytest.fixture(scope="module")
def get(hostile: Path) -> Iterator[Get]:
    with make_server(hostile, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = (str(server.server_address[0]), server.server_address[1])

        def ask(path: str) -> tuple[int, str]:
            connection = http.client.HTTPConnection(*address, timeout=patience(60))
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            return answer.status, text

        yield ask
        server.shutdown()
        thread.join()


def test_every_run_is_a_line_in_the_list(hostile: Path, get: Get) -> None:
    listed = rows(hostile)
    assert len(listed) == sum(1 for _ in hostile.iterdir())
    unreadable = [row for row in listed if row.verdict == "unreadable"]
    named = {row.name for row in unreadable}
    assert {f"manifest.json {make.__name__}" for make in THINGS} <= named
    assert {f"verdict.json {make.__name__}" for make in THINGS[:2]} <= named
    assert "good" not in named
    status, page = get("/")
    assert status == 200
    assert page.count("<tr>") == len(listed) + 1
    assert f"{len(unreadable)} cannot be read" in page
    assert "manifest.json: is a pipe" in page
    assert r"\xff\xfe" in page
    assert "<script>alert" not in page
    assert SECRET not in page


@pytest.mark.parametrize("name", [b"\xff\xfe", b"<script>alert(1)<", b"\x1b[2J\n", b"good"])
def test_a_run_with_an_odd_name_is_opened(get: Get, hostile: Path, name: bytes) -> None:
    (row,) = [row for row in rows(hostile) if os.fsencode(row.path.name) == name]
    status, page = get("/report?run=" + row.name.encode().hex("%", 1).join(("%", "")))
    assert status == 200
    assert "Why the claim is refuted" in page
    assert "<script>alert" not in page


def test_all_of_them_make_one_page(hostile: Path, tmp_path: Path) -> None:
    page = write_report(find_runs(hostile), tmp_path / "report.html").read_text()
    assert page.count("Left out:") >= 12
    assert page.count('<section class="run"') >= 30
    assert "<script>alert" not in page
    assert SECRET not in page


def test_the_tables_and_text_formats_leave_them_out(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", os.fsdecode(b"\xff")):
        shutil.copytree(base, tmp_path / name)
    spoiled(base, tmp_path / "bad", "manifest.json", pipe)
    tables = load_tables(tmp_path)
    assert set(tables.runs["run"]) == {"good", r"\xff"}
    assert any("manifest.json: is a pipe" in line for line in tables.missing)
    for form in ("md", "junit", "json"):
        assert typed("report", str(tmp_path), "-f", form) == 0
        said = capsys.readouterr()
        assert "manifest.json: is a pipe" in said.err
        assert "quorum-weak" in said.out


@pytest.mark.parametrize("name", FILES[2:6])
@pytest.mark.parametrize("make", THINGS)
def test_check_says_what_it_cannot_read(
    base: Path,
    tmp_path: Path,
    name: str,
    make: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What nodes told is none of its business."""
    folder = spoiled(base, tmp_path / "run", name, make)
    assert typed("check", str(folder)) == (2 if not name.startswith("nodes") else 4)
    said = capsys.readouterr()
    named = name.partition("/")[0] if make is huge else name
    assert (named in said.err) is not name.startswith("nodes")
    assert "Traceback" not in said.err


def test_check_writes_through_no_link(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(base, folder)
    (tmp_path / "precious").write_text("mine")
    (folder / "verdict.json").unlink()
    for name in ("verdict.json", "verdict.json.partial"):
        (folder / name).symlink_to(tmp_path / "precious")
    assert typed("check", str(folder)) == 4
    assert (tmp_path / "precious").read_text() == "mine"
    assert RunFolder(folder).verdict() is not None


def test_a_folder_that_makes_no_sense_is_a_bad_run_folder(base: Path, tmp_path: Path) -> None:
    for number, (name, make) in enumerate(SENSELESS):
        folder = spoiled(base, tmp_path / f"{number}", name, make)
        with contextlib.suppress(BadRunFolder):
            load_run(folder)
