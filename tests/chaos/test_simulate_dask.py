"""A sweep on a local Dask cluster gives what it gives here, seed by seed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos.seeds.simulate import dask_workers, find_protocol, run_seed, sweep
from tests.chaos.test_simulate import BUG, ROOT, capbench
from tests.waiting import patience


@contextmanager
def process(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            yield running
        finally:
            running.terminate()


def test_the_same_seed_by_seed(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra capbench[dask] is not installed")
    file = tmp_path / "scheduler.json"
    listen = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    join = ("--scheduler-file", str(file), "--nworkers", "2", "--nthreads", "1", "--no-dashboard")
    with (
        process("distributed.cli.dask_scheduler", *listen, cwd=tmp_path) as scheduler,
        process("distributed.cli.dask_worker", *join, cwd=tmp_path),
    ):
        import msgspec
        from distributed import Client

        # It is there before it is written to its end.
        while not (file.exists() and file.read_bytes().rstrip().endswith(b"}")):
            assert scheduler.poll() is None
            time.sleep(0.05)
        address = msgspec.json.decode(file.read_bytes())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=patience(60))
        with dask_workers(address) as workers:
            assert workers.count == 2
            found = sweep(BUG, range(1, 9), workers)
    here = [run_seed(find_protocol(BUG), seed) for seed in range(1, 9)]
    assert [(o.seed, o.alarms, o.trace_hash) for o in found.outcomes] == [
        (o.seed, o.alarms, o.trace_hash) for o in here
    ]


def test_without_the_library_a_user_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    blocked = tmp_path / "distributed"
    blocked.mkdir()
    (blocked / "__init__.py").write_text("raise ImportError('not here')\n")
    code, out, err = capbench(
        *("simulate", "-p", "raft", "--seeds", "1", "--dask", "tcp://127.0.0.1:1"), cwd=tmp_path
    )
    assert (code, out) == (2, "")
    assert err == (
        "capbench: --dask needs the library `distributed`: pip install 'capbench[dask]'\n"
    )
