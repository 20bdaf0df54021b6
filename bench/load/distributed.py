"""One plan, shared out among the workers of a distributed load (Locust's master and workers).

The master knows which workers there are and how many users each has; once all users are there it
tells every worker its share. So nothing of the plan is lost if there are fewer users than workers,
or other workers than were expected. A worker that comes later gets no share, and does nothing
(`bench.load.locust_users`). A worker that is lost takes its part of the plan with it: the load goes
on without it, and is not whole.

Stamps are monotonic times of *one* host: the master's. A worker on the same host has them as they
are (and begins at the very moment that the master chose). On another host they are translated by
the wall clocks of both, so they are as right as those agree: see ``capbench check --clock-error``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import msgspec

if TYPE_CHECKING:  # importing it patches the sockets of the whole process
    from locust.runners import MasterRunner, WorkerNode, WorkerRunner

log = logging.getLogger("capbench")

SHARE, DONE, FAILED = "capbench share", "capbench done", "capbench failed"
"""Messages of ours between master and workers."""
BEGIN_IN_NS = 200_000_000
"""From the moment that the shares leave to the begin of the plan."""
LOOK_EVERY_S = 0.2
USERS_COME_S = 60.0
"""How long users may take to come, from the moment that all were sent for."""
NOTHING_SENT = (
    "the history has no operations: the plan has none in its time, or all of them were dropped"
)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one client process does of a plan of ``duration_s``: it is number ``index`` of
    ``count``, and its users are number ``first_user`` and the next of ``all_users``. ``begin_ns``:
    when the intended times count from, by the monotonic clock of ``host``, which showed
    ``monotonic_ns`` when the wall clock there was ``wall_ns``."""

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
        """By how much the monotonic clock of another host is ahead of this one's."""
        if host == self.host:
            return 0
        return (self.wall_ns - self.monotonic_ns) - (wall_ns - monotonic_ns)


def this_host() -> str:
    """What tells one host, since it was booted, from any other."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def shares(users: list[int], duration_s: float, begin_in_ns: int = 0) -> list[Share]:
    """The shares of processes that have so many users each."""
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
    """What the master does beside Locust: it shares out the plan of each test once, and knows which
    workers were lost. ``on_end`` is called when no worker has anything left to do, ``on_failure``
    with the reason why the load cannot be whole."""

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
        """A test starts, with the workers that are there now."""
        self._test = _Test([worker.id for worker in self._there()])
        self._heard_s = dict.fromkeys(self._test.workers, time.monotonic())

    def stop(self) -> None:
        """The test ends, whoever wanted it to."""
        self._test.stopped = True
        left = self._test.busy - self._test.done.keys()
        if left and self._runner.environment.shape_class is None:
            log.warning("the load was stopped before its end: %d workers were at it", len(left))

    def share_out(self, duration_s: float) -> None:
        """All users were sent for. Once they are there, every worker is told its share."""
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
        """The workers of the test in their order, once they have reported as many users as are
        wanted. Locust itself waits for the reports for one second only, and a share that is told
        before them is a share for too few users. None: that never comes."""
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
        """A run time would not do: it counts from before the users are there, and the plan from
        then on."""
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
        """The workers that are gone before they had done their share: which, and since when."""
        return [
            f"worker {self.options.client_name}-{self._runner.worker_indexes[id_]} was lost "
            f"(last heard of {time.monotonic() - self._heard_s[id_]:.1f} s ago)"
            for id_ in self._lost()
        ]


class _Test:
    """One test of a master. ``busy``: the workers that have users; ``done``: those that came to the
    end of their share, and how many operations they sent."""

    def __init__(self, workers: list[str]) -> None:
        self.workers = workers
        self.shared_out = self.stopped = False
        self.busy: set[str] = set()
        self.done: dict[str, int] = {}


def on_share(runner: WorkerRunner, start: Callable[[Share], None]) -> None:
    """Call ``start`` with this worker's share, when it comes."""

    def listen(msg: Any, **_: Any) -> None:
        start(msgspec.convert(msg.data, Share))

    runner.register_message(SHARE, listen)


def tell_done(runner: WorkerRunner, sent: int) -> None:
    """A worker tells its master that it has done its share, and how many operations it sent."""
    runner.send_message(DONE, {"sent": sent})


def tell_failure(runner: WorkerRunner, why: str) -> None:
    """A worker tells its master what it cannot do."""
    runner.send_message(FAILED, {"why": f"worker {runner.worker_index}: {why}"})
