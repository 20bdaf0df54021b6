"""The HTTP server of `--metrics`: on loopback only, and read-only."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from bench.load.same_site import refusal
from chaos.errors import TargetFailed
from chaos.exporter.text import CONTENT_TYPE, Observed, openmetrics

HOST = "127.0.0.1"
PATH = "/metrics"
Source = Callable[[], Observed]


class Exporter:
    """What is served: that of the ``source``, which may be replaced at any time."""

    def __init__(self) -> None:
        self.source: Source = lambda: Observed({}, {}, None, {})


@contextmanager
def exported(port: int | None) -> Iterator[Exporter]:
    """Serve metrics at this port while the block runs; None: nothing is served. Raises TargetFailed
    if the port is taken."""
    exporter = Exporter()
    if port is None:
        yield exporter
        return

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if refusal(self.command, self.headers) is not None:
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path.partition("?")[0] != PATH:
                self.send_error(HTTPStatus.NOT_FOUND, f"the metrics are at {PATH}")
            else:
                body = openmetrics(exporter.source()).encode(errors="backslashreplace")
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nobody reads along."""

    try:
        server = http.server.ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise TargetFailed(
            f"--metrics: port {port} on {HOST}: {error.strerror}; give another one"
        ) from None
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield exporter
        finally:
            server.shutdown()
            thread.join()
