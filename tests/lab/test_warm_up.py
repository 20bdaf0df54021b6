"""A system is warm when it serves what a load will want, however long that takes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

import pytest

from bench.load.system_client import SystemTransport
from bench.record.cluster_file import SystemFile
from chaos.clusters.lab import warm_up
from chaos.clusters.lab.warm_up import IN_FLIGHT, WarmUp
from chaos.errors import TargetFailed
from chaos.systems.system import Answer, SystemClient
from nodes.contract.replica import Operation

CLUSTER = SystemFile(
    cluster="c",
    protocol="etcd",
    nodes=["n1", "n2"],
    operations=["read", "write"],
    system="etcd",
    hosts={},
    endpoints={},
)


class Cold(SystemClient):
    """All of them together are slow, until they have done ``cold`` operations."""

    def __init__(self, cold: int) -> None:
        self.cold = cold
        self.asked: list[Operation] = []
        self._one = threading.Lock()

    def invoke(self, operation: Operation) -> Answer:
        with self._one:
            self.asked.append(operation)
            if len(self.asked) < self.cold:
                time.sleep(0.02)
        return Answer()


@pytest.fixture
def served_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cold], Cold]:
    def serve(client: Cold) -> Cold:
        monkeypatch.setattr(SystemTransport, "new_client", lambda *_: client)
        return client

    return serve


def test_it_ends_when_the_rate_is_served(served_by: Callable[[Cold], Cold]) -> None:
    client = served_by(Cold(70))
    said = WarmUp(CLUSTER, timeout_s=2.0).until(100)
    found = re.fullmatch(
        r"warm-up: (\d+) operations in (\d+) s before the load, which are in no history, until 100 "
        r"in a second ended ok",
        said,
    )
    assert found, said
    assert int(found[1]) > 100
    assert int(found[2]) > 1
    assert {each.op for each in client.asked} == {"read", "write"}
    assert all(each.key.startswith("warm-up-") for each in client.asked)


def test_what_never_serves_it_is_told_and_not_waited_for(
    served_by: Callable[[Cold], Cold], monkeypatch: pytest.MonkeyPatch
) -> None:
    served_by(Cold(1_000_000))
    monkeypatch.setattr(warm_up, "SAME", 1)
    monkeypatch.setattr(warm_up, "MOST_S", float("inf"))
    left = iter(range(15))
    said = WarmUp(CLUSTER, timeout_s=2.0, check=lambda: print(next(left))).until(1000)
    assert re.search(r"at most \d\d in a second; the load wants 1000: .* too slow for it$", said)


def test_a_node_that_ends_meanwhile_ends_it(served_by: Callable[[Cold], Cold]) -> None:
    client = served_by(Cold(1_000_000))

    def check() -> None:
        raise TargetFailed("n1 ended")

    with pytest.raises(TargetFailed, match="n1 ended"):
        WarmUp(CLUSTER, timeout_s=2.0, check=check).until(1000)
    assert len(client.asked) >= IN_FLIGHT // 2
