"""Failure detectors: what they promise, told on clean arrivals, random ones and flapping links.

Each property is a function of how to make a detector, so that the same property can be shown to
fail for a detector with a known mistake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes import registry
from nodes.contract.disk import Disk
from nodes.contract.replica import Config, Message, Operation, Parameters, Replica, Request, Timer
from nodes.parts.failure_detector import (
    CHECK,
    SEND,
    CountingDetector,
    CountingParameters,
    FailureDetector,
    Heartbeat,
    HeartbeatParameters,
    Heartbeats,
    PhiDetector,
    PhiParameters,
    Transition,
    phi,
)
from nodes.protocols.detector import Detector
from nodes.simulator.cluster import Cluster
from nodes.simulator.network import Quality
from nodes.wire.codec import Codec

NODES = ("n2", "n3")
Make = Callable[[float], FailureDetector]


def counting(now: float) -> FailureDetector:
    return CountingDetector(NODES, now)


def accrual(now: float) -> FailureDetector:
    return PhiDetector(NODES, now)


def story(detector: FailureDetector, arrivals: list[float], end_s: int) -> list[str]:
    """Heartbeats of n2 at ``arrivals``, those of n3 every 2 s, a check each second. One line for
    each second in which n2 is silent, suspected, or changes."""
    lines = []
    todo = sorted(arrivals)
    for second in range(1, end_s + 1):
        while todo and todo[0] <= second:
            detector.heartbeat("n2", todo.pop(0))
        if second % 2 == 0:
            detector.heartbeat("n3", second)
        changes = {c.node: c.kind.upper() for c in detector.check(second)}
        assert "n3" not in changes
        last = max((a for a in [0.0, *arrivals] if a <= second), default=0.0)
        level = detector.level("n2", second)
        lines.append(
            f"{second:3} silent {second - last:g} level {level:.1f} {changes.get('n2', '')}"
        )
    return [line.rstrip() for line in lines]


# --- flapping, to be read ---

FLAPS = [t + 0.5 for t in [*range(2, 21, 2), *range(28, 61, 8)]]
"""A healthy link until 20 s; then one heartbeat in every 8 s gets through."""


def test_counting_on_a_flapping_link() -> None:
    """Three silent checks raise the suspicion by 0.6, the five after a heartbeat take 0.5. So it
    gains with every flap and reaches the threshold, though no single silence is long enough. Then
    the verdict stays: trust comes back at 0 only."""
    lines = story(CountingDetector(NODES, 0.0), FLAPS, 60)
    assert lines[25:46] == [
        " 26 silent 5.5 level 0.2",
        " 27 silent 6.5 level 0.4",
        " 28 silent 7.5 level 0.6",
        " 29 silent 0.5 level 0.5",
        " 30 silent 1.5 level 0.4",
        " 31 silent 2.5 level 0.3",
        " 32 silent 3.5 level 0.2",
        " 33 silent 4.5 level 0.1",
        " 34 silent 5.5 level 0.3",
        " 35 silent 6.5 level 0.5",
        " 36 silent 7.5 level 0.7",
        " 37 silent 0.5 level 0.6",
        " 38 silent 1.5 level 0.5",
        " 39 silent 2.5 level 0.4",
        " 40 silent 3.5 level 0.3",
        " 41 silent 4.5 level 0.2",
        " 42 silent 5.5 level 0.4",
        " 43 silent 6.5 level 0.6",
        " 44 silent 7.5 level 0.8 SUSPECT",
        " 45 silent 0.5 level 0.7",
        " 46 silent 1.5 level 0.6",
    ]
    assert not any("TRUST" in line for line in lines)


def test_a_heartbeat_that_wiped_the_suspicion_would_hide_the_flapping() -> None:
    """The same link, judged with the classic mistake: it looks healthy for ever."""
    lines = story(Wiping(NODES, 0.0), FLAPS, 60)
    assert lines[34:38] == [
        " 35 silent 6.5 level 0.4",
        " 36 silent 7.5 level 0.6",
        " 37 silent 0.5 level 0.0",
        " 38 silent 1.5 level 0.0",
    ]
    assert not any("SUSPECT" in line for line in lines)


def test_phi_on_a_flapping_link() -> None:
    """Phi has learned an interval of 2 s (mean 2, deviation at its lower bound of 0.1 s, and 3 s of
    acceptable pause), so 6.5 s of silence are out of all proportion; the next heartbeat brings phi
    back to 0 (Hayashibara et al., section 4: phi depends on the last arrival only). So the verdict
    flaps with the link, and outages, not being learned, are found again each time."""
    parameters = PhiParameters(window=8)
    lines = story(PhiDetector(NODES, 0.0, parameters), FLAPS, 46)
    assert [line for line in lines if line.endswith(("SUSPECT", "TRUST"))] == [
        " 27 silent 6.5 level 50.4 SUSPECT",
        " 29 silent 0.5 level 0.0 TRUST",
        " 35 silent 6.5 level 50.4 SUSPECT",
        " 37 silent 0.5 level 0.0 TRUST",
        " 43 silent 6.5 level 50.4 SUSPECT",
        " 45 silent 0.5 level 0.0 TRUST",
    ]


# --- properties, and mutants that break them ---


class Wiping(CountingDetector):
    """The classic mistake: a heartbeat wipes the suspicion."""

    def _arrive(self, node: str, now: float) -> None:
        super()._arrive(node, now)
        self._units[node] = 0


class Repeating(CountingDetector):
    """Reports every suspected node at every check."""

    def check(self, now: float) -> list[Transition]:
        changes = super().check(now)
        named = [change.node for change in changes]
        return changes + [
            Transition("suspect", node, self.level(node, now))
            for node in NODES
            if self.suspected(node) and node not in named
        ]


class Deaf(CountingDetector):
    """Ignores heartbeats."""

    def _arrive(self, node: str, now: float) -> None:
        pass


class Blind(CountingDetector):
    """Suspects nobody."""

    def _is_suspected(self, level: float, was: bool) -> bool:
        return False


class FromWindow(PhiDetector):
    """Learns outages."""

    def _arrive(self, node: str, now: float) -> None:
        arrivals = self._arrivals[node]
        arrivals.add(now - arrivals.heard)
        self._normal[node] = self._distribution(node)
        arrivals.heard = now


def flapping_is_suspected(make: Make) -> None:
    """One heartbeat in 8 s, for ten minutes: suspected, once and for all."""
    detector = make(0.0)
    told = []
    for second in range(1, 600):
        if second % 8 == 0:
            detector.heartbeat("n2", second - 0.5)
        told += [change.kind for change in detector.check(second) if change.node == "n2"]
    assert told == ["suspect"]


def a_transition_is_told_once(make: Make) -> None:
    """Of a node, suspect and trust take turns, and the first is suspect."""
    detector = make(0.0)
    told: dict[str, list[str]] = {node: [] for node in NODES}
    for second in range(1, 200):
        if second % 50 > 20:
            detector.heartbeat("n2", second)
        for change in detector.check(second):
            told[change.node].append(change.kind)
            assert detector.suspected(change.node) == (change.kind == "suspect")
    assert told["n2"][:4] == ["suspect", "trust", "suspect", "trust"]
    for kinds in told.values():
        assert kinds == ["suspect", "trust"] * (len(kinds) // 2) + ["suspect"] * (len(kinds) % 2)


def regular_arrivals_are_trusted(
    make: Make, every_s: float, check_s: float, offset_s: float
) -> None:
    """A heartbeat every ``every_s``, however checks fall between them: no suspicion."""
    detector = make(offset_s)
    beat, check = 1, 1
    while check * check_s < 60:
        if beat * every_s <= check * check_s:
            for node in NODES:
                detector.heartbeat(node, offset_s + beat * every_s)
            beat += 1
        else:
            assert detector.check(offset_s + check * check_s) == []
            check += 1


def test_the_properties_hold() -> None:
    flapping_is_suspected(counting)
    for make in (counting, accrual):
        a_transition_is_told_once(make)
        regular_arrivals_are_trusted(make, 2.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("mutant", "broken"),
    [
        (Wiping, flapping_is_suspected),
        (PhiDetector, flapping_is_suspected),
        (Blind, flapping_is_suspected),
        (Blind, a_transition_is_told_once),
        (Repeating, a_transition_is_told_once),
        (Deaf, lambda make: regular_arrivals_are_trusted(make, 2.0, 1.0, 0.0)),
    ],
)
def test_a_mistake_is_seen(mutant: Any, broken: Callable[[Make], None]) -> None:
    with pytest.raises(AssertionError):
        broken(lambda now: mutant(NODES, now))


@settings(deadline=None)
@given(
    every_s=st.floats(0.05, 2.0),
    check_s=st.floats(0.2, 3.0),
    offset_s=st.floats(-1e6, 1e9),
)
def test_regular_arrivals_are_trusted(every_s: float, check_s: float, offset_s: float) -> None:
    for make in (counting, accrual):
        regular_arrivals_are_trusted(make, every_s, check_s, offset_s)


@settings(deadline=None)
@given(
    parameters=st.builds(
        CountingParameters,
        timeout_s=st.floats(0.1, 20),
        suspicion_threshold=st.floats(0.05, 1.0),
        rise=st.floats(0.05, 1.0),
        fall=st.floats(0.05, 1.0),
    ),
    beats=st.lists(st.floats(0.1, 3.0), max_size=20),
    check_s=st.floats(0.1, 2.0),
)
def test_a_crashed_node_is_suspected_within_the_bound_of_counting(
    parameters: CountingParameters, beats: list[float], check_s: float
) -> None:
    detector = CountingDetector(("n2",), 0.0, parameters)
    arrivals = [sum(beats[: i + 1]) for i in range(len(beats))]
    crash_s = arrivals[-1] if arrivals else 0.0
    bound_s = parameters.timeout_s + parameters.checks_to_suspect * check_s
    check = 1
    while check * check_s <= crash_s + bound_s + 1e-6:
        while arrivals and arrivals[0] <= check * check_s:
            detector.heartbeat("n2", arrivals.pop(0))
        detector.check(check * check_s)
        check += 1
    assert detector.suspected("n2")


def test_the_bound_of_counting_is_tight() -> None:
    detector = CountingDetector(("n2",), 0.0)
    changes = [(t, c.kind) for t in range(1, 12) for c in detector.check(float(t))]
    assert changes == [(9, "suspect")], "silent for longer than 5 s at 6, 7, 8 and 9"


def test_trust_comes_back_when_all_suspicion_is_gone() -> None:
    detector = CountingDetector(("n2",), 0.0)
    for second in range(1, 21):
        detector.check(second)
    changes = []
    for second in range(21, 40):
        detector.heartbeat("n2", second)
        changes += [(second, c.kind, c.level) for c in detector.check(second)]
    assert changes == [(30, "trust", 0.0)], "ten times 0.1 from 1.0"


def test_a_node_that_was_stopped_itself_suspects_nobody_at_its_first_check() -> None:
    detector = CountingDetector(NODES, 0.0)
    assert detector.check(300.0) == []


# --- phi ---


def test_phi_is_the_paper_s() -> None:
    """Section 4: phi 1 is a chance of one in ten to be wrong, 2 of one in a hundred, 3 ..."""
    for level, deviations in ((1, 1.281552), (2, 2.326348), (3, 3.090232), (8, 5.612001)):
        assert phi(10 + deviations * 2, 10, 2) == pytest.approx(level, abs=1e-4)
    assert phi(10, 10, 2) == pytest.approx(math.log10(2))
    assert phi(-1e9, 10, 2) == 0


def test_phi_is_finite_where_the_chance_is_below_any_float() -> None:
    # 100 deviations: log10 of exp(-5000) / (100 * sqrt(2 pi)).
    assert phi(100, 0, 1) == pytest.approx(5000 / math.log(10) + 2 + math.log10(2.5066), rel=1e-6)
    assert math.isfinite(phi(1e9, 2.0, 0.1))


@settings(deadline=None)
@given(
    silences=st.lists(st.floats(0, 1e5), min_size=2, max_size=20),
    mean_s=st.floats(0.01, 100),
    deviation_s=st.floats(0.001, 100),
)
def test_phi_never_falls_in_silence(
    silences: list[float], mean_s: float, deviation_s: float
) -> None:
    levels = [phi(silent_s, mean_s, deviation_s) for silent_s in sorted(silences)]
    assert levels == sorted(levels)


def test_phi_never_falls_where_its_formula_changes() -> None:
    around = [20 * math.sqrt(2) * (1 + step * 1e-9) for step in range(-1000, 1000)]
    levels = [phi(silent_s, 0.0, 1.0) for silent_s in around]
    assert levels == sorted(levels)
    assert levels[-1] - levels[0] < 0.001


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 3.5), min_size=1, max_size=60), st.integers(2, 30))
def test_the_window_holds_the_last_intervals(intervals: list[float], window: int) -> None:
    parameters = PhiParameters(window=window, threshold=1000.0, min_deviation_s=0.001)
    detector = PhiDetector(("n2",), 0.0, parameters)
    now, arrivals = 0.0, [0.0]
    for interval in intervals:
        now += interval
        detector.heartbeat("n2", now)
        arrivals.append(now)
    seen = ([1.5, 2.5] + [b - a for a, b in pairwise(arrivals)])[-window:]
    mean_s = sum(seen) / len(seen)
    deviation_s = math.sqrt(sum((s - mean_s) ** 2 for s in seen) / len(seen))
    expected = phi(6.0, mean_s + 3.0, max(deviation_s, 0.001))
    assert detector.level("n2", now + 6.0) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def crash_after_an_outage_s(detector: FailureDetector) -> int:
    """Seconds until a crash is noticed, after an outage of a minute that is long past."""
    beats = {*range(2, 600, 2), *range(660, 800, 2)}
    for second in range(1, 900):
        if second in beats:
            detector.heartbeat("n2", second)
        for change in detector.check(second):
            if change.node == "n2" and change.kind == "suspect" and second > 798:
                return second - 798
    raise AssertionError("never noticed")


def test_an_outage_is_not_learned() -> None:
    calm = crash_after_an_outage_s(PhiDetector(NODES, 0.0))
    assert calm <= 6
    assert crash_after_an_outage_s(FromWindow(NODES, 0.0)) > 2 * calm


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["beat", "check"]), st.floats(0, 9)), max_size=80))
def test_any_schedule_keeps_the_levels_in_range_and_the_verdict_one(
    schedule: list[tuple[str, float]],
) -> None:
    for make in (counting, accrual):
        detector = make(0.0)
        now, suspected = 0.0, False
        for what, delay_s in schedule:
            now += delay_s
            if what == "beat":
                detector.heartbeat("n2", now)
            else:
                for change in detector.check(now):
                    if change.node == "n2":
                        assert (change.kind == "suspect") != suspected
                        suspected = not suspected
            level = detector.level("n2", now)
            assert 0 <= level < math.inf
            assert level <= 1 or isinstance(detector, PhiDetector)
            assert detector.suspected("n2") == suspected


def test_a_stranger_and_a_clock_that_goes_back_are_refused() -> None:
    for make in (counting, accrual):
        detector = make(5.0)
        with pytest.raises(KeyError, match="n9"):
            detector.heartbeat("n9", 6.0)
        with pytest.raises(AssertionError, match="went back"):
            detector.check(4.0)


# --- the part of a replica ---


def cluster(**options: Any) -> Cluster:
    options = {"nodes": 3, "quality": Quality(latency_s=0.01, jitter_s=0.002), **options}
    return Cluster(registry.get("heartbeat"), round_trip=True, **options)


def told(cluster: Cluster, node: str) -> list[tuple[str, str, str]]:
    return [
        (mark.details["detector"], mark.name, mark.details["node"])
        for mark in cluster.marks
        if mark.node == node
    ]


def test_a_crash_and_a_return_are_marked_by_all_detectors_of_all_others() -> None:
    stage = cluster()
    stage.run(60)
    assert stage.marks == []
    stage.crash("n3")
    stage.run(30)
    for node in ("n1", "n2"):
        assert sorted(told(stage, node)) == [
            ("counting", "suspect", "n3"),
            ("phi", "suspect", "n3"),
        ]
        assert stage.replica(node).probe()["phi_suspects"] == "n3"
    stage.restart("n3")
    stage.marks.clear()
    stage.run(30)
    for node in ("n1", "n2"):
        assert sorted(told(stage, node)) == [("counting", "trust", "n3"), ("phi", "trust", "n3")]
        probe = stage.replica(node).probe()
        assert probe["counting_suspects"] == probe["phi_suspects"] == ""
        assert "n3 0.0" in probe["counting_suspicion"]
    assert told(stage, "n3") == []


def wall_clock_jumps_are_harmless(stage: Cluster) -> None:
    stage.run(60)
    for error_s in (1e6, -1e6, 3600.0, 0.0):
        for host in stage.hosts.values():
            host.clock.wall_error_s = error_s
        stage.run(20)
    assert stage.marks == []


class WallEnv:
    """Hands out the time of day as if it were monotonic."""

    def __init__(self, env: Any) -> None:
        self.rng, self.now, self.wall = env.rng, env.wall, env.wall


class OnWallClock(Detector):
    def __init__(self, config: Config, env: Any, disk: Disk) -> None:
        super().__init__(config, WallEnv(env), disk)


def test_jumps_of_the_wall_clock_have_no_effect() -> None:
    wall_clock_jumps_are_harmless(cluster())
    mutant = registry.Protocol("wall", OnWallClock, "eventual", (), "")
    with pytest.raises(AssertionError):
        wall_clock_jumps_are_harmless(Cluster(mutant, nodes=3))


def test_copies_and_stragglers_are_no_sign_of_life_and_a_new_incarnation_is() -> None:
    stage = cluster(manual=True)
    heartbeats = stage.replica("n1").heartbeats  # type: ignore[attr-defined]
    assert heartbeats.on_heartbeat("n2", Heartbeat(7, 5))
    assert not heartbeats.on_heartbeat("n2", Heartbeat(7, 5))
    assert not heartbeats.on_heartbeat("n2", Heartbeat(7, 4))
    assert heartbeats.on_heartbeat("n2", Heartbeat(7, 6))
    assert heartbeats.on_heartbeat("n2", Heartbeat(3, 1))
    assert not heartbeats.on_heartbeat("n1", Heartbeat(7, 9)), "a node does not watch itself"


def test_copies_do_not_hide_a_crash() -> None:
    stage = cluster(quality=Quality(latency_s=0.01, duplicate=1.0, late_s=60.0, fifo=False))
    stage.run(100)
    stage.crash("n3")
    stage.run(20)
    assert stage.replica("n1").probe()["counting_suspects"] == "n3"


def test_heartbeats_are_sent_at_their_interval_to_every_peer() -> None:
    stage = cluster(parameters={"heartbeat_every_s": 0.5})
    stage.run(100)
    for src in stage.nodes:
        for dst in stage.nodes:
            sent = stage.links[src, dst].sent
            assert sent == 0 if src == dst else 199 <= sent <= 202


def test_nodes_that_start_together_do_not_send_together() -> None:
    stage = cluster(nodes=5, trace=True)
    stage.run(20)
    lines = stage.timeline.transcript or []
    sent = {line.split()[0] + line.split()[1] for line in lines if "-> n" in line}
    phases = {round(float(entry.split("n")[0]) % 2.0, 3) for entry in sent}
    assert len(phases) == 1 + len(stage.nodes), "at the start, and then each at its own time"


def test_requests_fail_and_there_is_no_data() -> None:
    stage = cluster(manual=True)
    replies: list[Any] = []
    stage.reply_to = lambda node, reply: replies.append(reply)
    stage.request("n1", Request("c", 0, Operation("read", "k")))
    assert [(r.outcome, r.error) for r in replies] == [("fail", "unsupported")]
    assert stage.states() == {"n1": {}, "n2": {}, "n3": {}}


class EmbeddingParameters(Parameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    heartbeat: HeartbeatParameters = HeartbeatParameters()


class Embedding(Replica):
    """What a protocol adds to have one detector of its own."""

    MESSAGES = (Heartbeat,)
    PARAMETERS = EmbeddingParameters

    def __init__(self, config: Config, env: Any, disk: Disk) -> None:
        super().__init__(config, env, disk)
        assert isinstance(config.parameters, EmbeddingParameters)
        self.heartbeats = Heartbeats(config, env, self.out, config.parameters.heartbeat)
        self.changes: list[Transition] = []

    def on_heartbeat(self, src: str, msg: Heartbeat) -> None:
        self.heartbeats.on_heartbeat(src, msg)

    def on_timer(self, name: str) -> None:
        if name in Heartbeats.TIMERS:
            self.changes += self.heartbeats.on_timer(name)

    def probe(self) -> dict[str, Any]:
        return {"role": "replica", **self.heartbeats.probe()}

    def state(self) -> Mapping[str, Any]:
        return {}


@pytest.mark.parametrize("kind", ["counting", "phi"])
def test_a_protocol_embeds_one_detector(kind: str) -> None:
    protocol = registry.Protocol("embedding", Embedding, "eventual", (), "")
    stage = Cluster(protocol, nodes=3, parameters={"heartbeat": {"detector": kind}})
    stage.run(60)
    stage.crash("n3")
    stage.run(20)
    replica: Any = stage.replica("n1")
    (mark,) = [mark for mark in stage.marks if mark.node == "n1"]
    (change,) = replica.changes
    assert (mark.name, mark.details) == ("suspect", {"node": "n3", "level": change.level})
    assert replica.heartbeats.suspected("n3")
    assert not replica.heartbeats.suspected("n2")
    probe = replica.probe()
    assert list(probe) == ["role", "suspects", "suspicion"]
    assert probe["suspects"] == "n3"
    assert probe["suspicion"].startswith("n2 0.0, n3 ")
    assert float(probe["suspicion"].rpartition(" ")[2]) >= round(change.level, 1) > 0


def test_a_heartbeat_does_not_wait_for_the_disk() -> None:
    class Writing(Embedding):
        def on_timer(self, name: str) -> None:
            self.disk.put("x", name)
            super().on_timer(name)

    protocol = registry.Protocol("writing", Writing, "eventual", (), "")
    config = protocol.configure("n1", ("n1", "n2"))
    replica = Writing(config, cluster().hosts["n1"].clock, Disk())
    replica.out.sends.clear()
    replica.step([Timer(SEND), Timer(CHECK), Message("n2", Heartbeat(1, 1))])
    assert [(send.dst, send.position) for send in replica.out.sends] == [("n2", 0)]


def test_the_message_survives_the_codec() -> None:
    codec: Codec[Any] = Codec([Heartbeat])
    message = Heartbeat(2**53 - 1, 12)
    assert codec.decode(codec.encode([message])) == [message]


# --- configuration ---


def test_heartbeat_is_no_protocol_for_data() -> None:
    assert "heartbeat" not in registry.PROTOCOLS
    assert registry.get("heartbeat").operations == ()
    with pytest.raises(registry.InvalidConfiguration, match="heartbeat"):
        registry.register(registry.get("heartbeat"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"heartbeat_every_s": 0}, "heartbeat_every_s is a positive number"),
        ({"heartbeat_every_s": 5.0}, "timeout_s is longer than heartbeat_every_s"),
        ({"check_every_s": math.nan}, "check_every_s is a positive number"),
        ({"counting": [{"timeout_s": -1}]}, "timeout_s is a positive number"),
        ({"counting": [{"rise": 0}]}, "rise is between 0.001 and 1"),
        ({"counting": [{"fall": 1.5}]}, "fall is between 0.001 and 1"),
        ({"counting": [{"suspicion_threshold": 2}]}, "suspicion_threshold is between"),
        ({"counting": [{"timeout": 3}]}, "timeout"),
        ({"phi": [{"threshold": 0}]}, "threshold is a positive number"),
        ({"phi": [{"window": 1}]}, "window is between 2"),
        ({"phi": [{"min_deviation_s": 0}]}, "min_deviation_s is a positive number"),
        ({"phi": [{"acceptable_pause_s": -1}]}, "acceptable_pause_s is a time of 0 or more"),
        ({"phi": [], "counting": []}, "at least one detector"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(registry.InvalidConfiguration, match=message) as caught:
        registry.get("heartbeat").configure("n1", ("n1", "n2"), parameters)
    assert "\n" not in str(caught.value)
