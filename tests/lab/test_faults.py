"""Faults of a lab that no process is asked for: lost packets, full disks, a wrong bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.record.run_folder import RunFolder
from chaos.clusters.lab.disks import Disks
from chaos.errors import TargetFailed
from chaos.systems.system import Programs
from nodes.errors import Unsupported
from reports.data.metrics import load
from tests.live.conftest import run_json

FAULTS = """\
title: Packets, a disk and a bit
shows: What becomes of them.
protocols: [raft]
nodes: 3
seed: 7
workload:
  arrival: {open_loop: 40/s, in_flight: 1024}
  keys: {count: 20, distribution: zipfian}
  mix: {read: 50, write: 50}
  timeout: 1s
duration: 11s
schedule:
  - {at: 1s, for: 2s, fault: message-loss, share: 0.3}
  - {at: 4s, for: 1s, fault: full-disk, nodes: [n2]}
  - {at: 6s, for: 2s, fault: bit-flip, nodes: [n3]}
"""


@pytest.mark.live
def test_packets_disks_and_bits(place: Path, to_be_had: Callable[[str], Programs]) -> None:
    to_be_had("etcd")
    (place / "faults.yaml").write_text(FAULTS)
    code, told = run_json("run", "faults.yaml", "-p", "etcd", "-o", "faults", cwd=place)
    (run,) = told["runs"]
    assert code == 0, run
    assert (run["verdict"], run["converged"]) == ("valid", True)
    folder = RunFolder(place / run["folder"])
    tables = load(folder.path)
    (loss, *_) = tables.proofs
    assert (loss.fault, loss.took_place) == ("message-loss", True), loss
    assert loss.seen.startswith("packets lost: ")
    (flipped,) = [note for note in folder.manifest().notes if note.startswith("bit-flip: ")]
    assert " of n3/" in flipped
    events = [(r.node, r.name) for r in folder.node_records() if r.kind == "event"]
    assert [name for node, name in events if node == "n3" and name == "restarted"] == 2 * [
        "restarted"
    ]
    assert all(fault.error is None for fault in folder.faults())
    assert [path.name for path in (folder.path / "cluster").iterdir() if path.is_dir()] == []


def test_a_bit_is_flipped_and_flipped_back(tmp_path: Path) -> None:
    disks = Disks(tmp_path, small=False)
    (tmp_path / "n1").mkdir()
    with pytest.raises(TargetFailed, match="n1 has no file of 1000 bytes to damage"):
        disks.flip("n1", 0.5)
    data = tmp_path / "n1" / "log"
    data.write_bytes(b"x" * 1000 + bytes(4000))  # Room in advance is not what is damaged.
    assert disks.flip("n1", 0.999) == "bit-flip: a bit of byte 999 of n1/log"
    assert data.read_bytes() == b"x" * 999 + b"h" + bytes(4000)
    assert disks.bad == {"n1"}
    disks.unflip("n1")
    assert data.read_bytes() == b"x" * 1000 + bytes(4000)
    disks.flip("n1", 0.0)
    data.write_bytes(b"new" + data.read_bytes()[3:])
    disks.unflip("n1")
    assert data.read_bytes().startswith(b"newxx")


FILL = """
import errno, pathlib, sys
from chaos.clusters.lab.disks import Disks
disks = Disks(pathlib.Path(sys.argv[1]), small=True)
disks.make("n1")
kept = pathlib.Path(sys.argv[1], "n1", "kept")
kept.write_bytes(b"k")
disks.fill("n1")
assert disks.bad == {"n1"}
try:
    (kept.parent / "more").write_bytes(b"x" * 10_000)
except OSError as error:
    assert error.errno == errno.ENOSPC
else:
    sys.exit("there was room")
disks.empty("n1")
(kept.parent / "more").write_bytes(b"x" * 10_000)
disks.remove()
assert not kept.exists()
"""


def test_a_small_disk_is_full_until_it_is_emptied(
    tmp_path: Path, to_be_had: Callable[[str], Programs]
) -> None:
    to_be_had("etcd")  # Or there is no lab.
    (tmp_path / "n1").mkdir()
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    done = subprocess.run(
        [*inside, sys.executable, "-c", FILL, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_only_small_disks_are_filled(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="only in runs"):
        Disks(tmp_path, small=False).fill("n1")
