"""Real systems in a real lab. Where there can be none, these tests say why and are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.clusters.lab import sandbox
from chaos.systems import catalogue
from chaos.systems.system import NotToBeHad, Programs
from tests.live.conftest import leftovers
from tests.waiting import wait_for

SHORT = """\
title: A short partition
shows: A leader that is cut off.
protocols: [raft]
nodes: 3
seed: 7
workload:
  arrival: {open_loop: 80/s, in_flight: 1024}
  keys: {count: 20, distribution: zipfian}
  mix: {read: 50, write: 50}
  timeout: 1s
duration: 14s
schedule:
  - {at: 1500ms, for: 11s, fault: partition, groups: leader-alone}
"""
"""Cut for eleven times etcd's election timeout: where one of two followers lacks the last entry,
each of its candidacies fails and puts the other's off, and three in a row have been seen."""


@pytest.fixture(scope="session")
def to_be_had() -> Callable[[str], Programs]:
    """The programs of a system; skips the test where they cannot be had, or there can be no lab."""

    def had(name: str) -> Programs:
        try:
            sandbox.refuse()
            sandbox.nft()
            return catalogue.get(name).programs()
        except (sandbox.NoLab, NotToBeHad) as error:
            pytest.skip(str(error))

    return had


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory to work in, in which nothing is left running."""
    path = tmp_path_factory.mktemp("lab")
    (path / "short.yaml").write_text(SHORT)
    yield path
    wait_for(lambda: not leftovers(path), f"the end of {leftovers(path)}")
