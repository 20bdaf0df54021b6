"""A folder that stands for PATH, and a small project that set-up can install without a network."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from setup.bootstrap import Machine

# A build backend that needs no package: an editable install is one .pth file and one script.
_BACKEND = """
import pathlib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "capbench-1.0-py3-none-any.whl"
    files = {
        "capbench.pth": str(pathlib.Path.cwd()),
        "capbench-1.0.dist-info/METADATA":
            "Metadata-Version: 2.1\\nName: capbench\\nVersion: 1.0\\n",
        "capbench-1.0.dist-info/WHEEL":
            "Wheel-Version: 1.0\\nGenerator: here\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "capbench-1.0.dist-info/entry_points.txt": "[console_scripts]\\ncapbench = small:main\\n",
    }
    record = "capbench-1.0.dist-info/RECORD"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(record, "".join(f"{path},,\\n" for path in (*files, record)))
    return name
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """An empty folder of programs."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


@pytest.fixture
def program(programs: Path) -> Callable[[str, str], Path]:
    """Puts a program of that name and shell text into the folder."""

    def put(name: str, text: str) -> Path:
        path = programs / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return put


@pytest.fixture
def machine(programs: Path) -> Machine:
    """A user's machine that has nothing but what the test puts into `programs`."""
    return Machine(path=str(programs), is_root=False, wants_browser=False, kind="linux-amd64")


@pytest.fixture
def uv(programs: Path) -> Path:
    """The real uv, in `programs`."""
    found = shutil.which("uv", path=os.pathsep.join((f"{sys.prefix}/bin", os.environ["PATH"])))
    assert found, "uv is one of the pinned requirements"
    (programs / "uv").symlink_to(found)
    return programs / "uv"


class SmallProject:
    """A project named capbench that pins one package, `ballast`, served from a folder."""

    def __init__(self, root: Path, wheels: Path) -> None:
        self.root = root
        self.wheels = wheels
        (root / "requirements").mkdir(parents=True)
        wheels.mkdir()
        (root / "backend.py").write_text(_BACKEND)
        (root / "small.py").write_text("def main():\n    print('small runs')\n")
        (root / "pyproject.toml").write_text(
            "[build-system]\nrequires = []\n"
            'build-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "capbench"\nversion = "1.0"\n'
            '[project.scripts]\ncapbench = "small:main"\n'
        )
        (root / "requirements" / "uv.txt").write_text(
            f"uv==0.0.1 --hash=sha256:{'0' * 64}\n"  # not to be had
        )
        self.pin("1.0")

    @property
    def python(self) -> Path:
        return self.root / ".venv" / "bin" / "python"

    def wheel(self, version: str) -> Path:
        return self.wheels / f"ballast-{version}-py3-none-any.whl"

    def pin(self, version: str) -> None:
        """Serve that version of ballast and pin it, with its hash."""
        info = f"ballast-{version}.dist-info"
        files = {
            "ballast.py": f"VERSION = {version!r}\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: ballast\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: here\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        }
        with zipfile.ZipFile(self.wheel(version), "w") as wheel:
            record = ""
            for path, text in files.items():
                wheel.writestr(path, text)
                digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
                record += f"{path},sha256={digest.decode().rstrip('=')},{len(text)}\n"
            wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
        digest_hex = hashlib.sha256(self.wheel(version).read_bytes()).hexdigest()
        (self.root / "requirements" / "dev.txt").write_text(
            f"ballast=={version} \\\n    --hash=sha256:{digest_hex}\n"
        )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallProject:
    wheels = tmp_path / "wheels"
    for installer in ("UV", "PIP"):
        monkeypatch.setenv(f"{installer}_NO_INDEX", "1")
        monkeypatch.setenv(f"{installer}_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return SmallProject(tmp_path / "project", wheels)
