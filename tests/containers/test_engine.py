"""What is asked of the engine, where a real one does not fail when it is told to."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.clusters.containers.engine import FREEZES, Engine, EngineFailed

docker = pytest.importorskip("docker", reason="the package docker is not installed")


class Freezing:
    """A container whose first ``refusals`` pauses fail, as runc's do on a busy machine."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.asked = refusals, 0

    def pause(self) -> None:
        self.asked += 1
        if self.asked <= self.refusals:
            raise docker.errors.APIError("unable to freeze")

    @property
    def attrs(self) -> dict[str, Any]:
        paused = self.asked > self.refusals
        return {"State": {"Status": "paused" if paused else "running", "Paused": paused}}


def engine_of(container: Freezing, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine.__new__(Engine)
    monkeypatch.setattr(engine, "_errors", (docker.errors.DockerException, OSError), raising=False)
    monkeypatch.setattr(engine, "_get", lambda name: container)
    return engine


def test_a_container_that_does_not_freeze_at_once_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    container = Freezing(FREEZES - 1)
    assert engine_of(container, monkeypatch).pause("broker")
    assert container.asked == FREEZES


def test_one_that_never_freezes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    container = Freezing(FREEZES)
    with pytest.raises(EngineFailed, match="pausing broker: unable to freeze"):
        engine_of(container, monkeypatch).pause("broker")
