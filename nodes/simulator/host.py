"""One simulated node: it does a driver's duties (see `nodes.contract.replica`) for a replica, and
its faults.

Theory of operation
-------------------
An input that arrives while the node is idle is stepped at once; the step keeps the node busy for
``step_s``, and whatever arrives meanwhile is stepped together afterwards. Writes of a step go to
`StableStorage`; if no fsync is in flight one starts, for everything that waits. What the replica
sends behind those writes is kept in a queue (the durability gate) until the fsync returns.

A crash throws the replica away, with its timers, its inbox and its gate. A restart builds a new one
on the disk that survived. *Traps* crash a node at an exact place: before an fsync, in it, after it
but before anything leaves, right after what waited for it left, after a message of some type, or at
a mark.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from nodes.contract.bounds import BadMessage
from nodes.contract.disk import Append, Disk, Put, Write
from nodes.contract.replica import (
    Config,
    Durable,
    Input,
    Message,
    Replica,
    Reply,
    Request,
    Send,
    Timer,
)
from nodes.simulator.clock import Clock
from nodes.simulator.disk import StableStorage
from nodes.simulator.network import Link
from nodes.simulator.timeline import Timeline

TrapPoint: TypeAlias = Literal[
    "before-fsync",
    "in-fsync",
    "after-fsync",
    "after-release",
    "after-send",
    "after-reply",
    "mark",
]


Listener: TypeAlias = Callable[[str, Any, Any], None]
"""See `nodes.contract.replica.Invariant.hears`."""


class Trap(msgspec.Struct, kw_only=True):
    """Crash a node each ``nth`` time that it passes ``point``, ``times`` in all. ``match``: at an
    fsync the kind of write that must be in it (``Put``, ``Append``, ``rare`` or the key of a Put;
    empty: any), else the name of the message type, outcome or mark (empty: any). ``down_s``: until
    the restart. ``everybody``: all nodes crash with it, a power failure. ``cut``: the node does not
    crash, but others hear nothing of it for ``down_s`` (``mute``), nor it of them (``isolate``).
    One trap may be set on several nodes: the first that passes falls in."""

    point: TrapPoint
    match: str = ""
    nth: int = 1
    down_s: float = 0.05
    torn: float = 0.0
    everybody: bool = False
    cut: Literal["", "mute", "isolate"] = ""
    times: int = 1
    passed: int = 0


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What things cost on a node. ``fsync_s`` 0: writes are durable at once, without an event."""

    step_s: float = 0.00002
    fsync_s: float = 0.001


class _Flight:
    """An fsync under way, of the oldest ``count`` waiting writes, which end at ``position``."""

    __slots__ = ("count", "position")

    def __init__(self, count: int, position: int) -> None:
        self.count = count
        self.position = position


class Surroundings(Protocol):
    """What a host needs of the cluster that it is in."""

    timeline: Timeline
    hosts: dict[str, Host]
    listeners: dict[type, Listener]
    held_back: dict[type, Listener]
    """Who has to hear of what waits for the disk."""
    doubted: dict[type, Listener]
    """The same, of what perhaps need not; see `nodes.contract.replica.Invariant.holds`."""

    def observers_after(self, before: Any, now: Any) -> list[Callable[[str, Replica], None]]:
        """Who has to look at a replica, of which `Replica.watched` was ``before`` and is
        ``now``."""

    def on_marks(self, node: str, marks: list[tuple[str, dict[str, Any]]]) -> None:
        """A replica named what happened."""

    def on_reply(self, node: str, reply: Reply) -> None:
        """A replica answered."""

    def on_orphan(self, node: str, reply: Reply) -> None:
        """A replica answered, and nobody waits for it there."""

    def cut_off(self, node: str, for_s: float, *, deaf: bool) -> None:
        """Let nobody hear of a node for a while; ``deaf``: nor the node of anybody."""


class Host:
    """A node of the cluster. ``up``: the process runs; ``replica`` is None while it does not."""

    __slots__ = (
        *("id", "config", "clock", "links", "replica", "up", "paused", "retired"),
        *("disk_full", "fsync_fails", "fsync_factor", "fsync_delay_s"),
        *("traps", "storage", "incarnation"),
        *("steps", "crashes", "dropped", "fsyncs", "orphan_replies"),
        *("_cluster", "_timeline", "_build", "_timing", "_step_s", "_random", "_disk", "_number"),
        *("_timer_inputs", "_inbox", "_due", "_deadlines", "_scheduled", "_gate", "_asked"),
        *("_taken", "_durable", "_flight", "_late_fsync", "_waking", "_free_at_s", "_watched"),
        *("_at", "_note", "_tracing", "_listeners", "_held_back", "_doubted", "ready_at_s"),
    )

    def __init__(
        self,
        cluster: Surroundings,
        config: Config,
        build: Callable[[Config, Clock, Disk], Replica],
        timing: Timing,
        clock: Clock,
        disk_rng: random.Random,
        round_trip: Callable[[Write], Write] | None,
    ) -> None:
        self.id = config.node
        self.config = config
        self.clock = clock
        self.links: dict[str, Link] = {}
        self.replica: Replica | None = None
        self.up = False
        self.paused = False
        self.retired = False
        """Stays down, whatever asks for a restart."""
        self.disk_full = False
        self.fsync_fails = False
        self.fsync_factor = 1.0
        self.fsync_delay_s = 0.0
        """On top of what each fsync takes."""
        self.traps: list[Trap] = []
        self.storage = StableStorage(round_trip)
        self.incarnation = 0
        self.steps = self.crashes = self.dropped = self.fsyncs = self.orphan_replies = 0
        self._cluster = cluster
        self._timeline: Timeline = cluster.timeline
        self._at = cluster.timeline.at
        self._note = cluster.timeline.note
        self._tracing = cluster.timeline.transcript is not None
        self._build = build
        self._timing = timing
        self._step_s = timing.step_s
        self._random = disk_rng.random
        self._disk = Disk()
        self._number = float(config.nodes.index(config.node)) + 900_000.0
        self._listeners = cluster.listeners
        self._held_back = cluster.held_back
        self._doubted = cluster.doubted
        self._timer_inputs: dict[str, Timer] = {}
        self._forget()

    def _forget(self) -> None:
        self._inbox: list[Input] = []
        self._due: list[str] = []
        self._deadlines: dict[str, float] = {}
        self._scheduled: dict[str, float] = {}
        self._gate: deque[Send | tuple[int, Reply]] = deque()
        self._asked: dict[tuple[str, int], Request] = {}
        self._taken = 0
        self._durable = 0
        self._flight: _Flight | None = None
        self._late_fsync = False
        self._waking = False
        self._free_at_s = 0.0
        self.ready_at_s = inf
        """From then on an input is stepped at once. Infinite: it waits, or is lost."""
        self._watched: Any = None

    # --- life ---

    def start(self) -> None:
        """Build the replica on what the disk kept. Nothing happens if it runs or is retired."""
        if self.up or self.retired or self.disk_full:
            return
        self.up = True
        self.ready_at_s = self._free_at_s
        self.incarnation += 1
        self._timeline.tell(self.id, "start", f"{self.id} starts")
        self._disk.stable = self.storage.synced
        self.replica = self._build(self.config, self.clock, self._disk)
        self._note_turn(1)
        self.step(())

    def restart_after(self, delay_s: float) -> None:
        """Start again later, unless something started it before."""
        self._timeline.at(self._timeline.now + delay_s, self._restart, None)

    def _restart(self, _: None) -> None:
        self.start()

    def crash(self, *, torn: float = 0.0, why: str = "") -> None:
        """Lose everything that is not durable. ``torn``: the share of the unsynced writes, oldest
        first, that reached the disk all the same."""
        if not self.up:
            return
        self.crashes += 1
        waiting = len(self.storage.waiting)
        surviving = min(waiting, int(torn * (waiting + 1)))
        losses = f"(of {waiting} unsynced writes {surviving} survive)"
        self._timeline.tell(
            self.id, "crash", " ".join(filter(None, (f"{self.id} CRASHES", why, losses)))
        )
        self._disk = self.storage.crash(surviving)
        self.up = self.paused = False
        self.replica = None
        self._forget()
        self._note_turn(2)

    @property
    def step_s(self) -> float:
        """What a step takes."""
        return self._step_s

    @property
    def is_durable(self) -> bool:
        """Whether a crash now would lose nothing that was written."""
        return self.replica is not None and self._durable == self.replica.disk.position

    def pause(self) -> None:
        """Stop the process (SIGSTOP): inputs queue, timers come late, an fsync in flight goes
        on."""
        if self.up and not self.paused:
            self.paused = True
            self.ready_at_s = inf
            self._timeline.tell(self.id, "pause", f"{self.id} pauses")

    def slow_down(self, step_s: float) -> None:
        """Let each step take ``step_s`` from now on, or as long as usual, if that is longer."""
        self._step_s = max(step_s, self._timing.step_s)

    def resume(self) -> None:
        """Go on after `pause`."""
        if not (self.up and self.paused):
            return
        self.paused = False
        self.ready_at_s = inf if self._waking else self._free_at_s
        self._timeline.tell(self.id, "resume", f"{self.id} goes on")
        if self._late_fsync and self._flight is not None:
            self._late_fsync = False
            self._end_fsync(self._flight)
        self._wake(None)

    @property
    def unanswered(self) -> list[tuple[str, int]]:
        """(client, sequence) of the requests that came since the process was started and have no
        answer yet."""
        return sorted(self._asked)

    # --- inputs ---

    def receive(self, item: Message | Request) -> None:
        """A message or a request arrives."""
        if not self.up:
            self.dropped += 1
            return
        if type(item) is Request:
            self._asked[item.client, item.sequence] = item
            listener = self._listeners.get(Request)
            if listener is not None:
                listener(self.id, "", item)
        if self._timeline.now < self.ready_at_s:
            self._inbox.append(item)
            self._wake_later()
        else:
            self.step((item,))

    def fire(self, name: str) -> None:
        """Let a timer fire now, whatever its deadline (manual mode)."""
        if self.up:
            self._deadlines.pop(name, None)
            self.step((Timer(name),))

    def _wake_later(self) -> None:
        if not self._waking and not self.paused:
            self._waking = True
            self.ready_at_s = inf
            self._at(self._free_at_s, self._wake)

    def _wake(self, _: None) -> None:
        self._waking = False
        if not self.up or self.paused:
            return
        self.ready_at_s = self._free_at_s
        if self._due:
            # Each in a step of its own: an earlier one may cancel or replace a later one.
            due, self._due = self._due, []
            for name in due:
                if self._deadlines.get(name, self._timeline.now + 1) <= self._timeline.now:
                    self._fire_due(name)
                    if not self.up:
                        return
        if self._inbox:
            batch, self._inbox = self._inbox, []
            self.step(batch)

    def _fire_due(self, name: str) -> None:
        del self._deadlines[name]
        item = self._timer_inputs.get(name)
        if item is None:
            item = self._timer_inputs[name] = Timer(name)
        self.step((item,))

    def _set_timer(self, name: str, delay_s: float) -> None:
        deadline_s = self._timeline.now + max(0.0, delay_s) / self.clock.rate
        self._deadlines[name] = deadline_s
        # An event that comes too early looks at the deadline and goes on waiting: most timers are
        # replaced long before they fire, and this way most of those cost no event.
        scheduled_s = self._scheduled.get(name)
        if scheduled_s is None or deadline_s < scheduled_s:
            self._schedule(name, deadline_s)

    def _schedule(self, name: str, deadline_s: float) -> None:
        self._scheduled[name] = deadline_s
        self._at(deadline_s, self._on_timer_event, (self.incarnation, name))

    def _on_timer_event(self, argument: tuple[int, str]) -> None:
        incarnation, name = argument
        now_s = self._timeline.now
        if incarnation != self.incarnation or self._scheduled.get(name) != now_s:
            return
        del self._scheduled[name]
        deadline_s = self._deadlines.get(name)
        if deadline_s is None:
            return
        if deadline_s > now_s:
            self._schedule(name, deadline_s)
        elif now_s < self.ready_at_s:
            self._due.append(name)
            self._wake_later()
        else:
            self._fire_due(name)

    # --- steps and their effects ---

    def _note_turn(self, what: int) -> None:
        self._note(self._timeline.now * (self._number + what / 16))

    def step(self, inputs: tuple[Input, ...] | list[Input]) -> None:
        """Let the replica take inputs (none, when it has just been built), and carry out what it
        left in `out` and wrote to its disk."""
        replica = self.replica
        assert replica is not None
        now_s = self._timeline.now
        if inputs:
            self.steps += 1
            free_at_s = self._free_at_s = now_s + self._step_s
            self.ready_at_s = inf if self._waking else free_at_s
            if self._tracing:
                for item in inputs:
                    self._timeline.say(f"{self.id} <- {item!r}")
            replica.step(inputs)
        out = replica.out
        if out.refused:
            # Nobody lies here: whatever a replica cannot believe, another one really sent.
            raise BadMessage(out.refused[0])
        if out.timers:
            for name, delay_s in out.timers:
                if delay_s is None:
                    self._deadlines.pop(name, None)
                else:
                    self._set_timer(name, delay_s)
            out.timers.clear()
        storage = self.storage
        position = replica.disk.position
        if position != self._taken:
            self._taken = position
            storage.accept(replica.disk.take())
            self._note(now_s * (self._number + position))
        watched, before = replica.watched(), self._watched
        if watched is None or watched != before:
            if watched is not None:
                self._watched = watched
            for observe in self._cluster.observers_after(before, watched):
                observe(self.id, replica)
        if out.marks:
            if self._pass_marks(out.marks):
                return
            out.marks.clear()
        # Sends before the fsync starts: an early one may be out when the node dies before its
        # fsync.
        durable = self._durable
        sends = out.sends
        if sends:
            traps = self._names_of_traps("after-send") if self.traps or self._tracing else None
            links, listeners = self.links, self._listeners
            for send in sends:
                if send.position > durable:
                    self._hold_back(send, inputs)
                    continue
                listener = listeners.get(type(send.msg))
                if listener is not None:
                    listener(self.id, send.dst, send.msg)
                if traps is None:
                    links[send.dst].send(send.msg)
                elif self._transmit(send, traps):
                    return
            sends.clear()
        if out.replies:
            for gated in out.replies:
                if gated[0] > durable:
                    self._hold_reply(gated, inputs)
                elif self._answer(gated[1]):
                    return
            out.replies.clear()
        if storage.waiting and self._flight is None:
            self._start_fsync()

    def _hold_back(self, send: Send, inputs: Sequence[Input]) -> None:
        """It waits until what was written before is durable."""
        kind = type(send.msg)
        listener = self._held_back.get(kind)
        if listener is not None:
            listener(self.id, send.dst, send.msg)
        listener = self._doubted.get(kind)
        if listener is not None and Durable not in map(type, inputs):
            listener(self.id, send.dst, send.msg)
        self._gate.append(send)

    def _hold_reply(self, gated: tuple[int, Reply], inputs: Sequence[Input]) -> None:
        listener = self._doubted.get(Reply)
        if listener is not None and Durable not in map(type, inputs):
            reply = gated[1]
            request = self._asked.get((reply.client, reply.sequence))
            if request is not None:
                listener(self.id, request, reply)
        self._gate.append(gated)

    def _pass_marks(self, marks: list[tuple[str, dict[str, Any]]]) -> bool:
        """Tell them. True: that sprang a trap and the node is down."""
        self._cluster.on_marks(self.id, marks)
        return bool(self.traps) and any(self._springs("mark", name) for name, _ in marks)

    def _transmit(self, send: Send, traps: list[str]) -> bool:
        """Hand a message to its link. ``traps``: the names on which one springs. True: one did, and
        the node is down."""
        if self._tracing:
            self._timeline.say(f"{self.id} -> {send.dst}  {send.msg!r}")
        self.links[send.dst].send(send.msg)
        name = type(send.msg).__name__
        return (name in traps or "" in traps) and self._springs("after-send", name)

    def _answer(self, reply: Reply) -> bool:
        """Hand a reply to the clients. True: that sprang a trap and the node is down."""
        request = self._asked.pop((reply.client, reply.sequence), None)
        if request is None:
            # A live node has no topic to answer to: nobody asked it, or it has answered already.
            self.orphan_replies += 1
            self._cluster.on_orphan(self.id, reply)
            return False
        listener = self._listeners.get(Reply)
        if listener is not None:
            listener(self.id, request, reply)
        self._cluster.on_reply(self.id, reply)
        return bool(self.traps) and self._springs("after-reply", reply.outcome)

    # --- the disk ---

    def _start_fsync(self) -> None:
        waiting = self.storage.waiting
        if self.disk_full:
            self.crash(why="because its disk is full")
            return
        if self.traps and self._springs_at_fsync("before-fsync", waiting):
            return
        self.fsyncs += 1
        flight = self._flight = _Flight(len(waiting), self._taken)
        fsync_s = self._timing.fsync_s * self.fsync_factor
        if fsync_s == 0 and not self.fsync_delay_s:
            self._end_fsync(flight)
            return
        r = self._random()
        duration_s = fsync_s * (0.5 + r / (1.02 - r) * 0.5) + self.fsync_delay_s
        self._at(self._timeline.now + duration_s, self._end_fsync, flight)

    def mend_disk(self) -> None:
        """The disk is faster again; an fsync under way soon returns."""
        timeline = self._timeline
        if self._flight is not None:
            soon_s = timeline.now + self._timing.fsync_s * self.fsync_factor + self.fsync_delay_s
            timeline.at(soon_s, self._end_fsync, self._flight)

    def _end_fsync(self, flight: _Flight) -> None:
        if flight is not self._flight:
            return
        if self.paused:
            self._late_fsync = True
            return
        if self.fsync_fails:
            # Whether the pages reached the disk is unknown after a failed fsync, and a second one
            # would lie (Rebello et al., ATC 2020): the only safe answer is to stop.
            self.crash(torn=self._random(), why="because fsync failed")
            return
        if self.traps and self._springs_at_fsync("in-fsync", self.storage.waiting[: flight.count]):
            return
        written = self.storage.commit(flight.count)
        position = self._durable = flight.position
        if self.traps and self._springs_at_fsync("after-fsync", written):
            return
        gate = self._gate
        traps = self._names_of_traps("after-send") if self.traps or self._tracing else None
        while gate:
            first = gate[0]
            if type(first) is Send:
                if first.position > position:
                    break
                gate.popleft()
                listener = self._listeners.get(type(first.msg))
                if listener is not None:
                    listener(self.id, first.dst, first.msg)
                if traps is None:
                    self.links[first.dst].send(first.msg)
                elif self._transmit(first, traps):
                    return
            else:
                if first[0] > position:  # type: ignore[index]
                    break
                gate.popleft()
                if self._answer(first[1]):  # type: ignore[index]
                    return
        if self.traps and self._springs_at_fsync("after-release", written):
            return
        self._flight = None
        if self.storage.waiting:
            self._start_fsync()
            if not self.up:
                return
        if self._timeline.now < self.ready_at_s:
            self._inbox.append(Durable(position))
            self._wake_later()
        else:
            self.step((Durable(position),))

    # --- traps ---

    def _names_of_traps(self, point: TrapPoint) -> list[str] | None:
        """What the traps at ``point`` match; None: there is nothing to look out for."""
        names = [trap.match for trap in self.traps if trap.point == point]
        return names if names or self._tracing else None

    def _springs_at_fsync(self, point: TrapPoint, writes: list[Write]) -> bool:
        for trap in self.traps:
            if trap.point == point:
                for write in writes:
                    if self._matches(trap.match, write):
                        return self._spring(trap)
        return False

    def _springs(self, point: TrapPoint, name: str) -> bool:
        for trap in self.traps:
            if trap.point == point and trap.match in ("", name):
                return self._spring(trap)
        return False

    def _matches(self, wanted: str, write: Write) -> bool:
        if wanted == "":
            return True
        if wanted == "rare":
            return self.storage.is_rare(write)
        if type(write) is Put:
            return wanted in ("Put", write.key)
        return wanted == "Append" and type(write) is Append

    def _spring(self, trap: Trap) -> bool:
        if trap.times <= 0:
            return False
        trap.passed += 1
        if trap.passed % trap.nth:
            return False
        trap.times -= 1
        if trap.cut:
            self._cluster.cut_off(self.id, trap.down_s, deaf=trap.cut == "isolate")
            return False
        why = f"at {trap.point} {trap.match}".rstrip()
        victims = self._cluster.hosts.values() if trap.everybody else [self]
        for host in victims:
            host.crash(torn=trap.torn, why=why)
            host.restart_after(trap.down_s)
        return True
