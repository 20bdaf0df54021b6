"""PySyncObj: Raft as a library, for objects of a Python program. A node is a small program of ours
that embeds it, as its users do: a dictionary whose changes are replicated, behind a socket.

All is as the library has it by default: its thread wakes every 50 ms, it connects anew after 5 s,
and a leader that hears of no majority stays one for 30 s. It keeps its log in a file
(``journalFile``, ``fullDumpFile``), which it maps into memory and does not sync.

The documentation (README, github.com/bakwc/PySyncObj) has changes go through the log of Raft, and
reads of attributes be reads of this process: what was written at one server can be looked at in
another, and "they will be synchronized". So the first row claims *eventual*, and the second, whose
reads are commands in the log as well, *linearizable*.

What it says of errors (`FAIL_REASON` in config.py; where each is said: syncobj.py, 0.3.11 and
0.3.17):

- *queue full*, *missing leader*, *not leader* and *request denied* are said in place of putting a
  command into the log: certainly not applied;
- *discarded*, *leader changed* and *unknown outcome* may be said of what is in a log, and silence
  says nothing: nobody knows.
"""

from __future__ import annotations

import contextlib
import os
import socketserver
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from bench.children import python
from bench.paths import ROOT
from bench.record.cluster_file import Address, SystemFile
from bench.record.verdict import Model
from chaos.systems.connection import PROBE_S, Connection, Kept
from chaos.systems.getting import python_package, said_version, unpacked
from chaos.systems.system import (
    Answer,
    Node,
    NotApplied,
    Probe,
    Process,
    Programs,
    System,
    SystemClient,
)
from nodes.contract.replica import Operation

PEERS, CLIENTS = 4321, 4322
DEBIANS = "0.3.11"
NEWEST = "0.3.17"
SHA256 = "8aaef68141714d556173778a51bcc4e221b6fd4c971dc1240f3ab4c0d2dfe765"
NOT_LOGGED = {1: "queue full", 2: "missing leader", 4: "not leader", 6: "request denied"}
_SAY_VERSION = "from pysyncobj.version import VERSION; print(VERSION)"


class Pysyncobj(System):
    """``local``: the node that is asked answers reads, from what it has applied, however old."""

    peer_ports = (PEERS,)
    client_ports = (CLIENTS,)
    versions = (DEBIANS, NEWEST)

    def __init__(self, name: str, claim: Model, summary: str, *, local: bool) -> None:
        self.name, self.claim, self.summary, self._local = name, claim, summary, local

    def programs(self) -> Programs:
        """The newest, by pip; another one that is named is Debian's."""
        if self.version in (None, NEWEST):
            package = python_package("pysyncobj", NEWEST, SHA256)
        else:
            package = unpacked(["python3-pysyncobj"]) / "usr" / "lib" / "python3" / "dist-packages"
        found = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(package)))}
        asked = [sys.executable, "-P", "-c", _SAY_VERSION]
        version = said_version(asked, r"(\S+)", found, self.version)
        return Programs(paths={"python": sys.executable}, version=version, environment=found)

    def processes(self, node: Node, programs: Programs) -> Sequence[Process]:
        """One."""
        others = [host for host in node.hosts.values() if host != node.host]
        return [Process(argv=[*python("chaos.systems.pysyncobj"), node.data, node.host, *others])]

    def probe(self, host: str) -> Probe:
        """What the node says of itself."""
        try:
            connection = _Connection(Address(host, CLIENTS), PROBE_S)
        except NotApplied as error:
            raise OSError(str(error)) from None
        with contextlib.closing(connection):
            return msgspec.convert(connection.ask({"op": "status"}), Probe)

    def client(self, cluster: SystemFile, node: str, timeout_s: float) -> SystemClient:
        """Of the node's socket."""
        return _Client(cluster.address(node, CLIENTS), timeout_s, local=self._local)


class _Connection(Connection):
    """A connection to a node, which asks one thing after the other."""

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the node answers. Raises NotApplied, OSError."""
        self._socket.sendall(msgspec.json.encode(asked) + b"\n")
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection ended")
        said: dict[str, Any] = msgspec.json.decode(line)
        if "refused" in said:
            raise NotApplied(said["refused"])
        if "unknown" in said:
            raise OSError(said["unknown"])
        return said


class _Client(SystemClient):
    def __init__(self, address: Address, timeout_s: float, *, local: bool) -> None:
        self._timeout_s, self._local = timeout_s, local
        self._kept = Kept(lambda: _Connection(address, timeout_s))

    def close(self) -> None:
        self._kept.close()

    def invoke(self, operation: Operation) -> Answer:
        asked = {
            "op": "look" if operation.op == "read" and self._local else operation.op,
            "key": operation.key,
            "value": operation.value,
            "expected": operation.expected,
            "timeout_s": self._timeout_s,
        }
        return msgspec.convert(self._kept.ready().ask(asked), Answer)


# --- a node ---


def _register(folder: str, host: str, others: Sequence[str]) -> Any:
    """The replicated object of this node: what each key holds, and the number of the change that
    put it there."""
    import pysyncobj  # Only a node has it.

    class Register(pysyncobj.SyncObj):  # type: ignore[misc]
        def __init__(self) -> None:
            files = {
                "journalFile": os.path.join(folder, "journal"),
                "fullDumpFile": os.path.join(folder, "dump"),
            }
            peers = [f"{other}:{PEERS}" for other in others]
            super().__init__(f"{host}:{PEERS}", peers, pysyncobj.SyncObjConf(**files))
            self.changes = 0
            self.held: dict[str, tuple[int, Any]] = {}

        def look(self, key: str) -> dict[str, Any]:
            version, value = self.held.get(key, (None, None))
            return {"value": value, "version": version}

        @pysyncobj.replicated  # type: ignore[untyped-decorator]
        def carry_out(self, op: str, key: str, value: Any, expected: Any) -> dict[str, Any]:
            there = self.look(key)
            if op == "read":
                return there
            if op == "cas" and there["value"] != expected:
                return {"applied": False, "seen": there["value"], "version": there["version"]}
            self.changes += 1
            if op == "delete":
                self.held.pop(key, None)
            else:
                self.held[key] = self.changes, value
            applied = {"applied": True} if op == "cas" else {}
            return {"version": self.changes, **applied}

    return Register()


def _answer(register: Any, asked: dict[str, Any]) -> dict[str, Any]:
    match asked["op"]:
        case "status":
            leader = register._getLeader()
            return {
                "ready": register.isReady(),
                "role": "leader" if register._isLeader() else "follower",
                "id": register.selfNode.id,
                "leader": leader and leader.id,
                "term": register.raftCurrentTerm,
                "position": register.raftLastApplied,
            }
        case "look" if not register.isReady():
            return {"refused": "this node has not caught up since it was started"}
        case "look":
            looked: dict[str, Any] = register.look(asked["key"])
            return looked
    arguments = [asked[name] for name in ("op", "key", "value", "expected")]
    try:
        done: dict[str, Any] = register.carry_out(*arguments, sync=True, timeout=asked["timeout_s"])
    except Exception as error:
        # The library's own, whose class only a node could name.
        reason = getattr(error, "errorCode", error)
        if reason in NOT_LOGGED:
            return {"refused": NOT_LOGGED[reason]}
        return {"unknown": f"PySyncObj: {reason}"}
    return done


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


def _serve(folder: str, host: str, *others: str) -> None:
    register = _register(folder, host, others)

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                # Half a line is of a client that has gone.
                while (line := self.rfile.readline()).endswith(b"\n"):
                    said = _answer(register, msgspec.json.decode(line))
                    self.wfile.write(msgspec.json.encode(said) + b"\n")

    with _Server((host, CLIENTS), Handler) as server:
        server.serve_forever()


PYSYNCOBJ = Pysyncobj(
    "pysyncobj",
    "eventual",
    "PySyncObj, Raft for objects in Python; reads look at the object in the node that is asked",
    local=True,
)
PYSYNCOBJ_LOG_READS = Pysyncobj(
    "pysyncobj-log-reads",
    "linearizable",
    "the same, but reads go through the log of Raft as well",
    local=False,
)

if __name__ == "__main__":
    _serve(*sys.argv[1:])
