"""What comes after the faults of a seed, once all is healed and everybody serves: a time of rest,
then a fault that lasts, then rest again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from msgspec import structs

from nodes.contract.pace import Pace
from nodes.contract.replica import Operation, OperationKind
from nodes.parts.placement import Placement
from nodes.simulator.cluster import Mark
from nodes.simulator.faults import Nemesis
from nodes.simulator.network import Quality
from nodes.simulator.oracles import losses, rest, status
from nodes.simulator.oracles.administrator import Administrator
from nodes.simulator.oracles.detection import mistaken
from nodes.simulator.oracles.exact import Exact
from nodes.simulator.oracles.lasting import (
    FOREVER_S,
    Lasting,
    draw_lasting,
    powerless,
    served,
    stays,
)
from nodes.simulator.oracles.repeats import (
    GIVES_UP_S,
    is_known_elsewhere,
    stays_refused,
    survives_the_middle,
    takes_effect_once,
)
from nodes.simulator.oracles.stage import PROMPT_S, Stage, cut, is_answered, judge
from nodes.simulator.oracles.traffic import HandedOn, Traffic
from nodes.simulator.placed import (
    is_placed,
    newest_placements,
    settled_placements,
    unrestored_range,
)

LONGEST_S = 120.0
"""A suspicion that may take longer is not waited for: phi has learned from an unruly network."""
CALM = Quality(latency_s=0.001, jitter_s=0.0001)
"""The network of the time of rest."""
_AMONG = 8
"""Reads that each node has begun, one after the other, when a fault strikes among them, at most."""
_OFTEN = 4
"""Writes in the time in which they have to be told of."""
_WRITES = 10
"""So many in all: the last one comes when others have been told of twice, and not three times."""
_HANDED_ON = 6
"""Keys that each node is asked for, where some hand that on."""
ROUNDS = 2
"""Operations of each node at rest."""
RESTARTS = 0.25
"""The share of the seeds in which nodes are started again at rest."""
LOST_S = 0.01
"""So long all is lost that a node says, or is told, when it is asked for something: less than any
leader waits for."""
BUSY = 10
"""So often others ask before what was lost must be repeated."""


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
        if not (
            self._is_at_rest("rest")
            and self._spreads()
            and self._serves_promptly()
            and Exact(self._stage, self._pace, CALM).run()
            and self._makes_good()
            and self._comes_again()
            and self._hears_again()
            and self._finds_elsewhere()
        ):
            return
        administrator = self._administrator
        if not administrator.run() or (administrator.changed and not self._is_at_rest("changed")):
            return
        if lasting:
            leader = self._cluster.leader() if self._pace.unrest else None
            placed = is_placed(self._cluster)
            rng = self._cluster.rng("lasting")
            in_flight = self._pace.in_flight
            self.endure(draw_lasting(rng, self._nodes, leader, placed=placed, in_flight=in_flight))
        else:
            self._gives_up()

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
                rest.hoarders(cluster, self._stage.clients),
                rest.leftovers(cluster, self._stage.clients),
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

    def _spreads(self) -> bool:
        """Of one write, each node that has news of it tells as often as it has to. It comes when
        all agree: a node that has yet to hear of older values has more news to tell."""
        cluster, pace = self._cluster, self._pace
        if not pace.tells:
            return True
        with Traffic(cluster, pace.bare) as traffic:
            self._invoke("told", self._nodes[0], "write")
            cluster.run(pace.told_s)
        spreads = not is_placed(cluster)
        told = rest.told(traffic, pace, spreads=spreads)
        return self._judge("told", told) and self._tells_meanwhile()

    def _tells_meanwhile(self) -> bool:
        """Writes that go on and on keep nobody from telling of them; and of the last one its node
        tells as often as of one that comes alone."""
        cluster, pace = self._cluster, self._pace
        if pace.tells_every_s is None:
            return True
        node = self._nodes[-1]
        with Traffic(cluster, pace.bare) as traffic:
            for number in range(_WRITES):
                self._invoke(f"told.{number}", node, "write")
                cluster.run(pace.tells_every_s / _OFTEN)
        with Traffic(cluster, pace.bare) as last:
            self._invoke("told.last", node, "write")
            cluster.run(pace.told_s)
        # Where few nodes hold a key, another one may have written it.
        writer = None if is_placed(cluster) else node
        return (
            self._judge("told", rest.untold(traffic, last, pace, writer))
            and self._repairs_quietly()
        )

    def _repairs_quietly(self) -> bool:
        """What a node has missed is brought to it, and nobody begins to tell of it again: after a
        partition all that was written meanwhile would go round once more."""
        cluster, pace = self._cluster, self._pace
        if is_placed(cluster):
            return True
        nemesis = cut(self._stage, "isolate", self._nodes[0], FOREVER_S)
        self._invoke("missed", self._nodes[-1], "write")
        cluster.run(pace.told_s)
        nemesis.heal_all()
        with Traffic(cluster, pace.bare) as traffic:
            cluster.run(pace.settles_s)
        return self._judge("missed", rest.told_again(traffic, pace))

    def _invoke(self, phase: str, node: str, kind: OperationKind, key: str = "k0") -> None:
        """Ask a node once, whatever it answers."""
        operation = Operation(kind, key, phase if kind == "write" else None)
        self._stage.clients.invoke(f"{phase}-{node}-{key}", node, operation, lambda record: None)

    def _gives_up(self) -> None:
        """Where no majority is up, who is asked says so in time, and meanwhile asks nobody again
        who has answered."""
        cluster, gives_up_s = self._cluster, self._pace.gives_up_s
        nodes = self._nodes
        if gives_up_s is None or len(nodes) < 3:
            return
        self._stage.begin("alone")
        few = nodes[: len(nodes) // 2]
        for node in nodes[len(few) :]:
            cluster.crash(node)
        with Traffic(cluster, self._pace.bare) as traffic:
            self._invoke("alone", few[0], "read")
            self._invoke("alone", few[-1], "write")
            cluster.run(gives_up_s + GIVES_UP_S)
        self._judge("alone", rest.forgotten_clients(cluster, self._pace))
        self._judge("alone", rest.repeated(traffic, self._pace, few, 2))

    def _makes_good(self) -> bool:
        """What a node says, or is told, when it is asked for something is lost: it completes the
        operation all the same, without being asked again, and however much others ask of it."""
        cluster, repeats_s = self._cluster, self._pace.repeats_s
        if repeats_s is None:
            return True
        draw = cluster.rng("lost").random
        node = self._nodes[int(draw() * len(self._nodes))]
        shape = "mute" if draw() < 0.5 else "deaf"
        self._stage.begin("lost")
        cut(self._stage, shape, node, LOST_S)
        op: OperationKind = "read" if draw() < 0.5 else "write"
        return is_answered(
            self._stage,
            f"a moment {shape}",
            node,
            op,
            repeats_s + PROMPT_S,
            others_every_s=repeats_s / BUSY if draw() < 0.5 else None,
        )

    def _comes_again(self) -> bool:
        """Requests that come once more, after a crash or when nobody waits for their answer. Only
        where there is no leader: with one, more than a node has to be asked."""
        stage, pace = self._stage, self._pace
        if not stage.protocol.operations or pace.unrest:
            return True
        stage.begin("again")
        return all(
            asked(stage, pace)
            for asked in (takes_effect_once, is_known_elsewhere, stays_refused, survives_the_middle)
        )

    def _hears_again(self) -> bool:
        """Who leads is started again, and when that has settled, before anything is asked, the
        others are, one after the other: what they had heard and not written they hear again."""
        cluster = self._cluster
        # Elsewhere nobody tells what was missed before somebody asks for something.
        if not self._pace.catches_up or cluster.rng("restarts").random() >= RESTARTS:
            return True
        self._stage.begin("restarts")
        first = cluster.leader() or self._nodes[0]
        cluster.crash(first)
        cluster.restart(first)
        cluster.run(self._pace.settles_s)
        for node in self._nodes:
            if node != cluster.leader():
                cluster.crash(node)
                cluster.restart(node)
                cluster.run(LOST_S)
        return self._is_at_rest("restarted")

    def _finds_elsewhere(self) -> bool:
        """A client that did not hear the answer to its write asks another node, which has not heard
        of it, and is told the same."""
        cluster, clients = self._cluster, self._stage.clients
        if not self._pace.finds_elsewhere:
            return True
        first, other = self._nodes[0], self._nodes[-1]
        self._stage.begin("asked again")
        # Where few nodes hold a key, all of them may be needed, and another one asks them anyway.
        nemesis = None if is_placed(cluster) else cut(self._stage, "isolate", other, FOREVER_S)
        within_s = self._pace.serves_s
        if not is_answered(self._stage, "asked again", first, "write", within_s):
            return False
        if nemesis is not None:
            nemesis.heal_all()
        request = clients.ask_again(clients.history[-1], other)
        cluster.run(within_s)
        if (request.client, request.sequence) in cluster.hosts[other].unanswered:
            told = f"{first} acknowledged {request}, and {other} does not answer it"
            return self._judge("asked again", [("liveness", told)])
        return True

    def endure(self, lasting: Lasting) -> None:
        """A fault that lasts, and its end. The cluster is at rest."""
        cluster, pace = self._cluster, self._pace
        leader = cluster.leader() if pace.unrest else None
        phase = f"under {lasting.name}"
        began = before = len(cluster.marks)
        placements, voted = newest_placements(cluster), losses.voted_for(cluster)
        settled = settled_placements(cluster)
        fault = structs.replace(lasting.fault, at_s=cluster.now)
        nemesis = Nemesis(cluster, self._stage.clients, [fault])
        self._leave_open()
        handing = HandedOn(cluster, pace.handed_on, lasting.lame)
        cluster.run(0.0)
        for number in range(_HANDED_ON if pace.handed_on else 0):
            for node in self._nodes:
                self._invoke("handed", node, "read", f"k{number}")
        if not self._judge(phase, self._still_open(lasting)):
            return
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
                and self._is_unsure(phase, lasting)
                and self._is_restored(phase, lasting)
                and self._judge(
                    phase, losses.handed_to_suspects(cluster.marks[began:], handing.end())
                )
                and self._is_replaced(phase, lasting, cluster.marks[began:], settled)
                and self._is_well_placed(phase, lasting, began, placements, voted)
            ):
                self._heals(nemesis)

    def _leave_open(self) -> None:
        """Let each node have a write to do, and reads, when the fault begins."""
        if self._pace.carries_on_s is None:
            return
        for node in self._nodes:
            self._invoke(f"open.{node}", node, "write")
        for number in range(1 + int(_AMONG * self._cluster.rng("open").random())):
            for node in self._nodes:
                self._invoke(f"open.{number}", node, "read")
            self._cluster.run(CALM.latency_s)

    def _still_open(self, lasting: Lasting) -> Iterator[rest.Finding]:
        """Whoever is served carries on with what it had begun."""
        cluster, within_s = self._cluster, self._pace.carries_on_s
        if within_s is not None:
            cluster.run(within_s)
            nodes = served(cluster, lasting.lame, self._stage.protocol.needs)
            for node in nodes:
                for client, _ in cluster.hosts[node].unanswered:
                    told = f"{node} has not answered {client}'s request {within_s:g} s later"
                    yield "liveness", f"{told}, though a majority is there"
                    return

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
        lost = self._silent(lasting)
        bound_s = max((models[o].suspects_within_s(peer) for o, peer in lost), default=0.0)
        if bound_s > LONGEST_S:
            return True
        cluster.run(bound_s)
        return self._judge(
            phase, mistaken(cluster, self._stage.detectors, lost, without=lasting.lame)
        )

    def _silent(self, lasting: Lasting) -> set[tuple[str, str]]:
        """Pairs of a node and a peer that it does not hear."""
        return {
            (observer, peer)
            for observer in self._nodes
            for peer in self._nodes
            if observer not in lasting.lame
            and observer != peer
            and (peer in lasting.lame or self._cluster.links[peer, observer].is_cut)
        }

    def _is_unsure(self, phase: str, lasting: Lasting) -> bool:
        """Who does not hear a peer does not say that its copies agree."""
        if self._pace.unsure_s is None or lasting.fault.kind not in ("crash", "partition"):
            return True
        lost = self._silent(lasting)
        if lost:
            self._cluster.run(self._pace.unsure_s)
        return self._judge(phase, status.too_sure(self._cluster, lost))

    def _is_replaced(
        self, phase: str, lasting: Lasting, marks: list[Mark], settled: Sequence[Placement]
    ) -> bool:
        """As soon as it is lost for certain. ``marks``: since the fault; ``settled``: see
        `losses.tardy`."""
        within_s = self._pace.replaces_s
        return within_s is None or self._judge(
            phase, losses.tardy(marks, settled, lasting.lame, within_s)
        )

    def _is_well_placed(
        self,
        phase: str,
        lasting: Lasting,
        began: int,
        before: Sequence[Placement],
        voted: Collection[Placement],
    ) -> bool:
        """What was lost goes where it has to go, and nothing to the node that is down; nor when
        another one is started again, which has never heard of it. ``began``: the first mark since
        the fault; ``before``: the placements then; ``voted``: those that had votes."""
        if not before or not lasting.lame:
            return True
        cluster, lame = self._cluster, lasting.lame
        wrong = losses.wrong_place(cluster, cluster.marks[began:], before, lame[0])
        if not self._judge(phase, wrong):
            return False
        again = next(node for node in self._nodes if node not in lame)
        cluster.crash(again)
        cluster.restart(again)
        return self._is_restored(phase, lasting) and self._judge(
            phase, losses.onto_lost(cluster.marks[began:], before, lame, voted)
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
