"""What those who judge a healed cluster share: the run that lends it, and a question asked once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from typing import Protocol as Interface

from nodes.contract.replica import Operation, OperationKind
from nodes.registry import Protocol
from nodes.simulator.cluster import Cluster
from nodes.simulator.faults import Fault, Nemesis
from nodes.simulator.load import Clients, OperationRecord
from nodes.simulator.oracles.detection import Detectors
from nodes.simulator.oracles.rest import Finding

PROMPT_S = 0.03
"""So long an operation of a cluster at rest takes, at the median: a few round trips and fsyncs,
and no waiting for a timer."""


class Stage(Interface):
    """What the run lends: see `nodes.simulator.simulate`."""

    protocol: Protocol
    cluster: Cluster
    clients: Clients
    detectors: Detectors

    def begin(self, phase: str) -> None:
        """Something has to happen from now on."""

    def alarm(self, check: str, message: str) -> None:
        """It did not, or something else did."""

    def ask(self, phase: str, nodes: list[str], bound_s: float, mark: str) -> bool:
        """Each of ``nodes`` completes an operation within ``bound_s``; else an alarm is raised."""


def judge(stage: Stage, phase: str, findings: Iterable[Finding]) -> bool:
    """Raise the first alarm. True: there is none."""
    for check, told in findings:
        stage.alarm(check, f"{phase}: {told}")
        return False
    return True


def is_answered(
    stage: Stage,
    phase: str,
    node: str,
    op: OperationKind,
    bound_s: float,
    *,
    others_every_s: float | None = None,
) -> bool:
    """One operation, asked once, is ok within ``bound_s``; else an alarm is raised. Meanwhile
    others ask the same node that often, of another key."""
    done: list[OperationRecord] = []
    operation = Operation(op, "k0", f"{phase}.{node}" if op == "write" else None)
    stage.clients.invoke(phase, node, operation, done.append, timeout_s=2 * bound_s)
    left_s = bound_s
    while others_every_s is not None and left_s > others_every_s:
        stage.cluster.run(others_every_s)
        left_s -= others_every_s
        other = Operation("read", "k1")
        stage.clients.invoke(f"{phase} {left_s:.3f}", node, other, lambda record: None)
    stage.cluster.run(left_s)
    if done and done[0].outcome == "ok":
        return True
    told = f"{op} on {node} was not answered within {bound_s:.3f} s: {done}"
    return judge(stage, phase, [("liveness", told)])


def cut(stage: Stage, shape: str, node: str, for_s: float) -> Nemesis:
    """Cut a node off, from now on, by a partition of that shape; healed by itself, or before that
    by what is returned."""
    cluster = stage.cluster
    args: dict[str, Any] = {"groups": shape, "nodes": [node], "in_flight": True}
    fault = Fault(at_s=cluster.now, kind="partition", for_s=for_s, args=args)
    nemesis = Nemesis(cluster, stage.clients, [fault])
    cluster.run(0.0)
    return nemesis
