"""A tab of Locust's web page: the status of each node, and the faults that are on or were.

Both come over the broker, so the page may be on another machine than the runner: nodes publish
their status, and the runner publishes the active faults (a retained message). Locust draws the tab
as one of its *extended tables*.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import Any

import msgspec
from flask import Response, request
from paho.mqtt import client as paho

from bench.load.mqtt_client import paho_client
from bench.load.same_site import LOOPBACK, more_names, refusal
from bench.record.cluster_file import STALE_S, ClusterFile, FaultOn
from bench.record.node_status import MAX_BYTES, parse_status
from bench.record.run_folder import NodeRecord
from nodes.wire.topics import Topics

TAB = "cluster"
MOST_ENDED = 20
_COLUMNS = (("name", "Node or fault"), ("state", "State"), ("details", "Details"))


class ClusterWatch:
    """Listens to the cluster from `start` on. The broker may start later or restart."""

    def __init__(self, cluster: ClusterFile) -> None:
        self._cluster = cluster
        self._topics = Topics(cluster.cluster)
        self._heard: dict[str, tuple[float, NodeRecord]] = {}
        self._faults: list[FaultOn] = []
        self._ended: deque[tuple[FaultOn, str]] = deque(maxlen=MOST_ENDED)
        self._up = False
        self._client = paho_client(cluster, f"page-{uuid.uuid4().hex[:12]}")
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_message = lambda client, data, message: (
            # Nodes retain nothing; active faults are retained.
            None
            if message.retain and message.topic != self._topics.faults
            else self.hear(message.topic, message.payload)
        )
        self._client.reconnect_delay_set(1, 2)

    def start(self) -> None:
        """Start listening in a thread (a greenlet if Locust has patched threads)."""
        self._client.connect_async(self._cluster.broker.host, self._cluster.broker.port, 10)
        self._client.loop_start()

    def _connected(self, client: paho.Client, data: Any, flags: Any, reason: Any, _: Any) -> None:
        if not reason.is_failure:
            self._up = True
            self._faults = []  # Retained messages come again.
            client.subscribe([(self._topics.status("+"), 0), (self._topics.faults, 0)])

    def _disconnected(self, *_: Any) -> None:
        self._up = False

    def hear(self, topic: str, payload: bytes | bytearray) -> None:
        """Take a message; foreign ones are ignored."""
        if topic == self._topics.faults:
            if len(payload) <= MAX_BYTES:
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    self._now_on(msgspec.json.decode(payload, type=list[FaultOn]))
            return
        told = parse_status(self._topics, topic, payload, self._cluster.nodes)
        if isinstance(told, NodeRecord) and told.kind == "status":
            self._heard[told.node] = (time.monotonic(), told)

    def _now_on(self, faults: list[FaultOn]) -> None:
        until = datetime.now(UTC).strftime("%H:%M:%S UTC")
        on = {each.what for each in faults}  # ``since`` may differ by a second each time.
        self._ended.extendleft((each, until) for each in self._faults if each.what not in on)
        self._faults = faults

    def rows(self) -> list[dict[str, str]]:
        """The table: nodes in order, then faults, those that are on first, so one can see where on
        the time axis of Locust's charts a fault was; then the commands that inject and heal.
        Columns: name, state, details."""
        rows = [self._row(node) for node in self._cluster.nodes]
        if not self._up:
            broker = self._cluster.broker
            return [_row("broker", "out of reach", f"{broker.host}:{broker.port}"), *rows]
        faults = [_row(f"fault {on.what}", "on", f"since {on.since}") for on in self._faults]
        ended = [_row(f"fault {on.what}", "ended", f"{on.since} to {to}") for on, to in self._ended]
        return [*rows, *faults, *ended, *self._by_hand()]

    def _by_hand(self) -> list[dict[str, str]]:
        """What to type for a fault, and for its end: the page itself changes nothing."""
        name = f"--name {self._cluster.cluster}"
        typed = [("inject a fault", f"capbench inject partition groups=leader-alone {name}")]
        if self._faults:
            typed = [("heal all faults", f"capbench heal {name}"), *typed]
        return [_row(f"to {what}", "in a terminal", command) for what, command in typed]

    def _row(self, node: str) -> dict[str, str]:
        when, told = self._heard.get(node, (None, None))
        if when is None or told is None:
            return _row(node, "not heard yet", "")
        silent_s = time.monotonic() - when
        if silent_s > STALE_S:
            return _row(node, "silent", f"for {silent_s:.0f} s")
        probe = told.probe
        details = [
            f"{name} {probe[name]}"
            for name in ("leader", "term", "suspects")
            if probe.get(name) is not None and probe[name] != ""
        ]
        if not probe.get("ready"):
            details.append("does not serve now")
        return _row(node, str(probe.get("role") or "replica"), ", ".join(details))


def _row(name: str, state: str, details: str) -> dict[str, str]:
    return dict(zip((key for key, _ in _COLUMNS), (name, state, details), strict=True))


def guard(web_ui: Any) -> None:
    """Let the page answer only to itself: other sites must not start a load here."""
    names = [*LOOPBACK, *more_names()]

    @web_ui.app.before_request  # type: ignore[untyped-decorator]
    def refuse_others() -> Response | None:
        refused = refusal(request.method, request.headers, names)
        return None if refused is None else Response(f"Refused: {refused}.\n", status=403)


def add_tab(web_ui: Any, watch: ClusterWatch) -> None:
    """Add the tab to Locust's web page, which fetches the rows with its statistics."""
    web_ui.template_args["extended_tabs"] = [{"title": "Cluster", "key": TAB}]
    web_ui.template_args["extended_tables"] = [
        {"key": TAB, "structure": [{"key": key, "title": title} for key, title in _COLUMNS]}
    ]

    @web_ui.app.after_request  # type: ignore[untyped-decorator]
    def with_rows(response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json:
            told = {**(response.json or {}), "extended_stats": [{"key": TAB, "data": watch.rows()}]}
            response.set_data(msgspec.json.encode(told))
        return response
