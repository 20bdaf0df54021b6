"""etcd: a replicated log of key-value operations, by Raft.

The client speaks to the JSON gateway of its node, which passes on to the leader what the leader
must do. What it says of errors (server/etcdserver/v3_server.go, raft/raft.go, 3.4):

- *too many requests*, and *raft proposal dropped* (the node knows no leader) are said before
  anything is proposed: certainly not applied;
- *request timed out*, *leader changed* and all else may be said of what was proposed, and may still
  be applied: nobody knows.
"""

from __future__ import annotations

import base64
import http.client
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.record.cluster_file import Address, SystemFile
from bench.record.transactions.verdict import Level
from bench.record.verdict import Model
from chaos.systems.connection import PROBE_S, JsonOverHttp, page
from chaos.systems.getting import CACHE, Module, built, on_path, said_version, unpacked
from chaos.systems.system import (
    Answer,
    Node,
    NotApplied,
    Probe,
    Process,
    Programs,
    System,
    SystemClient,
    Transaction,
    client_key,
    decode,
    encode,
)
from nodes.contract.replica import Operation, Value

PEERS, CLIENTS = 2380, 2379
DEBIANS = "3.4.23"
MODULES = {
    version: Module("go.etcd.io/etcd/server/v3", version, f"h1:{whole}=", f"h1:{mod}=")
    for version, whole, mod in (
        (
            "3.5.2",
            "B6ytJvS4Fmt8nkjzS2/8POf4tuPhFMluE0lWd4dx/7U",
            "mlG8znIEz4N/28GABrohZCBM11FqgGVQcpbcyJgh0j0",
        ),
        (
            "3.7.3",
            "KcTZ/aEZrOiQe0/kdr7iYYcvyfbEoOwDOacHkz8xwZc",
            "NElta3Kom1fQux/MhT9Vw5YRQMSaXk6d0MHkvLMpzO8",
        ),
    )
}
NOT_PROPOSED = ("etcdserver: too many requests", "raft proposal dropped")
SYNCS = {
    "etcd_disk_wal_fsync_duration_seconds_count": 1,
    "etcd_disk_backend_commit_duration_seconds_count": 2,
}
"""Metrics that count syncs -> how many each time."""
TRIES = 8
"""Of a transaction, as long as others are faster."""


class Refused(Exception):
    """An error of etcd after which nobody knows."""


def server(cache: Path = CACHE) -> Path:
    """The server: on PATH, else in the cache, else unpacked there from Debian's package. Raises
    NotToBeHad."""
    return on_path("etcd") or unpacked(["etcd-server"], cache=cache) / "usr" / "bin" / "etcd"


class Etcd(System):
    """etcd with its defaults. ``serializable``: reads are answered by the node that was asked, from
    what it has applied, however old."""

    peer_ports = (PEERS,)
    client_ports = (CLIENTS,)
    versions = (DEBIANS, *MODULES)

    def __init__(
        self, name: str, claim: Model, isolation: Level, summary: str, *, serializable: bool
    ) -> None:
        self.name, self.claim, self.summary = name, claim, summary
        self.isolation = isolation
        self._serializable = serializable

    def programs(self) -> Programs:
        """See `server`; a version that was named and is not there is built."""
        wanted = MODULES.get(self.version or "")
        etcd = built("etcd", wanted) if wanted else server()
        version = said_version([etcd, "--version"], r"etcd Version: (\S+)", {}, self.version)
        return Programs(paths={"etcd": str(etcd)}, version=version)

    def processes(self, node: Node, programs: Programs) -> Sequence[Process]:
        """One."""
        client, peer = f"http://{node.host}:{CLIENTS}", f"http://{node.host}:{PEERS}"
        members = ",".join(f"{name}=http://{host}:{PEERS}" for name, host in node.hosts.items())
        argv: list[str | Path] = [
            programs.paths["etcd"],
            *("--name", node.name, "--data-dir", node.data / "etcd"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", members, "--initial-cluster-state", "new"),
            *("--logger", "zap", "--log-level", "warn"),
        ]
        return [Process(argv=argv)]

    def probe(self, host: str) -> Probe:
        """Its status."""
        http = JsonOverHttp(Address(host, CLIENTS), PROBE_S)
        try:
            status, said = http.post("/v3/maintenance/status", {})
        except NotApplied as error:
            raise OSError(str(error)) from None
        finally:
            http.close()
        if status != 200:
            raise OSError(f"status {status}")
        itself, leader = said["header"]["member_id"], said.get("leader", "0")
        return Probe(
            ready=leader != "0",
            role="leader" if leader == itself else "follower",
            id=itself,
            leader=None if leader == "0" else leader,
            term=int(said["header"]["raft_term"]),
            position=int(said["header"].get("revision", 0)),
        )

    def syncs(self, host: str) -> int | None:
        """By its metrics: of the log, and two for each commit of its store, which syncs its pages
        and then its root."""
        told = dict(
            line.split(" ", 1)
            for line in page(Address(host, CLIENTS), "/metrics").splitlines()
            if line.startswith(tuple(SYNCS))
        )
        return sum(SYNCS[name] * int(count) for name, count in told.items())

    def client(self, cluster: SystemFile, node: str, timeout_s: float) -> SystemClient:
        """Of the JSON gateway."""
        return _Client(cluster.address(node, CLIENTS), timeout_s, serializable=self._serializable)


class _Client(SystemClient):
    def __init__(self, address: Address, timeout_s: float, *, serializable: bool) -> None:
        self._http = JsonOverHttp(address, timeout_s)
        self._timeout_s = timeout_s
        self._serializable = serializable

    def close(self) -> None:
        self._http.close()

    def invoke(self, operation: Operation) -> Answer:
        key = _key(operation.key)
        match operation.op:
            case "read":
                said = self._ask("range", {"key": key, "serializable": self._serializable})
                return _read(said)
            case "write":
                said = self._ask("put", {"key": key, "value": _text(encode(operation.value))})
                return Answer(version=_revision(said))
            case "delete":
                said = self._ask("deleterange", {"key": key})
                return Answer(version=_revision(said))
            case "cas":
                return self._cas(key, operation)

    def _cas(self, key: str, operation: Operation) -> Answer:
        if operation.expected is None:
            found = {"target": "CREATE", "createRevision": "0"}
        else:
            found = {"target": "VALUE", "value": _text(encode(operation.expected))}
        put = {"key": key, "value": _text(encode(operation.value))}
        said = self._ask(
            "txn",
            {
                "compare": [{"key": key, "result": "EQUAL", **found}],
                "success": [{"requestPut": put}],
                "failure": [{"requestRange": {"key": key}}],
            },
        )
        if said.get("succeeded"):
            return Answer(version=_revision(said), applied=True)
        there = _read(said["responses"][0]["response_range"])
        return Answer(applied=False, seen=there.value, version=there.version)

    def transaction(self, keys: Sequence[str], work: Callable[[Transaction], None]) -> None:
        """All keys are read at once, and written at once if none of them has changed since."""
        until = time.monotonic() + self._timeout_s
        for _ in range(TRIES):
            snapshot = _Snapshot(self._read_all(keys))
            work(snapshot)
            if not snapshot.written or self._commit(snapshot):
                return
            if time.monotonic() > until:
                break
        raise NotApplied("other transactions were faster")

    def _read_all(self, keys: Sequence[str]) -> dict[str, Answer]:
        ranges = [
            {"requestRange": {"key": _key(key), "serializable": self._serializable}} for key in keys
        ]
        try:
            said = self._ask("txn", {"success": ranges})
        except (OSError, http.client.HTTPException, msgspec.DecodeError, Refused) as error:
            raise NotApplied(f"nothing was written: {error}") from None
        found = [_read(response["response_range"]) for response in said["responses"]]
        return dict(zip(keys, found, strict=True))

    def _commit(self, snapshot: _Snapshot) -> bool:
        same = [
            {
                "key": _key(key),
                "target": "MOD",
                "result": "EQUAL",
                "modRevision": str(found.version or 0),
            }
            for key, found in snapshot.found.items()
        ]
        puts = [
            {"requestPut": {"key": _key(key), "value": _text(encode(value))}}
            for key, value in snapshot.written.items()
        ]
        return bool(self._ask("txn", {"compare": same, "success": puts}).get("succeeded"))

    def _ask(self, what: str, body: Any) -> Any:
        status, said = self._http.post(f"/v3/kv/{what}", body)
        if status == 200:
            return said
        error = str(said.get("error") or said.get("message") or said)
        if any(words in error for words in NOT_PROPOSED):
            raise NotApplied(error)
        raise Refused(error)


class _Snapshot(Transaction):
    """What all keys held at one moment, and what is to be written."""

    def __init__(self, found: dict[str, Answer]) -> None:
        self.found = found
        self.written: dict[str, Value] = {}

    def read(self, key: str) -> Value:
        return self.written[key] if key in self.written else self.found[key].value

    def write(self, key: str, value: Value) -> None:
        self.written[key] = value


def _key(key: str) -> str:
    return _text(client_key(key).encode())


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _revision(said: Any) -> int:
    return int(said["header"]["revision"])


def _read(said: Any) -> Answer:
    if not said.get("kvs"):
        return Answer()
    (found,) = said["kvs"]
    return Answer(decode(base64.b64decode(found["value"])), int(found["mod_revision"]))


ETCD = Etcd(
    "etcd",
    "linearizable",
    "strict-serializable",
    "etcd with its defaults: Raft; reads ask the leader whether it still leads",
    serializable=False,
)
ETCD_SERIALIZABLE = Etcd(
    "etcd-serializable",
    "sequential",
    "serializable",
    "etcd, but reads are serializable: answered by any node from what it has applied",
    serializable=True,
)
