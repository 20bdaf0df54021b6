"""A simulated cluster: n replicas under virtual time, on simulated links, disks and clocks.

`Cluster` is the stage and has the hands: run, deliver, drop, crash, restart, cut. Who plays
on it are others: `nodes.simulator.load` (clients), `nodes.simulator.faults` (a tape of faults),
`nodes.simulator.simulate` (whole seeds), transcript tests and experiments.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from operator import ne
from typing import Any, TypeAlias

import msgspec

from nodes.contract.disk import Disk, Write
from nodes.contract.replica import (
    Config,
    Invariant,
    InvariantBroken,
    Message,
    Replica,
    Reply,
    Request,
    Scene,
    Send,
    Timer,
    snake_case,
)
from nodes.registry import Protocol, node_ids
from nodes.simulator.clock import Clock
from nodes.simulator.host import Host, Listener, Timing
from nodes.simulator.network import Link, Quality, TracedLink
from nodes.simulator.timeline import Timeline
from nodes.wire.codec import Codec, WriteCodec
from nodes.wire.links import Link as LinkName

Observer: TypeAlias = Callable[[str, Any], None]


WRONG_WALL_CLOCKS = 0.3
"""The share of the seeds in which wall clocks are wrong all the time."""
WALL_ERRORS_S = (0.1, 1.0, 60.0, 86_400.0)
"""By so much at most: of the last, somebody has set the wrong day."""


class Mark(msgspec.Struct, frozen=True):
    """What a replica said of itself (`Out.mark`)."""

    at_s: float
    node: str
    name: str
    details: dict[str, Any]


class RoundTripChanged(AssertionError):
    """A message or a write is not the same after encoding and decoding it."""


class WaitsForNoDisk(Invariant):
    """What a protocol says early (`Replica.EARLY`) leaves at once, whatever its sender has written
    and not yet on disk."""

    name = "what is said early waits for no disk"

    def on_wait(self, node: str, dst: str, msg: Any) -> None:
        """Raises InvariantBroken."""
        raise InvariantBroken(f"{node} lets {dst} wait for its disk: {msg}")


class Cluster:
    """n nodes that run ``protocol``, started at virtual time 0.

    ``manual``: messages wait on their links until `deliver` or `drop`, writes are durable at once,
    and steps cost no time; timers fire when time runs (`run`) or by `fire`. ``round_trip``: every
    message and every write goes through the real codec. ``clock_offsets``: monotonic clocks of
    different nodes have nothing in common. ``right_clocks``: wall clocks are right in every seed,
    until a fault says otherwise. ``on_build``: is told of each replica before its first
    step. Raises nodes.registry.InvalidConfiguration.
    """

    def __init__(
        self,
        protocol: Protocol,
        *,
        nodes: int = 5,
        seed: int = 0,
        parameters: Mapping[str, Any] | None = None,
        quality: Quality | None = None,
        timing: Timing | None = None,
        trace: bool = False,
        manual: bool = False,
        round_trip: bool = False,
        right_clocks: bool = False,
        on_build: Callable[[Replica, Clock], None] = lambda replica, clock: None,
    ) -> None:
        self.protocol = protocol
        self._on_build = on_build
        self.nodes = node_ids(nodes)
        self.seed = seed
        self.timeline = Timeline(trace=trace)
        self.invariants = [invariant() for invariant in protocol.replica.INVARIANTS]
        self.observers: list[Observer] = []
        """Who looks at a replica after its steps. More may be added before time runs."""
        self._watched_fields = fields = protocol.replica.WATCHED
        for invariant in self.invariants if fields else ():
            unknown = set(invariant.looks_at).difference(fields)
            assert not unknown, f"{invariant.name!r} looks at {unknown}, WATCHED has {fields}"
        self._observers_of: dict[tuple[bool, ...], list[Observer]] = {}
        self.listeners: dict[type, Listener] = {}
        self.held_back: dict[type, Listener] = dict.fromkeys(
            protocol.replica.EARLY, WaitsForNoDisk().on_wait
        )
        self.doubted: dict[type, Listener] = {}
        self.marks: list[Mark] = []
        self.reply_to: Callable[[str, Reply], None] = lambda node, reply: None
        """Who gets the replies."""
        self.orphan_to: Callable[[str, Reply], None] = lambda node, reply: None
        """Who is told of replies that nobody waits for where they were made."""
        self.quality = quality or Quality()
        timing = timing or Timing()
        if manual:
            timing = Timing(step_s=0.0, fsync_s=0.0)
        kind = protocol.replica
        message_trip = _message_round_trip(kind) if round_trip else None
        write_trip = _write_round_trip(kind) if round_trip else None
        self.hosts: dict[str, Host] = {}
        offsets = self.rng("clocks")
        for node in self.nodes:
            self.hosts[node] = Host(
                self,
                protocol.configure(node, self.nodes, parameters),
                self._build,
                timing,
                Clock(self.timeline, self.rng(f"node/{node}"), offsets.random() * 1e5),
                self.rng(f"disk/{node}"),
                write_trip,
            )
        self.links: dict[LinkName, Link] = {}
        self._cut_off = 0
        self._link_all(TracedLink if trace else Link, timing, message_trip)
        self._prepare(manual=manual, right_clocks=right_clocks)
        scene = Scene(
            {node: host.config for node, host in self.hosts.items()},
            {node: host.storage.synced for node, host in self.hosts.items()},
        )
        for invariant in self.invariants:
            invariant.begin(scene)
        self._let_watch([invariant for invariant in self.invariants if invariant.is_needed()])
        for host in self.hosts.values():
            host.start()

    def _let_watch(self, invariants: Sequence[Invariant]) -> None:
        self.observers += [
            invariant.observe
            for invariant in invariants
            if type(invariant).observe is not Invariant.observe
        ]
        self.listeners.update(_listeners(invariants, "hears"))
        self.doubted.update(_listeners(invariants, "holds"))
        self._replica = _judged(self.protocol.replica, invariants)

    def _link_all(
        self, make: type[Link], timing: Timing, round_trip: Callable[[Any], Any] | None
    ) -> None:
        codes = {message: i for i, message in enumerate(self.protocol.replica.MESSAGES)}
        loopback = Quality(latency_s=timing.step_s, jitter_s=0.0)
        for src in self.nodes:
            for dst in self.nodes:
                link = self.links[src, dst] = make(
                    self.timeline,
                    src,
                    dst,
                    len(self.links),
                    loopback if src == dst else self.quality,
                    self.rng(f"link/{src}/{dst}"),
                    self.hosts[dst],
                    codes,
                    round_trip,
                )
                self.hosts[src].links[dst] = link

    def rng(self, purpose: str) -> random.Random:
        """A random stream of its own, the same in every process (a string seed goes through
        SHA-512)."""
        return random.Random(f"{self.seed}/{purpose}")

    def _prepare(self, *, manual: bool, right_clocks: bool) -> None:
        """Links that hold what is sent; else, in some seeds, wall clocks that are never right, on
        no two nodes alike: nobody has synchronised them."""
        if manual:
            for link in self.links.values():
                link.held = []
            return
        draw = self.rng("wall clocks").random
        if draw() < WRONG_WALL_CLOCKS and not right_clocks:
            most_s = WALL_ERRORS_S[int(draw() * len(WALL_ERRORS_S))]
            for host in self.hosts.values():
                host.clock.wall_error_s = most_s * (2 * draw() - 1)

    def _build(self, config: Config, clock: Clock, disk: Disk) -> Replica:
        replica = self._replica(config, clock, disk)
        self._on_build(replica, clock)
        return replica

    # --- time ---

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.timeline.now

    def run(self, seconds: float) -> None:
        """Let ``seconds`` of virtual time pass."""
        self.timeline.run_until(self.timeline.now + seconds)

    def under_way_until(self) -> float:
        """When the last message or request arrives that is on its way now; `now` if none is. On a
        link that keeps the order, what is sent later waits for it."""
        return max(
            (at_s for at_s, _, _, what in self.timeline.heap if type(what) in (Message, Request)),
            default=self.now,
        )

    # --- what is there ---

    def replica(self, node: str) -> Replica:
        """The replica of a node that is up. Raises KeyError if it is down."""
        replica = self.hosts[node].replica
        if replica is None:
            raise KeyError(f"{node} is down")
        return replica

    def leader(self) -> str | None:
        """The node that believes itself leader, of the newest term or ballot; None if there is
        none."""
        best: tuple[Any, str] | None = None
        for node, host in self.hosts.items():
            if host.replica is not None:
                probe = host.replica.probe()
                if probe.get("role") == "leader":
                    claim = (probe.get("term") or 0, node)
                    best = claim if best is None else max(best, claim)
        return best[1] if best else None

    def states(self) -> dict[str, Mapping[str, Any]]:
        """What each node that is up holds."""
        return {
            node: host.replica.state()
            for node, host in self.hosts.items()
            if host.replica is not None
        }

    def converged(self) -> bool:
        """Whether all nodes that are up hold equal states (`Replica.parts`), and their disks agree
        (`Invariant.agrees`), whatever the replicas say."""
        seen: dict[str, Mapping[str, Any]] = {}
        disks = {n: host.replica.disk for n, host in self.hosts.items() if host.replica is not None}
        return all(invariant.agrees(disks) for invariant in self.invariants) and all(
            seen.setdefault(name, part) == part
            for host in self.hosts.values()
            if host.replica is not None
            for name, part in host.replica.parts().items()
        )

    def counters(self) -> dict[str, int]:
        """Sums over all nodes and links, and the events that ran."""
        hosts, links = self.hosts.values(), self.links.values()
        return {
            "events": self.timeline.events,
            "steps": sum(host.steps for host in hosts),
            "fsyncs": sum(host.fsyncs for host in hosts),
            "crashes": sum(host.crashes for host in hosts),
            "messages_sent": sum(link.sent for link in links),
            "messages_delivered": sum(link.delivered for link in links),
            "messages_lost": sum(link.lost for link in links),
            "messages_cut": sum(link.cut for link in links),
            "inputs_dropped_at_dead_nodes": sum(host.dropped for host in hosts),
            "replies_nobody_waits_for": sum(host.orphan_replies for host in hosts),
        }

    # --- hands: nodes ---

    def crash(self, node: str, *, torn: float = 0.0) -> None:
        """Kill the process; see `Host.crash`."""
        self.hosts[node].crash(torn=torn)

    def restart(self, node: str) -> None:
        """Start the process again."""
        self.hosts[node].start()

    def fire(self, node: str, timer: str) -> None:
        """Let a timer fire now."""
        self.hosts[node].fire(timer)

    def request(self, node: str, request: Request) -> None:
        """Hand a request to a node, without a network between."""
        self.hosts[node].receive(request)

    # --- hands: links ---

    def cut(self, links: Iterable[LinkName], number: int = 0, *, in_flight: bool = True) -> None:
        """Cut directed links, on behalf of fault ``number``."""
        for link in links:
            self.links[link].block(number, in_flight=in_flight)

    def cut_off(self, node: str, for_s: float, *, deaf: bool) -> None:
        """Let nobody hear of a node for a while; ``deaf``: nor the node of anybody."""
        others = [other for other in self.nodes if other != node]
        links = [(node, other) for other in others]
        if deaf:
            links += [(other, node) for other in others]
        self._cut_off -= 1
        number = self._cut_off
        self.timeline.tell(
            "",
            "fault",
            f"FAULT {number} {node} is {'isolated' if deaf else 'mute'} for {for_s:g} s",
        )
        self.cut(links, number, in_flight=False)
        self.timeline.at(self.now + for_s, self._end_cut_off, number)

    def _end_cut_off(self, number: int) -> None:
        self.timeline.tell("", "heal", f"HEAL {number}")
        self.heal_links(number)

    def heal_links(self, number: int) -> None:
        """Undo what fault ``number`` did to links."""
        for link in self.links.values():
            link.heal(number)

    def held(self) -> list[tuple[str, str, Any]]:
        """The messages that wait, as (src, dst, message)."""
        return [
            (link.src, link.dst, message.msg)
            for link in self.links.values()
            for message in link.held or ()
        ]

    def deliver(
        self,
        src: str | None = None,
        dst: str | None = None,
        wanted: Callable[[Any], bool] = lambda msg: True,
    ) -> int:
        """Deliver what waits now from ``src`` to ``dst`` (None: any) and is ``wanted``; what that
        makes the nodes send waits in turn. Returns how many there were."""
        taken = self._take(src, dst, wanted)
        for link, message in taken:
            link.deliver(message)
        return len(taken)

    def drop(
        self,
        src: str | None = None,
        dst: str | None = None,
        wanted: Callable[[Any], bool] = lambda msg: True,
    ) -> int:
        """Lose what waits now from ``src`` to ``dst`` (None: any) and is ``wanted``."""
        taken = self._take(src, dst, wanted)
        for link, _ in taken:
            link.lost += 1
        return len(taken)

    def settle(self, limit: int = 10_000) -> int:
        """Deliver until nothing waits. Raises RuntimeError after ``limit`` messages."""
        count = 0
        while delivered := self.deliver():
            count += delivered
            if count > limit:
                raise RuntimeError(f"{limit} messages and no end")
        return count

    def _take(
        self, src: str | None, dst: str | None, wanted: Callable[[Any], bool]
    ) -> list[tuple[Link, Message]]:
        taken: list[tuple[Link, Message]] = []
        for link in self.links.values():
            if link.held and src in (None, link.src) and dst in (None, link.dst):
                taken.extend((link, message) for message in link.held if wanted(message.msg))
                link.held[:] = [message for message in link.held if not wanted(message.msg)]
        return taken

    # --- called by the hosts ---

    def observers_after(self, before: Any, now: Any) -> list[Observer]:
        """Who has to look at a replica of which `Replica.watched` was ``before`` (None: it has just
        been built) and is ``now``."""
        if before is None or now is None or not self._watched_fields:
            return self.observers
        changed = tuple(map(ne, before, now))
        observers = self._observers_of.get(changed)
        if observers is None:
            names = {n for n, new in zip(self._watched_fields, changed, strict=True) if new}
            observers = self._observers_of[changed] = [
                observe
                for observe in self.observers
                if not (wanted := getattr(getattr(observe, "__self__", None), "looks_at", ()))
                or names.intersection(wanted)
            ]
        return observers

    def on_marks(self, node: str, marks: list[tuple[str, dict[str, Any]]]) -> None:
        """A replica named what happened."""
        for name, details in marks:
            self.marks.append(Mark(self.timeline.now, node, name, dict(details)))
            self.timeline.tell(node, "mark", f"{node} MARK {name} {details or ''}".rstrip())

    def on_reply(self, node: str, reply: Reply) -> None:
        """A replica answered."""
        if self.timeline.transcript is not None:
            self.timeline.say(f"{node} -> {reply.client}  {reply!r}")
        self.reply_to(node, reply)

    def on_orphan(self, node: str, reply: Reply) -> None:
        """A replica answered, and nobody waits for it there."""
        self.orphan_to(node, reply)


def _listeners(invariants: Sequence[Invariant], which: str) -> dict[type, Listener]:
    """By type, who has to hear of what leaves or arrives, or is held back (`Invariant.hears`,
    `Invariant.holds`)."""
    by_type: dict[type, list[Listener]] = {}
    for invariant in invariants:
        for kind, method in getattr(invariant, which).items():
            by_type.setdefault(kind, []).append(getattr(invariant, method))
    return {kind: reduce(_both, listeners) for kind, listeners in by_type.items()}


def _both(first: Listener, second: Listener) -> Listener:
    def hear(node: str, other: Any, what: Any) -> None:
        first(node, other, what)
        second(node, other, what)

    return hear


def _judged(kind: type[Replica], invariants: Sequence[Invariant]) -> type[Replica]:
    """``kind``, whose handlers are judged by `Invariant.judges`."""
    handlers: dict[str, Any] = {}
    for invariant in invariants:
        for message, method in invariant.judges.items():
            name = "on_" + snake_case(message.__name__)
            handler = handlers.get(name) or getattr(kind, name)
            then = _then_of_timer if message is Timer else _then
            handlers[name] = then(handler, getattr(invariant, method))
    return type(kind.__name__, (kind,), handlers) if handlers else kind


def _then(
    handler: Callable[[Replica, str, Any], None],
    judge: Callable[[Replica, str, Any, Sequence[Send]], None],
) -> Callable[[Replica, str, Any], None]:
    def handle(replica: Replica, src: str, msg: Any) -> None:
        sends = replica.out.sends
        first = len(sends)
        handler(replica, src, msg)
        judge(replica, src, msg, sends[first:])

    return handle


def _then_of_timer(
    handler: Callable[[Replica, str], None],
    judge: Callable[[Replica, str, str, Sequence[Send]], None],
) -> Callable[[Replica, str], None]:
    def handle(replica: Replica, name: str) -> None:
        first = len(replica.out.sends)
        handler(replica, name)
        judge(replica, "", name, replica.out.sends[first:])

    return handle


def _message_round_trip(kind: type[Replica]) -> Callable[[Any], Any]:
    codec: Codec[Any] = Codec(kind.MESSAGES)

    def round_trip(msg: Any) -> Any:
        (decoded,) = codec.decode(codec.encode([msg]))
        if decoded != msg:
            raise RoundTripChanged(f"{msg!r} came out of the codec as {decoded!r}")
        return decoded

    return round_trip


def _write_round_trip(kind: type[Replica]) -> Callable[[Write], Write]:
    codec = WriteCodec(kind.RECORDS)

    def round_trip(write: Write) -> Write:
        (decoded,) = codec.decode(codec.encode([write]))
        if decoded != write:
            raise RoundTripChanged(f"{write!r} came back from the disk as {decoded!r}")
        return decoded

    return round_trip
