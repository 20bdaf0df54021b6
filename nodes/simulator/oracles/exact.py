"""What one operation costs, what one that was missed, and how soon another one leads: on a network
and disks that take exactly so long, all of that is arithmetic. A mistake that the next retry, the
next heartbeat or the next election makes good shows here, where none of them is waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nodes.contract.pace import Pace, Price
from nodes.contract.replica import Operation, OperationKind
from nodes.simulator.cluster import Mark
from nodes.simulator.load import OperationRecord
from nodes.simulator.makes import is_of_another_make
from nodes.simulator.network import Quality
from nodes.simulator.oracles import rest
from nodes.simulator.oracles.lasting import FOREVER_S
from nodes.simulator.oracles.stage import Stage, cut, judge
from nodes.simulator.oracles.traffic import Traffic

HOP_S = 0.004
"""What each message takes. More than all that is not counted: steps, and the client's own way."""
FSYNC_S = 0.01
ELECTIONS = 0.5
"""The share of the seeds in which who leads stops."""
SOON_S = 0.002
"""A timer that is so nearly due is taken for due."""


class Exact:
    """Asks, and judges; the first alarm ends it. The cluster is at rest before and after."""

    def __init__(self, stage: Stage, pace: Pace, calm: Quality) -> None:
        """``calm``: how the network is otherwise."""
        self._stage = stage
        self._pace = pace
        self._calm = calm
        self._cluster = stage.cluster
        self._nodes = list(stage.cluster.nodes)
        self._draw = stage.cluster.rng("exact").random
        step_s = max(host.step_s for host in stage.cluster.hosts.values())
        # A node that is busy takes an input a step later, and so does who sends it.
        self._step_s = 2 * step_s
        self._hop_s, self._fsync_s = HOP_S, FSYNC_S

    def run(self) -> bool:
        """Whether all cost what it has to."""
        if not (self._pace.prices or self._pace.elects) or len(self._nodes) < 2:
            return True
        if any(is_of_another_make(host.replica) for host in self._cluster.hosts.values()):
            return True
        factors = {node: host.fsync_factor for node, host in self._cluster.hosts.items()}
        self._take(HOP_S, FSYNC_S)
        self._cluster.run(self._quiet_s)
        well = self._asks() and self._misses()
        if well:
            # So quick that two seldom stand at a time.
            self._take(HOP_S / 4, FSYNC_S / 4)
            well = self._fails_over()
        self._set(self._calm, factors, 0.0)
        self._cluster.run(self._quiet_s)
        return well

    def _take(self, hop_s: float, fsync_s: float) -> None:
        """From now on each message and each write takes exactly so long."""
        self._hop_s, self._fsync_s = hop_s, fsync_s
        exact = Quality(latency_s=hop_s, jitter_s=0.0)
        self._set(exact, dict.fromkeys(self._nodes, 0.0), fsync_s)

    def _set(self, quality: Quality, factors: dict[str, float], delay_s: float) -> None:
        for (src, dst), link in self._cluster.links.items():
            if src != dst:
                link.reset(quality)
        for node, host in self._cluster.hosts.items():
            host.fsync_factor, host.fsync_delay_s = factors[node], delay_s

    @property
    def _quiet_s(self) -> float:
        """By then after an operation nothing comes of it any more: all have heard of it, with the
        next heartbeat where there are some, and have written what follows from it."""
        return (self._pace.beats_s or 0.0) + self._pace.told_s + 3 * self._hop_s + 3 * self._fsync_s

    def _bound_s(self, hops: int, fsyncs: int) -> float:
        return hops * self._hop_s + fsyncs * self._fsync_s + (hops + fsyncs + 2) * self._step_s

    def _asks(self) -> bool:
        """A write and a read, of who leads and of somebody else."""
        leader = self._cluster.leader()
        others = [node for node in self._nodes if node != leader]
        other = others[int(self._draw() * len(others))]
        for node in (other,) if leader is None else (leader, other):
            for kind in self._stage.protocol.operations[:2]:
                price = self._pace.prices.get((kind, node == leader))
                if price is not None and not self._judge(self._costs(node, kind, price)):
                    return False
        return True

    def _misses(self) -> bool:
        """A write of which one node hears nothing: the next heartbeat finds that out, and all that
        it takes then is a refusal and what was missed, once."""
        cluster, beats_s = self._cluster, self._pace.beats_s
        leader = cluster.leader()
        if beats_s is None or leader is None or len(self._nodes) < 3:
            return True
        others = [node for node in self._nodes if node != leader]
        lame = others[int(self._draw() * len(others))]
        nemesis = cut(self._stage, "isolate", lame, FOREVER_S)
        before = len(cluster.marks)
        with Traffic(cluster, self._pace.bare) as traffic:
            self._ask(leader, "write")
            cluster.run(self._bound_s(2, 1) + self._stage.clients.way_s)
            nemesis.heal_all()
            cluster.run(beats_s + self._bound_s(3, 1))
        if any(mark.name == "compact" for mark in cluster.marks[before:]):
            return True  # A snapshot may have to go there instead.
        return self._judge(self._once_more(lame, traffic))

    def _once_more(self, lame: str, traffic: Traffic) -> Iterator[rest.Finding]:
        """What it takes to bring one more message to ``lame``."""
        for check, told in rest.laggards(self._cluster, self._pace):
            yield check, f"{lame} missed a write, and a heartbeat later: {told}"
        for name in self._pace.bare:
            count = traffic.fulls[name]
            if count not in (0, len(self._nodes)):
                told = f"{lame} missed a write: {count} {name} with {self._pace.bare[name]}"
                yield "messages", f"{told}, not {len(self._nodes)}"

    def _fails_over(self) -> bool:
        """Who leads stops: the first that notices leads, if nobody else stands meanwhile, and what
        waited for a leader is dealt with at once; and who is back hears what it has missed."""
        cluster, elects = self._cluster, self._pace.elects
        leader = cluster.leader()
        if elects is None or leader is None or len(self._nodes) < 3 or self._draw() >= ELECTIONS:
            return True
        self._stage.begin("failover")
        before, began_s = len(cluster.marks), cluster.now
        are_alike = not any(rest.laggards(cluster, self._pace))
        applied = rest.applied(cluster, leader)
        cluster.crash(leader)
        others = [node for node in self._nodes if node != leader]
        asked = others[int(self._draw() * len(others))]
        with Traffic(cluster, self._pace.refuses) as traffic:
            self._ask(asked, "write" if self._draw() < 0.5 else "read")
            end_s = began_s + elects[3] + self._bound_s(3 + elects[1].hops, elects[1].fsyncs)
            while not (leads := self._leads(before)) and cluster.now < end_s:
                cluster.run(self._hop_s)
            if leads:
                # To be heard, to be handed on, to wait for what comes first, one round, and back.
                cluster.run(self._bound_s(7, 2))
        well = (
            self._judge(self._elected(cluster.marks[before:], began_s, elects))
            and (not are_alike or self._judge(self._refused(traffic, before)))
            and self._judge(self._waits(asked, before, applied))
            and self._returns(leader, before)
        )
        cluster.run(self._pace.settles_s)
        return well

    def _leads(self, before: int) -> list[Mark]:
        return [mark for mark in self._cluster.marks[before:] if mark.name == "become_leader"]

    def _refused(self, traffic: Traffic, before: int) -> Iterator[rest.Finding]:
        """All had the same, so whoever leads knows where to go on."""
        if traffic.full is not None and len(self._leads(before)) == 1:
            src, dst, message = traffic.full
            yield "messages", f"{src} has what {dst} has, and refuses what comes next: {message}"

    def _waits(self, asked: str, before: int, applied: int) -> Iterator[rest.Finding]:
        """What was asked before there was a leader. Leftovers of older leaders go first: who has
        committed more meanwhile than an entry of its own is at that. ``applied``: how far the
        leader before it had come."""
        unanswered, leads = self._cluster.hosts[asked].unanswered, self._leads(before)
        if not unanswered or len(leads) != 1:
            return
        if rest.applied(self._cluster, leads[0].node) <= applied + 1:
            waited_s = self._cluster.now - leads[0].at_s
            told = f"{leads[0].node} has led for {waited_s:.4f} s"
            yield "liveness", f"{told}, and {asked} has not answered {unanswered[0]}"

    def _returns(self, leader: str, before: int) -> bool:
        """Who led before is started again, and hears of all with the next heartbeat."""
        cluster, pace = self._cluster, self._pace
        cluster.run(self._quiet_s)
        leads = len(self._leads(before))
        cluster.restart(leader)
        # It is heard, after it has written the new term; then it is sent at most two entries, the
        # first of the new leader and the one that was asked for, perhaps one after the other.
        cluster.run((pace.beats_s or 0.0) + self._bound_s(5, 3))
        others = any(mark.name == "compact" for mark in cluster.marks[before:])
        if leads != 1 or len(self._leads(before)) != 1 or others:
            return True  # Nobody led yet, or what it missed is gone: a snapshot goes there instead.
        return self._judge(
            (check, f"{leader} is back, and a heartbeat later: {told}")
            for check, told in rest.laggards(cluster, pace)
        )

    def _elected(
        self, marks: Sequence[Mark], began_s: float, elects: tuple[str, Price, float, float]
    ) -> Iterator[rest.Finding]:
        name, price, least_s, most_s = elects
        stands = [mark for mark in marks if mark.name == name]
        if not stands:
            waited_s = self._cluster.now - began_s
            yield "stability", f"nobody stood for election {waited_s:.3f} s later"
            return
        first, beats_s = stands[0], self._pace.beats_s or 0.0
        waited_s = first.at_s - began_s
        if waited_s < least_s - beats_s - SOON_S:
            yield "stability", f"{first.node} stood {waited_s:.3f} s after the leader had stopped"
        if waited_s > most_s + self._bound_s(3, 0):
            yield "stability", f"{first.node} stood {waited_s:.3f} s after the leader had stopped"
        # Who has heard the leader not long ago refuses, and rivals may take each other's votes.
        by_s = first.at_s + self._bound_s(price.hops, price.fsyncs)
        rivals = [mark for mark in stands[1:] if mark.node != first.node and mark.at_s <= by_s]
        if rivals or waited_s < least_s + 2 * self._hop_s or self._cluster.now < by_s:
            return
        if not any(
            mark.name == "become_leader" and mark.node == first.node and mark.at_s <= by_s
            for mark in marks
        ):
            told = f"{first.node} stood at {first.at_s:.4f}, alone, and did not lead"
            yield "stability", f"{told} at {by_s:.4f}"

    def _judge(self, findings: Iterable[rest.Finding]) -> bool:
        return judge(self._stage, "exactly", findings)

    def _ask(self, node: str, kind: OperationKind) -> list[OperationRecord]:
        """Empty until it is answered."""
        done: list[OperationRecord] = []
        value = f"exact.{len(self._stage.clients.history)}"
        operation = Operation(kind, "k0", value if kind == "write" else None)
        self._stage.clients.invoke(f"exact-{kind}", node, operation, done.append)
        return done

    def _costs(self, node: str, kind: OperationKind, price: Price) -> Iterator[rest.Finding]:
        cluster, pace = self._cluster, self._pace
        with Traffic(cluster, pace.bare) as traffic:
            done = self._ask(node, kind)
            cluster.run(self._quiet_s)
        what = f"{kind} on {node}"
        if not done or done[0].outcome != "ok":
            yield "liveness", f"{what} was not answered within {self._quiet_s:.3f} s: {done}"
            return
        took_s = ((done[0].completed_ns or 0) - done[0].invoked_ns) / 1e9
        least_s = price.hops * self._hop_s + price.fsyncs * self._fsync_s
        way_s = self._stage.clients.way_s
        most_s = self._bound_s(price.hops, price.fsyncs) + 2 * way_s
        if not least_s < took_s <= most_s:
            wanted = f"{price.hops} messages and {price.fsyncs} fsyncs one after the other"
            yield "liveness", f"{what} took {took_s:.4f} s, where it takes {wanted}"
        yield from self._messages(what, traffic, price)
        if kind == "write" and pace.beats_s is not None:
            yield from rest.laggards(cluster, pace)

    def _messages(self, what: str, traffic: Traffic, price: Price) -> Iterator[rest.Finding]:
        """Each as often as it has to be. What is also sent unasked may come a few times more."""
        idle, others = self._pace.idle or {}, len(self._nodes) - 1
        for name, often in price.messages.items():
            count = traffic.counts[name]
            most = often + (int(idle[name] * traffic.seconds) + 2 * others if name in idle else 0)
            if not often <= count <= most and (count > most or name not in idle):
                yield "messages", f"{what} took {count} {name}, where {often} are enough"
        for name, often in price.full.items():
            count = traffic.fulls[name]
            if count != often:
                field = self._pace.bare[name]
                yield "messages", f"{what} took {count} {name} with {field}, not {often}"
