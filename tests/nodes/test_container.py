"""A node's settings in a container: from the environment, its volume, and an experiment's order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodes.container import Login, RunOrder, make_room, settings
from nodes.runtime.settings import BadSettings, Endpoint
from nodes.wire.links import FIRST_PORT, GROUP, link_names, link_ports


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "login.json").write_bytes(msgspec.json.encode(Login("n2", "secret")))
    return tmp_path


def test_by_itself_it_is_one_of_the_cluster_demo(data: Path) -> None:
    made = settings({"CAPBENCH_NODE": "n2"}, data)
    assert (made.cluster, made.node, made.protocol) == ("demo", "n2", "raft")
    assert made.nodes == ["n1", "n2", "n3", "n4", "n5"]
    assert (made.username, made.password, made.tls_ca) == ("n2", "secret", None)
    assert made.broker == Endpoint("broker", 1883)
    ports = link_ports(made.nodes, (GROUP,))
    assert made.links == {
        peer: Endpoint("toxiproxy", ports["n2", peer]) for peer in ("n1", "n3", "n4", "n5")
    }
    assert made.reply_links == {GROUP: Endpoint("toxiproxy", ports["n2", GROUP])}
    assert made.data_dir == str(data / "clusters" / "demo")


def test_an_order_says_what_it_is_for_a_run_and_the_ports_stay(data: Path) -> None:
    order = RunOrder(
        cluster="run-1", protocol="quorum", nodes=["n1", "n2", "n3"], parameters={"a": 1}
    )
    (data / "run.json").write_bytes(msgspec.json.encode(order))
    (data / "ca.pem").write_text("an authority")
    environment = {
        "CAPBENCH_NODE": "node-1",
        "CAPBENCH_BROKER": "mqtt.example:8883",
        "CAPBENCH_TOXIPROXY": "proxies.example",
    }
    made = settings(environment, data)
    assert (made.cluster, made.node, made.protocol) == ("run-1", "n2", "quorum")
    assert (made.nodes, made.parameters) == (["n1", "n2", "n3"], {"a": 1})
    assert made.broker == Endpoint("mqtt.example", 8883)
    everybody = link_ports(["n1", "n2", "n3", "n4", "n5"], (GROUP,))
    assert made.links == {
        peer: Endpoint("proxies.example", everybody["n2", peer]) for peer in ("n1", "n3")
    }
    assert made.tls_ca == str(data / "ca.pem")
    (data / "run.json").write_text("null")
    assert settings(environment, data).cluster == "demo", "the order was taken back"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "CAPBENCH_NODE is ''; use n1"),
        ({"CAPBENCH_NODE": "worker"}, "CAPBENCH_NODE is 'worker'"),
        ({"CAPBENCH_NODE": "n9"}, "n9 is none of the nodes n1, n2, n3, n4, n5"),
        ({"CAPBENCH_NODE": "n2", "CAPBENCH_NODES": "many"}, "CAPBENCH_NODES"),
        ({"CAPBENCH_NODE": "n2", "CAPBENCH_PARAMETERS": "[]"}, "CAPBENCH_PARAMETERS"),
        ({"CAPBENCH_NODE": "n2", "CAPBENCH_BROKER": "broker"}, "CAPBENCH_BROKER: use host:port"),
    ],
)
def test_what_cannot_be_is_said(data: Path, environment: dict[str, str], says: str) -> None:
    with pytest.raises(BadSettings, match=says):
        settings(environment, data)


@pytest.mark.parametrize("left", [None, b"{", b'{"username": 1}'])
def test_a_login_that_is_not_there_or_broken_is_said(data: Path, left: bytes | None) -> None:
    path = data / "login.json"
    if left is None:
        path.unlink()
    else:
        path.write_bytes(left)
    with pytest.raises(BadSettings, match=r"login\.json"):
        settings({"CAPBENCH_NODE": "n2"}, data)


def test_data_of_other_clusters_goes_and_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for cluster in ("demo", "run-1"):
        make_room(tmp_path / cluster)
        (tmp_path / cluster / "log").write_bytes(b"x")
    assert {path.name for path in tmp_path.iterdir()} == {"run-1", "photos"}
    assert (tmp_path / "run-1" / "log").read_bytes() == b"x"
    # Data from before there were marks are marked when their node starts.
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "log").write_bytes(b"x")
    for cluster in ("old", "run-2"):
        make_room(tmp_path / cluster)
    assert {path.name for path in tmp_path.iterdir()} == {"run-2", "photos"}


def test_an_order_for_a_name_that_leads_elsewhere_is_refused(data: Path) -> None:
    order = RunOrder(cluster="..", protocol="raft", nodes=["n1", "n2"])
    (data / "run.json").write_bytes(msgspec.json.encode(order))
    with pytest.raises(BadSettings, match=r"run\.json: cluster: '\.\.' is no name"):
        settings({"CAPBENCH_NODE": "n2"}, data)


def test_every_link_has_a_name_and_a_port_of_its_own() -> None:
    nodes: Any = ["n1", "n2", "n3"]
    names, ports = link_names(nodes, ("load",)), link_ports(nodes, ("load",))
    assert len(set(names.values())) == len(set(ports.values())) == 3 * 2 + 2 * 3
    assert min(ports.values()) == FIRST_PORT
    with pytest.raises(ValueError, match="named like a node"):
        link_names(nodes, ("n2",))
