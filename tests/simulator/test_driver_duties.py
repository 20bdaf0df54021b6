"""The duties of a driver, as nodes/contract/replica.py lists them, one by one on small clusters: of
the simulator's host and of the live driver. What only one of them can do comes last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodes.contract.replica import Config, Durable, Parameters, Replica, Reply, Request
from nodes.registry import Protocol
from nodes.simulator.cluster import Cluster
from nodes.simulator.host import Timing, Trap
from nodes.simulator.network import Quality
from tests.simulator.stages import FSYNC_S, LATENCY_S, NODES, FsyncPoint, Live, Simulated, Stage
from tests.simulator.toy import Tell, protocol, read, write


class Note(msgspec.Struct, frozen=True, array_like=True, tag=True):
    text: str


class Probe(Replica):
    """Does what its requests say, and remembers all that it gets."""

    MESSAGES = (Note,)
    PARAMETERS = Parameters

    def __init__(self, config: Config, env: Any, disk: Any) -> None:
        super().__init__(config, env, disk)
        self.batches: list[list[str]] = []
        self.got: list[tuple[float, str]] = []
        self.found = dict(disk.items())

    def step(self, inputs: Any) -> None:
        self.batches.append([type(item).__name__ for item in inputs])
        super().step(inputs)

    def on_note(self, src: str, msg: Note) -> None:
        self.got.append((self.env.now(), msg.text))

    def on_timer(self, name: str) -> None:
        self.got.append((self.env.now(), f"timer {name}"))

    def on_durable(self, position: int) -> None:
        self.got.append((self.env.now(), f"durable {position}"))

    def on_request(self, request: Request) -> None:
        for command in str(request.operation.value).split("; "):
            what, *rest = command.split()
            if what == "put":
                self.disk.put(rest[0], rest[1])
            elif what == "send":
                self.out.send(rest[0], Note(rest[1]), early="early" in rest)
            elif what == "set":
                self.out.set_timer(rest[0], float(rest[1]))
            elif what == "cancel":
                self.out.cancel_timer(rest[0])
            elif what == "mark":
                self.out.mark(rest[0])
            else:
                self.out.reply(Reply(request.client, request.sequence, "ok"))

    def probe(self) -> dict[str, Any]:
        return {"ready": True}

    def texts(self) -> list[str]:
        return [text for _, text in self.got]


PROBE = Protocol("probe", Probe, "eventual", ("write",), "does what it is told", needs="any node")
STEADY = Quality(latency_s=LATENCY_S, jitter_s=0.0)


class Booting(Probe):
    """Counts its starts, and tells of them."""

    def __init__(self, config: Config, env: Any, disk: Any) -> None:
        super().__init__(config, env, disk)
        boots = disk.get("boots", 0) + 1
        disk.put("boots", boots)
        self.out.send("n2", Note(f"boot {boots} of {self.id}"))


BOOTING = msgspec.structs.replace(PROBE, name="booting", replica=Booting)


def stage_of(
    kind: str, protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    if kind == "simulated":
        yield Simulated(protocol)
        return
    live = Live(protocol, tmp_path, monkeypatch)
    yield live
    live.close()


@pytest.fixture(params=["simulated", "live"])
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    yield from stage_of(request.param, PROBE, tmp_path, monkeypatch)


@pytest.fixture(params=["simulated", "live"])
def booting(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    yield from stage_of(request.param, BOOTING, tmp_path, monkeypatch)


def ask(it: Stage, node: str, commands: str, sequence: int = 0) -> None:
    it.request(node, write("c", commands, sequence=sequence))


def texts(it: Stage, node: str) -> list[str]:
    found: list[str] = it.replica(node).texts()
    return found


# --- both ---


def test_the_gate_holds_sends_and_replies_until_the_write_is_durable(stage: Stage) -> None:
    ask(stage, "n1", "send n2 before; put k v; send n2 behind; send n2 early early; reply")
    stage.run(FSYNC_S / 2)
    assert texts(stage, "n2") == ["before", "early"]
    assert stage.replies == []
    assert texts(stage, "n1") == []
    stage.run(1.0)
    assert texts(stage, "n2") == ["before", "early", "behind"]
    assert len(stage.replies) == 1
    assert texts(stage, "n1") == ["durable 1"]


def test_what_waits_for_the_disk_leaves_in_order_and_no_further_than_it_came(stage: Stage) -> None:
    ask(stage, "n1", "put a 1; send n2 a; reply")
    stage.run(FSYNC_S / 2)
    ask(stage, "n1", "send n2 a2; put b 2; send n2 b; put c 3; send n2 c; reply", 1)
    while not texts(stage, "n1"):
        stage.run(LATENCY_S / 4)
    stage.run(LATENCY_S * 2)
    assert texts(stage, "n2") == ["a", "a2"]
    assert [reply.sequence for reply in stage.replies] == [0]
    # It writes nothing, but may build on what is not durable yet.
    ask(stage, "n1", "send n2 d; reply", 2)
    stage.run(LATENCY_S * 2)
    assert texts(stage, "n2") == ["a", "a2"]
    stage.run(1.0)
    assert texts(stage, "n2") == ["a", "a2", "b", "c", "d"]
    assert [reply.sequence for reply in stage.replies] == [0, 1, 2]
    assert texts(stage, "n1") == ["durable 1", "durable 3"]


def test_steps_go_on_during_an_fsync_and_the_next_one_covers_them_all(stage: Stage) -> None:
    for sequence in range(10):
        ask(stage, "n1", f"put k{sequence} v", sequence)
        stage.run(FSYNC_S / 20)
    stage.run(1.0)
    assert stage.fsyncs("n1") == 2
    assert texts(stage, "n1") == ["durable 1", "durable 10"]


def test_what_a_replica_does_when_it_is_built_is_carried_out(booting: Stage) -> None:
    booting.run(FSYNC_S / 2)
    assert texts(booting, "n2") == []
    booting.run(1.0)
    boots = [f"boot 1 of {node}" for node in NODES]
    assert sorted(texts(booting, "n2")) == [*boots, "durable 1"]
    booting.crash("n3")
    booting.restart("n3")
    booting.run(1.0)
    assert texts(booting, "n2")[-1] == "boot 2 of n3"
    assert texts(booting, "n3") == ["durable 1"], "positions begin anew"


def test_a_timer_fires_once_and_a_replaced_or_cancelled_one_never(stage: Stage) -> None:
    stage.run(0.1)
    start_s = stage.replica("n1").env.now()
    ask(stage, "n1", "set a 0.1; set a 0.3; set b 0.2; cancel b; set c 0.5; set c 0.05")
    stage.run(2.0)
    got = stage.replica("n1").got
    assert [text for _, text in got] == ["timer c", "timer a"]
    assert got[0][0] - start_s == pytest.approx(0.05, abs=1e-4)
    assert got[1][0] - start_s == pytest.approx(0.3, abs=1e-4)


def test_a_timer_may_be_set_again_by_itself(stage: Stage) -> None:
    ask(stage, "n1", "set a 0.1")
    stage.run(0.05)
    replica = stage.replica("n1")
    replica.on_timer = lambda name: (
        replica.got.append((replica.env.now(), name)),
        replica.out.set_timer(name, 0.1),
    )
    stage.run(0.5)
    assert len(replica.got) == 5


def test_a_timer_that_is_due_can_still_be_cancelled_or_put_off_by_another(stage: Stage) -> None:
    # So close that the second and the third are due before the first has done its work.
    ask(stage, "n1", "set a 0.1; set b 0.1000000002; set c 0.1000000004")
    stage.run(0.05)
    replica = stage.replica("n1")

    def on_timer(name: str) -> None:
        replica.got.append((replica.env.now(), name))
        if name == "a":
            replica.out.cancel_timer("b")
            replica.out.set_timer("c", 0.2)

    replica.on_timer = on_timer
    stage.run(0.15)
    assert texts(stage, "n1") == ["a"]
    stage.run(1.0)
    assert texts(stage, "n1") == ["a", "c"]
    assert [batch for batch in replica.batches if "Timer" in batch] == [["Timer"]] * 2


def test_a_crash_loses_what_is_not_durable_and_keeps_what_is(stage: Stage) -> None:
    ask(stage, "n1", "put old 1; set a 5")
    stage.run(0.5)
    ask(stage, "n1", "put new 2; send n2 gone; reply", 1)
    stage.run(FSYNC_S / 2)
    stage.crash("n1")
    assert not stage.is_up("n1")
    stage.restart("n1")
    stage.run(10.0)
    assert stage.replica("n1").found == {"old": "1"}
    assert texts(stage, "n1") == []
    assert texts(stage, "n2") == []
    assert stage.replies == []
    ask(stage, "n1", "put again 3; send n2 again; reply", 2)
    stage.run(1.0)
    assert texts(stage, "n1") == ["durable 1"]
    assert texts(stage, "n2") == ["again"]
    assert [reply.sequence for reply in stage.replies] == [2]


def test_a_message_to_a_dead_node_is_lost_and_one_to_itself_is_not(stage: Stage) -> None:
    stage.crash("n2")
    ask(stage, "n1", "send n2 x; send n1 self; put k v; send n1 later")
    stage.run(1.0)
    stage.restart("n2")
    stage.run(1.0)
    assert texts(stage, "n2") == []
    assert [text for text in texts(stage, "n1") if "durable" not in text] == ["self", "later"]


@pytest.mark.parametrize("point", ["before-fsync", "after-fsync"])
def test_a_crash_around_an_fsync_lets_nothing_out_that_waited_for_it(
    stage: Stage, point: FsyncPoint
) -> None:
    ask(stage, "n1", "put other 1")
    stage.run(0.5)
    stage.crash_at("n1", point)
    ask(stage, "n1", "put vote n3; send n2 behind; send n2 early early; reply", 1)
    stage.run(0.5)
    assert not stage.is_up("n1")
    stage.restart("n1")
    stage.run(0.5)
    kept = {"other": "1", "vote": "n3"}
    # What was not synced may have survived all the same.
    assert stage.replica("n1").found in (
        [kept] if point == "after-fsync" else [kept, {"other": "1"}]
    )
    assert texts(stage, "n2") == ["early"]
    assert stage.replies == []


def test_an_fsync_that_fails_ends_the_node_and_nothing_leaves(stage: Stage) -> None:
    ask(stage, "n1", "put other 1")
    stage.run(0.5)
    stage.fail_fsync("n1")
    ask(stage, "n1", "put new 2; send n2 behind; reply; set a 0.1", 1)
    stage.run(FSYNC_S / 2)
    ask(stage, "n1", "put newer 3; send n2 behind", 2)
    stage.run(1.0)
    assert not stage.is_up("n1")
    stage.restart("n1")
    stage.run(1.0)
    assert stage.replica("n1").found in ({"other": "1"}, {"other": "1", "new": "2"})
    assert texts(stage, "n2") == []
    assert stage.replies == []
    assert texts(stage, "n1") == []


def test_a_reply_that_nobody_waits_for_is_dropped_and_counted(stage: Stage) -> None:
    ask(stage, "n1", "reply; reply")
    stage.run(0.5)
    assert len(stage.replies) == 1
    assert stage.unasked("n1") == 1


def test_who_asks_again_is_answered_again(stage: Stage) -> None:
    for _ in range(2):
        ask(stage, "n1", "reply")
        stage.run(0.5)
    assert len(stage.replies) == 2
    assert stage.unasked("n1") == 0


def test_clocks_drift_and_jump_and_timers_follow_the_nodes_own_clock(stage: Stage) -> None:
    env = stage.replica("n1").env
    mono_s = env.now()
    stage.drift("n1", 2.0)
    ask(stage, "n1", "set a 1.0")
    stage.run(0.4999)
    assert texts(stage, "n1") == []
    stage.run(0.0002)
    assert texts(stage, "n1") == ["timer a"]
    assert env.now() - mono_s == pytest.approx(1.0002)
    stage.jump("n1", 60.0)
    assert env.now() - mono_s == pytest.approx(61.0002)


def test_durable_is_an_input_with_the_position_of_the_write(stage: Stage) -> None:
    stage.run(0.1)
    seen: list[Any] = []
    replica = stage.replica("n1")
    original = replica.step

    def step(inputs: list[Any]) -> None:
        seen.extend(inputs)
        original(inputs)

    replica.step = step
    ask(stage, "n1", "put a 1; put b 2")
    stage.run(0.5)
    assert seen[1:] == [Durable(2)]


# --- the simulator's ---


def cluster(**options: Any) -> Cluster:
    options.setdefault("timing", Timing(step_s=0.0001, fsync_s=0.01))
    return Cluster(PROBE, nodes=3, seed=5, quality=STEADY, **options)


def tell(it: Cluster, node: str, commands: str, sequence: int = 0) -> None:
    it.request(node, write("c", commands, sequence=sequence))


def probe(it: Cluster, node: str) -> Probe:
    replica = it.replica(node)
    assert isinstance(replica, Probe)
    return replica


def test_inputs_that_arrive_while_a_node_is_busy_are_stepped_together() -> None:
    it = cluster(timing=Timing(step_s=0.01))
    for sequence in range(4):
        tell(it, "n1", "send n2 x", sequence)
    it.run(1.0)
    assert probe(it, "n1").batches[:2] == [["Request"], ["Request"] * 3]


def test_a_timer_that_falls_due_while_the_node_is_busy_can_still_be_cancelled() -> None:
    it = cluster(timing=Timing(step_s=0.2))
    tell(it, "n1", "set a 0.1; set b 0.15")
    it.run(0.01)
    it.hosts["n1"].replica.on_timer = lambda name: it.replica("n1").out.cancel_timer("b")  # type: ignore
    it.run(1.0)
    assert [batch for batch in probe(it, "n1").batches if "Timer" in batch] == [["Timer"]]


@pytest.mark.parametrize(
    ("torn", "left"),
    [(0.0, []), (0.5, ["a", "b"]), (0.99, ["a", "b", "c"]), (1.0, ["a", "b", "c"])],
)
def test_a_torn_crash_keeps_the_first_unsynced_writes(torn: float, left: list[str]) -> None:
    it = cluster()
    tell(it, "n1", "put a 1; put b 2; put c 3")
    it.crash("n1", torn=torn)
    it.restart("n1")
    assert list(probe(it, "n1").found) == left


@pytest.mark.parametrize(
    ("point", "kept", "sent"),
    [
        ("before-fsync", False, False),
        ("in-fsync", False, False),
        ("after-fsync", True, False),
        ("after-release", True, True),
    ],
)
def test_a_trap_crashes_exactly_at_the_fsync_boundary(point: Any, kept: bool, sent: bool) -> None:
    it = cluster()
    it.hosts["n1"].traps.append(Trap(point=point, match="vote"))
    tell(it, "n1", "put other 1")
    it.run(0.5)
    assert it.hosts["n1"].crashes == 0
    tell(it, "n1", "put vote n3; send n2 behind; send n2 early early", 1)
    it.run(0.5)
    assert it.hosts["n1"].crashes == 1
    assert probe(it, "n1").found == ({"other": "1", "vote": "n3"} if kept else {"other": "1"})
    assert probe(it, "n2").texts() == ["early", *(["behind"] if sent else [])]


def test_a_trap_springs_on_the_nth_message_and_cuts_off_the_rest() -> None:
    it = cluster()
    it.hosts["n1"].traps.append(Trap(point="after-send", match="Note", nth=2))
    tell(it, "n1", "send n2 a; send n2 b; send n2 c")
    it.run(1.0)
    assert probe(it, "n2").texts() == ["a", "b"]
    assert it.hosts["n1"].crashes == 1


def test_a_power_failure_right_after_a_reply_takes_everybody() -> None:
    it = cluster()
    it.hosts["n1"].traps.append(Trap(point="after-reply", match="ok", everybody=True, down_s=0.1))
    tell(it, "n2", "put k v")
    it.run(0.005)
    tell(it, "n1", "reply; send n3 x")
    it.run(0.05)
    assert not any(host.up for host in it.hosts.values())
    it.run(0.5)
    assert all(host.crashes == 1 and host.up for host in it.hosts.values())
    assert probe(it, "n2").found == {}


def test_a_trap_at_a_mark_comes_before_the_sends() -> None:
    it = cluster()
    it.hosts["n1"].traps.append(Trap(point="mark", match="elected"))
    tell(it, "n1", "mark other; send n2 a")
    it.run(0.5)
    tell(it, "n1", "mark elected; send n2 b", 1)
    it.run(0.5)
    assert probe(it, "n2").texts() == ["a"]


@pytest.mark.parametrize("cut", ["mute", "isolate"])
def test_a_trap_may_cut_a_node_off_before_anybody_hears_of_the_mark(cut: Any) -> None:
    it = cluster()
    it.hosts["n1"].traps.append(Trap(point="mark", match="elected", cut=cut, down_s=0.3))
    tell(it, "n1", "mark elected; send n2 unheard")
    tell(it, "n2", "send n1 hello")
    it.run(0.2)
    assert probe(it, "n2").texts() == []
    assert probe(it, "n1").texts() == (["hello"] if cut == "mute" else [])
    it.run(0.2)
    tell(it, "n1", "send n2 healed", 1)
    tell(it, "n2", "send n1 again", 1)
    it.run(0.1)
    assert probe(it, "n2").texts() == ["healed"]
    assert probe(it, "n1").texts()[-1] == "again"
    assert it.hosts["n1"].crashes == 0


def test_rare_writes_are_told_from_common_ones() -> None:
    it = cluster()
    for sequence in range(50):
        tell(it, "n1", "put log x", sequence)
    it.run(0.5)
    it.hosts["n1"].traps.append(Trap(point="after-fsync", match="rare"))
    tell(it, "n1", "put log y", 50)
    it.run(0.5)
    assert it.hosts["n1"].crashes == 0
    tell(it, "n1", "put vote n2", 51)
    it.run(0.5)
    assert it.hosts["n1"].crashes == 1


def test_a_wall_clock_may_be_wrong_and_monotonic_ones_have_nothing_in_common() -> None:
    it = cluster()
    clock = it.hosts["n1"].clock
    wall_s = clock.wall()
    clock.set_rate(2.0)
    it.run(0.5)
    clock.wall_error_s = -5.0
    assert clock.wall() - wall_s == pytest.approx(2 * 0.5 - 5.0)
    clock.set_rate(1.0)
    assert clock.wall() - wall_s == pytest.approx(0.5 - 5.0)
    offsets = {host.clock.now() for host in it.hosts.values()}
    assert len(offsets) == 3


def test_a_manual_cluster_moves_only_by_the_hands_of_a_script() -> None:
    it = Cluster(protocol(), nodes=3, seed=1, manual=True)
    replies: list[Reply] = []
    it.reply_to = lambda node, reply: replies.append(reply)
    it.request("n1", write("c", "v"))
    assert len(it.held()) == 3
    assert it.drop(dst="n3") == 1
    assert it.deliver() == 2
    assert it.drop(wanted=lambda msg: not isinstance(msg, Tell)) == 0
    it.settle()
    assert [reply.outcome for reply in replies] == ["ok"]
    assert it.replica("n3").state() == {"x": (("v",), 1)}
    assert it.now == 0.0
    it.crash("n1")
    it.restart("n1")
    assert it.replica("n1").state() == {"x": (("v",), 1)}, "manual writes are durable at once"
    it.request("n2", read("d"))
    it.drop()
    it.fire("n2", "resend")
    it.settle()
    assert [reply.value for reply in replies] == ["v", "v"]
