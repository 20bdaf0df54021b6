"""Locust as a user starts it, on echo nodes behind a real broker: what it records and reports."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.children import environment, python
from bench.load import ycsb
from bench.load.client import STILL_OPEN, TIMEOUT
from bench.load.losses import losses
from bench.load.workload import Workload, make_workload, plan
from bench.paths import LOCUSTFILE, ROOT
from bench.record.cluster_file import ClusterFile
from bench.record.history import OperationRecord
from bench.record.run_folder import LoadSummary, RunFolder
from tests.waiting import patience

pytestmark = [pytest.mark.live, pytest.mark.long]

Echo = Callable[..., None]
Locust = Callable[..., Any]
SECOND = 1_000_000_000


def workload_file(folder: Path, **changes: Any) -> tuple[Workload, tuple[str, str]]:
    """A workload and the options that hand it to Locust."""
    fields = {"mix": {"read": 1, "write": 1}, "rate_per_s": 200, "duration_s": 2, "seed": 5}
    workload = make_workload({**fields, **changes})
    path = folder / "workload.json"
    path.write_bytes(msgspec.json.encode(workload))
    return workload, ("--workload", str(path))


def test_it_is_found_from_the_folder_of_the_project() -> None:
    """Locust looks into the working folder first, and ours is then the project's."""
    argv = [*python("locust"), "-f", str(LOCUSTFILE), "--list"]
    done = subprocess.run(
        argv, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, "OpenLoopUser" in done.stdout) == (0, True), done.stderr


def recorded(folder: Path) -> tuple[list[OperationRecord], LoadSummary]:
    """The history, and the summary of the only client."""
    run = RunFolder(folder)
    (summary,) = run.loads()
    return run.operations(), summary


def assert_agreement(run: Any, history: list[OperationRecord]) -> None:
    """Locust's statistics and the history tell of the same operations and the same latencies."""
    statistics = run.statistics()
    asked = Counter(record.op for record in history)
    missed = Counter(record.op for record in history if record.outcome != "ok")
    assert {name: row["num_requests"] for name, row in statistics.items()} == asked
    assert {name: row["num_failures"] for name, row in statistics.items()} == {
        name: missed[name] for name in asked
    }
    for name, row in statistics.items():
        latencies_ms = [
            (record.completed_ns - (record.intended_ns or record.invoked_ns)) / 1e6
            for record in history
            if record.op == name and record.completed_ns is not None
        ]
        if len(latencies_ms) == asked[name]:
            assert row["total_response_time"] == pytest.approx(sum(latencies_ms))


def test_the_whole_plan_is_asked_and_recorded(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster, "--fail", "10")
    workload, options = workload_file(tmp_path, mix={"read": 3, "write": 2, "cas": 1, "delete": 1})
    run = locust(cluster, *options)
    run.wait()
    assert run.process.returncode == 0
    history, summary = recorded(tmp_path)
    planned = {operation.id: operation for operation in plan(workload, cluster.nodes)}
    assert sorted(record.id for record in history) == sorted(planned)
    for record in history:
        operation = planned[record.id]
        assert (record.op, record.key, record.node) == (operation.op, operation.key, operation.node)
        assert record.intended_ns == summary.started_ns + (operation.intended_ns or 0)
        assert record.completed_ns is not None
        assert record.intended_ns <= record.invoked_ns <= record.completed_ns
        if record.op in ("write", "cas"):
            assert record.value == operation.value
    failed = [record for record in history if record.outcome == "fail"]
    assert len(failed) == len(history) // 10
    assert {record.error for record in failed} == {"told to"}
    assert {record.outcome for record in history} == {"ok", "fail"}
    assert (summary.intended, summary.invoked, summary.dropped) == (len(planned), len(planned), 0)
    assert summary.offered_per_s == 200
    started = msgspec.json.decode((tmp_path / "load" / "load.started").read_bytes())
    assert started["started_ns"] == summary.started_ns
    assert msgspec.convert(started["workload"], Workload) == workload
    assert not summary.stopped_early
    assert losses(RunFolder(tmp_path)) == []
    assert_agreement(run, history)


def test_the_run_time_counts_from_when_all_users_are_there(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    """Locust's own would be over before the last of these is sent for."""
    echo(cluster)
    run = locust(cluster, "-u", "3", "-r", "1", "-t", "1s", "--rate", "100")
    said = run.wait()
    assert run.process.returncode == 0, said
    started = msgspec.json.decode((tmp_path / "load" / "load.started").read_bytes())
    workload = msgspec.convert(started["workload"], Workload)
    assert workload.duration_s == 1
    history, summary = recorded(tmp_path)
    planned = [operation.id for operation in plan(workload, cluster.nodes)]
    assert sorted(record.id for record in history) == planned
    assert summary.intended == len(planned) > 50


def test_a_plan_without_operations_is_no_load(
    tmp_path: Path, cluster: ClusterFile, locust: Locust
) -> None:
    run = locust(cluster, "-t", "1s", "--rate", "0.01")
    assert "the load is incomplete: the history has no operations" in run.wait()
    assert run.process.returncode == 3


@pytest.mark.parametrize("rate", [200, None])
def test_a_read_modify_write_is_two_operations_in_a_row(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust, rate: int | None
) -> None:
    """Where the read fails, is lost or is not sent, there is no write, and that is counted."""
    echo(cluster, "--fail", "10", "--lose", "25")
    workload, options = workload_file(
        tmp_path, mix={"rmw": 1, "read": 1}, rate_per_s=rate, timeout_s=0.2, in_flight=3
    )
    run = locust(cluster, *options, "-u", "4", "-r", "4")
    run.wait()
    history, summary = recorded(tmp_path)
    by_id = {record.id: record for record in history}
    items = itertools.takewhile(
        lambda item: rate is not None or item.id in by_id, plan(workload, cluster.nodes)
    )
    wanted, dropped = 0, 0
    begins_and_ends = []
    for item in items:
        read, count = by_id.get(item.id), 1 if item.then is None else 2
        wanted += count
        if read is None:
            dropped += count
            continue
        last = by_id.get(item.id + count - 1, read)
        begins_and_ends += [(read.invoked_ns, 1), (last.completed_ns or sys.maxsize, -1)]
        if item.then is None:
            continue
        if read.outcome != "ok":
            dropped += 1
            assert item.then.id not in by_id
            continue
        if rate is not None and item.then.id not in by_id:
            dropped += 1  # too many were open
            continue
        write = by_id[item.then.id]
        assert (write.op, write.key, write.node) == ("write", read.key, read.node)
        assert write.value == item.then.value
        assert read.completed_ns is not None
        assert write.invoked_ns >= read.completed_ns
        assert write.intended_ns == read.intended_ns
    assert dropped > 5
    assert {record.outcome for record in history} == {"ok", "fail", "info"}
    if rate is not None:
        assert (summary.intended, summary.dropped) == (wanted, dropped)
        assert len(summary.dropped_intended_ns) == dropped
        assert any(item.id not in by_id for item in plan(workload, cluster.nodes))
    else:
        open_items = itertools.accumulate(change for _, change in sorted(begins_and_ends))
        assert max(open_items) == 4, "each user has one at a time"
    assert summary.intended == summary.invoked + summary.dropped
    assert summary.invoked == len(history)
    assert_agreement(run, history)


def test_several_users_share_the_plan(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster)
    workload, options = workload_file(tmp_path)
    run = locust(cluster, *options, "-u", "3", "-r", "3")
    run.wait()
    history, summary = recorded(tmp_path)
    planned = [operation.id for operation in plan(workload, cluster.nodes)]
    assert sorted(record.id for record in history) == planned
    assert summary.intended == len(planned)
    assert_agreement(run, history)


def test_options_alone_make_a_workload(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster)
    options = "-t 1s --rate 100 --keys 3 --mix write=1 --value-bytes 20 --client-name c7"
    run = locust(cluster, *options.split())
    run.wait()
    assert run.process.returncode == 0
    history, summary = recorded(tmp_path)
    assert summary.client == "c7"
    assert (tmp_path / "history" / "c7.jsonl").exists()
    assert {record.op for record in history} == {"write"}
    assert {record.key for record in history} == {"k0", "k1", "k2"}
    assert {len(str(record.value)) for record in history} == {20}
    assert_agreement(run, history)


def test_the_leader_is_asked_if_the_workload_wants_that(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster, "--leader", "n2")
    run = locust(cluster, *["-t", "1s", "--rate", "200", "--ask", "leader"])
    run.wait()
    assert run.process.returncode == 0
    history, summary = recorded(tmp_path)
    nodes = Counter(record.node for record in history)
    assert nodes["n2"] > len(history) / 2
    # What the node of the plan was asked is of the beginning, and a third of that went to n2, too.
    assert nodes["n2"] >= summary.asked_leader >= nodes["n2"] - nodes["n1"] - nodes["n3"] - 2
    assert_agreement(run, history)


def test_a_workload_of_ycsb_by_name(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster)
    run = locust(cluster, *["-t", "1s", "--rate", "200", "--workload", "d", "--value-bytes", "12"])
    run.wait()
    assert run.process.returncode == 0
    history, summary = recorded(tmp_path)
    planned = {
        operation.id: operation
        for operation in plan(
            make_workload(
                {
                    **ycsb.fields("d"),
                    "value_bytes": 12,
                    "rate_per_s": 200,
                    "duration_s": 1,
                    "seed": 1,
                }
            ),
            cluster.nodes,
        )
    }
    assert {record.id for record in history} == set(planned)
    assert all(
        (record.op, record.key) == (planned[record.id].op, planned[record.id].key)
        for record in history
    )
    assert summary.dropped == 0


def test_a_stall_counts_for_every_operation_that_it_held_up(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster, "--stall-at", "100", "--stall-s", "1")
    workload, options = workload_file(tmp_path)
    run = locust(cluster, *options)
    run.wait()
    history, summary = recorded(tmp_path)
    completed = sorted(record.completed_ns for record in history if record.completed_ns)
    # The stall is the longest time without any answer.
    end_ns, start_ns = max(
        zip(completed[1:], completed, strict=False), key=lambda pair: pair[0] - pair[1]
    )
    assert end_ns - start_ns >= 0.9 * SECOND
    wanted = {
        operation.id
        for operation in plan(workload, cluster.nodes)
        if start_ns < summary.started_ns + (operation.intended_ns or 0) < end_ns
    }
    held_up = [record for record in history if record.id in wanted]
    assert len(held_up) == len(wanted) > 100, "the load went on while nobody answered"
    assert all((record.completed_ns or 0) >= end_ns for record in held_up)
    assert_agreement(run, history)


def test_a_client_that_was_stopped_counts_from_the_intended_times(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster)
    workload, options = workload_file(tmp_path)
    run = locust(cluster, *options)
    started_ns = run.wait_started()
    run.process.send_signal(signal.SIGSTOP)
    while time.monotonic_ns() < started_ns + 1.2 * SECOND:
        time.sleep(0.01)
    run.process.send_signal(signal.SIGCONT)
    run.wait()
    history, summary = recorded(tmp_path)
    assert len(history) == len(list(plan(workload, cluster.nodes)))
    late = [record for record in history if record.invoked_ns >= started_ns + 1.2 * SECOND]
    assert any(record.invoked_ns - (record.intended_ns or 0) > SECOND / 2 for record in late)
    assert summary.lateness_ms_p99 is not None
    assert summary.lateness_ms_p99 > 500
    assert_agreement(run, history)


def test_what_is_too_much_is_dropped_and_counted(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster, "--lose", "1")
    workload, options = workload_file(tmp_path, in_flight=20, timeout_s=0.7)
    run = locust(cluster, *options)
    said = run.wait()
    history, summary = recorded(tmp_path)
    planned = list(plan(workload, cluster.nodes))
    assert summary.intended == len(planned)
    assert summary.invoked == len(history)
    assert summary.dropped == len(summary.dropped_intended_ns) == len(planned) - len(history) > 200
    assert len(summary.dropped_nodes) == summary.dropped
    asked = {record.id for record in history}
    assert sorted(summary.dropped_intended_ns) == [
        summary.started_ns + (operation.intended_ns or 0)
        for operation in planned
        if operation.id not in asked
    ]
    assert f"{summary.dropped} of {summary.intended} operations were dropped" in said
    assert most_open(history) == 20
    assert_agreement(run, history)


def most_open(history: list[OperationRecord]) -> int:
    """How many operations were open at once, at most."""
    changes = [(record.invoked_ns, 1) for record in history]
    changes += [(record.completed_ns or 0, -1) for record in history]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def test_no_answer_is_info(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster, "--lose", "5")
    _, options = workload_file(tmp_path, timeout_s=0.5)
    run = locust(cluster, *options)
    run.wait()
    history, _ = recorded(tmp_path)
    lost = [record for record in history if record.outcome == "info"]
    assert len(lost) == len(history) // 5
    assert {record.error for record in lost} == {TIMEOUT}
    assert all((record.completed_ns or 0) >= record.invoked_ns + SECOND / 2 for record in lost)
    assert_agreement(run, history)


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_load_that_is_stopped_keeps_its_history(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust, told: signal.Signals
) -> None:
    echo(cluster, "--lose", "3")
    _, options = workload_file(tmp_path, duration_s=60, timeout_s=30)
    run = locust(cluster, *options)
    started_ns = run.wait_started()
    while time.monotonic_ns() < started_ns + SECOND:
        time.sleep(0.01)
    run.process.send_signal(told)
    run.wait()
    history, summary = recorded(tmp_path)
    assert summary.invoked == len(history) > 100
    assert summary.invoked + summary.dropped == summary.intended
    assert summary.ended_ns - summary.started_ns < 30 * SECOND
    assert summary.stopped_early
    (line,) = losses(RunFolder(tmp_path))
    assert line.startswith("client process load was stopped before its end, after ")
    still_open = [record for record in history if record.completed_ns is None]
    assert len(still_open) >= len(history) // 3 > 30
    assert {(record.outcome, record.error) for record in still_open} == {("info", STILL_OPEN)}
    assert_agreement(run, history)


def test_a_load_that_is_killed_keeps_what_it_wrote(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster)
    _, options = workload_file(tmp_path, duration_s=60)
    run = locust(cluster, *options)
    started_ns = run.wait_started()
    path = tmp_path / "history" / "load.jsonl"
    while time.monotonic_ns() < started_ns + SECOND or path.stat().st_size == 0:
        time.sleep(0.01)
    run.process.kill()
    run.wait()
    assert RunFolder(tmp_path).cut_short()
    history = RunFolder(tmp_path).operations()
    assert len(history) > 50
    ids = sorted(record.id for record in history)
    assert ids == list(range(1, len(ids) + 1)), "nothing is missing in the middle"


def test_a_broker_that_goes_and_comes_back(
    tmp_path: Path, own_cluster: ClusterFile, own_broker: Any, echo: Echo, locust: Locust
) -> None:
    echo(own_cluster)
    workload, options = workload_file(tmp_path, duration_s=4, timeout_s=0.5)
    run = locust(own_cluster, *options)
    started_ns = run.wait_started()
    while time.monotonic_ns() < started_ns + SECOND:
        time.sleep(0.01)
    own_broker.stop()
    while time.monotonic_ns() < started_ns + 2 * SECOND:
        time.sleep(0.01)
    own_broker.start()
    echo(own_cluster)
    back_ns = time.monotonic_ns()
    run.wait()
    history, _ = recorded(tmp_path)
    assert len(history) == len(list(plan(workload, own_cluster.nodes)))
    outcomes = Counter(record.outcome for record in history)
    assert outcomes["fail"] > 50, "what could not be sent failed for certain"
    assert any(r.outcome == "ok" and r.invoked_ns > back_ns for r in history)
    assert_agreement(run, history)


def test_closed_loop_users_have_one_operation_open_each(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster, "--lose", "50")
    _, options = workload_file(tmp_path, rate_per_s=None, timeout_s=0.3, duration_s=1.5)
    run = locust(cluster, *options, "-u", "4", "-r", "4")
    run.wait()
    history, summary = recorded(tmp_path)
    assert summary.offered_per_s is None
    assert summary.invoked == len(history) > 50
    assert {record.intended_ns for record in history} == {None}
    assert most_open(history) == 4
    assert_agreement(run, history)


def test_closed_loop_users_by_name(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster)
    run = locust(cluster, "-t", "1s", "-u", "2", "-r", "2", "ClosedLoopUser")
    run.wait()
    history, summary = recorded(tmp_path)
    assert summary.offered_per_s is None
    assert most_open(history) == 2
    assert_agreement(run, history)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cluster-file", "none.json"), "error: none.json: not found; start a cluster with"),
        (("--mix", "raed=1"), "operation kinds: read, write, cas, delete"),
        (("--rate", "-1"), "rate_per_s is -1.0: use more than 0"),
        (("--workload", "none.json"), "error: none.json: not found"),
        (("--users", "0"), "error: --users 0: there would be no load"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    cluster: ClusterFile, locust: Locust, options: tuple[str, ...], message: str
) -> None:
    run = locust(cluster, "-t", "1s", *options)
    said = run.wait()
    assert run.process.returncode == 2
    lines = [line for line in said.splitlines() if "INFO" not in line]
    assert len(lines) == 1
    assert message in lines[0]


def test_an_unreachable_cluster_is_one_line_and_exit_code_3(
    own_cluster: ClusterFile, own_broker: Any, locust: Locust
) -> None:
    own_broker.stop()
    run = locust(own_cluster, "-t", "1s")
    said = run.wait()
    assert run.process.returncode == 3
    lines = [line for line in said.splitlines() if "INFO" not in line]
    assert len(lines) == 1
    assert f"cannot reach the broker at 127.0.0.1:{own_cluster.broker.port}" in lines[0]


def test_a_history_is_never_continued_by_another_load(
    tmp_path: Path, cluster: ClusterFile, locust: Locust
) -> None:
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "load.jsonl").touch()
    run = locust(cluster, "-t", "1s")
    assert "--client-name" in run.wait()
    assert run.process.returncode == 2


def test_the_web_page_starts_and_stops_a_load(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust, new_port: Callable[[], int]
) -> None:
    echo(cluster)
    port = new_port()
    run = locust(
        cluster, "--headful", "--web-host", "127.0.0.1", "--web-port", str(port), "--rate", "100"
    )
    base = f"http://127.0.0.1:{port}"

    def page() -> str:
        try:
            with urllib.request.urlopen(base, timeout=patience(5)) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    deadline = time.monotonic() + patience(20)
    while not (text := page()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "in_flight" in text
    assert "run_folder" not in text
    form = b"user_count=1&spawn_rate=1&rate=50&mix=write%3D1&keys="
    urllib.request.urlopen(f"{base}/swarm", data=form, timeout=patience(5)).close()
    started_ns = run.wait_started()
    while time.monotonic_ns() < started_ns + SECOND:
        time.sleep(0.01)
    urllib.request.urlopen(f"{base}/stop", data=b"", timeout=patience(5)).close()
    history, summary = recorded(tmp_path)
    assert summary.offered_per_s == 50
    assert {record.op for record in history} == {"write"}
    assert len(history) == summary.invoked > 20
    os.kill(run.process.pid, signal.SIGTERM)
    run.wait()
    assert_agreement(run, history)


def test_ctrl_c_in_the_middle_of_its_work_loses_nothing(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    """A busy process is hit while it records, not while it waits."""
    echo(cluster)
    _, options = workload_file(tmp_path, rate_per_s=None, duration_s=60)
    run = locust(cluster, *options, "-u", "200", "-r", "200")
    started_ns = run.wait_started()
    while time.monotonic_ns() < started_ns + SECOND:
        time.sleep(0.01)
    run.process.send_signal(signal.SIGINT)
    run.wait()
    history, summary = recorded(tmp_path)
    assert summary.invoked == len(history) > 1000
    assert {record.outcome for record in history} == {"ok"}
    assert_agreement(run, history)
