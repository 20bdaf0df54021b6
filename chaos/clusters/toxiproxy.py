"""The Toxiproxy client: toxiproxy-python's, for one server, with the safeguards that chaos needs.

toxiproxy-python brings the proxies, the toxics and the meaning of the server's answers; its own
client is one per process, without timeouts, updates, or a check of server errors. A Toxiproxy can
also deadlock (deleting a ``latency`` toxic while its connections die), and then answers on that
proxy never again: so every call has a timeout, and a call that runs into it raises ToxiproxyWedged.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import requests
from toxiproxy.api import validate_response
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists
from urllib3.exceptions import HTTPError, ReadTimeoutError

from bench.children import environment
from bench.paths import ROOT
from bench.record.cluster_file import Address
from chaos.clusters.processes import ProcessGroup
from nodes.errors import InfrastructureFailed

Stream: TypeAlias = Literal["upstream", "downstream"]
MAX_ANSWER_BYTES = 16 << 20
T = TypeVar("T")


class ToxiproxyError(InfrastructureFailed):
    """Toxiproxy refused a call or failed at it: names the call and the answer."""


class ToxiproxyDown(ToxiproxyError):
    """No server answers at the address."""


class ToxiproxyWedged(ToxiproxyError):
    """The server took a call and did not answer in time: it must be restarted."""


class ToxiproxyMissing(InfrastructureFailed):
    """There is no Toxiproxy server on this machine: says how to get one."""


def find_toxiproxy() -> Path:
    """The Toxiproxy server: ``toxiproxy-server`` on PATH, else the cached copy, else what
    CAPBENCH_TOXIPROXY names. Raises ToxiproxyMissing."""
    on_path = shutil.which("toxiproxy-server")
    if on_path:
        return Path(on_path)
    candidates = [ROOT / ".cache" / "toxiproxy-server"]
    if named := os.environ.get("CAPBENCH_TOXIPROXY"):
        candidates.append(Path(named))
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise ToxiproxyMissing(
        "no Toxiproxy server: not on PATH as toxiproxy-server, not in .cache/, not named by"
        " CAPBENCH_TOXIPROXY; get it by `make setup`, by"
        " `go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0` (Go 1.23 or newer), or as"
        " the release binary of https://github.com/Shopify/toxiproxy/releases/tag/v2.12.0"
    )


def spawn_server(processes: ProcessGroup, api: Address, log: Path) -> None:
    """Start a Toxiproxy server whose API is to listen at ``api``. Raises ToxiproxyMissing."""
    processes.spawn(
        "toxiproxy",
        [find_toxiproxy(), "-host", api.host, "-port", str(api.port)],
        stdout_path=log,
        # It would write a line for every connection and every change otherwise.
        env=environment(LOG_LEVEL="warn"),
    )


def replace_server(processes: ProcessGroup, api: Address, log: Path) -> str:
    """Another server, with nothing in it, in place of one that is broken: what a report must say of
    that. Raises TargetFailed."""
    was = "answered no more" if processes.running("toxiproxy") else "ended"
    processes.kill("toxiproxy")
    spawn_server(processes, api, log)
    processes.wait_for("toxiproxy", api, log)
    return (
        f"Toxiproxy {was} and was replaced: for a moment every link was down, whatever the "
        "schedule says"
    )


class Toxic(msgspec.Struct, frozen=True, kw_only=True):
    """A toxic as the server has it. ``attributes``: by type, in the server's own units (ms,
    KB/s)."""

    name: str
    type: str
    stream: Stream
    toxicity: float = 1.0
    attributes: dict[str, int] = {}


def toxic_name(what: str, stream: Stream) -> str:
    """Names of toxics are unique in a proxy, whatever their direction."""
    return what if stream == "upstream" else f"{what}_down"


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """A proxy as the server has it. ``listen`` and ``upstream``: ``host:port``."""

    name: str
    listen: str
    upstream: str
    enabled: bool = True
    toxics: list[Toxic] = []


class _Version(msgspec.Struct, frozen=True):
    version: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A change that was asked of the server, and when (`time.monotonic_ns()`). ``status``: the HTTP
    status of the answer; None: no answer came."""

    started_ns: int
    ended_ns: int
    method: str
    path: str
    body: Any
    status: int | None


class Toxiproxy:
    """One Toxiproxy server. ``log`` has every changing call in order. Safe to use from several
    threads; calls go out one after the other over one connection."""

    def __init__(self, address: Address, *, timeout_s: float = 2.0) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.log: list[Call] = []
        self._base = f"http://{address.host}:{address.port}"
        self._lock = threading.Lock()
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy configured for the web has no business here

    def close(self) -> None:
        """Close the connection. The server keeps what it has."""
        self._session.close()

    # --- reading

    def version(self) -> str:
        """The server's version. Raises ToxiproxyError."""
        return self._read("/version", _Version).version

    def proxies(self) -> dict[str, Proxy]:
        """All proxies with their toxics. Raises ToxiproxyError."""
        return self._read("/proxies", dict[str, Proxy])

    def is_up(self) -> bool:
        """Whether a server answers."""
        try:
            self.version()
        except ToxiproxyError:
            return False
        return True

    def is_wedged(self) -> bool:
        """Whether the server is there but answers no more. Listing needs the lock of each proxy, so
        one deadlocked proxy is enough to show (``/version`` would go on answering)."""
        try:
            self.proxies()
        except ToxiproxyWedged:
            return True
        except ToxiproxyError:
            return False
        return False

    # --- changing

    def populate(self, proxies: Iterable[Proxy]) -> None:
        """Create these proxies in one call; one that is there already with the same addresses stays
        with its toxics. Raises ToxiproxyError (a port that is taken, for one)."""
        body = [
            {"name": p.name, "listen": p.listen, "upstream": p.upstream, "enabled": p.enabled}
            for p in proxies
        ]
        self._call("POST", "/populate", body)

    def add_toxic(self, proxy: str, toxic: Toxic) -> None:
        """Add a toxic; one of that name that is there already is left as it is.
        Raises ToxiproxyError."""
        try:
            self._call("POST", f"/proxies/{proxy}/toxics", msgspec.to_builtins(toxic))
        except ToxiproxyError as error:
            if not isinstance(error.__cause__, ProxyExists):
                raise

    def update_toxic(self, proxy: str, name: str, attributes: Mapping[str, int]) -> None:
        """Change attributes of a toxic, under load too. Raises ToxiproxyError."""
        self._call("PATCH", f"/proxies/{proxy}/toxics/{name}", {"attributes": dict(attributes)})

    def remove_toxic(self, proxy: str, name: str) -> bool:
        """Remove a toxic; False if there was none of that name. Never for ``latency`` or
        ``bandwidth`` under load: that is what deadlocks the server. Raises ToxiproxyError."""
        try:
            self._call("DELETE", f"/proxies/{proxy}/toxics/{name}")
        except ToxiproxyError as error:
            # A proxy that is not there (a server that was restarted, say) is 404 as well: an error.
            if isinstance(error.__cause__, NotFound) and "toxic not found" in str(error):
                return False
            raise
        return True

    def cut(self, proxy: str, stream: Stream = "upstream") -> None:
        """Discard what passes a proxy in one direction, connections staying open: upstream, what
        its clients send. Cutting what is cut changes nothing. Raises ToxiproxyError."""
        name = toxic_name("cut", stream)
        self.add_toxic(
            proxy, Toxic(name=name, type="timeout", stream=stream, attributes={"timeout": 0})
        )

    def heal(self, proxy: str, stream: Stream = "upstream") -> bool:
        """End the cut; the proxy's connections are closed by it. False if there was no cut.
        Raises ToxiproxyError."""
        return self.remove_toxic(proxy, toxic_name("cut", stream))

    def enable(self, proxy: str, *, enabled: bool) -> None:
        """Listen again, or stop listening and close all connections. Raises ToxiproxyError."""
        self._call("POST", f"/proxies/{proxy}", {"enabled": enabled})

    # --- the wire

    def _read(self, path: str, kind: type[T]) -> T:
        answer = self._call("GET", path)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ToxiproxyError(
                f"GET {path}: {self._base} gives no answer of Toxiproxy: {error}"
            ) from None

    def _bounded(self, response: requests.Response, deadline: float) -> None:
        """Take in the body, unless it is too long or comes too slowly."""
        body = bytearray()
        try:
            while piece := response.raw.read1(1 << 16, decode_content=True):
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise ToxiproxyError(f"{self._base}: an answer over {MAX_ANSWER_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise requests.Timeout
        except ReadTimeoutError:
            raise requests.Timeout from None
        except HTTPError as error:
            raise requests.ConnectionError(error) from None
        response._content = bytes(body)  # As `requests` does where it reads without bounds.

    def _call(self, method: str, path: str, body: Any = None) -> requests.Response:
        with self._lock:
            started_ns = time.monotonic_ns()
            status: int | None = None
            try:
                response = self._session.request(
                    method,
                    self._base + path,
                    json=body,
                    timeout=self.timeout_s,
                    stream=True,
                    allow_redirects=False,
                )
                status = response.status_code
                with response:
                    self._bounded(response, time.monotonic() + self.timeout_s)
            except requests.Timeout:
                raise ToxiproxyWedged(
                    f"{method} {path}: no answer in {self.timeout_s} s from {self._base}"
                ) from None
            except requests.RequestException:
                raise ToxiproxyDown(
                    f"{method} {path}: no Toxiproxy answers at {self._base}"
                ) from None
            finally:
                if method != "GET":
                    self.log.append(
                        Call(
                            started_ns=started_ns,
                            ended_ns=time.monotonic_ns(),
                            method=method,
                            path=path,
                            body=body,
                            status=status,
                        )
                    )
        said = response.content[:1000].decode(errors="replace").strip()
        refusal = f"{method} {path}: {status} {said}"
        try:
            validate_response(response)
        except (ProxyExists, NotFound, InvalidToxic) as error:
            raise ToxiproxyError(refusal) from error
        if response.status_code >= 300:
            raise ToxiproxyError(refusal)
        return response
