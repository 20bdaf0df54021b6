"""The inputs and outputs of a replica, and the interface that every protocol implements.

Theory of operation
-------------------
A replica is a state machine without I/O. A *driver* feeds it batches of inputs (`Replica.step`)
and carries out what it left in `Replica.out`. Two drivers exist, and both run the same class: the
live one (`nodes.runtime`, MQTT and a durable log) and the simulator (`nodes.simulator`, virtual
time).

The driver's duties:

1. *Durability gate.* Every send and reply carries the disk position at which it was made. It leaves
   only when all writes up to that position are durable. A send marked ``early=True`` is the one
   exception. So forgetting ``early`` costs speed, never safety.
2. *Group commit.* All writes of a step go down with one fsync; steps go on while it is in flight.
   When it returns, the replica gets `Durable` with the new position.
3. *Timers* are one-shot and named. Setting a name again replaces the earlier one; a cancelled or
   replaced timer never fires.
4. *Datagrams.* Messages may be lost, duplicated, delayed and reordered. Nothing else is promised.
5. *A crash* loses whatever was not durable. The replica is built anew from what the disk kept.
6. *Nonsense.* A message that its type does not allow, or that comes from no member, never reaches
   the replica. One that cannot be true is dropped by it (`nodes.contract.bounds.BadMessage`,
   `Out.refused`), and is counted. If a step over messages or requests raises anything else, what
   it left half-done is thrown away: the replica is built anew from its disk, as after a crash.
   Only a broken invariant (AssertionError) and a failed disk end the node. The simulator takes all
   of these for alarms.

Time and randomness are handed in (`Env`), so that a run is a pure function of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from nodes.contract.bounds import BadMessage, Finite, Integer, Natural
from nodes.contract.disk import Disk
from nodes.contract.names import MAX_CHARACTERS

MAX_HEAVY = 64

Value: TypeAlias = bool | Integer | Finite | str | None
"""What a key holds: a JSON scalar, so that values are immutable and hashable. Integers have 64
bits, floats are finite."""

Version: TypeAlias = (
    Integer
    | str
    | Annotated[list[Integer | str], msgspec.Meta(max_length=16)]
    | Annotated[dict[str, Integer], msgspec.Meta(max_length=1024)]
    | None
)
"""What a replica says about the age of a value: an index (Raft), a slot (Paxos), a
``[counter, node, sequence]`` (quorum register), a vector clock (gossip)."""

OperationKind: TypeAlias = Literal["read", "write", "cas", "delete"]
Outcome: TypeAlias = Literal["ok", "fail", "info"]
"""``fail``: certainly not applied, now or later. ``info``: nobody knows."""


class Operation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a client asks for. ``expected`` is for ``cas``; ``context`` is the version that an
    earlier read returned, for protocols that keep siblings."""

    op: OperationKind
    key: str
    value: Value = None
    expected: Value = None
    context: Version = None


class Request(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A client's operation, named (client, sequence) so that it is applied at most once.

    ``acked``: the client has the results of all its sequences below this one and will never send
    them again, so replicas may forget them (RIFL, Lee et al., SOSP 2015, section 3).
    """

    client: str
    sequence: Natural
    operation: Operation
    acked: Natural = 0


class Reply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The answer to a `Request`.

    ``value``: what a read saw (a list where a key has siblings). ``applied``: False for a CAS that
    was refused, then ``seen`` has the value that it found. ``error``: a reason in a few words.
    ``leader``: who leads, as the node that answers sees it (`Replica.leader`); None says nothing.
    The driver sets it, in the last reply of a frame; replicas leave it alone.
    """

    client: str
    sequence: Natural
    outcome: Outcome
    value: Value | list[Value] = None
    version: Version = None
    applied: bool | None = None
    seen: Value = None
    error: str | None = None
    leader: Annotated[str, msgspec.Meta(max_length=MAX_CHARACTERS)] | None = None


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A protocol message that arrived from another node (or from the node itself)."""

    src: str
    msg: Any


class Timer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A timer fired."""

    name: str


class Durable(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Every write up to and including ``position`` will survive a crash."""

    position: int


Input: TypeAlias = Message | Timer | Durable | Request


class Send(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message on its way out. ``position``: the write that must be durable before (0: none)."""

    position: int
    dst: str
    msg: Any


class Rng(Protocol):
    """The part of `random.Random` that replicas use."""

    def random(self) -> float: ...
    def uniform(self, a: float, b: float) -> float: ...
    def randrange(self, start: int, stop: int) -> int: ...
    def sample(self, population: Sequence[str], k: int) -> list[str]: ...


class Env(Protocol):
    """Time and randomness, handed in by the driver."""

    @property
    def rng(self) -> Rng:
        """The replica's own random stream."""
        ...

    def now(self) -> float:
        """Seconds on the node's monotonic clock (which an experiment may drift or jump)."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch on the node's wall clock (which may be wrong)."""
        ...


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of a protocol's knobs. Subclasses raise ValueError in ``__post_init__`` when a value is
    out of range: it is refused before anything starts."""

    def check(self, nodes: tuple[str, ...]) -> None:
        """Raises ValueError where a value does not fit a cluster of ``nodes``."""


class Config(msgspec.Struct, frozen=True, dict=True):
    """Who a replica is. ``nodes``: all configured nodes, itself counted, in a fixed order."""

    node: str
    nodes: tuple[str, ...]
    parameters: Parameters

    @cached_property
    def peers(self) -> tuple[str, ...]:
        """All nodes but this one."""
        return tuple(n for n in self.nodes if n != self.node)


class Out:
    """The effects of a step, in the order they were made. The driver empties it after each step."""

    __slots__ = ("_disk", "marks", "refused", "replies", "sends", "timers")

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.sends: list[Send] = []
        self.replies: list[tuple[int, Reply]] = []
        self.timers: list[tuple[str, float | None]] = []
        self.marks: list[tuple[str, dict[str, Any]]] = []
        self.refused: list[str] = []
        """Messages that could not be true, and why: the driver counts them."""

    def send(self, dst: str, msg: Any, *, early: bool = False) -> None:
        """Send ``msg`` to node ``dst``, once every write made so far is durable. ``early``: at
        once; only for a message that stays true if this replica forgets those writes."""
        self.sends.append(Send(0 if early else self._disk.position, dst, msg))

    def reply(self, reply: Reply, *, early: bool = False) -> None:
        """Answer a request, once every write made so far is durable. ``early``: at once; only for
        an answer that stays true if this replica forgets those writes (a majority holds it)."""
        self.replies.append((0 if early else self._disk.position, reply))

    def set_timer(self, name: str, delay_s: float) -> None:
        """Fire `Timer(name)` after ``delay_s`` seconds, instead of any earlier one of that name."""
        self.timers.append((name, delay_s))

    def cancel_timer(self, name: str) -> None:
        """The timer will not fire."""
        self.timers.append((name, None))

    def mark(self, name: str, **details: Any) -> None:
        """Name what just happened (``become_leader``, ``elected`` ...): it goes to the node's event
        file and to transcripts, and an experiment can crash the node at it."""
        self.marks.append((name, details))


class InvariantBroken(AssertionError):
    """A protocol did what its paper proves impossible. The message has the state that was seen."""


T = TypeVar("T")


class Scene:
    """What the invariants of one run may know beside the replicas. ``configs``: of all nodes.
    ``disks``: what of each node would survive a crash now; always up to date."""

    def __init__(self, configs: Mapping[str, Config], disks: Mapping[str, Disk]) -> None:
        self.configs = configs
        self.disks = disks
        self.nodes = tuple(configs)
        self._common: dict[type, Any] = {}

    @property
    def parameters(self) -> Any:
        """The protocol's parameters, which are those of every node."""
        return next(iter(self.configs.values())).parameters

    def common(self, kind: type[T]) -> T:
        """What several invariants of the run record together, made when it is first asked for."""
        record = self._common.get(kind)
        if record is None:
            record = self._common[kind] = kind()
        return record


class Invariant:
    """A statement over the whole cluster that must hold after each step.

    One instance watches one run: it may remember (who led which term). `observe` is called after
    each step of a replica that changed what is `Replica.watched`, with only that replica, so that a
    check costs what changed. ``looks_at``: the fields of `Replica.WATCHED` that it depends on; if
    none of them changed, `observe` is not called. Empty: all.

    What a node *claims* is judged when it leaves the node: ``hears`` names, for a type of message,
    the method that is called with the node, the receiver and the message, at the moment when the
    durability gate lets it through. For `Reply` it is called with the node, the `Request` and the
    reply; for `Request`, when a client's request arrives, with the node, "" and the request.

    What a node *holds back*, until its disk has what it wrote, is judged when that begins:
    ``holds`` names, for a type of message, or for `Reply`, the method that is called as those of
    ``hears`` are. It is not in a step in which the node learnt that something is durable: that may
    come after the message.

    What a node *makes* of a message is judged right after its handler ran: ``judges`` names, for a
    type of message, the method that is called with the replica, the sender, the message and the
    `Send`s that it made. Such a check costs nothing where no such message comes. For `Timer` it is
    called with the replica, "", the timer's name and the sends.
    """

    name: ClassVar[str] = "invariant"
    looks_at: ClassVar[tuple[str, ...]] = ()
    hears: ClassVar[Mapping[type, str]] = {}
    holds: ClassVar[Mapping[type, str]] = {}
    judges: ClassVar[Mapping[type, str]] = {}
    scene: Scene

    def begin(self, scene: Scene) -> None:
        """Called once, before the run."""
        self.scene = scene

    def is_needed(self) -> bool:
        """Whether there is anything to watch in this run; asked after `begin`. If not, nothing but
        `agrees` is called."""
        return True

    def observe(self, node: str, replica: Any) -> None:
        """Raises InvariantBroken."""
        raise NotImplementedError

    def agrees(self, disks: Mapping[str, Disk]) -> bool:
        """Whether ``disks``, as their replicas see them, hold the same where they have to. An
        eventual protocol must come to that when all is healed."""
        return True


class Replica:
    """Base of every protocol: takes inputs, leaves effects in `out`.

    Subclasses define ``on_<message>`` for each type in `MESSAGES` (snake case of its name, called
    with ``src`` and the message), `on_request`, and as needed `on_timer`, `on_durable`, `end_step`.
    `disk` is what survived the last crash; whatever is written to it survives the next one once
    it is durable.
    """

    MESSAGES: ClassVar[tuple[type[msgspec.Struct], ...]] = ()
    """The messages of the protocol, as tagged structs."""
    HEAVY: ClassVar[tuple[type[msgspec.Struct], ...]] = ()
    """Those that are short and cost much to answer: a frame could hold so many of them that a node
    is busy for hours. Of each kind a step deals with the first `MAX_HEAVY` from each node."""
    EARLY: ClassVar[tuple[type[msgspec.Struct], ...]] = ()
    """Those that say nothing that their sender could forget, whatever it writes: they wait for no
    disk, so that a slow one holds up nobody else. The simulator sees to it."""
    RECORDS: ClassVar[tuple[type[msgspec.Struct], ...]] = ()
    """The tagged structs that the protocol puts on disk (beside plain scalars and lists)."""
    INVARIANTS: ClassVar[tuple[type[Invariant], ...]] = ()
    WATCHED: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that `watched` returns, if it returns a tuple."""
    PARAMETERS: ClassVar[type[Parameters]] = Parameters
    leader: str | None = None
    """The node that a client does best to ask, since all others hand requests to it, as far as this
    one knows; None: it knows none, or there is none."""

    _handlers: ClassVar[dict[type, str]]

    __slots__ = (
        *("__dict__", "_bound", "_heavy", "_members", "_of_step"),
        *("config", "disk", "env", "id", "out"),
    )

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._handlers = {message: "on_" + snake_case(message.__name__) for message in cls.MESSAGES}

    def __init__(self, config: Config, env: Env, disk: Disk) -> None:
        self.config = config
        self.env = env
        self.disk = disk
        self.out = Out(disk)
        self.id = config.node
        self._members = frozenset(config.nodes)
        self._bound = {message: getattr(self, name) for message, name in self._handlers.items()}
        self._heavy: dict[tuple[str, type], int] = {}
        self._of_step: list[dict[Any, Any] | list[Any]] = [self._heavy] if self.HEAVY else []
        for message in self.HEAVY:
            self._bound[message] = self._seldom(self._bound[message])

    def step(self, inputs: Sequence[Input]) -> None:
        """Take a batch of inputs. The effects collect in `out`, the writes in `disk`."""
        for notes in self._of_step:
            notes.clear()
        for item in inputs:
            kind = type(item)
            if kind is Message:
                src, msg = item.src, item.msg  # type: ignore[union-attr]
                if src in self._members:
                    try:
                        self._bound[type(msg)](src, msg)
                    except BadMessage as error:
                        self.out.refused.append(f"{type(msg).__name__} from {src}: {error}")
            elif kind is Timer:
                self.on_timer(item.name)  # type: ignore[union-attr]
            elif kind is Durable:
                self.on_durable(item.position)  # type: ignore[union-attr]
            else:
                self.on_request(item)  # type: ignore[arg-type]
        self.end_step()

    def only_of_step(self, *notes: dict[Any, Any] | list[Any]) -> None:
        """Each step begins with these empty."""
        self._of_step.extend(notes)

    def _seldom(self, handler: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
        """Handles not more of a kind than a step has the time for."""

        def handle(src: str, msg: Any) -> None:
            asked = src, type(msg)
            times = self._heavy[asked] = self._heavy.get(asked, 0) + 1
            # The others are lost, as any message may be. Nobody has to lie for that: what was
            # repeated while a node was paused comes all at once.
            if times <= MAX_HEAVY:
                handler(src, msg)

        return handle

    def on_request(self, request: Request) -> None:
        """A client asks this node. Every node takes every request (it forwards or coordinates)."""
        raise NotImplementedError

    def on_timer(self, name: str) -> None:
        """A timer of this replica fired."""

    def on_durable(self, position: int) -> None:
        """Writes up to ``position`` are durable."""

    def end_step(self) -> None:
        """All inputs of the batch are in: send what was collected over it."""

    def watched(self) -> Any:
        """Something cheap to compare that changes whenever anything changes that an invariant looks
        at, so that they need not look again. A tuple of the fields of `WATCHED`: only those look
        for which one changed. None: all look after this step."""
        return None

    def probe(self) -> dict[str, Any]:
        """A cheap read-only view for status and reports, JSON scalars only. Common keys: ``role``,
        ``leader`` (a node or None), ``term``, ``commit``, ``applied``, ``ready`` (True: this node
        expects to serve requests now)."""
        raise NotImplementedError

    def state(self) -> Mapping[str, tuple[tuple[Value, ...], Version]]:
        """What this replica holds now: key -> (the value, or the siblings in a fixed order;
        version). Deleted keys are left out. Equal states mean converged replicas."""
        raise NotImplementedError

    def machine(self) -> Any:
        """What replicas that applied the same prefix of a log hold alike: `state`, and all that
        decides what becomes of the entries to come."""
        return self.state()

    def parts(self) -> Mapping[str, Mapping[str, tuple[tuple[Value, ...], Version]]]:
        """`state` in the parts that the same nodes hold: replicas have converged where all that
        have a part have equal ones. Here it is one part."""
        return {"": self.state()}


def snake_case(name: str) -> str:
    """``AppendEntries`` -> ``append_entries``."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
