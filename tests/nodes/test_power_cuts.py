"""The durable log after a power cut, in each state that one can leave its files in: nothing that
was acknowledged is lost, nothing torn is taken for corruption, and the node starts."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodes.contract.disk import Append, Compact, Disk, Put, Write
from nodes.runtime import durable_log
from nodes.runtime.durable_log import DurableLog
from nodes.wire.codec import WriteCodec
from tests.nodes.crash_states import Recorder, State


class Entry(msgspec.Struct, frozen=True, array_like=True, tag=True):
    term: int
    text: str


CODEC = WriteCodec([Entry])
BATCHES: list[list[Write]] = [
    [Put("a", 1), Append(Entry(1, "x"))],
    [Put("b", 2)],
    [Append(Entry(2, "y")), Put("a", 3)],
    [Compact(1, "s"), Put("c", 4)],
    [Put("d", 5)],
]
DIRECTORY = "data/n1"


def held(batches: Sequence[Sequence[Write]]) -> tuple[Any, ...]:
    """What a disk holds after these."""
    disk = Disk.replay(write for batch in batches for write in batch)
    log = tuple(disk.entries(disk.first_index, disk.last_index + 1))
    return tuple(sorted(disk.items())), disk.snapshot_index, disk.snapshot, log


class Judge:
    """Runs a script under a recorder, and looks at each state that a power cut may leave.
    ``begun`` and ``acknowledged``: how many of `BATCHES` the log was given, and has confirmed."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._tmp_path = tmp_path
        self._monkeypatch = monkeypatch
        self._numbers = itertools.count()
        self.batches = BATCHES
        self.states = 0

    def new(self) -> Path:
        """An empty disk."""
        root = self._tmp_path / str(next(self._numbers))
        root.mkdir()
        return root

    def record(self, root: Path, script: Callable[[Recorder, Path], None]) -> Recorder:
        with self._monkeypatch.context() as patched:
            recorder = Recorder(root, patched)
            script(recorder, root / DIRECTORY)
        return recorder

    def judge(
        self, recorder: Recorder, begun: int = 0, acknowledged: int = 0, depth: int = 1
    ) -> None:
        """Recover from each state. ``depth``: how many power cuts more during a recovery."""
        for count, state in recorder.crashes():
            least, most = acknowledged, begun
            for call in recorder.calls[:count]:
                if call.kind == "acknowledged":
                    least = call.file
                elif call.kind == "begun":
                    most = call.file
            self._recover(state, least, most, depth)

    def _recover(self, state: State, least: int, most: int, depth: int) -> None:
        self.states += 1
        root = self.new()
        state.write_to(root)
        found: list[tuple[Any, ...]] = []

        def start(recorder: Recorder, directory: Path) -> None:
            log = DurableLog(directory, CODEC)
            try:
                found.append(held([log.open()]))
                recorder.mark("started", 0)
                log.append([Put("after", True)])
                log.commit(log.take())
            finally:
                log.close()

        recorder = self.record(root, start)
        allowed = [held(self.batches[:count]) for count in range(least, most + 1)]
        assert found[0] in allowed, f"{state}: {found[0]}, of {least} to {most} batches"
        log = DurableLog(root / DIRECTORY, CODEC)
        after = held([log.open()])
        log.close()
        assert after[0] == tuple(sorted({**dict(found[0][0]), "after": True}.items())), state
        assert after[1:] == found[0][1:], state
        shutil.rmtree(root)
        if depth:
            opening = [call.kind for call in recorder.calls].index("started")
            del recorder.calls[opening:]
            self.judge(recorder, most, least, depth - 1)


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    # What reaches the disk of this machine is of no interest here.
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    return Judge(tmp_path, monkeypatch)


def writing(
    groups: Sequence[int], start: int = 0, batches: Sequence[list[Write]] = BATCHES
) -> Callable[[Recorder, Path], None]:
    """Open a log and commit so many batches at a time."""

    def script(recorder: Recorder, directory: Path) -> None:
        log = DurableLog(directory, CODEC)
        log.open()
        done = start
        for size in groups:
            recorder.mark("begun", done + size)
            for batch in batches[done : done + size]:
                log.append(batch)
            log.commit(log.take())
            done += size
            recorder.mark("acknowledged", done)
        log.close()

    return script


def rewriting(recorder: Recorder, directory: Path) -> None:
    """Open a log that has outgrown its content, and commit: its rewriting, and a batch behind."""
    log = DurableLog(directory, CODEC)
    disk = Disk.replay(log.open())
    for number, batch in enumerate(BATCHES[2:4], 3):
        recorder.mark("begun", number)
        for write in batch:
            disk.apply(write)
        log.append(batch)
        log.maybe_rewrite(disk)
        if number == 4:
            recorder.mark("begun", 5)
            log.append(BATCHES[4])
        log.commit(log.take())
        recorder.mark("acknowledged", 5 if number == 4 else number)
    log.close()


def rewriting_slowly(
    start: int, batches: Sequence[list[Write]]
) -> Callable[[Recorder, Path], None]:
    """The same, with a new file that takes several commits."""

    def script(recorder: Recorder, directory: Path) -> None:
        log = DurableLog(directory, CODEC)
        disk = Disk.replay(log.open())
        for number, batch in enumerate(batches[start:], start + 1):
            recorder.mark("begun", number)
            for write in batch:
                disk.apply(write)
            log.append(batch)
            log.maybe_rewrite(disk)
            log.commit(log.take())
            recorder.mark("acknowledged", number)
        log.close()

    return script


def test_a_log_that_is_created_and_written_to(judge: Judge) -> None:
    judge.judge(judge.record(judge.new(), writing([1, 1])), depth=0)
    assert judge.states > 50


def test_a_group_of_batches_is_torn_anywhere(judge: Judge) -> None:
    root = judge.new()
    judge.record(root, writing([1]))
    judge.judge(judge.record(root, writing([3, 1], start=1)), 1, 1, depth=0)
    assert judge.states > 50


def test_a_log_is_rewritten(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_log, "_MIN_REWRITE_BYTES", 1)
    monkeypatch.setattr(durable_log, "_REWRITE_FACTOR", 1)
    monkeypatch.setattr(durable_log, "_WORTH_WHILE", 2)  # However much still counts.
    root = judge.new()
    judge.record(root, writing([1, 1]))
    recorder = judge.record(root, rewriting)
    assert [call.kind for call in recorder.calls].count("rename") == 2
    judge.judge(recorder, 2, 2, depth=0)
    assert judge.states > 50


def test_a_log_is_rewritten_beside_the_commits(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge.batches = [[Put(f"k{number % 5}", number)] for number in range(10)]
    root = judge.new()
    judge.record(root, writing([1] * 5, batches=judge.batches))
    for name, value in (
        ("_MIN_REWRITE_BYTES", 1),
        ("_REWRITE_FACTOR", 1),
        ("_WORTH_WHILE", 2),
        ("_PIECE_BYTES", 1),
        ("_FIRST_WRITES", 1),
    ):
        monkeypatch.setattr(durable_log, name, value)
    recorder = judge.record(root, rewriting_slowly(5, judge.batches))
    kinds = [call.kind for call in recorder.calls]
    begins, ends = kinds.index("create"), kinds.index("rename")
    assert "acknowledged" in kinds[begins:ends]
    judge.judge(recorder, 5, 5, depth=0)
    assert judge.states > 50


@pytest.mark.parametrize("left", [b"", durable_log.MAGIC[:7], durable_log.MAGIC + b"half a check"])
def test_a_rewriting_that_was_cut_off_is_taken_away(judge: Judge, left: bytes) -> None:
    root = judge.new()
    judge.record(root, writing([1]))
    (root / DIRECTORY / "log.new").write_bytes(left)
    judge.judge(judge.record(root, writing([1], start=1)), 1, 1, depth=0)


def test_the_power_fails_again_while_a_log_is_taken_up(judge: Judge) -> None:
    root = judge.new()
    judge.judge(judge.record(root, writing([])))
    judge.record(root, writing([1]))
    path = root / DIRECTORY / "log"
    whole = path.read_bytes()
    judge.record(root, writing([2], start=1))
    longer = path.read_bytes()
    second = len(whole) + (len(longer) - len(whole)) // 2
    for torn in (
        longer[:-3],
        longer[: len(whole) + 5],
        whole + bytes(len(longer) - len(whole)),
        whole + bytes(second - len(whole)) + longer[second:],
    ):
        path.write_bytes(torn)
        judge.judge(judge.record(root, writing([], start=1)), 3, 1)


@pytest.mark.parametrize("made", ["data", "data/n1"])
def test_a_folder_that_a_killed_process_had_just_made_is_no_more_certain(
    judge: Judge, made: str
) -> None:
    def script(recorder: Recorder, directory: Path) -> None:
        for path in [*reversed(Path(made).parents), Path(made)][1:]:
            os.mkdir(directory.parent.parent / path)
            if str(path) != made:
                descriptor = os.open(directory.parent.parent, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
        writing([1])(recorder, directory)

    judge.judge(judge.record(judge.new(), script), depth=0)


class Killed(BaseException):
    """The process ends there; the files are what it had made of them."""


@pytest.mark.parametrize("when", ["created", "rewritten"])
def test_a_name_that_a_killed_process_had_just_given_is_no_more_certain(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It renamed the new file, and did not come to sync the directory. Whoever goes on writes to
    the new file, and a power cut may bring back the old one under that name."""
    before = 0 if when == "created" else 2
    root = judge.new()
    (root / DIRECTORY).mkdir(parents=True)
    if before:
        judge.record(root, writing([1, 1]))
        for name in ("_MIN_REWRITE_BYTES", "_REWRITE_FACTOR"):
            monkeypatch.setattr(durable_log, name, 1)
        monkeypatch.setattr(durable_log, "_WORTH_WHILE", 2)

    sync = durable_log._sync_directory

    def kill(directory: Path) -> None:
        raise Killed

    def killed_after(syncs: int, act: Callable[[], Any]) -> None:
        left = iter([*[sync] * syncs, kill])
        with monkeypatch.context() as patched:
            patched.setattr(durable_log, "_sync_directory", lambda path: next(left)(path))
            with pytest.raises(Killed):
                act()

    def script(recorder: Recorder, directory: Path) -> None:
        log = DurableLog(directory, CODEC)
        if when == "created":
            killed_after(1, log.open)  # The first is that of the folder's own name.
        else:
            disk = Disk.replay(log.open())
            recorder.mark("begun", before + 1)
            for write in BATCHES[before]:
                disk.apply(write)
            log.append(BATCHES[before])
            log.maybe_rewrite(disk)
            killed_after(0, lambda: log.commit(log.take()))
        log.close()
        writing([1], start=before + bool(before))(recorder, directory)

    recorder = judge.record(root, script)
    assert [call.kind for call in recorder.calls].count("rename") == 1
    judge.judge(recorder, before, before, depth=0)


def test_what_was_cut_off_does_not_come_back_behind_something_new(judge: Judge) -> None:
    """Of two batches in one commit the first was torn. A new one, as long as that, takes its place;
    the second must be gone by then, for nobody could tell that it does not belong there."""
    root = judge.new()
    judge.record(root, writing([1]))
    path = root / DIRECTORY / "log"
    whole = path.read_bytes()
    log = DurableLog(root / DIRECTORY, CODEC)
    log.open()
    log.append([Put("x", 2)])
    log.append([Put("y", 3)])
    log.commit(log.take())
    log.close()
    both = path.read_bytes()
    length = (len(both) - len(whole)) // 2
    path.write_bytes(whole + bytes(length) + both[-length:])

    def go_on(recorder: Recorder, directory: Path) -> None:
        log = DurableLog(directory, CODEC)
        log.open()
        recorder.mark("begun", 2)
        log.append([Put("b", 2)])
        log.commit(log.take())
        recorder.mark("acknowledged", 2)
        log.close()

    judge.batches = [BATCHES[0], [Put("b", 2)]]
    judge.judge(judge.record(root, go_on), 1, 1, depth=0)


def test_what_the_system_takes_in_parts_is_written_as_a_whole(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:7]))
    root = judge.new()
    judge.record(root, writing([1, 3]))
    log = DurableLog(root / DIRECTORY, CODEC)
    assert held([log.open()]) == held(BATCHES[:4])
    log.close()
