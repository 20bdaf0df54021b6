"""An hour-long run's worth of writes through one replica and its real log: what stays behind is
bounded by what is held, not by what was written.

A million entries are an hour at some 280 a second. They take a minute or more, so by default
fewer are written: enough for many snapshots and several rewritings of the log. Set
CAPBENCH_LONG_RUN_ENTRIES=1000000 for the hour.
"""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path
from typing import Any

import psutil

from nodes import registry
from nodes.contract.disk import Disk
from nodes.contract.replica import Durable, Operation, Request, Timer
from nodes.protocols.raft import Raft
from nodes.runtime.durable_log import DurableLog
from nodes.wire.codec import WriteCodec

ENTRIES = int(os.environ.get("CAPBENCH_LONG_RUN_ENTRIES", "200000"))
BATCH, CLIENTS, KEYS, VALUE_CHARACTERS = 1_000, 20, 2_000, 400
SNAPSHOT_ENTRIES, SNAPSHOT_TAIL = 5_000, 1_000
ENTRY_BYTES = VALUE_CHARACTERS + 100
CONTENT_BYTES = (KEYS + SNAPSHOT_ENTRIES + SNAPSHOT_TAIL + BATCH) * ENTRY_BYTES
REWRITE_BYTES = max(16 << 20, 4 * CONTENT_BYTES)


class Env:
    def __init__(self) -> None:
        self.rng = random.Random(1)
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return 0.0


class LiveReplica:
    """A cluster of one node, with the log that the live driver uses, and its group commits."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = DurableLog(directory, WriteCodec(Raft.RECORDS))
        self.disk = Disk.replay(self.log.open())
        config = registry.get("raft").configure(
            "n1",
            ("n1",),
            {"snapshot_entries": SNAPSHOT_ENTRIES, "snapshot_tail": SNAPSHOT_TAIL},
        )
        env = Env()
        self.raft = Raft(config, env, self.disk)
        self.replies = 0
        env.now_s = 10.0
        self.step(Timer("election"))
        assert self.raft.role == "leader"

    def step(self, *inputs: Any) -> None:
        """One step, one commit, and the news of it."""
        self.raft.step(inputs)
        if not (writes := self.disk.take()):
            self._clear()
            return
        self.log.append(writes)
        self.log.maybe_rewrite(self.disk)
        self.log.commit(self.log.take())
        self._clear()
        self.step(Durable(self.disk.position))

    def _clear(self) -> None:
        out = self.raft.out
        assert {reply.outcome for _, reply in out.replies} <= {"ok"}
        self.replies += len(out.replies)
        for effects in (out.timers, out.sends, out.replies, out.marks):
            effects.clear()

    def disk_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.directory.iterdir())


def resident_bytes() -> int:
    gc.collect()
    resident: int = psutil.Process().memory_info().rss
    return resident


def test_disk_and_memory_stay_bounded_whatever_is_written(tmp_path: Path) -> None:
    replica = LiveReplica(tmp_path)
    raft, disk = replica.raft, replica.disk
    filler = "x" * (VALUE_CHARACTERS - 12)
    most_disk = most_log = 0
    resident: list[int] = []
    for first in range(0, ENTRIES, BATCH):
        batch = []
        for i in range(first, first + BATCH):
            # Each client has everything but its last requests.
            sequence = i // CLIENTS
            operation = Operation("write", f"k{i % KEYS}", f"{i:012}{filler}")
            acked = max(0, sequence - BATCH // CLIENTS)
            batch.append(Request(f"c{i % CLIENTS}", sequence, operation, acked))
        replica.step(*batch)
        most_disk = max(most_disk, replica.disk_bytes())
        most_log = max(most_log, disk.last_index - disk.snapshot_index)
        if first % (ENTRIES // 10) < BATCH:
            resident.append(resident_bytes())
    assert replica.replies == ENTRIES
    assert raft.applied == disk.last_index == ENTRIES + 1

    written = replica.log.written_bytes
    print(
        f"\n{ENTRIES} entries: wrote {written >> 20} MiB in {replica.log.commits} commits; disk at "
        f"most {most_disk / (1 << 20):.1f} MiB, log at most {most_log} entries; resident MiB, each "
        f"tenth of the run: {[size >> 20 for size in resident]}"
    )
    assert most_disk <= 1.25 * REWRITE_BYTES
    assert written > 5 * most_disk
    # Memory: exactly, by what the replica keeps; and roughly, by what the process has.
    assert most_log <= SNAPSHOT_ENTRIES + SNAPSHOT_TAIL + BATCH
    assert len(raft.state()) == KEYS
    kept = [session.replies for session in raft._map._sessions.values()]
    assert sum(map(len, kept)) <= 3 * BATCH
    requests = raft._requests
    for left in (
        requests.waiting,
        raft._proposed,
        requests.arrived,
        requests.answers,
        raft._unsynced,
    ):
        assert len(left) == 0
    assert max(resident[3:]) - resident[2] < 2 * CONTENT_BYTES

    replica.log.close()
    again = LiveReplica(tmp_path)
    assert again.raft.applied >= again.disk.snapshot_index > ENTRIES - 2 * SNAPSHOT_ENTRIES
    assert again.raft.state() == raft.state()
    again.log.close()
