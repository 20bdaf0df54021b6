"""A page of ours answers to itself only; Locust's too, as Locust serves it."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.load.same_site import LOOPBACK, NAMES_VARIABLE, refusal
from chaos.clusters.processes import free_ports
from tests.waiting import patience, wait_for

ROOT = Path(__file__).resolve().parents[2]
HERE = "127.0.0.1:8089"
OURS = [
    {"Host": HERE},
    {"Host": "localhost"},
    {"Host": "LOCALHOST:1"},
    {"Host": "[::1]:8089"},
    {"Host": HERE, "Origin": f"http://{HERE}"},
    {"Host": HERE, "Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-origin"},
    {"Host": HERE, "Sec-Fetch-Site": "none"},
]
OTHERS = [
    {},
    {"Host": ""},
    {"Host": "evil.example:8089"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost@evil.example"},
    {"Host": "evil.example", "Origin": "http://evil.example"},
    {"Host": HERE, "Origin": "http://evil.example"},
    {"Host": HERE, "Origin": "null"},
    {"Host": HERE, "Origin": "http://127.0.0.1:8090"},
    {"Host": HERE, "Origin": f"http://{HERE}.evil.example"},
    {"Host": HERE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Host": HERE, "Sec-Fetch-Site": "same-site"},
]
LINK = {
    "Host": HERE,
    "Sec-Fetch-Site": "cross-site",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}


@pytest.mark.parametrize("headers", OURS)
def test_requests_of_the_page_itself_are_taken(headers: dict[str, str]) -> None:
    assert refusal("POST", headers) is None


@pytest.mark.parametrize("headers", OTHERS)
def test_requests_of_other_sites_are_refused(headers: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        assert refusal(method, headers) is not None


def test_a_link_may_be_followed_and_no_more() -> None:
    assert refusal("GET", LINK) is None
    assert refusal("POST", LINK) is not None
    assert refusal("GET", {**LINK, "Sec-Fetch-Dest": "iframe"}) is not None


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of Locust's page with our load test, for a cluster that is not there."""
    folder = tmp_path_factory.mktemp("page")
    port, nobody = free_ports(2)
    here = {"host": "127.0.0.1", "port": nobody}
    cluster = {
        "cluster": "demo",
        "protocol": "raft",
        "nodes": ["n1"],
        "operations": ["read"],
        "broker": here,
        "group": "clients",
        "request_links": {"n1": here},
    }
    (folder / "cluster.json").write_bytes(msgspec.json.encode(cluster))
    argv = [sys.executable, "-m", "locust", "-f", str(ROOT / "bench" / "load" / "locustfile.py")]
    argv += ["--cluster-file", str(folder / "cluster.json")]
    argv += ["--web-host", "127.0.0.1", "--web-port", str(port)]
    environment = {**os.environ, NAMES_VARIABLE: "bench.example"}
    with (folder / "log").open("wb") as log:
        locust = subprocess.Popen(argv, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: locust.poll() is not None or ask(port, "GET", "/") == 200, "the page")
        assert locust.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        locust.kill()
        locust.wait()


def ask(port: int, method: str, path: str, **headers: str) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience(30))
    form = urllib.parse.urlencode({"user_count": 0, "spawn_rate": 1}) if method == "POST" else None
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request(method, path, form, {**kind, **headers})
        return connection.getresponse().status
    return None


def test_only_locusts_page_itself_starts_a_load(page: int) -> None:
    here = f"127.0.0.1:{page}"
    for host in (f"evil.example:{page}", "evil.example"):
        assert ask(page, "GET", "/", Host=host) == 403
        assert ask(page, "GET", "/stats/requests", Host=host) == 403
        assert ask(page, "POST", "/swarm", Host=host, Origin=f"http://{host}") == 403
    for origin in ("http://evil.example", "null", "http://localhost:1"):
        for path in ("/swarm", "/stats/reset", "/stop"):
            assert ask(page, "POST", path, Host=here, Origin=origin) == 403
    assert ask(page, "POST", "/stats/reset", Host=here, Origin=f"http://{here}") == 200
    assert ask(page, "GET", "/stats/requests", Host=f"bench.example:{page}") == 200
    assert "bench.example" not in LOOPBACK
