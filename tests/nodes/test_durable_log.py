"""What survives a crash: exactly the durable prefix, and never silently less."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.contract.disk import Append, Compact, Disk, Put, Truncate, Write
from nodes.runtime import durable_log
from nodes.runtime.durable_log import MAGIC, CorruptLog, DurableLog
from nodes.wire.codec import WriteCodec


class Entry(msgspec.Struct, frozen=True, array_like=True, tag=True):
    term: int
    text: str


CODEC = WriteCodec([Entry])


def write(directory: Path, batches: list[list[Write]]) -> Path:
    """A log of ``batches``, each committed on its own."""
    log = DurableLog(directory, CODEC)
    log.open()
    for batch in batches:
        log.append(batch)
        log.commit(log.take())
    log.close()
    return directory / "log"


def read(directory: Path) -> list[Write]:
    log = DurableLog(directory, CODEC)
    try:
        return log.open()
    finally:
        log.close()


BATCHES: list[list[Write]] = [
    [Put("term", 1), Append(Entry(1, "a"))],
    [Append(Entry(1, "b")), Truncate(2), Append(Entry(2, "c"))],
    [Compact(1, {"x": [1, None]}), Put("term", None)],
]
ALL = [one for batch in BATCHES for one in batch]


def test_what_was_committed_is_read_again_with_its_types(tmp_path: Path) -> None:
    write(tmp_path, BATCHES)
    assert read(tmp_path) == ALL


def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    log = DurableLog(tmp_path, CODEC)
    log.open()
    log.append([Put("a", 1)])
    log.close()
    assert read(tmp_path) == []


@pytest.mark.parametrize("lost_bytes", [1, 5, 17, 30])
def test_a_torn_tail_is_cut_and_writing_goes_on(tmp_path: Path, lost_bytes: int) -> None:
    path = write(tmp_path, BATCHES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost_bytes])
    log = DurableLog(tmp_path, CODEC)
    assert log.open() == BATCHES[0] + BATCHES[1]
    assert log.cut_bytes > 0
    log.append([Put("after", True)])
    log.commit(log.take())
    log.close()
    assert read(tmp_path) == [*BATCHES[0], *BATCHES[1], Put("after", True)]


def test_every_truncation_yields_a_prefix_of_batches(tmp_path: Path) -> None:
    path = write(tmp_path, BATCHES)
    whole = path.read_bytes()
    prefixes = [[one for batch in BATCHES[:n] for one in batch] for n in range(4)]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert read(tmp_path) in prefixes


def test_a_flipped_bit_in_the_middle_names_file_and_offset(tmp_path: Path) -> None:
    path = write(tmp_path, BATCHES)
    damaged = bytearray(path.read_bytes())
    damaged[len(MAGIC) + 20] ^= 0x40
    path.write_bytes(damaged)
    with pytest.raises(CorruptLog, match=rf"log: byte {len(MAGIC)}: damaged") as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == bytes(damaged), "a damaged log is left as it is"


def test_damage_that_nobody_calls_durable_is_a_torn_write(tmp_path: Path) -> None:
    """Two batches in one commit: a power cut may keep the second and tear the first."""
    log = DurableLog(tmp_path, CODEC)
    log.open()
    log.append([Put("first", 1)])
    log.append([Put("second", 2)])
    log.commit(log.take())
    log.close()
    path = tmp_path / "log"
    damaged = bytearray(path.read_bytes())
    damaged[len(MAGIC) + 20] ^= 0x40
    path.write_bytes(damaged)
    assert read(tmp_path) == []


def test_a_file_that_is_not_ours_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"somebody else's file")
    with pytest.raises(CorruptLog, match="byte 0"):
        read(tmp_path)
    assert (tmp_path / "log").read_bytes() == b"somebody else's file"


def test_a_file_that_outgrew_its_content_is_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_log, "_MIN_REWRITE_BYTES", 4096)
    log = DurableLog(tmp_path, CODEC)
    disk = Disk.replay(log.open())
    sizes = []
    for number in range(2000):
        disk.put("counter", number)
        disk.append(Entry(1, f"entry {number}"))
        if disk.last_index - disk.snapshot_index > 20:
            disk.compact(disk.last_index - 10, {"counter": number})
        log.append(disk.take())
        log.maybe_rewrite(disk)
        log.commit(log.take())
        sizes.append((tmp_path / "log").stat().st_size)
    log.close()
    assert max(sizes) < 3 * 4096
    assert log.written_bytes > 10 * 4096
    again = Disk.replay(read(tmp_path))
    assert again.get("counter") == 1999
    assert again.last_index == disk.last_index == 2000
    assert again.entries(again.first_index, 2001) == disk.entries(disk.first_index, 2001)
    assert again.snapshot == disk.snapshot


def test_a_file_of_which_most_still_counts_is_left_alone_until_it_has_grown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_log, "_MIN_REWRITE_BYTES", 4096)
    log = DurableLog(tmp_path, CODEC)
    disk = Disk.replay(log.open())

    def put(keys: int, value: str) -> None:
        for number in range(keys):
            # What is small and soon forgotten is half of the writes, and little of the file.
            disk.put("note", number)
            disk.put(f"k{number}", value)
            log.append(disk.take())
            log.maybe_rewrite(disk)
            log.commit(log.take())

    put(100, "x" * 1000)
    size = (tmp_path / "log").stat().st_size
    assert size - len(MAGIC) == log.written_bytes > 100_000, "nothing was written twice"
    for _ in range(5):
        put(100, "y" * 1000)
    assert (tmp_path / "log").stat().st_size < 5 * size < log.written_bytes
    log.close()
    assert dict(Disk.replay(read(tmp_path)).items()) == dict(disk.items())


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are rewritten from 50 KB on, some 3 KB with each commit."""
    monkeypatch.setattr(durable_log, "_MIN_REWRITE_BYTES", 50_000)
    monkeypatch.setattr(durable_log, "_PIECE_BYTES", 3000)
    monkeypatch.setattr(durable_log, "_FIRST_WRITES", 2)


@pytest.mark.usefixtures("small_pieces")
def test_a_file_is_rewritten_in_pieces_beside_the_commits(
    tmp_path: Path,
) -> None:
    log = DurableLog(tmp_path, CODEC)
    disk = Disk.replay(log.open())
    for number in range(300):
        disk.put(f"k{number % 40}", "x" * 1000)
        log.append(disk.take())
        log.commit(log.take())
    log.maybe_rewrite(disk)
    written: list[int] = []
    while log.pending:
        if len(written) < 5:
            disk.put("meanwhile", len(written))
            log.append(disk.take())
            log.maybe_rewrite(disk)
        before = log.written_bytes
        log.commit(log.take())
        written.append(log.written_bytes - before)
    assert len(written) > 5, "it went on when there was nothing else to commit"
    assert max(written[1:]) < 3 * 3000, "a commit waits for one piece"
    assert (tmp_path / "log").stat().st_size < 45_000
    disk.put("after", True)
    log.append(disk.take())
    log.commit(log.take())
    log.close()
    assert dict(Disk.replay(read(tmp_path)).items()) == dict(disk.items())


@pytest.mark.usefixtures("small_pieces")
def test_a_file_stays_bounded_however_much_is_committed_while_it_is_rewritten(
    tmp_path: Path,
) -> None:
    """Commits as large as the pieces: what comes meanwhile must not count as content."""
    log = DurableLog(tmp_path, CODEC)
    disk = Disk.replay(log.open())
    content, most = 40 * 1020, 0
    for commit in range(1000):
        if commit % 400 == 399:  # A restart does not know what counts, so it must look.
            log.close()
            disk = Disk.replay(log.open())
        for number in range(5):
            disk.put(f"k{(5 * commit + number) % 40}", "x" * 1000)
        log.append(disk.take())
        log.maybe_rewrite(disk)
        log.commit(log.take())
        most = max(most, sum(file.stat().st_size for file in tmp_path.iterdir()))
    log.close()
    # Four times, half as much meanwhile, and the new file with that; and what a commit is.
    assert most < (4 + 0.5 + 1.5) * content + 2 * 5 * 1020
    assert dict(Disk.replay(read(tmp_path)).items()) == dict(disk.items())


def test_a_log_that_is_closed_in_the_middle_of_a_rewriting_keeps_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_log, "_MIN_REWRITE_BYTES", 1)
    monkeypatch.setattr(durable_log, "_WORTH_WHILE", 2)
    monkeypatch.setattr(durable_log, "_PIECE_BYTES", 1)
    log = DurableLog(tmp_path, CODEC)
    disk = Disk.replay(log.open())
    for number in range(100):
        disk.put(f"k{number}", number)
    log.append(disk.take())
    log.commit(log.take())
    log.maybe_rewrite(disk)
    log.commit(log.take())
    assert log._successor is not None
    descriptors = log._fd, log._successor.fd
    log.close()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_rewrite_that_was_cut_off_leaves_the_old_log(tmp_path: Path) -> None:
    write(tmp_path, BATCHES)
    (tmp_path / "log.new").write_bytes(MAGIC + b"half of a checkpoi")
    assert read(tmp_path) == ALL
    assert not (tmp_path / "log.new").exists()


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5)
entries = st.builds(Entry, st.integers(0, 9), st.text(max_size=5))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), scalars | entries),
        st.tuples(st.just("append"), entries | scalars),
        st.tuples(st.just("truncate"), st.integers(0, 10)),
        st.tuples(st.just("compact"), st.integers(0, 12), scalars | st.lists(scalars)),
    ),
    max_size=30,
)


@given(steps)
@settings(max_examples=200)
def test_replay_and_checkpoint_lead_to_the_same_disk(program: list[tuple[object, ...]]) -> None:
    disk = Disk()
    writes: list[Write] = []
    for name, *arguments in program:
        if name == "truncate":
            index = disk.first_index + arguments[0]  # type: ignore[operator]
            if index <= disk.last_index:
                disk.truncate(index)
        elif name == "compact":
            disk.compact(disk.snapshot_index + arguments[0], arguments[1])  # type: ignore[operator]
        else:
            getattr(disk, str(name))(*arguments)
        writes += disk.take()
    assert disk.position == len(writes)
    for copy in (
        Disk.replay(CODEC.decode(CODEC.encode(writes))),
        Disk.replay(CODEC.decode(CODEC.encode(disk.checkpoint()))),
    ):
        assert dict(copy.items()) == dict(disk.items())
        assert (copy.snapshot_index, copy.snapshot) == (disk.snapshot_index, disk.snapshot)
        assert copy.last_index == disk.last_index
        span = (disk.first_index, disk.last_index + 1)
        assert copy.entries(*span) == disk.entries(*span)


def test_before_the_sync_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DurableLog(tmp_path, CODEC)
    log.open()
    log.append([Put("k", 1)])
    seen: list[int | str] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: seen.append("synced"))
    log.commit(log.take(), lambda: seen.append((tmp_path / "log").stat().st_size - len(MAGIC)))
    assert seen[1:] == ["synced"]
    assert isinstance(seen[0], int)
    assert seen[0] > 0
    log.close()
