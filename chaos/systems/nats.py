"""NATS JetStream's key-value buckets: a stream for each bucket, replicated by Raft.

A get is *direct* by default, as the clients of NATS make their buckets: any replica answers from
what it has. The documentation (docs.nats.io, Key/Value Store) promises monotonic writes and
monotonic reads, not that one reads one's own writes, and "more consistent results" where the
stream's leader is asked, without saying how much more. So both modes claim *eventual*; the run
measures the rest.

Nobody can ask one replica: a direct get goes to any of them, whichever server a client is connected
to. So three final reads of a key can all be answered by the one replica that is behind, and a write
that the stream has looks lost. Therefore the final reads of the first node ask the leader, who
knows what was acknowledged (`Nats.final_client`). Every write that is ``ok`` has the sequence
number at which the stream stored it.

What it says of errors (server/client.go, server/stream.go, server/errors.json):

- status 503, *no responders*: nobody was subscribed, so nothing was delivered: not applied;
- *wrong last sequence* (10071) is said instead of storing, and so is *no message found* (10037);
- all other errors may be of what was proposed to other servers, and silence says nothing: nobody
  knows.
"""

from __future__ import annotations

import base64
import itertools
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.record.cluster_file import Address, SystemFile
from chaos.systems.connection import FORM_S, PROBE_S, Connection, Kept
from chaos.systems.getting import Module, built, on_path, said_version, unpacked
from chaos.systems.system import (
    Answer,
    Node,
    NotApplied,
    Probe,
    Process,
    Programs,
    System,
    SystemClient,
    decode,
    encode,
)
from nodes.contract.replica import Operation

CLIENTS, ROUTES, MONITOR = 4222, 6222, 8222
DEBIANS = "2.9.10"
NEWER = Module(
    "github.com/nats-io/nats-server/v2",
    "2.15.2",
    "h1:yLsgt2kslgymvxvjFq1WGWck5hkat2YYfbXvQ145tzU=",
    "h1:VXHCZgDglV5wO2B8ZE58yG2HzqxQxYUbQqibUh5Xcr8=",
)
BUCKET = "capbench"
STREAM = f"KV_{BUCKET}"
WRONG_LAST_SEQUENCE, NO_MESSAGE = 10071, 10037
ASK_AGAIN_S = 2.0
"""A server that does not know yet who leads all of them does not answer."""
_TRIES = 5
_HELLO = {"verbose": False, "headers": True, "no_responders": True, "protocol": 1}


class NatsError(OSError):
    """An error that JetStream answered. ``code``: its own (``err_code``)."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(str(said.get("description", said)))
        self.code = said.get("err_code")


class Message(NamedTuple):
    """``headers``: with lower-case names; its status has the name ``status``."""

    headers: dict[str, str]
    payload: bytes


class _Connection(Connection):
    """One connection to a server, which asks one thing after the other."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__(address, timeout_s)
        self._inbox = f"_INBOX.{BUCKET}.{id(self)}.{time.monotonic_ns()}"
        self._number = itertools.count(1)
        try:
            self._line()  # INFO
            self._send(
                b"CONNECT %s\r\nSUB %s.* 1\r\nPING\r\n"
                % (msgspec.json.encode(_HELLO), self._inbox.encode())
            )
            while self._line() != b"PONG":
                pass
        except OSError as error:
            self.close()
            raise NotApplied(f"not sent: no connection: {error}") from None

    def ask(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> Message:
        """The reply. Raises NotApplied where nobody is subscribed, OSError."""
        inbox = f"{self._inbox}.{next(self._number)}"
        if headers:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"NATS/1.0\r\n{lines}\r\n".encode()
            sizes = f"{len(head)} {len(head) + len(payload)}"
            payload, verb = head + payload, "HPUB"
        else:
            sizes, verb = str(len(payload)), "PUB"
        self._send(f"{verb} {subject} {inbox} {sizes}\r\n".encode() + payload + b"\r\n")
        message = self._reply(inbox)
        if message.headers.get("status") == "503":
            raise NotApplied("no responders")
        return message

    def api(self, subject: str, body: Any) -> Any:
        """What JetStream answers to a request with an object. Raises NatsError as well."""
        return _object(self.ask(f"$JS.API.{subject}", msgspec.json.encode(body)))

    def _reply(self, inbox: str) -> Message:
        """Replies to what was asked before come late, and are left out."""
        while True:
            verb, *words = self._line().decode().split(" ")
            if verb == "PING":
                self._send(b"PONG\r\n")
            elif verb == "-ERR":
                raise ConnectionError(" ".join(words))
            elif verb in ("MSG", "HMSG"):
                size = int(words[-1])
                body = self._answers.read(size + 2)
                if len(body) < size + 2:
                    raise ConnectionError("the connection ended in a reply")
                if words[0] == inbox:
                    split = int(words[-2]) if verb == "HMSG" else 0
                    return Message(_headers(body[:split]), body[split:-2])

    def _line(self) -> bytes:
        line = self._answers.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection ended")
        return line[:-2]

    def _send(self, raw: bytes) -> None:
        self._socket.sendall(raw)


class Nats(System):
    """``direct``: any replica answers gets; else the leader of the bucket's stream does."""

    claim = "eventual"
    peer_ports = (ROUTES,)
    client_ports = (CLIENTS,)
    versions = (DEBIANS, NEWER.version)

    def __init__(self, name: str, summary: str, *, direct: bool) -> None:
        self.name, self.summary, self._direct = name, summary, direct

    def programs(self) -> Programs:
        """On PATH, else unpacked from Debian's package; the newest version is built if named."""
        server = built("nats-server", NEWER) if self.version == NEWER.version else _server()
        version = said_version([server, "--version"], r"v(\d\S+)", {}, self.version)
        return Programs(paths={"nats": str(server)}, version=version)

    def prepare(self, node: Node, programs: Programs) -> None:
        """Its configuration; all else is as NATS has it."""
        lines = [
            f'server_name: "{_server_name(node.host)}"',
            f'listen: "{node.host}:{CLIENTS}"',
            f'http: "{node.host}:{MONITOR}"',
            f'jetstream {{ store_dir: "{node.data}" }}',
        ]
        others = [f'"nats://{host}:{ROUTES}"' for host in node.hosts.values() if host != node.host]
        if others:
            lines.append(
                f'cluster {{ name: {BUCKET}, listen: "{node.host}:{ROUTES}", '
                f"routes: [{', '.join(others)}] }}"
            )
        (node.data / "nats.conf").write_text("\n".join(lines) + "\n")

    def processes(self, node: Node, programs: Programs) -> Sequence[Process]:
        """One."""
        return [Process(argv=[programs.paths["nats"], "-c", node.data / "nats.conf"])]

    def form(self, hosts: Mapping[str, str]) -> None:
        """Make the bucket, as soon as the servers have elected who may."""
        wanted = {
            "name": STREAM,
            "subjects": [f"$KV.{BUCKET}.>"],
            "max_msgs_per_subject": 1,
            "storage": "file",
            "num_replicas": len(hosts),
            "discard": "new",
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": self._direct,
        }
        deadline = time.monotonic() + FORM_S
        while True:
            try:
                connection = _Connection(Address(next(iter(hosts.values())), CLIENTS), ASK_AGAIN_S)
                try:
                    connection.api(f"STREAM.CREATE.{STREAM}", wanted)
                finally:
                    connection.close()
                return
            except (NotApplied, OSError) as error:
                if time.monotonic() > deadline:
                    raise OSError(f"the bucket cannot be made: {error}") from None
                time.sleep(0.2)

    def probe(self, host: str) -> Probe:
        """By its monitoring: who leads the bucket's stream."""
        asked = f"http://{host}:{MONITOR}/jsz?accounts=true&streams=true"
        with urllib.request.urlopen(asked, timeout=PROBE_S) as answer:
            said = msgspec.json.decode(answer.read())
        details = [
            stream
            for account in said.get("account_details") or ()
            for stream in account.get("stream_detail") or ()
            if stream["name"] == STREAM
        ]
        name = _server_name(host)
        if not details:
            return Probe(ready=False, role="follower", id=name)
        (stream,) = details
        leader = (stream.get("cluster") or {"leader": name}).get("leader")
        return Probe(
            ready=bool(leader),
            role="leader" if leader == name else "follower",
            id=name,
            leader=leader,
            position=stream["state"]["last_seq"],
        )

    def client(self, cluster: SystemFile, node: str, timeout_s: float) -> SystemClient:
        """Connected to that server, which passes on to where the stream's leader is."""
        return _Client(cluster.address(node, CLIENTS), timeout_s, direct=self._direct)

    def final_client(self, cluster: SystemFile, node: str, timeout_s: float) -> SystemClient:
        """At the first node, of the stream's leader."""
        direct = self._direct and node != cluster.nodes[0]
        return _Client(cluster.address(node, CLIENTS), timeout_s, direct=direct)


class _Client(SystemClient):
    def __init__(self, address: Address, timeout_s: float, *, direct: bool) -> None:
        self._direct = direct
        self._kept = Kept(lambda: _Connection(address, timeout_s))

    def close(self) -> None:
        self._kept.close()

    def invoke(self, operation: Operation) -> Answer:
        nats, subject = self._kept.ready(), f"$KV.{BUCKET}.{operation.key}"
        match operation.op:
            case "read":
                return self._read(nats, subject)
            case "write":
                said = _object(nats.ask(subject, encode(operation.value)))
            case "delete":
                said = _object(nats.ask(subject, b"", {"KV-Operation": "DEL"}))
            case "cas":
                return self._cas(nats, subject, operation)
        return Answer(version=said["seq"])

    def _read(self, nats: _Connection, subject: str) -> Answer:
        if self._direct:
            found = nats.ask(f"$JS.API.DIRECT.GET.{STREAM}.{subject}", b"")
            status = found.headers.get("status")
            if status is not None and status != "404":
                raise OSError(f"status {status}")
            version = found.headers.get("nats-sequence", "0")
        else:
            try:
                said = nats.api(f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": subject})["message"]
            except NatsError as error:
                if error.code != NO_MESSAGE:
                    raise
                return Answer()
            headers = _headers(base64.b64decode(said.get("hdrs", "")))
            found = Message(headers, base64.b64decode(said.get("data", "")))
            version = said["seq"]
        if not found.payload:
            return Answer(version=int(version) or None)
        return Answer(decode(found.payload), int(version))

    def _cas(self, nats: _Connection, subject: str, operation: Operation) -> Answer:
        """Written only if the sequence is still that at which the expected value was read."""
        for _ in range(_TRIES):
            there = self._read(nats, subject)
            if there.value != operation.expected:
                return Answer(version=there.version, applied=False, seen=there.value)
            last = {"Nats-Expected-Last-Subject-Sequence": str(there.version or 0)}
            try:
                said = _object(nats.ask(subject, encode(operation.value), last))
            except NatsError as error:
                if error.code != WRONG_LAST_SEQUENCE:
                    raise
            else:
                return Answer(version=said["seq"], applied=True)
        raise NotApplied(f"written by others in between, {_TRIES} times")


def _server() -> Path:
    there = on_path("nats-server")
    return there or unpacked(["nats-server"]) / "usr" / "sbin" / "nats-server"


def _server_name(host: str) -> str:
    """It becomes part of subjects, which dots would divide."""
    return host.replace(".", "-")


def _object(message: Message) -> Any:
    said = msgspec.json.decode(message.payload)
    if "error" in said:
        raise NatsError(said["error"])
    return said


def _headers(raw: bytes) -> dict[str, str]:
    first, *lines = raw.decode().split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    found = {name.lower(): value.strip() for name, _, value in pairs}
    if status := first.removeprefix("NATS/1.0").split():
        found["status"] = status[0]
    return found


NATS_KV = Nats(
    "nats-kv",
    "a key-value bucket of NATS JetStream with its defaults: gets are answered by any replica",
    direct=True,
)
NATS_KV_LEADER = Nats(
    "nats-kv-leader",
    "the same, but gets are answered by the leader of the bucket's stream",
    direct=False,
)
