"""What only a live driver does: frames, batches of inputs, injected faults, and a replica that left
a step half-way. In virtual time, without a broker, with fsyncs that the test holds; the duties that
it shares with the simulator's host are in tests/simulator/test_driver_duties.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodes.contract.disk import Disk
from nodes.contract.replica import Durable, Message, Reply, Request, Timer
from nodes.faults.injected import Corruption, Duplication, MessageLoss, Reordering, SlowFsync
from nodes.runtime import driver as driver_module
from nodes.runtime import durable_log
from nodes.runtime.disk_speed import FEW_WRITES, PATIENCE
from nodes.runtime.driver import DiskFailed
from nodes.runtime.durable_log import DurableLog
from nodes.wire.codec import MAX_FRAME_BYTES, Codec, WriteCodec, requests_codec
from tests.simulator.stages import FSYNC_S, LATENCY_S, Letter, Live
from tests.simulator.test_driver_duties import BOOTING, PROBE, Note, Probe, ask, texts
from tests.simulator.toy import write

CODEC: Codec[Any] = Codec(Probe.MESSAGES)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    live = Live(PROBE, tmp_path, monkeypatch)
    yield live
    live.close()


def frames(live: Live, dst: str = "n2") -> list[list[str]]:
    """The texts of what went to a node, frame by frame."""
    return [[note.text for note in CODEC.decode(f)] for _, to, f in live.frames if to == dst]


# --- batches of inputs ---


def test_what_arrives_together_is_one_step_one_commit_and_one_frame(stage: Live) -> None:
    for sequence in range(5):
        ask(stage, "n1", f"put k{sequence} v; send n2 {sequence} early; send n3 x early", sequence)
    stage.run(0.5)
    assert stage.replica("n1").batches[0] == ["Request"] * 5
    assert stage.fsyncs("n1") == 1
    assert frames(stage) == [["0", "1", "2", "3", "4"]]
    assert stage.replica("n2").batches == [["Message"] * 5]


def test_what_comes_turn_after_turn_is_waited_for_but_not_for_ever(stage: Live) -> None:
    sent = itertools.count()

    def drip(left: int) -> None:
        if left:
            stage.loop.call_soon(drip, left - 1)
            ask(stage, "n1", "reply", next(sent))

    drip(10)
    stage.run(0.1)
    assert stage.replica("n1").batches == [["Request"] * 10]
    drip(200)
    stage.run(0.1)
    sizes = [len(batch) for batch in stage.replica("n1").batches[1:]]
    assert sum(sizes) == 200
    assert 10 < max(sizes) <= driver_module._MAX_DEFER + 2
    assert len(stage.replies) == 210


def test_without_coalescing_each_input_is_a_step_and_each_message_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(PROBE, tmp_path, monkeypatch, coalesce=False)
    for sequence in range(3):
        ask(live, "n1", f"send n2 a{sequence}; send n2 b{sequence}", sequence)
    live.run(0.5)
    assert live.replica("n1").batches == [["Request"]] * 3
    assert frames(live) == [["a0"], ["b0"], ["a1"], ["b1"], ["a2"], ["b2"]]
    live.close()


def test_a_timer_that_fired_comes_before_what_arrived_since(stage: Live) -> None:
    ask(stage, "n1", "set a 0.1")
    stage.run(0.05)
    stage.loop.call_at(stage.loop.time() + 0.05, lambda: ask(stage, "n1", "cancel a", 1))
    stage.run(0.2)
    batches = stage.replica("n1").batches[1:]
    assert batches in ([["Timer"], ["Request"]], [["Request"]]), "never the other way round"


def test_what_a_node_tells_itself_needs_nothing_else_to_happen(stage: Live) -> None:
    ask(stage, "n1", "send n1 x early")
    stage.run(0.1)
    assert texts(stage, "n1") == ["x"]


# --- frames ---


def test_the_same_messages_to_several_nodes_and_others_of_the_same_number(stage: Live) -> None:
    driver = stage.driver("n1")
    first, second = Note("first"), Note("second")
    for dst, notes in (
        ("n2", [first, second]),
        ("n3", [first, second]),
        ("n2", [second, first]),
        ("n3", [first, second]),
        ("n3", [first, Note("third")]),
        ("n2", [first]),
    ):
        driver._send_to(dst, notes)
    assert frames(stage) == [["first", "second"], ["second", "first"], ["first"]]
    assert frames(stage, "n3") == [["first", "second"]] * 2 + [["first", "third"]]


def test_both_ends_of_a_link_count_what_went_over_it(stage: Live) -> None:
    ask(stage, "n1", "send n2 a early; send n2 b early; send n3 c early", 1)
    stage.run(0.5)
    assert stage.driver("n1")._sent == {"n2": 2, "n3": 1}
    assert [stage.driver(node)._heard["n1"] for node in ("n2", "n3")] == [2, 1]


def test_nothing_to_send_is_no_frame(stage: Live) -> None:
    stage.driver("n1")._send_to("n2", [])
    stage.driver("n1")._flush()
    assert stage.frames == []
    assert "messages_sent" not in stage.driver("n1").counters


def test_what_is_too_large_goes_in_halves_and_too_large_alone_not_at_all(stage: Live) -> None:
    driver = stage.driver("n1")
    third = "x" * (MAX_FRAME_BYTES // 3)
    huge = "y" * (MAX_FRAME_BYTES + 1)
    driver._send_to("n2", [Note(f"{n}{third}") for n in range(5)])
    assert [text[0] for frame in frames(stage) for text in frame] == list("01234")
    assert all(len(frame) <= MAX_FRAME_BYTES for _, _, frame in stage.frames)
    assert 3 <= len(stage.frames) < 5
    stage.frames.clear()
    driver._send_to("n2", [Note("a"), Note(huge), Note("b")])
    driver._send_to("n2", [Note(huge)])
    assert [text for frame in frames(stage) for text in frame] == ["a", "b"]
    assert driver.counters["too_large_to_send"] == 2
    stage.run(1.0)
    assert stage.is_up("n1")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_a_frame_has_so_many_messages_and_no_more(stage: Live, count: int) -> None:
    stage.driver("n1")._messages_per_frame = 2
    stage.driver("n1")._send_to("n2", [Note(str(n)) for n in range(count)])
    sizes = [len(frame) for frame in frames(stage)]
    assert sizes == [2] * (count // 2) + [1] * (count % 2)
    assert [text for frame in frames(stage) for text in frame] == [str(n) for n in range(count)]


def test_what_nobody_may_send_reaches_no_replica(stage: Live) -> None:
    good = CODEC.encode([Note("x")])
    for topic, payload in (
        (stage.topics.link("n9", "n1"), good),
        (stage.topics.link("n1", "n1"), good),
        (stage.topics.link("n2", "n1"), good[:-1]),
        (stage.topics.link("n2", "n1"), b""),
    ):
        stage.deliver("n1", Letter(topic, payload))
    stage.run(0.1)
    assert stage.replica("n1").batches == []
    assert stage.driver("n1").counters["bad_frame_sender"] == 2
    ask(stage, "n1", "send n9 x; send n2 y")
    stage.run(0.1)
    assert stage.driver("n1").counters["sent_to_nobody"] == 1
    assert texts(stage, "n2") == ["y"]


# --- what goes wrong on purpose ---


def test_the_first_messages_are_all_lost_and_the_node_lives(stage: Live) -> None:
    driver = stage.driver("n1")
    driver._injector.inject("1", MessageLoss(share=1.0, dst=["n2"], seed=1))
    for sequence in range(3):
        ask(stage, "n1", "send n2 lost; send n3 there; reply", sequence)
        stage.run(0.1)
    assert frames(stage) == []
    assert frames(stage, "n3") == [["there"]] * 3
    assert driver.counters["messages_lost"] == 3
    driver._injector.withdraw("1")
    ask(stage, "n1", "send n2 heard", 3)
    stage.run(0.1)
    assert texts(stage, "n2") == ["heard"]
    assert len(stage.replies) == 3
    assert not stage.ended


def test_held_back_doubled_and_damaged_messages(stage: Live) -> None:
    injector = stage.driver("n1")._injector
    injector.inject("1", Reordering(share=1.0, dst=["n2"], seed=1, delay_ms=100))
    ask(stage, "n1", "send n2 first; send n3 first")
    stage.run(0.05)
    injector.withdraw("1")
    ask(stage, "n1", "send n2 second", 1)
    stage.run(0.5)
    assert texts(stage, "n2") == ["second", "first"]
    injector.inject("2", Duplication(share=1.0, dst=["n2"], seed=1))
    ask(stage, "n1", "send n2 twice", 2)
    stage.run(0.1)
    assert texts(stage, "n2")[2:] == ["twice", "twice"]
    injector.withdraw("2")
    injector.inject("3", Corruption(share=1.0, dst=["n2"], seed=1))
    ask(stage, "n1", "send n2 damaged; send n3 whole", 3)
    stage.run(0.1)
    assert texts(stage, "n2")[4:] == []
    assert texts(stage, "n3") == ["first", "whole"]
    assert any(name.startswith("bad_frame_") for name in stage.driver("n2").counters)


# --- the disk ---


def test_one_commit_at_a_time_and_nothing_leaves_before_its_own(stage: Live) -> None:
    disk = stage.disks["n1"]
    disk.held = True
    ask(stage, "n1", "put a 1; send n2 a; reply", 0)
    stage.run(0.1)
    ask(stage, "n1", "put b 2; send n2 b; reply", 1)
    ask(stage, "n1", "send n2 c; reply", 2)
    stage.run(5.0)
    assert (disk.fsyncs, disk.most_at_once) == (1, 1)
    assert (texts(stage, "n2"), stage.replies) == ([], [])
    disk.let_go()
    disk.held = True
    stage.run(1.0)
    assert texts(stage, "n2") == ["a"]
    assert [reply.sequence for reply in stage.replies] == [0]
    assert texts(stage, "n1") == ["durable 1"]
    disk.let_go()
    stage.run(1.0)
    assert texts(stage, "n2") == ["a", "b", "c"]
    assert [reply.sequence for reply in stage.replies] == [0, 1, 2]
    assert (disk.fsyncs, disk.most_at_once) == (2, 1)


def test_a_disk_that_fails_says_which_and_the_node_ends(stage: Live) -> None:
    stage.fail_fsync("n1")
    ask(stage, "n1", "put a 1; send n2 a; reply")
    stage.run(1.0)
    assert isinstance(stage.ended["n1"], DiskFailed)
    assert "/n1/log: " in str(stage.ended["n1"])


def test_a_log_that_outgrew_its_content_is_rewritten_while_the_node_serves(
    stage: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_log, "_MIN_REWRITE_BYTES", 2000)
    stage.crash("n1")
    stage.restart("n1")
    for sequence in range(200):
        ask(stage, "n1", f"put k {sequence}; put other{sequence % 3} v; reply", sequence)
        stage.run(FSYNC_S * (0.3 if sequence % 2 else 1.5))
    assert (tmp_path / "n1" / "log").stat().st_size < 9000
    stage.run(1.0)
    assert len(stage.replies) == 200
    stage.crash("n1")
    stage.restart("n1")
    assert stage.replica("n1").found == {f"other{n}": "v" for n in range(3)} | {"k": "199"}


def quick(stage: Live, node: str) -> list[tuple[int, int]]:
    """Let the node find its disk quick. Returns, for each commit from then on, how many frames and
    replies had left before it."""
    driver = stage.driver(node)
    driver._disk_speed.quick_s = 60.0
    for sequence in range(PATIENCE):
        ask(stage, node, "put k v; reply", 1000 + sequence)
        stage.run(FSYNC_S * 2)
    assert (stage.fsyncs(node), len(stage.replies)) == (PATIENCE, PATIENCE)
    stage.replies.clear()
    left: list[tuple[int, int]] = []
    commit: Any = driver.log.commit

    def commit_watched(*arguments: Any) -> None:
        left.append((len(stage.frames), len(stage.replies)))
        commit(*arguments)

    watched: Any = commit_watched

    driver.log.commit = watched  # type: ignore[method-assign]
    return left


def test_a_quick_disk_is_waited_for_and_nothing_leaves_before(stage: Live) -> None:
    left = quick(stage, "n1")
    ask(stage, "n1", "put a 1; send n3 early early; send n2 late; reply")
    stage.run(FSYNC_S / 2)
    assert left == [(1, 0)]
    assert stage.fsyncs("n1") == PATIENCE, "no thread was asked"
    assert (texts(stage, "n3"), texts(stage, "n2")) == (["early"], ["late"])
    assert [reply.outcome for reply in stage.replies] == ["ok"]
    assert stage.replica("n1").batches[-1] == ["Durable"]
    stage.crash("n1")
    stage.restart("n1")
    assert stage.replica("n1").found == {"k": "v", "a": "1"}


def test_a_disk_that_is_slow_once_is_not_waited_for_again(stage: Live) -> None:
    left = quick(stage, "n1")
    stage.driver("n1")._disk_speed.quick_s = 0.0
    for sequence in range(3):
        ask(stage, "n1", "put a 1; reply", sequence)
        stage.run(FSYNC_S * 2)
    assert len(left) == len(stage.replies) == 3
    assert stage.fsyncs("n1") == PATIENCE + 2


@pytest.mark.parametrize("why", ["many writes", "a fault", "an old log", "an input"])
def test_a_quick_disk_is_not_waited_for_where_it_may_take_longer(
    stage: Live, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(stage, "n1")
    driver = stage.driver("n1")
    if why == "a fault":
        driver._injector.inject("1", SlowFsync(delay_ms=1))
    elif why == "an old log":
        monkeypatch.setattr(driver.log, "_rewrite_at", 1)
    puts = "".join(f"put k{n} v; " for n in range(FEW_WRITES + (why == "many writes")))
    itself = "send n1 next early; " if why == "an input" else ""
    ask(stage, "n1", f"{itself}{puts}reply")
    stage.run(FSYNC_S / 2)
    assert (stage.fsyncs("n1"), stage.replies) == (PATIENCE + 1, [])
    stage.run(FSYNC_S * 2)
    assert len(stage.replies) == 1
    driver._injector.withdraw("1")
    ask(stage, "n1", "put a 1; reply", 1)
    stage.run(FSYNC_S / 2)
    asked_again = stage.fsyncs("n1") - PATIENCE - 1
    assert asked_again == (why == "many writes"), "where much was to do there may be more"


def test_a_quick_disk_that_fails_ends_the_node_and_nothing_leaves(stage: Live) -> None:
    quick(stage, "n1")
    stage.frames.clear()

    def no_space(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    fail: Any = no_space
    stage.driver("n1").log.commit = fail  # type: ignore[method-assign]
    ask(stage, "n1", "put a 1; send n2 a; reply")
    stage.run(1.0)
    assert isinstance(stage.ended["n1"], DiskFailed)
    assert "/n1/log: No space left" in str(stage.ended["n1"])
    assert (stage.frames, stage.replies) == ([], [])


# --- a step that is left half-way ---


def fail_at(live: Live, node: str, text: str, error: BaseException) -> None:
    replica = live.replica(node)
    original = replica.on_note

    def on_note(src: str, msg: Note) -> None:
        if msg.text == text:
            replica.disk.put("half", "done")
            replica.out.send("n3", Note("half"))
            replica.out.set_timer("half", 0.01)
            raise error
        original(src, msg)

    replica._bound[Note] = on_note


def test_a_step_that_raises_never_was_and_those_before_it_were(stage: Live) -> None:
    stage.disks["n2"].held = True
    ask(stage, "n2", "put kept 1; send n3 gated; reply; set old 0.3", 0)
    stage.run(0.1)
    ask(stage, "n2", "put kept2 2; set older 0.3", 1)
    stage.run(0.1)
    fail_at(stage, "n2", "bad", KeyError("nobody thought of that"))
    ask(stage, "n1", "send n2 good; send n2 bad; send n2 good2")
    stage.run(LATENCY_S * 2)
    driver = stage.driver("n2")
    assert (driver.counters["bad_steps"], driver.counters["inputs_dropped"]) == (1, 3)
    assert stage.replica("n2").found == {"kept": "1", "kept2": "2"}
    told = {reply.sequence: reply.outcome for reply in stage.replies}
    assert told == {0: "info", 1: "info"}
    assert ("n2", "rebuilt") in stage.told
    stage.disks["n2"].held = False
    stage.run(1.0)
    assert texts(stage, "n2") == [], "no timer of before, and no position"
    assert texts(stage, "n3") == [], "nothing that waited"
    # It goes on, with positions of its own.
    ask(stage, "n2", "put new 3; send n3 new; reply; set new 0.1", 2)
    stage.run(FSYNC_S / 2)
    assert texts(stage, "n3") == []
    stage.run(1.0)
    assert texts(stage, "n2") == ["durable 1", "timer new"]
    assert texts(stage, "n3") == ["new"]
    stage.crash("n2")
    stage.restart("n2")
    assert stage.replica("n2").found == {"kept": "1", "kept2": "2", "new": "3"}


def test_a_commit_of_the_time_before_says_nothing_of_the_time_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica is built anew while a commit is under way, and writes at once; that is durable
    with its own commit, though the other one, of a higher position, comes back before."""
    live = Live(BOOTING, tmp_path, monkeypatch)
    live.run(0.5)
    ask(live, "n1", "put a 1; put b 2; put c 3")
    live.run(FSYNC_S / 2)
    fail_at(live, "n1", "bad", ValueError("no"))
    ask(live, "n3", "send n1 bad")
    live.run(FSYNC_S * 0.75)
    assert live.driver("n1").counters["bad_steps"] == 1
    assert "boot 2 of n1" not in texts(live, "n2")
    live.run(1.0)
    assert texts(live, "n2")[-1] == "boot 2 of n1"
    assert texts(live, "n1") == ["durable 1"]
    live.close()
    log = DurableLog(tmp_path / "n1", WriteCodec(Probe.RECORDS))
    assert dict(Disk.replay(log.open()).items()) == {"boots": 2, "a": "1", "b": "2", "c": "3"}
    log.close()


ENDS: dict[str, Callable[[Live], None]] = {
    "an invariant": lambda live: live.driver("n1").feed(Message("n2", Note("bad"))),
    "a timer": lambda live: live.driver("n1")._on_timer("bad"),
    "an fsync's end": lambda live: live.driver("n1").feed(Durable(7)),
}


@pytest.mark.parametrize("what", ENDS)
def test_own_state_that_is_wrong_ends_the_node_and_nothing_leaves(stage: Live, what: str) -> None:
    replica = stage.replica("n1")

    def fail(*inputs: Any) -> None:
        replica.out.send("n2", Note("half"))
        raise AssertionError if what == "an invariant" else KeyError

    replica.on_timer = replica.on_durable = fail
    replica._bound[Note] = fail
    ENDS[what](stage)
    stage.run(0.5)
    assert isinstance(stage.ended["n1"], AssertionError | KeyError)
    assert stage.frames == []


# --- requests ---


def test_too_many_open_requests_are_refused_and_the_others_served(
    stage: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "_MAX_OPEN_REQUESTS", 3)
    stage.disks["n1"].held = True
    for sequence in range(5):
        ask(stage, "n1", "put k v; reply", sequence)
    stage.run(0.1)
    assert {reply.sequence: reply.outcome for reply in stage.replies} == {3: "fail", 4: "fail"}
    stage.disks["n1"].let_go()
    stage.run(0.1)
    assert [reply.sequence for reply in stage.replies[2:]] == [0, 1, 2]
    assert len(stage.replica("n1").batches[0]) == 3


def test_who_asked_last_is_answered(stage: Live) -> None:
    """A client that goes on under its name has another topic, and nobody listens to the first."""
    stage.disks["n1"].held = True
    for addressee in ("c", "c-again"):
        payload = requests_codec().encode([Request("c", 1, write("c", "put k v; reply").operation)])
        request_topic, reply_topic = (
            stage.topics.request("n1"),
            stage.topics.reply("load", addressee),
        )
        stage.deliver("n1", Letter(request_topic, payload, reply_topic))
        stage.run(0.1)
    stage.disks["n1"].let_go()
    stage.run(0.1)
    assert stage.answered == ["c-again"]
    assert stage.driver("n1").counters["replies_without_asker"] == 1


def test_what_a_protocol_does_not_offer_is_refused_unseen(stage: Live) -> None:
    operation = msgspec.structs.replace(write("c", "x").operation, op="cas")
    stage.request("n1", Request("c", 1, operation))
    stage.run(0.1)
    (reply,) = stage.replies
    assert isinstance(reply, Reply)
    assert (reply.outcome, reply.error) == ("fail", "unsupported: probe offers write, not cas")
    assert stage.replica("n1").batches == []


def test_a_timer_of_a_step_is_one_input_alone(stage: Live) -> None:
    seen: list[Any] = []
    replica = stage.replica("n1")
    original = replica.step

    def step(inputs: list[Any]) -> None:
        seen.append(list(inputs))
        original(inputs)

    replica.step = step
    ask(stage, "n1", "set a 0.1; set b 0.1000000002")
    stage.run(0.5)
    assert seen[1:] == [[Timer("a")], [Timer("b")]]
