"""Locust's master and workers, processes of their own, on echo nodes: one plan, one history."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.load.distributed import Share, shares
from bench.load.losses import losses
from bench.load.workload import Workload, make_workload, plan
from bench.record.cluster_file import ClusterFile, write_cluster_file
from bench.record.history import OperationRecord
from bench.record.run_folder import RunFolder
from tests.bench.conftest import ENVIRONMENT, ROOT, free_port
from tests.waiting import patience, wait_for

Echo = Callable[..., None]
LOCUST = (sys.executable, "-m", "locust", "-f", str(ROOT / "bench" / "load" / "locustfile.py"))


class Farm:
    """A master, and workers that start when they are told to."""

    def __init__(self, folder: Path, cluster: ClusterFile) -> None:
        self.folder = folder
        self.run = RunFolder(folder)
        self.port = free_port()
        self._cluster_path = folder / "cluster.json"
        write_cluster_file(self._cluster_path, cluster)
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*LOCUST, "--cluster-file", str(self._cluster_path), *options],
            env={**ENVIRONMENT, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def master(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        """Ends once the load is over."""
        return self.start(
            *("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(self.port)),
            *("--headless", "--only-summary", "--exit-code-on-error", "0"),
            *("--run-folder", str(self.folder), "--json-file", str(self.folder / "stats")),
            *options,
            **environment,
        )

    def worker(self) -> subprocess.Popen[str]:
        """Has none of the master's options: what it must know comes from there."""
        return self.start("--worker", "--master-host", "127.0.0.1", "--master-port", str(self.port))

    def statistics(self) -> dict[str, dict[str, Any]]:
        rows = msgspec.json.decode((self.folder / "stats.json").read_bytes())
        return {row["name"]: row for row in rows}

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def farm(tmp_path: Path, cluster: ClusterFile, echo: Echo) -> Iterator[Farm]:
    echo(cluster)
    farm = Farm(tmp_path, cluster)
    yield farm
    farm.kill()


def file_of(workload: Workload, folder: Path) -> str:
    path = folder / "plan.json"
    path.write_bytes(msgspec.json.encode(workload))
    return str(path)


def a_plan(**changes: Any) -> Workload:
    mix = {"read": 1, "write": 1, "rmw": 1}
    fields = {"mix": mix, "rate_per_s": 200, "duration_s": 2, "seed": 5}
    return make_workload({**fields, **changes})


def assert_whole(farm: Farm, workload: Workload, nodes: list[str]) -> list[OperationRecord]:
    """The histories together are the plan, each operation once, and Locust counts the same."""
    history = farm.run.operations()
    summaries = farm.run.loads()
    planned = {}
    for item in plan(workload, nodes):
        planned[item.id] = item
        if item.then is not None:
            planned[item.then.id] = item.then
    assert sorted(record.id for record in history) == sorted(planned)
    (begin_ns,) = {summary.started_ns for summary in summaries}
    for record in history:
        operation = planned[record.id]
        assert (record.op, record.key, record.node) == (operation.op, operation.key, operation.node)
        assert record.intended_ns == begin_ns + (operation.intended_ns or 0)
        if record.op == "write":
            assert record.value == operation.value
    assert sum(summary.intended for summary in summaries) == len(planned)
    assert sum(summary.offered_per_s or 0 for summary in summaries) == pytest.approx(
        workload.rate_per_s
    )
    counts = Counter(record.op for record in history)
    assert {name: row["num_requests"] for name, row in farm.statistics().items()} == counts
    return history


@pytest.mark.live
@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (3, 2),
        (1, 2),  # fewer users than workers
        (4, 1),  # more workers than were expected
    ],
)
def test_two_workers_share_one_plan_and_make_one_history(
    farm: Farm, cluster: ClusterFile, users: int, expected: int
) -> None:
    workload = a_plan()
    workers = [farm.worker(), farm.worker()]
    master = farm.master(
        *("--workload", file_of(workload, farm.folder), "-u", str(users), "-r", str(users)),
        *("--expect-workers", str(expected)),
    )
    _, said = master.communicate(timeout=patience(60))
    assert master.returncode == 0, said
    for worker in workers:
        worker.communicate(timeout=patience(60))
        assert worker.returncode == 0
    history = assert_whole(farm, workload, cluster.nodes)
    if expected == 2:
        assert {path.stem for path in farm.run.load_dir.glob("*.json")} == {"load-0", "load-1"}
        busy = {record.process.partition(".")[0] for record in history}
        # Which worker gets the only user is Locust's to say.
        assert len(busy) == min(users, 2)
    assert losses(farm.run) == []


@pytest.mark.live
def test_users_that_are_reported_late_have_their_share_all_the_same(
    farm: Farm, cluster: ClusterFile
) -> None:
    """Locust goes on without the reports of its workers after a second, which on a busy machine are
    not there by then: here after none."""
    workload = a_plan(duration_s=1)
    workers = [farm.worker(), farm.worker()]
    master = farm.master(
        *("--workload", file_of(workload, farm.folder), "-u", "1", "--expect-workers", "2"),
        LOCUST_WAIT_FOR_WORKERS_REPORT_AFTER_RAMP_UP="0",
    )
    _, said = master.communicate(timeout=patience(60))
    assert master.returncode == 0, said
    for worker in workers:
        worker.communicate(timeout=patience(60))
    assert_whole(farm, workload, cluster.nodes)


@pytest.mark.live
def test_a_worker_that_comes_later_takes_nothing_from_the_others(
    farm: Farm, cluster: ClusterFile
) -> None:
    """Locust would deal out all users anew, and stop one in the middle of its part of the plan."""
    workload = a_plan(duration_s=4)
    late = farm.worker()
    assert late.stderr is not None
    assert "Starting Locust" in late.stderr.readline()
    late.send_signal(signal.SIGSTOP)
    first = farm.worker()
    master = farm.master(
        *("--workload", file_of(workload, farm.folder), "-u", "2", "-r", "2"),
        *("--expect-workers", "1"),
    )
    wait_for((farm.run.load_dir / "load-0.started").exists, "the load")
    late.send_signal(signal.SIGCONT)
    _, said = master.communicate(timeout=patience(60))
    assert master.returncode == 0, said
    assert "load-1" not in {path.stem for path in farm.run.load_dir.iterdir()}
    first.communicate(timeout=patience(60))
    assert_whole(farm, workload, cluster.nodes)
    assert "(index 1) reported as ready" in said, "it came while the load went on"


@pytest.mark.live
def test_a_closed_loop_in_several_processes_may_begin_with_nobody(farm: Farm) -> None:
    workers = [farm.worker(), farm.worker()]
    master = farm.master(
        *("--rate", "0", "--shape", "steps:0,4/3s", "--mix", "write=1", "--expect-workers", "2")
    )
    _, said = master.communicate(timeout=patience(60))
    assert master.returncode == 0, said
    for worker in workers:
        worker.communicate(timeout=patience(60))
    assert losses(farm.run) == []
    history = farm.run.operations()
    assert {record.process.partition(".")[0] for record in history} == {"load-0", "load-1"}


@pytest.mark.live
def test_a_plan_without_operations_is_no_load(farm: Farm) -> None:
    worker = farm.worker()
    master = farm.master(*("--rate", "0.01", "-t", "1s", "--expect-workers", "1"))
    _, said = master.communicate(timeout=patience(60))
    assert master.returncode == 3, said
    assert "the load is incomplete: the history has no operations" in said
    worker.communicate(timeout=patience(60))


@pytest.mark.live
def test_a_closed_loop_of_two_workers_asks_nothing_twice(farm: Farm) -> None:
    workers = [farm.worker(), farm.worker()]
    master = farm.master(
        *[
            "--rate",
            "0",
            "--mix",
            "write=1",
            "-t",
            "2s",
            "-u",
            "4",
            "-r",
            "4",
            "--expect-workers",
            "2",
        ]
    )
    _, said = master.communicate(timeout=patience(60))
    assert master.returncode == 0, said
    for worker in workers:
        worker.communicate(timeout=patience(60))
    history = farm.run.operations()
    assert len({record.id for record in history}) == len(history) > 100
    assert len({record.value for record in history}) == len(history)
    assert {record.process.partition(".")[0] for record in history} == {"load-0", "load-1"}
    for summary in farm.run.loads():
        mine = [r for r in history if r.process.startswith(f"{summary.client}.")]
        assert summary.intended == summary.invoked == len(mine)
        assert all(summary.started_ns <= r.invoked_ns for r in mine)
        assert max(r.invoked_ns for r in mine) < summary.started_ns + 2_000_000_000
    assert farm.statistics()["write"]["num_requests"] == len(history)


@pytest.mark.live
def test_a_worker_that_is_killed_is_said_to_be_lost(farm: Farm) -> None:
    workload = a_plan(duration_s=7, mix={"write": 1})
    workers = [farm.worker(), farm.worker()]
    master = farm.master(
        *("--workload", file_of(workload, farm.folder), "-u", "2", "-r", "2"),
        *("--expect-workers", "2"),
    )
    (farm.run.history_dir).mkdir(exist_ok=True)
    wait_for(
        lambda: len([p for p in farm.run.history_dir.glob("*.jsonl") if p.stat().st_size]) == 2,
        "operations of both",
    )
    workers[1].send_signal(signal.SIGKILL)
    _, said = master.communicate(timeout=patience(60))
    assert master.returncode == 3, said
    (summary,) = farm.run.loads()
    (lost,) = farm.run.lost_clients()
    assert {summary.client, lost} == {"load-0", "load-1"}
    assert said.count(f"worker {lost} was lost (last heard of ") == 1
    (line,) = losses(farm.run)
    assert re.match(
        rf"client process {lost} was lost about \d\.\d s after the start of the load", line
    )
    history = farm.run.operations()
    mine = [r for r in history if r.process.startswith(f"{summary.client}.")]
    assert summary.intended == summary.invoked == len(mine)
    assert len(history) > len(mine), "what the lost one has recorded is kept"


@pytest.mark.live
def test_a_worker_that_is_killed_before_the_load_ends_it(farm: Farm) -> None:
    """The second user comes after ten seconds, and the load would begin with it."""
    workers = [farm.worker(), farm.worker()]
    master = farm.master(*("-t", "60s", "-u", "2", "-r", "0.1", "--expect-workers", "2"))
    farm.run.history_dir.mkdir()
    wait_for(lambda: any(farm.run.history_dir.iterdir()), "the first user")
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    _, said = master.communicate(timeout=patience(60))
    assert master.returncode == 3, said
    assert "was lost" in said
    assert farm.run.cut_short()


@pytest.mark.live
def test_a_worker_that_cannot_begin_ends_the_load(farm: Farm) -> None:
    farm.run.history_dir.mkdir()
    (farm.run.history_dir / "load-0.jsonl").write_text("somebody's\n")
    worker = farm.worker()
    master = farm.master(*["--rate", "100", "-t", "20s", "--expect-workers", "1"])
    _, said = master.communicate(timeout=patience(60))
    assert master.returncode == 3, said
    assert "the load is incomplete: worker 0: nothing can run: " in said
    assert "load-0.jsonl exists: give a new --run-folder" in said
    worker.communicate(timeout=patience(60))
    assert (farm.run.history_dir / "load-0.jsonl").read_text() == "somebody's\n"


def test_shares_are_of_users_and_begin_together() -> None:
    told = shares([2, 0, 3], 9.0, 1000)
    assert [(s.index, s.count, s.first_user, s.users, s.all_users) for s in told] == [
        (0, 3, 0, 2, 5),
        (1, 3, 2, 0, 5),
        (2, 3, 2, 3, 5),
    ]
    assert {s.begin_ns - s.monotonic_ns for s in told} == {1000}
    assert {s.duration_s for s in told} == {9.0}


def test_stamps_of_another_host_are_translated_by_the_wall_clocks() -> None:
    share = Share(
        users=1,
        all_users=1,
        duration_s=1,
        begin_ns=100,
        host="a",
        wall_ns=1_000_000,
        monotonic_ns=50,
    )
    assert share.ahead_ns("a", 7, 7) == 0
    # 20 later by the wall clock, where a clock shows 5000: there, 5000 is 70 here.
    assert share.ahead_ns("b", 1_000_020, 5000) == 5000 - 70
