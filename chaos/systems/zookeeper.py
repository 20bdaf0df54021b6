"""ZooKeeper: a tree of nodes with data, replicated by Zab (a leader, and a majority of followers).

Its documentation promises linearizable writes and sequential reads: the server that was asked
answers from what it has. After ``sync`` on the same connection a read sees what was written before.

What it says of errors: NoNode, NodeExists and BadVersion are answers of a request that changed
nothing. A connection without a session (a server without a majority gives none) has sent no
request: certainly not applied. A connection that ends while a request is open says nothing of it:
nobody knows.

A ``cas`` reads the value and the version of the node's data, and sets it if the version is still
that. ZooKeeper counts versions from 0 again in a node that was deleted and created, so a ``cas``
could take one value for another; hence a ``delete`` here empties the node, and keeps it.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.record.cluster_file import Address, SystemFile
from bench.record.verdict import Model
from chaos.systems.connection import PROBE_S, Connection, Kept
from chaos.systems.getting import on_path, unpacked
from chaos.systems.system import (
    Answer,
    Node,
    NotApplied,
    NotToBeHad,
    Probe,
    Process,
    Programs,
    System,
    SystemClient,
    decode,
    encode,
)
from nodes.contract.replica import Operation

CLIENTS, FOLLOWERS, ELECTION = 2181, 2888, 3888
PACKAGES = (
    *("zookeeper", "libzookeeper-java", "libnetty-java", "libslf4j-java"),
    *("libdropwizard-metrics-java", "libsnappy-java", "liblog4j1.2-java"),
    *("libcommons-io-java", "libcommons-cli-java", "libjackson2-core-java"),
    *("libjackson2-databind-java", "libjackson2-annotations-java", "libfindbugs-annotations-java"),
)
CONFIGURATION = """\
tickTime=500
initLimit=20
syncLimit=4
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr, mntr
"""
LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    # One line and a trace for each client that it turns away.
    "-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.server.NIOServerCnxn=error",
)
OTHER_LOGGERS = re.compile(r"slf4j-(nop|jcl|jdk14|log4j12|migrator)|(log4j|jcl)-over-slf4j")
"""Only one can be, and of several Java takes any: slf4j-simple, to standard error."""
SYNCS = "zk_cnt_fsynctime"
SESSION_MS = 10_000
CREATE, GET, SET, SYNC = 1, 4, 5, 9
NO_NODE, BAD_VERSION, NODE_EXISTS = -101, -103, -110
ANYBODY = struct.pack(">ii", 1, 31)
"""One entry of an access list, with all permissions."""
_ANY_VERSION, _NO_DATA = -1, b""
_TRIES = 5


class ZooKeeperError(OSError):
    """An answer with an error code after which nobody knows."""

    def __init__(self, code: int) -> None:
        super().__init__(f"error {code} of ZooKeeper")
        self.code = code


class _Session(Connection):
    """A connection with a session, which ends by its time-out once this is closed."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__(address, timeout_s)
        self._xid = 0
        try:
            self._send(struct.pack(">iqiq", 0, 0, SESSION_MS, 0) + _buffer(bytes(16)) + b"\0")
            self._frame()
        except OSError as error:
            self.close()
            raise NotApplied(f"not sent: no session: {error}") from None

    def ask(self, kind: int, body: bytes) -> tuple[int, bytes]:
        """The zxid and the rest of an answer. Raises ZooKeeperError, OSError."""
        self.send(kind, body)
        return self.answer()

    def send(self, kind: int, body: bytes) -> None:
        """Ask, and take the `answer` later: answers come in order."""
        self._xid += 1
        self._send(struct.pack(">ii", self._xid, kind) + body)

    def answer(self) -> tuple[int, bytes]:
        """Of the oldest request that has none yet."""
        frame = self._frame()
        _, zxid, code = struct.unpack_from(">iqi", frame)
        if code:
            raise ZooKeeperError(code)
        return zxid, frame[16:]

    def _send(self, body: bytes) -> None:
        self._socket.sendall(_buffer(body))

    def _frame(self) -> bytes:
        head = self._answers.read(4)
        length = struct.unpack(">i", head)[0] if len(head) == 4 else 0
        body = self._answers.read(length)
        if not length or len(body) < length:
            raise ConnectionError("the connection ended")
        return body


class ZooKeeper(System):
    """``sync``: a read is behind a ``sync``."""

    operations = ("read", "write", "cas", "delete")
    peer_ports = (FOLLOWERS, ELECTION)
    client_ports = (CLIENTS,)
    connections = 16  # Each needs a session, which is a replicated write.

    def __init__(self, name: str, claim: Model, summary: str, *, sync: bool) -> None:
        self.name, self.claim, self.summary = name, claim, summary
        self._sync = sync

    def programs(self) -> Programs:
        """Debian's packages, and a Java that is there."""
        java = on_path("java")
        if java is None:
            raise NotToBeHad("ZooKeeper needs Java: apt-get install default-jre-headless")
        jars = unpacked(PACKAGES) / "usr" / "share" / "java"
        versions = [jar.stem.split("-")[1] for jar in jars.glob("zookeeper-[0-9]*.jar")]
        return Programs(paths={"java": str(java), "jars": str(jars)}, version=versions[0])

    def prepare(self, node: Node, programs: Programs) -> None:
        """Its configuration and its number."""
        data = node.data / "data"
        data.mkdir()
        (data / "myid").write_text(f"{node.number}\n")
        servers = [
            f"server.{number}={host}:{FOLLOWERS}:{ELECTION}"
            for number, host in enumerate(node.hosts.values(), 1)
        ]
        own = [f"dataDir={data}", f"clientPort={CLIENTS}", f"clientPortAddress={node.host}"]
        lines = [*own, *(servers if len(servers) > 1 else [])]
        (node.data / "zoo.cfg").write_text(CONFIGURATION + "\n".join(lines) + "\n")

    def processes(self, node: Node, programs: Programs) -> Sequence[Process]:
        """One JVM."""
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        jars = sorted(Path(programs.paths["jars"]).glob("*.jar"))
        class_path = ":".join(str(jar) for jar in jars if not OTHER_LOGGERS.match(jar.name))
        argv = [programs.paths["java"], "-Xmx128m", "-XX:+UseSerialGC", *LOGGING]
        return [Process(argv=[*argv, "-cp", class_path, main, node.data / "zoo.cfg"])]

    def probe(self, host: str) -> Probe:
        """By the command ``srvr``."""
        said = _said_of_itself(host, b"srvr")
        told = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
        mode = told.get("Mode", "")
        zxid = int(told.get("Zxid", "0"), 16)
        return Probe(
            ready=mode in ("leader", "follower", "standalone"),
            role=mode or "looking",
            term=zxid >> 32,
            position=zxid,
        )

    def syncs(self, host: str) -> int | None:
        """Of its log, by the command ``mntr``."""
        told = dict(line.split("\t", 1) for line in _said_of_itself(host, b"mntr").splitlines())
        return int(told[SYNCS])

    def client(self, cluster: SystemFile, node: str, timeout_s: float) -> SystemClient:
        """Of that server, with a session of its own."""
        return _Client(cluster.address(node, CLIENTS), timeout_s, sync=self._sync)


def _said_of_itself(host: str, command: bytes) -> str:
    """The answer to a command of four letters. Raises OSError."""
    with socket.create_connection((host, CLIENTS), PROBE_S) as sock:
        sock.sendall(command)
        return b"".join(iter(lambda: sock.recv(4096), b"")).decode()


class _Client(SystemClient):
    def __init__(self, address: Address, timeout_s: float, *, sync: bool) -> None:
        self._sync = sync
        self._kept = Kept(lambda: _Session(address, timeout_s))

    def close(self) -> None:
        self._kept.close()

    def invoke(self, operation: Operation) -> Answer:
        session, path = self._kept.ready(), _buffer(f"/{operation.key}".encode())
        match operation.op:
            case "read":
                return _read(session, path, sync=self._sync).answer
            case "delete":
                return Answer(version=_set(session, path, _NO_DATA))
            case "write":
                return _write(session, path, encode(operation.value))
            case "cas":
                return self._cas(session, path, operation)
        raise NotApplied(f"no such operation: {operation.op}")

    def _cas(self, session: _Session, path: bytes, operation: Operation) -> Answer:
        data = encode(operation.value)
        for number in range(_TRIES):
            # What was not there any more at the first try was old.
            there = _read(session, path, sync=self._sync or number > 0)
            seen = there.answer
            if encode(seen.value) != encode(operation.expected):
                return Answer(applied=False, seen=seen.value, version=seen.version)
            if there.data_version is None:
                changed = _create(session, path, data)
            else:
                changed = _set(session, path, data, there.data_version)
            if changed is not None:
                return Answer(applied=True, version=changed)
        raise NotApplied(f"changed by others, {_TRIES} times")


class _There(NamedTuple):
    """What a node holds. ``data_version``: how often it was set, None: there is no such node."""

    answer: Answer
    data_version: int | None = None


def _read(session: _Session, path: bytes, *, sync: bool) -> _There:
    if sync:
        session.send(SYNC, path)
    session.send(GET, path + b"\0")
    if sync:
        session.answer()
    try:
        _, said = session.answer()
    except ZooKeeperError as error:
        if error.code != NO_NODE:
            raise
        return _There(Answer())
    (length,) = struct.unpack_from(">i", said)
    _, mzxid, _, _, data_version = struct.unpack_from(">qqqqi", said, 4 + length)
    data = said[4 : 4 + length]
    return _There(Answer(decode(data) if data else None, mzxid), data_version)


def _set(
    session: _Session, path: bytes, data: bytes, data_version: int = _ANY_VERSION
) -> int | None:
    """The zxid of the change; None: there is no such node, or it is of another version."""
    try:
        return session.ask(SET, path + _buffer(data) + struct.pack(">i", data_version))[0]
    except ZooKeeperError as error:
        if error.code not in (NO_NODE, BAD_VERSION):
            raise
        return None


def _create(session: _Session, path: bytes, data: bytes) -> int | None:
    """The zxid of the change; None: it is there already."""
    access = ANYBODY + _buffer(b"world") + _buffer(b"anyone")
    try:
        return session.ask(CREATE, path + _buffer(data) + access + struct.pack(">i", 0))[0]
    except ZooKeeperError as error:
        if error.code != NODE_EXISTS:
            raise
        return None


def _write(session: _Session, path: bytes, data: bytes) -> Answer:
    """Set it where it is, else create it; if somebody else was faster with that, set it."""
    for change in (_set, _create, _set):
        changed = change(session, path, data)
        if changed is not None:
            return Answer(version=changed)
    raise NotApplied("deleted by others")


def _buffer(raw: bytes) -> bytes:
    return struct.pack(">i", len(raw)) + raw


ZOOKEEPER = ZooKeeper(
    "zookeeper",
    "sequential",
    "ZooKeeper with its defaults: writes through the leader, reads from any server",
    sync=False,
)
ZOOKEEPER_SYNC = ZooKeeper(
    "zookeeper-sync",
    "linearizable",
    "the same, but every read is behind a sync",
    sync=True,
)
