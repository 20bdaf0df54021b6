"""Nonsense for replicas: frames that are well-formed and absurd, into real drivers, in one process.

    python -m tests.protocols.fuzz [--frames 200000] [--seed 1] [protocol ...]

Three drivers (`nodes.runtime.driver`, with their logs on disk) are wired to each other in memory in
place of a broker, so that what comes in takes the way that it takes in a live node. Frames are made
up from the types of the protocol's messages, with numbers at their bounds and such as the cluster
really uses; or they are real ones, sent again, by another node, or with something changed. The
checksum is always right. Keys and clients are of a small set: nodes keep what they are told under
as many names as there are (docs/LIMITS.md), and any other growth would be lost in that.

A node that ends is lost. Nobody's memory may grow. Afterwards each node must serve.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import time
import traceback
import uuid
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any, Protocol

import msgspec
import psutil
import structlog

from nodes import registry
from nodes.contract.bounds import reach
from nodes.contract.replica import Message, Operation, Reply, Request
from nodes.protocols.raft import ChangeMembership, Raft
from nodes.runtime.driver import Driver
from nodes.runtime.scratch import scratch
from nodes.runtime.settings import Endpoint, NodeSettings
from nodes.wire.codec import WIRE_VERSION, is_frame, replies_codec, requests_codec
from nodes.wire.topics import FREE_REPLIES, Topics

NODES = ("n1", "n2", "n3")
TOPICS = Topics("fuzz")
FAST = {"heartbeat_s": 0.03, "election_timeout_min_s": 0.15, "election_timeout_max_s": 0.3}
"""Parameters of the protocols that have a leader: for tests that have no time."""
EDGES = (
    *(0, 1, 2, 3, 7, 255, 2**16, 2**31, 2**32, 2**40, 2**53),
    *(reach(0) - 1, reach(0), reach(0) + 1, 2**61 - 1, 2**61, 2**61 + 1, 2**62, 2**63 - 1),
)
BEYOND = (-1, -(2**63), 2**62 + 1, 2**63, 2**64 - 1)
TEXTS = ("", "k", "k1", "k2", "a", "z" * 600, "é\0", "n9", *NODES)
SETTLE_S = 60.0
LARGEST_TAKEN_UP = 8192
"""Bytes of a real frame that is kept to be changed. A larger one holds more of the same, and would
make the fuzzer slow."""
MAX_WAITING = 1000
"""Messages of a node that are not yet dealt with while there are more frames. A broker would hold
back, too."""
MAX_GROWN_MB = 24.0
"""Of a process with three nodes, from a quarter of the frames to the end: allocators keep some.
What nonsense can make a node keep (results of 1024 requests of each client, 100 siblings of each
key that a node writes) is less than that."""


class Maker:
    """Plain values (as msgpack has them) of any type, by chance. ``pool``: numbers and texts that
    the cluster uses."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.numbers: deque[int] = deque([0, 1], maxlen=200)
        self.texts: deque[str] = deque(TEXTS, maxlen=200)
        self.blobs: deque[bytes] = deque([b"", b"\x93"], maxlen=20)

    def learn(self, plain: Any) -> None:
        """Take the scalars in ``plain`` into the pool."""
        if isinstance(plain, list):
            for item in plain:
                self.learn(item)
        elif isinstance(plain, dict):
            for key, item in plain.items():
                self.learn(key)
                self.learn(item)
        elif isinstance(plain, str):
            self.texts.append(plain)
        elif isinstance(plain, bytes):
            self.blobs.append(plain)
        elif type(plain) is int:
            self.numbers.append(plain)

    def number(self) -> int:
        """Near what is real, at a bound, or beyond all of them."""
        dice = self.rng.random()
        if dice < 0.6:
            near = self.rng.choice(self.numbers) + self.rng.choice((0, 0, 0, 1, -1, 2))
            return max(-(2**63), min(near, 2**64 - 1))
        if dice < 0.82:
            return self.rng.choice(EDGES)
        if dice < 0.85:  # As far as a node just goes, or just does not go.
            return reach(time.time()) + self.rng.choice((-(2**28), -1, 0, 1, 2**20, 2**28))
        return self.rng.choice(BEYOND) if dice < 0.9 else self.rng.getrandbits(62)

    def value(self, info: Any) -> Any:
        """A value of the type, or almost."""
        rng, what = self.rng, msgspec.inspect
        if rng.random() < 0.004 and not isinstance(info, what.StructType):
            return rng.choice((None, True, -1, 1.5, "x", b"", [], {}, [[]], float("nan")))
        match info:
            case what.StructType():
                fields = [self.value(field.type) for field in info.fields]
                if rng.random() < 0.02:
                    fields = [*fields, 0] if rng.random() < 0.5 else fields[:-1]
                return [info.tag, *fields] if info.tag is not None else fields
            case what.UnionType():
                return self.value(rng.choice(info.types))
            case what.NamedTupleType():
                return [self.value(field.type) for field in info.fields]
            case what.TupleType():
                return [self.value(item) for item in info.item_types]
            case what.VarTupleType() | what.ListType():
                length = rng.choice((0, 1, 1, 2, 3)) if rng.random() < 0.98 else 300
                return [self.value(info.item_type) for _ in range(length)]
            case what.DictType():
                count = rng.choice((0, 1, 1, 3))
                return {self.text(): self.value(info.value_type) for _ in range(count)}
            case what.LiteralType():
                return rng.choice(info.values)
            case what.BoolType():
                return rng.random() < 0.5
            case what.IntType():
                return self.number()
            case what.FloatType():
                return rng.choice((0.0, -1.5, 1e308, float("inf"), float("nan")))
            case what.StrType():
                return self.text()
            case what.BytesType():
                return self.blob()
            case what.NoneType():
                return None
        raise AssertionError(f"Maker does not know {info}")

    def known(self, plain: Any, names: Set[str]) -> Any:
        """``plain`` with none but those ``names``."""
        if isinstance(plain, list):
            return [self.known(item, names) for item in plain]
        if isinstance(plain, dict):
            return {self.known(k, names): self.known(item, names) for k, item in plain.items()}
        return self.text() if isinstance(plain, str) and plain not in names else plain

    def text(self) -> str:
        return self.rng.choice(self.texts) if self.rng.random() < 0.6 else self.rng.choice(TEXTS)

    def blob(self) -> bytes:
        blob = bytearray(self.rng.choice(self.blobs))
        if blob and self.rng.random() < 0.5:
            blob[self.rng.randrange(len(blob))] ^= 1 << self.rng.randrange(8)
        return bytes(blob)

    def changed(self, plain: Any, depth: int = 0) -> Any:
        """A real message with something else in one place."""
        rng = self.rng
        if isinstance(plain, list) and plain and depth < 8:
            at = rng.randrange(min(1, len(plain) - 1), len(plain))
            return [*plain[:at], self.changed(plain[at], depth + 1), *plain[at + 1 :]]
        if isinstance(plain, dict) and plain and depth < 8:
            key = rng.choice(list(plain))
            return {**plain, key: self.changed(plain[key], depth + 1)}
        if isinstance(plain, bool):
            return not plain
        if isinstance(plain, int):
            return self.number()
        if isinstance(plain, bytes):
            return self.blob()
        return self.text() if isinstance(plain, str) else rng.choice((None, 1, "x", [], True))


def framed(body: bytes, kind: bytes = b"m") -> bytes:
    """A frame whose checksum is right, whatever is in it."""
    return bytes([WIRE_VERSION]) + zlib.crc32(kind + body).to_bytes(4, "big") + kind + body


class Wire:
    """In place of a `Connection`: what is published arrives in the next turn."""

    def __init__(self, cluster: Cluster) -> None:
        self.up = asyncio.Event()
        self.up.set()
        self.connects, self.dropped, self.retained, self.qos = 1, 0, 0, 0
        self._cluster = cluster

    def publish(self, topic: str, payload: bytes, properties: Any = None) -> bool:
        self._cluster.carry(topic, payload)
        return True


class Letter:
    """What a driver takes from a broker (`nodes.runtime.mqtt.Incoming`)."""

    def __init__(self, topic: str, payload: bytes, response_topic: str | None = None) -> None:
        self.topic, self.payload, self.response_topic = topic, payload, response_topic
        self.correlation: bytes | None = None


class Cluster:
    """Three drivers and what connects them. ``lost``: the nodes that ended, and why."""

    def __init__(self, protocol: str, directory: Path, parameters: dict[str, Any]) -> None:
        self.frames: deque[tuple[str, str, bytes]] = deque(maxlen=200)
        """(src, dst, frame): real ones, the last that were sent."""
        self.replies: deque[Reply] = deque(maxlen=1000)
        self.json_replies: list[dict[str, Any]] = []
        self.published: deque[str] = deque(maxlen=50)
        """The topics of the last messages."""
        self.told: Counter[str] = Counter()
        self.drivers = {node: self._driver(protocol, node, directory, parameters) for node in NODES}
        for driver in self.drivers.values():
            driver._take_writes()
            driver._collect()

    def _driver(
        self, protocol: str, node: str, directory: Path, parameters: dict[str, Any]
    ) -> Driver:
        nowhere = Endpoint("127.0.0.1", 1)
        driver = Driver(
            NodeSettings(
                cluster="fuzz",
                node=node,
                nodes=list(NODES),
                protocol=protocol,
                parameters=parameters,
                data_dir=str(directory / node),
                broker=nowhere,
                links={peer: nowhere for peer in NODES if peer != node},
                reply_links={"load": nowhere},
            )
        )
        wire: Any = Wire(self)
        driver._links = dict.fromkeys(driver._links, wire)
        driver._reply_links = dict.fromkeys(driver._reply_links, wire)
        driver._inbox = driver._control = wire
        return driver

    def carry(self, topic: str, payload: bytes) -> None:
        """What a broker does."""
        self.published.append(topic)
        if topic.startswith(f"{FREE_REPLIES}/"):
            self._take_reply(payload)
            return
        _, _, kind, *rest = topic.split("/")
        if kind == "net":
            if len(payload) <= LARGEST_TAKEN_UP:
                self.frames.append((rest[0], rest[1], payload))
            asyncio.get_running_loop().call_soon(self.deliver, rest[1], Letter(topic, payload))
        elif kind == "rep":
            self._take_reply(payload)
        else:
            assert kind == "status", f"a node publishes on {topic}"
            self.told[json.loads(payload).get("name", "status")] += 1

    def _take_reply(self, payload: bytes) -> None:
        if is_frame(payload):
            self.replies += replies_codec().decode(payload)
        else:
            self.json_replies = [*self.json_replies[-50:], json.loads(payload)]

    def deliver(self, dst: str, letter: Letter) -> None:
        """To a node, if it runs."""
        if not self.drivers[dst]._stopped.done():
            self.drivers[dst]._on_incoming(letter)  # type: ignore[arg-type]

    @property
    def lost(self) -> dict[str, str]:
        return {
            node: "".join(traceback.format_exception(driver._stopped.exception()))
            for node, driver in self.drivers.items()
            if driver._stopped.done()
        }

    async def drain(self, waiting: int = 0) -> None:
        """Wait until no node has more than so many messages that it has not dealt with, or that
        wait for its disk."""
        while any(
            len(driver._inputs) + len(driver._gated) > waiting and not driver._stopped.done()
            for driver in self.drivers.values()
        ):
            await asyncio.sleep(0.001)

    def counters(self) -> Counter[str]:
        """Of all nodes."""
        total: Counter[str] = Counter()
        for driver in self.drivers.values():
            total.update(driver.counters)
        return total

    async def ask(
        self, client: str, node: str, sequence: int, operation: Operation, wait_s: float
    ) -> Reply:
        """Ask until there is an answer that is ok. Raises AssertionError when time is up."""
        deadline, topic = time.monotonic() + wait_s, TOPICS.reply("load", "asker")
        frame = requests_codec().encode([Request(client, sequence, operation)])
        while True:
            self.replies.clear()
            self.deliver(node, Letter(TOPICS.request(node), frame, topic))
            again = time.monotonic() + 1.0
            while time.monotonic() < again:
                await asyncio.sleep(0.005)
                for reply in self.replies:
                    if (reply.client, reply.sequence, reply.outcome) == (client, sequence, "ok"):
                        return reply
            probes = {name: driver.replica.probe() for name, driver in self.drivers.items()}
            assert time.monotonic() < deadline, f"{node} does not answer: {self.replies}, {probes}"

    async def check_that_it_serves(self, wait_s: float = SETTLE_S) -> None:
        """Through each node a write is seen by a read. Raises AssertionError."""
        client = uuid.uuid4().hex  # Nobody else's, whatever a fuzzer has made up.
        sequence, deadline = 0, time.monotonic() + wait_s
        for node in NODES:
            # Nobody else's either: a sibling that a fuzzer has made up may be on its way.
            key = f"after {node} {client}"
            await self.ask(client, node, sequence, Operation("write", key, 7), wait_s)
            while True:
                sequence += 1
                read = Operation("read", key)
                reply = await self.ask(client, node, sequence, read, wait_s)
                if reply.value == 7:
                    break
                # An eventual protocol may take its time, also for what came through this node.
                assert time.monotonic() < deadline, f"{node} answers {reply}"
            sequence += 1

    async def restore_members(self, wait_s: float = SETTLE_S) -> None:
        """Take back what nonsense has done by way of administration, as an administrator would: a
        node that was removed from a Raft cluster is asked for again."""
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            leading = [d for d in self.drivers.values() if d.replica.probe()["role"] == "leader"]
            absent = [
                (leader, node)
                for leader in leading
                for node in NODES
                if node not in getattr(leader.replica, "members", NODES)
            ]
            if not absent and (leading or not isinstance(self.drivers["n1"].replica, Raft)):
                return
            for leader, node in absent:
                name = leader.settings.node
                leader.feed(Message(name, ChangeMembership("add", node)))
            await asyncio.sleep(0.3)

    async def close(self) -> None:
        for driver in self.drivers.values():
            driver._turn = driver._commit = lambda: None  # type: ignore[method-assign]
            for handle in driver._timers.values():
                handle.cancel()
            driver._inputs.clear()
            driver._fired.clear()
        await asyncio.sleep(0)
        for driver in self.drivers.values():
            if driver._stopped.done():
                driver._stopped.exception()
            driver._sync_thread.shutdown(wait=True)
        await asyncio.sleep(0)
        for driver in self.drivers.values():
            driver.log.close()


class Target(Protocol):
    """What a `Fuzzer` can be let loose on."""

    @property
    def frames(self) -> Sequence[tuple[str, str, bytes]]: ...
    def deliver(self, dst: str, letter: Letter) -> None: ...


class Fuzzer:
    """Sends nonsense to a cluster, as a node, a stranger or a client."""

    def __init__(self, cluster: Target, kinds: Any, seed: int, topics: Topics = TOPICS) -> None:
        self._topics = topics
        self.administers = True
        """Whether it also asks a leader to remove members, which is a thing that may be asked."""
        self.rng = random.Random(seed)
        self.make = Maker(self.rng)
        self._cluster = cluster
        self._types = msgspec.inspect.multi_type_info(kinds)
        self._types_of_nodes = msgspec.inspect.multi_type_info(
            [kind for kind in kinds if kind is not ChangeMembership]
        )
        self._request = msgspec.inspect.type_info(Request)
        self._operation = msgspec.inspect.type_info(Operation)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder().decode

    def send(self) -> None:
        """One frame."""
        rng, dice = self.rng, self.rng.random()
        dst = rng.choice(NODES)
        if dice < 0.06:
            self._send_request(dst)
            return
        src = rng.choice([node for node in NODES if node != dst])
        src = "n9" if rng.random() < 0.02 else src
        body = self._made_up() if dice < 0.6 or not self._cluster.frames else self._from_real()
        self._cluster.deliver(dst, Letter(self._topics.link(src, dst), framed(body)))

    def _made_up(self) -> bytes:
        types = self._types if self.administers else self._types_of_nodes
        count = self.rng.choice((1, 1, 1, 2, 5))
        return self._encode([self.make.value(self.rng.choice(types)) for _ in range(count)])

    def _from_real(self) -> bytes:
        rng = self.rng
        _, _, frame = rng.choice(self._cluster.frames)
        body = frame[6:]
        dice = rng.random()
        if dice < 0.2:
            return body
        try:
            messages = self._decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return body  # heard on a broker, where others send rubbish, too
        if dice < 0.5:
            return self._noisy(body, set(_texts(messages)))
        self.make.learn(messages)
        return self._encode([self.make.changed(message) for message in messages])

    def _noisy(self, body: bytes, names: Set[str]) -> bytes:
        """One bit of it is another one; but it invents no names."""
        noisy = bytearray(body)
        noisy[self.rng.randrange(len(noisy))] ^= 1 << self.rng.randrange(8)
        try:
            messages = self._decode(noisy)
            if all(text in names for text in _texts(messages)):
                return bytes(noisy)
            return self._encode(self.make.known(messages, names))
        except (ValueError, TypeError, OverflowError, RecursionError):
            return bytes(noisy)  # No node can read it either.

    def _send_request(self, node: str) -> None:
        operation = self.make.value(self._operation)
        request = self.make.value(self._request)
        topic = self.rng.choice(
            (self._topics.reply("load", "c"), self._topics.link("n1", "n2"), "reply/#", "")
        )
        if self.rng.random() < 0.5:
            body = framed(self._encode([request]), b"q")
        else:
            names = ("op", "key", "value", "expected", "context", "client", "sequence")
            fields = [*operation, self.make.text(), self.make.number()]
            if self.rng.random() < 0.1:
                fields[2] = 10 ** self.rng.choice((18, 19, 20, 400, 4000))
            body = json.dumps(dict(zip(names, fields, strict=False)), default=str).encode()
        self._cluster.deliver(node, Letter(self._topics.request(node), body, topic))


def _texts(plain: Any) -> Iterator[str]:
    """All texts in a plain value."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, list):
        for item in plain:
            yield from _texts(item)
    elif isinstance(plain, dict):
        yield from _texts([*plain.keys(), *plain.values()])


def _resident_mb() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 1e6


def _nobody_is_lost(cluster: Cluster, where: str) -> None:
    for node, why in cluster.lost.items():
        raise AssertionError(f"{where}: {node} ended: {why}")


async def run(
    protocol: str,
    frames: int,
    seed: int,
    *,
    parameters: dict[str, Any] | None = None,
    serves: bool = True,
) -> dict[str, Any]:
    """Figures of one run. Raises AssertionError where a node is lost, memory grows, or (if
    ``serves``) a node does not serve afterwards."""
    with scratch("fuzz") as directory:
        cluster = Cluster(protocol, directory, parameters or {})
        try:
            await cluster.check_that_it_serves()
            kinds = registry.get(protocol).replica.MESSAGES
            fuzzer = Fuzzer(cluster, kinds, seed)
            began, after_a_quarter = time.monotonic(), 0.0
            for number in range(frames):
                fuzzer.send()
                if number % 20 == 0:
                    await asyncio.sleep(0)
                    await cluster.drain(MAX_WAITING)
                if number % 2000 == 0:
                    await asyncio.sleep(0.02)
                    _nobody_is_lost(cluster, f"{protocol}, seed {seed}")
                if number == frames // 4:
                    await cluster.drain()
                    after_a_quarter = _resident_mb()
            seconds = time.monotonic() - began
            await asyncio.sleep(0.1)
            await cluster.drain()
            at_the_end = _resident_mb()
            _nobody_is_lost(cluster, f"{protocol}, seed {seed}")
            grown = at_the_end - after_a_quarter
            assert grown <= MAX_GROWN_MB, f"{protocol}, seed {seed}: {grown:.1f} MB more memory"
            began = time.monotonic()
            if serves:
                await cluster.restore_members()
                await cluster.check_that_it_serves()
            counters = cluster.counters()
            return {
                "protocol": protocol,
                "frames": frames,
                "seconds": round(seconds, 1),
                "serves again after s": round(time.monotonic() - began, 2),
                "MB after a quarter": round(after_a_quarter, 1),
                "MB at the end": round(at_the_end, 1),
                **{name: count for name, count in sorted(counters.items()) if "bad" in name},
                "elsewhere": dict(cluster.told.most_common(6)),
            }
        finally:
            await cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("protocols", nargs="*", default=sorted(registry.PROTOCOLS))
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parameters", type=json.loads, default={})
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    failed = 0
    for protocol in options.protocols:
        try:
            told = asyncio.run(
                run(
                    protocol,
                    options.frames,
                    options.seed,
                    parameters=options.parameters,
                    # Whoever says where keys are is believed: see docs/LIMITS.md.
                    serves="replication_factor" not in options.parameters,
                )
            )
            print(json.dumps(told), flush=True)
        except AssertionError as error:
            print(f"fuzz: {protocol}: {error}", file=sys.stderr, flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
