"""Where a node may publish an answer."""

from __future__ import annotations

import pytest

from nodes.wire.topics import Topics

TOPICS = Topics("demo")


@pytest.mark.parametrize("topic", ["reply/me", "reply/a/b/c", "capbench/demo/rep/load/c1"])
def test_replies_go_to_reply_topics(topic: str) -> None:
    assert TOPICS.is_reply(topic)
    assert TOPICS.is_reply(topic, ["load"])


@pytest.mark.parametrize(
    "topic",
    [
        *(TOPICS.link("n1", "n2"), TOPICS.request("n1"), TOPICS.control("n1"), TOPICS.status("n1")),
        *("capbench/other/net/n1/n2", "capbench/other/rep/load/c1", "capbench/demo/faults"),
        *("capbench/demo/rep", "capbench/demo/rep/load", "capbench/demo/rep/load/c1/more"),
        *("capbench/demo/rep//c1", "capbench/demo/rep/load/", "capbench/demo/rep/load/#"),
        *("$SYS/broker", "$share/x/reply/me", "reply", "reply/", "reply//me", "reply/+", "reply/#"),
        *(
            "/reply/me",
            "replies/me",
            "Reply/me",
            "reply/\0",
            "",
            "house/door",
            "reply/" + "x" * 1024,
        ),
        *(None, 7, b"reply/me"),
    ],
)
def test_nothing_else_is_one(topic: object) -> None:
    assert not TOPICS.is_reply(topic)


def test_a_reply_goes_to_a_group_that_there_is() -> None:
    assert not TOPICS.is_reply("capbench/demo/rep/others/c1", ["load"])
