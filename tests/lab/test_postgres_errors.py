"""What PostgreSQL's answers say of an operation, by a server that gives the answer wanted."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from bench.load.system_client import carried_out
from bench.record.cluster_file import Address
from chaos.systems import catalogue
from nodes.contract.replica import Operation, Outcome, Request
from tests.lab.servers import own_host, reached

READY, DONE = b"I", b"INSERT 0 1\0"


def message(kind: str, body: bytes) -> bytes:
    return kind.encode() + struct.pack(">i", len(body) + 4) + body


def said(kind: str, severity: str, state: str) -> bytes:
    """An error (E) or a notice (N)."""
    fields = (("S", severity), ("V", severity), ("C", state), ("M", "because"))
    return message(kind, "".join(f"{name}{text}\0" for name, text in fields).encode() + b"\0")


@contextlib.contextmanager
def server(answer: bytes, *, standby: bool = False) -> Iterator[Address]:
    """Gives that answer to the first request of each session, and hangs up."""
    recovery = f"in_hot_standby\0{'on' if standby else 'off'}\0".encode()
    hello = message("R", bytes(4)) + message("S", recovery) + message("Z", READY)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client:
                    client.recv(1 << 16)
                    client.sendall(hello)
                    if client.recv(1 << 16):
                        client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Address(*listening.getsockname()[:2])
        # Closing alone would leave the thread that waits in accept.
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def outcome(address: Address) -> Outcome:
    system = catalogue.get("postgres")
    cluster = reached(system, address.host, {"5432": address})
    client = system.client(cluster, "n1", 5.0)
    try:
        return carried_out(client, Request("c", 0, Operation("write", "k", 1))).outcome
    finally:
        client.close()


def test_a_server_that_takes_no_sessions_yet_answers_all_the_same() -> None:
    with socket.create_server((own_host(), 5432)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(1 << 16)
                client.sendall(said("E", "FATAL", "57P03"))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        probe = catalogue.get("postgres").probe(listening.getsockname()[0])
        thread.join()
    assert (probe.ready, probe.role, probe.position) == (False, "starting", None)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (message("C", DONE) + message("Z", READY), "ok"),
        (said("E", "ERROR", "25006") + message("Z", READY), "fail"),
        (said("E", "ERROR", "53100") + message("Z", READY), "fail"),
        (said("E", "ERROR", "58030") + message("Z", READY), "info"),
        (said("E", "ERROR", "40003") + message("Z", READY), "info"),
        (said("E", "FATAL", "57P01"), "info"),
        (said("N", "WARNING", "01000") + message("C", DONE) + message("Z", READY), "info"),
        (said("N", "NOTICE", "00000") + message("C", DONE) + message("Z", READY), "ok"),
        (message("C", DONE)[:5], "info"),
    ],
    ids=[
        "done",
        "read only",
        "disk full",
        "error of the system",
        "completion unknown",
        "going down",
        "committed here only",
        "a notice",
        "cut off",
    ],
)
def test_an_answer_is_what_it_says(answer: bytes, expected: Outcome) -> None:
    with server(answer) as address:
        assert outcome(address) == expected


def test_a_standby_is_not_asked() -> None:
    with server(message("C", DONE) + message("Z", READY), standby=True) as address:
        assert outcome(address) == "fail"
