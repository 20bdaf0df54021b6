"""Seeds reach what is rare: changes of members, slow nodes, late answers, few copies."""

from __future__ import annotations

import random

import msgspec
import pytest

from nodes.registry import INTERNAL, get
from nodes.simulator import makes, tape
from nodes.simulator.bugs import all_bugs
from nodes.simulator.cluster import Cluster
from nodes.simulator.faults import Fault, Nemesis
from nodes.simulator.oracles import administrator
from nodes.simulator.placed import Members
from nodes.simulator.shrink import Case, shrink
from nodes.simulator.simulate import Setup, _Run, draw_setup, promises_once, simulate
from nodes.simulator.tape import draw_more
from tests.simulator.judge import linearizable
from tests.simulator.test_driver_duties import cluster, probe, tell

pytestmark = pytest.mark.long

RAFT = get("raft")


def administer(at_s: float, **args: object) -> Fault:
    return Fault(at_s=at_s, kind="administer", for_s=1.0, args={"at": "n2", **args})


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([administer(3.0, action="remove", node="n1")], {"n2", "n3"}),
        (
            [
                administer(3.0, action="remove", node="n1"),
                administer(4.5, action="replace", node="n1", lost="n3", every_ms=100),
            ],
            {"n1", "n2"},
        ),
    ],
)
def test_members_are_changed_and_their_watcher_knows(
    faults: list[Fault], expected: set[str]
) -> None:
    it = Cluster(RAFT, nodes=3, seed=1, parameters={"snapshot_entries": 1, "snapshot_tail": 0})
    members = Members(it.nodes)
    it.observers.append(members.observe)
    Nemesis(it, None, faults)
    it.run(10.0)
    assert set(members.committed) == expected


def test_leadership_is_handed_over() -> None:
    it = Cluster(RAFT, nodes=3, seed=1)
    it.run(3.0)
    target = next(node for node in it.nodes if node != it.leader())
    Nemesis(it, None, [administer(3.0, action="transfer", node=target)])
    it.run(0.1)
    assert it.leader() == target


def test_members_that_were_taken_out_are_members_again_in_the_end() -> None:
    tape = [
        administer(2.0, action="remove", node="n3"),
        administer(4.0, action="remove", node="n2"),
    ]
    result = simulate(RAFT, 1, nodes=3, tape=tape, setup=Setup())
    assert result.alarms == []
    changes = [m.details["members"] for m in result.marks if m.name == "confirm_membership"]
    assert changes[0] == "n1,n2"
    assert set(changes[-1].split(",")) == {"n1", "n2", "n3"}


def test_who_is_never_taken_in_again_is_an_alarm() -> None:
    class NeverAgain(RAFT.replica):  # type: ignore[misc, name-defined]
        def on_change_membership(self, src: str, m: object) -> None:
            if getattr(m, "change", "") == "remove":
                super().on_change_membership(src, m)

    lame = msgspec.structs.replace(RAFT, replica=NeverAgain)
    tape = [administer(3.0, action="remove", node="n3")]
    result = simulate(lame, 1, nodes=3, tape=tape, setup=Setup())
    assert [alarm.check for alarm in result.alarms] == ["liveness"]


def test_a_core_that_a_change_under_way_leaves_without_a_majority_is_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So rare that no seed at hand comes to it: whom the core lacks (see the next test) is said
    here, once, of a core that lacks nobody, and before it is stuck."""
    joined: list[str] = []

    def lacking(self: Members, cluster: Cluster, up: list[str]) -> list[str]:
        if not joined:
            joined.extend([node for node in cluster.nodes if node not in up][:1])
            return list(joined)
        return []

    administer = _Run._administer

    def at_once(self: _Run, what: tuple[int, float, list[str]]) -> None:
        administer(self, (what[0], 0.0, what[2]))

    monkeypatch.setattr(Members, "lacking", lacking)
    monkeypatch.setattr(_Run, "_administer", at_once)
    result = simulate(RAFT, 2, nodes=5, trace=True)
    assert result.alarms == []
    assert result.story is not None
    told = [each.text for each in result.story.moments if each.text.startswith("PHASE core")]
    assert len(joined) == 1
    assert told[:2] == [told[0], f"{told[0]} {joined[0]}"]


def test_nobody_joins_a_core_before_a_majority_of_the_new_members_holds_the_change() -> None:
    it = Cluster(RAFT, nodes=4, seed=1)
    it.run(3.0)
    members = Members(it.nodes[:3])
    last = max(host.storage.synced.last_index for host in it.hosts.values())
    members._set(last + 1, tuple(it.nodes))
    assert members.lacking(it, ["n2", "n4"]) == []
    members._set(1, tuple(it.nodes[:3]))
    members._set(1, tuple(it.nodes))
    assert members.lacking(it, ["n2", "n4"]) == ["n1"]
    assert members.lacking(it, ["n2", "n3", "n4"]) == []


def test_what_comes_on_top_of_a_tape_takes_nothing_from_it() -> None:
    kinds: set[str] = set()
    for seed in range(60):
        tape = draw_more(random.Random(seed), ["n1", "n2", "n3"], RAFT, 10.0, 0.5)
        assert tape == sorted(tape, key=lambda fault: fault.at_s)
        kinds |= {fault.kind for fault in tape}
    assert {"administer", "slow-steps", "late-kinds", "pause", "slow-fsync"} <= kinds
    quorum = [draw_more(random.Random(s), ["n1", "n2"], get("quorum"), 5.0) for s in range(60)]
    assert not any(fault.kind == "administer" for tape in quorum for fault in tape)
    assert sum(not tape for tape in quorum) > 30


def test_what_a_slow_node_hears_during_a_step_is_one_batch() -> None:
    it = cluster()
    steps = it.hosts["n2"].steps
    Nemesis(
        it,
        None,
        [Fault(at_s=0.0, kind="slow-steps", for_s=0.2, args={"nodes": ["n2"], "step_ms": 50})],
    )
    for number in range(20):
        tell(it, "n1" if number % 2 else "n3", f"send n2 {number}", sequence=number)
    it.run(0.3)
    assert len(probe(it, "n2").texts()) == 20
    assert it.hosts["n2"].steps - steps < 5


def test_some_types_of_messages_come_late_and_the_others_do_not() -> None:
    it = Cluster(RAFT, nodes=3, seed=1)
    args = {"kinds": ["PreVoteReply"], "delay_ms": 600_000}
    late = Fault(at_s=0.0, kind="late-kinds", for_s=2.0, args=args)
    Nemesis(it, None, [late])
    it.run(1.9)
    asked = sum(mark.name == "ask_pre_votes" for mark in it.marks)
    assert asked
    assert it.leader() is None
    it.run(8.0)
    assert it.leader() is not None


@pytest.mark.parametrize("name", [name for name in INTERNAL if name.endswith("-placed")])
def test_placed_variants_move_ranges_page_by_page_without_an_alarm(name: str) -> None:
    protocol = INTERNAL[name]
    moved = pages = 0
    for seed in range(1, 13):
        result = simulate(protocol, seed, duration_s=4.0)
        alarms = result.alarms
        if protocol.claim == "linearizable":
            alarms = alarms + linearizable(result)
        assert alarms == [], f"{name}, seed {seed}: {alarms[0].check}: {alarms[0].message}"
        limit = result.setup.parameters.get("page_keys", 500)
        copied = [mark for mark in result.marks if mark.name == "re_replicated"]
        moved += len(copied)
        pages += sum(mark.details["keys"] > 2 * limit for mark in copied)
    assert moved > 8
    assert pages > 1


def test_clients_that_may_be_forgotten_ask_once_and_no_history_of_theirs_is_judged() -> None:
    setups = [draw_setup(RAFT, seed) for seed in range(200)]
    forgetful = [setup for setup in setups if not promises_once(setup)]
    assert 5 < len(forgetful) < 60
    assert all(setup.policy.retry == "never" for setup in forgetful)


def test_followers_meet_a_leader_of_another_make(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = next(bug for bug in all_bugs() if bug.name == "raft-compares-the-first")
    planted = bug.planted()
    for share, are_caught in ((0.0, False), (1.0, True)):
        monkeypatch.setattr(makes, "SHARE", share)
        runs = (simulate(planted, seed, duration_s=5.0, finish=False) for seed in range(1, 16))
        assert any(run.alarms for run in runs) == are_caught


def test_a_leader_of_another_make_sends_a_snapshot_to_who_needs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bug = next(bug for bug in all_bugs() if bug.name == "raft-acknowledges-its-tail")
    planted = bug.planted()
    assert any(simulate(planted, seed).alarms for seed in range(1, 20))
    monkeypatch.setattr(makes, "SHARE", 0.0)
    assert not any(simulate(planted, seed).alarms for seed in range(1, 8))


def test_who_comes_back_behind_hears_promises_that_are_cut_in_two_ways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bug = next(bug for bug in all_bugs() if bug.name == "paxos-parts-mixed")
    planted = bug.planted()
    for share, are_caught in ((0.0, False), (1.0, True)):
        monkeypatch.setattr(tape, "_BEHIND", share)
        runs = (simulate(planted, seed, finish=False) for seed in range(1, 60))
        alarms = [alarm for run in runs for alarm in run.alarms]
        assert bool(alarms) == are_caught
        assert all("for whole" in alarm.message for alarm in alarms)


def test_a_catch_by_an_administrator_is_shrunk_and_keeps_him(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The one at rest, who is on no tape, would do as well.
    monkeypatch.setattr(administrator, "CHANGES", 0.0)
    bug = next(bug for bug in all_bugs() if bug.name == "raft-new-members-decide-alone")
    planted = bug.planted()
    result = next(r for r in (simulate(planted, s) for s in range(1, 200)) if r.alarms)
    check = result.alarms[0].check

    def first(result: object) -> str | None:
        alarms = getattr(result, "alarms", ())
        return alarms[0].check if alarms else None

    case = shrink(planted, result, first, budget_events=100_000)
    assert [alarm.check for alarm in case.run(planted).alarms][:1] == [check]
    assert any(fault.kind == "administer" for fault in case.tape)
    assert len(case.tape) < len(Case.of(result).tape)
