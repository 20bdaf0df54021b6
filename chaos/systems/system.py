"""What a system is: how to get it, to start it, to ask it, and what it claims.

A system is a program of others that keeps keys and values on several nodes. One file describes one
system (`chaos.systems.etcd` is a short one); docs/ADDING_A_SYSTEM.md walks through one of your own.

The client is where a suite like this goes wrong, so its rule is strict. An operation ends

- ``ok`` if `SystemClient.invoke` returns,
- ``fail`` if it raises NotApplied: it was *certainly* not applied, now or later,
- ``info`` if it raises anything else: nobody knows.

When in doubt, it is ``info``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import msgspec

from bench.record.cluster_file import SystemFile
from bench.record.transactions.verdict import Level
from bench.record.verdict import Model
from nodes.contract.replica import Operation, OperationKind, Value, Version
from nodes.errors import InfrastructureFailed
from nodes.registry import InvalidConfiguration


class NotToBeHad(InfrastructureFailed):
    """A system is not on this machine and cannot be got: one line that says why, and how to get
    it."""


class NotApplied(Exception):
    """An operation was certainly not applied, and never will be: the reason in a few words."""


class Programs(msgspec.Struct, frozen=True, kw_only=True):
    """Where a system's programs are: ``paths`` by name, and the ``environment`` that they need
    beside ours. ``version``: what the system says of itself."""

    paths: dict[str, str]
    version: str
    environment: dict[str, str] = {}


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node to start. ``number`` counts from 1; ``host``: its address; ``data``: a folder of its
    own, which survives a crash; ``hosts``: all nodes and their addresses, in order."""

    name: str
    number: int
    host: str
    data: Path
    hosts: dict[str, str]


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a node. ``name``: unique in the node; empty for its first."""

    argv: list[str | Path]
    name: str = ""
    environment: dict[str, str] = {}


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself. ``ready``: it expects to serve. ``role``: leader, follower, or
    the system's own word. ``id``: how the system names this node, and ``leader`` the one that this
    node follows, by the same kind of name. ``term``: of leaders, the highest counts. ``position``:
    how much it has applied, equal on all nodes when all have the same."""

    ready: bool
    role: str | None = None
    id: str | None = None
    leader: str | None = None
    term: int | None = None
    position: int | None = None


class Answer(msgspec.Struct, frozen=True):
    """What an operation that ended ok has to say. ``value``: what a read saw, None: no such key.
    ``version``: of what was written or read, where the system tells one that grows with each
    write. ``applied``: False for a cas that was refused; then ``seen`` is what it found."""

    value: Value = None
    version: Version = None
    applied: bool | None = None
    seen: Value = None


class Transaction(ABC):
    """What can be done in a transaction that is open. Raises what `SystemClient.transaction`
    does."""

    @abstractmethod
    def read(self, key: str) -> Value:
        """What a key holds, None: there is no such key. A transaction sees its own writes."""

    @abstractmethod
    def write(self, key: str, value: Value) -> None:
        """Let a key hold ``value``."""

    def append(self, key: str, word: str) -> None:
        """Put a word behind the words that a key holds, a space between. A system whose level
        allows lost updates needs one statement for that: else it is no append."""
        held = self.read(key)
        self.write(key, word if held is None else f"{held} {word}")


class SystemClient(ABC):
    """A client with one connection, which asks one operation after the other. It connects when it
    is first asked, and again after an error."""

    @abstractmethod
    def invoke(self, operation: Operation) -> Answer:
        """Carry out an operation. Raises NotApplied, or anything else: see the top of this file."""

    def transaction(self, keys: Sequence[str], work: Callable[[Transaction], None]) -> None:
        """Do ``work`` in one transaction, at the level that the system claims, and commit it.
        ``keys``: all that it will touch. If another transaction was in the way, ``work`` may be
        done anew; its last call is the one that counts. What ``work`` raises goes through, after
        a rollback. Raises NotApplied if it was certainly not committed, or anything else."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - a client may have nothing to close
        """Close the connection."""


class System(ABC):
    """A system, described. Methods that start or ask something raise OSError, or
    nodes.errors.InfrastructureFailed with a line for the user.

    ``claim``: what it promises in this mode, by its own documentation; ``isolation``: of its
    transactions, None: its client has none (`SystemClient.transaction`). ``peer_ports``: those at
    which nodes talk to each other, ``client_ports``: those at which clients do, the one that takes
    operations first."""

    name: str
    summary: str
    claim: Model
    isolation: Level | None = None
    operations: tuple[OperationKind, ...] = ("read", "write", "cas", "delete")
    peer_ports: tuple[int, ...]
    client_ports: tuple[int, ...]
    versions: tuple[str, ...] = ()
    """Those that can be named: ``etcd@3.5.2``."""
    version: str | None = None
    """The one that was named; None: whichever is there."""
    connections = 256
    """How many a client process has to a node, at most: what is open beyond them waits."""

    @property
    def offers(self) -> list[str]:
        """All operations that its clients have, transactions among them."""
        return [*self.operations, *(["transaction"] if self.isolation else [])]

    def at(self, version: str) -> Self:
        """The same system, of a version that was named. Raises InvalidConfiguration."""
        if version not in self.versions:
            there = ", ".join(self.versions) or "none: it runs in the version that is there"
            raise InvalidConfiguration(f"{self.name} has no version {version!r}; to name: {there}")
        chosen = copy(self)
        chosen.name, chosen.version = f"{self.name}@{version}", version
        return chosen

    # --- the programs ---

    @abstractmethod
    def programs(self) -> Programs:
        """Where they are; got first if they are not there. Raises NotToBeHad."""

    # --- the cluster ---

    def prepare(self, node: Node, programs: Programs) -> None:  # noqa: B027
        """Leave in ``node.data`` what the node needs before it first starts."""

    @abstractmethod
    def processes(self, node: Node, programs: Programs) -> Sequence[Process]:
        """The processes of a node, in the order of their start. Also of a node that comes back."""

    def form(self, hosts: Mapping[str, str]) -> None:  # noqa: B027
        """Once, when all nodes answer: whatever makes a cluster of them."""

    @abstractmethod
    def probe(self, host: str) -> Probe:
        """Ask the node at this address, past all proxies, in at most a second or two."""

    def syncs(self, host: str) -> int | None:
        """How often the processes of the node at this address have synced their disk since they
        started, as it says itself; None: it says nothing of that. Asked once a second."""
        return None

    # --- the client ---

    @abstractmethod
    def client(self, cluster: SystemFile, node: str, timeout_s: float) -> SystemClient:
        """A client of that node; nothing it does may take much longer than ``timeout_s``."""

    def final_client(self, cluster: SystemFile, node: str, timeout_s: float) -> SystemClient:
        """The client of that node with which every key is read when a run ends. Where no client can
        ask one node alone, that of the first node should ask whoever knows what was acknowledged:
        else what all reads happen to miss looks lost."""
        return self.client(cluster, node, timeout_s)

    # --- as a protocol of ours has it (`nodes.registry.Protocol`) ---

    def configure(
        self, node: str, nodes: tuple[str, ...], parameters: Mapping[str, Any] | None = None
    ) -> None:
        """Refuse parameters: systems have none. Raises InvalidConfiguration."""
        if parameters:
            raise InvalidConfiguration(f"{self.name} is a system: it has no parameters")


def client_key(key: str) -> str:
    """The name under which all clients keep ``key``, so that nothing else in a store is touched."""
    return f"capbench/{key}"


def encode(value: Value) -> bytes:
    """A value as a store of bytes keeps it."""
    return msgspec.json.encode(value)


def decode(stored: bytes) -> Value:
    """The value of these bytes."""
    value: Value = msgspec.json.decode(stored)
    return value
