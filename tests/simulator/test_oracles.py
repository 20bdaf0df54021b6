"""What is judged once the faults are over: each oracle sees what it is for, and nothing in what is
right."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import pytest

from nodes.contract.replica import Operation, Reply, Request
from nodes.parts.failure_detector import Heartbeat, HeartbeatParameters, PhiParameters
from nodes.parts.placement import first_placement
from nodes.protocols.quorum_register import QuorumRegister
from nodes.protocols.raft import Raft, TimeoutNow
from nodes.protocols.raft.election_claims import ElectionsAreDue
from nodes.registry import get
from nodes.simulator.bugs.heeded import HigherTermIgnored
from nodes.simulator.bugs.paxos import SurveyHearsNobody
from nodes.simulator.bugs.promises import TransferNeverEnds
from nodes.simulator.bugs.raft import LeadsWithoutMajority, PreVoteAgainstALeader
from nodes.simulator.bugs.retries import WaitsForANewMember
from nodes.simulator.cluster import Cluster, Mark
from nodes.simulator.faults import Fault
from nodes.simulator.load import ClientPolicy, Clients, OperationRecord
from nodes.simulator.oracles import administrator, causal
from nodes.simulator.oracles.administrator import members_of
from nodes.simulator.oracles.aftermath import CALM, Aftermath
from nodes.simulator.oracles.detection import Detectors, Model
from nodes.simulator.oracles.lasting import FOREVER_S, Lasting, cliques, served, stays
from nodes.simulator.oracles.losses import hasty, wrong_place
from nodes.simulator.oracles.rest import leftovers
from nodes.simulator.oracles.status import misreported

EAGER = {"heartbeat_s": 0.03, "election_timeout_min_s": 0.1, "election_timeout_max_s": 0.2}


class Stage:
    """What a run lends, of a cluster of three that was never disturbed."""

    def __init__(self, name: str, replica: Any = None, **parameters: Any) -> None:
        self.protocol = get(name)
        if replica is not None:
            self.protocol = planted(self.protocol, replica)
        self.detectors = Detectors()
        self.cluster = Cluster(
            self.protocol,
            nodes=3,
            parameters=parameters,
            quality=CALM,
            on_build=self.detectors.attach,
        )
        self.clients = Clients(self.cluster, ClientPolicy())
        self.alarms: list[tuple[str, str]] = []
        self.pace = self.protocol.pace(
            self.cluster.hosts["n1"].config.parameters, self.cluster.nodes
        )
        self.cluster.run(2.0)

    def begin(self, phase: str) -> None:
        pass

    def alarm(self, check: str, message: str) -> None:
        self.alarms.append((check, message))

    def ask(self, phase: str, nodes: list[str], bound_s: float, mark: str) -> bool:
        if not self.protocol.operations:
            return True
        done: list[OperationRecord] = []
        for node in nodes:
            name = f"{mark}-{node}-{len(self.clients.history)}"
            self.clients.invoke(name, node, Operation("write", "k", name), done.append)
        self.cluster.run(bound_s)
        if len([record for record in done if record.outcome == "ok"]) == len(nodes):
            return True
        self.alarm("liveness", phase)
        return False

    def endure(self, kind: str, lame: tuple[str, ...] = (), **args: Any) -> list[str]:
        """The checks that fail under a fault that lasts."""
        fault = Fault(at_s=0.0, kind=kind, for_s=FOREVER_S, args=args)
        Aftermath(self, self.pace).endure(Lasting(fault, lame))
        return [check for check, _ in self.alarms]


def planted(protocol: Any, replica: Any) -> Any:
    return msgspec.structs.replace(protocol, replica=replica)


def unjudged(replica: Any) -> Any:
    """A node whose pre-votes nobody judges as they are granted: what comes of them is to be
    seen."""
    judges = tuple(judge for judge in replica.INVARIANTS if judge is not ElectionsAreDue)
    return type(replica.__name__, (replica,), {"INVARIANTS": judges})


def deaf_to_its_leader(stage: Stage) -> dict[str, Any]:
    """Only the link from the leader to one of the others is cut."""
    leader = stage.cluster.leader()
    assert leader is not None
    other = next(node for node in stage.cluster.nodes if node != leader)
    return {"groups": [[leader], [other]], "one_way": True}


@pytest.mark.parametrize(
    ("name", "broken"), [("raft", unjudged(PreVoteAgainstALeader)), ("paxos", SurveyHearsNobody)]
)
def test_a_leader_that_a_majority_hears_stays(name: str, broken: Any) -> None:
    sound, disruptive = Stage(name, **EAGER), Stage(name, broken, **EAGER)
    assert sound.endure("partition", **deaf_to_its_leader(sound)) == []
    assert disruptive.endure("partition", **deaf_to_its_leader(disruptive)) == ["stability"]


def test_a_leader_that_hears_nobody_makes_room() -> None:
    for replica, expected in ((Raft, []), (LeadsWithoutMajority, ["liveness"])):
        stage = Stage("raft", replica, **EAGER)
        leader = stage.cluster.leader()
        assert stage.endure("partition", groups="deaf", nodes=[leader]) == expected


def test_a_leader_that_was_left_alone_leads_no_longer() -> None:
    for replica, expected in ((Raft, []), (LeadsWithoutMajority, ["stability"])):
        stage = Stage("raft", replica, **EAGER)
        leader = stage.cluster.leader()
        assert stage.endure("partition", groups="isolate", nodes=[leader]) == expected


def test_leadership_goes_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unwilling(Raft):
        def on_timeout_now(self, src: str, m: TimeoutNow) -> None:
            pass

    monkeypatch.setattr(administrator, "HANDOVERS", 1.0)
    for replica, expected in ((Raft, []), (Unwilling, ["liveness"])):
        stage = Stage("raft", replica, **EAGER)
        Aftermath(stage, stage.pace).run(lasting=False)
        assert [check for check, _ in stage.alarms] == expected


def test_who_stood_for_election_unheard_is_served_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(administrator, "HANDOVERS", 1.0)
    monkeypatch.setattr(administrator, "MUTE", 1.0)
    for replica, expected in ((Raft, []), (HigherTermIgnored, ["liveness"])):
        stage = Stage("raft", replica, **EAGER)
        Aftermath(stage, stage.pace).run(lasting=False)
        assert [check for check, _ in stage.alarms] == expected


@pytest.mark.parametrize(
    ("field", "said"), [("ranges", "0"), ("placement", "n1:3 n2:2 n3:3"), ("bytes_moved", 7)]
)
def test_what_a_node_says_of_placements_is_so(field: str, said: Any) -> None:
    class Boaster(QuorumRegister):
        def probe(self) -> dict[str, Any]:
            return {**super().probe(), field: said}

    for replica, expected in ((QuorumRegister, []), (Boaster, ["status"])):
        stage = Stage("quorum-placed", replica, replication_factor=2, ranges=4, buckets=16)
        assert [c for c, _ in misreported(stage.cluster, stage.pace)] == expected


def test_who_cannot_join_does_not_stop_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administrator, "CHANGES", 1.0)
    for replica, expected in ((Raft, []), (WaitsForANewMember, ["liveness"])):
        stage = Stage("raft", replica, **EAGER)
        Aftermath(stage, stage.pace).run(lasting=False)
        assert [check for check, _ in stage.alarms] == expected
        known = {members_of(stage.cluster, node) for node in stage.cluster.nodes}
        assert (known == {stage.cluster.nodes}) == (not expected)


def test_a_handover_to_a_node_that_is_down_ends() -> None:
    for replica, expected in ((Raft, []), (TransferNeverEnds, ["liveness"])):
        stage = Stage("raft", replica, retry_s=0.1, **EAGER)
        leader = stage.cluster.leader()
        down = next(node for node in stage.cluster.nodes if node != leader)
        assert stage.endure("crash", lame=(down,), nodes=[down]) == expected


@pytest.mark.parametrize(
    ("name", "field", "said"),
    [
        ("raft", "leader", "n9"),
        ("raft", "term", 99),
        ("raft", "role", "leader"),
        ("raft", "members", "n1"),
        ("paxos", "ready", False),
        ("paxos", "ballot", "9.n9"),
        ("quorum", "pending", 1),
        ("quorum", "tombstones", 1),
        ("gossip", "keys", 1),
    ],
)
def test_what_a_node_says_of_itself_at_rest_is_so(name: str, field: str, said: Any) -> None:
    protocol: Any = get(name).replica

    def probe(self: Any) -> dict[str, Any]:
        return {**protocol.probe(self), field: said}

    boaster = type("Boaster", (protocol,), {"probe": probe})
    for replica, expected in ((protocol, []), (boaster, ["status"])):
        stage = Stage(name, replica)
        stage.cluster.run(10.0)
        assert [c for c, _ in misreported(stage.cluster, stage.pace)] == expected


class Keeps(Raft):
    """Each request stays in a table of its node, in one of the shapes that tables have."""

    __slots__ = ("_slotted",)
    shape = ""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._slotted: dict[Any, Any] = {}
        self._listed: deque[Any] = deque()

    def on_request(self, request: Request) -> None:
        name = request.client, request.sequence
        if self.shape == "a key":
            self._slotted[name] = "n1"
        elif self.shape == "an item":
            self._listed.append((request, "n1"))
        elif self.shape == "in a group":
            self._listed.append((1, 2, [(request, "n1")]))
        elif self.shape == "in a part":
            self._map.asked = [request]  # type: ignore[attr-defined]
        super().on_request(request)


@pytest.mark.parametrize(
    ("shape", "where"),
    [
        ("", None),
        ("a key", "_slotted"),
        ("an item", "_listed"),
        ("in a group", "_listed"),
        ("in a part", "_map.asked"),
    ],
)
def test_what_is_done_stays_in_no_table(
    shape: str, where: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keeps, "shape", shape)
    stage = Stage("raft", Keeps)
    operation = Operation("write", "k", 1)
    stage.clients.invoke("c", "n1", operation, lambda record: None)
    stage.cluster.run(1.0)
    found = [told for _, told in leftovers(stage.cluster, stage.clients)]
    assert found == ([] if where is None else [f"n1 still has c's request 0 in {where}"])


def test_only_who_was_suspected_for_long_enough_is_lost() -> None:
    cluster = Cluster(get("quorum-placed"), nodes=4, parameters={"recover_after_s": 2.0})

    def found(*marks: tuple[float, str, str]) -> list[str]:
        cluster.marks[:] = [
            Mark(at_s, "n1", name, {"node": peer, "lost": peer}) for at_s, name, peer in marks
        ]
        return [check for check, _ in hasty(cluster, since_s=5.0)]

    lost = "under_replicated"
    assert found((6.0, "suspect", "n2"), (8.0, lost, "n2")) == []
    assert found((6.0, "suspect", "n2"), (7.9, lost, "n2")) == ["re-replication"]
    assert found((4.0, "suspect", "n2"), (5.0, lost, "n2")) == [], "clocks may have been wrong"
    assert found((6.0, "suspect", "n3"), (8.0, lost, "n2")) == ["re-replication"]
    back = (6.0, "suspect", "n2"), (7.0, "trust", "n2"), (9.0, lost, "n2")
    assert found(*back) == ["re-replication"]


def test_the_place_of_who_is_lost_goes_to_the_least_loaded() -> None:
    cluster = Cluster(get("quorum-placed"), nodes=5)
    before = [first_placement(number, cluster.nodes, 3) for number in range(3)]

    def found(*moves: tuple[int, str]) -> list[str]:
        marks = [
            Mark(0.0, "n2", "under_replicated", {"range": number, "lost": "n1", "to": to})
            for number, to in moves
        ]
        return [check for check, _ in wrong_place(cluster, marks, before, "n1")]

    assert before[0].nodes == ("n1", "n2", "n3")
    assert before[1].nodes == ("n4", "n5", "n1")
    assert found((0, "n5"), (1, "n2")) == [], "n5 has one, all others have two"
    assert found((0, "n4")) == ["re-replication"]
    assert found((1, "n3")) == ["re-replication"], "of equals the first"


@pytest.mark.parametrize("kind", ["isolate", "mute", "deaf"])
def test_who_is_no_longer_heard_is_suspected_in_time(kind: str) -> None:
    assert Stage("heartbeat").endure("partition", groups=kind, nodes=["n2"]) == []


def test_a_cluster_at_rest_is_silent_and_prompt() -> None:
    for name in ("raft", "paxos", "gossip", "quorum", "heartbeat"):
        stage = Stage(name)
        Aftermath(stage, stage.pace).run(lasting=False)
        assert stage.alarms == [], name


def test_whoever_stands_for_election_at_rest_is_seen() -> None:
    class Restless(Raft):
        def _heard(self, leader: str) -> None:
            before = self._heard_at_s
            super()._heard(leader)
            self._heard_at_s = before

    stage = Stage("raft", unjudged(Restless))
    Aftermath(stage, stage.pace).run(lasting=False)
    assert [check for check, _ in stage.alarms] == ["stability"]


def test_who_has_to_be_served_is_in_every_majority_that_reaches_itself() -> None:
    cluster = Cluster(get("raft"), nodes=5)
    assert served(cluster, ["n1", "n2"], "majority") == ["n3", "n4", "n5"]
    assert served(cluster, ["n1"], "any node") == ["n2", "n3", "n4", "n5"]
    cluster.cut([("n1", "n2")])
    assert cliques(cluster, cluster.nodes, 3) == [
        ("n1", "n3", "n4", "n5"),
        ("n2", "n3", "n4", "n5"),
    ]
    assert served(cluster, [], "majority") == ["n3", "n4", "n5"]
    assert stays(cluster, [], "n1")
    assert not stays(cluster, ["n3", "n4"], "n1")


# --- detectors ---


def test_the_model_forgets_an_outage_and_bounds_its_suspicions() -> None:
    times = HeartbeatParameters(heartbeat_every_s=1.0, check_every_s=0.5)
    model = Model(("n2",), 0.0, times, {"": PhiParameters(acceptable_pause_s=1.0)})
    for second in range(1, 20):
        model.hear("n2", Heartbeat(1, second), float(second))
    before = model.suspects_within_s("n2")
    model.hear("n2", Heartbeat(1, 20), 80.0)
    assert model.suspects_within_s("n2") == before
    assert 2.0 < before < 5.0
    assert [suspected for _, suspected, _ in model.check(80.0)] == [[]]
    assert [suspected for _, suspected, _ in model.check(80.0 + before)] == [["n2"]]


# --- causality ---


class Past:
    """A history, told."""

    def __init__(self) -> None:
        self.history: list[OperationRecord] = []
        self.requests: list[Request] = []

    def add(
        self,
        op: Any,
        node: str,
        value: Any,
        version: Any,
        context: Any = None,
        outcome: Any = "ok",
    ) -> Past:
        number = len(self.history)
        self.history.append(
            OperationRecord(
                process=f"c{number}",
                id=number,
                op=op,
                key="k",
                outcome=outcome,
                invoked_ns=10 * number,
                completed_ns=10 * number + 5,
                value=value,
                node=node,
                version=version,
            )
        )
        written = None if op == "read" else value
        self.requests.append(Request("c", number, Operation(op, "k", written, context=context)))
        return self

    def siblings(self) -> list[str]:
        keys = causal.by_key(self.history, self.requests, ())
        return [check for check, _ in causal.siblings(keys, 1)]


def two_siblings() -> Past:
    return Past().add("write", "n1", "a", {"n1": 1}).add("write", "n2", "b", {"n2": 1}, {})


def test_siblings_are_what_no_other_write_has_seen() -> None:
    both = {"n1": 1, "n2": 1}
    assert two_siblings().add("read", "n1", ["a", "b"], both).siblings() == []
    assert two_siblings().add("read", "n1", "a", both).siblings() == ["causality"]
    seen = two_siblings().add("write", "n1", "c", {"n1": 2, "n2": 1}, {"n1": 1})
    assert seen.add("read", "n1", ["b", "c"], {"n1": 2, "n2": 1}).siblings() == []
    seen = two_siblings().add("write", "n1", "c", {"n1": 2, "n2": 1}, {"n1": 1})
    assert seen.add("read", "n1", "c", {"n1": 2, "n2": 1}).siblings() == ["causality"]


def test_what_was_seen_does_not_come_back() -> None:
    seen = two_siblings().add("delete", "n1", None, {"n1": 2, "n2": 1}, {"n1": 1})
    assert seen.add("read", "n2", ["a", "b"], {"n1": 2, "n2": 1}).siblings() == ["causality"]
    gone = Past().add("delete", "n1", None, {"n1": 1})
    assert gone.add("read", "n2", None, {"n2": 1}).add("read", "n1", None, None).siblings() == []


def test_a_write_that_nobody_answered_excuses_what_it_may_have_seen() -> None:
    after = {"n1": 1, "n2": 1}
    lost = two_siblings().add("write", "n1", "c", None, {"n2": 1}, outcome="info")
    assert lost.add("read", "n1", "a", after).siblings() == []
    kept = two_siblings().add("write", "n1", "c", None, {"n2": 1}, outcome="info")
    assert kept.add("read", "n1", "b", after).siblings() == ["causality"]
    blind = two_siblings().add("write", "n1", "c", None, outcome="info")
    assert blind.add("read", "n1", "b", after).siblings() == []


@pytest.mark.parametrize(
    ("context", "version", "found"),
    [
        ({"n1": 1}, {"n1": 2}, 0),
        ({"n1": 1}, {"n2": 1}, 1),
        ([5, 0, "n1"], [5, 1, "n2"], 0),
        ([5, 0, "n1"], [4, 9, "n2"], 1),
    ],
)
def test_a_write_is_newer_than_what_its_client_read(context: Any, version: Any, found: int) -> None:
    past = Past().add("write", "n2", "b", version, context)
    assert len(list(causal.newer_than_context(past.history, past.requests, ()))) == found


def test_the_version_at_a_node_never_goes_back() -> None:
    past = Past().add("write", "n1", "a", [2, 0, "n1"]).add("read", "n2", "z", [1, 0, "n2"])
    assert list(causal.never_back(past.history, ())) == []
    past.add("read", "n1", "z", [1, 0, "n2"])
    assert len(list(causal.never_back(past.history, ()))) == 1
    assert list(causal.never_back(past.history, (2,))) == []


def test_a_version_names_one_value() -> None:
    past = Past().add("write", "n1", "a", [2, 0, "n1"]).add("read", "n2", "a", [2, 0, "n1"])
    assert list(causal.one_value(past.history, ())) == []
    past.add("read", "n2", "b", [2, 0, "n1"])
    assert len(list(causal.one_value(past.history, ()))) == 1


def test_a_reply_that_never_comes_is_seen() -> None:
    class Mute(get("gossip").replica):  # type: ignore[misc]
        def _reply(self, request: Request, outcome: Any, **fields: Any) -> None:
            if request.sequence != 0:
                self.out.reply(Reply(request.client, request.sequence, outcome, **fields))

    stage = Stage("gossip", Mute)
    stage.clients.invoke("c", "n1", Operation("read", "k"), lambda record: None)
    Aftermath(stage, stage.pace).run(lasting=False)
    assert [check for check, _ in stage.alarms] == ["unanswered"]
