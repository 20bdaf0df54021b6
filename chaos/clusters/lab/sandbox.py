"""The namespaces that a lab lives in, and why a machine may refuse them.

One user, mount, network and pid namespace: whatever is started in there ends with its first
process, which the kernel ends with the one that made it, however that ends. Two labs share no
address and no port. Root needs no user namespace.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

from chaos.errors import TargetFailed
from chaos.systems.getting import libraries, on_path, unpacked
from chaos.systems.system import NotToBeHad

UNSHARE = "unshare"
NFT = ("nftables", "libnftables1", "libnftnl11", "libmnl0", "libjansson4", "libedit2", "libbsd0")
_RESTRICTED = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


class NoLab(TargetFailed):
    """This machine refuses the namespaces of a lab: one line that says why, and what to do."""


def command(argv: list[str]) -> list[str]:
    """The command that runs ``argv`` as the first process of new namespaces."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    own = ["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    return [UNSHARE, *user, *own, *argv]


def enter(pid: int, argv: list[str]) -> list[str]:
    """The command that runs ``argv`` in the network of the lab whose first process is ``pid``. Its
    files and processes stay those of this machine."""
    user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    return ["nsenter", "--target", str(pid), *user, "--net", *argv]


def refuse() -> None:
    """Raise NoLab if there can be no lab on this machine."""
    if sys.platform != "linux":
        raise NoLab(f"the target lab needs the namespaces of Linux; this is {sys.platform}")
    for program in (UNSHARE, "nsenter", "ip"):
        if on_path(program) is None:
            package = "iproute2" if program == "ip" else "util-linux"
            raise NoLab(f"the target lab needs `{program}`: apt-get install {package}")
    try:
        done = subprocess.run(
            command(["true"]), capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLab(f"the target lab cannot make namespaces: {error}") from None
    if done.returncode != 0:
        raise NoLab(f"the target lab cannot make namespaces: {_reason(done.stderr)}")


def _reason(said: str) -> str:
    last = (said.strip().splitlines() or ["no reason given"])[-1]
    if os.strerror(errno.ENOSPC) in last:
        return f"{last} (a limit on namespaces: sysctl user.max_user_namespaces and its like)"
    if _RESTRICTED.is_file() and _RESTRICTED.read_text().strip() == "1":
        return f"{last} (AppArmor: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or root)"
    if Path("/.dockerenv").exists():
        return f"{last} (in a container: its seccomp profile refuses; use --privileged)"
    return f"{last} (see sysctl user.max_user_namespaces, or run as root)"


def nft() -> list[str]:
    """The command nft: on PATH, else in the cache, else unpacked there from Debian's packages.
    Raises NoLab."""
    if (found := on_path("nft")) is not None:
        return [str(found)]
    try:
        folder = unpacked(NFT)
    except NotToBeHad as error:
        raise NoLab(f"the target lab needs `nft`: {error}") from None
    words = [f"{name}={value}" for name, value in libraries(folder).items()]
    return ["env", *words, str(folder / "usr" / "sbin" / "nft")]
