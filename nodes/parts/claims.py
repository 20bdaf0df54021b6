"""What a node's answers to clients claim, and what a leader makes of requests, most of it for the
protocols that agree on a log.

Nearly all of it is recorded from what was seen to leave nodes and from the log on disks. A replica
is asked whether it leads, and which of its clients wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from nodes.contract.disk import Disk
from nodes.contract.replica import Invariant, InvariantBroken, Reply, Request, Scene, Send
from nodes.parts.forwarding import Forward, Forwarded
from nodes.parts.reference_map import ReferenceMap
from nodes.parts.sessions import Result

EVERY = 3
"""Of a client's operations every third one is followed: what leaders get wrong they get wrong more
than once, and the history is judged as a whole in the end."""


MANY = 1000

SPARE = 8
"""So often may a leader go back with what it sends to a node, without a reason that was seen."""
EACH = 4
"""Which more, for each refusal: the network may bring it twice, and each time the search for the
place where the logs meet begins, and ends, at an earlier place."""


def is_forgetful(parameters: Any) -> bool:
    """Whether a node remembers so few clients or results that it may forget a request before that
    is acknowledged."""
    few: int = min(
        parameters.remembered_clients, parameters.remembered_results, parameters.remembered_in_all
    )
    return few < MANY


def check_refusal(node: str, request: Request, reply: Reply, *, remembered: bool) -> None:
    """Raises InvariantBroken. Who refuses a request (``fail``: certainly not applied) remembers
    that, so that a copy of it that comes later is not carried out, crash or no crash. And a read,
    which changes nothing, never ends ``info``."""
    if request.operation.op == "read":
        if reply.outcome == "info":
            raise InvariantBroken(f"{node} does not know what became of a read: {reply}")
    elif reply.outcome == "fail" and not remembered:
        raise InvariantBroken(f"{node} refuses {request} by {reply}, and will not remember")


class HearsClients(Invariant):
    """One that knows what clients have acknowledged, and so will not ask again (RIFL, Lee et al.,
    SOSP 2015, section 3): the results of their other requests stay on the disks that had them.
    ``hears`` has ``Request: "on_request"``."""

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._forgetful = is_forgetful(scene.parameters)
        self._floors: dict[str, int] = {}

    def on_request(self, node: str, _: str, request: Request) -> None:
        """Note what its client will not ask again."""
        if request.acked > self._floors.get(request.client, 0):
            self._floors[request.client] = request.acked

    def may_forget(self, client: str, sequence: int) -> bool:
        """Whether nobody has to remember that request."""
        return self._forgetful or sequence < self._floors.get(client, 0)

    def result_of(self, node: str, client: str, sequence: int) -> Result | None:
        """What the node remembers of a request, on disk. A refused one has no version."""
        result: Result | None = self.scene.disks[node].get(f"r/{client}/{sequence}")
        return result

    def remembers(self, node: str, client: str, sequence: int, *, refused: bool) -> bool:
        """Whether the node knows that it carried out, or refused, a request; or may forget it."""
        if self.may_forget(client, sequence):
            return True
        result = self.result_of(node, client, sequence)
        return result is not None and (result.version is None) == refused

    def check_answer(self, node: str, request: Request, reply: Reply) -> None:
        """Of one that is not ok. Raises InvariantBroken."""
        if reply.error == "unsupported":
            return  # Everybody refuses that, whenever it comes.
        remembered = self.remembers(node, request.client, request.sequence, refused=True)
        check_refusal(node, request, reply, remembered=remembered)


class TheLastAreRemembered(Invariant):
    """However few clients a node remembers, they are those that wrote last there: a client is
    forgotten because others wrote since, never one that wrote later than others that are
    remembered. And no limit is exceeded (`nodes.parts.limits.KeyLimits`). By the writes to its
    disk."""

    name = "the clients that wrote last are remembered"
    looks_at = ("disk.position",)

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        parameters = scene.parameters
        self._clients: int = parameters.remembered_clients
        self._results: int = parameters.remembered_results
        self._in_all: int = parameters.remembered_in_all
        self._of: dict[str, _Remembered] = {}

    def is_needed(self) -> bool:
        """See `Invariant`. Else nobody is forgotten."""
        return is_forgetful(self.scene.parameters)

    def observe(self, node: str, replica: Any) -> None:
        """Raises InvariantBroken."""
        results = {name: result for name, result in replica.disk.items() if name.startswith("r/")}
        known = self._of.get(node)
        if known is None or known.replica is not replica:
            self._of[node] = _Remembered(replica, results)
            return
        news = [result for name, result in results.items() if known.results.get(name) is not result]
        known.results = results
        if not news:
            return
        known.step += 1
        for result in news:
            known.wrote[result.client] = known.step
        counts = Counter(result.client for result in results.values())
        oldest = min(counts, key=known.wrote.__getitem__)
        for client in [client for client in known.wrote if client not in counts]:
            if known.wrote.pop(client) > known.wrote[oldest]:
                raise InvariantBroken(
                    f"{node} remembers {oldest}, and has forgotten {client}, which wrote later"
                )
        if (
            len(counts) > self._clients
            or max(counts.values()) > self._results
            or (len(counts) > 1 and len(results) > self._in_all)
        ):
            raise InvariantBroken(f"{node} remembers more than it may: {dict(counts)}")


class _Remembered:
    """What a node has on disk. ``wrote``: by client, the step of its last result."""

    __slots__ = ("replica", "results", "step", "wrote")

    def __init__(self, replica: Any, results: dict[str, Result]) -> None:
        self.replica, self.results = replica, results
        self.wrote = {result.client: step for step, result in enumerate(results.values())}
        self.step = len(results)


def outnumber(nodes: Collection[str], members: Collection[str]) -> bool:
    """Whether ``nodes`` are more than half of ``members``. Counted here, as `nodes.parts.quorum` is
    among what is judged."""
    among = len({*members}.intersection(nodes))
    return among > len(members) - among


class Chronicle:
    """What invariants record together of a run. ``reference``: fed with the log, in order, as it
    was first applied anywhere. ``memberships``: of which a majority may elect and commit, all that
    ever were."""

    reference: ReferenceMap
    memberships: list[tuple[str, ...]]


class Asked:
    """The operations that clients asked for. ``tick``: their order; ``known``: by (client,
    sequence) the request, when it first arrived anywhere, and up to which entry answers had told of
    its key by then."""

    def __init__(self) -> None:
        self.tick = 0
        self.known: dict[tuple[str, int], tuple[Request, int, int]] = {}
        self._told: dict[str, int] = {}

    def note(self, request: Request) -> None:
        """It arrives, perhaps not for the first time."""
        name = (request.client, request.sequence)
        if name not in self.known:
            self.tick += 1
            told = self._told.get(request.operation.key, 0)
            self.known[name] = request, self.tick, told

    def tell(self, key: str, index: int) -> None:
        """A client hears what ``key`` is at entry ``index``."""
        if index > self._told.get(key, 0):
            self._told[key] = index


class Rounds:
    """The rounds by which the leader of a term (or ballot) asked who still follows it. ``began``:
    the `Asked.tick` at the first message of each. ``last``: the number of the last one.
    ``confirmed``: by node, the last one that it confirmed."""

    __slots__ = ("began", "confirmed", "last")

    def __init__(self) -> None:
        self.began: dict[int, int] = {}
        self.last = -1
        self.confirmed: dict[str, int] = {}


class Led:
    """``rounds``: by term. ``last``: of each node the term that it began to lead last."""

    def __init__(self) -> None:
        self.rounds: dict[Any, Rounds] = {}
        self.last: dict[str, Any] = {}

    def begin(self, asked: Asked, leader: str, term: Any, number: int) -> None:
        """The leader of ``term`` asks for confirmations of a round."""
        rounds = self.rounds.get(term)
        if rounds is None:
            rounds = self.rounds[term] = Rounds()
            self.last[leader] = term
        if number > rounds.last:
            asked.tick += 1
            rounds.last = number
            rounds.began[number] = asked.tick

    def confirm(self, node: str, term: Any, number: int) -> None:
        """``node`` confirms a round. Raises InvariantBroken."""
        rounds = self.rounds.get(term)
        if rounds is None or number > rounds.last:
            raise InvariantBroken(
                f"{node} confirms round {number} of {term}, where the last one was"
                f" {None if rounds is None else rounds.last}"
            )
        confirmed = rounds.confirmed
        if number > confirmed.get(node, -1):
            confirmed[node] = number


class Sent:
    """What is sent to a node in a term (or ballot): ``upto`` there; ``spare``: so often may it
    begin again at an earlier place, without being a waste of the network."""

    __slots__ = ("spare", "upto")

    def __init__(self) -> None:
        self.upto = 0
        self.spare = SPARE

    def send(self, before: int, count: int, dst: str) -> None:
        """``count`` entries go there, behind ``before``. Raises InvariantBroken."""
        if before < self.upto:
            self.spare -= 1
            if self.spare < 0:
                raise InvariantBroken(
                    f"{dst} is sent what follows {before} once more, after it was sent all up to"
                    f" {self.upto}, and did not miss that"
                )
        self.upto = before + count


class AnswersAreTrue(Invariant):
    """An answer is what the log says. A write's is that of the entry that carries it, however often
    it is asked for (RIFL, section 3). A read's is what the key held at some entry, no older than
    what any client had been told when the read was first asked (Herlihy and Wing,
    "Linearizability", TOPLAS 1990, section 2); and where reads take no entry, a majority has
    confirmed a round that the leader began, in that term, after the read was asked (Ongaro,
    dissertation, 6.4, step 3)."""

    name = "an answer is what the log says"
    hears: ClassVar = {Request: "on_request", Reply: "on_reply", Forwarded: "on_forwarded"}
    records: ClassVar[type[Chronicle]]

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._asked = scene.common(Asked)
        self._led = scene.common(Led)
        self._chronicle = scene.common(self.records)
        self._vouched: dict[tuple[str, int], None] = {}
        # Of each node the newest entry that its own state was seen to hold.
        self._shown: dict[str, int] = {}
        parameters = scene.parameters
        self._fresh, self._by_rounds = self.claimed(parameters)

    def claimed(self, parameters: Any) -> tuple[bool, bool]:
        """Whether reads are claimed to be the newest, and whether by rounds."""
        return True, True

    def on_request(self, node: str, _: str, request: Request) -> None:
        """It arrives."""
        if request.sequence % EVERY == 0:
            self._asked.note(request)

    def on_forwarded(self, node: str, dst: str, msg: Forwarded) -> None:
        """Raises InvariantBroken."""
        for reply in msg.replies:
            if reply.sequence % EVERY == 0 and reply.outcome == "ok":
                name = (reply.client, reply.sequence)
                self._vouched[name] = None
                self._check(node, self._asked.known[name], reply)

    def on_reply(self, node: str, request: Request, reply: Reply) -> None:
        """Raises InvariantBroken."""
        if reply.sequence % EVERY or reply.outcome != "ok":
            return
        name = (reply.client, reply.sequence)
        is_own = name not in self._vouched
        if is_own:
            self._check(node, self._asked.known[name], reply)
        if reply.version is None:
            return
        version: Any = reply.version
        if self._fresh:
            self._asked.tell(request.operation.key, version)
        elif is_own and request.operation.op == "read":
            self._shown[node] = max(version, self._shown.get(node, 0))

    def _check(self, node: str, asked: tuple[Request, int, int], reply: Reply) -> None:
        request, tick, since = asked
        reference, operation = self._chronicle.reference, request.operation
        if operation.op != "read":
            if reply not in reference.answers(request):
                raise InvariantBroken(
                    f"{node} answers {request} with {reply}, and the log with"
                    f" {reference.answers(request)}"
                )
            return
        since = since if self._fresh else self._shown.get(node, 0)
        value: Any = reply.value
        version: Any = reply.version
        if not reference.was(operation.key, value, version, since):
            raise InvariantBroken(
                f"{node} answers {request} with {reply}, which {operation.key!r} never was since"
                f" entry {since}"
            )
        if self._by_rounds:
            self._check_round(node, request, tick)

    def _check_round(self, node: str, request: Request, tick: int) -> None:
        memberships = self._chronicle.memberships
        if any(len(members) == 1 for members in memberships):
            return
        term = self._led.last.get(node)
        rounds = self._led.rounds.get(term, Rounds())
        voters = [node]
        for other, number in rounds.confirmed.items():
            if rounds.began.get(number, 0) > tick:
                voters.append(other)
        if not any(outnumber(voters, members) for members in memberships):
            raise InvariantBroken(
                f"{node} answers {request}; in {term}, only {sorted(voters)} confirmed since that"
                " it leads"
            )


class RefusalsStay(Invariant):
    """Who refuses a request has that on disk: see `check_refusal`. No more of them are there than
    it has to remember; if they are so many, later ones may have taken the place of this one. And it
    has neither handed it on nor proposed it, for then somebody may carry it out yet. That is asked
    of requests of which one copy came: a refusal speaks of one copy, and others may be in any
    log."""

    name = "a refusal stays"
    hears: ClassVar = {Request: "on_request", Forward: "on_forward", Reply: "on_reply"}

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._copies: dict[tuple[str, int], int] = {}
        self._handed: dict[tuple[str, int], str] = {}

    def on_request(self, node: str, _: str, request: Request) -> None:
        """It arrives, perhaps not for the first time."""
        if request.sequence % EVERY == 0:
            name = (request.client, request.sequence)
            self._copies[name] = self._copies.get(name, 0) + 1

    def on_forward(self, node: str, dst: str, msg: Forward) -> None:
        """Note who was told of it."""
        for request in msg.requests:
            if request.sequence % EVERY == 0:
                self._handed[request.client, request.sequence] = dst

    def on_reply(self, node: str, request: Request, reply: Reply) -> None:
        """Raises InvariantBroken."""
        if reply.outcome == "ok":
            return
        disk = self.scene.disks[node]
        refused = disk.get(f"refused/{request.client}/{request.sequence}")
        if reply.outcome == "fail" and request.operation.op != "read":
            most: int = self.scene.parameters.remembered_refusals
            held = sum(name.startswith("refused/") for name, _ in disk.items())
            if held > most:
                raise InvariantBroken(f"{node} remembers {held} refused requests, not {most}")
            refused = refused or held == most
        check_refusal(node, request, reply, remembered=bool(refused))
        name = (request.client, request.sequence)
        if request.operation.op == "read" or not refused or self._copies.get(name) != 1:
            return
        told = f"{node} refuses {request}, which it has"
        if name in self._handed:
            raise InvariantBroken(f"{told} handed to {self._handed[name]}")
        for index in range(disk.last_index, disk.first_index - 1, -1):
            if any((r.client, r.sequence) == name for r in requests_of(disk.entry(index))):
                raise InvariantBroken(f"{told} proposed: entry {index} of its log")


class MessagesAreBounded(Invariant):
    """No message carries more than ``batch_entries`` items or, unless it is a single one, more than
    ``batch_bytes`` bytes, roughly (`nodes.parts.forwarding.BatchLimits`): else a frame may not hold
    it, and a node is busy with it for long. ``carries``: by type of message, the field that has the
    items; ``hears`` has the same types."""

    name = "a message is bounded"
    carries: ClassVar[Mapping[type, str]] = {Forward: "requests", Forwarded: "replies"}
    hears: ClassVar[Mapping[type, str]] = dict.fromkeys(carries, "on_message")

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        parameters = scene.parameters
        self._most: int = parameters.batch_entries
        self._bytes: int = parameters.batch_bytes

    def on_message(self, node: str, dst: str, msg: Any) -> None:
        """Raises InvariantBroken."""
        items = getattr(msg, self.carries[type(msg)])
        if len(items) < 2:
            return
        told = f"{node} sends {dst} a {type(msg).__name__}"
        if len(items) > self._most:
            raise InvariantBroken(f"{told} of {len(items)} items, where {self._most} are allowed")
        if self._bytes < MANY * len(items):
            least = sum(map(_least_bytes, items))
            if least > self._bytes:
                raise InvariantBroken(
                    f"{told} of {len(items)} items with {least} bytes at least, where"
                    f" {self._bytes} are allowed"
                )


_FRAME = 64
"""About what an item takes beside its texts."""


def _least_bytes(item: Any) -> int:
    """What a request takes, an answer, an entry of a log, or a vote, whose value comes last."""
    if type(item) is tuple:
        item = item[-1]
    item = getattr(item, "request", item)
    texts: tuple[Any, ...] = ()
    if type(item) is Request:
        texts = (item.operation.key, item.operation.value, item.operation.expected)
    elif type(item) is Reply:
        texts = (item.value, item.seen)
    return _FRAME + sum(len(text.encode()) for text in texts if type(text) is str)


class _Proposed:
    """What a leader has in its log in one leadership. ``upto``: so far it was looked at."""

    __slots__ = ("leadership", "names", "replica", "upto")

    def __init__(self, replica: Any, leadership: Any) -> None:
        self.replica, self.leadership = replica, leadership
        self.names: set[tuple[str, int]] = set()
        self.upto = 0

    def catch_up(self) -> None:
        """Look at what was appended since."""
        disk = self.replica.disk
        first = max(self.upto + 1, disk.first_index)
        for entry in disk.entries(first, disk.last_index + 1):
            self.names.update((each.client, each.sequence) for each in requests_of(entry))
        self.upto = disk.last_index


class RequestsAreProposed(Invariant):
    """A leader that is handed a write has it in its log when the step ends, or it has taken effect
    before: it swallows nothing. Else whoever handed it on has to do so again, or in vain. That is
    asked of every third write, unless its client has acknowledged it, or leadership is being handed
    over."""

    name = "a leader proposes what it is handed"
    looks_at = ("disk.position",)
    hears: ClassVar = {Request: "on_request"}
    judges: ClassVar = {Forward: "on_forward"}
    records: ClassVar[type[Chronicle]]

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._chronicle = scene.common(self.records)
        self._floors: dict[str, int] = {}
        self._handed: dict[str, tuple[Any, Any, list[tuple[str, Request]]]] = {}
        self._proposed: dict[str, _Proposed] = {}

    def is_needed(self) -> bool:
        """See `Invariant`. Who has forgotten a client refuses what it asks."""
        parameters = self.scene.parameters
        stable: bool = getattr(parameters, "stable_leader", True)
        return stable and parameters.client_entries >= MANY

    def leadership(self, replica: Any) -> Any:
        """By which it leads now: what differs each time that it comes to lead."""
        raise NotImplementedError

    def is_given_up(self, replica: Any) -> bool:
        """Whether leadership is being handed over, so that requests wait for the next leader."""
        return False

    def on_handover(self, replica: Any, src: str, msg: Any, sends: Sequence[Send]) -> None:
        """A handover begins, perhaps: then what came in this step waits, too."""
        self._handed.pop(replica.id, None)

    def on_request(self, node: str, _: str, request: Request) -> None:
        """Note what its client will not ask again."""
        if request.acked > self._floors.get(request.client, 0):
            self._floors[request.client] = request.acked

    def on_forward(self, replica: Any, src: str, msg: Forward, sends: Sequence[Send]) -> None:
        """Note what the end of the step has to make good."""
        if replica.role != "leader" or self.is_given_up(replica):
            return
        wanted = [
            (src, request)
            for request in msg.requests
            if request.sequence % EVERY == 0 and request.operation.op != "read"
        ]
        if not wanted:
            return
        leadership = self.leadership(replica)
        known = self._handed.get(replica.id)
        if known is not None and known[0] is replica and known[1] == leadership:
            known[2].extend(wanted)
        else:
            self._handed[replica.id] = replica, leadership, wanted

    def observe(self, node: str, replica: Any) -> None:
        """Raises InvariantBroken."""
        if node not in self._handed:
            return
        before, leadership, handed = self._handed.pop(node)
        if (
            before is not replica
            or replica.role != "leader"
            or self.leadership(replica) != leadership
        ):
            return
        proposed = self._proposed.get(node)
        if proposed is None or proposed.replica is not replica or proposed.leadership != leadership:
            proposed = self._proposed[node] = _Proposed(replica, leadership)
        proposed.catch_up()
        for src, request in handed:
            client, sequence = request.client, request.sequence
            if (
                (client, sequence) not in proposed.names
                and sequence >= self._floors.get(client, 0)
                and not self._chronicle.reference.answers(request)
            ):
                raise InvariantBroken(
                    f"{node} leads {leadership}, was handed {request} by {src}, and has it neither"
                    f" in its log up to {proposed.upto}, nor has it taken effect"
                )


class SnapshotsAnswer(Invariant):
    """Whoever takes a snapshot in place of entries answers at once what its clients wait for and
    the snapshot has the answer of: nothing else will tell it. ``judges`` has the message that
    brings one, ``mark`` names that one was taken."""

    name = "a snapshot answers who waits"
    mark: ClassVar[str]

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._last: dict[str, Any] = {}

    def on_snapshot(self, replica: Any, src: str, msg: Any, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        snapshot, waiting = replica.disk.snapshot, replica._requests.waiting
        if snapshot is self._last.get(replica.id):
            return  # What came since, also in this step, is asked of the leader.
        self._last[replica.id] = snapshot
        if not waiting or all(name != self.mark for name, _ in replica.out.marks):
            return
        for client, _, _, replies in snapshot.sessions:
            for reply in replies:
                if (client, reply.sequence) in waiting:
                    raise InvariantBroken(
                        f"{replica.id} has a snapshot with {reply}, and its client still waits"
                    )


class DisksHoldUpLittle(Invariant):
    """What a node says waits for its disk only while something of it is not there: a slow disk does
    not silence who promises nothing new. Where a majority vouches for answers to clients, these
    wait for no disk here. ``looks_at``: something that each replica begins with."""

    name = "what is on disk waits for it no more"
    looks_at: ClassVar = ("role",)

    def begin(self, scene: Scene) -> None:
        """See `Invariant`."""
        super().begin(scene)
        self._replicas: dict[str, Any] = {}

    def observe(self, node: str, replica: Any) -> None:
        """It may be a new one."""
        self._replicas[node] = replica

    def on_wait(self, node: str, dst: str, msg: Any) -> None:
        """Raises InvariantBroken."""
        if self.is_durable(self._replicas[node], self.scene.disks[node], dst, msg):
            raise InvariantBroken(f"{node} has on disk what it tells {dst}, and waits: {msg}")

    def on_reply_waits(self, node: str, request: Request, reply: Reply) -> None:
        """Raises InvariantBroken."""
        if reply.outcome == "ok":
            raise InvariantBroken(f"{node} waits for its disk to answer {request} with {reply}")

    def is_durable(self, replica: Any, disk: Disk, dst: str, msg: Any) -> bool:
        """Whether ``disk``, which would survive a crash, has what ``msg`` promises ``dst``."""
        raise NotImplementedError


def requests_of(entry: Any) -> Iterator[Request]:
    """What an entry of a log carries: of Raft one request, or of Paxos several."""
    for value in (getattr(entry, "request", None), *getattr(entry, "values", ())):
        if type(value) is Request:
            yield value
