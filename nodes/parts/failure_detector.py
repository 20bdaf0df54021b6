"""Heartbeats and suspicion: who seems to have crashed? Sans-I/O, time is an argument.

Theory of operation
-------------------
Every node sends every other one a `Heartbeat` now and then. A detector is told of arrivals
(`FailureDetector.heartbeat`), is asked at regular times (`check`), and returns what changed: a node
is *suspected* or *trusted* again. A suspicion may be wrong; that a node has crashed cannot be known
(Chandra, Toueg, "Unreliable failure detectors for reliable distributed systems", JACM 1996).

- `CountingDetector`: each check adds to the suspicion of a node that has been silent for longer
  than a timeout, and takes a little from that of the others. An arrival only ends the silence. It
  does not wipe the suspicion, for then a link that lets a heartbeat through now and then looks
  healthy.
- `PhiDetector`: phi accrual (Hayashibara, Defago, Yared, Katayama, "The phi accrual failure
  detector", SRDS 2004). It learns how far apart heartbeats arrive, and phi says how unlikely the
  present silence is: if a node is suspected at phi, the chance of a mistake is 10 to the -phi, as
  far as the arrivals are normally distributed (section 4).

`Heartbeats` is the part that a protocol embeds: it sends, receives, checks, marks.

Only the monotonic clock is read: a step of the wall clock changes nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from nodes.contract.bounds import Count, WireStruct
from nodes.contract.replica import Config, Env, Out

_NS = 1_000_000_000
_FAR = 20.0
"""From here on `erfc` is replaced by its expansion, long before it underflows."""


class Transition(msgspec.Struct, frozen=True):
    """A detector has changed its mind about ``node``; ``level``: the suspicion that did it."""

    kind: Literal["suspect", "trust"]
    node: str
    level: float


# --- parameters ---


def _positive(parameters: Any, *names: str) -> None:
    for name in names:
        value = getattr(parameters, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is a positive number, not {value}")


class CountingParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Suspicion is 0..1. A check adds ``rise`` for a node that has been silent for longer than
    ``timeout_s``, else takes ``fall``. A node is suspected from ``suspicion_threshold`` on, until
    nothing is left."""

    timeout_s: float = 5.0
    suspicion_threshold: float = 0.8
    rise: float = 0.2
    fall: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, "timeout_s")
        for name in ("suspicion_threshold", "rise", "fall"):
            value = getattr(self, name)
            if not 0.001 <= value <= 1:
                raise ValueError(f"{name} is between 0.001 and 1, not {value}")

    @property
    def checks_to_suspect(self) -> int:
        """Checks in a row after the timeout until a node without suspicion is suspected."""
        return -(-_units(self.suspicion_threshold) // _units(self.rise))


def _units(suspicion: float) -> int:
    """Suspicion in whole millionths: ten times 0.1 off from 1 has to be nothing, or trust never
    comes back."""
    return round(suspicion * 1_000_000)


_CERTAIN = _units(1)


class PhiParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A node is suspected from phi ``threshold`` on. ``window``: how many intervals between
    arrivals are remembered. ``min_deviation_s``: no network is believed more regular than that.
    ``acceptable_pause_s``: silence on top of the usual that means nothing (lost heartbeats)."""

    threshold: float = 8.0
    window: int = 200
    min_deviation_s: float = 0.1
    acceptable_pause_s: float = 3.0

    def __post_init__(self) -> None:
        _positive(self, "threshold", "min_deviation_s")
        if not 2 <= self.window <= 100_000:
            raise ValueError(f"window is between 2 and 100000, not {self.window}")
        if not (math.isfinite(self.acceptable_pause_s) and self.acceptable_pause_s >= 0):
            raise ValueError(
                f"acceptable_pause_s is a time of 0 or more, not {self.acceptable_pause_s}"
            )


class HeartbeatParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When to send and to check, and which ``detector`` judges."""

    heartbeat_every_s: float = 2.0
    check_every_s: float = 1.0
    detector: Literal["counting", "phi"] = "counting"
    counting: CountingParameters = CountingParameters()
    phi: PhiParameters = PhiParameters()

    def __post_init__(self) -> None:
        _positive(self, "heartbeat_every_s", "check_every_s")
        if self.detector == "counting" and self.counting.timeout_s <= self.heartbeat_every_s:
            raise ValueError(
                f"timeout_s is longer than heartbeat_every_s ({self.heartbeat_every_s:g}), or every"
                f" node is silent too long between two heartbeats; not {self.counting.timeout_s:g}"
            )

    def build(self, nodes: Sequence[str], now: float) -> FailureDetector:
        """The detector, watching ``nodes`` from ``now`` on."""
        if self.detector == "counting":
            return CountingDetector(nodes, now, self.counting)
        return PhiDetector(nodes, now, self.phi, self.heartbeat_every_s)


# --- detectors ---


class FailureDetector:
    """Watches nodes. All times are seconds on one monotonic clock, and never go back.

    A node that was never heard is treated as if it had been when the watch began.
    """

    def __init__(self, nodes: Sequence[str], now: float) -> None:
        self._nodes = tuple(nodes)
        self._suspected = dict.fromkeys(self._nodes, False)
        self._now = now

    def heartbeat(self, node: str, now: float) -> None:
        """A heartbeat of ``node`` arrived. Raises KeyError for a node that is not watched."""
        self._pass_time(now)
        if node not in self._suspected:
            raise KeyError(f"{node} is not watched")
        self._arrive(node, now)

    def _arrive(self, node: str, now: float) -> None:
        raise NotImplementedError

    def level(self, node: str, now: float) -> float:
        """The suspicion of ``node``: 0..1, or phi."""
        raise NotImplementedError

    def check(self, now: float) -> list[Transition]:
        """What changed since the last check, in the order of the nodes."""
        self._pass_time(now)
        changes = []
        for node in self._nodes:
            level = self._judge(node, now)
            was = self._suspected[node]
            if was != self._is_suspected(level, was):
                self._suspected[node] = not was
                changes.append(Transition("trust" if was else "suspect", node, level))
        return changes

    def suspected(self, node: str) -> bool:
        """What the last check said."""
        return self._suspected[node]

    def _judge(self, node: str, now: float) -> float:
        """The level of ``node``, at a check."""
        return self.level(node, now)

    def _is_suspected(self, level: float, was: bool) -> bool:
        raise NotImplementedError

    def _pass_time(self, now: float) -> None:
        assert now >= self._now, f"monotonic time went back from {self._now} to {now}"
        self._now = now


class CountingDetector(FailureDetector):
    """Suspicion that grows by steps while a node is silent, and goes by smaller ones.

    A crashed node is suspected at most ``timeout_s + checks_to_suspect * check interval`` after its
    last heartbeat arrived. Checks are counted, not seconds: a node that was stopped for a minute
    itself makes one check when it goes on, and so suspects nobody for its own absence.
    """

    def __init__(
        self, nodes: Sequence[str], now: float, parameters: CountingParameters | None = None
    ) -> None:
        super().__init__(nodes, now)
        parameters = parameters or CountingParameters()
        self._timeout_s = parameters.timeout_s
        self._threshold = _units(parameters.suspicion_threshold)
        self._rise = _units(parameters.rise)
        self._fall = _units(parameters.fall)
        self._heard = dict.fromkeys(self._nodes, now)
        self._units = dict.fromkeys(self._nodes, 0)

    def _arrive(self, node: str, now: float) -> None:
        """The silence ends; the suspicion stays."""
        self._heard[node] = now

    def level(self, node: str, now: float) -> float:
        """0..1, as of the last check."""
        return self._units[node] / _CERTAIN

    def _judge(self, node: str, now: float) -> float:
        silent = now - self._heard[node] > self._timeout_s
        step = self._rise if silent else -self._fall
        self._units[node] = min(_CERTAIN, max(0, self._units[node] + step))
        return self.level(node, now)

    def _is_suspected(self, level: float, was: bool) -> bool:
        # Trust comes back at 0 and not just below the threshold: there, a flapping link would make
        # the verdict flap too.
        units = _units(level)
        return units > 0 if was else units >= self._threshold


class _Arrivals:
    """The last intervals between a node's heartbeats. Whole nanoseconds, so that the sums stay
    exact however long they run."""

    __slots__ = ("heard", "intervals", "square_sum", "sum")

    def __init__(self, heard: float, window: int, usual_s: float) -> None:
        self.heard = heard
        self.intervals: deque[int] = deque(maxlen=window)
        self.sum = self.square_sum = 0
        # Something to go by until there are samples: about the interval at which nodes send.
        self.add(usual_s * 0.75)
        self.add(usual_s * 1.25)

    def add(self, interval_s: float) -> None:
        interval = round(interval_s * _NS)
        intervals = self.intervals
        if len(intervals) == intervals.maxlen:
            oldest = intervals[0]
            self.sum -= oldest
            self.square_sum -= oldest * oldest
        intervals.append(interval)
        self.sum += interval
        self.square_sum += interval * interval

    def mean_and_deviation_s(self) -> tuple[float, float]:
        count = len(self.intervals)
        variance = self.square_sum * count - self.sum * self.sum
        assert variance >= 0
        return self.sum / count / _NS, math.sqrt(variance) / count / _NS


class PhiDetector(FailureDetector):
    """Phi accrual, section 4 of the paper: a window of intervals, their normal distribution, and
    phi as the logarithm of the chance that the next heartbeat is still to come.

    Beside the paper it has what implementations in use have added: a lower bound for the deviation,
    and a pause that is added to the mean. And an interval that was long enough for a suspicion is
    an outage, not a sample: learned, it would make the detector slow for a whole window.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        now: float,
        parameters: PhiParameters | None = None,
        heartbeat_every_s: float = 2.0,
    ) -> None:
        super().__init__(nodes, now)
        self._parameters = parameters or PhiParameters()
        window = self._parameters.window
        self._arrivals = {node: _Arrivals(now, window, heartbeat_every_s) for node in self._nodes}
        self._normal = {node: self._distribution(node) for node in self._nodes}

    def _arrive(self, node: str, now: float) -> None:
        """Phi starts again from 0; the interval is learned, unless it was an outage."""
        arrivals = self._arrivals[node]
        if self.level(node, now) < self._parameters.threshold:
            arrivals.add(now - arrivals.heard)
            self._normal[node] = self._distribution(node)
        arrivals.heard = now

    def level(self, node: str, now: float) -> float:
        """Phi."""
        mean_s, deviation_s = self._normal[node]
        return phi(now - self._arrivals[node].heard, mean_s, deviation_s)

    def _is_suspected(self, level: float, was: bool) -> bool:
        return level >= self._parameters.threshold

    def _distribution(self, node: str) -> tuple[float, float]:
        """Mean (with the acceptable pause) and standard deviation of the intervals."""
        parameters = self._parameters
        mean_s, deviation_s = self._arrivals[node].mean_and_deviation_s()
        return mean_s + parameters.acceptable_pause_s, max(deviation_s, parameters.min_deviation_s)


def phi(silent_s: float, mean_s: float, deviation_s: float) -> float:
    """Minus the decimal logarithm of the chance that a heartbeat comes after more than
    ``silent_s``, intervals being normal with that mean and deviation (section 4 of the paper).

    Finite, never negative, and never falls as ``silent_s`` grows.
    """
    x = (silent_s - mean_s) / (deviation_s * math.sqrt(2))
    if x < _FAR:
        return max(0.0, -math.log10(math.erfc(x) / 2))
    # erfc(x) = exp(-x*x) / (x * sqrt(pi)) * (1 - 1 / (2*x*x) + ...). It is below zero from here on
    # by less than one part in 50,000, on the side where phi goes up.
    tail = math.log(x * math.sqrt(math.pi) * 2) - math.log1p(-1 / (2 * x * x))
    return (x * x + tail) / math.log(10)


# --- the part of a replica ---


class Heartbeat(WireStruct, frozen=True):
    """I am alive. ``sequence`` counts from 1 since the start of the process that drew
    ``incarnation``."""

    incarnation: Count
    sequence: Count


SEND = "heartbeat send"
CHECK = "heartbeat check"


class Heartbeats:
    """Sends heartbeats to all peers and suspects the silent ones. A protocol embeds it so::

        MESSAGES = (..., Heartbeat)

        def __init__(...):
            self.heartbeats = Heartbeats(config, env, self.out, parameters.heartbeat)

        def on_heartbeat(self, src, msg):
            self.heartbeats.on_heartbeat(src, msg)

        def on_timer(self, name):
            if name in Heartbeats.TIMERS:
                for transition in self.heartbeats.on_timer(name): ...

        def probe(self):
            return {..., **self.heartbeats.probe()}

    Each change is marked ``suspect`` or ``trust`` with the node and the level. ``detectors``:
    several that judge the same arrivals, by name, in place of the one of ``parameters``; marks
    carry the name then.
    """

    TIMERS = frozenset((SEND, CHECK))

    def __init__(
        self,
        config: Config,
        env: Env,
        out: Out,
        parameters: HeartbeatParameters,
        detectors: Mapping[str, FailureDetector] | None = None,
    ) -> None:
        self._peers = config.peers
        self._env = env
        self._out = out
        self._parameters = parameters
        self._detectors = detectors or {"": parameters.build(self._peers, env.now())}
        self._incarnation = env.rng.randrange(0, 2**53)
        self._sequence = 0
        self._newest: dict[str, tuple[int, int]] = {}
        self._send()
        # At a random time of their own, or the heartbeats of all nodes that were started together
        # would forever arrive at the same moment, and just before or after the checks.
        out.set_timer(SEND, parameters.heartbeat_every_s * (1 - env.rng.random()))
        out.set_timer(CHECK, parameters.check_every_s * (1 - env.rng.random()))

    def on_heartbeat(self, src: str, msg: Heartbeat) -> bool:
        """A heartbeat arrived. False: it was a copy, or overtaken, and no sign of life now.

        A straggler of an earlier incarnation counts once more, as do those after it: one that is
        taken in costs less than a restarted node that is not heard.
        """
        incarnation, sequence = self._newest.get(src, (-1, 0))
        if src not in self._peers or (msg.incarnation == incarnation and msg.sequence <= sequence):
            return False
        self._newest[src] = (msg.incarnation, msg.sequence)
        now = self._env.now()
        for detector in self._detectors.values():
            detector.heartbeat(src, now)
        return True

    def on_timer(self, name: str) -> list[Transition]:
        """One of `TIMERS` fired. Returns what a check changed (of all detectors)."""
        if name == SEND:
            self._send()
            self._out.set_timer(SEND, self._parameters.heartbeat_every_s)
            return []
        assert name == CHECK, name
        self._out.set_timer(CHECK, self._parameters.check_every_s)
        now = self._env.now()
        changes = []
        for label, detector in self._detectors.items():
            for change in detector.check(now):
                details = {"detector": label} if label else {}
                self._out.mark(change.kind, node=change.node, level=change.level, **details)
                changes.append(change)
        return changes

    def suspected(self, node: str) -> bool:
        """Whether any detector suspects ``node``."""
        return any(detector.suspected(node) for detector in self._detectors.values())

    def suspects(self) -> dict[str, list[str]]:
        """The suspected nodes, by the name of the detector."""
        return {
            label: [peer for peer in self._peers if detector.suspected(peer)]
            for label, detector in self._detectors.items()
        }

    def probe(self) -> dict[str, Any]:
        """``suspects``: the suspected nodes. ``suspicion``: the level of each peer. Each in one
        text, since a status has a column for each key; with the detector's name in front where
        there are several."""
        now = self._env.now()
        view: dict[str, Any] = {}
        suspects = self.suspects()
        for label, detector in self._detectors.items():
            prefix = f"{label}_" if label else ""
            levels = [f"{peer} {detector.level(peer, now):.1f}" for peer in self._peers]
            view[f"{prefix}suspects"] = ",".join(suspects[label])
            view[f"{prefix}suspicion"] = ", ".join(levels)
        return view

    def _send(self) -> None:
        self._sequence += 1
        message = Heartbeat(self._incarnation, self._sequence)
        for peer in self._peers:
            # Early: that this process is alive does not depend on its disk.
            self._out.send(peer, message, early=True)
