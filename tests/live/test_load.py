"""`capbench load`: Locust on a cluster that stays, as a user types it."""

from __future__ import annotations

import re
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from bench.load.workload import make_workload, plan
from bench.record.cluster_file import read_cluster_file
from bench.record.run_folder import RunFolder
from chaos.clusters.processes import free_ports
from tests import browser
from tests.live.conftest import capbench, leftovers, run_json
from tests.processes import begun
from tests.waiting import patience, wait_for

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which a cluster runs."""
    place = tmp_path_factory.mktemp("load")
    done = capbench("up", "--protocol", "raft", "--nodes", "3", cwd=place)
    assert done.returncode == 0, done.stderr
    yield place
    capbench("down", cwd=place)
    assert leftovers(place) == []


def typed(place: Path, *arguments: str) -> subprocess.Popen[str]:
    """``capbench load ...``, with the signals that a shell's foreground process has."""
    return begun(
        "load",
        *arguments,
        cwd=place,
        restore_signals=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def drawn(url: str, place: Path) -> str:
    """What headless Chromium makes of a page of Locust, which asks for news every two seconds."""
    page = browser.dom(url, place, "--virtual-time-budget=5000")
    return page[page.find("<table") : page.rfind("</table")]


def test_what_it_tells_is_what_locust_and_the_history_tell(place: Path) -> None:
    statistics_path = place / "statistics"
    arguments = ("load", "--workload", "f", "--rate", "200", "--run-time", "2s", "-o", "one")
    code, told = run_json(*arguments, "--json-file", str(statistics_path), cwd=place)
    folder = RunFolder(place / "one")
    history = folder.operations()
    counts: dict[str, Counter[str]] = {}
    for record in history:
        counts.setdefault(record.op, Counter())[record.outcome] += 1
    assert told["operations"] == {op: dict(outcomes) for op, outcomes in counts.items()}
    statistics = msgspec.json.decode(statistics_path.with_suffix(".json").read_bytes())
    assert {row["name"]: row["num_requests"] for row in statistics} == {
        op: outcomes.total() for op, outcomes in counts.items()
    }
    assert {row["name"]: row["num_failures"] for row in statistics} == {
        op: outcomes.total() - outcomes["ok"] for op, outcomes in counts.items()
    }
    assert code == (1 if any(row["num_failures"] for row in statistics) else 0)

    manifest = folder.manifest()
    workload = make_workload(manifest.experiment["workload"])
    nodes = read_cluster_file(place / ".capbench" / "demo" / "cluster.json").nodes
    items = list(plan(workload, nodes))
    wanted = sum(1 if item.then is None else 2 for item in items)
    assert told["intended"] == wanted == len(history) + told["dropped"]
    assert (manifest.complete, manifest.protocol, manifest.offered_per_s) == (True, "raft", 200)
    assert told["lateness_ms_p50"] <= told["lateness_ms_p99"]


def test_each_load_of_a_cluster_can_be_judged(place: Path) -> None:
    """Its keys are not those of the load before, which left values in theirs."""
    for name in ("first", "second"):
        options = ("--keys", "3", "--mix", "read=9,write=1", "-t", "1s", "--out", name)
        done = capbench("load", *options, cwd=place)
        assert done.returncode in (0, 1), done.stderr
        assert "judge it:  capbench check " + name in done.stdout
        code, verdict = run_json("check", name, cwd=place)
        assert (code, verdict["verdict"]) == (0, "valid"), verdict
        assert any(record.op == "read" for record in RunFolder(place / name).operations())
    assert capbench("report", "second", cwd=place).returncode == 0
    assert "Load on a running cluster" in (place / "second" / "report.html").read_text()


def test_a_shape_in_several_processes_ends_the_load(place: Path) -> None:
    arguments = ("--shape", "steps:100,300/1s", "--processes", "2", "-u", "2", "-o", "shape")
    code, told = run_json("load", *arguments, cwd=place)
    assert code in (0, 1)
    manifest = RunFolder(place / "shape").manifest()
    assert (manifest.complete, manifest.offered_per_s) == (True, 200)
    workload = make_workload(manifest.experiment["workload"])
    nodes = read_cluster_file(place / ".capbench" / "demo" / "cluster.json").nodes
    assert told["intended"] == len(list(plan(workload, nodes)))


def test_a_closed_loop_in_several_processes(place: Path) -> None:
    arguments = ("load", "--rate", "0", "-u", "4", "--processes", "2", "-t", "2s", "-o", "closed")
    code, told = run_json(*arguments, "--mix", "cas=1", cwd=place)
    assert code in (0, 1)
    folder = RunFolder(place / "closed")
    assert sorted(path.name for path in folder.history_dir.iterdir()) == [
        "load-0.jsonl",
        "load-1.jsonl",
    ]
    assert set(told["operations"]) == {"cas"}
    assert sum(told["operations"]["cas"].values()) == len(folder.operations()) > 0
    assert told["lateness_ms_p50"] is None
    code, verdict = run_json("check", "closed", cwd=place)
    assert (code, verdict["verdict"]) == (0, "valid"), verdict


def test_two_loads_in_several_processes_do_not_share_workers(place: Path) -> None:
    loads = [
        typed(place, "-t", "2s", "-u", "2", "--processes", "2", "-o", folder)
        for folder in ("beside-1", "beside-2")
    ]
    for load, folder in zip(loads, ("beside-1", "beside-2"), strict=True):
        _, said = load.communicate(timeout=patience(60))
        assert load.returncode == 0, said
        assert len(RunFolder(place / folder).loads()) == 2


def test_ctrl_c_ends_it_with_everything_recorded(place: Path) -> None:
    load = typed(place, "--run-time", "60s", "--out", "cut", "--json")
    wait_for((place / "cut" / "load" / "load.started").exists, "the load to start")
    history = place / "cut" / "history" / "load.jsonl"
    wait_for(lambda: history.stat().st_size, "operations")
    load.send_signal(signal.SIGINT)
    out, err = load.communicate(timeout=patience(30))
    assert load.returncode == 130, err
    told = msgspec.json.decode(out)
    assert told["interrupted"] is True
    folder = RunFolder(place / "cut")
    assert told["intended"] == len(folder.operations()) + told["dropped"] > 0
    assert folder.manifest().complete is False
    assert not folder.cut_short()


@pytest.mark.parametrize(
    ("processes", "number", "lost", "says"),
    [
        (2, signal.SIGKILL, 1, r"client process load-\d was lost about \d"),
        (None, signal.SIGKILL, 1, r"client process load was lost about \d"),
        (None, signal.SIGTERM, 0, r"client process load was stopped before its end, after \d"),
    ],
)
def test_a_load_process_that_others_end_is_never_a_whole_load(
    place: Path, processes: int | None, number: signal.Signals, lost: int, says: str
) -> None:
    name = f"ended-{processes}-{number.name}"
    options = () if processes is None else ("--processes", str(processes), "-u", str(processes))
    load = typed(place, "--run-time", "5s", *options, "--out", name, "--json")
    folder = RunFolder(place / name)

    def every_process_has_operations() -> bool:
        written = [p for p in folder.history_dir.glob("*") if p.stat().st_size]
        assert len(written) == (processes or 1) or load.poll() is None, load.communicate()
        return len(written) == (processes or 1)

    wait_for(every_process_has_operations, "operations of every process")
    (locust,) = psutil.Process(load.pid).children()[-1:]
    victim = locust if processes is None else locust.children()[0]
    victim.send_signal(number)
    out, err = load.communicate(timeout=patience(60))
    assert load.returncode == 3, err
    told = msgspec.json.decode(out)
    assert len(told["lost"]) == lost
    assert re.match(says, told["failures"][0]), told
    manifest = folder.manifest()
    assert (manifest.complete, manifest.notes) == (False, told["failures"])
    assert sum(n for counts in told["operations"].values() for n in counts.values()) > 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_locust_outlives_it(place: Path, number: signal.Signals) -> None:
    folder = f"gone-{number.name}"
    load = typed(place, "--run-time", "60s", "--processes", "2", "--out", folder)
    wait_for((place / folder / "load" / "load-1.started").exists, "the load to start")
    assert leftovers(place / folder) or leftovers(Path("locustfile.py"))
    load.send_signal(number)
    _, err = load.communicate(timeout=patience(30))
    assert load.returncode == (-9 if number == signal.SIGKILL else 143)
    if number == signal.SIGTERM:
        assert f"interrupted by SIGTERM; what was recorded so far is kept in {folder}; " in err
    wait_for(
        lambda: not [line for line in leftovers(Path(folder)) if "locustfile" in line],
        "the end of every Locust",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--workload", "e"], 2, "no YCSB workload 'e': E scans ranges of keys"),
        (["--mix", "raed=1"], 2, "operation kinds: read, write, cas, delete, rmw"),
        (["--no-such-option"], 2, "unrecognized arguments: --no-such-option"),
        (["--cluster-file", "none.json"], 2, "none.json: not found; start a cluster with"),
        (["--cluster-file", "nowhere.json"], 3, "127.0.0.1:{port}"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    place: Path, arguments: list[str], code: int, says: str
) -> None:
    (port,) = free_ports(1)
    cluster = read_cluster_file(place / ".capbench" / "demo" / "cluster.json")
    nowhere = msgspec.structs.replace(
        cluster, broker=msgspec.structs.replace(cluster.broker, port=port)
    )
    (place / "nowhere.json").write_bytes(msgspec.json.encode(nowhere))
    done = capbench("load", *arguments, "-o", "bad", cwd=place)
    assert done.returncode == code, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("capbench: ")]
    assert len(told) == 1, done.stderr
    assert says.format(port=port) in told[0]
    assert done.stderr.count(told[0].removeprefix("capbench: ")) == 1
    assert "Traceback" not in done.stderr
    if code == 2:
        assert not (place / "bad").exists()


def test_what_lay_in_the_folder_before_stays(place: Path) -> None:
    mine = place / "kept"
    mine.mkdir()
    done = capbench("load", "--workload", "e", "-o", "kept", cwd=place)
    assert done.returncode == 2, done.stderr
    assert list(mine.iterdir()) == []
    (mine / "locust.log").write_text("mine")
    done = capbench("load", "--run-time", "1s", "-o", "kept", cwd=place)
    assert (done.returncode, "locust.log is there already" in done.stderr) == (2, True), done.stderr
    assert [path.read_text() for path in mine.iterdir()] == ["mine"]


def test_the_page_of_locust_loads_the_cluster_and_goes_with_ctrl_c(place: Path) -> None:
    (port,) = free_ports(1)
    load = typed(place, "--web", "--port", str(port), "--rate", "100", "--", "--json-file", "page")
    try:
        assert load.stdout is not None
        url = load.stdout.readline().strip().removeprefix("load: ")
        assert url == f"http://127.0.0.1:{port}/"
        page = urllib.request.urlopen(url, timeout=patience(10)).read().decode()
        assert "conflict_rate" in page
        started = urllib.parse.urlencode({"user_count": 1, "spawn_rate": 1}).encode()
        assert urllib.request.urlopen(f"{url}swarm", started, timeout=patience(10)).status == 200

        def requests() -> int:
            told = urllib.request.urlopen(f"{url}stats/requests", timeout=patience(10)).read()
            rows = msgspec.json.decode(told)["stats"]
            return sum(row["num_requests"] for row in rows if row["name"] in ("read", "write"))

        wait_for(lambda: requests() > 50, "operations")
        assert capbench("inject", "pause", "nodes=[n2]", cwd=place).returncode == 0
        wait_for(lambda: "silent" in drawn(f"{url}?tab=cluster", place), "a silent node")
        tab = drawn(f"{url}?tab=cluster", place)
        assert "fault 0: pause" in tab
        assert tab.count(">leader<") + tab.count(">follower<") == 2
        assert capbench("heal", cwd=place).returncode == 0
        wait_for(lambda: ">ended<" in drawn(f"{url}?tab=cluster", place), "the heal")
        busy = capbench("load", "--web", "--port", str(port), cwd=place)
        assert busy.returncode == 2
        assert f"port {port} is taken" in busy.stderr
    finally:
        load.send_signal(signal.SIGINT)
        load.communicate(timeout=patience(30))
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=patience(10))
