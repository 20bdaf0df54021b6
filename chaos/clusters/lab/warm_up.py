"""Before a run, a system is let serve until it serves as much as the run will ask for.

A JVM that has just started interprets its code, and the first connection of each client costs a
session: for some seconds such a system serves much less than it can. That is its start, about which
no run asks anything. So operations of our own go first, on keys of their own and in no history,
until the rate of the workload has been served for a second: a condition, not a time. A machine that
is too busy for that gets no more than `MOST_S`, and its run is judged like any other.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from bench.load.client import Client
from bench.load.transport import make_transport
from bench.load.workload import PlannedOperation
from bench.record.cluster_file import SystemFile
from nodes.contract.replica import Reply

NAME = "warm-up"
IN_FLIGHT = 64
"""Operations that are open at once; each node gets the same share of them."""
KEYS = 50
MOST_S = 60.0
SAME = 5
"""After so many seconds in which no more was served than before, it is as warm as it gets."""
_LOOK_EVERY_S = 0.02


class WarmUp:
    """Lets ``cluster`` serve. ``timeout_s``: of an operation. ``check``: called again and again;
    what it raises ends it."""

    def __init__(
        self, cluster: SystemFile, *, timeout_s: float, check: Callable[[], None] = lambda: None
    ) -> None:
        self._cluster = cluster
        self._check = check
        self._client = Client(NAME, timeout_s=timeout_s)
        self._replies: list[Reply] = []
        self._transport = make_transport(cluster, NAME, self._replies.append, timeout_s=timeout_s)
        self._ids = itertools.count(1)

    def until(self, rate_per_s: float) -> str:
        """Until so many operations have ended ok within a second. What a report must say of it."""
        began_s = time.monotonic()
        seconds: list[int] = []
        try:
            self._transport.connect()
            while not (seconds and seconds[-1] >= rate_per_s):
                took_s = time.monotonic() - began_s
                if took_s > MOST_S or _is_same(seconds):
                    return (
                        f"warm-up: {sum(seconds)} operations before the load, which are in no "
                        f"history, at most {max(seconds)} in a second; the load wants "
                        f"{rate_per_s:g}: this machine, or the system, is too slow for it"
                    )
                seconds.append(self._second(most=round(2 * rate_per_s)))
        finally:
            self._transport.close()
        return (
            f"warm-up: {sum(seconds)} operations in {len(seconds)} s before the load, which are in "
            f"no history, until {rate_per_s:g} in a second ended ok"
        )

    def _second(self, most: int) -> int:
        """How many end ok in the next second, of ``most`` that are asked."""
        ok, asked, end_s = 0, 0, time.monotonic() + 1
        while time.monotonic() < end_s:
            while self._client.open_count < IN_FLIGHT and asked < most:
                self._ask()
                asked += 1
            self._transport.poll(_LOOK_EVERY_S)
            now_ns = time.monotonic_ns()
            for reply in self._replies:
                record = self._client.on_reply(reply, now_ns)
                ok += record is not None and record.outcome == "ok"
            self._replies.clear()
            self._client.expire(now_ns)
        self._check()
        return ok

    def _ask(self) -> None:
        """Half of them are writes, and every node is asked as often."""
        number = next(self._ids)
        nodes = self._cluster.nodes
        planned = PlannedOperation(
            number,
            None,
            nodes[number % len(nodes)],
            "write" if number // len(nodes) % 2 else "read",
            f"{NAME}-{number % KEYS}",
            number,
        )
        request = self._client.invoke(planned, time.monotonic_ns())
        assert request is not None, "no limit was set on open operations"
        self._transport.publish(planned.node, [request])


def _is_same(seconds: list[int]) -> bool:
    """Whether the last `SAME` seconds brought nothing more."""
    before, since = seconds[:-SAME], seconds[-SAME:]
    return bool(before) and max(before) > 0 and max(since) <= max(before)
