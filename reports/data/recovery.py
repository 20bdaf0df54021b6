"""The cost of a lost node: how long until its data was fully replicated again, what was copied, and
which operations failed meanwhile. It is computed from the nodes' events ``suspect``,
``under_replicated`` and ``re_replicated`` (see `nodes.parts.recovery.Recovery`) and the runner's
``killed``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.data.metrics import RunTables


@dataclass(frozen=True)
class Loss:
    """A node that was replaced. Times are seconds after it was killed; if it was not (``killed`` is
    false), after it was first suspected, perhaps by mistake.

    ``detected_s``: when the last node that suspected it in time did so. ``restored_s``: when the
    last of its ranges had all replicas again; None: one never had. ``transfer_s``: the longest copy
    of a range. ``ranges``: how many had to be restored; ``bytes``, ``keys``: of all copied pages,
    so each key counts once per source. ``operations``: those wanted until the restore (or the end);
    those that did not end ok are ``failed_there``, if the lost node was asked, or
    ``failed_elsewhere``."""

    node: str
    killed: bool
    began_s: float
    detected_s: float | None
    restored_s: float | None
    transfer_s: float
    ranges: int
    bytes: int
    keys: int
    operations: int
    failed_there: int
    failed_elsewhere: int

    @property
    def detections(self) -> float | None:
        """The time to restore without the transfer, in detection times."""
        if self.restored_s is None or not self.detected_s:
            return None
        return (self.restored_s - self.transfer_s) / self.detected_s


COLUMNS = {
    "lost": "node",
    "at s": "began_s",
    "suspected by all after s": "detected_s",
    "factor restored after s": "restored_s",
    "in detection times": "detections",
    "longest copy s": "transfer_s",
    "ranges": "ranges",
    "bytes moved": "bytes",
    "keys copied": "keys",
    "operations meanwhile": "operations",
    "failed at the lost node": "failed_there",
    "failed elsewhere": "failed_elsewhere",
}
"""The table in a report: heading -> field of `Loss`."""


def losses(run: RunTables) -> list[Loss]:
    """The nodes that were replaced, by time."""
    events = [
        (event["t_s"], event["node"], event["name"], json.loads(event["details"] or "{}"))
        for event in run.nodes[run.nodes["kind"] == "event"].to_dict("records")
    ]
    lost: dict[str, float] = {}
    for t_s, _, name, details in events:
        if name == "under_replicated":
            lost.setdefault(details["lost"], t_s)
    return [_loss(run, events, node, noticed_s) for node, noticed_s in lost.items()]


def _loss(
    run: RunTables,
    events: list[tuple[float, str, str, dict[str, Any]]],
    node: str,
    noticed_s: float,
) -> Loss:
    killed = [t for t, who, name, _ in events if (who, name) == (node, "killed") and t < noticed_s]
    began_s = killed[-1] if killed else noticed_s
    suspicions = [t for t, _, name, d in events if name == "suspect" and d.get("node") == node]
    if not killed:
        began_s = min([t for t in suspicions if t <= noticed_s], default=noticed_s)
    in_time = [t for t in suspicions if began_s <= t <= noticed_s]
    wanted = {
        d["range"] for _, _, name, d in events if name == "under_replicated" and d["lost"] == node
    }
    copies = {
        d["range"]: (t, d)
        for t, _, name, d in events
        if name == "re_replicated" and d["from"] == node and t >= began_s
    }
    restored_s = max(t for t, _ in copies.values()) if wanted <= copies.keys() else None
    until_s = run.end_s if restored_s is None else restored_s
    wanted_s = run.operations["intended_s"]
    meanwhile = run.operations[(wanted_s >= began_s) & (wanted_s <= until_s)]
    failed = meanwhile[meanwhile["outcome"] != "ok"]
    there = int((failed["node"] == node).sum())
    return Loss(
        node=node,
        killed=bool(killed),
        began_s=began_s,
        detected_s=max(in_time) - began_s if in_time else None,
        restored_s=None if restored_s is None else restored_s - began_s,
        transfer_s=max((d["seconds"] for _, d in copies.values()), default=0.0),
        ranges=len(wanted),
        bytes=sum(d["bytes"] for _, d in copies.values()),
        keys=sum(d["keys"] for _, d in copies.values()),
        operations=len(meanwhile),
        failed_there=there,
        failed_elsewhere=len(failed) - there,
    )


def rows(run: RunTables) -> list[list[Any]]:
    """The rows of a report's table, as in `COLUMNS`. Empty if no node was lost."""
    return [[getattr(loss, field) for field in COLUMNS.values()] for loss in losses(run)]
