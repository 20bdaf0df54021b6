"""Getting programs without installing them: Debian packages, unpacked into the project's cache,
programs in Go, built there, and packages of Python.

Nothing is asked of the network where the programs are there already. apt checks what it downloads
by the signatures of the distribution, Go by the hashes that a module is named with, and by its
database of hashes for what that module needs, pip by the hash that a package is named with.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.paths import ROOT
from chaos.systems.system import NotToBeHad
from nodes.runtime import own_folder
from nodes.runtime.scratch import scratch

CACHE = ROOT / ".cache"
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/go/bin"))
_GET_S = 900.0


def on_path(program: str) -> Path | None:
    """The program, if it is on PATH, or where programs of administrators are."""
    found = shutil.which(program, path=_PATH)
    return Path(found) if found else None


def unpacked(packages: Sequence[str], *, cache: Path = CACHE) -> Path:
    """The folder into which these Debian packages were unpacked; got first if it is not there. It
    is named after the first of them. Raises NotToBeHad."""

    def get(into: Path) -> None:
        if on_path("apt-get") is None or on_path("dpkg") is None:
            raise NotToBeHad(
                f"{packages[0]} is not on PATH, and without apt-get and dpkg its package cannot be "
                "unpacked; install it and put it on PATH"
            )
        run("apt-get", ["apt-get", "-qq", "download", *packages], into.parent)
        for package in sorted(into.parent.glob("*.deb")):
            run("dpkg", ["dpkg", "-x", package, into], into.parent)

    return _got(cache / packages[0], get)


class Module(NamedTuple):
    """A module of Go in a version, and the hashes of both it and its go.mod (``h1:...``).
    ``program``: the folder of the program in it, if that is not its root."""

    path: str
    version: str
    hash: str
    hash_of_mod: str
    program: str = ""


def built(program: str, module: Module, *, cache: Path = CACHE) -> Path:
    """A program of a module of Go; built first if it is not in the cache. Raises NotToBeHad."""

    def get(into: Path) -> None:
        go = on_path("go")
        if go is None:
            raise NotToBeHad(
                f"{program} {module.version} is built by Go, which is not on PATH; put Go there, "
                f"or take {program} in the version that this machine has"
            )
        folder, at = into.parent, f"v{module.version}"
        # `go install` rejects a module that replaces others, as etcd's does.
        (folder / "go.mod").write_text("module got\n\ngo 1.23\n")
        (folder / "go.sum").write_text(
            f"{module.path} {at} {module.hash}\n{module.path} {at}/go.mod {module.hash_of_mod}\n"
        )
        local = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        package = f"{module.path}/{module.program}".removesuffix("/")
        words: tuple[list[str | Path], ...] = (
            ["get", f"{package}@{at}"],
            ["build", "-o", into / program, package],
        )
        for word in words:
            what = f"go {word[0]} of {program} {module.version}"
            run(what, [go, *word], folder, environment=local)

    return _got(cache / f"{program}-{module.version}", get) / program


def python_package(name: str, version: str, sha256: str, *, cache: Path = CACHE) -> Path:
    """The folder, for PYTHONPATH, in which pip has installed a package of this version, whose file
    has that hash, and nothing that it needs. Raises NotToBeHad."""

    def get(into: Path) -> None:
        wanted = into.parent / "requirements.txt"
        wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        pip += ["--no-deps", "--require-hashes", "--target", str(into), "-r", str(wanted)]
        run(f"pip install of {name} {version}", pip, into.parent)

    return _got(cache / f"{name}-{version}", get)


def _got(target: Path, get: Callable[[Path], None]) -> Path:
    """The folder, in the cache. If it is not there, ``get`` fills one, which has room for more
    beside it, and takes its place only when it is whole."""
    cache = target.parent
    if own_folder.is_ours(target):
        return target
    if os.path.lexists(target):
        raise NotToBeHad(str(own_folder.NotOurs(target)))
    cache.mkdir(exist_ok=True)
    with _alone(cache), scratch("getting", cache) as folder:
        if not own_folder.is_ours(target):
            own_folder.make(folder / "got")
            get(folder / "got")
            os.replace(folder / "got", target)
    return target


def libraries(folder: Path) -> dict[str, str]:
    """The environment in which programs of an unpacked folder find its libraries."""
    return {"LD_LIBRARY_PATH": str(folder / "usr" / "lib" / f"{platform.machine()}-linux-gnu")}


def said_version(
    argv: Sequence[str | Path], pattern: str, environment: dict[str, str], wanted: str | None = None
) -> str:
    """The version that a program prints. Raises NotToBeHad, also if it is not the one that is
    ``wanted``."""
    said = run(str(argv[0]), argv, Path.cwd(), timeout_s=30, environment=environment)
    found = re.search(pattern, said)
    if found is None:
        raise NotToBeHad(f"{argv[0]} does not say a version: {said[:80]!r}")
    if wanted is not None and found[1] != wanted:
        raise NotToBeHad(f"version {wanted} is wanted, and {argv[0]} is {found[1]}")
    return found[1]


def run(
    what: str,
    argv: Sequence[str | Path],
    cwd: Path,
    *,
    timeout_s: float = _GET_S,
    environment: dict[str, str] | None = None,
) -> str:
    """Standard output of a command. Raises NotToBeHad with the last line of what it said."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(f"{what}: {error}") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise NotToBeHad(f"{what} failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done.stdout


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Within it, no other process gets anything into this cache."""
    with (cache / "getting.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
