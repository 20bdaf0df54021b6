"""`--metrics`: what is served while something is up, in the format that Prometheus reads."""

from __future__ import annotations

import re
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bench.record.history import HistoryWriter, OperationRecord
from bench.record.run_folder import FaultRecord, NodeRecord, RunFolder
from chaos.clusters.processes import free_ports
from chaos.errors import TargetFailed
from chaos.exporter.server import exported
from chaos.exporter.sources import OfCluster, OfFolder
from chaos.exporter.text import Histogram, Observed, openmetrics
from tests.chaos.test_cli_compare import typed
from tests.reports import synthetic
from tests.waiting import patience

LINE = re.compile(r'^capbench_[a-z0-9_]+(\{([a-z]+="(\\.|[^"\\\n])*",?)*\})? -?[0-9.e+-]+$')


def get(port: int, path: str = "/metrics") -> str:
    address = f"http://127.0.0.1:{port}{path}"
    with urllib.request.urlopen(address, timeout=patience(30)) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        return str(answer.read().decode())


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has just begun."""
    shape = synthetic.Shape("raft", "leader-partition")
    return RunFolder.create(tmp_path / "run", synthetic.manifest(shape))


def operation(number: int, took_s: float, outcome: str = "ok") -> OperationRecord:
    return OperationRecord(
        process="c1",
        id=number,
        op="write",
        key="k",
        value=number,
        outcome=outcome,  # type: ignore[arg-type]
        invoked_ns=synthetic.ns(number + 0.5),
        intended_ns=synthetic.ns(number),
        completed_ns=synthetic.ns(number + took_s),
        node="n1",
    )


def status(node: str, role: str, **counters: int) -> NodeRecord:
    probe = {"role": role, "term": 3, "commit": 17}
    return NodeRecord(t_ns=1, node=node, kind="status", probe=probe, counters=counters)


def test_a_run_is_followed_as_its_folder_is_written(folder: RunFolder) -> None:
    source = OfFolder(folder.path)
    first = openmetrics(source())
    assert 'capbench_run_info{experiment="leader-partition",protocol="raft"' in first
    assert "capbench_faults_on 0" in first
    folder.append_node(status("n1", "leader", messages_sent=5, requests_open=2))
    folder.append_fault(FaultRecord(number=0, fault="partition", planned_ns=1, applied_ns=2))
    with HistoryWriter(folder.history_dir / "load.jsonl") as writer:
        writer.append(operation(1, 0.503))
        writer.append(operation(2, 0.6, "info"))
    text = openmetrics(source())
    for line in (
        'capbench_node_role{node="n1",role="leader"} 1',
        'capbench_node_term{node="n1"} 3',
        'capbench_node_commit{node="n1"} 17',
        'capbench_node_queue{node="n1"} 2',
        'capbench_node_messages_sent_total{node="n1"} 5',
        'capbench_fault_on{fault="partition",number="0"} 1',
        'capbench_operation_latency_seconds_bucket{op="write",outcome="ok",le="0.5"} 0',
        'capbench_operation_latency_seconds_bucket{op="write",outcome="ok",le="1.0"} 1',
        'capbench_operation_latency_seconds_bucket{op="write",outcome="ok",le="+Inf"} 1',
        'capbench_operation_latency_seconds_count{op="write",outcome="info"} 1',
        'capbench_operation_latency_seconds_sum{op="write",outcome="ok"} 0.503000',
    ):
        assert line in text.splitlines(), line
    folder.append_fault(
        FaultRecord(number=0, fault="partition", planned_ns=1, applied_ns=2, healed_ns=3)
    )
    folder.append_node(NodeRecord(t_ns=2, node="n1", kind="event", name="killed"))
    later = openmetrics(source())
    assert "capbench_faults_on 0" in later
    assert "node_role" not in later, "a node that was killed has no role"
    assert later.count('outcome="ok",le="+Inf"} 1') == 1, "nothing is counted twice"


def test_half_a_line_is_read_when_it_is_whole(folder: RunFolder) -> None:
    source = OfFolder(folder.path)
    with HistoryWriter(folder.history_dir / "load.jsonl") as writer:
        writer.append(operation(1, 0.1))
    path = folder.history_dir / "load.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert source().latencies["write", "ok"].counts[-1] == 0
    assert sum(source().latencies["write", "ok"].counts) == 1
    path.write_bytes(whole + whole)
    assert sum(source().latencies["write", "ok"].counts) == 2


def test_every_line_is_of_the_format_whatever_names_are() -> None:
    evil = 'a"b\\c\nd'
    record = status(evil, evil, messages_sent=1)
    fault = FaultRecord(number=0, fault=evil, planned_ns=1)
    seen = Observed({"protocol": evil}, {evil: record}, [fault], {(evil, "ok"): Histogram()})
    *lines, last = openmetrics(seen).splitlines()
    assert last == "# EOF"
    for line in lines:
        assert line.startswith("# ") or LINE.match(line), line
    kinds = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert len(kinds) == len(set(kinds))


def test_it_is_served_on_loopback_until_the_end_and_to_nobody_elses_page() -> None:
    (port,) = free_ports(1)
    cluster = OfCluster("demo", "raft", lambda: {"n1": status("n1", "leader")})
    with exported(port) as exporter:
        exporter.source = cluster
        cluster.on = [FaultRecord(number=4, fault="pause", planned_ns=1)]
        assert 'fault="pause",number="4"' in get(port)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(port, "/")
        foreign = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Host": "evil.example"}
        )
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(foreign, timeout=patience(30))
        with pytest.raises(TargetFailed, match="give another one"), exported(port):
            pass
    with pytest.raises(urllib.error.URLError):
        get(port)


def test_an_address_elsewhere_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for address in ("0.0.0.0:9100", "9100", "127.0.0.1:0", "127.0.0.1:x"):
        assert typed("run", "healthy", "--target", "sim", "--metrics", address) == 2
        assert "metrics" in capsys.readouterr().err


def test_a_run_serves_its_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked while the page is drawn, when the run is over and the command is not."""
    (port,) = free_ports(1)
    seen: list[str] = []

    def ask() -> None:
        deadline = time.monotonic() + patience(60)
        while time.monotonic() < deadline and not any("latency_seconds_count" in s for s in seen):
            try:
                seen.append(get(port))
            except urllib.error.URLError:
                time.sleep(0.02)

    monkeypatch.chdir(tmp_path)
    thread = threading.Thread(target=ask)
    thread.start()
    where = f"127.0.0.1:{port}"
    options = ("-p", "raft", "--target", "sim", "--nodes", "3", "--metrics", where, "-o", "out")
    assert typed("run", "healthy", *options) == 0
    thread.join()
    assert 'experiment="healthy"' in seen[-1]
    assert 'outcome="ok"' in seen[-1]
