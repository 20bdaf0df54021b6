"""The live driver: one replica, a durable log, a clock, and MQTT.

One turn of the event loop: inputs that have arrived are stepped together, the writes of the step
join the next group commit, and all messages to one destination leave as one PUBLISH. A step waits
for the next turn as long as the last turn brought something, at most `_MAX_DEFER` times: under load
batches grow, at low load nothing waits. A commit is done in a thread while steps go on, unless
there is little to write and the disk is quick (`nodes.runtime.disk_speed`).

The duties of a driver are listed in `nodes.contract.replica`.
"""

from __future__ import annotations

import asyncio
import operator
import time
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import structlog

from nodes import registry
from nodes.contract.disk import Disk
from nodes.contract.replica import Durable, Input, Message, Reply, Request, Timer
from nodes.faults.injected import Injected
from nodes.runtime.disk_speed import FEW_WRITES, DiskSpeed
from nodes.runtime.durable_log import DurableLog
from nodes.runtime.injected import Injector, LiveEnv
from nodes.runtime.memory import peak_kb
from nodes.runtime.mqtt import Connection, response_properties
from nodes.runtime.settings import NodeSettings
from nodes.wire.codec import (
    MAX_FRAME_BYTES,
    BadFrame,
    Codec,
    WriteCodec,
    check_request,
    decode_json_request,
    encode_json_reply,
    is_frame,
    part_digest,
    replies_codec,
    requests_codec,
)
from nodes.wire.packets import Incoming
from nodes.wire.tls import broker_tls
from nodes.wire.topics import Topics

log = structlog.get_logger()

_MAX_DEFER = 32
_MAX_MESSAGES_PER_FRAME = 4096
_MAX_OPEN_REQUESTS = 100_000
_MAX_UNTOLD = 1000


class DiskFailed(Exception):
    """Writing or syncing failed: the node stops, since nobody knows what the disk holds."""


class Asker:
    """Where the answer to a request goes."""

    __slots__ = ("correlation", "json", "topic")

    def __init__(self, topic: str, correlation: bytes | None, json: bool) -> None:
        self.topic = topic
        self.correlation = correlation
        self.json = json


class Driver:
    """Runs one node until cancelled. `run` raises DiskFailed, CorruptLog, OSError, and whatever
    invariant the replica broke."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.topics = Topics(settings.cluster)
        self.protocol = registry.get(settings.protocol)
        self._config = config = self.protocol.configure(
            settings.node, tuple(settings.nodes), settings.parameters
        )
        replica_type = self.protocol.replica
        self.log = DurableLog(Path(settings.data_dir), WriteCodec(replica_type.RECORDS))
        self.disk = Disk.replay(self.log.open())
        self.durable = self.disk.position
        self.counters: dict[str, int] = {"torn_bytes_cut": self.log.cut_bytes}
        self.env = LiveEnv()
        self.replica = replica_type(config, self.env, self.disk)

        self._loop = asyncio.get_running_loop()
        self._inputs: list[Input] = []
        self._seen_inputs = 0
        self._deferred = 0
        self._turn_scheduled = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._fired: dict[str, None] = {}
        self._gated: deque[tuple[int, str | None, Any]] = deque()
        """(Position, node, message) or (position, None, reply): what waits for the disk."""
        self._outbox: dict[str, list[Any]] = {}
        self._reply_outbox: dict[str, list[Reply]] = {}
        self._encoded: tuple[list[Any], bytes] = ([], b"")
        """The messages that were encoded last, and their frame."""
        self._askers: dict[tuple[str, int], Asker] = {}
        self._sync_thread = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._commit_under_way: Future[None] | None = None
        self._disk_speed = DiskSpeed()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._logged_kinds: set[str] = set()
        # What could not be told yet: at the start, or without a broker.
        self._untold: deque[bytes] = deque(maxlen=_MAX_UNTOLD)
        self._boot = f"{settings.node}.{time.time_ns():x}"
        self._anonymous = 0
        self._shown_ready = True  # by whoever ran before; not true any more, and so taken back
        self._show_ready(False)

        self._messages_per_frame = _MAX_MESSAGES_PER_FRAME if settings.coalesce else 1
        self._messages: Codec[Any] = Codec(replica_type.MESSAGES or (Request,))
        self._requests = requests_codec()
        self._replies = replies_codec()
        self._inbox_prefix = self.topics.inbox("").split("+")[0]
        self._request_topic = self.topics.request(settings.node)
        self._connect()
        self._sent, self._heard = (dict.fromkeys(self._links, 0) for _ in range(2))
        self._injector = Injector(
            self.env, self._loop.call_later, self._send_past, self._add, self._on_injected
        )
        for number, injected in settings.injected.items():
            self._injector.inject(number, injected)

    # --- life ---

    def _connect(self) -> None:
        settings = self.settings
        login: dict[str, Any] = {
            "username": settings.username,
            "password": settings.password,
            "tls_context": broker_tls(settings.tls_ca),
            "mqtt_version": settings.mqtt_version,
        }

        def connection(name: str, host: str, port: int, **options: Any) -> Connection:
            return Connection(host, port, f"{settings.cluster}-{name}", **login, **options)

        node = settings.node
        self._links = {
            peer: connection(f"{node}-to-{peer}", end.host, end.port)
            for peer, end in settings.links.items()
            if peer != node
        }
        self._reply_links = {
            group: connection(f"{node}-replies-{group}", end.host, end.port)
            for group, end in settings.reply_links.items()
        }
        broker = settings.broker
        self._inbox = connection(
            f"{node}-inbox",
            broker.host,
            broker.port,
            # The requests' filter takes the topic itself too, and those that say who asks.
            topics=(
                self.topics.inbox(node),
                f"{self._request_topic}/#",
            ),
            on_message=self._on_incoming,
            keepalive_s=10,
        )
        # What the node tells of itself, and how it is told: no fault takes that away.
        self._control = connection(
            f"{node}-control",
            broker.host,
            broker.port,
            topics=(self.topics.control(node),),
            on_message=lambda incoming: self._on_control(incoming.payload),
            keepalive_s=10,
        )

    async def run(self) -> None:
        """Serve until cancelled, or until something fails that a node must not survive."""
        tasks = [self._loop.create_task(coroutine) for coroutine in self._coroutines()]
        try:
            self._mark("started", {"protocol": self.protocol.name, "log": self.disk.last_index})
            self._take_writes()
            self._collect()
            done, _ = await asyncio.wait(
                [*tasks, self._stopped], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._sync_thread.shutdown(wait=True)
            self.log.close()

    def _coroutines(self) -> list[Coroutine[Any, Any, None]]:
        connections = [self._control, *self._connections()]
        return [*(connection.run() for connection in connections), self._tell_status()]

    def _connections(self) -> list[Connection]:
        """Those that serve: requests, replies, and the other nodes."""
        return [self._inbox, *self._links.values(), *self._reply_links.values()]

    def _on_injected(self) -> None:
        """Something that the node does wrong on purpose has begun or ended."""
        for connection in self._connections():
            if self._injector.disconnected:
                connection.block()
            else:
                connection.unblock()
        for dst, link in self._links.items():
            link.qos = self._injector.qos(dst)

    def _fail(self, error: BaseException) -> None:
        if not self._stopped.done():
            self._stopped.set_exception(error)

    # --- inputs ---

    def feed(self, item: Input) -> None:
        """Give the replica an input, in one of the next turns."""
        self._inputs.append(item)
        self._schedule_turn()

    def _schedule_turn(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._deferred = 0
            self._seen_inputs = len(self._inputs)
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if len(self._inputs) > self._seen_inputs and self._deferred < _MAX_DEFER:
            self._seen_inputs = len(self._inputs)
            self._deferred += 1
            self._loop.call_soon(self._turn)
            return
        self._turn_scheduled = False
        inputs, self._inputs = self._inputs, []
        try:
            # Timers first, each in a step of its own: what came after a timer fired, or another
            # timer, may replace or cancel it, and then it must not reach the replica.
            while self._fired:
                name = next(iter(self._fired))
                del self._fired[name]
                self._step([Timer(name)])
            for batch in [inputs] if self.settings.coalesce else [[each] for each in inputs]:
                if batch:
                    self._step(batch)
        except BaseException as error:
            self._fail(error)

    def _step(self, batch: list[Input]) -> None:
        """Let the replica take a batch, and carry out what follows from it. A batch from outside
        that it cannot take is dropped (duty 6 of `nodes.contract.replica`)."""
        try:
            self.replica.step(batch)
            self._take_writes()
        except Exception as error:
            outside = any(isinstance(item, Message | Request) for item in batch)
            if isinstance(error, AssertionError) or not outside:
                raise
            self._rebuild(error, len(batch))
        self._collect()

    def _take_writes(self) -> None:
        writes = self.disk.take()
        if writes:
            self.log.append(writes)

    def _rebuild(self, error: Exception, dropped: int) -> None:
        """The replica has left a step half-way: throw away what it did in it, and build it anew
        from the disk, as after a crash. Clients that wait are told that nobody knows."""
        log.error("step abandoned", inputs=dropped, exc_info=error)
        self._add("bad_steps")
        self._add("inputs_dropped", dropped)
        try:
            if self._commit_under_way is not None:
                self._commit_under_way.result()  # Waits; the loop has nothing better to do.
            self._injector.commit(self.log.commit, self.log.take())
        except OSError as failed:
            raise DiskFailed(f"{self.settings.data_dir}: {failed}") from None
        self.log.close()
        self.disk = Disk.replay(self.log.open())
        self.durable = self.disk.position
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        self._fired.clear()
        self._gated.clear()
        askers, self._askers = self._askers, {}
        for (client, sequence), asker in askers.items():
            reply = Reply(client, sequence, "info", error="the node had to start its replica again")
            self._send_reply(asker, reply)
        self.replica = self.protocol.replica(self._config, self.env, self.disk)
        self._take_writes()
        self._mark("rebuilt", {"error": f"{type(error).__name__}: {error}"[:200]})

    def _on_incoming(self, incoming: Incoming) -> None:
        topic = incoming.topic
        if topic.startswith(self._inbox_prefix):
            self._on_frame(topic, incoming.payload)
        else:
            self._on_request(incoming)

    def _on_frame(self, topic: str, payload: bytes) -> None:
        src = topic[len(self._inbox_prefix) :].split("/", 1)[0]
        if src not in self._links:
            self._count("bad_frame_sender", f"{src!r} is not a node of this cluster")
            return
        try:
            messages = self._messages.decode(payload)
        except BadFrame as error:
            self._count(f"bad_frame_{error.kind}", f"from {src}: {error}")
            return
        self._heard[src] += len(messages)
        self._inputs += [Message(src, message) for message in messages]
        self._schedule_turn()

    def _on_request(self, incoming: Incoming) -> None:
        topic = incoming.response_topic
        asker_path = incoming.topic[len(self._request_topic) + 1 :]
        if asker_path.count("/") == 1:
            # The topic says who asks, and the broker who may use it: nobody else gets the answer.
            topic = self.topics.reply(*asker_path.split("/"))
        if topic is None:
            self._count("request_without_response_topic", "a request says where to reply (MQTT 5)")
            return
        if not self.topics.is_reply(topic, self._reply_links):
            self._count("bad_response_topic", f"{topic[:80]!r} is no topic for replies")
            return
        if is_frame(incoming.payload):
            try:
                requests = self._requests.decode(incoming.payload)
            except BadFrame as error:
                self._count(f"bad_request_{error.kind}", str(error))
                return
            asker = Asker(topic, None, json=False)
            for request in requests:
                self._take_request(request, asker)
            return
        asker = Asker(topic, incoming.correlation, json=True)
        self._anonymous += 1
        try:
            request = decode_json_request(incoming.payload, self._boot, self._anonymous)
        except ValueError as error:
            self._count("bad_request_json", str(error))
            self._send_reply(asker, Reply("", 0, "fail", error=str(error)))
            return
        if request.client == self._boot:
            # Nobody can send this again, so the replicas need not remember it for long.
            request = msgspec.structs.replace(request, acked=max(0, self._anonymous - 1024))
        self._take_request(request, asker)

    def _take_request(self, request: Request, asker: Asker) -> None:
        op = request.operation.op
        problem = None
        if op not in self.protocol.operations:
            offers = ", ".join(self.protocol.operations)
            problem = f"unsupported: {self.protocol.name} offers {offers}, not {op}"
        elif len(self._askers) >= _MAX_OPEN_REQUESTS:
            problem = f"overloaded: {_MAX_OPEN_REQUESTS} requests are open at this node"
        else:
            try:
                check_request(request)
            except ValueError as error:
                problem = str(error)
        if problem is not None:
            reply = Reply(request.client, request.sequence, "fail", error=problem)
            self._send_reply(asker, reply)
            self._flush()
            return
        self._askers[request.client, request.sequence] = asker
        self.feed(request)

    def _on_control(self, payload: bytes) -> None:
        try:
            command = msgspec.json.decode(payload, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._count("bad_control", str(error))
            return
        if command.get("cmd") == "digest":
            self._tell("digest", details=self._digest())
        elif command.get("cmd") == "admin":
            try:
                message = self._admin_message(command.get("message"))
            except ValueError as error:
                self._count("bad_control", str(error))
                return
            self.feed(Message(self.settings.node, message))
        elif command.get("cmd") == "inject":
            try:
                injected = msgspec.convert(command.get("injected"), Injected)
            except msgspec.ValidationError as error:
                self._count("bad_control", str(error))
                return
            self._injector.inject(str(command.get("number")), injected)
            self._mark("injected", {"number": command.get("number")})
        elif command.get("cmd") == "withdraw":
            self._injector.withdraw(str(command.get("number")))
            self._mark("withdrawn", {"number": command.get("number")})
        else:
            self._count("bad_control", f"unknown command {str(command.get('cmd'))[:40]!r}")

    def _admin_message(self, given: Any) -> Any:
        """A message of the protocol, given as JSON: ``type`` and all its fields by name. Raises
        ValueError."""
        fields = dict(given) if isinstance(given, dict) else {}
        name = fields.pop("type", None)
        types = {kind.__name__: kind for kind in self.replica.MESSAGES}
        kind = types.get(name) if isinstance(name, str) else None
        if kind is None:
            raise ValueError(f"{self.protocol.name} has no message {str(name)[:40]!r}")
        if fields.keys() != set(kind.__struct_fields__):
            raise ValueError(f"a {name} has {', '.join(kind.__struct_fields__)}")
        values = [fields[field] for field in kind.__struct_fields__]
        return msgspec.convert([name, *values], kind)  # Its ValidationError is a ValueError.

    # --- effects ---

    def _collect(self) -> None:
        """Carry out what the last step left in the replica's `out`."""
        out = self.replica.out
        for name, delay_s in out.timers:
            self._fired.pop(name, None)
            handle = self._timers.pop(name, None)
            if handle is not None:
                handle.cancel()
            if delay_s is not None:
                self._timers[name] = self._loop.call_later(
                    delay_s / self.env.rate, self._on_timer, name
                )
        for send in out.sends:
            if send.position <= self.durable:
                self._send(send.dst, send.msg)
            else:
                self._gated.append((send.position, send.dst, send.msg))
        for position, reply in out.replies:
            if position <= self.durable:
                self._answer(reply)
            else:
                self._gated.append((position, None, reply))
        for name, details in out.marks:
            self._mark(name, details)
        for why in out.refused:
            self._count("bad_messages", why)
        out.refused.clear()
        out.timers.clear()
        out.sends.clear()
        out.replies.clear()
        out.marks.clear()
        if self.log.pending and self._commit_under_way is None:
            if self._is_quickly_committed():
                # What need not wait leaves first.
                self._flush()
                self._commit_here()
            else:
                self._commit()
        self._flush()

    def _on_timer(self, name: str) -> None:
        self._timers.pop(name, None)
        self._fired[name] = None
        self._schedule_turn()

    def _is_quickly_committed(self) -> bool:
        """Whether the loop may wait for the disk; see `nodes.runtime.disk_speed`."""
        return (
            self._disk_speed.is_quick
            and self.disk.position - self.durable <= FEW_WRITES
            and not self._inputs
            and self._injector.idle
            and not self.log.is_outgrown
        )

    def _commit_here(self) -> None:
        position = self.disk.position
        try:
            self.log.commit(self.log.take())
        except OSError as error:
            self._fail_disk(error)
            return
        self._disk_speed.note(self.log.last_commit_ns / 1e9, position - self.durable)
        self._on_durable(position)

    def _commit(self) -> None:
        self.log.maybe_rewrite(self.disk)
        position, disk = self.disk.position, self.disk
        commit = self._commit_under_way = self._sync_thread.submit(
            self._injector.commit, self.log.commit, self.log.take()
        )
        future = asyncio.wrap_future(commit, loop=self._loop)
        future.add_done_callback(lambda done: self._on_committed(disk, position, done))

    def _on_committed(self, disk: Disk, position: int, done: asyncio.Future[None]) -> None:
        self._commit_under_way = None
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._fail_disk(error)
            return
        self._disk_speed.note(self.log.last_commit_ns / 1e9, position - self.durable)
        if disk is not self.disk:
            # Of the time before `_rebuild`, which has read it back.
            if self.log.pending:
                self._commit()
            return
        self._on_durable(position)
        if self.log.pending:
            self._commit()

    def _fail_disk(self, error: BaseException) -> None:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        self._fail(DiskFailed(f"{self.settings.data_dir}/log: {reason}"))

    def _on_durable(self, position: int) -> None:
        """Let go what waited for the writes up to ``position``."""
        self.durable = position
        gated = self._gated
        # Sends and replies are in one queue in the order of `_collect`; within a step sends come
        # first, so a reply of an earlier position may wait behind a send of a later one. All of
        # them belong to one commit, or the later one waits for its own.
        while gated and gated[0][0] <= position:
            _, dst, message = gated.popleft()
            if dst is None:
                self._answer(message)
            else:
                self._send(dst, message)
        self._flush()
        self.feed(Durable(position))

    def _send(self, dst: str, message: Any) -> None:
        if dst == self.settings.node:
            self.feed(Message(dst, message))
        elif dst not in self._links:
            self._count("sent_to_nobody", f"{type(message).__name__} for {dst!r}")
        else:
            self._outbox.setdefault(dst, []).append(message)

    def _answer(self, reply: Reply) -> None:
        asker = self._askers.pop((reply.client, reply.sequence), None)
        if asker is None:
            self._add("replies_without_asker")
        else:
            self._send_reply(asker, reply)

    def _send_reply(self, asker: Asker, reply: Reply) -> None:
        if asker.json:
            body = encode_json_reply(reply)
            self._reply_connection(asker.topic).publish(
                asker.topic, body, response_properties(asker.correlation)
            )
        else:
            self._reply_outbox.setdefault(asker.topic, []).append(reply)

    def _reply_connection(self, topic: str) -> Connection:
        prefix = self.topics.reply("", "").rstrip("/") + "/"
        if topic.startswith(prefix):
            group = topic[len(prefix) :].split("/", 1)[0]
            return self._reply_links.get(group, self._inbox)
        return self._inbox

    def _flush(self) -> None:
        """One PUBLISH to each destination that has messages waiting."""
        if self._outbox:
            outbox, self._outbox = self._outbox, {}
            for dst, messages in outbox.items():
                if self._injector.of_messages:
                    messages = self._injector.messages(dst, messages)
                self._send_to(dst, messages)
        if self._reply_outbox:
            replies, self._reply_outbox = self._reply_outbox, {}
            leader = self.replica.leader
            for topic, answers in replies.items():
                if leader is not None:
                    answers[-1] = msgspec.structs.replace(answers[-1], leader=leader)
                self._publish(self._reply_connection(topic), topic, self._replies, answers)

    def _send_past(self, dst: str, message: Any) -> None:
        """What was held back on purpose leaves on its own."""
        self._send_to(dst, [message])

    def _send_to(self, dst: str, messages: list[Any]) -> None:
        if not messages:  # All of them were lost or held back on purpose.
            return
        topic = self.topics.link(self.settings.node, dst)
        self._publish(self._links[dst], topic, self._messages, messages)
        self._add("messages_sent", len(messages))
        self._sent[dst] += len(messages)

    def _publish(
        self, connection: Connection, topic: str, codec: Codec[Any], messages: list[Any]
    ) -> None:
        size = self._messages_per_frame
        if len(messages) <= size:
            self._publish_frames(connection, topic, codec, messages)
            return
        for start in range(0, len(messages), size):
            self._publish_frames(connection, topic, codec, messages[start : start + size])

    def _publish_frames(
        self, connection: Connection, topic: str, codec: Codec[Any], messages: list[Any]
    ) -> None:
        """One frame, or as few halves of it as the receiver takes."""
        try:
            frame = self._encode(codec, messages)
        except (OverflowError, TypeError, ValueError) as error:
            if len(messages) == 1:
                self._count("not_to_be_encoded", f"{type(messages[0]).__name__}: {error}")
                return
            frame = b""
        if frame and len(frame) <= MAX_FRAME_BYTES:
            if self._injector.of_messages and codec is self._messages:
                frame = self._injector.frame(topic.rsplit("/", 1)[1], frame)
            if connection.publish(topic, frame):
                self._add("frames_sent")
                self._add("bytes_sent", len(frame))
        elif len(messages) == 1:
            kind = type(messages[0]).__name__
            self._count("too_large_to_send", f"{kind} of {len(frame)} bytes for {topic}")
        else:
            middle = len(messages) // 2
            self._publish_frames(connection, topic, codec, messages[:middle])
            self._publish_frames(connection, topic, codec, messages[middle:])

    def _encode(self, codec: Codec[Any], messages: list[Any]) -> bytes:
        """What goes to several nodes, one after the other, is encoded once."""
        last, frame = self._encoded
        if len(last) != len(messages) or not all(map(operator.is_, last, messages)):
            frame = codec.encode(messages)
            self._encoded = messages, frame
        return frame

    # --- what the node tells of itself ---

    async def _tell_status(self) -> None:
        await self._control.up.wait()
        while True:
            probe = self.replica.probe()
            told = {"sent": self._sent, "heard": self._heard}
            self._tell("status", probe=probe, counters=self._all_counters(), **told)
            self._show_ready(bool(probe["ready"]))
            await asyncio.sleep(self.settings.status_every_s)

    def _show_ready(self, ready: bool) -> None:
        if self.settings.ready_file is not None and ready != self._shown_ready:
            self._shown_ready = ready
            path = Path(self.settings.ready_file)
            if ready:
                path.touch()
            else:
                path.unlink(missing_ok=True)

    def _mark(self, name: str, details: dict[str, Any]) -> None:
        log.info(name, **details)
        self._tell("event", name=name, details=details)

    def _tell(self, kind: str, **fields: Any) -> None:
        body = {"t_ns": time.monotonic_ns(), "node": self.settings.node, "kind": kind, **fields}
        self._untold.append(msgspec.json.encode(body))
        if self._control.up.is_set():
            topic = self.topics.status(self.settings.node)
            while self._untold:
                self._control.publish(topic, self._untold.popleft())

    def _digest(self) -> dict[str, Any]:
        """A hash of each part of what this replica holds: equal on all replicas that have the part,
        once they have converged."""
        parts = self.replica.parts()
        return {"digests": {name: part_digest(part) for name, part in parts.items()}}

    def _all_counters(self) -> dict[str, int]:
        connections = self._connections()
        return {
            **self.counters,
            "link_connects": sum(link.connects for link in connections),
            "links_down": sum(not link.up.is_set() for link in connections),
            "frames_dropped": sum(link.dropped for link in connections),
            "bad_retained": sum(each.retained for each in (self._control, *connections)),
            "log_bytes_written": self.log.written_bytes,
            "log_commits": self.log.commits,
            "log_commit_us": self.log.commit_ns // 1000,
            "requests_open": len(self._askers),
            "cpu_us": time.process_time_ns() // 1000,
            "memory_peak_kb": peak_kb(),
        }

    def _add(self, counter: str, amount: int = 1) -> None:
        self.counters[counter] = self.counters.get(counter, 0) + amount

    def _count(self, kind: str, detail: str) -> None:
        """Count something that should not have come, and log the first of its kind."""
        self._add(kind)
        if kind not in self._logged_kinds:
            self._logged_kinds.add(kind)
            log.warning("refused", kind=kind, detail=detail, note="logged once, counted always")
