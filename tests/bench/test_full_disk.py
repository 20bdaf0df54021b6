"""Whoever cannot write says which file it was: a system's own error of a write does not."""

from __future__ import annotations

import errno
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bench.record.cluster_file import Address, ClusterFile, write_cluster_file
from bench.record.files import naming, write_whole
from bench.record.history import HistoryWriter, OperationRecord
from bench.record.run_folder import FaultRecord, NodeRecord, RunFolder
from chaos.clusters.broker import broker_command

AT = Address("127.0.0.1", 1)
RECORD = OperationRecord(
    process="c1", id=1, op="write", key="k", outcome="ok", invoked_ns=1, error="x" * 1000
)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def assert_named(path: Path, write: Callable[[], object]) -> None:
    with full_disk(), pytest.raises(OSError) as failed:
        write()
    assert failed.value.filename == str(path)


def test_each_writer_names_its_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for directory in (folder.history_dir, folder.nodes_dir):
        directory.mkdir()
    cluster = ClusterFile(
        cluster="demo",
        protocol="raft",
        nodes=["n1"],
        operations=["read"],
        broker=AT,
        group="load",
        request_links={"n1": AT},
    )
    node = NodeRecord(t_ns=1, node="n1", kind="event", name="started")
    fault = FaultRecord(number=0, fault="crash", planned_ns=1)
    for path, write in {
        folder.faults_path: lambda: folder.append_fault(fault),
        folder.nodes_dir / "n1.jsonl": lambda: folder.append_node(node),
        folder.verdict_path: lambda: write_whole(folder.verdict_path, b"{}"),
        tmp_path / "cluster.json": lambda: write_cluster_file(tmp_path / "cluster.json", cluster),
        tmp_path / "mosquitto.conf": lambda: broker_command(tmp_path, 1),
    }.items():
        assert_named(path, write)


def fill(history: HistoryWriter) -> None:
    """Until its buffer has to be written."""
    for _ in range(2000):
        history.append(RECORD)


@pytest.mark.parametrize("write", [fill, HistoryWriter.flush, HistoryWriter.close])
def test_a_history_names_its_file_whenever_it_is_written(
    tmp_path: Path, write: Callable[[HistoryWriter], None]
) -> None:
    path = tmp_path / "load.jsonl"
    with closing(HistoryWriter(path, flush_every_s=1000)) as history:
        history.append(RECORD)
        assert_named(path, lambda: write(history))


def test_a_name_that_is_there_is_kept() -> None:
    with pytest.raises(OSError) as failed, naming(Path("other")):
        raise OSError(errno.EACCES, "no", "first")
    assert failed.value.filename == "first"
