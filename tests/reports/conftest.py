"""Run folders for the tests of the reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.data.metrics import load
from reports.data.summary import RunSummary
from tests.reports import synthetic


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Reports take in what `make bench` left where they are written; here, nothing did."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``raft-healthy``, ``gossip-leader-partition`` and so on; read them only."""
    root = tmp_path_factory.mktemp("runs")
    made = {
        "healthy": synthetic.healthy,
        "leader-partition": synthetic.leader_partition,
        "latency-50ms": synthetic.latency,
    }
    return {
        f"{protocol}-{name}": make(root / f"{protocol}-{name}", protocol).path
        for protocol in ("raft", "gossip")
        for name, make in made.items()
    }


@pytest.fixture(scope="session")
def summaries(runs: dict[str, Path]) -> list[RunSummary]:
    """Their figures."""
    return [load(path).summary for path in runs.values()]
