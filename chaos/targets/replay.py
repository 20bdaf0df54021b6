"""The messages around the anomaly that the report of a simulated run explains.

A simulated run is its seed: when a checker has found a witness, the run is replayed with a trace up
to the end of the witness, and the messages between its nodes are kept in the run folder
(``messages.json``) for the report's diagram. A live run cannot be replayed, and keeping all its
messages would change the measurement.
"""

from __future__ import annotations

from dataclasses import replace

from bench.record.run_folder import RunFolder, write_json
from bench.record.verdict import Verdict
from chaos.targets.run import Run
from chaos.targets.simulator import trace
from nodes.runtime.scratch import scratch
from nodes.simulator.story import Arrow, Moment, Story
from reports.charts.anomaly import MESSAGES_FILE, Messages
from reports.data.summary import cut, witness_of

MOST_ARROWS = 60
MOST_TEXT = 160


class Silent:
    """Shows no progress."""

    def phase(self, text: str) -> None:
        """Nothing."""

    def tick(self, done: float, total: float) -> None:
        """Nothing."""


def keep_messages(run: Run, verdict: Verdict) -> None:
    """Write ``messages.json`` if the verdict has a witness. Raises TargetFailed."""
    witness = witness_of(verdict)
    lines = [line for line in witness if line.operation.node is not None]
    if not lines:
        return
    stamps = [line.operation.invoked_ns for line in lines]
    stamps += [line.operation.completed_ns or line.operation.invoked_ns for line in lines]
    with scratch("replay") as place:
        folder = RunFolder.create(place / "run", run.folder.manifest())
        story = trace(replace(run, folder=folder, progress=Silent()), max(stamps))
    nodes = [n for n in run.experiment.node_ids() if any(n == ln.operation.node for ln in lines)]
    moments = [each / 1e9 for each in stamps]

    def far(arrow: Arrow) -> float:
        return min(abs(arrow.sent_s - moment) for moment in moments)

    between = [
        arrow
        for arrow in story.arrows
        if arrow.src in nodes
        and arrow.dst in nodes
        and arrow.src != arrow.dst
        and min(moments) <= arrow.sent_s <= max(moments)
    ]
    near = sorted(sorted(between, key=far)[:MOST_ARROWS], key=lambda arrow: arrow.sent_s)
    for arrow in near:
        arrow.text = cut(arrow.text, MOST_TEXT)
    asked = []
    for number, line in enumerate(witness, 1):
        operation = line.operation
        if operation.node in nodes:
            who, words = str(operation.node), f"{operation.process} {line.role}"
            asked.append(Moment(operation.invoked_ns / 1e9, who, "mark", f"asked-{number} {words}"))
            if operation.completed_ns is not None:
                at_s = operation.completed_ns / 1e9
                asked.append(Moment(at_s, who, "mark", f"answered-{number} {operation.outcome}"))
    messages = Messages(
        nodes=nodes,
        story=Story(near, sorted(asked, key=lambda moment: moment.at_s)),
        total=len(between),
        witness=[line.operation.id for line in witness],
    )
    write_json(run.folder.path / MESSAGES_FILE, messages)
