"""Raft under random schedules: every delivery, loss, copy, sync, crash and timer from a seed.

Invariants hold after every step; afterwards everything is healed, the cluster must become one
again, and the whole history, with final reads from every node, must be linearizable (brute force).
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from nodes.contract.replica import Message, Operation, OperationKind, Reply, Request, Value
from nodes.protocols.raft import ChangeMembership, TransferLeadership
from tests.protocols.raft_cluster import RaftCluster


class Call:
    """An operation on the one register. ``done``: when it was answered, in steps (None: never)."""

    def __init__(self, request: Request, invoked: int) -> None:
        self.request = request
        self.invoked = invoked
        self.done: int | None = None
        self.reply: Reply | None = None
        self.copied = False

    @property
    def known(self) -> bool:
        """It was answered ok."""
        return self.reply is not None and self.reply.outcome == "ok"

    @property
    def never_applied(self) -> bool:
        """One node's ``fail`` says nothing of a copy that another node got."""
        return self.reply is not None and self.reply.outcome == "fail" and not self.copied

    def next_state(self, state: Value) -> tuple[bool, Value]:
        """Whether the answer is right in ``state``, and the state after it."""
        operation, reply = self.request.operation, self.reply
        if operation.op == "read":
            assert reply is not None
            return reply.value == state, state
        if operation.op == "write":
            return True, operation.value
        applied = state == operation.expected
        after = operation.value if applied else state
        if not self.known:
            return True, after
        assert reply is not None
        return reply.applied == applied and reply.seen == state, after


def linearizable(calls: list[Call]) -> bool:
    """Search for an order that respects real time and in which every answer is right. A call
    without an answer may take effect at any time after it began, or never."""
    calls = [
        c for c in calls if c.known or (c.request.operation.op != "read" and not c.never_applied)
    ]
    must = frozenset(i for i, c in enumerate(calls) if c.known)
    tried: set[tuple[frozenset[int], Value]] = set()
    stack: list[tuple[frozenset[int], Value]] = [(frozenset(), None)]
    while stack:
        placed, state = stack.pop()
        if must <= placed:
            return True
        if (placed, state) in tried:
            continue
        tried.add((placed, state))
        deadline = min(calls[i].done or 0 for i in must - placed)
        for i, call in enumerate(calls):
            if i not in placed and call.invoked <= deadline:
                right, after = call.next_state(state)
                if right:
                    stack.append((placed | {i}, after))
    return False


class Schedule:
    """One random run."""

    def __init__(self, seed: int, administer: float | None = None, **options: Any) -> None:
        self.random = rng = random.Random(seed)
        self.options = {
            "snapshot_entries": rng.choice([2, 5, 1000]),
            "snapshot_tail": rng.choice([0, 2]),
            "snapshot_chunk_bytes": rng.choice([30, 200, 1 << 19]),
            "batch_entries": rng.choice([1, 2, 512]),
            **options,
        }
        count = rng.choice([1, 2, 3, 3, 3, 4, 5, 5])
        self.cluster = RaftCluster(count, seed=seed, autosync=rng.random() < 0.3, **self.options)
        self.cluster.on_reply = self._on_reply
        self.calls: list[Call] = []
        self.now = 0
        self.loss = rng.choice([0.0, 0.05, 0.3])
        self._committed: tuple[int, tuple[str, ...]] = (0, self.cluster.ids)
        weights = {
            self._deliver: 60.0,
            self._fire: rng.choice([3.0, 10.0]),
            self._sync: 20.0,
            self._ask: 4.0,
            self._ask_again: 1.0,
            self._crash: rng.choice([0.0, 0.5, 2.0]),
            self._restart: 4.0,
            self._cut: rng.choice([0.0, 0.5, 2.0]),
            self._heal: 1.0,
            self._stand: rng.choice([0.0, 0.3, 2.0]),
            self._administer: rng.choice([0.0, 0.0, 1.0]) if administer is None else administer,
        }
        self._actions, self._weights = list(weights), list(weights.values())

    def _on_reply(self, node: str, reply: Reply) -> None:
        # The client's view: the first answer is the answer, and a second may not contradict it.
        call = self.calls[reply.sequence]
        if call.reply is None:
            call.reply = reply
            call.done = self.now

    def play(self, steps: int) -> None:
        """The schedule itself."""
        rng, cluster = self.random, self.cluster
        if rng.random() < 0.7:
            cluster.run(3.0)
        for action in rng.choices(self._actions, self._weights, k=steps):
            self.now += 1
            action()
            self._watch_membership()

    def _some_node(self) -> str | None:
        up = [n for n in self.cluster.ids if self.cluster.nodes[n].up]
        return self.random.choice(up) if up else None

    def _deliver(self) -> None:
        rng, network = self.random, self.cluster.network
        if not network:
            return
        # Mostly in order: a network that only shuffles never lets anything happen.
        index = 0 if rng.random() < 0.7 else rng.randrange(len(network))
        packet = network[index]
        if rng.random() >= 0.05:
            network.pop(index)
        if rng.random() >= self.loss:
            self.cluster.receive(packet)

    def _fire(self) -> None:
        cluster = self.cluster
        timers = sorted(
            (at_s, n, name) for n in cluster.ids for name, at_s in cluster.nodes[n].timers.items()
        )
        if timers:
            at_s, node, name = self.random.choice(timers[:3])
            cluster.now_s = max(cluster.now_s, at_s)
            cluster.fire(node, name)

    def _sync(self) -> None:
        if node := self._some_node():
            self.cluster.sync(node)

    def _ask(self) -> None:
        node = self._some_node()
        if node is None or len(self.calls) >= 12:
            return
        rng, number = self.random, len(self.calls)
        op: OperationKind = rng.choice(["write", "read", "read", "cas"])
        expected = rng.choice([None, *range(number)]) if op == "cas" else None
        value = None if op == "read" else number
        request = Request(f"c{number}", number, Operation(op, "x", value, expected))
        self.calls.append(Call(request, self.now))
        self.cluster.step(node, request)

    def _ask_again(self) -> None:
        node = self._some_node()
        if node and self.calls:
            call = self.random.choice(self.calls)
            call.copied = True
            self.cluster.step(node, call.request)

    def _crash(self) -> None:
        if node := self._some_node():
            unsynced = len(self.cluster.nodes[node].unsynced)
            self.cluster.crash(node, surviving=self.random.randint(0, unsynced))

    def _restart(self) -> None:
        down = [n for n in self.cluster.ids if not self.cluster.nodes[n].up]
        if down:
            self.cluster.restart(self.random.choice(down))

    def _cut(self) -> None:
        ids = self.cluster.ids
        self.cluster.cut = {(a, b) for a in ids for b in ids if self.random.random() < 0.3}
        if self.random.random() < 0.7:
            ones = [n for n in ids if self.random.random() < 0.5]
            self.cluster.partition(ones, [n for n in ids if n not in ones])

    def _heal(self) -> None:
        self.cluster.cut = set()

    def _stand(self) -> None:
        if node := self._some_node():
            self.cluster.stand(node)

    def _administer(self) -> None:
        rng, ids = self.random, self.cluster.ids
        message: Any = rng.choice(
            [
                TransferLeadership(rng.choice(ids)),
                ChangeMembership("remove", rng.choice(ids)),
                ChangeMembership("add", rng.choice(ids)),
            ]
        )
        if node := self._some_node():
            self.cluster.step(node, Message(node, message))

    def committed_members(self) -> tuple[str, ...]:
        """The members that were committed last, whoever knows of it: a snapshot's, or those that
        a majority of the memberships that count then has stored."""
        return self._committed[1]

    def _watch_membership(self) -> None:
        for node in self.cluster.ids:
            if self.cluster.nodes[node].up:
                replica = self.cluster[node]
                for index, members in replica._memberships:
                    if self._committed[0] < index <= replica.commit:
                        self._committed = (index, members)

    def finish_with_a_majority(self) -> None:
        """Only a majority of the members that were committed last comes back; they go on."""
        cluster, members = self.cluster, self.committed_members()
        few = set(self.random.sample(members, len(members) // 2 + 1))
        for node in cluster.ids:
            if cluster.nodes[node].up:
                cluster.crash(node, surviving=len(cluster.nodes[node].unsynced))
        cluster.network.clear()
        cluster.cut.clear()
        cluster.autosync = True
        for node in sorted(few):
            cluster.restart(node)
        cluster.run(20.0)
        assert cluster.leaders, f"nobody leads {sorted(few)}, a majority of {members}"
        request = Request("last", 0, Operation("write", "y", 1))
        cluster.step(cluster.leaders[0], request)
        cluster.run(5.0)
        assert "ok" in cluster.outcomes(request)

    def finish(self) -> None:
        """Heal; then the cluster is one, and its nodes say the same."""
        cluster = self.cluster
        cluster.heal()
        cluster.run(12.0)
        (leader,) = cluster.leaders
        for node in cluster[leader].members:
            self.now += 1
            number = len(self.calls)
            request = Request(f"c{number}", number, Operation("read", "x"))
            self.calls.append(Call(request, self.now))
            cluster.step(node, request)
            cluster.settle()
            reply = self.calls[-1].reply
            assert reply is not None
            assert reply.outcome == "ok"
        cluster.run(1.0)
        members = cluster[leader].members
        assert len({str(cluster[n].state()) for n in members}) == 1
        assert len({str(cluster[n]._take_snapshot().sessions) for n in members}) == 1
        assert linearizable(self.calls)
        for call in self.calls:
            if call.never_applied:
                assert f"x={call.request.operation.value} " not in cluster.log(leader) + " "


@pytest.mark.parametrize("block", range(8))
def test_random_schedules(block: int) -> None:
    for seed in range(block * 50, block * 50 + 50):
        schedule = Schedule(seed)
        try:
            schedule.play(400)
            schedule.finish()
        except BaseException as error:
            error.add_note(f"replay: Schedule({seed}).play(400), then finish()")
            raise


@pytest.mark.parametrize("seed", [731, 1864])
def test_a_removal_that_was_not_committed_does_not_leave_the_cluster_without_a_leader(
    seed: int,
) -> None:
    schedule = Schedule(seed)
    schedule.play(400)
    schedule.finish()


@pytest.mark.parametrize("block", range(4))
def test_every_majority_of_the_committed_members_goes_on(block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        schedule = Schedule(seed, administer=4.0)
        try:
            schedule.play(300)
            schedule.finish_with_a_majority()
        except BaseException as error:
            error.add_note(
                f"replay: Schedule({seed}, administer=4.0).play(300), then finish_with_a_majority()"
            )
            raise


def test_stale_reads_are_found_out() -> None:
    """The oracle itself: the variant that gives linearizability up is caught at it."""
    caught = 0
    for seed in range(60):
        schedule = Schedule(seed, stale_reads=True)
        schedule.play(400)
        schedule.cluster.heal()
        schedule.cluster.run(12.0)
        caught += not linearizable(schedule.calls)
    assert caught >= 5


def test_the_oracle_knows_a_stale_read() -> None:
    def call(number: int, invoked: int, done: int, op: OperationKind, value: Value) -> Call:
        made = Call(Request("c", number, Operation(op, "x", value)), invoked)
        made.done = done
        made.reply = Reply("c", number, "ok", value if op == "read" else None)
        return made

    write, later = call(0, 0, 1, "write", 1), call(1, 2, 3, "write", 2)
    assert linearizable([write, later, call(2, 4, 5, "read", 2)])
    assert not linearizable([write, later, call(2, 4, 5, "read", 1)])
    assert linearizable([write, later, call(2, 2, 5, "read", 1)])
