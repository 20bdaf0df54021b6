"""How many messages a broker passes on: counted right, and said in one line if it passes none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from bench.measure.ceiling import NoMessages, messages_per_s
from bench.record.cluster_file import Address
from tests.bench.conftest import Broker

pytestmark = pytest.mark.live


def test_it_counts_what_another_subscriber_sees(own_broker: Broker) -> None:
    seen: list[int] = []
    all_seen, subscribed = threading.Event(), threading.Event()
    watcher = paho.Client(CallbackAPIVersion.VERSION2)

    def on_message(client: Any, data: Any, message: paho.MQTTMessage) -> None:
        seen.append(len(message.payload))

    watcher.on_message = on_message
    watcher.on_subscribe = lambda *_: subscribed.set()
    watcher.connect("127.0.0.1", own_broker.port)
    watcher.subscribe("capbench/ceiling", 0)
    watcher.loop_start()
    assert subscribed.wait(5)
    rate = messages_per_s(
        Address("127.0.0.1", own_broker.port), seconds=0.3, rounds=1, message_bytes=64
    )
    all_seen.wait(1)
    watcher.disconnect()
    watcher.loop_stop()
    # The round takes longer than 0.3 s by what is on its way at its end.
    assert set(seen) == {64}
    assert 0.3 * rate <= len(seen) <= 1.0 * rate


def test_a_broker_that_refuses_is_named(start_broker: Callable[[str], Broker]) -> None:
    port = start_broker("allow_anonymous false").port
    with pytest.raises(NoMessages, match=f"127.0.0.1:{port} refuses an anonymous client"):
        messages_per_s(Address("127.0.0.1", port))
