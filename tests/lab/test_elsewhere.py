"""A system that runs elsewhere: a real etcd that the test starts, and what a load leaves in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.load.system_client import carried_out
from bench.record.cluster_file import Address, SystemFile
from bench.record.run_folder import RunFolder
from chaos.clusters.elsewhere import parse_endpoints
from chaos.errors import BadOption
from chaos.systems import catalogue
from chaos.systems.connection import JsonOverHttp
from chaos.systems.system import Programs
from nodes.contract.replica import Operation, Request
from tests.lab.servers import one_node
from tests.live.conftest import Typed, run_json

pytestmark = pytest.mark.live
LOSES = """\
title: Replies are lost for a while
shows: what is applied, and what clients learn
protocols: [raft]
nodes: 3
workload:
  arrival: {open_loop: 40/s, in_flight: 1024}
  keys: {count: 10, distribution: uniform}
  mix: {read: 50, write: 50}
  timeout: 1s
duration: 4s
schedule:
  - {at: 1s, for: 1s, fault: replies-lost}
"""


@pytest.fixture(scope="module")
def etcd(
    to_be_had: Callable[[str], Programs], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SystemFile]:
    programs = to_be_had("etcd")
    with one_node(catalogue.get("etcd"), programs, tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


def address(etcd: SystemFile) -> Address:
    (found,) = etcd.endpoints["n1"].values()
    return found


@pytest.fixture
def typed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    monkeypatch.chdir(place)
    return Typed(monkeypatch, capsys)


def all_keys(etcd: SystemFile) -> int:
    http = JsonOverHttp(address(etcd), 5)
    # From the key of one zero byte on: everything.
    everything = {"key": "AA==", "range_end": "AA==", "count_only": True}
    _, said = http.post("/v3/kv/range", everything)
    http.close()
    return int(said.get("count", 0))


def test_a_run_leaves_what_was_there_and_nothing_else(etcd: SystemFile, place: Path) -> None:
    client = catalogue.get("etcd").client(etcd, "n1", 5)
    for key in ("k0", "k1"):  # Named like keys of a run.
        theirs = Operation("write", key, "theirs")
        assert carried_out(client, Request("c", 0, theirs)).outcome == "ok"
    (place / "loses.yaml").write_text(LOSES)
    at = "{0.host}:{0.port}".format(address(etcd))
    code, told = run_json(
        *("run", "loses.yaml", "--target", "attached", "-p", "etcd", "--endpoints", at), cwd=place
    )
    (run,) = told["runs"]
    assert code == 0, run
    assert (run["target"], run["verdict"], run["setup"]["nodes"]) == ("attached", "valid", 1)
    assert run["operations"]["info"] > 0  # The fault was one.
    folder = RunFolder(place / run["folder"])
    assert folder.manifest().endpoints == at
    (touched,) = [note for note in folder.manifest().notes if "were touched" in note]
    (removed,) = [note for note in folder.manifest().notes if "were removed" in note]
    prefix = touched.split("begin with ")[1].split(" ")[0]
    assert prefix.startswith("capbench/")
    assert f"begin with {prefix} were removed" in removed
    written = {each.key for each in folder.operations() if each.op == "write"}
    assert removed.startswith(f"{len(written)} keys ")
    # Their own are as they were.
    assert all_keys(etcd) == 2
    assert carried_out(client, Request("c", 1, Operation("read", "k0"))).value == "theirs"
    client.close()


def test_nobody_there_is_told_in_a_line(typed: Typed) -> None:
    at = f"127.99.{os.getpid() % 250}.9:1"
    code, _, err = typed("load", "--target", "attached", "-p", "etcd", "--endpoints", at)
    assert code == 3
    (line,) = err.splitlines()
    assert line == f"capbench: etcd at {at} (n1) does not serve: Connection refused"


@pytest.mark.parametrize(
    ("system", "text", "said"),
    [
        ("etcd", "here", "'here' is no address; use host:port,host:port"),
        ("etcd", "a:1,b:70000", "'b:70000' is no address"),
        ("etcd", "a:1,a:1", "an address is given twice"),
        ("postgres", "a:1", "something must be made in postgres before"),
        ("redis-sentinel", "a:1", "clients of redis-sentinel need several ports of each node"),
    ],
    ids=["no port", "no such port", "twice", "a table", "several ports"],
)
def test_endpoints_that_cannot_be(system: str, text: str, said: str) -> None:
    with pytest.raises(BadOption, match="--endpoints: ") as refused:
        parse_endpoints(text, catalogue.get(system))
    assert said in str(refused.value)


def test_endpoints_are_nodes_in_their_order() -> None:
    found = parse_endpoints("a:1, [::1]:2", catalogue.get("etcd"))
    assert found == {"n1": Address("a", 1), "n2": Address("::1", 2)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("leader-partition", "-p", "etcd", "--endpoints", "a:1,b:1,c:1"), "no 'partition'"),
        (("healthy", "-p", "etcd"), "say where it is: --endpoints"),
        (("healthy", "-p", "raft", "--endpoints", "a:1"), "is for one system"),
        (("healthy", "-p", "etcd", "--endpoints", "a:1", "--nodes", "3"), "there are 1 endpoints"),
    ],
    ids=["a fault of others' links", "nowhere", "a protocol", "another number"],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    typed: Typed, arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = typed("run", *arguments, "--target", "attached")
    assert code == 2
    (line,) = err.splitlines()
    assert said in line
