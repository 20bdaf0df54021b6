"""Foreign YAML, read within bounds: size, depth, and how far its aliases expand.

A few lines of aliases of aliases ("billion laughs") stand for gigabytes, and a deep nest ends the
reader's stack. So a text is walked first, event by event, which takes no more than its length, and
counted as if every alias were written out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    NodeEvent,
)

from nodes.errors import InvalidInput

MAX_BYTES = 128 << 10
MAX_VALUES = 10_000
"""Scalars, lists and mappings, every alias written out."""
MAX_DEPTH = 20


class BadYaml(InvalidInput):
    """A text that is not YAML, or too much of it. ``line``: where, from 1; None: unknown."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def read_yaml(text: str, kind: Literal["rt", "safe"] = "rt", *, ours: bool = False) -> Any:
    """The content of the text. ``rt``: with line numbers of fields (YAML 1.2). ``ours``: it comes
    with capbench and need not be checked first. Raises BadYaml."""
    if len(text) > MAX_BYTES:
        raise BadYaml(f"has {len(text):,} characters, at most {MAX_BYTES:,} are read")
    try:
        if not ours:
            _refuse_too_much(YAML(typ=kind, pure=True).parse(text))
        return YAML(typ=kind, pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join((error.problem or error.context or "not YAML").split())
        line = mark.line + 1 if mark else 1
        raise BadYaml(problem.split(" To suppress")[0], line) from None
    except BadYaml:
        raise
    except (YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()).replace(
            ' in "<unicode string>", position', " at character"
        )
        raise BadYaml(f"is not YAML: {reason}") from None


def _refuse_too_much(events: Iterable[Any]) -> None:
    sizes: dict[str, int] = {}  # anchor -> how many values it stands for
    open_: list[tuple[str | None, int]] = []
    count = 0
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            # An alias of an open value makes that value contain itself.
            if any(anchor == event.anchor for anchor, _ in open_):
                raise BadYaml(f"&{event.anchor} contains itself", line)
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, NodeEvent):
            count += 1
            if event.anchor in sizes:
                raise BadYaml(f"the anchor &{event.anchor} is given twice", line)
            if event.anchor is not None:
                sizes[event.anchor] = 1
            if isinstance(event, CollectionStartEvent):
                open_.append((event.anchor, count - 1))
                if len(open_) > MAX_DEPTH:
                    raise BadYaml(f"is nested deeper than {MAX_DEPTH} levels", line)
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        if count > MAX_VALUES:
            raise BadYaml(
                f"has more than {MAX_VALUES:,} values with aliases expanded; nobody needs that",
                line,
            )
