"""Requests that come again, at rest: a write takes effect once, and one in the middle of which its
node was killed is there if its client is told so.

Random clients come to these places seldom: they need copies in an order that is rare, or a crash
between two writes to the disk that only the first write of a key makes. Each question has a key of
its own: of another one a node may not have heard all yet, and clocks may be wrong.
"""

from __future__ import annotations

from nodes.contract.disk import Put
from nodes.contract.pace import Pace
from nodes.contract.replica import Operation, OperationKind
from nodes.parts.claims import is_forgetful
from nodes.simulator.load import OperationRecord
from nodes.simulator.oracles.lasting import FOREVER_S
from nodes.simulator.oracles.stage import Stage, cut, judge
from nodes.simulator.placed import is_placed

_STEPS = 200
"""In so many steps time goes by until something is so."""
_MIDDLE_S = 0.0001
"""So often is looked whether a node is in the middle of a write."""
_TORN = (0.34, 0.67)
"""Of three writes that wait, a result, its effect, and the end of an older result, the first one or
two survive."""
_REFUSED = 0.25
"""The share of the seeds in which a request is refused and comes again: that takes seconds."""
GIVES_UP_S = 1.5
"""On top of the time after which a request is given up: until the timer that sees it."""


def takes_effect_once(stage: Stage, pace: Pace) -> bool:
    """A client whose first write has ended sends a second one, which is lost at first, and a third
    one, which says that the first has ended. Then the second one comes, as it was sent; and a late
    copy of the first, to another node where that is promised: it must change nothing."""
    if pace.once == "nowhere" or _forgets(stage):
        return True
    node, other = stage.cluster.nodes[0], stage.cluster.nodes[-1]
    clients = stage.clients
    first = len(clients.history)
    zeroth = _write(stage, "once.0", node, "once")
    clients.lose(node, "", 1.0)
    second = _write(stage, "once.1", node, "once")
    clients.lose(node, "", 0.0)
    if not _ends(stage, pace, zeroth):
        return False
    if not _ends(stage, pace, _write(stage, "once.2", node, "once")):
        return False
    clients.repeat(first + 1, node)
    if not _ends(stage, pace, second):
        return False
    clients.repeat(first, other if pace.once == "anywhere" else node)
    stage.cluster.run(pace.serves_s)
    return _reads(stage, pace, node, "once.1", "once")


def is_known_elsewhere(stage: Stage, pace: Pace) -> bool:
    """A write that was superseded comes again at a node that has never heard of it: others have,
    and it must change nothing."""
    if pace.once != "anywhere" or _forgets(stage) or is_placed(stage.cluster):
        return True  # Where a key is on two nodes, nothing is written while one of them is cut off.
    node, other = stage.cluster.nodes[0], stage.cluster.nodes[-1]
    first = len(stage.clients.history)
    nemesis = cut(stage, "isolate", other, pace.serves_s)
    if not _ends(stage, pace, _write(stage, "elsewhere.0", node, "elsewhere")):
        return False
    nemesis.heal_all()
    if not _ends(stage, pace, _write(stage, "elsewhere.1", node, "elsewhere", "another")):
        return False
    stage.clients.repeat(first, other)
    stage.cluster.run(pace.serves_s)
    return _reads(stage, pace, node, "elsewhere.1", "elsewhere")


def stays_refused(stage: Stage, pace: Pace) -> bool:
    """A write ends `fail` where no majority is to be had. That holds also after a restart: a late
    copy of it changes nothing."""
    cluster, clients, key = stage.cluster, stage.clients, "refused"
    if pace.gives_up_s is None or _forgets(stage) or len(cluster.nodes) < 3:
        return True
    if cluster.rng(key).random() >= _REFUSED:
        return True
    node, other = cluster.nodes[0], cluster.nodes[-1]
    number = len(clients.history)
    nemesis = cut(stage, "isolate", node, FOREVER_S)
    record = _write(stage, key, node, key)
    cluster.run(pace.gives_up_s + GIVES_UP_S)
    cluster.crash(node)
    cluster.restart(node)
    nemesis.heal_all()
    if record.outcome != "fail":
        return True  # It is a majority alone, or whether it is done is unknown.
    cluster.run(pace.serves_s)
    clients.repeat(number, node)
    cluster.run(pace.serves_s)
    return _reads(stage, pace, other, None, key)


def survives_the_middle(stage: Stage, pace: Pace) -> bool:
    """A node is killed in the middle of what the first write of a key puts on its disk, and is
    asked again when it is back. What it then tells is so. Before that a late copy comes of what the
    client wrote before, which was superseded, and whose end it has told: it must change nothing."""
    cluster, clients = stage.cluster, stage.clients
    draw = cluster.rng("middle").random
    node, key = cluster.nodes[int(draw() * len(cluster.nodes))], "middle"
    host = cluster.hosts[node]
    first = len(clients.history)
    before = _write(stage, "before", node, "before", key)
    if not _ends(stage, pace, before):
        return False
    over = Operation("write", "before", "over", context=before.version)
    if not _ends(stage, pace, _invoke(stage, over, node, "over", "over")):
        return False
    number = len(clients.history)
    record = _write(stage, key, node, key)
    for _ in range(_STEPS):
        cluster.run(_MIDDLE_S)
        if any(type(write) is Put and write.key == f"k/{key}" for write in host.storage.waiting):
            break
    else:
        return _ends(stage, pace, record)  # Others hold it, or it came to be in one step.
    cluster.crash(node, torn=_TORN[int(draw() * len(_TORN))])
    cluster.restart(node)
    if pace.once != "nowhere" and not _forgets(stage):
        clients.repeat(first, node)
        cluster.run(pace.serves_s)
    clients.repeat(number, node)
    return _ends(stage, pace, record) and _reads(stage, pace, node, key, key)


def _forgets(stage: Stage) -> bool:
    return is_forgetful(next(iter(stage.cluster.hosts.values())).config.parameters)


def _write(
    stage: Stage, value: str, node: str, key: str, session: str | None = None
) -> OperationRecord:
    return _invoke(stage, Operation("write", key, value), node, value, session or key)


def _invoke(
    stage: Stage, operation: Operation, node: str, process: str, session: str
) -> OperationRecord:
    def on_end(record: OperationRecord) -> None:
        """Its record has the outcome."""

    number = len(stage.clients.history)
    stage.clients.invoke(process, node, operation, on_end, session=session, timeout_s=1e6)
    return stage.clients.history[number]


def _ends(stage: Stage, pace: Pace, record: OperationRecord) -> bool:
    for _ in range(_STEPS):
        if record.completed_ns is not None:
            break
        stage.cluster.run(pace.serves_s / _STEPS)
    if record.outcome == "ok":
        return True
    kind: OperationKind = record.op
    told = f"{kind} on {record.node} was not answered within {pace.serves_s:.3f} s: {record}"
    return judge(stage, "again", [("liveness", told)])


def _reads(stage: Stage, pace: Pace, node: str, value: str | None, key: str) -> bool:
    record = _invoke(stage, Operation("read", key), node, f"read.{value}", f"read.{value}")
    if not _ends(stage, pace, record):
        return False
    if record.value == value:
        return True
    told = f"{node} reads {key!r} as {record.value!r}, where {value!r} was written last"
    return judge(stage, "again", [("answers", told)])
