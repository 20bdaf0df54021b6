"""Requests to a real system, each through one of the system's own clients with one connection.

A system's client is plain blocking code (`chaos.systems.system.SystemClient`). Each open operation
has a client from its node's pool, which runs in a thread; under Locust, which patches threads, in a
greenlet. The most recently used idle client goes first, so there are never more connections than
operations open at once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

import msgspec

from bench.load.kinds.transactions import Transact, Transacted, perform
from bench.load.mqtt_client import MAX_WAIT_S
from bench.record.cluster_file import SystemFile
from bench.record.printable import printable
from chaos.systems import catalogue
from chaos.systems.system import Answer, NotApplied, SystemClient, Transaction
from nodes.contract.replica import Operation, Reply, Request, Value

_MOST_REASON = 200


class SystemTransport:
    """See `bench.load.transport.Transport`."""

    def __init__(
        self,
        cluster: SystemFile,
        name: str,
        on_reply: Callable[[Reply], object],
        *,
        timeout_s: float,
        final: bool = False,
    ) -> None:
        self._cluster = cluster
        self._final = final
        self._name = name
        self._on_reply = on_reply
        self._timeout_s = timeout_s
        self._system = catalogue.get(cluster.system)
        self._replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self._idle: dict[str, list[_Worker]] = defaultdict(list)
        self._count: dict[str, int] = defaultdict(int)
        self._waiting: dict[str, deque[tuple[float, Request]]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._closed = False

    def connect(self, timeout_s: float = 5.0) -> None:
        """Does nothing: a client connects at its first use."""

    def publish(self, node: str, requests: Sequence[Request]) -> bool:
        """Hand each request to a client of the node. Its outcome always comes as a reply."""
        for request in requests:
            with self._lock:
                if self._idle[node]:
                    worker = self._idle[node].pop()
                elif self._count[node] < self._system.connections:
                    self._count[node] += 1
                    worker = _Worker(self, node)
                else:
                    # Nobody waits for its answer after that.
                    until = time.monotonic() + self._timeout_s
                    self._waiting[node].append((until, request))
                    continue
            worker.requests.put(request)
        return True

    def poll(self, timeout_s: float) -> None:
        """Hand over the replies that have arrived."""
        try:
            reply = self._replies.get(timeout=min(max(timeout_s, 0.0), MAX_WAIT_S))
            while True:
                self._on_reply(reply)
                reply = self._replies.get_nowait()
        except queue.Empty:
            return

    def close(self) -> None:
        """Busy clients end when they have their answer or time out."""
        with self._lock:
            self._closed = True
            idle = [worker for workers in self._idle.values() for worker in workers]
        for worker in idle:
            worker.requests.put(None)

    # --- what workers do ---

    def new_client(self, node: str) -> SystemClient:
        """A client of that node."""
        make = self._system.final_client if self._final else self._system.client
        client = make(self._cluster, node, self._timeout_s)
        return Prefixed(client, self._cluster.prefix) if self._cluster.prefix else client

    def answered(self, reply: Reply) -> None:
        """An operation has ended."""
        self._replies.put(reply)

    def next_for(self, worker: _Worker) -> Request | None:
        """A waiting request; without one, the worker is idle from now on."""
        waiting = self._waiting[worker.node]
        with self._lock:
            while waiting:
                until, request = waiting.popleft()
                if time.monotonic() < until:
                    return request
            self._idle[worker.node].append(worker)
            if self._closed:
                worker.requests.put(None)
        return None


class Prefixed(SystemClient):
    """A client whose keys all begin alike."""

    def __init__(self, client: SystemClient, prefix: str) -> None:
        self._client, self._prefix = client, prefix

    def invoke(self, operation: Operation) -> Answer:
        """Of the key behind the prefix."""
        key = f"{self._prefix}{operation.key}"
        return self._client.invoke(msgspec.structs.replace(operation, key=key))

    def transaction(self, keys: Sequence[str], work: Callable[[Transaction], None]) -> None:
        """On the keys behind the prefix."""
        behind = [f"{self._prefix}{key}" for key in keys]
        self._client.transaction(behind, lambda at: work(_PrefixedTransaction(at, self._prefix)))

    def close(self) -> None:
        """Close the client."""
        self._client.close()


class _PrefixedTransaction(Transaction):
    def __init__(self, at: Transaction, prefix: str) -> None:
        self._at, self._prefix = at, prefix

    def read(self, key: str) -> Value:
        return self._at.read(f"{self._prefix}{key}")

    def write(self, key: str, value: Value) -> None:
        self._at.write(f"{self._prefix}{key}", value)

    def append(self, key: str, word: str) -> None:
        self._at.append(f"{self._prefix}{key}", word)


class _Worker:
    """A client of one node, and the thread that waits for its answers."""

    def __init__(self, transport: SystemTransport, node: str) -> None:
        self.node = node
        self.requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._transport = transport
        threading.Thread(target=self._run, daemon=True, name=f"client of {node}").start()

    def _run(self) -> None:
        client = self._transport.new_client(self.node)
        while (request := self.requests.get()) is not None:
            turn: Request | None = request
            while turn is not None:
                self._transport.answered(carried_out(client, turn))
                turn = self._transport.next_for(self)
        client.close()


def carried_out(client: SystemClient, request: Request) -> Reply:
    """The outcome, by the rule of `chaos.systems.system`."""
    try:
        if isinstance(request, Transact):
            done = perform(client, request.task)
            return Transacted(request.client, request.sequence, "ok", answer=done)
        answer = client.invoke(request.operation)
    except NotApplied as error:
        return Reply(request.client, request.sequence, "fail", error=_reason(error))
    except Exception as error:  # Any other error: the outcome is unknown.
        client.close()
        return Reply(request.client, request.sequence, "info", error=_reason(error))
    return Reply(
        request.client,
        request.sequence,
        "ok",
        value=answer.value,
        version=answer.version,
        applied=answer.applied,
        seen=answer.seen,
    )


def _reason(error: Exception) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__, _MOST_REASON)
