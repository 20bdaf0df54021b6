"""Prepare this machine: the Python environment, the broker and Toxiproxy.

Run by `make setup` with any Python >= 3.11; needs the standard library only. Running it again is
quick and changes nothing. What it cannot do itself it asks for, in words that can be followed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TOXIPROXY_VERSION = "2.12.0"
TOXIPROXY_MODULE = "github.com/Shopify/toxiproxy/v2"
TOXIPROXY_RELEASE = f"https://github.com/Shopify/toxiproxy/releases/download/v{TOXIPROXY_VERSION}"
# SHA-256 of the release binaries, from that release's checksums.txt.
TOXIPROXY_SHA256 = {
    "linux-amd64": "556d891134a3c582dc1e1a3f7335fd55142e5965769855a00b944e13e48302fc",
    "linux-arm64": "53e770c1c3035b5a9f1bc629fce537db1f95f62b26f4ebe6e756afd701cf077c",
    "darwin-amd64": "9625bba4bd96117eedae49f982aba4c2f462b268dd406c9ff18186f9b1ef8afe",
    "darwin-arm64": "aa299966b52f16a8594f1cd0d1e9049dc2e8fe2c04a90c19860e2719b2b95d15",
}
OLDEST_GO = (1, 23)

# Where programs lie that are often not on a user's PATH.
MORE_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/usr/local/go/bin")


MARK = ".made-by-capbench"
"""In what set-up made, as in `nodes.runtime.own_folder`: nothing else is removed."""


class CannotSetUp(Exception):
    """Set-up needs a person; the message says what to do."""


@dataclass(frozen=True)
class Machine:
    """What the decisions below depend on."""

    path: str
    """Folders searched for programs, as in PATH."""
    is_root: bool
    wants_browser: bool
    """Whether Chromium is installed too; the tests of the report's looks use it."""
    kind: str
    """Operating system and processor as Toxiproxy names its releases, such as linux-amd64."""

    @classmethod
    def here(cls) -> Machine:
        arch = platform.machine().lower()
        arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(arch, arch)
        return cls(
            path=os.pathsep.join((os.environ.get("PATH", os.defpath), *MORE_FOLDERS)),
            is_root=os.geteuid() == 0,
            wants_browser=any(os.environ.get(name) for name in ("CI", "CAPBENCH_BROWSER")),
            kind=f"{platform.system().lower()}-{arch}",
        )

    def find(self, program: str) -> str | None:
        return shutil.which(program, path=self.path)


def say(step: str, text: str) -> None:
    print(f"setup: {step:<12} {text}", flush=True)


def run(
    *command: str | os.PathLike[str], env: dict[str, str] | None = None, timeout_s: float = 900
) -> subprocess.CompletedProcess[str]:
    """Run a command quietly; its output is shown by `complain` if it matters."""
    words = [os.fspath(word) for word in command]
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 127, stdout=str(error))


def complain(step: str, text: str, failed: subprocess.CompletedProcess[str]) -> None:
    say(step, text)
    for line in failed.stdout.strip().splitlines()[-6:]:
        print(f"       | {line[:160]}", flush=True)


# --- the Python environment -------------------------------------------------------------------


def environment(root: Path, machine: Machine) -> None:
    """Make `.venv` hold exactly the pinned requirements, and the project itself, editable."""
    venv = root / ".venv"
    python = venv / "bin" / "python"
    stamp = venv / "capbench-setup.stamp"
    wanted = fingerprint(root)
    usable = is_usable(python)
    if usable and (venv / "bin" / "capbench").exists() and read(stamp) == wanted:
        say("environment", ".venv is up to date")
        return
    if stamp.exists():
        (venv / MARK).touch()
    stamp.unlink(missing_ok=True)
    uv = machine.find("uv") or shutil.which(venv / "bin" / "uv")
    if not usable:
        create(venv, uv, machine)
    packages = root / "requirements" / "dev.txt"
    count = len(re.findall(r"^\S+==", packages.read_text(), re.MULTILINE))
    say("environment", f"installing {count} pinned packages into .venv")
    if uv is None:
        uv = uv_by_pip(root, python)
    if uv is None or not install_by_uv(uv, root, python, packages):
        install_by_pip(root, python, packages)
    stamp.write_text(wanted)
    say("environment", ".venv is ready")


def fingerprint(root: Path) -> str:
    """What the environment was made from; it also changes when the checkout moves."""
    digest = hashlib.sha256(str(root).encode())
    for name in ("pyproject.toml", "requirements/dev.txt"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def is_usable(python: Path) -> bool:
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    return python.exists() and run(python, "-c", check).returncode == 0


def create(venv: Path, uv: str | None, machine: Machine) -> None:
    if venv.is_symlink() or venv.exists():
        if venv.is_symlink() or not (venv / MARK).exists():
            raise CannotSetUp(
                f"{venv} cannot be used, and set-up did not make it: move it away, or remove it "
                "with `make clean`"
            )
        shutil.rmtree(venv)
    make_environment(venv, uv, machine)
    (venv / MARK).touch()


def make_environment(venv: Path, uv: str | None, machine: Machine) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if uv is not None:
        made = run(uv, "venv", "--python", sys.executable, venv)
        if made.returncode == 0:
            say("environment", f"created .venv with uv, Python {version}")
            return
        complain("environment", "uv could not create .venv; going on with venv", made)
    has_pip = True
    if importlib.util.find_spec("ensurepip") is None:
        # Debian and Ubuntu keep ensurepip in a package of its own.
        package = f"python{version}-venv"
        if importlib.util.find_spec("pip") is not None:
            has_pip = False
        elif not (machine.is_root and apt_install(machine, "environment", package)):
            raise CannotSetUp(
                f"Python {version} finds no uv, pip or ensurepip here. Either of these helps:\n"
                f"  sudo apt-get install {package}\n"
                "  install uv and put it on PATH"
            )
    made = run(sys.executable, "-m", "venv", *([] if has_pip else ["--without-pip"]), venv)
    if made.returncode != 0:
        complain("environment", "python -m venv failed", made)
        raise CannotSetUp(f"could not create {venv}; see the lines above")
    say("environment", f"created .venv with venv, Python {version}")


def pip(python: Path) -> list[str]:
    """The command for a pip that installs into the environment of `python`."""
    if run(python, "-m", "pip", "--version").returncode == 0:
        return [str(python), "-m", "pip"]
    if run(python, "-m", "ensurepip").returncode == 0:
        return [str(python), "-m", "pip"]
    return [sys.executable, "-m", "pip", "--python", str(python)]


def uv_by_pip(root: Path, python: Path) -> str | None:
    """Install the pinned uv into the environment; None if that does not work here."""
    pinned = root / "requirements" / "uv.txt"
    done = run(*pip(python), "install", "--quiet", "--require-hashes", "-r", pinned)
    uv = python.with_name("uv")
    if done.returncode == 0 and run(uv, "--version").returncode == 0:
        return str(uv)
    complain("environment", "uv could not be installed; pip does it, more slowly", done)
    return None


def install_by_uv(uv: str, root: Path, python: Path, packages: Path) -> bool:
    for arguments in (
        ("sync", "--require-hashes", packages),
        ("install", "--no-deps", "--no-build-isolation", "--editable", root),
    ):
        done = run(uv, "pip", arguments[0], "--python", python, *arguments[1:])
        if done.returncode != 0:
            complain("environment", f"uv pip {arguments[0]} failed; trying pip", done)
            return False
    return True


def install_by_pip(root: Path, python: Path, packages: Path) -> None:
    for arguments in (
        ("--require-hashes", "-r", packages),
        ("--no-deps", "--no-build-isolation", "--editable", root),
    ):
        done = run(*pip(python), "install", "--quiet", *arguments, timeout_s=3600)
        if done.returncode != 0:
            complain("environment", "pip install failed", done)
            raise CannotSetUp(
                "the pinned packages could not be installed; see the lines above. "
                "Behind a proxy or a mirror: set HTTPS_PROXY, or an index in pip's configuration"
            )


# --- the broker -------------------------------------------------------------------------------


def broker(machine: Machine) -> None:
    """Mosquitto by apt where we may; else the embedded broker that the environment holds."""
    packages = [
        package
        for package, program in (
            ("mosquitto", "mosquitto"),
            ("mosquitto-clients", "mosquitto_rr"),
        )
        if machine.find(program) is None
    ]
    if packages and machine.is_root:
        apt_install(machine, "broker", *packages)
    if mosquitto := machine.find("mosquitto"):
        say("broker", f"{mosquitto} is used")
    else:
        say(
            "broker",
            "no Mosquitto: the embedded broker (amqtt) is used; it works, but is too slow for "
            "figures. Better: sudo apt-get install mosquitto mosquitto-clients",
        )
    if machine.wants_browser and machine.find("chromium") is None and machine.is_root:
        apt_install(machine, "browser", "chromium")


def apt_install(machine: Machine, step: str, *packages: str) -> bool:
    """Install Debian packages; needs root. False, and a complaint, where that does not work."""
    apt = machine.find("apt-get")
    if apt is None:
        return False
    say(step, f"apt-get install {' '.join(packages)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    wait = ("-qq", "-o", "DPkg::Lock::Timeout=120")
    run(apt, "update", *wait, env=quiet)  # where it fails, the lists that are there may do
    done = run(apt, "install", "--yes", "--no-install-recommends", *wait, *packages, env=quiet)
    if done.returncode != 0:
        complain(step, "apt-get install failed", done)
    return done.returncode == 0


# --- Toxiproxy --------------------------------------------------------------------------------


def toxiproxy(root: Path, machine: Machine) -> None:
    """The server on PATH; else the cached copy; else built by Go; else the release binary."""
    cached = root / ".cache" / "toxiproxy-server"
    named = os.environ.get("CAPBENCH_TOXIPROXY")
    for found in (machine.find("toxiproxy-server"), cached, named):
        if found and os.access(found, os.X_OK) and run(found, "--version").returncode == 0:
            say("toxiproxy", f"{found} is used")
            return
    cached.parent.mkdir(exist_ok=True)
    reasons = []
    for get in (build_toxiproxy, download_toxiproxy):
        try:
            get(cached, machine)
        except CannotSetUp as error:
            reasons.append(str(error))
        else:
            say("toxiproxy", f"{cached} is ready")
            return
    raise CannotSetUp(four_ways(machine, reasons))


def four_ways(machine: Machine, reasons: Sequence[str]) -> str:
    simulator = (
        "\nWithout it, the simulator runs, with neither broker nor Toxiproxy:\n"
        "  .venv/bin/capbench compare --target sim"
    )
    return (
        "Toxiproxy is missing, and set-up could not get it:\n"
        + "".join(f"  - {reason}\n" for reason in reasons)
        + "Any one of these four ways helps; then run `make setup` again:\n"
        "  1. put `toxiproxy-server` on PATH (Homebrew, Nix: the package toxiproxy)\n"
        "  2. copy one that you have to .cache/toxiproxy-server\n"
        f"  3. install Go {'.'.join(map(str, OLDEST_GO))} or newer; set-up then builds it from "
        f"{TOXIPROXY_MODULE}/cmd/server@v{TOXIPROXY_VERSION}\n"
        f"  4. download {TOXIPROXY_RELEASE}/toxiproxy-server-{machine.kind}\n"
        "     to .cache/toxiproxy-server, and chmod +x it"
        + (simulator if (ROOT / "chaos" / "targets" / "simulator.py").exists() else "")
    )


def build_toxiproxy(target: Path, machine: Machine) -> None:
    go = machine.find("go")
    if go is None:
        raise CannotSetUp("no Go on PATH to build it")
    said = run(go, "env", "GOVERSION").stdout.strip()
    version = re.match(r"go(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_GO:
        oldest = ".".join(map(str, OLDEST_GO))
        raise CannotSetUp(f"{go} is {said or 'of no known version'}; building needs {oldest}")
    say("toxiproxy", f"building {TOXIPROXY_VERSION} with {said}")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        done = run(
            go,
            "install",
            # Else it would call its version "git".
            f"-ldflags=-X {TOXIPROXY_MODULE}.Version={TOXIPROXY_VERSION}",
            f"{TOXIPROXY_MODULE}/cmd/server@v{TOXIPROXY_VERSION}",
            env={"GOBIN": folder},
        )
        if done.returncode != 0:
            last = (done.stdout.strip().splitlines() or ["no output"])[-1]
            raise CannotSetUp(f"go install failed: {last}")
        os.replace(Path(folder) / "server", target)


def download_toxiproxy(
    target: Path,
    machine: Machine,
    release: str = TOXIPROXY_RELEASE,
    checksums: Mapping[str, str] = TOXIPROXY_SHA256,
) -> None:
    expected = checksums.get(machine.kind)
    if expected is None:
        raise CannotSetUp(f"no checksum is known for the release binary of {machine.kind}")
    url = f"{release}/toxiproxy-server-{machine.kind}"
    say("toxiproxy", f"downloading {url}")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            binary = answer.read()
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CannotSetUp(f"the download failed: {reason}") from error
    measured = hashlib.sha256(binary).hexdigest()
    if measured != expected:
        raise CannotSetUp(
            f"the download was refused: its SHA-256 is {measured}, the release's is {expected}"
        )
    part = target.with_suffix(".part")
    part.write_bytes(binary)
    part.chmod(0o755)
    os.replace(part, target)


# --- all of it --------------------------------------------------------------------------------


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Let a second set-up of the same checkout wait for the first."""
    folder = root / ".cache"
    folder.mkdir(exist_ok=True)
    with (folder / "setup.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("", "waiting for another set-up of this checkout")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    machine = Machine.here()
    try:
        with alone(ROOT):
            environment(ROOT, machine)
            broker(machine)
            toxiproxy(ROOT, machine)
    except (CannotSetUp, OSError) as error:
        print(f"\nsetup: stopped. {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
