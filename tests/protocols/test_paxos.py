"""Paxos by hand, message by message, and in random schedules."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from nodes.contract.disk import Put
from nodes.contract.replica import InvariantBroken, Message, Operation, Request
from nodes.parts.forwarding import Forwarded
from nodes.parts.synod import Acceptor, Ballot, Proposer
from nodes.protocols.paxos import (
    Accept,
    Accepted,
    CatchUp,
    Paxos,
    PaxosParameters,
    Prepare,
    Promise,
    Promised,
    Refused,
    Survey,
    SurveyReply,
)
from tests.protocols.sans_io import Cluster


class PaxosCluster(Cluster):
    """Nodes ``n1`` ... of Paxos. Options are the parameters of the protocol."""

    def __init__(self, count: int = 3, *, autosync: bool = True, seed: int = 1, **options: Any):
        super().__init__(Paxos, PaxosParameters(**options), count, seed=seed, autosync=autosync)

    def prepare(self, id: str) -> None:
        """The node begins phase 1: nobody has heard a leader for long. Its Prepares wait."""
        self.now_s += 10
        held, self.network = self.network, []
        self.fire(id, "election")
        while self.nodes[id].replica.role != "proposer":
            assert self.deliver(), "a majority hears a leader"
        self.drop(kind=SurveyReply)
        self.network = held + self.network

    def lead(self, id: str, acceptors: Iterable[str] | None = None) -> None:
        """The node leads, promised by ``acceptors`` (all: None); its Accepts wait."""
        self.prepare(id)
        for other in self.ids if acceptors is None else acceptors:
            self.deliver(src=id, dst=other, kind=Prepare)
            self.deliver(src=other, dst=id, kind=Promise)
        self.drop(src=id, kind=Prepare)
        assert self[id].role == "leader"

    def beat(self, id: str) -> None:
        """A heartbeat of the leader, and whatever comes of it."""
        self.fire(id, "heartbeat")
        self.settle()

    def value(self, id: str, key: str) -> Any:
        """What the node has applied for ``key``."""
        held = self[id].state().get(key)
        return None if held is None else held[0][0]

    def values(self, key: str) -> list[Any]:
        """The same of every node."""
        return [self.value(id, key) for id in self.ids]


# --- the synod ---


def test_an_acceptor_has_one_promise_whatever_the_ballot() -> None:
    acceptor: Acceptor[str] = Acceptor()
    assert acceptor.promise(Ballot(2, "a"))
    assert not acceptor.promise(Ballot(1, "z"))
    assert not acceptor.accept(Ballot(1, "z"), 1, ["old"])
    assert acceptor.votes == {}
    assert acceptor.accept(Ballot(2, "b"), 1, ["new"])
    assert acceptor.promised == Ballot(2, "b")


def test_two_proposers_of_a_round_have_two_ballots() -> None:
    low, high = Ballot(3, "a").next_of("n1"), Ballot(3, "a").next_of("n2")
    assert Ballot(3, "z") < low < high
    assert str(high) == "4.n2"


def test_a_proposer_goes_on_with_the_highest_vote() -> None:
    proposer: Proposer[str] = Proposer(Ballot(9, "n1"), 2)
    proposer.report([(1, Ballot(2, "n2"), "older")])
    assert not proposer.on_promise("n2")
    proposer.report([(1, Ballot(3, "n3"), "newer")])
    assert proposer.on_promise("n3")
    proposer.report([(1, Ballot(1, "n4"), "oldest")])
    assert proposer.choose(1, "own") == "newer"
    assert proposer.choose(2, "own") == "own"
    assert not proposer.on_accepted("n1", 1)
    assert not proposer.on_accepted("n1", 1)
    assert proposer.on_accepted("n2", 1)


# --- phase 1 ---


def test_a_value_that_a_minority_accepted_is_recovered() -> None:
    c = PaxosCluster(5)
    c.lead("n1")
    c.settle()
    request = c.ask("n1", "write", "x", "old leader")
    c.deliver(src="n1", dst="n2", kind=Accept)
    c.network.clear()
    c.crash("n1")
    c.lead("n3", ["n2", "n4"])
    c.settle()
    c.beat("n3")
    assert c.value("n3", "x") == "old leader"
    c.restart("n1")
    c.beat("n3")
    assert c.values("x") == ["old leader"] * 5
    assert not [r for _, r in c.replies if r.sequence == request.sequence and r.client == "other"]


def test_of_two_votes_for_a_slot_the_higher_ballot_counts() -> None:
    c = PaxosCluster(5)
    c.lead("n1")
    c.settle()
    c.ask("n1", "write", "x", "older")
    c.network.clear()
    c.crash("n1")
    c.lead("n2", ["n3", "n4"])
    c.settle()
    c.ask("n2", "write", "x", "newer")
    c.deliver(src="n2", dst="n3", kind=Accept)
    c.network.clear()
    c.crash("n2")
    c.restart("n1")
    c.lead("n1", ["n3", "n4"])
    c.settle()
    c.beat("n1")
    assert c.value("n1", "x") == "newer"


def test_an_answer_from_before_a_crash_says_nothing_after_it() -> None:
    c = PaxosCluster(3)
    c.now_s += 10
    c.fire("n1", "election")
    c.deliver(src="n1", dst="n2", kind=Survey)
    late = [packet for packet in c.network if type(packet.msg) is SurveyReply]
    assert [packet.msg.silent for packet in late] == [True]
    c.network.clear()
    c.crash("n1")
    c.lead("n3", ["n2", "n3"])
    c.settle()
    c.restart("n1")
    c.now_s += 10
    c.fire("n1", "election")
    c.network = late
    assert c.deliver(src="n2", dst="n1", kind=SurveyReply)
    assert c["n1"].role == "follower", "that n2 heard no leader was long ago"


def test_a_gap_is_filled_with_a_noop() -> None:
    c = PaxosCluster(3, batch_entries=1)
    c.lead("n1")
    c.settle()
    c.ask("n1", "write", "x", "lost", client="a")
    c.drop(src="n1", kind=Accept)
    c.ask("n1", "write", "y", "kept", client="b")
    assert c.deliver(src="n1", dst="n2", kind=Accept)
    c.network.clear()
    c.crash("n1")
    c.lead("n2", ["n3"])
    c.settle()
    c.beat("n2")
    assert c["n2"].value_at(1) is None
    assert (c.value("n3", "x"), c.value("n3", "y")) == (None, "kept")


def test_parts_of_different_promises_are_not_one_promise() -> None:
    c = PaxosCluster(3)
    c.prepare("n1")
    c.network.clear()
    ballot = c["n1"].ballot
    c.step("n1", Message("n2", Promise(ballot, 1, 0, 0, 2, ())))
    c.step("n1", Message("n2", Promise(ballot, 0, 0, 1, 2, ())))
    assert c["n1"].role == "proposer"
    c.step("n1", Message("n2", Promise(ballot, 1, 0, 1, 2, ())))
    assert c["n1"].role == "leader"


def test_the_own_promise_counts_only_when_durable() -> None:
    c = PaxosCluster(1, autosync=False)
    c.now_s += 10
    c.fire("n1", "election")
    assert c["n1"].role == "proposer"
    c.sync("n1")
    assert c["n1"].role == "leader"


# --- phase 2 ---


def test_the_own_vote_counts_only_when_durable() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    c.autosync = False
    request = c.ask("n1", "write", "x", 1)
    c.deliver(dst="n2", kind=Accept)
    c.sync("n2")
    c.deliver(src="n2")
    assert c["n1"].commit == 0
    c.sync("n1")
    assert c["n1"].commit == 1
    assert c.reply_to(request).outcome == "ok"


def test_the_leader_counts_itself() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    c.crash("n3")
    c.ask("n1", "write", "x", 1)
    c.settle()
    assert c.value("n1", "x") == 1


def test_a_lost_accept_is_sent_again_and_order_does_not_matter() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    c.ask("n1", "write", "x", 1, client="a")
    c.drop(dst="n2", kind=Accept)
    c.ask("n1", "write", "y", 2, client="b")
    c.settle()
    c.beat("n1")
    c.beat("n1")
    assert [c.values(key) for key in "xy"] == [[1, 1, 1], [2, 2, 2]]


def test_an_acceptor_that_forgot_what_it_knew_to_be_chosen_is_told_again() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    for number in range(1, 5):
        c.ask("n1", "write", "x", number, client=f"c{number}")
        c.settle()
    c.beat("n1")
    told = c["n1"]._progress["n2"].upto
    assert told == c["n1"].commit
    # It had said so without a vote of its own for the last slots, and a crash takes them back.
    forgot = Accepted(c["n1"].ballot, 0, told - 2, True)
    c.step("n1", Message("n2", forgot))
    c.drop(dst="n3", kind=Accept)
    sent = [
        m.msg for m in c.network if m.dst == "n2" and isinstance(m.msg, Accept) and m.msg.values
    ]
    assert [m.first for m in sent] == [told - 1]
    c.settle()
    assert c["n1"]._progress["n2"].upto == told
    # Said again by an older message, it is sent again, and no more than that.
    c.step("n1", Message("n2", forgot))
    c.step("n1", Message("n2", forgot))
    c.settle()
    assert c["n1"]._progress["n2"].upto == told


def test_a_leader_that_comes_back_with_an_old_ballot_is_refused() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    c.partition(["n1"], ["n2", "n3"])
    request = c.ask("n1", "write", "x", "old")
    read = c.ask("n1", "read", "x", client="reader")
    c.settle()
    c.lead("n2", ["n3"])
    c.ask("n2", "write", "x", "new", client="d")
    c.settle()
    c.cut.clear()
    c.fire("n1", "heartbeat")
    assert c.deliver(src="n1", dst="n3", kind=Accept)
    assert c.deliver(src="n3", dst="n1", kind=Refused)
    assert c["n1"].role == "follower"
    assert [r for _, r in c.replies if r.client in (request.client, read.client)] == []
    c.beat("n2")
    c.run(3)
    assert c.reply_to(read).value in ("new", "old")
    assert len(set(c.values("x"))) == 1


def test_a_read_of_a_deposed_leader_is_not_answered() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    c.partition(["n1"], ["n2", "n3"])
    c.lead("n2", ["n3"])
    c.ask("n2", "write", "x", "new")
    c.settle()
    c.ask("n1", "read", "x", client="reader")
    c.settle()
    c.beat("n1")
    assert c["n1"].role == "leader"
    assert [r for _, r in c.replies if r.client == "reader"] == []


def test_a_new_leader_reads_only_after_it_learnt_what_was_chosen_before() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    c.ask("n1", "write", "x", "chosen")
    c.deliver(dst="n2", kind=Accept)
    c.deliver(src="n2", dst="n1")
    assert c.replies[-1][1].outcome == "ok"
    c.network.clear()
    c.crash("n1")
    c.lead("n2", ["n3"])
    c.network.clear()
    c.ask("n2", "read", "x", client="reader")
    ballot = c["n2"].ballot
    c.lies = True  # No round has begun.
    c.step("n2", Message("n3", Accepted(ballot, 1, 0, False)))
    c.step("n2", Message("n3", Accepted(ballot, 2, 0, False)))
    assert [r for _, r in c.replies if r.client == "reader"] == []
    c.beat("n2")
    c.beat("n2")
    assert c.replies[-1][1].value == "chosen"


def test_a_vote_is_told_only_when_durable() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    c.ask("n1", "write", "x", 1)
    c.autosync = False
    c.deliver(dst="n2", kind=Accept)
    assert not c.find(src="n2", kind=Accepted)
    c.sync("n2")
    assert c.find(src="n2", kind=Accepted)


@pytest.mark.parametrize("stable", [True, False])
def test_a_promise_is_not_forgotten_over_a_crash(stable: bool) -> None:
    c = PaxosCluster(3, stable_leader=stable)
    ballot, older = Ballot(7, "n2"), Ballot(6, "n3")
    c.step("n1", Message("n2", Prepare(ballot, 1)))
    assert c.find(src="n1", kind=Promise)
    c.crash("n1")
    c.restart("n1")
    assert c["n1"].promised == ballot
    c.step("n1", Message("n3", Accept(older, 0, 1, 0, (None,))))
    assert c.find(dst="n3", kind=Refused)
    assert not c.find(dst="n3", kind=Accepted)


def test_a_promise_leaves_only_when_durable() -> None:
    c = PaxosCluster(3, autosync=False)
    c.step("n1", Message("n2", Prepare(Ballot(7, "n2"), 1)))
    assert not c.find(kind=Promise)
    c.sync("n1")
    assert c.find(kind=Promise)


def test_votes_that_survived_a_restart_are_counted() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    c.ask("n1", "write", "x", 1)
    c.deliver(dst="n3", kind=Accept)
    c.network.clear()
    c.crash("n3")
    c.restart("n3")
    for _ in range(3):
        c.beat("n1")
    assert c.values("x") == [1, 1, 1]


def test_all_restart_and_nothing_chosen_is_lost() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    for number in range(5):
        c.ask("n1", "write", f"k{number}", number)
        c.settle()
    for id in c.ids:
        c.crash(id)
    for id in c.ids:
        c.restart(id)
    c.run(5)
    assert [c.values(f"k{number}") for number in range(5)] == [[n] * 3 for n in range(5)]


# --- duels, requests ---


@pytest.mark.parametrize("stable", [True, False])
def test_duelling_proposers_choose_one_value_and_come_to_an_end(stable: bool) -> None:
    c = PaxosCluster(3, stable_leader=stable)
    if stable:
        c.prepare("n1")
        c.prepare("n2")
    first = c.ask("n1", "write", "x", "one", client="a")
    second = c.ask("n2", "write", "x", "two", client="b")
    c.run(10)
    assert c.reply_to(first).outcome == c.reply_to(second).outcome == "ok"
    c.ask("n3", "read", "x", client="c")
    c.run(3)
    assert c.replies[-1][1].value in ("one", "two")


def test_without_a_stable_leader_a_later_prepare_preempts_an_earlier_one() -> None:
    c = PaxosCluster(3, stable_leader=False)
    c.ask("n1", "write", "x", "one", client="a")
    c.deliver(src="n1", dst="n3")
    c.ask("n2", "write", "x", "two", client="b")
    c.deliver(src="n2", dst="n3")
    assert c["n3"].promised == Ballot(1, "n2")
    c.deliver(src="n2", dst="n1")
    assert c["n1"].role == "follower"
    assert "backoff" in c.nodes["n1"].timers


@pytest.mark.parametrize("phase_1_s", [0.0, 0.2, 5.0])
@pytest.mark.parametrize("cut_short", [True, False])
def test_pauses_may_become_as_long_as_ballots_take(phase_1_s: float, cut_short: bool) -> None:
    """Or else a slow network, or much to recover, makes proposers preempt each other for ever."""
    c = PaxosCluster(3, stable_leader=False, backoff_max_s=0.05)
    c.ask("n1", "write", "x", "one", client="a")
    pauses = []
    for round_ in range(1, 41):
        assert c["n1"].role == "proposer"
        c.now_s += phase_1_s
        if not cut_short:
            c.deliver(src="n1", dst="n2", kind=Prepare)
            c.deliver(src="n2", dst="n1", kind=Promise)
            assert c["n1"].role == "leader"
        c.drop()
        c.step("n1", Message("n3", Refused(c["n1"].ballot, Ballot(2 * round_, "n3"))))
        pauses.append(c.nodes["n1"].timers["backoff"] - c.now_s)
        c.fire("n1", "backoff")
    assert max(pauses[:4]) < 0.33, "it begins with short ones"
    longest_s = max(0.05, min(4 * 3 * phase_1_s, c["n1"].parameters.request_timeout_s))
    assert longest_s / 2 < max(pauses[10:]) <= longest_s


@pytest.mark.parametrize("stable", [True, False])
def test_a_request_is_applied_once_however_often_it_is_chosen(stable: bool) -> None:
    c = PaxosCluster(3, stable_leader=stable)
    c.run(5)
    cas = Request("c", 0, Operation("cas", "x", "new", None))
    for id in c.ids:
        c.step(id, cas)
    c.drop(kind=Forwarded)
    c.run(5)
    c.partition(["n1"], ["n2", "n3"])
    c.step("n2", cas)
    c.run(8)
    c.cut.clear()
    c.run(5)
    answers = [r for _, r in c.replies if r.client == "c"]
    assert answers
    assert all(r.outcome == "ok" and r.applied for r in answers)


def test_a_request_that_went_nowhere_fails_for_certain() -> None:
    c = PaxosCluster(3)
    c.partition(["n1"], ["n2"], ["n3"])
    request = c.ask("n1", "write", "x", 1)
    c.run(5)
    assert c.reply_to(request).outcome == "fail"
    c.step("n1", request)
    assert c.replies[-1][1].outcome == "fail"


def test_a_request_whose_fate_is_open_ends_info() -> None:
    c = PaxosCluster(3)
    c.lead("n1")
    c.settle()
    c.partition(["n1"], ["n2", "n3"])
    request = c.ask("n1", "write", "x", 1)
    c.run(5)
    assert c.reply_to(request).outcome == "info"


# --- snapshots ---


def test_a_learner_far_behind_catches_up_by_snapshot_and_disks_stay_small() -> None:
    c = PaxosCluster(3, snapshot_entries=5, snapshot_tail=2)
    c.lead("n1")
    c.settle()
    c.crash("n3")
    for number in range(40):
        c.ask("n1", "write", f"k{number}", number)
        c.settle()
    assert len(c["n1"]._acceptor.votes) < 10
    disk = c["n1"].disk
    assert disk.last_index - disk.snapshot_index < 10
    c.restart("n3")
    c.fire("n1", "heartbeat")
    kinds = []
    while c.network:
        kinds += [type(packet.msg) for packet in c.network]
        c.deliver()
    c.beat("n1")
    c.beat("n1")
    assert CatchUp in kinds
    assert c["n3"].state() == c["n1"].state()
    c.crash("n3")
    c.restart("n3")
    c.beat("n1")
    assert c["n3"].state() == c["n1"].state()


# --- parameters, invariants, random schedules ---


@pytest.mark.parametrize(
    "bad",
    [
        {"heartbeat_s": 0.0},
        {"election_timeout_min_s": 0.1},
        {"election_timeout_max_s": 0.1},
        {"request_timeout_s": 0.1},
        {"batch_entries": 0},
        {"snapshot_tail": -1},
        {"backoff_max_s": 0.001},
    ],
)
def test_wrong_parameters_are_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        PaxosParameters(**bad)


def test_the_invariants_see_a_promise_that_went_back() -> None:
    c = PaxosCluster(3)
    c.step("n1", Message("n2", Prepare(Ballot(7, "n2"), 1)))
    c.crash("n1")
    c.nodes["n1"].synced = [Put("promised", Promised(Ballot(3, "n2")))]
    with pytest.raises(InvariantBroken, match="promised"):
        c.restart("n1")


@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("seed", range(25))
def test_random_schedules_break_no_invariant_and_come_to_an_end(seed: int, stable: bool) -> None:
    rng = random.Random(f"paxos/{seed}")
    c = PaxosCluster(
        rng.choice((3, 5)),
        seed=seed,
        autosync=False,
        stable_leader=stable,
        snapshot_entries=rng.choice((3, 20_000)),
        snapshot_tail=rng.choice((0, 2)),
        batch_entries=rng.choice((1, 512)),
    )
    for number in range(600):
        c.disturb(rng)
        id = rng.choice(c.ids)
        if c.nodes[id].up and rng.random() < 0.1:
            c.ask(id, rng.choice(("write", "read")), rng.choice("xy"), number, client=f"c{number}")
    c.heal()
    c.run(30)
    last = [c.ask(id, "write", "x", f"last {id}", client=f"last {id}") for id in c.ids]
    c.run(10)
    assert [c.reply_to(request).outcome for request in last] == ["ok"] * len(c.ids)
