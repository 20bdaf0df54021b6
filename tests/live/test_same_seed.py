"""The same seed asks for the same and breaks the same, on every target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.record.run_folder import RunFolder
from tests.live.conftest import leftovers, run_json

pytestmark = pytest.mark.live

EXPERIMENT = """\
title: Chosen by seed
shows: that a seed chooses the same everywhere
protocols: [gossip]
nodes: 5
workload:
  arrival: {open_loop: 100/s}
  keys: {count: 20, distribution: zipfian}
  mix: {read: 50, write: 50}
duration: 4s
schedule:
  - {at: 500ms, for: 500ms, fault: partition, groups: random}
  - {at: 1s, for: 1s, fault: jitter, latency_ms: 10, jitter_ms: 5, every_ms: 200}
  - {at: 1500ms, for: 500ms, fault: partition, groups: isolate}
  - {at: 2s, for: 500ms, fault: crash, nodes: random}
  - {at: 2500ms, for: 500ms, fault: message-loss, share: 0.2}
  - {at: 2500ms, for: 1s, fault: clock, nodes: majority, offset_ms: 50}
"""


def play(directory: Path, *arguments: str) -> RunFolder:
    code, result = run_json("run", *arguments, cwd=directory)
    assert code in (0, 1, 5), "it went to its end; what the load made of it is not asked here"
    (summary,) = result["runs"]
    return RunFolder(directory / summary["folder"])


def asked(folder: RunFolder) -> bytes:
    """Every operation that was wanted: its id, kind, key, node, value and time in the load."""
    start_ns = folder.manifest().load_started_ns
    assert start_ns is not None
    wanted = []
    for record in folder.operations():
        if record.intended_ns is not None:
            value = None if record.op == "read" else record.value
            at_ns = record.intended_ns - start_ns
            wanted.append((record.id, record.op, record.key, record.node, value, at_ns))
    return msgspec.json.encode(sorted(wanted))


def broken(folder: RunFolder) -> bytes:
    """Every fault: what, where, and its planned times in the load."""
    start_ns = folder.manifest().load_started_ns
    assert start_ns is not None
    played: list[Any] = []
    for fault in folder.faults():
        assert fault.planned_heal_ns is not None
        times = [fault.planned_ns - start_ns, fault.planned_heal_ns - start_ns]
        where = (fault.groups, fault.nodes, fault.links)
        played.append((fault.number, fault.fault, fault.parameters, where, times))
    return msgspec.json.encode(sorted(played, key=lambda each: each[0]), order="sorted")


def test_the_same_seed_asks_and_breaks_the_same_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "seeded.yaml").write_text(EXPERIMENT)
    simulated = play(tmp_path, "seeded.yaml", "--target", "sim", "--seed", "11")
    local = play(tmp_path, "seeded.yaml", "--target", "local", "--seed", "11")
    again = play(tmp_path, "--again", str(local.path))
    other = play(tmp_path, "seeded.yaml", "--target", "sim", "--seed", "12")
    assert (simulated.manifest().target, local.manifest().target) == ("sim", "local")
    for folder in (local, again):
        assert (folder.path / "workload.json").read_bytes() == (
            simulated.path / "workload.json"
        ).read_bytes()
        assert asked(folder) == asked(simulated)
        assert broken(folder) == broken(simulated)
    assert asked(other) != asked(simulated)
    assert broken(other) != broken(simulated)
    assert len(msgspec.json.decode(broken(local))) == 6
    assert leftovers(tmp_path) == []
