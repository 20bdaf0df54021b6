"""Requests that come again at rest, and what else comes seldom: each question finds its mistake,
and nothing in what is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nodes.contract.pace import Pace
from nodes.contract.replica import InvariantBroken, Operation, Reply, Request, Scene
from nodes.parts.claims import RefusalsStay
from nodes.parts.forwarding import Forward
from nodes.protocols.gossip import Gossip
from nodes.protocols.raft import Entry
from nodes.registry import get
from nodes.simulator.bugs.rare import (
    AsksThoughItIsEnough,
    FloorOfTheLastRequest,
    LateCopyElsewhere,
    SupersededIsWrittenAgain,
    VoidResultKept,
)
from nodes.simulator.cluster import Cluster
from nodes.simulator.oracles import repeats, rest
from nodes.simulator.oracles.repeats import (
    is_known_elsewhere,
    survives_the_middle,
    takes_effect_once,
)
from nodes.simulator.oracles.stage import Stage as Interface
from nodes.simulator.oracles.traffic import Traffic
from nodes.simulator.simulate import UNEVEN_NODES, draw_setup, simulate
from tests.simulator.test_oracles import Stage


@pytest.mark.parametrize(
    ("name", "broken", "question"),
    [
        ("quorum", FloorOfTheLastRequest, takes_effect_once),
        ("quorum-placed", LateCopyElsewhere, takes_effect_once),
        ("quorum", SupersededIsWrittenAgain, is_known_elsewhere),
    ],
)
def test_a_late_copy_changes_nothing(
    name: str, broken: Any, question: Callable[[Interface, Pace], bool]
) -> None:
    placed = {"replication_factor": 2} if name == "quorum-placed" else {}
    sound, mistaken = Stage(name, **placed), Stage(name, broken, **placed)
    assert question(sound, sound.pace), sound.alarms
    assert not question(mistaken, mistaken.pace)
    assert [check for check, _ in mistaken.alarms] == ["answers"]


@pytest.mark.parametrize("name", ["gossip", "gossip-lww", "quorum-weak"])
def test_all_that_promise_it_keep_it(name: str) -> None:
    stage = Stage(name)
    assert takes_effect_once(stage, stage.pace), stage.alarms
    assert is_known_elsewhere(stage, stage.pace), stage.alarms
    assert survives_the_middle(stage, stage.pace), stage.alarms


def test_a_node_that_dies_in_the_middle_of_a_write_tells_what_is_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeats, "_TORN", (0.34,))  # The result survives, and its effect does not.
    stage = Stage("gossip", VoidResultKept)
    with pytest.raises(InvariantBroken, match="on disk"):
        survives_the_middle(stage, stage.pace)


def test_who_is_a_quorum_alone_asks_nobody() -> None:
    for replica, expected in ((None, []), (AsksThoughItIsEnough, ["messages", "messages"])):
        stage = Stage("quorum-weak", replica)
        with Traffic(stage.cluster, stage.pace.bare) as traffic:
            assert stage.ask("prompt", ["n1", "n2", "n3"], 1.0, "prompt")
        found = [check for check, _ in rest.chatter(traffic, stage.pace, 3, 3)]
        assert found[:2] == expected


def test_copies_that_are_said_to_agree_were_seen_to_agree() -> None:
    def probe(self: Gossip) -> dict[str, Any]:
        return {**Gossip.probe(self), "replication_ratio": 0.5}

    Stage("gossip").cluster.run(10.0)
    with pytest.raises(InvariantBroken, match=r"is 0\.5"):
        Stage("gossip", type("Boaster", (Gossip,), {"probe": probe})).cluster.run(10.0)


def test_quorums_of_two_and_three_are_of_four_nodes() -> None:
    quorum = get("quorum")
    seed = next(s for s in range(1, 99) if "read_quorum" in draw_setup(quorum, s).parameters)
    result = simulate(quorum, seed)
    assert result.nodes == UNEVEN_NODES
    assert not result.alarms


def test_what_was_proposed_is_not_refused() -> None:
    cluster = Cluster(get("raft"), nodes=3)
    configs = {node: host.config for node, host in cluster.hosts.items()}
    disks = {node: host.storage.synced for node, host in cluster.hosts.items()}
    request = Request("c", 3, Operation("write", "k", "v"))
    refusal = Reply("c", 3, "fail", error="no leader")

    def refuse(*copies: str, handed: bool = False) -> None:
        claim = RefusalsStay()
        claim.begin(Scene(configs, disks))
        for node in copies:
            claim.on_request(node, "", request)
        if handed:
            claim.on_forward("n1", "n2", Forward((request,)))
        claim.on_reply("n1", request, refusal)

    with pytest.raises(InvariantBroken, match="will not remember"):
        refuse("n1")
    disks["n1"].put("refused/c/3", True)
    refuse("n1")
    with pytest.raises(InvariantBroken, match="handed to n2"):
        refuse("n1", handed=True)
    disks["n1"].append(Entry(1))
    refuse("n1")
    disks["n1"].append(Entry(1, request))
    refuse("n1", "n2")
    with pytest.raises(InvariantBroken, match="proposed: entry 2"):
        refuse("n1")
