"""One plan, shared out among the workers of a distributed load (Locust's master and workers).

The master knows which workers there are and how many users each has; once all users are there it
tells every worker its share. So nothing of the plan is lost if there are fewer users than workers,
or other workers than were expected. A worker that comes later gets no share, and does nothing.

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
    from locust.runners import MasterRunner, WorkerRunner

log = logging.getLogger("capbench")

SHARE, DONE, FAILED = "capbench share", "capbench done", "capbench failed"
"""Messages of ours between master and workers."""
BEGIN_IN_NS = 200_000_000
"""From the moment that the shares leave to the begin of the plan."""
LOOK_EVERY_S = 0.2
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
    """What the master does beside Locust: it shares out the plan of each test once, and knows who
    was lost. ``on_end`` is called when all workers that are left have done their share,
    ``on_failure`` with what one of them cannot do."""

    def __init__(
        self,
        runner: MasterRunner,
        on_end: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._runner = runner
        self._on_end = on_end
        assert runner.environment.parsed_options is not None
        self.options = runner.environment.parsed_options
        self._told: list[str] = []
        self._done: set[str] = set()
        runner.register_message(DONE, lambda msg, **_: self._done.add(msg.node_id))
        runner.register_message(FAILED, lambda msg, **_: on_failure(str(msg.data["why"])))

    def begin(self) -> None:
        """A test starts: its plan is not yet shared out."""
        self._told, self._done = [], set()

    def share_out(self, duration_s: float) -> None:
        """All users are there. Those that come later find the plan shared out."""
        if self._told:
            return
        runner = self._runner
        workers = [*runner.clients.ready, *runner.clients.spawning, *runner.clients.running]
        workers.sort(key=lambda worker: runner.worker_indexes[worker.id])
        users = [worker.user_count for worker in workers]
        if sum(users) != runner.target_user_count:
            log.warning(
                "%d users of %d have part in the load", sum(users), runner.target_user_count
            )
        for worker, share in zip(workers, shares(users, duration_s, BEGIN_IN_NS), strict=True):
            runner.send_message(SHARE, msgspec.to_builtins(share), worker.id)
            self._told.append(worker.id)
            if share.users == 0:
                self._done.add(worker.id)
        gevent.spawn(self._wait_for_the_end, self._told)

    def _wait_for_the_end(self, told: list[str]) -> None:
        """A run time would not do: it counts from before the users are there, and the plan from
        then on."""
        while told is self._told:
            if self._done.union(self.lost()).issuperset(told):
                self._on_end()
                return
            gevent.sleep(LOOK_EVERY_S)

    def lost(self) -> list[str]:
        """The workers that had a share and are not there any more."""
        there = {worker.id for worker in self._runner.clients.all}
        there -= {worker.id for worker in self._runner.clients.missing}
        return [worker for worker in self._told if worker not in there]


def on_share(runner: WorkerRunner, start: Callable[[Share], None]) -> None:
    """Call ``start`` with this worker's share, when it comes."""

    def listen(msg: Any, **_: Any) -> None:
        start(msgspec.convert(msg.data, Share))

    runner.register_message(SHARE, listen)


def tell_done(runner: WorkerRunner) -> None:
    """A worker tells its master that it has done its share."""
    runner.send_message(DONE)


def tell_failure(runner: WorkerRunner, why: str) -> None:
    """A worker tells its master what it cannot do."""
    runner.send_message(FAILED, {"why": f"worker {runner.worker_index}: {why}"})
