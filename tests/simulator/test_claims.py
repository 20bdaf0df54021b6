"""Claims are judged when they leave a node: a lie is seen before anything comes of it."""

from __future__ import annotations

import random
from typing import Any, ClassVar, get_origin, get_type_hints

import msgspec
import pytest

from nodes.contract.disk import Disk
from nodes.contract.replica import (
    Config,
    Invariant,
    InvariantBroken,
    Operation,
    Reply,
    Request,
    Scene,
)
from nodes.parts.claims import Led, MessagesAreBounded, TheLastAreRemembered
from nodes.parts.limits import KeyLimits
from nodes.parts.placement import OfPlacements
from nodes.parts.quorum import fencing_quorum
from nodes.parts.reference_map import ReferenceMap
from nodes.parts.replicated_map import ReplicatedMap
from nodes.parts.sessions import Result, Sessions
from nodes.protocols.gossip.claims import WritesAreHandedOn
from nodes.protocols.gossip.messages import Forward
from nodes.protocols.paxos.claims import PaxosMessagesAreBounded
from nodes.protocols.quorum_register import QuorumParameters
from nodes.protocols.raft import (
    AcknowledgementsAreTrue,
    AppendEntries,
    AppendEntriesReply,
    Entry,
    HardState,
    InstallSnapshot,
    InstallSnapshotReply,
    RaftParameters,
    TimeoutNow,
)
from nodes.protocols.raft.claims import RaftMessagesAreBounded
from nodes.registry import get
from nodes.simulator.bugs import all_bugs
from nodes.simulator.cluster import Cluster
from nodes.simulator.simulate import simulate

BUGS = {bug.name: bug for bug in all_bugs()}


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("raft-reads-join-a-round", "an answer is what the log says"),
        ("raft-snapshot-sorts-clients", "state machine safety"),
        ("raft-vote-before-fsync", "a vote that leaves stands"),
        ("raft-pre-vote-for-any-log", "an election is due"),
        ("raft-old-pre-votes-count", "an election is due"),
        ("raft-old-timeout-now", "an election is due"),
        ("raft-refusal-not-on-disk", "a refusal stays"),
        ("raft-reads-end-unknown", "a refusal stays"),
        ("quorum-reader-acknowledges", "a replica tells what is on its disk"),
        ("gossip-refusal-forgotten", "a node tells what is on its disk"),
        ("raft-ack-before-fsync", "what is acknowledged is durable, and the leader's"),
        ("raft-sends-all-again", "what is acknowledged is durable, and the leader's"),
        ("paxos-sends-all-again", "an acceptor tells what is on its disk"),
        ("paxos-reads-join-a-round", "an answer is what the log says"),
        ("paxos-accepted-before-fsync", "an acceptor tells what is on its disk"),
        ("paxos-votes-not-found", "an acceptor tells what is on its disk"),
        ("quorum-old-requests-not-remembered", "a replica tells what is on its disk"),
        ("quorum-pushes-before-fsync", "a replica tells what is on its disk"),
        ("gossip-clock-claims-too-much", "a node tells what is on its disk"),
        ("quorum-pushes-what-is-known", "an exchange tells exactly what the other lacks"),
        ("gossip-always-the-same-partner", "partners are drawn at random"),
        ("gossip-stamps-only-count", "a stamp follows the wall clock"),
        ("raft-shows-too-soon", "an answer is what the log says"),
        ("paxos-one-part-missing", "a leader proposes what the promises tell"),
        ("paxos-late-refusal-deposes", "a ballot is kept"),
        ("paxos-old-surveys-count", "a ballot is due"),
        ("paxos-surveys-begin-again", "a ballot is due"),
        ("raft-refusals-stay-on-disk", "a refusal stays"),
        ("quorum-forgets-who-came-first", "the clients that wrote last are remembered"),
        ("gossip-small-messages", "an exchange tells exactly what the other lacks"),
        ("gossip-two-messages-in-one", "an exchange tells exactly what the other lacks"),
        ("quorum-tells-of-twice-the-keys", "an exchange tells exactly what the other lacks"),
        ("quorum-tells-of-nothing-more", "an exchange tells exactly what the other lacks"),
        ("recovery-pages-are-too-long", "a new member holds what a quorum before it held"),
        ("placement-chooses-anew", "acceptors of placements keep their word"),
        ("placement-first-vote-wins", "acceptors of placements keep their word"),
        ("recovery-tells-of-the-last-page", "a new member holds what a quorum before it held"),
        ("placement-promise-before-fsync", "acceptors of placements keep their word"),
        ("placement-vote-before-fsync", "acceptors of placements keep their word"),
        (
            "recovery-page-without-its-last-key",
            "a new member holds what a quorum before it held",
        ),
        ("recovery-copies-from-the-unready", "a new member holds what a quorum before it held"),
        ("paxos-takes-one-of-each", "a leader proposes what it is handed"),
        (
            "raft-late-acknowledgement-goes-back",
            "what is acknowledged is durable, and the leader's",
        ),
        ("raft-hears-for-a-heartbeat", "an election is due"),
        ("raft-new-leader-grants", "an election is due"),
        ("raft-answers-in-one-message", "a message is bounded"),
        ("paxos-promises-in-one-part", "a message is bounded"),
        ("paxos-late-refusals-lengthen-pauses", "a pause is as long as the duel asks for"),
        ("paxos-pauses-do-not-grow", "a pause is as long as the duel asks for"),
        ("raft-snapshot-starts-anew", "a transfer goes on with its snapshot"),
        ("paxos-begins-above-its-promise", "a ballot is kept"),
        ("paxos-votes-again", "an acceptor tells what is on its disk"),
        ("paxos-follows-the-deposed", "one proposer"),
        ("raft-follows-the-last-one", "election safety"),
        ("raft-acknowledges-behind-the-disk", "what is on disk waits for it no more"),
        ("raft-answers-behind-the-disk", "what is on disk waits for it no more"),
        (
            "raft-late-refusals-probe-again",
            "what is acknowledged is durable, and the leader's",
        ),
        ("recovery-ready-in-silence", "a new member holds what a quorum before it held"),
        (
            "recovery-stores-under-the-unknown",
            "who answers under a placement is a ready member of it",
        ),
        ("recovery-answers-for-others", "who answers under a placement is a ready member of it"),
        ("recovery-answers-before-its-placement", "a replica tells what is on its disk"),
        ("recovery-old-answers-count", "a quorum is of one placement"),
        ("recovery-late-page-begins-again", "a copy goes on where it was"),
        (
            "recovery-answers-while-it-copies",
            "who answers under a placement is a ready member of it",
        ),
        ("recovery-asks-the-old-members", "a quorum is of one placement"),
        ("recovery-beats-behind-the-disk", "what is said early waits for no disk"),
    ],
)
def test_a_lie_is_seen_by_the_check_that_it_belongs_to(name: str, check: str) -> None:
    planted = BUGS[name].planted()
    for seed in range(1, 61):
        alarms = simulate(planted, seed, duration_s=5.0, finish=False).alarms
        if alarms:
            assert [alarm.check for alarm in alarms] == [f"invariant: {check}"]
            return
    pytest.fail("60 seeds without an alarm")


@pytest.mark.parametrize(
    ("name", "claim"), [("raft", RaftMessagesAreBounded), ("paxos", PaxosMessagesAreBounded)]
)
def test_whatever_message_holds_several_items_has_a_limit(
    name: str, claim: type[MessagesAreBounded]
) -> None:
    several = {
        message: field
        for message in get(name).replica.MESSAGES
        for field, kind in get_type_hints(message).items()
        if get_origin(kind) in (tuple, list, dict)
    }
    assert claim.carries == several
    assert {*claim.carries} <= {*claim.hears}


def test_a_message_is_bounded_by_items_and_by_bytes() -> None:
    parameters = RaftParameters(batch_entries=2, batch_bytes=200)
    claim = RaftMessagesAreBounded()
    claim.begin(Scene({"n1": Config("n1", ("n1", "n2"), parameters)}, {}))

    def of(*values: str) -> AppendEntries:
        requests = [Request("c", 1, Operation("write", "k", value), 0) for value in values]
        entries = tuple(Entry(1, request) for request in requests)
        return AppendEntries(1, 0, 0, 0, 0, entries)

    for allowed in (of(), of("a"), of("a", "b"), of("a" * 1000), of("a" * 60, "b")):
        claim.on_message("n1", "n2", allowed)
    for refused, told in ((of("a", "b", "c"), "3 items"), (of("a" * 60, "b" * 60), "250 bytes")):
        with pytest.raises(InvariantBroken, match=told):
            claim.on_message("n1", "n2", refused)


def test_who_waits_for_what_a_snapshot_answers_is_seen() -> None:
    """Several at a time wait for that in one seed of twenty."""
    planted = BUGS["raft-snapshot-answers-one"].planted()
    alarms = (alarm for seed in range(101, 141) for alarm in simulate(planted, seed).alarms)
    assert next(alarms).check == "invariant: a snapshot answers who waits"


def test_what_crashes_have_kept_goes_at_the_next_start() -> None:
    """Each crash between a result and the end of an older one leaves one more than there may be."""
    disk = Disk()
    for client, sequence in (("a", 1), ("b", 1), ("c", 1), ("c", 2), ("c", 3)):
        disk.put(f"r/{client}/{sequence}", Result(client, sequence, 0, "k", sequence))
    limits = QuorumParameters(remembered_clients=2, remembered_results=1)
    Node(disk, limits)
    assert [name for name, _ in disk.items()] == ["r/b/1", "r/c/3"]


@pytest.mark.parametrize("client_entries", [3, 10, 1000])
def test_the_reference_map_is_the_replicated_map(client_entries: int) -> None:
    rng = random.Random(client_entries)
    real, reference = ReplicatedMap(client_entries), ReferenceMap(client_entries)
    asked: dict[str, list[Request]] = {}
    for index in range(1, 600):
        client = f"c{rng.randrange(5)}"
        requests = asked.setdefault(client, [])
        kind: Any = rng.choice(["write", "write", "cas", "delete"])
        operation = Operation(kind, f"k{rng.randrange(2)}", rng.randrange(3), rng.randrange(3))
        new = Request(client, len(requests), operation, max(0, len(requests) - rng.randrange(4)))
        request = rng.choice([new, new, *requests[-3:]])
        if request is new:
            requests.append(new)
        answer = real.apply(request, index)
        reference.apply(request)
        assert reference.state_at(index) == real.freeze()
        if answer.outcome == "ok":
            assert answer in reference.answers(request)
            read = real.read(Request(client, 0, Operation("read", operation.key)))
            value: Any = read.value
            version: Any = read.version
            assert reference.was(operation.key, value, version, index)


def test_a_read_is_no_older_than_it_may_be() -> None:
    reference = ReferenceMap(100)
    for sequence, (kind, value) in enumerate([("write", 1), ("write", True), ("delete", None)]):
        op: Any = kind
        reference.apply(Request("c", sequence, Operation(op, "k", value)))
    assert reference.was("k", 1, 1, 0)
    assert reference.was("k", 1, 1, 1)
    assert not reference.was("k", 1, 1, 2)
    assert not reference.was("k", 1, 2, 0), "True is another value"
    assert reference.was("k", None, None, 3)
    assert reference.was("k", None, None, 0)
    assert not reference.was("other", 1, 1, 0)


class Node:
    """A replica that remembers results, as a protocol does."""

    def __init__(self, disk: Disk, limits: KeyLimits) -> None:
        self.disk = disk
        self.sessions = Sessions(disk, limits)
        self.sessions.load(lambda result: True)

    def write(self, client: str, sequence: int, acked: int = 0) -> None:
        self.sessions.remember(Result(client, sequence, acked, "k", sequence))
        self.sessions.trim(client)


def test_the_clients_that_wrote_last_are_remembered() -> None:
    limits = QuorumParameters(remembered_clients=2, remembered_in_all=4)
    invariant = TheLastAreRemembered()
    invariant.begin(Scene({"n1": Config("n1", ("n1",), limits)}, {}))
    assert invariant.is_needed()
    node = Node(Disk(), limits)

    def look() -> None:
        invariant.observe("n1", node)

    look()
    for sequence, client in enumerate(["a", "b", "a", "c", "c"]):
        node.write(client, sequence)
        look()
    assert {result.client for _, result in node.disk.items()} == {"a", "c"}
    node = Node(node.disk, limits)  # After a crash the disk says who wrote last.
    look()
    node.write("d", 9)
    look()
    assert {result.client for _, result in node.disk.items()} == {"c", "d"}

    node.write("c", 10, 10)
    look()
    node.disk.put("r/c/10", None)
    node.disk.put("r/e/1", Result("e", 1, 0, "k", 1))
    with pytest.raises(InvariantBroken, match="remembers d, and has forgotten c"):
        look()
    node.disk.put("r/f/1", Result("f", 1, 0, "k", 1))
    with pytest.raises(InvariantBroken, match="more than it may"):
        look()


@pytest.mark.parametrize("name", ["raft", "paxos", "quorum-placed", "gossip-placed"])
def test_what_is_said_early_waits_for_no_disk(name: str) -> None:
    """Each kind of message of which a protocol says so."""
    protocol = get(name)
    kind = protocol.replica
    assert set(kind.EARLY) <= set(kind.MESSAGES)
    for message in kind.EARLY:

        class Waits(kind):  # type: ignore[misc, valid-type]
            def end_step(self, message: type = message) -> None:
                super().end_step()
                for i, send in enumerate(self.out.sends):
                    if type(send.msg) is message:
                        late = msgspec.structs.replace(send, position=self.disk.position)
                        self.out.sends[i] = late

        planted = msgspec.structs.replace(protocol, replica=Waits)
        for seed in range(1, 61):
            whole = message is TimeoutNow  # It is rare, and most come at rest.
            alarms = simulate(planted, seed, duration_s=5.0, finish=whole).alarms
            if alarms:
                break
        checks = [alarm.check for alarm in alarms]
        assert checks == ["invariant: what is said early waits for no disk"], message


def test_who_has_to_be_fenced_follows_from_the_configuration() -> None:
    nodes = ("n1", "n2", "n3", "n4", "n5")

    def of(protocol: str, **parameters: Any) -> int:
        return fencing_quorum(get(protocol).configure("n1", nodes, parameters))

    assert of("quorum", replication_factor=3) == 2
    assert of("quorum", replication_factor=3, read_quorum=3, write_quorum=1) == 3
    assert of("quorum", replication_factor=4) == 2
    assert of("gossip", replication_factor=3) == 2


def test_what_several_invariants_record_together_is_one_record() -> None:
    scene = Scene({}, {"n1": Disk()})
    assert scene.common(dict) is scene.common(dict)
    kept: object = scene.common(list)
    assert kept is not scene.common(dict)


def test_a_request_is_heard_when_it_arrives_and_a_reply_when_it_leaves() -> None:
    protocol = get("quorum")
    heard: list[Any] = []

    class Listener(Invariant):
        hears: ClassVar = {Request: "hear", Reply: "hear"}

        def hear(self, node: str, other: Any, what: Any) -> None:
            durable = sum(1 for _ in self.scene.disks[node].items())
            heard.append((type(what).__name__, type(other).__name__, durable))

    class Watched(protocol.replica):  # type: ignore[misc, name-defined]
        INVARIANTS = (Listener,)

    cluster = Cluster(msgspec.structs.replace(protocol, replica=Watched), nodes=1)
    cluster.run(1.0)
    cluster.request("n1", Request("c", 0, Operation("write", "k", 1)))
    cluster.run(1.0)
    (asked, _, before), (answered, request, after) = heard
    assert (asked, answered, request) == ("Request", "Reply", "Request")
    assert after > before, "it is on disk when the reply leaves"


@pytest.mark.parametrize("placed", [False, True])
def test_what_there_is_nothing_to_watch_for_is_not_asked(placed: bool) -> None:
    protocol = get("gossip")
    asked: list[str] = []

    class Placements(OfPlacements):
        hears: ClassVar = {Request: "on_request"}

        def observe(self, node: str, replica: Any) -> None:
            asked.append("observe")

        def on_request(self, node: str, _: str, request: Request) -> None:
            asked.append("hear")

        def agrees(self, disks: Any) -> bool:
            return False

    class Watched(protocol.replica):  # type: ignore[misc, name-defined]
        INVARIANTS = (Placements,)

    cluster = Cluster(
        msgspec.structs.replace(protocol, replica=Watched),
        nodes=3,
        parameters={"replication_factor": 2} if placed else {},
    )
    cluster.request("n1", Request("c", 0, Operation("write", "k", 1)))
    cluster.run(1.0)
    assert set(asked) == ({"observe", "hear"} if placed else set())
    assert not cluster.converged(), "what disks hold is asked of all"


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        *[("quorum-placed", 112), ("gossip-placed", 99), ("gossip-placed", 222)],
        ("raft-stale-read", 188),
    ],
)
def test_what_comes_late_is_no_lie(name: str, seed: int) -> None:
    """A proposer that a higher ballot has overtaken; a page that is asked for and sent twice; a
    source so slow that its pages arrive before it takes note of its own fsync; a request that a
    node takes, after a pause, in the step in which it took a snapshot with the answer."""
    assert simulate(get(name), seed).alarms == []


def test_what_a_node_has_confirmed_does_not_fall_when_an_older_answer_leaves_later() -> None:
    """The answer to a chunk waits for no disk, that to entries may."""
    protocol, nodes = get("raft"), ("n1", "n2", "n3")
    scene = Scene({n: protocol.configure(n, nodes) for n in nodes}, {n: Disk() for n in nodes})
    scene.disks["n2"].put("hard_state", HardState(1, None))
    claim = AcknowledgementsAreTrue()
    claim.begin(scene)
    chunk = InstallSnapshot(1, 7, 0, 0, b"ab", False)
    claim.on_chunk("n1", "n2", chunk)
    claim.on_chunk_reply("n2", "n1", InstallSnapshotReply(1, 7, 0, 0, 2))
    claim.on_ack("n2", "n1", AppendEntriesReply(1, 5, True, 0))
    assert scene.common(Led).rounds[1].confirmed == {"n2": 7}


def test_an_open_write_is_handed_to_one_member() -> None:
    """Until it is answered, or the node that handed it on is killed."""
    protocol, nodes = get("gossip-placed"), ("n1", "n2", "n3", "n4", "n5")
    scene = Scene({n: protocol.configure(n, nodes) for n in nodes}, {n: Disk() for n in nodes})
    claim = WritesAreHandedOn()
    claim.begin(scene)
    write = Request("c", 4, Operation("write", "k", 1))
    read = Request("c", 5, Operation("read", "k"))
    for request in (write, write, read):
        claim.on_forward("n1", "n2", Forward(request))
    claim.on_forward("n1", "n3", Forward(read))
    claim.on_forward("n4", "n3", Forward(write))
    with pytest.raises(InvariantBroken, match="to n3, after n2"):
        claim.on_forward("n1", "n3", Forward(write))
    claim.on_reply("n1", write, Reply("c", 4, "info"))
    claim.on_forward("n1", "n3", Forward(write))
    claim.observe("n1", object())
    claim.on_forward("n1", "n5", Forward(write))
