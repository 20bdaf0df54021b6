"""What each fault chooses: who reaches whom, and that a seed repeats the choice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, get_args

import pytest

from chaos.clusters.capabilities import works_on
from nodes.faults import capabilities
from nodes.faults.base import Fault, Resolved
from nodes.faults.capabilities import CanKill, ShapesStreams
from nodes.faults.catalogue import FAULTS, SHAPES, AnyFault, Partition
from nodes.faults.link_faults import LinkFaults
from nodes.faults.links import Latency, RequestsLost
from nodes.faults.processes import Crash


class Cluster(LinkFaults):
    """The links' bookkeeping without a network below it, and the set of nodes that are up."""

    def __init__(self, count: int, leader: str | None = None) -> None:
        self.nodes = tuple(f"n{i}" for i in range(1, count + 1))
        super().__init__((src, dst) for src in self.nodes for dst in self.nodes if src != dst)
        self.up = set(self.nodes)
        self._leader = leader

    def apply(self, links: Sequence[tuple[str, str]]) -> None:
        """Nothing is below."""

    def leader(self) -> str | None:
        return self._leader

    def crash(self, node: str) -> None:
        self.up.discard(node)

    def restart(self, node: str) -> None:
        assert node not in self.up
        self.up.add(node)


class Context(capabilities.Cluster, CanKill, ShapesStreams):
    """A cluster that is bookkeeping only."""

    links: Cluster

    def __init__(self, count: int, leader: str | None = None) -> None:
        self.links = Cluster(count, leader)
        self.nodes = self.links.nodes

    def leader(self) -> str | None:
        return self.links.leader()

    def crash(self, node: str) -> None:
        self.links.crash(node)

    def restart(self, node: str) -> None:
        self.links.restart(node)

    def hears(self, node: str) -> set[str]:
        """Whose messages the node gets, its own included."""
        return {src for src in self.nodes if src == node or not self.links.wanted((src, node)).cut}


def applied(context: Context, fault: Fault, seed: int = 1) -> Resolved:
    resolved = fault.resolve(context, random.Random(seed))
    fault.apply(context, resolved)
    return resolved


COUNTS = pytest.mark.parametrize("count", [3, 4, 5, 6, 7])


@COUNTS
def test_halves_are_a_majority_and_the_rest(count: int) -> None:
    context = Context(count)
    large, small = applied(context, Partition(groups="halves")).groups or ((), ())
    assert len(large) == count // 2 + 1
    assert {*large, *small} == set(context.nodes)
    for node in context.nodes:
        assert context.hears(node) == set(large if node in large else small)


@COUNTS
def test_the_leader_is_cut_off(count: int) -> None:
    context = Context(count, leader="n2")
    resolved = applied(context, Partition(groups="leader-alone"))
    assert resolved.groups == (("n2",), tuple(n for n in context.nodes if n != "n2"))
    assert resolved.chosen_by == "leader"
    assert context.hears("n2") == {"n2"}
    assert context.hears("n1") == set(context.nodes) - {"n2"}


def test_without_a_leader_the_seed_chooses() -> None:
    fault = Partition(groups="leader-alone")
    chosen = set()
    for seed in range(40):
        resolved = fault.resolve(Context(5), random.Random(seed))
        assert resolved == fault.resolve(Context(5), random.Random(seed))
        assert resolved.chosen_by == "seed"
        assert resolved.groups is not None
        chosen.add(resolved.groups[0])
    assert chosen == {(f"n{i}",) for i in range(1, 6)}


@COUNTS
def test_a_bridge_reaches_both_halves(count: int) -> None:
    context = Context(count)
    applied(context, Partition(groups="bridge", node="n3"))
    assert context.hears("n3") == set(context.nodes)
    sides = {frozenset(context.hears(node)) for node in context.nodes if node != "n3"}
    assert len(sides) == 2
    one, other = sides
    assert one & other == {"n3"}
    assert one | other == set(context.nodes)


@pytest.mark.parametrize("count", [4, 5, 6, 7, 9])
def test_in_the_ring_everyone_hears_a_majority_of_its_own(count: int) -> None:
    context = Context(count)
    applied(context, Partition(groups="majorities-ring"))
    heard = [frozenset(context.hears(node)) for node in context.nodes]
    assert len(set(heard)) == count
    assert all(count // 2 + 1 <= len(each) < count for each in heard)
    for node in context.nodes:
        assert all(node in context.hears(other) for other in context.hears(node))


@COUNTS
def test_one_way_mute_and_deaf_cut_one_direction(count: int) -> None:
    everyone = {f"n{i}" for i in range(1, count + 1)}
    context = Context(count)
    small = applied(context, Partition(groups="one-way")).nodes
    assert len(small) == count - (count // 2 + 1)
    for node in everyone:
        assert context.hears(node) == (set(small) if node in small else everyone)

    context = Context(count)
    applied(context, Partition(groups="mute", node="n1"))
    assert context.hears("n1") == everyone
    assert context.hears("n2") == everyone - {"n1"}

    context = Context(count, leader="n3")
    applied(context, Partition(groups="deaf", node="leader"))
    assert context.hears("n3") == {"n3"}
    assert context.hears("n1") == everyone


def test_a_partition_strikes_several_or_keeps_to_an_order() -> None:
    context = Context(5, leader="n4")
    resolved = applied(context, Partition(groups="mute", nodes=("leader", "n2")))
    assert resolved.nodes == ("n4", "n2")
    assert context.hears("n1") == {"n1", "n3", "n5"}
    assert context.hears("n2") == set(context.nodes)

    context = Context(4)
    applied(context, Partition(groups="chain", nodes=("n2", "n4", "n1", "n3")))
    assert [context.hears(node) for node in context.nodes] == [
        {"n4", "n1", "n3"},
        {"n2", "n4"},
        {"n1", "n3"},
        {"n2", "n4", "n1"},
    ]

    context = Context(3)
    applied(context, Partition(groups=(("n1",), ("n2",)), one_way=True))
    assert [context.hears(node) for node in context.nodes] == [
        {"n1", "n2", "n3"},
        {"n2", "n3"},
        {"n1", "n2", "n3"},
    ]


def test_an_end_of_a_link_may_be_the_leader_or_everybody() -> None:
    context = Context(3, leader="n2")
    resolved = applied(context, Latency(latency_ms=5, links=("leader->all", "n3->n1", "n2->n1")))
    assert set(resolved.links) == {("n2", "n1"), ("n2", "n3"), ("n3", "n1")}
    assert context.links.wanted(("n2", "n1")).latency_ms == 5, "named twice, slowed once"


@pytest.mark.parametrize(
    "fault",
    [
        Crash(nodes="all", torn=0.5),
        Partition(groups="halves", in_flight=False),
        RequestsLost(share=0.5),
    ],
)
def test_what_only_a_simulator_can_do_is_said_by_the_parameters(fault: Fault) -> None:
    assert works_on(fault.needs) == ["sim"]
    assert "local" in works_on(fault.NEEDS)


def test_named_groups_reach_their_own_only() -> None:
    context = Context(5)
    resolved = applied(context, Partition(groups=(("n1", "n4"), ("n2", "n3"), ("n5",))))
    assert resolved.groups == (("n1", "n4"), ("n2", "n3"), ("n5",))
    assert [context.hears(node) for node in context.nodes] == [
        {"n1", "n4"},
        {"n2", "n3"},
        {"n2", "n3"},
        {"n1", "n4"},
        {"n5"},
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_partition_heals_and_repeats(shape: Any) -> None:
    context = Context(5, leader="n1")
    fault = Partition(groups=shape)
    resolved = applied(context, fault, seed=3)
    assert resolved.links
    assert resolved == fault.resolve(Context(5, leader="n1"), random.Random(3))
    fault.undo(context, resolved)
    assert all(context.hears(node) == set(context.nodes) for node in context.nodes)


def test_latency_lies_on_the_links_that_were_named() -> None:
    context = Context(3)
    everywhere = Latency(latency_ms=50)
    resolved = applied(context, everywhere)
    assert {context.links.wanted(link).latency_ms for link in context.links.links} == {50}
    between = Latency(latency_ms=30, links=(("n1",), ("n2", "n3")))
    more = applied(context, between)
    found = {link: context.links.wanted(link).latency_ms for link in context.links.links}
    assert found == {
        ("n1", "n2"): 80,
        ("n1", "n3"): 80,
        ("n2", "n1"): 80,
        ("n3", "n1"): 80,
        ("n2", "n3"): 50,
        ("n3", "n2"): 50,
    }
    everywhere.undo(context, resolved)
    between.undo(context, more)
    assert {context.links.wanted(link).latency_ms for link in context.links.links} == {0}


@pytest.mark.parametrize(
    ("nodes", "count", "by"),
    [
        ("leader", 1, "leader"),
        ("random", 1, "seed"),
        ("majority", 3, "seed"),
        ("all", 5, "experiment"),
        (("n2", "n5"), 2, "experiment"),
        (("leader", "n4", "n5"), 2, "experiment"),
    ],
)
def test_a_crash_takes_whom_it_names(nodes: Any, count: int, by: str) -> None:
    context = Context(5, leader="n4")
    fault = Crash(nodes=nodes)
    resolved = applied(context, fault)
    assert len(resolved.nodes) == count
    assert resolved.chosen_by == by
    assert context.links.up == set(context.nodes) - set(resolved.nodes)
    if nodes == "leader":
        assert resolved.nodes == ("n4",)
    fault.undo(context, resolved)
    assert context.links.up == set(context.nodes)


@pytest.mark.parametrize(
    ("fault", "nodes", "said"),
    [
        (Partition(groups="halves"), 1, "halves needs at least 2 nodes, there are 1"),
        (Partition(groups="majorities-ring"), 3, "needs at least 4 nodes"),
        (Partition(groups=(("n1",), ("n2",))), 3, "n3 is in 0 groups"),
        (Partition(groups=(("n1", "n2"), ("n2", "n3"))), 3, "n2 is in 2 groups"),
        (Partition(groups=(("n1", "n2", "n3"), ())), 3, "none of them empty"),
        (Partition(groups=(("n1", "n2", "n3"),)), 3, "at least two groups"),
        (Partition(groups="mute", node="n7"), 3, "unknown node 'n7'; use leader, n1, n2, n3"),
        (Partition(groups="halves", node="n1"), 3, "goes with isolate, bridge, mute and deaf"),
        (Partition(groups="mute", nodes=("n1", "n7")), 3, "unknown node 'n7'"),
        (Partition(groups="mute", node="n1", nodes=("n2",)), 3, "give either node or nodes"),
        (Partition(groups="chain", nodes=("n1", "n2")), 3, "names each node once"),
        (Partition(groups="halves", nodes=("n1",)), 3, "goes with isolate, mute, deaf"),
        (Partition(groups="halves", one_way=True), 3, "goes with lists of nodes"),
        (Latency(latency_ms=5, links=("all->n8",)), 3, "unknown node 'n8'"),
        (Latency(latency_ms=5, links=(("n1",), ("n8",))), 3, "unknown node 'n8'"),
        (Latency(latency_ms=5, links=(("n1",), ("n1", "n2"))), 3, "a node is in two groups"),
        (Latency(latency_ms=5, links=(("n1",),)), 3, "at least two groups"),
        (Crash(nodes=("n1", "n4")), 3, "unknown node 'n4'; there are n1, n2, n3"),
        (Crash(nodes=()), 3, "the list is empty"),
    ],
)
def test_what_cannot_be_is_said(fault: Fault, nodes: int, said: str) -> None:
    problems = list(fault.problems([f"n{i}" for i in range(1, nodes + 1)]))
    assert any(said in message for _, message in problems), problems
    assert {field for field, _ in problems} <= set(type(fault).model_fields)


def test_the_vocabulary_is_complete() -> None:
    assert set(get_args(get_args(AnyFault)[0])) == set(FAULTS.values())
    for name, kind in FAULTS.items():
        assert kind.model_fields["fault"].default == name
        summary = kind.summary()
        assert summary.endswith(".")
        assert "\n" not in summary
        assert len(summary) <= 90
