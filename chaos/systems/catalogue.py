"""Every system by name, and how a file of your own joins them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from chaos.systems.etcd import ETCD, ETCD_SERIALIZABLE
from chaos.systems.nats import NATS_KV, NATS_KV_LEADER
from chaos.systems.postgres import (
    POSTGRES_ASYNCHRONOUS,
    POSTGRES_READ_COMMITTED,
    POSTGRES_REPEATABLE_READ,
    POSTGRES_SYNCHRONOUS,
)
from chaos.systems.pysyncobj import PYSYNCOBJ, PYSYNCOBJ_LOG_READS
from chaos.systems.redis_sentinel import REDIS_MIN_REPLICAS, REDIS_SENTINEL, REDIS_WAIT
from chaos.systems.system import System
from chaos.systems.zookeeper import ZOOKEEPER, ZOOKEEPER_SYNC
from nodes.contract.names import BadName, check_name, did_you_mean
from nodes.registry import InvalidConfiguration

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        *(ETCD, ETCD_SERIALIZABLE),
        *(REDIS_SENTINEL, REDIS_MIN_REPLICAS, REDIS_WAIT),
        *(ZOOKEEPER, ZOOKEEPER_SYNC),
        *(NATS_KV, NATS_KV_LEADER),
        *(POSTGRES_SYNCHRONOUS, POSTGRES_ASYNCHRONOUS),
        *(POSTGRES_REPEATABLE_READ, POSTGRES_READ_COMMITTED),
        *(PYSYNCOBJ, PYSYNCOBJ_LOG_READS),
    )
}


_LOADED: dict[Path, System] = {}
_registered: list[System] = []


def get(name: str) -> System:
    """The system of that name, or of a file, if it is the path of one (``my.py``). A name may have
    a version (``etcd@3.5.2``). Raises InvalidConfiguration."""
    if name.endswith(".py"):
        return load_file(name)
    bare, at, version = name.partition("@")
    try:
        system = SYSTEMS[bare]
    except KeyError:
        raise InvalidConfiguration(
            f"unknown system {did_you_mean(bare, sorted(SYSTEMS))}"
        ) from None
    return system.at(version) if at else system


def is_named(name: str) -> bool:
    """Whether a system has that name, whichever version is named with it."""
    return name.partition("@")[0] in SYSTEMS


def register(system: System) -> None:
    """Called by a file of your own: this is the system that it describes. Raises
    InvalidConfiguration for a name that is taken, or is none."""
    try:
        check_name(system.name, "a system's name")
    except BadName as error:
        raise InvalidConfiguration(str(error)) from None
    if system.name in SYSTEMS:
        raise InvalidConfiguration(f"there is a system {system.name!r} already")
    _registered.append(system)


def findable_name(system: System) -> str:
    """What `get` finds the system by in another process: its name, or the path of its file."""
    for file, loaded in _LOADED.items():
        if loaded is system:
            return str(file)
    return system.name


def is_of_system(path: str) -> bool:
    """Whether a file of your own describes a system, and not a protocol."""
    try:
        return "chaos.systems" in Path(path).read_text(errors="replace")
    except OSError:
        return False


def load_file(path: str) -> System:
    """Import a Python file, once, and return the system that it registers. Raises
    InvalidConfiguration."""
    file = Path(path).resolve()
    if file in _LOADED:
        return _LOADED[file]
    name = f"capbench_system_{file.stem}_{len(_LOADED)}"
    spec = importlib.util.spec_from_file_location(name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise InvalidConfiguration(f"there is no system file {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    _registered.clear()
    try:
        spec.loader.exec_module(module)
        if not _registered:
            raise InvalidConfiguration("it registers no system")
    except Exception as error:
        del sys.modules[name]
        what = "" if isinstance(error, InvalidConfiguration) else f"{type(error).__name__}: "
        line = " ".join(str(error).split())
        raise InvalidConfiguration(f"system file {path}: {what}{line}") from error
    _LOADED[file] = _registered[0]
    return _LOADED[file]
