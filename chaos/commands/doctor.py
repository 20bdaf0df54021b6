"""`capbench doctor`: which of the things a run needs this machine has, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec
from rich.table import Table
from rich.text import Text

from bench.paths import ROOT
from chaos.clusters.broker import find_mosquitto
from chaos.clusters.lab import sandbox
from chaos.clusters.processes import NoFreePorts, free_ports
from chaos.clusters.toxiproxy import ToxiproxyMissing, find_toxiproxy
from chaos.systems.catalogue import SYSTEMS

# Five nodes: 20 links, 2 proxies per node and client group, broker, Toxiproxy, Locust.
PORTS_OF_A_RUN = 50
# A local operation takes some 200 us: a coarser clock cannot order two of them.
COARSEST_CLOCK_S = 1e-5

# Distributions whose module is called differently.
_MODULES = {
    "paho-mqtt": "paho.mqtt.client",
    "ruamel-yaml": "ruamel.yaml",
    "toxiproxy-python": "toxiproxy",
    "vl-convert-python": "vl_convert",
}
# In a separate process, so that no import can affect this one.
_IMPORT_EACH = """
import importlib, sys
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except BaseException as error:
        print(module, f"{type(error).__name__}: {error}".replace("\\n", " "), sep="\\t", flush=True)
    else:
        print(module, "", sep="\\t", flush=True)
"""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was checked. ``required``: nothing runs without it. ``fallback``: runs work,
    with the limitation that ``detail`` names. ``remedy``: what to do; empty if all is well."""

    name: str
    status: Literal["ok", "missing", "fallback"]
    detail: str
    remedy: str = ""
    required: bool = False


def examine() -> list[Finding]:
    """Check everything. Takes a second or two, changes nothing and raises nothing."""
    looks: list[Callable[[], Sequence[Finding]]] = [
        lambda: [_python()],
        _libraries,
        lambda: [_broker()],
        lambda: [_toxiproxy()],
        lambda: [_ports()],
        lambda: [_results()],
        lambda: [_clock()],
        lambda: [_cores()],
        lambda: [
            _program(
                "mosquitto_rr",
                ["--help"],
                loses="no MQTT client to try requests by hand; its test is skipped",
                remedy="apt-get install mosquitto-clients",
            )
        ],
        lambda: [
            _program(
                "chromium",
                ["--version"],
                loses="reports are not tested in a browser",
                remedy="apt-get install chromium",
            )
        ],
        lambda: [
            _program(
                "docker",
                ["version", "--format", "{{.Server.Version}}"],
                loses="no runs in containers",
                remedy="install Docker and start its daemon",
            )
        ],
    ]
    looks.append(lambda: [_lab()])
    # Nearly all of it is waiting for other programs: wait for all at once.
    with ThreadPoolExecutor(len(looks)) as pool:
        return [finding for found in pool.map(lambda look: look(), looks) for finding in found]


def is_ready(findings: Sequence[Finding]) -> bool:
    """Whether a run can start: nothing that is required is missing."""
    return not any(finding.required and finding.status == "missing" for finding in findings)


def table(findings: Sequence[Finding]) -> Table:
    """The findings as a table; libraries that are fine share one line."""
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("", "what", "found, and what to do"):
        shown.add_column(column, overflow="fold")
    well = [f for f in findings if f.name.startswith("library ") and f.status == "ok"]
    for finding in findings:
        if finding in well:
            if finding is well[0]:
                shown.add_row("[green]ok[/]", "libraries", f"{len(well)} as pinned")
            continue
        colour = {"ok": "green", "fallback": "yellow"}.get(
            finding.status, "red" if finding.required else "yellow"
        )
        optional = finding.status == "missing" and not finding.required
        word = "optional" if optional else finding.status
        found = Text(finding.detail)
        if finding.remedy:
            found.append(f"\n-> {finding.remedy}", style="bold")
        shown.add_row(f"[{colour}]{word}[/]", finding.name, found)
    return shown


# --- required ----------------------------------------------------------------------------------


def _python() -> Finding:
    enough = sys.version_info >= (3, 11)
    return Finding(
        name="python",
        status="ok" if enough else "missing",
        detail=f"{platform.python_version()}, {_short(sys.executable)}",
        remedy="" if enough else "install Python 3.11 or newer, then `make setup`",
        required=True,
    )


def _libraries() -> list[Finding]:
    try:
        requirements = importlib.metadata.requires("capbench") or []
    except importlib.metadata.PackageNotFoundError:
        return [
            Finding(
                name="library capbench",
                status="missing",
                detail="the project is not installed in this environment",
                remedy="make setup",
                required=True,
            )
        ]
    names = [
        re.split(r"[^A-Za-z0-9._-]", requirement)[0]
        for requirement in requirements
        if "extra ==" not in requirement
    ]
    failures = _import_failures([_MODULES.get(name, name) for name in names])
    pins = _pins()
    return [
        _library(name, failures[_MODULES.get(name, name)], pins.get(name, [])) for name in names
    ]


def _library(name: str, failure: str, pinned: Sequence[str]) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version, failure = "", failure or "not installed"
    if failure:
        status: Literal["ok", "missing", "fallback"] = "missing"
        detail = f"{version} cannot be imported: {failure}".strip()
    elif pinned and version not in pinned:
        status, detail = "fallback", f"{version}; tested with {' or '.join(pinned)}"
    else:
        status, detail = "ok", version
    remedy = "" if status == "ok" else "make setup"
    return Finding(
        name=f"library {name}", status=status, detail=detail, remedy=remedy, required=True
    )


def _import_failures(modules: Sequence[str]) -> dict[str, str]:
    """Module -> why it cannot be imported, empty where it can."""
    failures = dict.fromkeys(modules, "the import did not end")
    # One process for all: they share much of what they import, which is where most of this
    # command's time goes. Locust patches the process that it is in, and must come first.
    ordered = sorted(modules, key="locust".__ne__)
    for line in _said([sys.executable, "-I", "-c", _IMPORT_EACH, *ordered], timeout_s=60):
        module, _, failure = line.partition("\t")
        if module in failures:
            failures[module] = failure
    return failures


def _pins() -> dict[str, list[str]]:
    """What the checkout pins, per library and kind of Python; nothing where capbench was installed
    without a checkout."""
    try:
        text = (ROOT / "requirements" / "runtime.txt").read_text()
    except OSError:
        return {}
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE):
        pins.setdefault(name, []).append(version)
    return pins


def _broker() -> Finding:
    name = "broker"
    remedy = "apt-get install mosquitto mosquitto-clients (macOS: brew install mosquitto)"
    mosquitto = find_mosquitto()
    if mosquitto is not None:
        said = _said([str(mosquitto), "-h"])
        version = said[0].removeprefix("mosquitto version ") if said else "of no known version"
        return Finding(
            name=name, status="ok", detail=f"Mosquitto {version}, {mosquitto}", required=True
        )
    if importlib.util.find_spec("amqtt") is not None:
        version = importlib.metadata.version("amqtt")
        return Finding(
            name=name,
            status="fallback",
            detail=f"the embedded amqtt {version}: runs work, but their speed means nothing",
            remedy=remedy,
            required=True,
        )
    return Finding(name=name, status="missing", detail="none", remedy=remedy, required=True)


def _toxiproxy() -> Finding:
    try:
        path = find_toxiproxy()
    except ToxiproxyMissing:
        return Finding(
            name="toxiproxy",
            status="missing",
            detail="not on PATH as toxiproxy-server, not in .cache/",
            remedy="make setup, or put toxiproxy-server 2.12 on PATH",
            required=True,
        )
    said = _said([str(path), "--version"])
    version = said[0].removeprefix("toxiproxy-server version ") if said else ""
    if version == "git":  # what `go install` alone gives
        version = "built from source"
    return Finding(
        name="toxiproxy",
        status="ok" if version else "missing",
        detail=f"{version}, {_short(path)}" if version else f"{_short(path)} does not start",
        remedy="" if version else "remove it, then `make setup`",
        required=True,
    )


def _ports() -> Finding:
    try:
        ports = free_ports(PORTS_OF_A_RUN)
    except (NoFreePorts, OSError) as error:
        return Finding(
            name="ports",
            status="missing",
            detail=str(error),
            remedy="stop what listens there (`ss -ltnp` shows it)",
            required=True,
        )
    return Finding(
        name="ports",
        status="ok",
        detail=f"{len(ports)} free on 127.0.0.1, from {min(ports)}",
        required=True,
    )


def _results() -> Finding:
    folder = Path.cwd() / "results"
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"x")
    except OSError as error:
        return Finding(
            name="results",
            status="missing",
            detail=f"{_short(folder)} cannot be written: {error.strerror}",
            remedy="give `--out` a folder that can be written",
            required=True,
        )
    free_gib = shutil.disk_usage(nearest).free / 2**30
    return Finding(
        name="results",
        status="ok" if free_gib >= 1 else "fallback",
        detail=f"{_short(folder)}, {free_gib:.0f} GiB free",
        remedy="" if free_gib >= 1 else "free some space: a long run writes hundreds of megabytes",
        required=True,
    )


# --- what figures depend on --------------------------------------------------------------------


def _clock() -> Finding:
    """The smallest step seen on the monotonic clock."""
    stamps = [time.monotonic_ns() for _ in range(10_000)]
    steps_ns = [after - before for before, after in itertools.pairwise(stamps) if after > before]
    step_s = min(steps_ns) / 1e9 if steps_ns else time.get_clock_info("monotonic").resolution
    fine = step_s <= COARSEST_CLOCK_S
    return Finding(
        name="clock",
        status="ok" if fine else "fallback",
        detail=f"monotonic, steps of {step_s * 1e6:.2g} us"
        + ("" if fine else ": operations close together cannot be ordered"),
        remedy="" if fine else "use a machine whose clock source is not emulated",
    )


def _cores() -> Finding:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Finding(
        name="cores",
        status="ok" if cores >= 2 else "fallback",
        detail=f"{cores}" if cores >= 2 else "1: load and nodes share it, figures are unreliable",
        remedy="" if cores >= 2 else "use a machine with at least 2 cores",
    )


# --- optional ----------------------------------------------------------------------------------


def _program(program: str, arguments: Sequence[str], *, loses: str, remedy: str) -> Finding:
    path = shutil.which(program)
    said = _said([path, *arguments]) if path else []
    if not said:
        detail = loses if path is None else f"{path} does not answer: {loses}"
        return Finding(name=program, status="missing", detail=detail, remedy=remedy)
    # Mosquitto's tools name their version on a later line than the first.
    line = next((line for line in said if line.startswith(f"{program} version")), said[0])
    version = re.search(r"\d+(\.\d+)+", line)
    return Finding(name=program, status="ok", detail=f"{version[0] if version else line}, {path}")


def _lab() -> Finding:
    """Whether systems of others can run here: nothing is got for the answer."""
    try:
        sandbox.refuse()
    except sandbox.NoLab as error:
        remedy = "run as root, or where users may make namespaces (Linux)"
        return Finding(name="lab", status="missing", detail=str(error), remedy=remedy)
    systems = ", ".join(SYSTEMS)
    return Finding(
        name="lab", status="ok", detail=f"namespaces can be made; got when first run: {systems}"
    )


def _short(path: str | Path) -> str:
    """A path, relative to the current folder if it lies below it."""
    below = Path(path).is_relative_to(Path.cwd())
    return str(Path(path).relative_to(Path.cwd()) if below else path)


def _said(command: Sequence[str], timeout_s: float = 10.0) -> list[str]:
    """The lines that a command writes to standard output; none where it does not run. Its exit code
    is not looked at: Mosquitto's tools leave with an error after printing their version."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
