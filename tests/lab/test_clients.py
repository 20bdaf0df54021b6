"""What a client says of an operation that was cut off is true: `fail` was never applied."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import pytest

from bench.load.system_client import carried_out
from bench.record.cluster_file import Address, SystemFile
from chaos.systems import catalogue
from chaos.systems.system import NotApplied, Programs, System, SystemClient, Transaction
from nodes.contract.replica import Operation, OperationKind, Outcome, Reply, Request, Value
from tests.lab.servers import POINTS, Cutter, Point, one_node, own_host, reached

pytestmark = pytest.mark.live
TIMEOUT_S = 5.0
CLIENTS = (
    *("etcd", "redis-sentinel", "zookeeper-sync", "nats-kv", "nats-kv-leader", "postgres"),
    *("pysyncobj", "pysyncobj-log-reads"),
)
"""One system for each kind of client."""
READ_FIRST = {
    ("nats-kv", "cas"): 1,
    ("nats-kv-leader", "cas"): 1,
    ("zookeeper-sync", "cas"): 1,
    ("etcd", "transaction"): 1,
    ("postgres", "transaction"): 2,
}
"""How many requests come before the one that changes something."""
CHANGES: tuple[OperationKind | Literal["transaction"], ...] = (
    *("write", "cas", "delete"),
    "transaction",
)


class Server(NamedTuple):
    system: System
    cluster: SystemFile

    def client(self, cluster: SystemFile | None = None) -> SystemClient:
        return self.system.client(cluster or self.cluster, "n1", TIMEOUT_S)

    def offers(self, op: OperationKind | Literal["transaction"]) -> bool:
        if op == "transaction":
            return self.system.isolation is not None
        return op in self.system.operations


@pytest.fixture(scope="module", params=CLIENTS)
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    to_be_had: Callable[[str], Programs],
) -> Iterator[Server]:
    programs = to_be_had(request.param)
    system = catalogue.get(request.param)
    with one_node(system, programs, tmp_path_factory.mktemp("server")) as cluster:
        yield Server(system, cluster)


def changed(client: SystemClient, op: OperationKind | Literal["transaction"], key: str) -> Outcome:
    """How a change from ``before`` to ``after`` ended."""
    if op != "transaction":
        return ask(client, op, key, "after", "before").outcome
    try:
        client.transaction([key], lambda at: at.write(key, "after"))
    except NotApplied:
        return "fail"
    except Exception:
        return "info"
    return "ok"


def ask(
    client: SystemClient, op: OperationKind, key: str, value: Value = None, expected: Value = None
) -> Reply:
    return carried_out(client, Request("c", 0, Operation(op, key, value, expected)))


def test_a_client_does_what_it_is_asked(server: Server) -> None:
    client = server.client()
    assert ask(client, "read", "a").value is None
    assert ask(client, "write", "a", 1).outcome == "ok"
    assert ask(client, "read", "a").value == 1
    assert ask(client, "write", "a", "text\r\n").outcome == "ok"
    assert ask(client, "read", "a").value == "text\r\n"
    if "cas" in server.system.operations:
        refused = ask(client, "cas", "a", 3, expected=2)
        assert (refused.outcome, refused.applied, refused.seen) == ("ok", False, "text\r\n")
        assert ask(client, "cas", "a", 3, expected="text\r\n").applied is True
        assert ask(client, "cas", "b", 4, expected=None).applied is True
        assert ask(client, "cas", "b", 5, expected=None).seen == 4
        assert ask(client, "read", "a").value == 3
    if "delete" in server.system.operations:
        assert ask(client, "delete", "a").outcome == "ok"
        assert ask(client, "delete", "a").outcome == "ok"
        assert ask(client, "read", "a").value is None
    client.close()


def test_of_several_cas_that_expect_one_value_one_is_applied(server: Server) -> None:
    if "cas" not in server.system.operations:
        return

    def count_up(number: int) -> int:
        client, applied = server.client(), 0
        while applied < 10:
            held = ask(client, "read", "counted").value
            assert held is None or isinstance(held, int)
            reply = ask(client, "cas", "counted", (held or 0) + 1, expected=held)
            applied += reply.outcome == "ok" and reply.applied is True
        client.close()
        return number

    with ThreadPoolExecutor(3) as clients:
        assert sorted(clients.map(count_up, range(3))) == [0, 1, 2]
    client = server.client()
    assert ask(client, "read", "counted").value == 30
    client.close()


def test_versions_grow_with_writes(server: Server) -> None:
    client = server.client()
    first, second = (ask(client, "write", "grows", value).version for value in (1, 2))
    read = ask(client, "read", "grows").version
    client.close()
    if first is None:
        return  # It tells none.
    assert isinstance(first, int)
    assert isinstance(second, int)
    assert first < second == read


@pytest.mark.parametrize("op", CHANGES)
@pytest.mark.parametrize("point", POINTS)
def test_fail_was_never_applied(
    server: Server, op: OperationKind | Literal["transaction"], point: Point
) -> None:
    if not server.offers(op):
        return
    key, direct = f"cut-{op}-{POINTS.index(point)}", server.client()
    assert ask(direct, "write", key, "before").outcome == "ok"
    cutters = {port: Cutter(at) for port, at in server.cluster.endpoints["n1"].items()}
    endpoints = {port: cutter.address for port, cutter in cutters.items()}
    if point == "refused":
        endpoints = {port: Address(own_host(), _nobody()) for port in endpoints}
    client = server.client(reached(server.system, server.cluster.hosts["n1"], endpoints))
    try:
        if point != "refused":
            assert ask(client, "read", key).outcome == "ok"  # connected, and known to work
            # The first port is that of operations.
            cutter = cutters[str(server.system.client_ports[0])]
            cutter.spared = READ_FIRST.get((server.system.name, op), 0)
            cutter.point = point
        outcome = changed(client, op, key)
    finally:
        client.close()
        for cutter in cutters.values():
            cutter.close()
    now = ask(direct, "read", key).value
    direct.close()
    applied = now != "before"
    assert outcome != "ok"
    if outcome == "fail":
        assert not applied
    # The points are what they are called.
    assert applied == (point in ("after the request", "in the reply"))
    if point == "refused":
        assert outcome == "fail"


def test_a_transaction_sees_its_own_writes_and_all_that_was_committed(server: Server) -> None:
    if server.system.isolation is None:
        return
    one, other = server.client(), server.client()
    seen: list[Value] = []

    def work(at: Transaction) -> None:
        seen.clear()
        seen.append(at.read("list"))
        at.append("list", "1")
        at.append("list", "2")
        at.write("total", 2)
        seen.extend([at.read("list"), at.read("total")])

    one.transaction(["list", "total"], work)
    assert seen == [None, "1 2", 2]
    other.transaction(["list", "total"], work)
    assert seen == ["1 2", "1 2 1 2", 2]
    for client in (one, other):
        assert ask(client, "read", "list").value == "1 2 1 2"
        client.close()


def test_what_stops_a_transaction_leaves_nothing_of_it(server: Server) -> None:
    if server.system.isolation is None:
        return
    client = server.client()

    def work(at: Transaction) -> None:
        at.write("undone", 1)
        raise NotApplied("too little")

    with pytest.raises(NotApplied, match="too little"):
        client.transaction(["undone"], work)
    assert ask(client, "read", "undone").value is None
    client.close()


@pytest.mark.parametrize(
    ("row", "read", "write", "tries"),
    [
        ("postgres-read-committed", "own", "own", 1),
        ("postgres-repeatable-read", "own", "own", 2),
        ("postgres-repeatable-read", "other", "own", 1),
        ("postgres", "other", "own", 2),
    ],
    ids=["a lost update", "no lost update", "write skew", "no write skew"],
)
def test_a_level_of_postgres_forbids_what_it_says_and_no_more(
    server: Server, row: str, read: str, write: str, tries: int
) -> None:
    """A transaction reads a key that another one writes before this one writes."""
    if server.system.name != "postgres":
        return
    one, other = (catalogue.get(row).client(server.cluster, "n1", TIMEOUT_S) for _ in range(2))
    keys = {"own": f"{row}-{tries}-own", "other": f"{row}-{tries}-other"}
    done = 0

    def between(at: Transaction) -> None:
        at.read(keys[write])
        at.write(keys[read], 5)

    def work(at: Transaction) -> None:
        nonlocal done
        done += 1
        at.read(keys[read])
        if done == 1:
            other.transaction([*keys.values()], between)
        at.write(keys[write], 6)

    one.transaction([*keys.values()], work)
    assert done == tries
    one.close()
    other.close()


def test_a_transaction_does_not_overwrite_what_it_did_not_see(server: Server) -> None:
    if server.system.isolation in (None, "read-committed"):
        return
    one, other = server.client(), server.client()
    ask(one, "write", "counted", 1)
    between = iter([5])

    def work(at: Transaction) -> None:
        held = at.read("counted")
        assert isinstance(held, int)
        for value in between:
            assert ask(other, "write", "counted", value).outcome == "ok"
        at.write("counted", held + 1)

    with contextlib.suppress(NotApplied):
        one.transaction(["counted"], work)
        assert ask(one, "read", "counted").value == 6
    assert ask(one, "read", "counted").value in (5, 6)
    one.close()
    other.close()


def _nobody() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_connection_that_the_other_end_closed_is_not_used_again(server: Server) -> None:
    """Else each idle connection would cost an operation that nobody knows the outcome of."""
    cutters = {port: Cutter(at) for port, at in server.cluster.endpoints["n1"].items()}
    endpoints = {port: cutter.address for port, cutter in cutters.items()}
    client = server.client(reached(server.system, server.cluster.hosts["n1"], endpoints))
    assert ask(client, "write", "idle", 1).outcome == "ok"
    for cutter in cutters.values():
        cutter.hang_up()
    assert ask(client, "write", "idle", 2).outcome == "ok"
    client.close()
    for cutter in cutters.values():
        cutter.close()
