"""What comes after the faults of a seed, once all is healed and everybody serves: a time of rest,
then a fault that lasts, then rest again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import structs

from nodes.contract.pace import Pace
from nodes.contract.replica import OperationKind
from nodes.simulator.faults import Nemesis
from nodes.simulator.network import Quality
from nodes.simulator.oracles import losses, rest, status
from nodes.simulator.oracles.administrator import Administrator
from nodes.simulator.oracles.detection import mistaken
from nodes.simulator.oracles.lasting import Lasting, draw_lasting, powerless, served, stays
from nodes.simulator.oracles.stage import PROMPT_S, Stage, cut, is_answered, judge
from nodes.simulator.oracles.traffic import Traffic
from nodes.simulator.placed import is_placed, newest_placements, unrestored_range

LONGEST_S = 120.0
"""A suspicion that may take longer is not waited for: phi has learned from an unruly network."""
CALM = Quality(latency_s=0.001, jitter_s=0.0001)
"""The network of the time of rest."""
ROUNDS = 2
"""Operations of each node at rest."""
LOST_S = 0.01
"""So long all is lost that a node says, or is told, when it is asked for something: less than any
leader waits for."""


class Aftermath:
    """Runs it on a cluster where all nodes are up and healed; the first alarm ends it."""

    def __init__(self, stage: Stage, pace: Pace) -> None:
        self._stage = stage
        self._cluster = stage.cluster
        self._pace = pace
        self._nodes = list(stage.cluster.nodes)
        self._calm_since_s = stage.cluster.now
        self._administrator = Administrator(stage, pace)

    def run(self, *, lasting: bool) -> None:
        """``lasting``: with a fault that lasts."""
        for (src, dst), link in self._cluster.links.items():
            if src != dst:
                link.reset(CALM)
        # Old messages and requests may still be on their way.
        self._stage.begin("rest")
        self._cluster.timeline.run_until(self._cluster.under_way_until())
        if not (self._is_at_rest("rest") and self._serves_promptly() and self._makes_good()):
            return
        administrator = self._administrator
        if not administrator.run() or (administrator.changed and not self._is_at_rest("changed")):
            return
        if lasting:
            leader = self._cluster.leader() if self._pace.unrest else None
            placed = is_placed(self._cluster)
            rng = self._cluster.rng("lasting")
            self.endure(draw_lasting(rng, self._nodes, leader, placed=placed))

    def _judge(self, phase: str, findings: Iterable[rest.Finding]) -> bool:
        return judge(self._stage, phase, findings)

    def _is_at_rest(self, phase: str) -> bool:
        cluster, pace = self._cluster, self._pace
        cluster.run(pace.settles_s)
        before = len(cluster.marks)
        with Traffic(cluster, pace.bare) as traffic:
            cluster.run(rest.watch_s(pace))
        marks = cluster.marks[before:]
        return all(
            self._judge(phase, findings)
            for findings in (
                rest.unrest(marks, (*pace.unrest, *rest.SUSPICION)),
                mistaken(cluster, self._stage.detectors, set()),
                rest.laggards(cluster, pace),
                rest.forgotten_clients(cluster, pace),
                status.misreported(cluster, pace),
                losses.hasty(cluster, self._calm_since_s),
                rest.chatter(traffic, pace, len(self._nodes)),
            )
        )

    def _serves_promptly(self) -> bool:
        """One operation after the other, on each node."""
        if not self._stage.protocol.operations:
            return True
        cluster, pace = self._cluster, self._pace
        before, history = len(cluster.marks), self._stage.clients.history
        first = len(history)
        with Traffic(cluster, pace.bare) as traffic:
            for number in range(ROUNDS):
                for node in self._nodes:
                    if not self._stage.ask("prompt", [node], pace.serves_s, f"p{number}"):
                        return False
        took = sorted((r.completed_ns or 0) - r.invoked_ns for r in history[first:])
        median_s = took[len(took) // 2] / 1e9
        if median_s > PROMPT_S:
            told = f"an operation takes {median_s:.3f} s, more than {PROMPT_S:g}"
            return self._judge("prompt", [("liveness", told)])
        return self._judge(
            "prompt",
            [
                *rest.unrest(cluster.marks[before:], (*pace.unrest, *rest.SUSPICION)),
                *rest.chatter(traffic, pace, len(self._nodes), len(took)),
            ],
        )

    def _makes_good(self) -> bool:
        """What a node says, or is told, when it is asked for something is lost: it completes the
        operation all the same, without being asked again."""
        cluster, repeats_s = self._cluster, self._pace.repeats_s
        if repeats_s is None:
            return True
        draw = cluster.rng("lost").random
        node = self._nodes[int(draw() * len(self._nodes))]
        shape = "mute" if draw() < 0.5 else "deaf"
        self._stage.begin("lost")
        cut(self._stage, shape, node, LOST_S)
        op: OperationKind = "read" if draw() < 0.5 else "write"
        return is_answered(self._stage, f"a moment {shape}", node, op, repeats_s + PROMPT_S)

    def endure(self, lasting: Lasting) -> None:
        """A fault that lasts, and its end. The cluster is at rest."""
        cluster, pace = self._cluster, self._pace
        leader = cluster.leader() if pace.unrest else None
        phase = f"under {lasting.name}"
        began = before = len(cluster.marks)
        placements = newest_placements(cluster)
        fault = structs.replace(lasting.fault, at_s=cluster.now)
        nemesis = Nemesis(cluster, self._stage.clients, [fault])
        cluster.run(0.0)
        keeps = leader is not None and stays(cluster, lasting.lame, leader)
        if keeps:
            # Whoever is cut off knows as much as the others until something is written.
            self._wait(rest.watch_s(pace))
            if leader is not None and lasting.fault.kind == "crash":
                # Whom leadership cannot go to: the leader must give that up and go on.
                self._administrator.hand_over(lasting.lame[0])
        if self._is_served(phase, lasting):
            if not keeps:
                before = self._wait(pace.settles_s)
            self._wait(rest.watch_s(pace))
            deposed = rest.unrest(cluster.marks[before:], ("become_leader",))
            if (
                self._judge(phase, deposed)
                and self._judge(phase, self._lead_nobody(lasting))
                and self._is_served(phase, lasting)
                and self._is_detected(phase, lasting)
                and self._is_restored(phase, lasting)
                and self._judge(
                    phase,
                    losses.wrong_place(cluster, cluster.marks[began:], placements, lasting.lame[0])
                    if placements and lasting.lame
                    else (),
                )
            ):
                self._heals(nemesis)

    def _wait(self, seconds: float) -> int:
        self._cluster.run(seconds)
        return len(self._cluster.marks)

    def _is_served(self, phase: str, lasting: Lasting) -> bool:
        nodes = served(self._cluster, lasting.lame, self._stage.protocol.needs)
        return not nodes or self._stage.ask(phase, nodes, self._pace.serves_s, "lasting")

    def _lead_nobody(self, lasting: Lasting) -> Iterator[rest.Finding]:
        """Leaders that no majority hears, long after they should have made room."""
        for node in powerless(self._cluster, lasting.lame) if self._pace.unrest else ():
            if self._cluster.replica(node).probe()["role"] == "leader":
                yield "stability", f"{node} leads, and reaches no majority"

    def _is_detected(self, phase: str, lasting: Lasting) -> bool:
        """Whoever is no longer heard is suspected, as soon as the parameters say, and nobody
        else. Where a node is only slow, or its clock wrong, nothing is said."""
        cluster, models = self._cluster, self._stage.detectors.models
        if not models or lasting.fault.kind not in ("crash", "pause", "partition"):
            return True
        lost = {
            (observer, peer)
            for observer in self._nodes
            for peer in self._nodes
            if observer not in lasting.lame
            and observer != peer
            and (peer in lasting.lame or cluster.links[peer, observer].is_cut)
        }
        bound_s = max((models[o].suspects_within_s(peer) for o, peer in lost), default=0.0)
        if bound_s > LONGEST_S:
            return True
        cluster.run(bound_s)
        return self._judge(
            phase, mistaken(cluster, self._stage.detectors, lost, without=lasting.lame)
        )

    def _is_restored(self, phase: str, lasting: Lasting) -> bool:
        """What was on nodes that are down is on as many others by then."""
        if lasting.fault.kind != "crash":
            return True
        cluster = self._cluster
        cluster.run(self._pace.settles_s)
        healthy = [node for node in self._nodes if node not in lasting.lame]
        unrestored = unrestored_range(cluster, healthy)
        return unrestored is None or self._judge(phase, [("re-replication", unrestored)])

    def _heals(self, nemesis: Nemesis) -> None:
        """Who was away comes back, and nobody is deposed for it."""
        cluster = self._cluster
        led = cluster.leader() is not None
        before = len(cluster.marks)
        self._stage.begin("back")
        nemesis.heal_all()
        if (
            self._stage.ask("back", self._nodes, self._pace.serves_s, "back")
            and self._is_at_rest("back")
            and self._pace.unrest
            and led
        ):
            self._judge("back", rest.unrest(cluster.marks[before:], ("become_leader",)))
