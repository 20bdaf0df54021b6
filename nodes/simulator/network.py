"""The simulated network: one link per ordered pair of nodes, with datagram semantics.

A message gets its delay when it is sent. Each link has a random stream of its own, so that a change
on one link (a fault removed by shrinking) leaves the others as they were.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from heapq import heappush
from typing import Any, Protocol, TypeAlias

import msgspec

from nodes.contract.replica import Message
from nodes.simulator.story import Arrow
from nodes.simulator.timeline import Timeline

Tap: TypeAlias = Callable[[str, str, Any], None]
"""Is told the sender, the receiver and the message."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How a link behaves. A delay is ``latency_s`` plus a heavy-tailed part with the median
    ``jitter_s`` (at most 50 times that). ``loss``, ``duplicate``, ``reorder``: probabilities per
    message; a reordered message takes ``late_s`` longer, and others overtake it. ``fifo``: messages
    that are not reordered arrive in the order they were sent, as in a TCP stream."""

    latency_s: float = 0.001
    jitter_s: float = 0.0005
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    late_s: float = 0.02
    fifo: bool = True

    def worse(self, other: Quality) -> Quality:
        """This one, with what ``other`` adds on top."""
        return Quality(
            latency_s=self.latency_s + other.latency_s,
            jitter_s=self.jitter_s + other.jitter_s,
            loss=1 - (1 - self.loss) * (1 - other.loss),
            duplicate=1 - (1 - self.duplicate) * (1 - other.duplicate),
            reorder=1 - (1 - self.reorder) * (1 - other.reorder),
            late_s=max(self.late_s, other.late_s),
            fifo=self.fifo and other.fifo,
        )


class Receiver(Protocol):
    """Where a link ends. ``ready_at_s``: when it can step again."""

    ready_at_s: float

    def receive(self, item: Message) -> None:
        """Take a message, now or when it is ready."""

    def step(self, inputs: tuple[Message, ...]) -> None:
        """Step at once."""


class Link:
    """The way from one node to another. ``lost``, ``cut``, ``sent``, ``delivered`` count
    messages; ``slowed`` those sent while a fault made it slower, and ``slowed_s`` their delays."""

    def __init__(
        self,
        timeline: Timeline,
        src: str,
        dst: str,
        number: int,
        quality: Quality,
        rng: random.Random,
        receiver: Receiver,
        codes: dict[type, int],
        round_trip: Callable[[Any], Any] | None,
    ) -> None:
        self.src = src
        self.dst = dst
        self._held: list[Message] | None = None
        self._tap: Tap | None = None
        self.sent = self.lost = self.cut = self.delivered = self.slowed = 0
        self.slowed_s = 0.0
        self._timeline = timeline
        self._note = timeline.note
        self._heap = timeline.heap
        self._next = timeline.next
        self._host = receiver
        self._codes = codes
        self._number = (number + 1) * 1000.0
        self._round_trip = round_trip
        self._random = rng.random
        self._last_s = 0.0
        self._base = quality
        self._overlays: dict[int, Quality] = {}
        self._cuts: dict[int, bool] = {}
        self._delays: dict[int, tuple[set[type], float]] = {}
        self._cut = False
        self._cut_in_flight = False
        self._deliver = self.deliver
        self._refresh()

    @property
    def held(self) -> list[Message] | None:
        """In manual mode, the messages that wait for the script."""
        return self._held

    @held.setter
    def held(self, held: list[Message] | None) -> None:
        self._held = held
        self._refresh()

    @property
    def tap(self) -> Tap | None:
        """Who is told of each message that is sent, whatever becomes of it."""
        return self._tap

    @tap.setter
    def tap(self, tap: Tap | None) -> None:
        self._tap = tap
        self._refresh()

    @property
    def is_cut(self) -> bool:
        """Whether a fault has cut it."""
        return self._cut

    def send(self, msg: Any) -> None:
        """Send, with whatever becomes of it."""
        self.sent += 1
        if self._special is not None:
            self._special(msg)
            return
        r = self._random()
        arrival_s = self._timeline.now + self._latency_s + self._spread_s * r / (1.02 - r)
        if self._fifo:
            if arrival_s < self._last_s:
                arrival_s = self._last_s
            self._last_s = arrival_s
        heappush(self._heap, (arrival_s, self._next(), self._deliver, Message(self.src, msg)))

    def _send_specially(self, msg: Any) -> None:
        """The way of all messages that are cut, encoded, held, counted, or at the mercy of
        chance."""
        if self._tap is not None:
            self._tap(self.src, self.dst, msg)
        if self._cut:
            self.cut += 1
            if self._timeline.transcript is not None:
                self._timeline.say(f"{self.src} -> {self.dst}  CUT {msg!r}")
            return
        if self._round_trip is not None:
            msg = self._round_trip(msg)
        message = Message(self.src, msg)
        if self._held is not None:
            self._held.append(message)
            return
        r = self._random()
        arrival_s = self._timeline.now + self._latency_s + self._spread_s * r / (1.02 - r)
        if self._slow:
            self.slowed += 1
            self.slowed_s += arrival_s - self._timeline.now
        for kinds, late_s in self._delays.values():
            if type(msg) in kinds:
                arrival_s += late_s * self._random()
                heappush(self._heap, (arrival_s, self._next(), self._deliver, message))
                return
        if self._rough:
            self._arrive_roughly(message, arrival_s)
            return
        if self._fifo:
            arrival_s = max(arrival_s, self._last_s)
            self._last_s = arrival_s
        heappush(self._heap, (arrival_s, self._next(), self._deliver, message))

    def _send_roughly(self, msg: Any) -> None:
        """The way of messages that are at the mercy of chance, and nothing else."""
        r = self._random()
        arrival_s = self._timeline.now + self._latency_s + self._spread_s * r / (1.02 - r)
        self._arrive_roughly(Message(self.src, msg), arrival_s)

    def _arrive_roughly(self, message: Message, arrival_s: float) -> None:
        quality, random = self._quality, self._random
        if random() < quality.loss:
            self.lost += 1
            if self._timeline.transcript is not None:
                self._timeline.say(f"{self.src} -> {self.dst}  LOST {message.msg!r}")
            return
        if random() < quality.duplicate:
            copy_s = arrival_s + quality.late_s * random()
            heappush(self._heap, (copy_s, self._next(), self._deliver, message))
        if random() < quality.reorder:
            arrival_s += quality.late_s * random()
        elif self._fifo:
            if arrival_s < self._last_s:
                arrival_s = self._last_s
            self._last_s = arrival_s
        heappush(self._heap, (arrival_s, self._next(), self._deliver, message))

    def deliver(self, message: Message) -> None:
        """The message is at the other end."""
        timeline = self._timeline
        if self._cut_in_flight:
            self.cut += 1
            if timeline.transcript is not None:
                timeline.say(f"{self.src} -> {self.dst}  CUT in flight {message.msg!r}")
            return
        self.delivered += 1
        now_s = timeline.now
        self._note(now_s * (self._number + self._codes[type(message.msg)]))
        host = self._host
        if now_s < host.ready_at_s:
            host.receive(message)
        else:
            host.step((message,))

    def block(self, number: int, *, in_flight: bool) -> None:
        """Cut the link, on behalf of fault ``number``. ``in_flight``: what is on its way is lost
        too."""
        self._cuts[number] = in_flight
        self._refresh()

    def degrade(self, number: int, quality: Quality) -> None:
        """Make the link worse, on behalf of fault ``number``."""
        self._overlays[number] = quality
        self._refresh()

    def delay(self, number: int, kinds: set[type], late_s: float) -> None:
        """Let messages of these types come later by up to ``late_s``, on behalf of fault
        ``number``."""
        self._delays[number] = (kinds, late_s)
        self._refresh()

    def heal(self, number: int) -> None:
        """Undo what was done on behalf of fault ``number``."""
        self._delays.pop(number, None)
        self._cuts.pop(number, None)
        self._overlays.pop(number, None)
        self._refresh()

    def reset(self, quality: Quality | None = None) -> None:
        """Undo all faults; ``quality``: what the link is like from now on."""
        self._cuts.clear()
        self._overlays.clear()
        self._delays.clear()
        self._base = quality or self._base
        self._refresh()

    def _refresh(self) -> None:
        quality = self._base
        for overlay in self._overlays.values():
            quality = quality.worse(overlay)
        self._quality = quality
        self._latency_s = quality.latency_s
        self._spread_s = quality.jitter_s
        self._fifo = quality.fifo
        self._rough = bool(quality.loss or quality.duplicate or quality.reorder)
        base = self._base
        self._slow = quality.latency_s > base.latency_s or quality.jitter_s > base.jitter_s
        self._cut = bool(self._cuts)
        self._cut_in_flight = any(self._cuts.values())
        self._special: Callable[[Any], None] | None = None
        if (
            self._cut
            or self._slow
            or self._delays
            or self._round_trip is not None
            or self._held is not None
            or self._tap is not None
        ):
            self._special = self._send_specially
        elif self._rough:
            self._special = self._send_roughly


class TracedLink(Link):
    """A link that keeps the story of its messages, for runs with a trace."""

    def __init__(self, timeline: Timeline, *others: Any) -> None:
        super().__init__(timeline, *others)
        self._story = timeline.story
        self._under_way: list[tuple[Any, Arrow]] = []
        self._arrived: deque[tuple[Any, Arrow]] = deque(maxlen=100)

    def send(self, msg: Any) -> None:
        """Send, and note what becomes of it."""
        arrow = self._tell(msg, self._timeline.now)
        lost, cut = self.lost, self.cut
        super().send(msg)
        if self.lost > lost:
            arrow.fate = "lost"
        elif self.cut > cut:
            arrow.fate = "cut"
        else:
            self._under_way.append((msg, arrow))

    def deliver(self, message: Message) -> None:
        """The message, or a second copy of it, is at the other end."""
        arrow = self._arriving(message.msg)
        arrow.arrived_s = self._timeline.now
        arrow.fate = "cut" if self._cut_in_flight else "arrived"
        super().deliver(message)

    def _arriving(self, msg: Any) -> Arrow:
        for told in self._under_way:
            if told[0] == msg:
                self._under_way.remove(told)
                self._arrived.append(told)
                return told[1]
        original = next((arrow for other, arrow in self._arrived if other == msg), None)
        return self._tell(msg, original.sent_s if original else self._timeline.now)

    def _tell(self, msg: Any, sent_s: float) -> Arrow:
        label, text = type(msg).__name__, repr(msg)
        arrow = Arrow(src=self.src, dst=self.dst, label=label, text=text, sent_s=sent_s)
        assert self._story is not None, "the cluster keeps a trace"
        self._story.arrows.append(arrow)
        return arrow
