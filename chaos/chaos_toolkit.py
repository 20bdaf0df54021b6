"""Our faults as actions and probes of Chaos Toolkit (the extra ``capbench[chaostoolkit]``).

They work on a cluster that stays (`capbench up`), from the folder in which it was started: on that
of the given ``name``, or else on the one that runs. In an
experiment, name them as ``"provider": {"type": "python", "module": "chaos.chaos_toolkit", "func":
"inject_fault", "arguments": {...}}``; `docs/chaos-toolkit.json` can be run as it is.
Whatever goes wrong is raised as one line, which makes the activity, and so the experiment, fail.

Chaos Toolkit starts its own processes and plays no timeline; what is to be timed to the millisecond
and judged by a checker is an experiment of `capbench run`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from bench.load.client import Client
from bench.load.mqtt_client import MqttClient
from bench.load.workload import PlannedOperation
from bench.record.quantities import MAX_COUNT, BadQuantity, Bounds, read_number
from chaos.clusters import by_name as clusters
from chaos.clusters.monitor import Monitor
from chaos.errors import TargetFailed
from chaos.experiments.experiment import parse_fault
from chaos.experiments.limits import AT_MOST_S
from chaos.targets import by_hand
from nodes.contract.names import did_you_mean
from nodes.contract.replica import Reply

__all__ = ["faults_on", "heal_faults", "inject_fault", "leader", "operation_outcome"]

_KEY = "chaos-toolkit"


def inject_fault(
    fault: str,
    parameters: Mapping[str, Any] | None = None,
    for_s: float | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Action: begin a fault of ``capbench faults`` on the cluster.

    ``parameters``: the fault's own, as in a schedule. ``for_s``: seconds; None: until
    `heal_faults`. Returns the fault's record (its number, nodes, links and times in monotonic ns).
    Raises TargetFailed if it could not be applied, ValueError for a fault or parameter that is
    none.
    """
    fields = {"fault": fault, **(parameters or {})}
    parse_fault(fields, source="inject")
    if for_s is not None:
        for_s = _number("for_s", for_s, by_hand.FOR_S)
    (record,) = _answer(name, by_hand.Inject(fields, for_s))
    return record


def heal_faults(number: int | None = None, name: str | None = None) -> list[dict[str, Any]]:
    """Action, also as a rollback: end the fault of that number, or all. Returns their records.

    Raises TargetFailed if one could not be healed, ValueError if no such fault is on.
    """
    if number is not None:
        number = int(_number("number", number, Bounds(0, MAX_COUNT)))
    return _answer(name, by_hand.Heal(number))


def faults_on(name: str | None = None) -> list[str]:
    """Probe: the names of the faults that are on, in the order in which they began.

    Raises TargetFailed if there is no such cluster.
    """
    return [record["fault"] for record in _answer(name, by_hand.Faults())]


def leader(timeout_s: float = 5.0, name: str | None = None) -> str | None:
    """Probe: the node of the running cluster that leads; None if none does within ``timeout_s``.

    Raises TargetFailed if there is no such cluster, or bench.load.mqtt_client.BrokerUnreachable.
    """
    timeout_s = _number("timeout_s", timeout_s, Bounds(0, AT_MOST_S))
    with Monitor(clusters.read(name)) as monitor:
        monitor.wait(lambda: monitor.leader() is not None, timeout_s)
        return monitor.leader()


def operation_outcome(
    node: str,
    op: Literal["read", "write"] = "write",
    timeout_s: float = 2.0,
    name: str | None = None,
) -> str:
    """Probe: what becomes of one operation (``read`` or ``write`` of a key of our own) at a node.

    Returns ``ok``, ``fail`` (certainly not applied) or ``info`` (no answer in ``timeout_s``).
    Raises ValueError for a node or an operation that the cluster does not have.
    """
    timeout_s = _number("timeout_s", timeout_s, by_hand.FOR_S)
    if op not in ("read", "write"):
        raise ValueError(f"unknown operation {did_you_mean(op, ('read', 'write'), 'use')}")
    cluster = clusters.read(name)
    if node not in cluster.nodes:
        raise ValueError(f"unknown node {did_you_mean(node, cluster.nodes, 'there are')}")
    caller = f"{_KEY}-{uuid.uuid4().hex[:8]}"
    client = Client(caller, timeout_s=timeout_s)
    replies: list[Reply] = []
    mqtt = MqttClient(cluster, caller, replies.append)
    try:
        mqtt.connect()
        value = time.monotonic_ns() if op == "write" else None
        request = client.invoke(
            PlannedOperation(1, None, node, op, _KEY, value), time.monotonic_ns()
        )
        assert request is not None, "no limit was set on open operations"
        if not mqtt.publish(node, [request]):
            return client.not_sent(request, time.monotonic_ns()).outcome
        while True:
            mqtt.poll(0.02)
            now_ns = time.monotonic_ns()
            ended = [client.on_reply(reply, now_ns) for reply in replies]
            replies.clear()
            for record in [*ended, *client.expire(now_ns)]:
                if record is not None:
                    return record.outcome
    finally:
        mqtt.close()


def _number(argument: str, value: Any, bounds: Bounds) -> float:
    try:
        return read_number(value, bounds)
    except BadQuantity as error:
        raise ValueError(f"{argument}: {error}") from None


def _answer(name: str | None, command: by_hand.Command) -> list[dict[str, Any]]:
    answer = by_hand.ask(clusters.socket_path(clusters.find(name).name), command)
    if answer.refused is not None:
        raise ValueError(answer.refused)
    if answer.failed is not None:
        raise TargetFailed(answer.failed)
    records: list[dict[str, Any]] = msgspec.to_builtins(answer.faults)
    return records
