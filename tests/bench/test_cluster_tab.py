"""The tab of Locust's page: what it makes of what it hears. (Browser and cluster:
`tests/live/test_load.py`.)"""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest

from bench.load.cluster_tab import MOST_ENDED, ClusterWatch
from bench.record.cluster_file import Address, ClusterFile, FaultOn
from nodes.wire.topics import Topics

TOPICS = Topics("demo")


@pytest.fixture
def watch() -> ClusterWatch:
    here = Address(host="127.0.0.1", port=1)
    cluster = ClusterFile(
        cluster="demo",
        protocol="raft",
        nodes=["n1", "n2"],
        operations=["read"],
        broker=here,
        group="clients",
        request_links={"n1": here, "n2": here},
    )
    watch = ClusterWatch(cluster)
    watch._up = True
    return watch


def status(node: str, **probe: Any) -> bytes:
    return msgspec.json.encode({"t_ns": 1, "node": node, "kind": "status", "probe": probe})


def table(watch: ClusterWatch) -> list[tuple[str, str, str]]:
    """Without the commands, which are last."""
    rows = [(row["name"], row["state"], row["details"]) for row in watch.rows()]
    return [row for row in rows if row[1] != "in a terminal"]


def test_what_to_type_is_shown_and_how_to_heal_only_while_a_fault_is_on(
    watch: ClusterWatch,
) -> None:
    inject = ("to inject a fault", "capbench inject partition groups=leader-alone --name demo")
    heal = ("to heal all faults", "capbench heal --name demo")

    def typed() -> list[tuple[str, str]]:
        rows = watch.rows()
        return [(row["name"], row["details"]) for row in rows if row["state"] == "in a terminal"]

    assert typed() == [inject]
    on = FaultOn(what="0: crash (n1)", since="10:00:00 UTC")
    watch.hear(TOPICS.faults, msgspec.json.encode([on]))
    assert typed() == [heal, inject]
    watch.hear(TOPICS.faults, b"[]")
    assert typed() == [inject]


def test_nodes_say_their_role_and_faults_come_and_go(watch: ClusterWatch) -> None:
    watch.hear(TOPICS.status("n1"), status("n1", role="leader", leader="n1", term=3, ready=True))
    partition = FaultOn(what="0: partition (n1 | n2)", since="10:00:00 UTC")
    watch.hear(TOPICS.faults, msgspec.json.encode([partition]))
    assert table(watch) == [
        ("n1", "leader", "leader n1, term 3"),
        ("n2", "not heard yet", ""),
        ("fault 0: partition (n1 | n2)", "on", "since 10:00:00 UTC"),
    ]
    again = FaultOn(what="0: partition (n1 | n2)", since="09:59:59 UTC")
    watch.hear(TOPICS.faults, msgspec.json.encode([again]))
    watch.hear(TOPICS.faults, msgspec.json.encode([partition]))
    watch.hear(TOPICS.status("n2"), status("n2", role="follower", leader="", ready=False))
    watch.hear(TOPICS.faults, b"[]")
    follower, (name, state, when) = table(watch)[1:]
    assert follower == ("n2", "follower", "does not serve now")
    assert (name, state) == ("fault 0: partition (n1 | n2)", "ended")
    assert re.fullmatch(r"10:00:00 UTC to \d\d:\d\d:\d\d UTC", when)


def test_only_the_last_faults_that_ended_are_listed_newest_first(watch: ClusterWatch) -> None:
    for number in range(MOST_ENDED + 5):
        on = FaultOn(what=f"{number}: crash (n1)", since="10:00:00 UTC")
        watch.hear(TOPICS.faults, msgspec.json.encode([on]))
    ended = [name for name, state, _ in table(watch) if state == "ended"]
    assert ended == [f"fault {n}: crash (n1)" for n in range(MOST_ENDED + 3, 3, -1)]


def test_who_is_silent_is_said_to_be(watch: ClusterWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch.hear(TOPICS.status("n1"), status("n1", role="leader", ready=True))
    now += 2.5
    assert table(watch)[0] == ("n1", "silent", "for 2 s")


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (TOPICS.faults, b"no JSON"),
        (TOPICS.faults, b'[{"what": 1}]'),
        (TOPICS.faults, b"[" + b" " * 1_000_000 + b"]"),
        (TOPICS.status("n1"), b'{"kind": "status"}'),
        (TOPICS.status("n9"), status("n9", role="leader")),
        (TOPICS.status("n1"), b'{"t_ns": 1, "node": "n1", "kind": "event", "name": "elected"}'),
    ],
)
def test_what_is_none_of_ours_changes_nothing(
    watch: ClusterWatch, topic: str, payload: bytes
) -> None:
    on = FaultOn(what="0: pause (n1)", since="10:00:00 UTC")
    watch.hear(TOPICS.faults, msgspec.json.encode([on]))
    before = table(watch)
    watch.hear(topic, payload)
    assert table(watch) == before


def test_a_broker_out_of_reach_is_said_first(watch: ClusterWatch) -> None:
    watch._disconnected()
    assert table(watch)[0] == ("broker", "out of reach", "127.0.0.1:1")
