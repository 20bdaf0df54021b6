"""A container that was taken over answers with any archive."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import Any

import pytest

from chaos.clusters.containers import engine as engine_module
from chaos.clusters.containers.engine import Engine, EngineFailed

docker = pytest.importorskip("docker")


class Container:
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks

    def get_archive(self, path: str) -> tuple[Iterable[bytes], dict[str, Any]]:
        return self._chunks, {}


def read(chunks: Iterable[bytes], monkeypatch: pytest.MonkeyPatch) -> bytes | None:
    engine = Engine.__new__(Engine)
    engine._errors = (docker.errors.DockerException, OSError)
    monkeypatch.setattr(engine, "_get", lambda name: Container(chunks))
    return engine.read("n1", "/data/log")


def packed(kind: bytes = tarfile.REGTYPE, content: bytes = b"content") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("log")
        entry.type, entry.linkname = kind, "/etc/shadow"
        entry.size = len(content) if kind == tarfile.REGTYPE else 0
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def test_a_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packed()
    assert read([whole[:600], whole[600:]], monkeypatch) == b"content"


@pytest.mark.parametrize(
    "kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_what_is_no_file_is_not_read(kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read([packed(kind)], monkeypatch) is None


@pytest.mark.parametrize("chunks", [[], [b"no archive"], [packed()[:300]]])
def test_what_is_no_archive_is_one_error(
    chunks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineFailed, match="/data/log of n1: "):
        read(chunks, monkeypatch)


def test_an_endless_file_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MOST_BYTES", 10_000)
    with pytest.raises(EngineFailed, match="over 10000 bytes"):
        read(iter(lambda: b"x" * 1000, b""), monkeypatch)
