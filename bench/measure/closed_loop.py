"""A cheap closed-loop load on a running cluster: how many operations per second it can do.

    python -m bench.measure.closed_loop --cluster .capbench/demo/cluster.json --clients 128
    --think-ms 1

``--clients`` logical clients each send an operation, wait for its reply, think, and send the next.
They share one process and one `bench.load.mqtt_client.MqttClient`, so that the load costs a few
microseconds per operation and the cluster is measured, not the client. Only counts and latencies
are recorded: for verdicts use Locust (`bench/load/locustfile.py`).

A closed loop slows down with the cluster (coordinated omission): its latencies are those of clients
that wait their turn, not of users that arrive when they like.
"""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from array import array
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np

from bench.load.mqtt_client import BrokerUnreachable, MqttClient
from bench.load.workload import Ask
from bench.record.cluster_file import BadClusterFile, ClusterFile, read_cluster_file
from nodes.contract.replica import Operation, Reply, Request

INVALID_INPUT, INFRASTRUCTURE_FAILED = 2, 3
TIMEOUT_S = 5.0
NS = 1_000_000_000
FRAME_BYTES = 500_000
"""Requests to one node are sent together, in frames of about this size at most."""


class ClosedLoop(msgspec.Struct, frozen=True, kw_only=True):
    """A closed-loop load. ``clients``: the most operations in flight; ``think_s``: between a reply
    and the client's next operation; ``warm_up_s``: not measured. ``keys``: written or read in turn.
    ``value_bytes``: of each written value. ``nodes``: asked in turn (empty: all). ``ask``: these,
    or the one that leads, once a reply has said who that is. ``one_per_publish``: send each request
    as its own PUBLISH instead of coalescing."""

    clients: int = 128
    think_s: float = 0.001
    seconds: float = 5.0
    warm_up_s: float = 1.0
    op: Literal["read", "write"] = "write"
    keys: int = 1000
    value_bytes: int = 32
    nodes: tuple[str, ...] = ()
    ask: Ask = "any"
    one_per_publish: bool = False

    def __post_init__(self) -> None:
        if min(self.clients, self.keys, self.value_bytes) < 1:
            raise ValueError("clients, keys and value bytes must be at least 1")
        if self.seconds <= 0 or min(self.think_s, self.warm_up_s) < 0:
            raise ValueError("seconds must be above 0, think time and warm-up at least 0")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The result, without the warm-up. Operations: ``ok``, ``failed`` (refused, or ended unknown),
    ``unanswered`` (for `TIMEOUT_S`). ``latency_ms``: quantiles of those that ended ok, from sending
    to reply; None if there were none. ``client_cpu_s``: of this process. ``answered`` (ended ok),
    ``request_frames`` and ``request_bytes`` (PUBLISHes and payload) cover the whole load with
    warm-up and final wait: the nodes' counters, read before and after the load, are divided by
    ``answered``.

    When the time is up, open operations are awaited. Those that end ok do not count, since they
    took longer than the measurement; those that fail or stay unanswered do."""

    load: ClosedLoop
    seconds: float
    ok: int
    failed: int
    unanswered: int
    ok_per_s: float
    latency_ms_p50: float | None
    latency_ms_p99: float | None
    client_cpu_s: float
    answered: int
    request_frames: int
    request_bytes: int
    error: str | None = None
    """The error of the first failed operation."""


def drive(
    cluster: ClusterFile, load: ClosedLoop, at_edges: Callable[[], object] | None = None
) -> Measured:
    """Load ``cluster`` for warm-up and measurement. ``at_edges``: called when the measurement
    begins and when it ends. Raises BrokerUnreachable; ValueError for a node that the cluster does
    not have."""
    unknown = [node for node in load.nodes if node not in cluster.nodes]
    if unknown:
        raise ValueError(f"no node {unknown[0]}: the cluster has {', '.join(cluster.nodes)}")
    return _Loop(cluster, load).run(at_edges or (lambda: None))


class _Loop:
    def __init__(self, cluster: ClusterFile, load: ClosedLoop) -> None:
        self._load = load
        self._nodes = load.nodes or tuple(cluster.nodes)
        self._may_lead = frozenset(cluster.nodes if load.ask == "leader" else ())
        self._leader: str | None = None
        self._name = f"loop-{uuid.uuid4().hex[:8]}"
        self._mqtt = MqttClient(cluster, self._name, self._on_reply)
        self._value = "v" * load.value_bytes
        self._frame = max(1, FRAME_BYTES // (load.value_bytes + 100))
        if load.one_per_publish:
            self._frame = 1
        self._open: dict[int, tuple[int, int]] = {}
        """Sequence -> (client, sent at), oldest first."""
        self._due: deque[tuple[int, int]] = deque((0, client) for client in range(load.clients))
        """(When, client): all think equally long, so they come due in this order."""
        self._sequence = 0
        self._measuring = False
        self._draining = False
        self._latencies_ns = array("q")
        self._failed = self._unanswered = self._answered = 0
        self._error: str | None = None

    def run(self, at_edges: Callable[[], object]) -> Measured:
        self._mqtt.connect()
        try:
            self._until(time.monotonic_ns() + int(self._load.warm_up_s * NS))
            at_edges()
            self._measuring = True
            cpu_s, started_ns = time.process_time(), time.monotonic_ns()
            self._until(started_ns + int(self._load.seconds * NS))
            seconds = (time.monotonic_ns() - started_ns) / NS
            cpu_s = time.process_time() - cpu_s
            at_edges()
            self._draining = True
            while self._open:
                self._mqtt.poll(0.02)
                self._expire(time.monotonic_ns())
        finally:
            self._mqtt.close()
        # paho's callbacks keep this object in a cycle, which the collector may find late.
        latencies_ns, self._latencies_ns = self._latencies_ns, array("q")
        ok = len(latencies_ns)
        p50, p99 = np.quantile(latencies_ns, (0.5, 0.99)) / 1e6 if ok else (None, None)
        return Measured(
            load=self._load,
            seconds=seconds,
            ok=ok,
            failed=self._failed,
            unanswered=self._unanswered,
            ok_per_s=ok / seconds,
            latency_ms_p50=p50 if p50 is None else float(p50),
            latency_ms_p99=p99 if p99 is None else float(p99),
            client_cpu_s=cpu_s,
            answered=self._answered,
            request_frames=self._mqtt.frames_sent,
            request_bytes=self._mqtt.bytes_sent,
            error=self._error,
        )

    def _until(self, end_ns: int) -> None:
        while (now_ns := time.monotonic_ns()) < end_ns:
            self._send_due(now_ns)
            self._expire(now_ns)
            wake_ns = min(self._due[0][0] if self._due else end_ns, end_ns)
            self._mqtt.poll((wake_ns - time.monotonic_ns()) / NS)

    def _send_due(self, now_ns: int) -> None:
        due = self._due
        requests: dict[str, list[Request]] = {}
        while due and due[0][0] <= now_ns:
            _, client = due.popleft()
            sequence = self._sequence
            self._sequence += 1
            self._open[sequence] = (client, now_ns)
            key = f"k{sequence % self._load.keys}"
            value = self._value if self._load.op == "write" else None
            operation = Operation(self._load.op, key, value)
            oldest = next(iter(self._open))
            node = self._leader or self._nodes[client % len(self._nodes)]
            request = Request(self._name, sequence, operation, oldest)
            requests.setdefault(node, []).append(request)
        for node, batch in requests.items():
            for first in range(0, len(batch), self._frame):
                # What cannot be sent now counts as unanswered.
                self._mqtt.publish(node, batch[first : first + self._frame])

    def _expire(self, now_ns: int) -> None:
        while self._open:
            sequence, (client, sent_ns) = next(iter(self._open.items()))
            if now_ns - sent_ns < TIMEOUT_S * NS:
                return
            del self._open[sequence]
            self._unanswered += self._measuring
            self._leader = None
            self._due.append((now_ns, client))

    def _on_reply(self, reply: Reply) -> None:
        opened = self._open.pop(reply.sequence, None)
        if opened is None:
            return
        client, sent_ns = opened
        now_ns = time.monotonic_ns()
        self._due.append((now_ns + int(self._load.think_s * NS), client))
        self._answered += reply.outcome == "ok"
        if reply.leader in self._may_lead:
            self._leader = reply.leader
        if not self._measuring:
            return
        if reply.outcome != "ok":
            self._failed += 1
            self._error = self._error or reply.error
        elif not self._draining:
            self._latencies_ns.append(now_ns - sent_ns)


def main() -> int:
    """Print the result as JSON. Exit code 2: invalid input; 3: no cluster."""
    parser = argparse.ArgumentParser(description="Closed-loop load on a running cluster.")
    parser.add_argument("--cluster", type=Path, help="its file (default: the cluster here)")
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument("--think-ms", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up-s", type=float, default=1.0)
    parser.add_argument("--op", choices=("read", "write"), default="write")
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--value-bytes", type=int, default=32)
    parser.add_argument("--nodes", default="", help="nodes to ask: n1,n2 (default: all in turn)")
    parser.add_argument("--ask", choices=get_args(Ask), default="any", help="these, or the leader")
    parser.add_argument("--one-per-publish", action="store_true", help="do not coalesce requests")
    options = parser.parse_args()
    try:
        load = ClosedLoop(
            clients=options.clients,
            think_s=options.think_ms / 1000,
            seconds=options.seconds,
            warm_up_s=options.warm_up_s,
            op=options.op,
            keys=options.keys,
            value_bytes=options.value_bytes,
            nodes=tuple(filter(None, options.nodes.split(","))),
            ask=options.ask,
            one_per_publish=options.one_per_publish,
        )
        measured = drive(read_cluster_file(options.cluster), load)
    except (ValueError, BadClusterFile) as error:
        print(f"closed loop: {error}", file=sys.stderr)
        return INVALID_INPUT
    except BrokerUnreachable as error:
        print(f"closed loop: {error}", file=sys.stderr)
        return INFRASTRUCTURE_FAILED
    print(msgspec.json.encode(measured).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
