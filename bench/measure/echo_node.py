"""Nodes that answer every request at once and store nothing, to measure the load generator.

    python -m bench.measure.echo_node --port 1883 --cluster demo --nodes n1,n2,n3

Options let it lose or refuse one in so many requests, stall once before a certain answer, and say
that a node leads. It prints ``ready`` once it is subscribed.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from nodes.contract.replica import Reply, Request
from nodes.wire.codec import replies_codec, requests_codec
from nodes.wire.subscription import NOTHING_RETAINED
from nodes.wire.topics import Topics


def answer(request: Request) -> Reply:
    """The reply of a replica that stores nothing."""
    operation = request.operation
    return Reply(
        request.client,
        request.sequence,
        "ok",
        value=operation.value if operation.op != "read" else None,
        applied=True if operation.op == "cas" else None,
    )


class Behaviour:
    """How the nodes behave. ``stall_at``, ``stall_s``: stall for so long, once, before answering
    this request (the first is 1). ``lose``: one in so many requests is not answered (0: none);
    ``fail``: one in so many is refused."""

    def __init__(self, stall_at: int, stall_s: float, lose: int, fail: int) -> None:
        self.stall_at, self.stall_s, self.lose, self.fail = stall_at, stall_s, lose, fail
        self.requests = 0

    def __call__(self, request: Request) -> Reply | None:
        self.requests += 1
        if self.requests == self.stall_at:
            time.sleep(self.stall_s)
        if self.lose and self.requests % self.lose == 0:
            return None
        if self.fail and self.requests % self.fail == 0:
            return Reply(request.client, request.sequence, "fail", error="told to")
        return answer(request)


def main() -> None:
    """Answer until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--nodes", required=True)
    parser.add_argument("--stall-at", type=int, default=0)
    parser.add_argument("--stall-s", type=float, default=0.0)
    parser.add_argument("--lose", type=int, default=0)
    parser.add_argument("--fail", type=int, default=0)
    parser.add_argument("--leader", help="the node that replies say leads")
    options = parser.parse_args()
    behave = Behaviour(options.stall_at, options.stall_s, options.lose, options.fail)
    topics = Topics(options.cluster)
    decode, encode = requests_codec().decode, replies_codec().encode
    nodes = options.nodes.split(",")

    def on_message(client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        if message.retain:
            return
        replies = [
            reply for r in decode(bytes(message.payload)) if (reply := behave(r)) is not None
        ]
        if replies:
            if options.leader is not None:
                replies[-1] = msgspec.structs.replace(replies[-1], leader=options.leader)
            assert message.properties is not None
            # paho sets the properties of a message as attributes.
            client.publish(vars(message.properties)["ResponseTopic"], encode(replies))

    def on_subscribe(*ignored: Any) -> None:
        print("ready", flush=True)

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_message = on_message
    client.on_subscribe = on_subscribe
    client.connect("127.0.0.1", options.port)
    client.subscribe([(topics.request(node), NOTHING_RETAINED) for node in nodes])
    client.loop_forever()


if __name__ == "__main__":
    main()
