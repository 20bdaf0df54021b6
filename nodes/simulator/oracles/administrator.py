"""An administrator at work on a cluster at rest: leadership goes where it is wanted, and members
are changed as they should be, one after the other."""

from __future__ import annotations

from nodes.contract.pace import Pace
from nodes.contract.replica import Message
from nodes.simulator.cluster import Cluster
from nodes.simulator.oracles.lasting import FOREVER_S
from nodes.simulator.oracles.rest import applied
from nodes.simulator.oracles.stage import PROMPT_S, Stage, cut, is_answered, judge

HANDOVERS = 0.5
"""The share of the seeds in which an administrator hands leadership over at rest, where there is
such a thing; and of those in which he tries to hand it to a node that is cut off."""
MUTE = 0.5
"""The share of these in which he is only mute."""
CHANGES = 0.25
"""The share of the seeds in which he changes members at rest."""
_LOOK_EVERY_S = 0.05
_ASK_EVERY_S = 0.2
"""What is refused since another change is under way is asked for again."""


class Administrator:
    """Does one after the other; the first alarm ends it. ``changed``: he changed members."""

    def __init__(self, stage: Stage, pace: Pace) -> None:
        self._stage = stage
        self._pace = pace
        self._cluster = stage.cluster
        self._nodes = list(stage.cluster.nodes)
        self._messages = stage.protocol.administration.messages
        self.changed = False

    def run(self) -> bool:
        """Whether all went as it should."""
        if self._cluster.leader() is None or not self._messages:
            return True
        return self._gives_up() and self._hands_over() and self._changes_members()

    def hand_over(self, target: str) -> str | None:
        """Ask for it. Returns who is to make room; None if there is no such thing."""
        leader, transfer = self._cluster.leader(), self._messages.get("transfer")
        if transfer is None or leader is None:
            return None
        self._stage.begin("handover")
        self._cluster.hosts[leader].receive(Message(leader, transfer(target)))
        return leader

    def _other(self, draw: float) -> str:
        leader = self._cluster.leader()
        others = [node for node in self._nodes if node != leader]
        return others[int(draw * len(others))]

    def _gives_up(self) -> bool:
        """To hand over to who is cut off; the leader then deals at once with all that came in the
        meantime. Who is only mute stands for election, and nobody hears of it: when it is back in a
        term of its own, it is served as well."""
        bound_s, draw = self._pace.hands_over_s, self._cluster.rng("given up").random
        if bound_s is None or draw() >= HANDOVERS:
            return True
        target = self._other(draw())
        shape = "mute" if draw() < MUTE else "isolate"
        nemesis = cut(self._stage, shape, target, FOREVER_S)
        leader = self.hand_over(target)
        # Not at the beginning, when a retry may come just as the handover ends.
        waited_s = bound_s / 4
        self._cluster.run(waited_s)
        left_s = bound_s - waited_s + PROMPT_S
        answered = leader is None or is_answered(
            self._stage, "a handover to nobody", leader, "write", left_s
        )
        nemesis.heal_all()
        return answered and self._stage.ask("given up", self._nodes, self._pace.serves_s, "back")

    def _hands_over(self) -> bool:
        """Clients are served meanwhile."""
        draw = self._cluster.rng("handover").random
        if draw() >= HANDOVERS:
            return True
        target = self._other(draw())
        self._let_catch_up(target)
        leader = self.hand_over(target)
        if leader is None:
            return True
        if not self._stage.ask("handover", self._nodes, self._pace.serves_s, "handover"):
            return False
        self._cluster.run(1.0)
        leads = self._cluster.leader()
        told = f"{leader} was to make {target} the leader; it is {leads}"
        return leads == target or judge(self._stage, "handover", [("liveness", told)])

    def _let_catch_up(self, target: str) -> None:
        """A leader gives up if its successor lacks more than can be sent in time, as it may after
        another handover, in many small pieces. Who never comes level cannot lead either."""
        end_s = self._cluster.now + self._pace.serves_s
        cluster = self._cluster
        while cluster.now < end_s:
            leader = cluster.leader()
            if leader is None or applied(cluster, leader) == applied(cluster, target):
                return
            cluster.run(_LOOK_EVERY_S)

    def _changes_members(self) -> bool:
        """Two go. One of them is cut off: that stops no handover to it for long, and no other
        change although it is to come back. Then both come back."""
        draw = self._cluster.rng("members").random
        if not {"add", "remove"} <= {*self._messages} or draw() >= CHANGES:
            return True
        self.changed = True
        lost = self._other(draw())
        other, *rest = sorted((n for n in self._nodes if n != lost), key=lambda node: draw())
        nemesis = cut(self._stage, "isolate", lost, FOREVER_S)
        self.hand_over(lost)
        if not self._change("remove", lost, [other, *rest]):
            return False
        self._ask("add", lost)
        if not self._change("remove", other, rest) or not self._serve(rest):
            return False
        nemesis.heal_all()
        return (
            self._change("add", other, [other, *rest])
            and self._change("add", lost, self._nodes)
            and self._serve(self._nodes)
        )

    def _serve(self, nodes: list[str]) -> bool:
        return self._stage.ask("changed", nodes, self._pace.serves_s, "changed")

    def _ask(self, action: str, node: str) -> None:
        for host in self._cluster.hosts.values():
            host.receive(Message(host.id, self._messages[action](node)))

    def _change(self, action: str, node: str, wanted: list[str]) -> bool:
        """All of those who are to be the members know it, in time."""
        cluster, phase = self._cluster, f"{action} {node}"
        self._stage.begin(phase)
        end_s = cluster.now + self._pace.serves_s
        while cluster.now < end_s:
            self._ask(action, node)
            cluster.run(_ASK_EVERY_S)
            known = [members_of(cluster, each) for each in wanted]
            if all(members is not None and {*members} == {*wanted} for members in known):
                return True
        told = f"{', '.join(wanted)} know {known}, after {self._pace.serves_s:g} s"
        return judge(self._stage, phase, [("liveness", told)])


def members_of(cluster: Cluster, node: str) -> tuple[str, ...] | None:
    """The members that a node has on disk (`nodes.contract.administration.Administration`); None
    if they are not confirmed: a change is two entries (`nodes.protocols.raft.replica`)."""
    disk = cluster.hosts[node].storage.synced
    known = [cluster.nodes if disk.snapshot is None else tuple(disk.snapshot.members)]
    entries = disk.entries(disk.first_index, disk.last_index + 1)
    known += [entry.members for entry in entries if entry.members is not None]
    return known[-1] if len({*known[-2:]}) == 1 else None
