"""Two hosts of one replica, behind one face: the simulator's `Host`, and the live `Driver` in
virtual time, without a broker, with fsyncs that a test holds in its hand. What a driver owes a
replica (nodes/contract/replica.py) is asked of both by the same tests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import pytest

from nodes import registry
from nodes.contract.replica import Reply, Request
from nodes.faults.injected import ClockError, CrashAt, FsyncError
from nodes.registry import node_ids
from nodes.runtime import injected
from nodes.runtime.driver import Driver
from nodes.runtime.settings import Endpoint, NodeSettings
from nodes.simulator.cluster import Cluster
from nodes.simulator.host import Timing, Trap
from nodes.simulator.network import Quality
from nodes.wire.codec import replies_codec, requests_codec
from nodes.wire.topics import Topics

LATENCY_S = 0.001
FSYNC_S = 0.01
NODES = node_ids(3)

FsyncPoint = Literal["before-fsync", "after-fsync"]


class Stage(Protocol):
    """Three nodes that run a protocol. ``replies``: what clients were answered."""

    replies: list[Reply]

    def run(self, seconds: float) -> None:
        """Let time pass."""

    def request(self, node: str, request: Request) -> None:
        """A client asks a node, at once."""

    def replica(self, node: str) -> Any:
        """That of a node that is up."""

    def is_up(self, node: str) -> bool: ...
    def crash(self, node: str) -> None: ...
    def restart(self, node: str) -> None: ...
    def crash_at(self, node: str, point: FsyncPoint) -> None:
        """When it next syncs."""

    def fail_fsync(self, node: str) -> None:
        """The next one of that node."""

    def drift(self, node: str, rate: float) -> None:
        """Let the node's clock run faster."""

    def jump(self, node: str, seconds: float) -> None:
        """Let its monotonic clock leap."""

    def fsyncs(self, node: str) -> int: ...
    def unasked(self, node: str) -> int:
        """Answers of the node that nobody waited for."""


class Simulated:
    """On `nodes.simulator.host.Host`. ``step_s``: how long a step keeps a node busy."""

    def __init__(self, protocol: registry.Protocol, step_s: float = 0.0001) -> None:
        self.cluster = Cluster(
            protocol,
            nodes=len(NODES),
            seed=5,
            quality=Quality(latency_s=LATENCY_S, jitter_s=0.0),
            timing=Timing(step_s=step_s, fsync_s=FSYNC_S),
        )
        self.replies: list[Reply] = []
        self.cluster.reply_to = lambda node, reply: self.replies.append(reply)

    def run(self, seconds: float) -> None:
        self.cluster.run(seconds)

    def request(self, node: str, request: Request) -> None:
        self.cluster.request(node, request)

    def replica(self, node: str) -> Any:
        return self.cluster.replica(node)

    def is_up(self, node: str) -> bool:
        return self.cluster.hosts[node].up

    def crash(self, node: str) -> None:
        self.cluster.crash(node)

    def restart(self, node: str) -> None:
        self.cluster.hosts[node].fsync_fails = False
        self.cluster.restart(node)

    def crash_at(self, node: str, point: FsyncPoint) -> None:
        self.cluster.hosts[node].traps.append(Trap(point=point, down_s=1e6))

    def fail_fsync(self, node: str) -> None:
        self.cluster.hosts[node].fsync_fails = True

    def drift(self, node: str, rate: float) -> None:
        self.cluster.hosts[node].clock.set_rate(rate)

    def jump(self, node: str, seconds: float) -> None:
        self.cluster.hosts[node].clock.jump(seconds)

    def fsyncs(self, node: str) -> int:
        return self.cluster.hosts[node].fsyncs

    def unasked(self, node: str) -> int:
        return self.cluster.hosts[node].orphan_replies


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that waits for nothing: where it would sleep, its clock moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def select_at_once(timeout: float | None) -> Any:
            assert timeout is not None, "nothing is to happen any more"
            self.now_s += max(0.0, timeout)
            return select(0)

        selector.select = select_at_once

    def time(self) -> float:
        return self.now_s


class Died(BaseException):
    """The process killed itself."""


class _HeldFuture(Future[None]):
    def __init__(self, job: Callable[[], None]) -> None:
        super().__init__()
        self.job: Callable[[], None] | None = job

    def do(self) -> None:
        job, self.job = self.job, None
        if job is not None and not self.cancelled():
            try:
                job()
            except Exception as error:
                self.set_exception(error)
            else:
                self.set_result(None)

    def result(self, timeout: float | None = None) -> None:
        self.do()  # Whoever waits for it waits until it is done.
        return super().result(timeout)


class HeldDisk:
    """In place of the thread that syncs: a commit is done ``fsync_s`` after it was asked for, and
    never where the node died before. ``held``: not before `let_go`."""

    def __init__(self, live: Live, node: str) -> None:
        self.fsyncs = 0
        self.held = False
        self.waiting: list[_HeldFuture] = []
        self.most_at_once = 0
        self._live, self._node, self._dead = live, node, False

    def submit(self, commit: Callable[..., None], *arguments: Any) -> _HeldFuture:
        self.fsyncs += 1
        future = _HeldFuture(lambda: commit(*arguments))
        self.waiting.append(future)
        self.most_at_once = max(self.most_at_once, len(self.waiting))
        if not self.held:
            self._live.loop.call_later(FSYNC_S, self._do, future)
        return future

    def let_go(self) -> None:
        """Do what is held."""
        self.held = False
        for future in list(self.waiting):
            self._do(future)

    def _do(self, future: _HeldFuture) -> None:
        if not self._dead:
            self.waiting.remove(future)
            try:
                future.do()
            except Died:
                self._live.crash(self._node)

    def die(self) -> None:
        self._dead = True

    def shutdown(self, *, wait: bool = True) -> None:
        pass


class Wire:
    """In place of a `Connection` of one node: what it publishes arrives ``LATENCY_S`` later."""

    def __init__(self, live: Live, node: str) -> None:
        self.up = asyncio.Event()
        self.up.set()
        self.connects, self.dropped, self.retained, self.qos = 1, 0, 0, 0
        self.dead = False
        self._live, self._node = live, node

    def publish(self, topic: str, payload: bytes, properties: Any = None) -> bool:
        assert not self.dead, "a dead node speaks"
        self._live.carry(self._node, topic, payload)
        return True

    def block(self) -> None: ...
    def unblock(self) -> None: ...


class Letter:
    """What a driver takes from a broker (`nodes.runtime.mqtt.Incoming`)."""

    def __init__(self, topic: str, payload: bytes, response_topic: str | None = None) -> None:
        self.topic, self.payload, self.response_topic = topic, payload, response_topic
        self.correlation: bytes | None = None


class Live:
    """On `nodes.runtime.driver.Driver`. ``settings``: on top of a plain node's. ``frames``: all
    that went over links, as (src, dst, frame); ``ended``: why a node ended by itself; ``told``: the
    names of its events; ``answered``: the addressees of ``replies``."""

    def __init__(
        self,
        protocol: registry.Protocol,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        **settings: Any,
    ) -> None:
        monkeypatch.setitem(registry.PROTOCOLS, protocol.name, protocol)
        self.loop = VirtualLoop()
        clock = SimpleNamespace(
            monotonic=self.loop.time, time=self.loop.time, sleep=lambda seconds: None
        )
        monkeypatch.setattr(injected, "time", clock)
        monkeypatch.setattr(injected, "_die", self._die)
        self.replies: list[Reply] = []
        self.answered: list[str] = []
        self.frames: list[tuple[str, str, bytes]] = []
        self.told: list[tuple[str, str]] = []
        self.ended: dict[str, BaseException] = {}
        self.disks: dict[str, HeldDisk] = {}
        self.topics = Topics("stage")
        self._protocol, self._directory, self._settings = protocol, directory, settings
        self._wires: dict[str, Wire] = {}
        self._drivers: dict[str, Driver] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._killed: list[asyncio.Task[None]] = []
        self._syncs: dict[str, int] = dict.fromkeys(NODES, 0)
        for node in NODES:
            self.restart(node)

    def close(self) -> None:
        for node in list(self._drivers):
            self.crash(node)
        self.loop.run_until_complete(asyncio.gather(*self._killed, return_exceptions=True))
        self.loop.close()

    def _die(self) -> None:
        raise Died

    def driver(self, node: str) -> Driver:
        return self._drivers[node]

    def run(self, seconds: float) -> None:
        # Two rounds of the loop more, for what happens at the last instant.
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.loop.run_until_complete(asyncio.sleep(0))

    def restart(self, node: str) -> None:
        async def start() -> None:
            nowhere = Endpoint("127.0.0.1", 1)
            driver = Driver(
                NodeSettings(
                    cluster="stage",
                    node=node,
                    nodes=list(NODES),
                    protocol=self._protocol.name,
                    data_dir=str(self._directory / node),
                    broker=nowhere,
                    links={peer: nowhere for peer in NODES if peer != node},
                    reply_links={"load": nowhere},
                    **self._settings,
                )
            )
            wire: Any = Wire(self, node)
            driver._links = dict.fromkeys(driver._links, wire)
            driver._reply_links = dict.fromkeys(driver._reply_links, wire)
            driver._inbox = driver._control = wire
            driver._sync_thread.shutdown()
            disk: Any = HeldDisk(self, node)
            driver._sync_thread = disk
            driver._disk_speed.quick_s = 0.0
            driver._coroutines = list  # type: ignore[method-assign]
            self._wires[node], self.disks[node], self._drivers[node] = wire, disk, driver
            self._tasks[node] = task = self.loop.create_task(driver.run())
            task.add_done_callback(lambda done: self._on_end(node, done))
            await asyncio.sleep(0)

        assert node not in self._drivers
        self.loop.run_until_complete(start())

    def _on_end(self, node: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(node) is not task:
            return  # It was killed.
        error = task.exception()
        assert error is not None
        self.ended[node] = error
        self._bury(node)

    def crash(self, node: str) -> None:
        task = self._tasks.pop(node)
        self._bury(node)
        task.cancel()
        self._killed.append(task)

    def _bury(self, node: str) -> None:
        """Nothing that a dead process had in mind happens any more."""
        driver = self._drivers.pop(node)
        disk = self.disks[node]
        self._syncs[node] += disk.fsyncs
        disk.die()
        for handle in driver._timers.values():
            handle.cancel()
        driver._inputs.clear()
        driver._fired.clear()
        driver._gated.clear()
        self._wires[node].dead = True
        driver.log.close()

    def is_up(self, node: str) -> bool:
        return node in self._drivers

    def carry(self, src: str, topic: str, payload: bytes) -> None:
        """What a broker does."""
        kind, *rest = topic.split("/")[2:]
        if kind == "net":
            assert rest[0] == src
            self.frames.append((src, rest[1], payload))
            self.loop.call_later(LATENCY_S, self.deliver, rest[1], Letter(topic, payload))
        elif kind == "rep":
            replies = replies_codec().decode(payload)
            self.replies += replies
            self.answered += [rest[1]] * len(replies)
        else:
            assert kind == "status"
            self.told.append((src, json.loads(payload).get("name", "status")))

    def deliver(self, dst: str, letter: Letter) -> None:
        if dst in self._drivers:
            self._drivers[dst]._on_incoming(letter)  # type: ignore[arg-type]

    def request(self, node: str, request: Request) -> None:
        payload = requests_codec().encode([request])
        self.deliver(
            node, Letter(self.topics.request(node), payload, self.topics.reply("load", "c"))
        )

    def replica(self, node: str) -> Any:
        return self._drivers[node].replica

    def crash_at(self, node: str, point: FsyncPoint) -> None:
        self._drivers[node]._injector.inject("crash", CrashAt(point=point))

    def fail_fsync(self, node: str) -> None:
        self._drivers[node]._injector.inject("error", FsyncError())

    def drift(self, node: str, rate: float) -> None:
        self._drivers[node]._injector.inject("drift", ClockError(drift=rate - 1))

    def jump(self, node: str, seconds: float) -> None:
        self._drivers[node]._injector.inject("jump", ClockError(jump_s=seconds))

    def fsyncs(self, node: str) -> int:
        return self._syncs[node] + (self.disks[node].fsyncs if self.is_up(node) else 0)

    def unasked(self, node: str) -> int:
        return self._drivers[node].counters.get("replies_without_asker", 0)
