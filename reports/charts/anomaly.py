"""The message diagram around the anomaly explained in a run's report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.record.files import NotReadable, read_regular
from bench.record.verdict import WitnessLine
from nodes.simulator.story import Story
from reports.charts.message_diagram import Diagram, svg_document

MESSAGES_FILE = "messages.json"
MOST_BYTES = 4 << 20


class Messages(msgspec.Struct, kw_only=True):
    """The messages that a simulated run keeps. ``nodes``: those of the witness; ``story``: the
    messages between them closest to the witness's operations; ``total``: how many were sent during
    the witness; ``witness``: the ids of its operations (empty in older folders)."""

    nodes: list[str]
    story: Story
    total: int
    witness: list[int] = []

    def around(self, lines: Sequence[WitnessLine]) -> bool:
        """Whether these messages are around this witness, not that of an earlier verdict."""
        return self.witness == [line.operation.id for line in lines]


def read_messages(folder: Path) -> Messages | None:
    """The messages of a run; None if it has none or they cannot be read."""
    try:
        return msgspec.json.decode(read_regular(folder / MESSAGES_FILE, MOST_BYTES), type=Messages)
    except (OSError, NotReadable, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def picture(messages: Messages, title: str) -> str:
    """The diagram as a data URI, which keeps its styles separate."""
    diagram = Diagram(
        title=title,
        message="",
        command="",
        facts=[],
        nodes=messages.nodes,
        story=messages.story,
        transcript=[],
    )
    encoded = base64.b64encode(svg_document(diagram).encode()).decode()
    return f"data:image/svg+xml;base64,{encoded}"
