"""Failure detectors beside a model of what they say they do, worked out anew at each check.

The model is written from the documents (the counting rule; Hayashibara et al. 2004, section 4),
with plain sums over the intervals: short, and of no common code with the detectors. It is given
the heartbeats that a replica takes in and the times of its checks, by the clock of the node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import ceil, erfc, inf, log10, sqrt
from operator import mul
from typing import Any, TypeAlias

from nodes.contract.replica import InvariantBroken, Message, Replica, Timer
from nodes.parts.failure_detector import (
    CHECK,
    CountingParameters,
    Heartbeat,
    HeartbeatParameters,
    PhiParameters,
)
from nodes.parts.recovery import PlacedReplica, PlacementParameters
from nodes.protocols.detector import Detector, DetectorParameters, labels
from nodes.simulator.clock import Clock
from nodes.simulator.cluster import Cluster

Judge: TypeAlias = CountingParameters | PhiParameters

_WHOLE = 1_000_000
_NEAR = 1e-6
"""So near to the threshold the last digits of a float decide."""
_FAR = 25.0
"""Beyond that `erfc` is next to nothing."""
_ROOT = sqrt(0.5)


class WrongSuspicion(InvariantBroken):
    """A detector says anything else than its parameters."""


class _Watched:
    """What the model knows of one peer. ``intervals`` are those that phi has learned; ``mean_s``
    and ``deviation_s`` are theirs."""

    __slots__ = ("deviation_s", "heard_s", "intervals", "mean_s", "suspected", "suspicion")

    def __init__(self, judge: Judge, now_s: float, every_s: float) -> None:
        self.heard_s = now_s
        self.suspicion = 0
        self.suspected = False
        self.intervals: list[float] = []
        self.mean_s = self.deviation_s = 0.0
        if isinstance(judge, PhiParameters):
            # About the interval at which nodes send, until there are samples.
            self.intervals = [0.75 * every_s]
            self.learn(1.25 * every_s, judge)

    def learn(self, interval_s: float, judge: PhiParameters) -> None:
        """One interval more, and the window's mean and deviation."""
        learned = self.intervals
        learned.append(interval_s)
        del learned[: -judge.window]
        mean_s = self.mean_s = sum(learned) / len(learned)
        variance = sum(map(mul, learned, learned)) / len(learned) - mean_s * mean_s
        self.deviation_s = max(sqrt(max(0.0, variance)), judge.min_deviation_s)

    def phi(self, silent_s: float, judge: PhiParameters) -> float:
        """Infinite, where it is far beyond any threshold."""
        x = (silent_s - self.mean_s - judge.acceptable_pause_s) / self.deviation_s * _ROOT
        return inf if x > _FAR else -log10(0.5 * erfc(x))

    def silence_s(self, judge: Judge) -> float:
        """How long the peer may be silent until a check suspects it (counting: begins to)."""
        if isinstance(judge, CountingParameters):
            return judge.timeout_s
        low_s, high_s = 0.0, 1e6
        while high_s - low_s > 1e-3:
            middle_s = (low_s + high_s) / 2
            if self.phi(middle_s, judge) < judge.threshold:
                low_s = middle_s
            else:
                high_s = middle_s
        return high_s


def specification(replica: Replica) -> tuple[HeartbeatParameters, dict[str, Judge]] | None:
    """When a replica sends and checks, and its detectors by name; None if it has none."""
    parameters = replica.config.parameters
    if isinstance(parameters, DetectorParameters):
        judges: dict[str, Judge] = {}
        for kind, several in (("counting", parameters.counting), ("phi", parameters.phi)):
            judges.update(zip(labels(kind, len(several)), several, strict=True))
        return parameters.heartbeat(), judges
    if isinstance(parameters, PlacementParameters) and parameters.is_partial(replica.config.nodes):
        times = parameters.heartbeat
        return times, {"": times.counting if times.detector == "counting" else times.phi}
    return None


class Model:
    """The detectors of one replica, as they should be."""

    def __init__(
        self,
        peers: Sequence[str],
        now_s: float,
        times: HeartbeatParameters,
        judges: dict[str, Judge],
    ) -> None:
        self.times = times
        self.judges = judges
        every_s = times.heartbeat_every_s
        self._newest: dict[str, tuple[int, int]] = {}
        self._watched = {
            name: {peer: _Watched(judge, now_s, every_s) for peer in peers}
            for name, judge in judges.items()
        }

    def hear(self, src: str, msg: Heartbeat, now_s: float) -> None:
        """A heartbeat is taken in: no sign of life if it is a copy, or was overtaken."""
        incarnation, sequence = self._newest.get(src, (-1, 0))
        if msg.incarnation == incarnation and msg.sequence <= sequence:
            return
        self._newest[src] = msg.incarnation, msg.sequence
        for name, judge in self.judges.items():
            watched = self._watched[name][src]
            if isinstance(judge, PhiParameters):
                silent_s = now_s - watched.heard_s
                # An outage is none of the intervals at which heartbeats come.
                if watched.phi(silent_s, judge) < judge.threshold:
                    watched.learn(silent_s, judge)
            watched.heard_s = now_s

    def check(self, now_s: float) -> Iterator[tuple[str, list[str], list[str]]]:
        """Each detector with whom it must suspect, and about whom nobody can tell."""
        for name, judge in self.judges.items():
            near = [
                peer
                for peer, watched in self._watched[name].items()
                if not self._judge(judge, watched, now_s)
            ]
            yield name, [p for p, w in self._watched[name].items() if w.suspected], near

    @staticmethod
    def _judge(judge: Judge, watched: _Watched, now_s: float) -> bool:
        """False: it is too near to tell."""
        silent_s = now_s - watched.heard_s
        if isinstance(judge, PhiParameters):
            level = watched.phi(silent_s, judge)
            watched.suspected = level >= judge.threshold
            return abs(level - judge.threshold) > _NEAR
        step = judge.rise if silent_s > judge.timeout_s else -judge.fall
        watched.suspicion = min(_WHOLE, max(0, watched.suspicion + round(step * _WHOLE)))
        if watched.suspected:
            watched.suspected = watched.suspicion > 0
        else:
            watched.suspected = watched.suspicion >= round(judge.suspicion_threshold * _WHOLE)
        return True

    def suspects_within_s(self, peer: str) -> float:
        """So long after its last heartbeat arrived ``peer`` is suspected by all detectors."""
        longest_s = 0.0
        for name, judge in self.judges.items():
            checks = judge.checks_to_suspect if isinstance(judge, CountingParameters) else 1
            silent_s = self._watched[name][peer].silence_s(judge)
            longest_s = max(longest_s, silent_s + (checks + 1) * self.times.check_every_s)
        return longest_s

    def trusts_within_s(self) -> float:
        """So long after a peer is heard regularly again it is trusted by all detectors."""
        checks = max(
            1 + ceil(1 / judge.fall) if isinstance(judge, CountingParameters) else 1
            for judge in self.judges.values()
        )
        return 2 * self.times.heartbeat_every_s + (checks + 1) * self.times.check_every_s


class Detectors:
    """The models of all replicas of a cluster. `attach` is told of each that is built."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}

    def attach(self, replica: Replica, clock: Clock) -> None:
        """Let its model see what the replica sees, and compare them after each of its checks."""
        spoken = specification(replica)
        if spoken is None:
            return
        model = self.models[replica.id] = Model(replica.config.peers, clock.now(), *spoken)
        step = replica.step

        def watched_step(inputs: Sequence[Any]) -> None:
            # A timer comes in a step of its own.
            checks = len(inputs) == 1 and type(inputs[0]) is Timer and inputs[0].name == CHECK
            if checks:
                before = suspects(replica)
                step(inputs)
                after = suspects(replica)
                if replica.out.marks or before != after:
                    compare_marks(replica, before, after)
                compare(replica, model, after, clock.now())
                return
            step(inputs)
            for item in inputs:
                if type(item) is Message:
                    if type(item.msg) is Heartbeat and item.src != replica.id:
                        model.hear(item.src, item.msg, clock.now())
                else:
                    assert type(item) is not Timer or item.name != CHECK

        replica.step = watched_step  # type: ignore[method-assign]


def compare(
    replica: Replica, model: Model, said: Mapping[str, Sequence[str]], now_s: float
) -> None:
    """Raises WrongSuspicion where a detector has ``said`` anything else than its model."""
    for name, expected, near in model.check(now_s):
        found = said[name]
        if [p for p in found if p not in near] != [p for p in expected if p not in near]:
            raise WrongSuspicion(
                f"{replica.id}: detector {name or 'of the replica'} suspects"
                f" {','.join(found) or 'nobody'}, and by its parameters"
                f" {','.join(expected) or 'nobody'} should be"
            )


def compare_marks(
    replica: Replica, before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]
) -> None:
    """Raises WrongSuspicion where the marks of a check tell of other changes than there were from
    ``before`` to ``after``: what is measured live are the marks."""
    changed = sorted(
        ("suspect" if peer in found else "trust", name, peer)
        for name, found in after.items()
        for peer in set(found).symmetric_difference(before[name])
    )
    marked = sorted(
        (name, details.get("detector", ""), details["node"])
        for name, details in replica.out.marks
        if name in ("suspect", "trust")
    )
    if marked != changed:
        raise WrongSuspicion(f"{replica.id}: marks {marked}, where {changed} has changed")


def suspects(replica: Replica) -> Mapping[str, list[str]]:
    """Whom each detector of a replica suspects, by its name."""
    if isinstance(replica, PlacedReplica):
        assert replica.recovery is not None
        return replica.recovery.heartbeats.suspects()
    assert isinstance(replica, Detector)
    return replica.heartbeats.suspects()


def mistaken(
    cluster: Cluster,
    detectors: Detectors,
    lost: Collection[tuple[str, str]],
    without: Collection[str] = (),
) -> Iterator[tuple[str, str]]:
    """A node that suspects other peers than it should, by ``lost``: pairs of a node and a peer that
    it has not heard for long enough. ``without``: nodes that are not asked."""
    for node in detectors.models:
        replica = cluster.hosts[node].replica
        if replica is None or node in without:
            continue
        expected = [peer for peer in replica.config.peers if (node, peer) in lost]
        for name, found in suspects(replica).items():
            if found != expected:
                told = f"{','.join(found) or 'nobody'}, not {','.join(expected) or 'nobody'}"
                yield "detection", f"{node}: detector {name or 'of the replica'} suspects {told}"
                return
