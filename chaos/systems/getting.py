"""Getting programs without installing them: Debian packages, unpacked into the project's cache.

Nothing is asked of the network where the programs are there already. apt checks what it downloads
by the signatures of the distribution.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    target = cache / packages[0]
    if own_folder.is_ours(target):
        return target
    if os.path.lexists(target):
        raise NotToBeHad(str(own_folder.NotOurs(target)))
    if on_path("apt-get") is None or on_path("dpkg") is None:
        raise NotToBeHad(
            f"{packages[0]} is not on PATH, and without apt-get and dpkg its package cannot be "
            "unpacked; install it and put it on PATH"
        )
    cache.mkdir(exist_ok=True)
    with _alone(cache), scratch("package", cache) as folder:
        if own_folder.is_ours(target):
            return target
        run("apt-get", ["apt-get", "-qq", "download", *packages], folder)
        own_folder.make(folder / "unpacked")
        for package in sorted(folder.glob("*.deb")):
            run("dpkg", ["dpkg", "-x", package, folder / "unpacked"], folder)
        os.replace(folder / "unpacked", target)
    return target


def libraries(folder: Path) -> dict[str, str]:
    """The environment in which programs of an unpacked folder find its libraries."""
    return {"LD_LIBRARY_PATH": str(folder / "usr" / "lib" / f"{platform.machine()}-linux-gnu")}


def said_version(argv: Sequence[str | Path], pattern: str, environment: dict[str, str]) -> str:
    """The version that a program prints. Raises NotToBeHad."""
    said = run(str(argv[0]), argv, Path.cwd(), timeout_s=30, environment=environment)
    found = re.search(pattern, said)
    if found is None:
        raise NotToBeHad(f"{argv[0]} does not say a version: {said[:80]!r}")
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
