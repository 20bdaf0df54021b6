"""A page of figures with their numbers: sweeps of detectors and of live clusters.

No script, no network; text is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from bench.record.files import write_whole
from reports.charts.drawing import STYLE
from reports.formats.render import TEMPLATES

HALF = 6
"""The most columns of a table on half a page."""
_NUMBER = re.compile(r"([<>] ?)?[-+]?[\d.,]+%?( .*)?$|–|$")
"""A number, perhaps with its unit or interval; or that there is none."""


@dataclass(frozen=True)
class Figure:
    """Charts with their numbers, ready for the page. ``how``: a sentence on how to read them.
    ``rows``: cells as text, one per column."""

    title: str
    how: str
    svgs: list[Markup]
    columns: list[str]
    rows: list[list[str]]

    @property
    def words(self) -> list[bool]:
        """Which columns are text, and begin at the left."""
        columns = range(len(self.columns))
        return [not all(_NUMBER.match(row[n]) for row in self.rows) for n in columns]

    @property
    def wide(self) -> bool:
        """Whether its table takes the whole page, and not half of it."""
        return len(self.columns) > HALF


def write_figures(
    out: Path,
    *,
    title: str,
    tag: str,
    setting: str,
    question: str,
    lines: Sequence[str],
    figures: Sequence[Figure],
    method: Sequence[str],
) -> Path:
    """Write the page ``out`` and return its path. ``tag``: live or simulated. ``lines`` answer the
    ``question``; ``method``: how it was measured, in lines."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["drawing_style"] = Markup(STYLE)
    page = environment.get_template("figures.html").render(
        title=title,
        tag=tag,
        setting=setting,
        question=question,
        lines=lines,
        figures=figures,
        method=method,
    )
    write_whole(out, page.encode(errors="backslashreplace"))
    return out
