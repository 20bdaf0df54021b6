"""What a node of a lab meets that connects to another. Runs as the first process of a lab's
namespaces, and prints a line for each attempt."""

from __future__ import annotations

import ctypes
import socket
import sys
import threading
from collections.abc import Callable

from chaos.clusters.lab.listening import Listening
from chaos.clusters.lab.network import Network, host, ways

NODES = ("n1", "n2")
PORT = 7000
HOSTS = {node: host(number) for number, node in enumerate(NODES, 1)}


def within(node: str, do: Callable[[], object]) -> None:
    """Do it in the namespace of a node."""

    def entered() -> None:
        with open(f"/run/netns/{node}", "rb") as namespace:
            assert ctypes.CDLL(None).setns(namespace.fileno(), 0x40000000) == 0
        do()

    thread = threading.Thread(target=entered)
    thread.start()
    thread.join()


def attempt(what: str) -> None:
    """From n1 to n2."""

    def connect() -> None:
        try:
            socket.create_connection((HOSTS["n2"], PORT), timeout=0.3).close()
            said = "connected"
        except OSError as error:
            said = type(error).__name__
        print(f"{what}: {said}", flush=True)

    within("n1", connect)


def main() -> None:
    links = ways(NODES, (), (PORT,), ())
    network = Network(NODES, links, sys.argv[1:])
    network.make()
    # In the place of the proxies, which always take connections.
    proxies = [socket.create_server((way.listen.host, way.listen.port)) for way in links]
    changed = threading.Event()

    def on_change(listening: frozenset[tuple[str, int]]) -> None:
        network.open_to(listening)
        changed.set()

    servers: list[socket.socket] = []
    with Listening(HOSTS, on_change):
        attempt("nobody listens")
        within("n2", lambda: servers.append(socket.create_server((HOSTS["n2"], PORT))))
        assert changed.wait(30)
        changed.clear()
        attempt("listens")
        network.cut_between({("n2", "n1")})
        attempt("cut one way")
        network.cut_between({("n1", "n2")})
        attempt("cut the other way")
        network.cut_between(set())
        attempt("healed")
        servers.pop().close()
        assert changed.wait(30)
        attempt("listens no more")
    tried = network.counts()["n1", "n2"].connections
    print(f"attempts counted: {tried}")
    assert len(proxies) == len(links)


if __name__ == "__main__":
    main()
