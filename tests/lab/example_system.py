"""A key-value store of one's own as a system of capbench: server, description and client.

Writes go to n1, which copies them to the others. It acknowledges them too early: that is the bug.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from bench.record.cluster_file import Address, SystemFile
from chaos.systems.catalogue import register
from chaos.systems.connection import PROBE_S, connected
from chaos.systems.system import Answer, Node, Probe, Process, Programs, System, SystemClient
from nodes.contract.replica import Operation

PORT = 7000


class Server:
    """One node: JSON lines in, JSON lines out."""

    def __init__(self, name: str, hosts: dict[str, str]) -> None:
        self.name, self.hosts = name, hosts
        self.data: dict[str, Any] = {}

    async def serve(self) -> None:
        server = await asyncio.start_server(self.answer, self.hosts[self.name], PORT)
        await server.serve_forever()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            said = await self.handle(json.loads(line))
            writer.write(json.dumps(said).encode() + b"\n")
        writer.close()

    async def handle(self, asked: dict[str, Any]) -> dict[str, Any]:
        match asked["op"]:
            case "get":
                return {"value": self.data.get(asked["key"])}
            case "put" if self.name != "n1":
                return await self.ask("n1", asked)
            case "put" | "copy":
                self.data[asked["key"]] = asked["value"]
                if asked["op"] == "put":
                    # The bug: nobody waits for the copies.
                    copy = {**asked, "op": "copy"}
                    others = self.hosts.keys() - {"n1"}
                    self.copies = [asyncio.ensure_future(self.ask(n, copy)) for n in others]
        return {"name": self.name}

    async def ask(self, node: str, asked: dict[str, Any]) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection(self.hosts[node], PORT)
        writer.write(json.dumps(asked).encode() + b"\n")
        said: dict[str, Any] = json.loads(await reader.readline())
        writer.close()
        return said


def ask(address: Address, asked: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Raises NotApplied where there is no connection; whatever comes later, nobody knows."""
    with connected(address, timeout_s) as sock, sock.makefile("rwb") as stream:
        stream.write(json.dumps(asked).encode() + b"\n")
        stream.flush()
        said: dict[str, Any] = json.loads(stream.readline())
        return said


class Client(SystemClient):
    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address, self.timeout_s = address, timeout_s

    def invoke(self, operation: Operation) -> Answer:
        asked: dict[str, Any] = {"op": "get", "key": operation.key}
        if operation.op == "write":
            asked |= {"op": "put", "value": operation.value}
        return Answer(ask(self.address, asked, self.timeout_s).get("value"))


class MySystem(System):
    name = "my-system"
    summary = "n1 takes the writes and copies them; every node answers reads"
    claim = "linearizable"
    operations = ("read", "write")
    peer_ports = (PORT,)
    client_ports = (PORT,)

    def programs(self) -> Programs:
        return Programs(paths={"python": sys.executable}, version="1")

    def processes(self, node: Node, programs: Programs) -> Sequence[Process]:
        hosts = [f"{name}={host}" for name, host in node.hosts.items()]
        return [Process(argv=[programs.paths["python"], __file__, node.name, *hosts])]

    def probe(self, host: str) -> Probe:
        name = ask(Address(host, PORT), {"op": "who"}, PROBE_S)["name"]
        role = "leader" if name == "n1" else "follower"
        return Probe(ready=True, role=role, id=name, leader="n1")

    def client(self, cluster: SystemFile, node: str, timeout_s: float) -> SystemClient:
        return Client(cluster.address(node, PORT), timeout_s)


if __name__ == "__main__":
    asyncio.run(Server(sys.argv[1], dict(pair.split("=") for pair in sys.argv[2:])).serve())
else:
    register(MySystem())
