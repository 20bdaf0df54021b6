"""Who is asked for the keys of a NATS bucket when a run ends: a server notes what it is asked."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from bench.load.transport import make_transport
from bench.record.cluster_file import Address, SystemFile
from chaos.systems.nats import CLIENTS
from nodes.contract.replica import Operation, Request
from tests.waiting import wait_for

asked: list[str] = []


class _Nats(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"INFO {}\r\n")
        for line in self.rfile:
            if line == b"PING\r\n":
                self.wfile.write(b"PONG\r\n")
            elif line.startswith(b"PUB "):
                asked.append(line.decode().split(" ")[1])


@pytest.fixture
def cluster() -> Iterator[SystemFile]:
    asked.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Nats) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = Address("127.0.0.1", server.server_address[1])
        yield SystemFile(
            cluster="c",
            protocol="nats-kv",
            nodes=["n1", "n2"],
            operations=["read"],
            system="nats-kv",
            hosts={"n1": here.host, "n2": here.host},
            endpoints={node: {str(CLIENTS): here} for node in ("n1", "n2")},
        )
        server.shutdown()


def _has_asked(number: int) -> bool:
    return len(asked) == number


@pytest.mark.parametrize(("final", "of_leader"), [(True, ["n1"]), (False, [])])
def test_the_leader_is_asked_in_the_first_nodes_stead(
    cluster: SystemFile, final: bool, of_leader: list[str]
) -> None:
    """Direct gets go to any replica: three of them can miss what the stream has."""
    transport = make_transport(cluster, "final-1", lambda _: None, timeout_s=0.2, final=final)
    for number, node in enumerate(cluster.nodes, 1):
        transport.publish(node, [Request("c", number, Operation("read", "k1"))])
        wait_for(partial(_has_asked, number), f"a request to {node}")
    transport.close()
    kinds = [subject.split(".")[2] for subject in asked]
    assert kinds == ["STREAM" if node in of_leader else "DIRECT" for node in cluster.nodes]
