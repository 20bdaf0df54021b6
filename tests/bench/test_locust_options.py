"""Shapes and tags as a user gives them to Locust, on echo nodes behind a real broker."""

from __future__ import annotations

import signal
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.load.options import select
from bench.load.workload import BadWorkload, make_workload, plan
from bench.record.cluster_file import ClusterFile
from bench.record.history import OperationRecord
from bench.record.run_folder import LoadSummary, RunFolder
from tests.waiting import patience, wait_for

pytestmark = pytest.mark.live

Echo = Callable[..., None]
Locust = Callable[..., Any]
SECOND = 1_000_000_000


def recorded(folder: Path) -> tuple[list[OperationRecord], LoadSummary]:
    """The history, and the summary of the only client."""
    run = RunFolder(folder)
    (summary,) = run.loads()
    return run.operations(), summary


def open_at_once(history: list[OperationRecord], begin_ns: int, end_ns: int) -> int:
    """How many operations were open at once between two moments, at most."""
    changes = [(record.invoked_ns, 1) for record in history]
    changes += [(record.completed_ns or 0, -1) for record in history]
    most = now = 0
    for at_ns, change in sorted(changes):
        now += change
        if begin_ns <= at_ns < end_ns:
            most = max(most, now)
    return most


def test_an_open_loop_follows_the_shape_to_the_operation(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster)
    shape = "spike:50,400/1s,500ms,500ms"
    run = locust(cluster, "--shape", shape, "-u", "2", "-r", "2")
    said = run.wait()
    assert run.process.returncode == 0, said
    history, summary = recorded(tmp_path)
    workload = make_workload(
        {"mix": {"read": 50, "write": 50}, "duration_s": 99, "seed": 1, "shape": shape}
    )
    planned = {operation.id: operation for operation in plan(workload, cluster.nodes)}
    assert sorted(record.id for record in history) == sorted(planned)
    for record in history:
        assert record.intended_ns == summary.started_ns + (planned[record.id].intended_ns or 0)
    assert summary.offered_per_s == pytest.approx((50 * 1.5 + 400 * 0.5) / 2)
    assert summary.dropped == 0


def test_closed_loop_users_come_and_go_as_the_shape_says(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    # One answer in ten is lost, so that some user always has an operation open.
    echo(cluster, "--lose", "10")
    shape = ("--shape", "spike:1,4/1s,1s,2s", "--rate", "0", "--timeout", "0.5")
    run = locust(cluster, *shape)
    said = run.wait()
    assert run.process.returncode == 0, said
    history, summary = recorded(tmp_path)
    at_ns = [summary.started_ns + int(at_s * SECOND) for at_s in (0, 0.9, 2.9, 4)]
    # Locust asks the shape once a second, and what users that went had open ends within 0.5 s.
    assert open_at_once(history, at_ns[0], at_ns[1]) == 1
    assert open_at_once(history, at_ns[1], at_ns[2]) == 4
    assert open_at_once(history, at_ns[2], at_ns[3]) == 1
    assert max(record.invoked_ns for record in history) < at_ns[3]
    assert summary.invoked == summary.intended == len(history)
    assert sum(row["num_requests"] for row in run.statistics().values()) == len(history)
    assert summary.offered_per_s is None


def test_tags_choose_operations(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust
) -> None:
    echo(cluster)
    tags = "--mix read=1,write=1,cas=1 --tags read cas --exclude-tags cas"
    run = locust(cluster, "-t", "1s", "--rate", "200", *tags.split())
    said = run.wait()
    assert run.process.returncode == 0, said
    history, _ = recorded(tmp_path)
    assert {record.op for record in history} == {"read"} == set(run.statistics())
    assert len(history) > 100, "as many operations as without tags"


@pytest.mark.parametrize(
    ("tags", "exclude", "kinds"),
    [
        ([], [], {"read", "write", "rmw"}),
        (["read", "rmw"], [], {"read", "rmw"}),
        ([], ["read"], {"write", "rmw"}),
        (["read", "write"], ["write"], {"read"}),
        (["read", "cas"], [], {"read"}),
    ],
)
def test_which_kinds_tags_leave(tags: list[str], exclude: list[str], kinds: set[str]) -> None:
    left = select({"read": 3.0, "write": 2.0, "rmw": 1.0}, tags, exclude)
    assert set(left) == kinds
    assert left["read" if "read" in kinds else "write"] > 1, "weights stay"


def test_tags_that_leave_nothing_are_refused() -> None:
    with pytest.raises(BadWorkload, match="leave no operation of the mix: read, write"):
        select({"read": 1.0, "write": 1.0}, ["cas"], [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tags", "raed"), "no operation has the tag 'raed': use read, write, cas, delete, rmw"),
        (("--shape", "hill:3"), "no shape 'hill:3': use ramp:0-500/30s"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    cluster: ClusterFile, locust: Locust, options: tuple[str, ...], message: str
) -> None:
    run = locust(cluster, "-t", "1s", *options)
    lines = [line for line in run.wait().splitlines() if "INFO" not in line]
    assert run.process.returncode == 2
    assert len(lines) == 1
    assert message in lines[0]


def test_the_web_page_asks_for_other_users_and_a_shape(
    tmp_path: Path, cluster: ClusterFile, echo: Echo, locust: Locust, new_port: Callable[[], int]
) -> None:
    echo(cluster)
    port = new_port()
    run = locust(cluster, "--headful", "--web-host", "127.0.0.1", "--web-port", str(port))
    base = f"http://127.0.0.1:{port}"

    def page() -> str:
        try:
            with urllib.request.urlopen(base, timeout=patience(5)) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    text = wait_for(page, "Locust's page")
    for option in ("workload", "rate", "shape", "conflict_rate", "value_bytes", "workload_seed"):
        assert f'"{option}"' in text
    assert f'"host": "mqtt://127.0.0.1:{cluster.broker.port}"' in text
    form = {"user_count": 1, "spawn_rate": 1, "rate": 0, "shape": "steps:2,3/1s"}
    data = urllib.parse.urlencode(form).encode()
    urllib.request.urlopen(f"{base}/swarm", data=data, timeout=patience(5)).close()
    wait_for((tmp_path / "load" / "load.json").exists, "the end of the shape")
    history, summary = recorded(tmp_path)
    assert summary.offered_per_s is None
    assert open_at_once(history, 0, time.monotonic_ns()) == 3
    run.process.send_signal(signal.SIGTERM)
    run.wait()
