"""What a node does wrong on purpose: drawn by seed, and taken back whole."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from nodes.contract.replica import Request
from nodes.faults.injected import (
    ClockError,
    Corruption,
    CrashAt,
    Duplication,
    FsyncError,
    FullDisk,
    Injected,
    MessageLoss,
    Reordering,
)
from nodes.runtime.injected import Injector, LiveEnv
from nodes.wire.codec import BadFrame, Codec


class Node:
    def __init__(self) -> None:
        self.env = LiveEnv()
        self.late: list[tuple[float, str, Any]] = []
        self.counts: dict[str, int] = {}
        self.injector = Injector(
            self.env, self._call_later, self._send_late, self._count, lambda: None
        )

    def _call_later(self, delay_s: float, send: Any, dst: str, message: Any) -> None:
        assert send == self._send_late
        self.late.append((delay_s, dst, message))

    def _send_late(self, dst: str, message: Any) -> None:
        raise NotImplementedError

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def test_a_share_is_lost_by_seed_on_that_link_only() -> None:
    def left(seed: int, dst: str = "n2") -> list[Any]:
        node = Node()
        node.injector.inject("1", MessageLoss(share=0.3, dst=["n2"], seed=seed))
        return node.injector.messages(dst, list(range(1000)))

    assert 620 < len(left(1)) < 780
    assert left(1) == left(1)
    assert left(1) != left(2)
    assert left(1, "n3") == list(range(1000))


def test_faults_lie_on_top_of_each_other_and_end_one_by_one() -> None:
    node = Node()
    node.injector.inject("1", Duplication(share=1.0, dst=["n2"], seed=1))
    node.injector.inject("2", Reordering(share=1.0, dst=["n2"], seed=1, delay_ms=50))
    assert node.injector.messages("n2", ["a"]) == []
    assert node.late == [(0.05, "n2", "a")] * 2
    node.injector.withdraw("2")
    assert node.injector.messages("n2", ["a", "b"]) == ["a", "a", "b", "b"]
    node.injector.withdraw("1")
    assert not node.injector.of_messages
    assert node.counts == {"messages_duplicated": 3, "messages_held_back": 2}


def test_no_corrupted_frame_is_taken() -> None:
    node = Node()
    codec: Codec[Any] = Codec((Request,))
    frame = codec.encode([])
    node.injector.inject("1", Corruption(share=1.0, dst=["n2"], seed=3))
    assert node.injector.frame("n3", frame) == frame
    for _ in range(50):
        with pytest.raises(BadFrame) as refused:
            codec.decode(node.injector.frame("n2", frame))
        assert refused.value.kind == "checksum"


def test_a_clock_jumps_drifts_and_never_goes_back() -> None:
    env = LiveEnv()
    before, wall = env.now(), env.wall()
    env.set_errors([ClockError(offset_s=-60.0)], jump_s=100.0)
    assert env.now() - before >= 100
    assert env.wall() < wall - 50
    env.set_errors([ClockError(drift=0.5)])
    assert env.rate == 1.5
    shown = env.now()
    assert shown - before >= 100
    env.set_errors([])
    assert env.rate == 1.0
    assert env.now() >= shown
    assert abs(env.wall() - wall) < 50


@pytest.mark.parametrize("drift", [-1, -0.91, 1e308, math.inf, math.nan])
def test_no_clock_is_told_to_stand_still(drift: float) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"type": "ClockError", "drift": drift}, Injected)


@pytest.mark.parametrize("field", ["offset_s", "jump_s"])
@pytest.mark.parametrize("value", [1e300, -1e300, math.inf, math.nan])
def test_no_clock_is_centuries_wrong(field: str, value: float) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"type": "ClockError", field: value}, Injected)


def test_however_many_clock_errors_are_on_time_goes_on() -> None:
    env = LiveEnv()
    env.set_errors([ClockError(drift=-0.5)] * 4)
    assert env.rate > 0
    before = env.now()
    assert env.now() >= before
    env.set_errors([ClockError(drift=10)] * 1000)
    assert env.rate < 100


def test_a_disk_fails_before_or_after_it_was_written() -> None:
    node, written = Node(), []

    def write(batch: int, before_sync: object) -> None:
        written.append(batch)

    node.injector.inject("1", FsyncError())
    with pytest.raises(OSError, match="Input/output") as failed:
        node.injector.commit(write, 1)
    assert failed.value.errno == errno.EIO
    node.injector.inject("2", FullDisk())
    with pytest.raises(OSError, match="No space left"):
        node.injector.commit(write, 2)
    node.injector.withdraw("1")
    node.injector.withdraw("2")
    node.injector.commit(write, 3)
    assert written == [1, 3]


@pytest.mark.parametrize(
    ("point", "order"),
    [
        ("before-fsync", ["written", "dead", "synced"]),
        ("after-fsync", ["written", "synced", "dead"]),
    ],
)
def test_a_crash_comes_at_the_point_that_was_named(
    point: Any, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, done = Node(), []

    def commit(batches: int, before_sync: Callable[[], None] | None) -> None:
        done.append("written")
        if before_sync is not None:
            before_sync()
        done.append("synced")

    monkeypatch.setattr("nodes.runtime.injected._die", lambda: done.append("dead"))
    node.injector.inject("1", CrashAt(point=point))
    node.injector.commit(commit, 1)
    assert done == order
    node.injector.withdraw("1")
    node.injector.commit(commit, 2)
    assert done == [*order, "written", "synced"]
