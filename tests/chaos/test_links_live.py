"""What faults do to real MQTT connections through a real Toxiproxy."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from bench.record.cluster_file import Address
from chaos.clusters.links import SETTLE_S
from chaos.clusters.toxiproxy import (
    Proxy,
    Toxiproxy,
    ToxiproxyDown,
    ToxiproxyError,
    ToxiproxyWedged,
)
from nodes.faults.link_faults import LinkState, UnknownLink

pytestmark = pytest.mark.live
Network = Any


def test_a_cut_takes_one_direction_only_and_heals(network: Network) -> None:
    to_n1, to_n2 = network.inbox("n1"), network.inbox("n2")
    there, back = network.sender("n1", "n2"), network.sender("n2", "n1")
    there.send("before")
    to_n2.wait_for("before")

    network.links.cut([("n1", "n2")])
    there.send("lost")
    back.send("the other way")
    to_n1.wait_for("the other way")
    assert not there.disconnected.is_set(), "a partition closes no connection"

    network.links.heal([("n1", "n2")])
    assert there.disconnected.wait(20), "the heal closes the connection"
    assert not back.disconnected.is_set()
    network.sender("n1", "n2").send("after")
    to_n2.wait_for("after")
    assert to_n2.arrived == ["before", "after"]


def test_a_link_is_cut_until_the_last_fault_on_it_ends(network: Network) -> None:
    links, link = network.links, ("n1", "n3")
    inbox = network.inbox("n3")
    sender = network.sender(*link)
    links.cut([link, ("n1", "n2")])
    links.cut([link])
    links.heal([link, ("n1", "n2")])
    assert links.state()[("n1", "n2")] == LinkState()
    assert links.state()[link] == LinkState(cut=True)
    sender.send("lost")
    assert not sender.disconnected.is_set()
    links.heal([link])
    assert links.state()[link] == LinkState()
    network.sender(*link).send("arrives")
    inbox.wait_for("arrives")
    assert inbox.arrived == ["arrives"]


def test_latency_delays_in_order_and_adds_up(network: Network) -> None:
    links, slow, fast = network.links, ("n1", "n3"), ("n2", "n3")
    inbox = network.inbox("n3")
    from_n1, from_n2 = network.sender(*slow), network.sender(*fast)

    links.add_latency({slow: 300})
    for payload in ("a", "b"):
        from_n1.send(payload)
    from_n2.send("overtakes")
    inbox.wait_for("b")
    assert inbox.arrived == ["overtakes", "a", "b"]

    links.add_latency({slow: 200, fast: 1})
    assert links.state()[slow] == LinkState(latency_ms=500)
    links.remove_latency({slow: 300})
    assert links.state()[slow] == LinkState(latency_ms=200)
    links.remove_latency({slow: 200, fast: 1})

    links.add_latency({fast: 300})
    from_n2.send("late")
    from_n1.send("now fast")
    inbox.wait_for("late")
    assert inbox.arrived[-2:] == ["now fast", "late"]
    assert not from_n1.disconnected.is_set()
    assert not from_n2.disconnected.is_set()


def test_requests_and_replies_of_a_group_are_links_of_their_own(network: Network) -> None:
    requests, replies = network.inbox("n1"), network.inbox("g1")
    request, reply = network.sender("g1", "n1"), network.sender("n1", "g1")
    network.links.cut([("n1", "g1")])
    request.send("asked")
    requests.wait_for("asked")
    reply.send("lost")
    network.links.heal([("n1", "g1")])
    network.sender("n1", "g1").send("answered")
    replies.wait_for("answered")
    assert replies.arrived == ["answered"]


def test_heal_all_takes_everything_back(network: Network) -> None:
    links = network.links
    links.cut(links.links)
    links.cut([("n1", "n2")])
    links.add_latency({("n2", "n1"): 70})
    assert all(state.cut for state in links.state().values())
    links.heal_all()
    assert set(links.state().values()) == {LinkState()}
    links.cut([("n1", "n2")])
    links.heal([("n1", "n2")])
    assert links.state()[("n1", "n2")] == LinkState(), "nothing is counted from before"


def test_a_new_server_gets_what_faults_want_now(network: Network) -> None:
    links = network.links
    links.cut([("n1", "n2")])
    links.add_latency({("n2", "n1"): 40})
    network.processes.kill("toxiproxy")
    with pytest.raises(ToxiproxyDown, match="no Toxiproxy answers"):
        links.heal([("n1", "n2")])
    network.start_toxiproxy()
    with pytest.raises(ToxiproxyError, match="proxy not found"):
        links.cut([("n1", "n3")])
    links.create()
    state = links.state()
    assert state.pop(("n1", "n3")) == LinkState(cut=True)
    assert state.pop(("n2", "n1")) == LinkState(latency_ms=40)
    assert set(state.values()) == {LinkState()}


def test_a_link_that_fails_does_not_keep_the_others_from_healing(network: Network) -> None:
    links = network.links
    links.cut([("n1", "n2"), ("n1", "n3")])
    network.toxiproxy._call("DELETE", "/proxies/link_n1_n2")
    with pytest.raises(ToxiproxyError, match="1 of 2 links not changed"):
        links.heal([("n1", "n2"), ("n1", "n3")])
    assert network.toxiproxy.proxies()["link_n1_n3"].toxics[0].name == "latency"
    assert len(network.toxiproxy.proxies()["link_n1_n3"].toxics) == 1


def test_a_pair_that_is_no_link_is_refused(network: Network) -> None:
    with pytest.raises(UnknownLink, match="no link from n1 to n9"):
        network.links.cut([("n1", "n9")])
    with pytest.raises(UnknownLink, match="no link from n1 to n1"):
        network.links.address("n1", "n1")


def test_cut_and_heal_may_come_again(network: Network) -> None:
    toxiproxy = network.toxiproxy
    toxiproxy.cut("link_n1_n2")
    toxiproxy.cut("link_n1_n2")
    assert [t.name for t in toxiproxy.proxies()["link_n1_n2"].toxics] == ["latency", "cut"]
    assert toxiproxy.heal("link_n1_n2") is True
    assert toxiproxy.heal("link_n1_n2") is False
    with pytest.raises(ToxiproxyError, match=r"404.*proxy not found"):
        toxiproxy.heal("link_n1_n9")
    with pytest.raises(ToxiproxyError, match=r"404.*proxy not found"):
        toxiproxy.cut("link_n1_n9")


def test_a_port_that_is_taken_is_an_error_of_the_server(network: Network) -> None:
    taken = f"127.0.0.1:{network.broker.port}"
    with pytest.raises(ToxiproxyError, match=r"POST /populate: 500 .*address already in use"):
        network.toxiproxy.populate([Proxy(name="x", listen=taken, upstream=taken)])


def test_the_log_has_every_change_in_order(network: Network) -> None:
    toxiproxy = network.toxiproxy
    before = len(toxiproxy.log)
    network.links.cut([("n2", "n3")])
    network.links.heal([("n2", "n3")])
    toxiproxy.proxies()
    cut, heal = toxiproxy.log[before:]
    assert (cut.method, cut.path, cut.status) == ("POST", "/proxies/link_n2_n3/toxics", 200)
    assert (heal.method, heal.path) == ("DELETE", "/proxies/link_n2_n3/toxics/cut")
    assert cut.started_ns < cut.ended_ns <= heal.started_ns < heal.ended_ns


def test_a_proxy_is_left_alone_after_a_heal(network: Network) -> None:
    link = ("n1", "n2")
    changes: tuple[Callable[[], None], ...] = (
        lambda: network.links.add_latency({link: 9}),
        lambda: network.links.cut([link]),
    )
    for change in changes:
        network.links.cut([link])
        network.links.heal([link])
        change()
        heal, after = network.toxiproxy.log[-2:]
        assert heal.method == "DELETE"
        assert after.started_ns - heal.ended_ns >= SETTLE_S * 0.9e9
        network.links.heal_all()


def test_a_server_that_stops_answering_is_wedged(network: Network) -> None:
    impatient = Toxiproxy(Address("127.0.0.1", network.api_port), timeout_s=0.3)
    assert impatient.version()
    assert not impatient.is_wedged()
    pid = network.toxiproxy_process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        # A process of several threads may answer once more before the last of them has stopped.
        while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        assert impatient.is_wedged()
        assert not impatient.is_up()
        with pytest.raises(ToxiproxyWedged, match=r"no answer in 0\.3 s"):
            impatient.cut("link_n1_n2")
    finally:
        os.kill(pid, signal.SIGCONT)
    impatient.close()


def test_no_server_is_down_not_wedged() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = Toxiproxy(Address("127.0.0.1", unused.getsockname()[1]))
        assert not nobody.is_up()
        assert not nobody.is_wedged()
        with pytest.raises(ToxiproxyDown):
            nobody.proxies()
        nobody.close()
