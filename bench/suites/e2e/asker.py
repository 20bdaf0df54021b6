"""An asyncio client of a live cluster: ask a node, await its answer."""

from __future__ import annotations

import asyncio
import uuid
from types import TracebackType

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.record.cluster_file import ClusterFile
from nodes.contract.replica import Operation, Reply, Request
from nodes.runtime.mqtt import Connection
from nodes.wire.codec import replies_codec, requests_codec
from nodes.wire.packets import Incoming
from nodes.wire.topics import Topics

TIMEOUT_S = 10.0


class Asker:
    """Asks ``node`` of a cluster that accepts anonymous clients. Use it as an asynchronous context
    manager."""

    def __init__(self, cluster: ClusterFile, node: str) -> None:
        self._name = f"bench-{uuid.uuid4().hex[:8]}"
        topics = Topics(cluster.cluster)
        reply_topic = topics.reply(cluster.group, self._name)
        self._topic = topics.request(node)
        self._properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        self._properties.ResponseTopic = reply_topic
        self._encode, self._decode = requests_codec().encode, replies_codec().decode
        self._open: dict[int, asyncio.Future[Reply]] = {}
        self._sequence = 0
        broker, link = cluster.broker, cluster.request_links[node]
        self._connections = (
            Connection(
                *(broker.host, broker.port, f"{self._name}-inbox"),
                topics=[reply_topic],
                on_message=self._on_message,
            ),
            Connection(link.host, link.port, f"{self._name}-link"),
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Asker:
        """Raises TimeoutError without a connection."""
        self._tasks = [asyncio.create_task(each.run()) for each in self._connections]
        for each in self._connections:
            await asyncio.wait_for(each.up.wait(), TIMEOUT_S)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ask(self, operations: list[Operation]) -> list[Reply]:
        """Send the operations in one PUBLISH and await all answers. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        requests, answers = [], []
        oldest = min(self._open, default=self._sequence)
        for operation in operations:
            requests.append(Request(self._name, self._sequence, operation, oldest))
            self._open[self._sequence] = answer = loop.create_future()
            answers.append(answer)
            self._sequence += 1
        self._connections[1].publish(self._topic, self._encode(requests), self._properties)
        async with asyncio.timeout(TIMEOUT_S):
            return list(await asyncio.gather(*answers))

    def _on_message(self, incoming: Incoming) -> None:
        for reply in self._decode(incoming.payload):
            answer = self._open.pop(reply.sequence, None)
            if answer is not None and not answer.done():
                answer.set_result(reply)
