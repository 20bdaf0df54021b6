"""Redis with Sentinel: one master, asynchronous replicas, and a sentinel beside each to fail over.

Sentinel's documentation says what is promised: eventual consistency, "where the merge function is
last failover wins", so that acknowledged writes may be lost. ``min-replicas-to-write`` and WAIT
narrow that window, and do not close it.

A client asks the sentinel of its node who is master, when it connects and then at most every
`RESOLVE_EVERY_S`, as clients do that listen to their sentinel; so who is on the side of a master
that was cut off stays with it. Reads go to the master, too.

What it says of errors (server.c, processCommand): READONLY, LOADING, MASTERDOWN, NOREPLICAS,
MISCONF, OOM and BUSY reject a command before it is carried out: certainly not applied. All else,
nobody knows. With WAIT, a write that too few replicas have acknowledged was written all the same:
nobody knows what becomes of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.record.cluster_file import Address, SystemFile
from chaos.systems.connection import FORM_S, PROBE_S, Connection
from chaos.systems.getting import libraries, on_path, said_version, unpacked
from chaos.systems.system import (
    Answer,
    Node,
    NotApplied,
    Probe,
    Process,
    Programs,
    System,
    SystemClient,
    client_key,
    decode,
    encode,
)
from nodes.contract.replica import Operation
from nodes.parts.quorum import majority

REDIS, SENTINEL = 6379, 26379
MASTER = "capbench"
RESOLVE_EVERY_S = 0.25
SETTINGS = {"down-after-milliseconds": "1000", "failover-timeout": "5000"}
"""Of the sentinels: shorter than their defaults (30 s, 3 min), as for nodes in one place."""
PACKAGES = (
    *("redis-server", "redis-tools", "redis-sentinel"),
    *("libjemalloc2", "liblzf1", "lua-cjson", "lua-bitop", "liblua5.1-0"),
    *("libhiredis0.14", "libatomic1"),
)
REJECTED = ("READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "MISCONF", "OOM", "BUSY")
CAS = """\
local there = redis.call('GET', KEYS[1])
if there == (ARGV[3] == '1' and ARGV[1]) then redis.call('SET', KEYS[1], ARGV[2]) return {1} end
return {0, there}
"""


class RedisError(OSError):
    """An error that Redis answered, as it said it."""


class NoMaster(OSError):
    """A sentinel was not shown the master yet."""


class Resp(Connection):
    """One connection to a Redis or a sentinel, in their protocol (RESP 2)."""

    def ask(self, *words: str | bytes) -> Any:
        """The answer to a command. Raises RedisError, OSError."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        bulk = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(b"*%d\r\n%s" % (len(parts), bulk))
        return self._answer()

    def _answer(self) -> Any:
        line = self._answers.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection ended in an answer")
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return rest
            case b"-":
                raise RedisError(rest.decode(errors="replace"))
            case b":":
                return int(rest)
            case b"$":
                return self._bulk(int(rest))
            case b"*":
                return [self._answer() for _ in range(int(rest))]
        raise ConnectionError(f"no answer of Redis: {line[:40]!r}")

    def _bulk(self, length: int) -> bytes | None:
        if length < 0:
            return None
        body = self._answers.read(length + 2)
        if len(body) < length + 2:
            raise ConnectionError("the connection ended in an answer")
        return body[:-2]


class RedisSentinel(System):
    """``wait``: writes ask that a majority have them (WAIT). ``min_replicas``: the master refuses
    writes without enough replicas."""

    claim = "eventual"
    peer_ports = (REDIS, SENTINEL)
    client_ports = (REDIS, SENTINEL)

    def __init__(
        self,
        name: str,
        summary: str,
        *,
        wait: bool = False,
        min_replicas: bool = False,
    ) -> None:
        self.name, self.summary = name, summary
        self._wait, self._min_replicas = wait, min_replicas

    def programs(self) -> Programs:
        """On PATH, else unpacked from Debian's packages."""
        server, sentinel = on_path("redis-server"), on_path("redis-sentinel")
        libraries_of: dict[str, str] = {}
        if server is None or sentinel is None:
            folder = unpacked(PACKAGES)
            server = folder / "usr" / "bin" / "redis-server"
            sentinel = server.with_name("redis-sentinel")
            libraries_of = libraries(folder)
        version = said_version([server, "--version"], r"v=(\S+)", libraries_of)
        paths = {"redis": str(server), "sentinel": str(sentinel)}
        return Programs(paths=paths, version=version, environment=libraries_of)

    def prepare(self, node: Node, programs: Programs) -> None:
        """Their configurations, which they rewrite after a failover."""
        first = next(iter(node.hosts.values()))
        redis = [
            f"bind {node.host}",
            f"port {REDIS}",
            f"dir {node.data}",
            f"replica-announce-ip {node.host}",
            "protected-mode no",
            "appendonly yes",
            'save ""',
            "repl-diskless-sync-delay 0",
        ]
        if node.number > 1:
            redis.append(f"replicaof {first} {REDIS}")
        if self._min_replicas:
            redis += [
                f"min-replicas-to-write {majority(len(node.hosts)) - 1}",
                "min-replicas-max-lag 1",
            ]
        sentinel = [
            f"bind {node.host}",
            f"port {SENTINEL}",
            f"dir {node.data}",
            f"sentinel announce-ip {node.host}",
            "protected-mode no",
        ]
        _write(node.data / "redis.conf", redis)
        _write(node.data / "sentinel.conf", sentinel)

    def processes(self, node: Node, programs: Programs) -> Sequence[Process]:
        """Redis and its sentinel."""
        return [
            Process(argv=[programs.paths["redis"], node.data / "redis.conf"]),
            Process(
                argv=[programs.paths["sentinel"], node.data / "sentinel.conf"], name="sentinel"
            ),
        ]

    def form(self, hosts: Mapping[str, str]) -> None:
        """Show the master to the sentinels when it has its replicas, which they find at once then,
        and wait until each knows all others. One that knows no replica could not fail over."""
        first, others = next(iter(hosts.values())), len(hosts) - 1
        _wait(lambda: _replication(first)["connected_slaves"] == str(others), "the replicas")
        for host in hosts.values():
            quorum = str(majority(len(hosts)))
            _ask(Address(host, SENTINEL), "SENTINEL", "MONITOR", MASTER, first, str(REDIS), quorum)
            for name, value in SETTINGS.items():
                _ask(Address(host, SENTINEL), "SENTINEL", "SET", MASTER, name, value)

        def known() -> bool:
            told = [_monitored(host) for host in hosts.values()]
            counts = {each[what] for each in told for what in ("num-other-sentinels", "num-slaves")}
            return counts == {str(others)}

        _wait(known, "the sentinels to know each other")

    def probe(self, host: str) -> Probe:
        """By what Redis says of replication, and its sentinel of the failover."""
        info = _replication(host)
        try:
            epoch = int(_monitored(host)["config-epoch"])
        except NoMaster:
            epoch = None
        leads = info["role"] == "master"
        return Probe(
            ready=epoch is not None and (leads or info["master_link_status"] == "up"),
            role="leader" if leads else "follower",
            id=host,
            leader=host if leads else info["master_host"],
            term=epoch,
            position=int(info["master_repl_offset" if leads else "slave_repl_offset"]),
        )

    def client(self, cluster: SystemFile, node: str, timeout_s: float) -> SystemClient:
        """That follows the sentinel of its node."""
        acks = majority(len(cluster.nodes)) - 1 if self._wait else 0
        return _Client(cluster, node, timeout_s, acks)


class _Client(SystemClient):
    def __init__(self, cluster: SystemFile, node: str, timeout_s: float, acks: int) -> None:
        self._cluster, self._node, self._timeout_s, self._acks = cluster, node, timeout_s, acks
        self._sentinel: Resp | None = None
        self._redis: Resp | None = None
        self._master: str | None = None
        self._resolved = 0.0

    def close(self) -> None:
        for connection in (self._sentinel, self._redis):
            if connection is not None:
                connection.close()
        self._sentinel = self._redis = self._master = None

    def invoke(self, operation: Operation) -> Answer:
        redis = self._to_master()
        try:
            return self._carry_out(redis, operation)
        except RedisError as error:
            if str(error).split(" ")[0] in REJECTED:
                self._resolved = 0.0  # It may be master no more.
                raise NotApplied(str(error)) from None
            raise

    def _carry_out(self, redis: Resp, operation: Operation) -> Answer:
        key, value = client_key(operation.key), encode(operation.value)
        match operation.op:
            case "read":
                return Answer(_value(redis.ask("GET", key)))
            case "write":
                redis.ask("SET", key, value)
            case "delete":
                redis.ask("DEL", key)
            case "cas":
                known = "0" if operation.expected is None else "1"
                expected = encode(operation.expected)
                said = redis.ask("EVAL", CAS, "1", key, expected, value, known)
                if not said[0]:
                    # A script's table ends where it has nothing.
                    seen = _value(said[1]) if len(said) > 1 else None
                    return Answer(applied=False, seen=seen)
        self._wait_for_replicas(redis)
        return Answer(applied=True if operation.op == "cas" else None)

    def _wait_for_replicas(self, redis: Resp) -> None:
        if self._acks:
            had = redis.ask("WAIT", str(self._acks), str(int(self._timeout_s * 1000)))
            if had < self._acks:
                raise RedisError(f"WAIT: {had} replicas of {self._acks} have it")

    def _to_master(self) -> Resp:
        """Raises NotApplied."""
        if self._redis is not None and self._redis.stale:
            self.close()
        if self._redis is None or time.monotonic() > self._resolved + RESOLVE_EVERY_S:
            master = self._ask_sentinel()
            if master != self._master and self._redis is not None:
                self._redis.close()
                self._redis = None
            self._master, self._resolved = master, time.monotonic()
            if self._redis is None:
                self._redis = Resp(self._cluster.address(master, REDIS), self._timeout_s)
        return self._redis

    def _ask_sentinel(self) -> str:
        """The node of the master. Raises NotApplied."""
        try:
            if self._sentinel is None or self._sentinel.stale:
                self._sentinel = Resp(self._cluster.address(self._node, SENTINEL), self._timeout_s)
            host, _ = self._sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        except (OSError, RedisError, TypeError, ValueError) as error:
            self.close()
            raise NotApplied(f"not sent: no answer from the sentinel: {error}") from None
        master = self._cluster.node_at(host.decode())
        if master is None:
            raise NotApplied(f"not sent: the sentinel names a master that is no node: {host!r}")
        return master


def _ask(address: Address, *words: str) -> Any:
    """Raises OSError, RedisError."""
    try:
        connection = Resp(address, PROBE_S)
    except NotApplied as error:
        raise OSError(str(error)) from None
    try:
        return connection.ask(*words)
    finally:
        connection.close()


def _replication(host: str) -> dict[str, str]:
    said = _ask(Address(host, REDIS), "INFO", "replication")
    return dict(line.split(":", 1) for line in said.decode().split("\r\n") if ":" in line)


def _monitored(host: str) -> dict[str, str]:
    """What the sentinel of that node knows of the master. Raises NoMaster, OSError."""
    try:
        return _pairs(_ask(Address(host, SENTINEL), "SENTINEL", "MASTER", MASTER))
    except RedisError as error:
        raise NoMaster(str(error)) from None


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + FORM_S
    while not condition():
        if time.monotonic() > deadline:
            raise OSError(f"waited {FORM_S:.0f} s in vain for {what}")
        time.sleep(0.05)


def _pairs(said: Sequence[bytes]) -> dict[str, str]:
    words = [word.decode() for word in said]
    return dict(zip(words[::2], words[1::2], strict=True))


def _value(stored: bytes | None) -> Any:
    return None if stored is None else decode(stored)


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


REDIS_SENTINEL = RedisSentinel(
    "redis-sentinel",
    "Redis, replicated asynchronously; sentinels fail over, and the last failover wins",
)
REDIS_MIN_REPLICAS = RedisSentinel(
    "redis-sentinel-min-replicas",
    "the same, but a master without a majority of replicas that lag at most 1 s refuses writes",
    min_replicas=True,
)
REDIS_WAIT = RedisSentinel(
    "redis-sentinel-wait",
    "the same, but a write is ok only when a majority has acknowledged it (WAIT)",
    wait=True,
)
