"""One plan, divided among the workers of a distributed load (Locust's master and workers).

The master knows the workers and how many users each has; once all users have started, it sends each
worker its share. So nothing of the plan is lost if there are fewer users than workers, or other
workers than expected. A worker that joins later gets no share and does nothing
(`bench.load.locust_users`). The share of a lost worker is lost with it: the load goes on, but is
incomplete.

Timestamps are monotonic times of *one* host, the master's. Workers on the same host use them as
they are (and begin exactly when the master says). On another host they are converted by the wall
clocks of both hosts, and are as accurate as these: see ``capbench check --clock-error``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import msgspec

if TYPE_CHECKING:  # the import patches the sockets of the whole process
    from locust.runners import MasterRunner, WorkerNode, WorkerRunner

log = logging.getLogger("capbench")

SHARE, DONE, FAILED = "capbench share", "capbench done", "capbench failed"
"""Our messages between master and workers."""
BEGIN_IN_NS = 200_000_000
"""From sending the shares to the start of the plan."""
LOOK_EVERY_S = 0.2
USERS_COME_S = 60.0
"""How long users may take to start, once all were requested."""
NOTHING_SENT = (
    "the history has no operations: the plan has none in this time, or all of them were dropped"
)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The share of one client process in a plan of ``duration_s``: it is number ``index`` of
    ``count``, and its users are the next ones of ``all_users`` from ``first_user`` on.
    ``begin_ns``: the start of the intended times by the monotonic clock of ``host``, which read
    ``monotonic_ns`` when the wall clock there read ``wall_ns``."""

    index: int = 0
    count: int = 1
    first_user: int = 0
    users: int
    all_users: int
    duration_s: float
    begin_ns: int
    host: str
    wall_ns: int
    monotonic_ns: int

    def ahead_ns(self, host: str, wall_ns: int, monotonic_ns: int) -> int:
        """How far the monotonic clock of another host is ahead of this share's host."""
        if host == self.host:
            return 0
        return (self.wall_ns - self.monotonic_ns) - (wall_ns - monotonic_ns)


def this_host() -> str:
    """An identifier of this host since its last boot."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def shares(users: list[int], duration_s: float, begin_in_ns: int = 0) -> list[Share]:
    """The shares of processes with these numbers of users."""
    monotonic_ns, wall_ns, host = time.monotonic_ns(), time.time_ns(), this_host()
    return [
        Share(
            index=index,
            count=len(users),
            first_user=sum(users[:index]),
            users=count,
            all_users=sum(users),
            duration_s=duration_s,
            begin_ns=monotonic_ns + begin_in_ns,
            host=host,
            wall_ns=wall_ns,
            monotonic_ns=monotonic_ns,
        )
        for index, count in enumerate(users)
    ]


class Master:
    """Our part of the master: it divides the plan of each test once, and notices lost workers.
    ``on_end`` is called when no worker has work left, ``on_failure`` with the reason why the load
    cannot be complete."""

    def __init__(
        self,
        runner: MasterRunner,
        on_end: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._runner = runner
        self._on_end = on_end
        self._on_failure = on_failure
        assert runner.environment.parsed_options is not None
        self.options = runner.environment.parsed_options
        self._test = _Test([])
        self._heard_s: dict[str, float] = {}
        runner.register_message(DONE, self._on_done)
        runner.register_message(FAILED, lambda msg, **_: on_failure(str(msg.data["why"])))
        heartbeats: Any = runner.environment.events.heartbeat_sent
        heartbeats.add_listener(self._on_heartbeat)

    def begin(self) -> None:
        """A test starts with the present workers."""
        self._test = _Test([worker.id for worker in self._there()])
        self._heard_s = dict.fromkeys(self._test.workers, time.monotonic())

    def stop(self) -> None:
        """The test ends, for whatever reason."""
        self._test.stopped = True
        left = self._test.busy - self._test.done.keys()
        if left and self._runner.environment.shape_class is None:
            log.warning("the load was stopped before its end: %d workers were busy", len(left))

    def share_out(self, duration_s: float) -> None:
        """All users were requested. Once they have started, send each worker its share."""
        test = self._test
        if not test.shared_out:
            test.shared_out = True
            gevent.spawn(self._conduct, test, duration_s)

    def _conduct(self, test: _Test, duration_s: float) -> None:
        workers = self._with_all_users(test)
        if workers is None:
            return
        users = [worker.user_count for worker in workers]
        for worker, share in zip(workers, shares(users, duration_s, BEGIN_IN_NS), strict=True):
            if share.users:
                test.busy.add(worker.id)
            self._runner.send_message(SHARE, msgspec.to_builtins(share), worker.id)
        if self._runner.environment.shape_class is None:
            self._wait_for_the_end(test)

    def _with_all_users(self, test: _Test) -> list[WorkerNode] | None:
        """The workers of the test in order, once they have reported all users. Locust itself waits
        only a second for the reports, and shares sent earlier would be for too few users. None: the
        users never came."""
        runner = self._runner
        deadline_s = time.monotonic() + USERS_COME_S
        while test is self._test and not test.stopped:
            if lost := self.lost():
                self._on_failure(f"{lost[0]} before the load began")
                return None
            workers = [worker for worker in self._there() if worker.id in test.workers]
            there = sum(worker.user_count for worker in workers)
            if there == runner.target_user_count:
                return sorted(workers, key=lambda worker: runner.worker_indexes[worker.id])
            if time.monotonic() > deadline_s:
                self._on_failure(
                    f"{there} of {runner.target_user_count} users came in {USERS_COME_S:.0f} s"
                )
                return None
            gevent.sleep(0.02)
        return None

    def _wait_for_the_end(self, test: _Test) -> None:
        """Not by Locust's run time: that starts before the users do, the plan after."""
        while test is self._test and not test.stopped:
            left = test.busy - test.done.keys()
            if not left and not any(test.done.values()):
                self._on_failure(NOTHING_SENT)
                return
            if left <= set(self._lost()):
                self._on_end()
                return
            gevent.sleep(LOOK_EVERY_S)

    def _on_done(self, msg: Any, **_: Any) -> None:
        self._test.done[msg.node_id] = int(msg.data["sent"])

    def _on_heartbeat(self, client_id: str, **_: Any) -> None:
        self._heard_s[client_id] = time.monotonic()

    def _there(self) -> list[WorkerNode]:
        clients = self._runner.clients
        return [*clients.ready, *clients.spawning, *clients.running]

    def _lost(self) -> list[str]:
        there = {worker.id for worker in self._there()}
        return [id_ for id_ in self._test.workers if id_ not in there | self._test.done.keys()]

    def lost(self) -> list[str]:
        """The workers that were lost before they had done their share, and since when."""
        return [
            f"worker {self.options.client_name}-{self._runner.worker_indexes[id_]} was lost "
            f"(last heard of {time.monotonic() - self._heard_s[id_]:.1f} s ago)"
            for id_ in self._lost()
        ]


class _Test:
    """One test of a master. ``busy``: the workers with users; ``done``: those that have done their
    share, and how many operations they sent."""

    def __init__(self, workers: list[str]) -> None:
        self.workers = workers
        self.shared_out = self.stopped = False
        self.busy: set[str] = set()
        self.done: dict[str, int] = {}


def on_share(runner: WorkerRunner, start: Callable[[Share], None]) -> None:
    """Call ``start`` with this worker's share when it arrives."""

    def listen(msg: Any, **_: Any) -> None:
        start(msgspec.convert(msg.data, Share))

    runner.register_message(SHARE, listen)


def report_done(runner: WorkerRunner, sent: int) -> None:
    """Report to the master that this worker has done its share, and how many operations it sent."""
    runner.send_message(DONE, {"sent": sent})


def report_failure(runner: WorkerRunner, why: str) -> None:
    """Report to the master why this worker cannot do its share."""
    runner.send_message(FAILED, {"why": f"worker {runner.worker_index}: {why}"})
