"""Whole seeds: the same everywhere, silent for a correct protocol, and loud for broken ones."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodes.contract.replica import Reply
from nodes.registry import get
from nodes.simulator.faults import Fault
from nodes.simulator.host import Timing
from nodes.simulator.load import WorkloadMix
from nodes.simulator.simulate import Setup, SimulationResult, draw_setup, simulate
from nodes.simulator.tape import draw_tape
from tests.simulator.judge import linearizable
from tests.simulator.toy import Ask, Store, Stored, Tell, Toy, protocol

ROOT = Path(__file__).parents[2]


def alarms(replica: type[Toy], seeds: range, **options: Any) -> dict[str, int]:
    """How many seeds raised which alarm."""
    found: dict[str, int] = {}
    for seed in seeds:
        result = run(replica, seed, **options)
        for alarm in result.alarms or linearizable(result):
            found[alarm.check] = found.get(alarm.check, 0) + 1
    return found


def run(replica: type[Toy], seed: int, **options: Any) -> SimulationResult:
    toy = protocol(replica)
    setup = draw_setup(toy, seed)
    # The toy does not remember which requests it has served.
    policy = msgspec.structs.replace(setup.policy, retry="never")
    setup = msgspec.structs.replace(setup, policy=policy)
    return simulate(toy, seed, setup=setup, **{"duration_s": 4.0, **options})


def test_a_correct_protocol_raises_no_alarm() -> None:
    assert alarms(Toy, range(1, 120)) == {}


# --- determinism ---

SCRIPT = """
import json, sys
sys.path.insert(0, {root!r})
from tests.simulator.test_simulate import run
from tests.simulator.toy import Toy
print(json.dumps([run(Toy, seed).trace_hash for seed in range(7, 12)]))
"""


def hashes(hash_seed: str) -> list[str]:
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(root=str(ROOT))],
        env=env,
        capture_output=True,
        check=True,
        text=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


def test_a_seed_is_the_same_run_in_any_process() -> None:
    here = [run(Toy, seed).trace_hash for seed in range(7, 12)]
    assert len(set(here)) == 5, "different seeds are different runs"
    assert hashes("1") == hashes("2") == here


def test_the_transcript_does_not_change_the_run() -> None:
    plain, told = run(Toy, 3), run(Toy, 3, trace=True)
    assert plain.trace_hash == told.trace_hash
    assert plain.transcript == []
    text = "\n".join(told.transcript)
    for word in ("FAULT", "HEAL", "CRASHES", "PHASE core", "PHASE whole", "ended ok"):
        assert word in text


def eventful() -> SimulationResult:
    """A seed with faults in both halves of its run."""
    for seed in range(1, 50):
        result = run(Toy, seed)
        if len([f for f in result.tape if f.at_s < 2.0]) > 1 and result.tape[-1].at_s > 2.5:
            return result
    raise AssertionError("no such seed")


def test_a_tape_from_a_result_replays_it_and_a_shorter_one_is_another_run() -> None:
    first = eventful()
    stored = msgspec.json.decode(msgspec.json.encode(first.tape), type=list[Fault])
    assert run(Toy, first.seed, tape=stored).trace_hash == first.trace_hash
    assert run(Toy, first.seed, tape=stored[1:]).trace_hash != first.trace_hash


def test_faults_taken_from_the_tape_leave_what_came_before_as_it_was() -> None:
    whole = eventful()
    cut = run(Toy, whole.seed, tape=[f for f in whole.tape if f.at_s < 2.0])
    assert cut.tape != whole.tape
    before = [r for r in whole.history if (r.completed_ns or 4e9) < 2e9]
    assert before == [r for r in cut.history if (r.completed_ns or 4e9) < 2e9]
    assert len(before) > 5


def test_counters_tell_that_faults_were_played() -> None:
    total: dict[str, int] = {}
    for seed in range(1, 30):
        for name, count in run(Toy, seed).counters.items():
            total[name] = total.get(name, 0) + count
    for name in ("messages_lost", "messages_cut", "crashes", "inputs_dropped_at_dead_nodes"):
        assert total[name] > 0, name
    assert total["operations_ok"] > total["operations"] / 2


# --- broken protocols ---


class Forgetful(Toy):
    """Acknowledges without writing."""

    def keep(self, msg: Store) -> None:
        pass


class Hasty(Toy):
    """Acknowledges before the write is durable."""

    def on_store(self, src: str, msg: Store) -> None:
        super().on_store(src, msg)
        self.out.sends.pop()
        self.out.send(src, Stored(msg.number), early=True)


class OffByOne(Toy):
    """A quorum one too small."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.quorum -= 1


class OwnVersion(Toy):
    """Picks the version without asking anybody."""

    def on_tell(self, src: str, msg: Tell) -> None:
        super().on_tell(src, Tell(msg.number, 0, "", None))


class SameVersion(Toy):
    """Versions are not unique per writer."""

    def on_store(self, src: str, msg: Store) -> None:
        super().on_store(src, Store(msg.number, msg.key, msg.counter, "", msg.value))


class SelfBlind(Toy):
    """The coordinator does not count itself."""

    def on_stored(self, src: str, msg: Stored) -> None:
        if src != self.id:
            super().on_stored(src, msg)


class Asserting(Toy):
    """Breaks an assertion of its own now and then."""

    def on_ask(self, src: str, msg: Ask) -> None:
        assert self.env.rng.random() > 0.001, "this must not be"
        super().on_ask(src, msg)


class Unportable(Toy):
    """Sends what does not survive the codec."""

    def on_ask(self, src: str, msg: Ask) -> None:
        self.out.send(src, Tell(msg.number, 0, "", (1, 2)))


class Diverging(Toy):
    """Holds what others do not, and says that it applied the same log."""

    def probe(self) -> dict[str, Any]:
        return {"applied": 1}


class Liar(Toy):
    """Claims success without doing anything."""

    def on_request(self, request: Any) -> None:
        self.out.reply(Reply(request.client, request.sequence, "ok"))


@pytest.mark.parametrize(
    ("replica", "check", "seeds"),
    [
        (Forgetful, "linearizability", range(1, 40)),
        (OffByOne, "linearizability", range(1, 40)),
        (OwnVersion, "linearizability", range(1, 20)),
        (SameVersion, "invariant: one value per version", range(1, 20)),
        (SelfBlind, "liveness", range(1, 4)),
        (Asserting, "assert", range(1, 10)),
        (Unportable, "codec", range(10, 11)),
        (Diverging, "invariant: equal prefixes, equal states", range(1, 4)),
        (Liar, "linearizability", range(1, 4)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_protocol_is_caught(replica: type[Toy], check: str, seeds: range) -> None:
    assert check in alarms(replica, seeds)


def test_an_early_acknowledgement_is_caught_by_power_failures_after_replies() -> None:
    trap = {"nodes": ["n1", "n2", "n3", "n4", "n5"], "point": "after-reply", "match": "ok"}
    tape = [
        Fault(at_s=0.3 * i, for_s=0.3, kind="trap", args={**trap, "everybody": True})
        for i in range(1, 13)
    ]
    setup = Setup(timing=Timing(fsync_s=0.03), mix=WorkloadMix(think_s=0.1))
    caught = {
        replica: sum(
            bool(linearizable(simulate(protocol(replica), seed, setup=setup, tape=tape)))
            for seed in range(1, 10)
        )
        for replica in (Toy, Hasty)
    }
    assert caught[Toy] == 0
    assert caught[Hasty] >= 2


def test_a_detector_may_think_better_of_a_dead_node_while_its_last_words_arrive() -> None:
    """The suspects are the right ones when the core begins, since nobody heard anybody; and then
    come heartbeats that were on their way for six seconds."""
    apart = {"groups": [["n1"], ["n2"], ["n3"]], "in_flight": False}
    tape = [
        Fault(at_s=4.0, kind="latency", for_s=6.0, args={"latency_ms": 6000}),
        Fault(at_s=7.0, kind="partition", for_s=3.0, args=apart),
    ]
    setup = Setup(parameters=dict(get("heartbeat").knobs[0][1]))
    result = simulate("heartbeat", 1, nodes=3, tape=tape, setup=setup, trace=True)
    assert result.alarms == []
    core = next(i for i, line in enumerate(result.transcript) if "PHASE core" in line)
    assert any(" <- Message(" in line for line in result.transcript[core:])


def test_replicas_that_stay_apart_are_caught() -> None:
    # The toy has no anti-entropy: a write that missed a node stays missing there.
    found = {
        alarm.check
        for seed in range(1, 15)
        for alarm in simulate(protocol(Toy, "eventual"), seed, duration_s=2.0).alarms
    }
    assert "liveness" in found, "a majority register makes no progress with one node up"


def test_a_setup_can_be_given() -> None:
    setup = Setup(parameters={"resend_s": 0.5})
    result = simulate(protocol(), 1, nodes=3, duration_s=1.0, tape=[], setup=setup)
    assert result.setup == setup
    assert result.nodes == 3
    assert result.tape == []
    other = simulate(
        protocol(), 1, nodes=3, duration_s=1.0, tape=[], setup=setup, parameters={"resend_s": 0.1}
    )
    assert other.setup.parameters == {"resend_s": 0.1}


def test_what_a_protocol_declares_is_what_its_seeds_draw() -> None:
    declared = msgspec.structs.replace(
        protocol(),
        retries="node asked first",
        knobs=[[{"resend_s": 0.07}]],
        moments=("done",),
        parameters={},
    )
    setups = [draw_setup(declared, seed) for seed in range(40)]
    assert {setup.parameters["resend_s"] for setup in setups} == {0.07}
    assert {setup.policy.retry for setup in setups} == {"never", "same"}
    anywhere = msgspec.structs.replace(declared, retries="any node")
    assert "other" in {draw_setup(anywhere, seed).policy.retry for seed in range(40)}
    tapes = [
        draw_tape(random.Random(seed), ("n1", "n2", "n3"), declared, 9.0) for seed in range(90)
    ]
    struck = [fault.args["match"] for tape in tapes for fault in tape if fault.kind == "trap"]
    assert "done" in struck
