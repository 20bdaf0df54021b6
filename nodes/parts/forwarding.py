"""Requests of the protocols that have a leader: kept where they came, handed to it; sans-I/O.

A node keeps what its clients asked for until it knows an answer: from the leader, or because it
applied the request itself. Until then it hands the request to whoever leads, again and again. That
is safe since the state machine applies each (client, sequence) once (`nodes.parts.replicated_map`).

*Fail or info*. A request that was never handed to anybody is certainly not applied, so it may end
``fail``; one that was may be applied yet, so it ends ``info`` (a read changes nothing, and ends
``fail``). What ended ``fail`` is remembered on disk, lest a late copy of it is carried out after
all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from nodes.contract.bounds import WireStruct
from nodes.contract.disk import Disk
from nodes.contract.replica import Out, Outcome, Reply, Request

TIMER = "requests"
"""The timer that calls `Requests.on_timer`."""
_PREFIX = "refused/"

Key = tuple[str, int]
"""(client, sequence)."""
Asked = tuple[Request, str]
"""A request and the node where its client waits."""


class Forward(WireStruct, frozen=True):
    """Requests that clients handed to the sender. Only a leader takes them."""

    requests: tuple[Request, ...]


class Forwarded(WireStruct, frozen=True):
    """Answers to requests of a `Forward`."""

    replies: tuple[Reply, ...]


class ForwardingParameters(Protocol):
    """Knobs that such a protocol has. ``retry_s``: how often a request without an answer is handed
    on again; after ``request_timeout_s`` it ends. ``remembered_refusals``: requests ended ``fail``
    that a node remembers, so that a late copy of one is not carried out. The rest is as `batches`
    has it."""

    @property
    def retry_s(self) -> float: ...
    @property
    def request_timeout_s(self) -> float: ...
    @property
    def remembered_refusals(self) -> int: ...
    @property
    def batch_entries(self) -> int: ...
    @property
    def batch_bytes(self) -> int: ...


class Waiting:
    """A request that a client gave to this node. ``handed``: somebody may have proposed it."""

    __slots__ = ("handed", "request", "tick")

    def __init__(self, request: Request, tick: int) -> None:
        self.request = request
        self.tick = tick
        self.handed = False


class Requests:
    """The requests at one node. ``waiting``: of its own clients, without an answer. ``arrived``:
    what this step has to deal with. ``answers``: of this step, for clients of other nodes.
    ``offer_again``: there is news of the leader, so that all that waits is dealt with in this
    step."""

    __slots__ = (
        *("waiting", "arrived", "answers", "offer_again"),
        *("_disk", "_node", "_out", "_parameters", "_refused", "_tick", "_ticking"),
    )

    def __init__(self, node: str, disk: Disk, out: Out, parameters: ForwardingParameters) -> None:
        self.waiting: dict[Key, Waiting] = {}
        self.arrived: list[Asked] = []
        self.answers: dict[str, list[Reply]] = {}
        self.offer_again = False
        self._node = node
        self._disk = disk
        self._out = out
        self._parameters = parameters
        # The one that was refused first is the first to be forgotten.
        self._refused = {name: None for name, _ in disk.items() if name.startswith(_PREFIX)}
        self._tick = 0
        self._ticking = False

    def take(self, request: Request) -> None:
        """A client's request, or a copy of it."""
        key = (request.client, request.sequence)
        if self._refused and _refusal(request) in self._refused:
            self._out.reply(_no_leader(request))
        elif key not in self.waiting:
            self.waiting[key] = Waiting(request, self._tick)
            self.arrived.append((request, self._node))
            if not self._ticking:
                self._ticking = True
                self._out.set_timer(TIMER, self._parameters.retry_s)

    def take_forwarded(self, src: str, requests: Iterable[Request]) -> None:
        """Requests of the clients of another node. For leaders only."""
        self.arrived.extend([(request, src) for request in requests])

    def take_arrived(self) -> list[Asked]:
        """What this step has to propose; this node's own clients still wait for it, and from now on
        somebody may have proposed it."""
        arrived, self.arrived = self.arrived, []
        waiting, own = self.waiting, self._node
        asked = []
        for item in arrived:
            request, origin = item
            if origin == own:
                here = waiting.get((request.client, request.sequence))
                if here is None:
                    continue
                here.handed = True
            asked.append(item)
        return asked

    def forward(self, leader: str | None) -> None:
        """Hand what this step has of this node's own clients to the leader, if one is known."""
        if leader is None:
            self.arrived = []
            return
        requests = {
            (request.client, request.sequence): request
            for request, origin in self.take_arrived()
            if origin == self._node
        }
        for batch in batches(requests.values(), request_bytes, self._parameters):
            self._out.send(leader, Forward(tuple(batch)), early=True)

    def offer_all(self) -> None:
        """Deal with all that waits, in this step."""
        self.offer_again = False
        self.arrived = [item for item in self.arrived if item[1] != self._node]
        self._offer(self._tick + 1)

    def answer(self, origin: str, reply: Reply) -> None:
        """The answer to a request of a client that waits at ``origin``. It tells of what a majority
        holds or has confirmed, so it waits for no write here."""
        if origin != self._node:
            self.answers.setdefault(origin, []).append(reply)
        else:
            self.answer_here(reply)

    def answer_here(self, reply: Reply) -> None:
        """The same, for a client that waits here if anywhere."""
        if self.waiting.pop((reply.client, reply.sequence), None) is not None:
            self._out.reply(reply, early=True)

    def send_answers(self) -> None:
        """At the end of a step, the answers for other nodes."""
        answers, self.answers = self.answers, {}
        for origin, replies in answers.items():
            for batch in batches(replies, reply_bytes, self._parameters):
                self._out.send(origin, Forwarded(tuple(batch)), early=True)

    def on_timer(self, *, offer: bool = True) -> None:
        """Give up what is too old. With ``offer``, deal again with what had no answer for a whole
        tick."""
        self._tick += 1
        oldest = self._tick - self._parameters.request_timeout_s / self._parameters.retry_s
        for waiting in [waiting for waiting in self.waiting.values() if waiting.tick <= oldest]:
            request = waiting.request
            if not waiting.handed:
                self._refuse(request)
            else:
                outcome: Outcome = "fail" if request.operation.op == "read" else "info"
                error = "no answer of a leader in time"
                self.answer_here(Reply(request.client, request.sequence, outcome, error=error))
        if offer:
            self._offer(self._tick - 1)
        self._ticking = bool(self.waiting)
        if self._ticking:
            self._out.set_timer(TIMER, self._parameters.retry_s)

    def _refuse(self, request: Request) -> None:
        """The answer waits until it cannot be forgotten."""
        del self.waiting[request.client, request.sequence]
        if request.operation.op != "read":
            name = _refusal(request)
            self._refused[name] = None
            self._disk.put(name, True)
            # Several, if a crash came between the two writes before.
            while len(self._refused) > self._parameters.remembered_refusals:
                oldest = next(iter(self._refused))
                del self._refused[oldest]
                self._disk.put(oldest, None)
        self._out.reply(_no_leader(request))

    def _offer(self, before: int) -> None:
        """Deal again with what came before that tick."""
        self.arrived.extend(
            (waiting.request, self._node)
            for waiting in self.waiting.values()
            if waiting.tick < before or not waiting.handed
        )


def _refusal(request: Request) -> str:
    """The key on disk of a request that was refused."""
    return f"{_PREFIX}{request.client}/{request.sequence}"


def _no_leader(request: Request) -> Reply:
    return Reply(request.client, request.sequence, "fail", error="no leader")


# --- how much goes into a message ---


class BatchLimits(Protocol):
    """A message carries at most ``batch_entries`` items and (roughly) ``batch_bytes`` bytes."""

    @property
    def batch_entries(self) -> int: ...
    @property
    def batch_bytes(self) -> int: ...


T = TypeVar("T")


def batches(
    items: Iterable[T], size: Callable[[T], int], limits: BatchLimits
) -> Iterator[Sequence[T]]:
    """Cut into lists of bounded length and bytes, each with at least one item."""
    if type(items) is list and len(items) == 1:
        # Most are: nobody need know their size.
        yield items
        return
    batch: list[T] = []
    total = 0
    for item in items:
        item_bytes = size(item)
        if batch and (
            total + item_bytes > limits.batch_bytes or len(batch) == limits.batch_entries
        ):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += item_bytes
    if batch:
        yield batch


def text_bytes(value: object) -> int:
    """At least the UTF-8 length of a string, without encoding it."""
    if type(value) is not str:
        return 9
    return len(value) if value.isascii() else 4 * len(value)


def request_bytes(request: Request) -> int:
    """About what a request takes on the wire."""
    operation = request.operation
    texts = text_bytes(operation.key) + text_bytes(operation.value) + text_bytes(operation.expected)
    return 64 + texts


def reply_bytes(reply: Reply) -> int:
    """About what a reply takes on the wire."""
    return 64 + text_bytes(reply.value) + text_bytes(reply.seen)
