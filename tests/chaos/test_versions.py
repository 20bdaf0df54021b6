"""Versions of systems: named with a system, got by name and hash, and refused if they are none."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from chaos.systems import catalogue
from chaos.systems.getting import Module, built, python_package
from chaos.systems.system import NotToBeHad
from chaos.targets.subjects import find
from nodes.registry import InvalidConfiguration

GO = """\
#!/bin/sh
echo "$@" >> "$CALLS"
[ "$1" != get ] || cp go.sum "$CALLS.sum"
[ "$1" != build ] || printf '#!/bin/sh\\necho 1.2.3\\n' > "$3"
[ "$1" != build ] || chmod +x "$3"
"""
MODULE = Module("example.org/kv", "1.2.3", "h1:whole=", "h1:mod=")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was asked of a Go that builds at once."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    monkeypatch.setattr("chaos.systems.getting._PATH", f"{go.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def test_a_module_is_built_once_by_its_version_and_hash(calls: Path, tmp_path: Path) -> None:
    program = built("kv", MODULE, cache=tmp_path / "cache")
    assert program == tmp_path / "cache" / "kv-1.2.3" / "kv"
    assert os.access(program, os.X_OK)
    assert calls.with_suffix(".sum").read_text().splitlines() == [
        "example.org/kv v1.2.3 h1:whole=",
        "example.org/kv v1.2.3/go.mod h1:mod=",
    ]
    asked = calls.read_text().splitlines()
    assert asked[0] == "get example.org/kv@v1.2.3"
    assert [line.split()[0] for line in asked] == ["get", "build"]
    assert built("kv", MODULE, cache=tmp_path / "cache") == program
    assert calls.read_text().splitlines() == asked


def test_a_build_that_fails_leaves_nothing(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "go").write_text("#!/bin/sh\necho 'checksum mismatch' >&2\nexit 1\n")
    with pytest.raises(NotToBeHad, match=r"go get of kv 1\.2\.3 failed: checksum mismatch"):
        built("kv", MODULE, cache=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["getting.lock"]


def test_a_version_belongs_to_the_name() -> None:
    old, new = find("etcd@3.5.2"), catalogue.get("etcd@3.7.3")
    assert (old.name, new.name, find("etcd").name) == ("etcd@3.5.2", "etcd@3.7.3", "etcd")
    assert catalogue.findable_name(new) == "etcd@3.7.3"
    assert (new.version, new.claim) == ("3.7.3", "linearizable")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("etcd@9", r"etcd has no version '9'; to name: 3\.4\.23, 3\.5\.2, 3\.7\.3"),
        ("etcd@", "etcd has no version ''"),
        ("zookeeper@3", "zookeeper has no version '3'; to name: none"),
        ("etc@3.5.2", "unknown system 'etc'; did you mean etcd"),
    ],
)
def test_a_version_that_is_none_is_refused(name: str, said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=said):
        catalogue.get(name)


def wheel(folder: Path) -> str:
    """A package kv 1.2.3 of Python, where pip looks for packages; its hash."""
    told = "kv-1.2.3.dist-info"
    path = folder / "kv-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("kv.py", "VERSION = '1.2.3'\n")
        file.writestr(f"{told}/METADATA", "Metadata-Version: 2.1\nName: kv\nVersion: 1.2.3\n")
        file.writestr(f"{told}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{told}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_package_of_python_is_got_once_and_only_with_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, cache = wheel(tmp_path), tmp_path / "cache"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(NotToBeHad, match=r"pip install of kv 1\.2\.3 failed: .*[0-9a-f]{64}"):
        python_package("kv", "1.2.3", "0" * 64, cache=cache)
    assert [path.name for path in cache.iterdir()] == ["getting.lock"]
    folder = python_package("kv", "1.2.3", right, cache=cache)
    assert (folder / "kv.py").is_file()
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert python_package("kv", "1.2.3", right, cache=cache) == folder
