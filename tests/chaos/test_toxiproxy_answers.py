"""What answers on Toxiproxy's port need not be Toxiproxy: every answer is one error of ours."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator

import pytest

from bench.record.cluster_file import Address
from chaos.clusters import toxiproxy as client
from chaos.clusters.toxiproxy import Toxic, Toxiproxy, ToxiproxyError, ToxiproxyWedged

JSON = "application/json"


class Stub(http.server.ThreadingHTTPServer):
    status, body, location, drip = 200, b"", "", False
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        try:
            while self.server.drip:
                self.wfile.write(b" " * 10)
                time.sleep(0.01)
            self.wfile.write(self.server.body)
        except OSError:
            pass  # The client has had enough.

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.drip = False
        server.shutdown()
        thread.join()


@pytest.fixture
def asking(stub: Stub) -> Iterator[Toxiproxy]:
    toxiproxy = Toxiproxy(Address("127.0.0.1", stub.server_address[1]), timeout_s=0.5)
    yield toxiproxy
    toxiproxy.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"\xff",
        b"[]",
        b'{"version": 2}',
        b'{"link": []}',
        b'{"link": {"name": "link", "listen": 5, "upstream": "x"}}',
        b'{"link": {"name": "l", "listen": "", "upstream": "", "toxics": [{"name": "t"}]}}',
        b'{"a":' * 100_000,
    ],
)
def test_another_answer_is_an_error_of_ours(stub: Stub, asking: Toxiproxy, body: bytes) -> None:
    stub.body = body
    with pytest.raises(ToxiproxyError, match="gives no answer of Toxiproxy"):
        asking.proxies()
    assert not asking.is_up()
    assert not asking.is_wedged()


def test_an_answer_is_not_longer_than_it_may_be(
    stub: Stub, asking: Toxiproxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 1000)
    stub.body = b" " * 1001
    with pytest.raises(ToxiproxyError, match="over 1000 bytes"):
        asking.proxies()


def test_an_answer_that_comes_in_drops_is_none(stub: Stub, asking: Toxiproxy) -> None:
    stub.drip = True
    with pytest.raises(ToxiproxyWedged):
        asking.proxies()


def test_nobody_sends_the_runner_elsewhere(stub: Stub, asking: Toxiproxy) -> None:
    stub.status, stub.location = 302, "/elsewhere"
    with pytest.raises(ToxiproxyError, match="302"):
        asking.version()
    with pytest.raises(ToxiproxyError, match="302"):
        asking.add_toxic("link", Toxic(name="cut", type="timeout", stream="upstream"))
    assert "/elsewhere" not in stub.asked
