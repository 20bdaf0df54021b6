"""Faults by hand on a standing cluster: `capbench inject` and `capbench heal`.

Only the cluster's keeper (`chaos.targets.up`) may touch it. It listens on a Unix socket that only
its user may open; commands and answers are one JSON line each. Faults are played and recorded by
the same nemesis as those of an experiment: ``faults.jsonl`` in the cluster's directory.
"""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bench.record.quantities import BadQuantity, Bounds, read_number
from bench.record.run_folder import FaultRecord, NodeRecord, RunFolder
from chaos.clusters.capabilities import works_on
from chaos.errors import TargetFailed
from chaos.experiments.experiment import validate_fault
from chaos.experiments.limits import AT_MOST_S
from chaos.targets.nemesis import Nemesis
from nodes.errors import InvalidInput, Unsupported
from nodes.faults.capabilities import Cluster

FOR_S = Bounds(0, AT_MOST_S, excluded=True)
ANSWER_TIMEOUT_S = 60.0
_LINE_BYTES = 100_000
_SEED = 0


class Inject(msgspec.Struct, tag="inject", forbid_unknown_fields=True):
    """Begin a fault: its fields as in a schedule, and for how long (None: `AT_MOST_S`)."""

    fields: dict[str, Any]
    for_s: float | None = None


class Heal(msgspec.Struct, tag="heal", forbid_unknown_fields=True):
    """End the fault of that number, or all."""

    number: int | None = None


class Faults(msgspec.Struct, tag="faults", forbid_unknown_fields=True):
    """Which faults are on?"""


class Statuses(msgspec.Struct, tag="statuses", forbid_unknown_fields=True):
    """What do the nodes say of themselves? Those of a system tell it to their keeper only."""


Command: TypeAlias = Inject | Heal | Faults | Statuses


class Answer(msgspec.Struct):
    """``faults``: those that the command began, ended, or asked for. ``refused``: the input is
    invalid; ``failed``: it could not be done. One line per problem. ``statuses``: by node."""

    faults: list[FaultRecord] = []
    statuses: dict[str, NodeRecord] = {}
    refused: str | None = None
    failed: str | None = None


class NoSuchFault(InvalidInput):
    """No fault of that number is active, or the fault's fields are invalid."""


class ByHand:
    """The keeper's side: takes commands while it is open. Use as a context manager; leaving it
    heals all active faults. ``announce``: called with the active faults whenever they change.
    ``statuses``: what the nodes say of themselves."""

    def __init__(
        self,
        cluster: Cluster,
        directory: Path,
        socket_path: Path,
        announce: Callable[[list[FaultRecord]], None],
        statuses: Callable[[], dict[str, NodeRecord]],
    ) -> None:
        self._cluster = cluster
        self._statuses = statuses
        self._nodes = tuple(cluster.nodes)
        self._path = socket_path
        self._nemesis = Nemesis(
            [],
            cluster,
            RunFolder(directory),
            seed=_SEED,
            by_hand=True,
            on_fault=lambda _: announce(self._nemesis.on),
        )

    def __enter__(self) -> ByHand:
        hand = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = ANSWER_TIMEOUT_S

            def handle(self) -> None:
                # A client that leaves before the answer gets none.
                with contextlib.suppress(OSError):
                    answer = hand._answer(self.rfile.readline(_LINE_BYTES))
                    self.wfile.write(msgspec.json.encode(answer) + b"\n")

        self._path.unlink(missing_ok=True)
        # The socket is this user's alone from the moment it exists.
        before = os.umask(0o177)
        try:
            self._server = socketserver.UnixStreamServer(str(self._path), Handler)
        finally:
            os.umask(before)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="by-hand"
        )
        self._nemesis.start(time.monotonic_ns())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._path.unlink(missing_ok=True)
        self._nemesis.stop()

    def _answer(self, line: bytes) -> Answer:
        try:
            command: Command = msgspec.json.decode(line, type=Command)
            return self._do(command)
        except (msgspec.DecodeError, BadQuantity, InvalidInput) as error:
            return Answer(refused=str(error))

    def _do(self, command: Command) -> Answer:
        match command:
            case Inject(fields, for_s):
                if for_s is not None:
                    for_s = read_number(for_s, FOR_S)
                fault = validate_fault(fields, self._nodes, source="inject")
                if not all(isinstance(self._cluster, need) for need in fault.needs):
                    raise Unsupported(
                        f"inject: no fault {fault.fault!r} on this cluster; it works on: "
                        + ", ".join(works_on(fault.needs))
                    )
                record = self._nemesis.inject(fault, AT_MOST_S if for_s is None else for_s)
                faults = [record]
            case Heal(number):
                on = [record.number for record in self._nemesis.on]
                if number is not None and number not in on:
                    listed = ", ".join(map(str, on)) or "none"
                    raise NoSuchFault(f"no fault {number} is on (on: {listed})")
                wanted = on if number is None else [number]
                faults = [self._nemesis.heal(each) for each in wanted]
            case Faults():
                return Answer(self._nemesis.on)
            case Statuses():
                return Answer(statuses=self._statuses())
        wrong = [
            f"{each.fault} (fault {each.number}) {each.error}" for each in faults if each.error
        ]
        return Answer(faults, failed="\n".join(wrong) or None)


def ask(socket_path: Path, command: Command) -> Answer:
    """Send a command to the keeper. Raises TargetFailed if there is none, or it does not answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(str(socket_path))
            connection.sendall(msgspec.json.encode(command) + b"\n")
            with connection.makefile("rb") as answer:
                return msgspec.json.decode(answer.readline(), type=Answer)
        except (FileNotFoundError, ConnectionRefusedError):
            raise TargetFailed("the cluster's keeper has gone") from None
        except (OSError, msgspec.DecodeError) as error:
            raise TargetFailed(f"the cluster's keeper did not answer: {error}") from None
