"""What the capacity of the load generator is measured on, and what is said of it. No figure is
judged here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import pytest

from bench.measure import capacity
from bench.measure.figures import with_ratios
from bench.measure.live import LoadFailed
from bench.record.cluster_file import ClusterFile

pytestmark = pytest.mark.live

Echo = Callable[..., None]


def test_rows_compare_and_set_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "SCALE", 0.1)
    monkeypatch.setattr(capacity, "ROUNDS", 1)
    monkeypatch.setattr("bench.measure.measuring.SCALE", 0.1)
    monkeypatch.setattr(capacity, "USERS", 16)
    before = set(psutil.Process().children(recursive=True))
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in with_ratios(capacity.rows())}
    name = "load: one Locust process"
    assert rows[name]["goal"] == 8000
    share = rows[f"{name}, of what it drives not recorded"]
    base = rows[f"{name}, not recorded"]["value"]
    assert share["value"] == rows[name]["value"] > 0
    assert share["ratio"] == pytest.approx(rows[name]["value"] / base)
    assert share["goal"] == pytest.approx(0.9 * base)
    after = set(psutil.Process().children(recursive=True)) - before
    assert not [each for each in after if each.is_running()]


def test_operations_that_fail_give_no_figure(
    cluster: ClusterFile, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "SCALE", 0.1)
    echo(cluster, "--fail", "10")
    with pytest.raises(LoadFailed, match=r"of \d+ operations failed"):
        capacity.drive(cluster, users=2)


def test_the_history_is_there_only_if_it_is_asked_for(
    cluster: ClusterFile, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "SCALE", 0.1)
    echo(cluster)
    for record in (True, False):
        driven = capacity.drive(cluster, users=2, record=record)
        assert driven.recorded == (driven.operations if record else 0)
