"""What may be an experiment, without reading one: importing this costs nothing."""

from __future__ import annotations

AT_MOST_S = 3600.0
"""What is not healed by hand ends after this time, or with the cluster."""
MAX_NODES = 15
"""Of a cluster that we start: each has a proxy to each."""


def is_path(text: str) -> bool:
    """Whether an experiment is named by the path of its file."""
    return text.endswith((".yaml", ".yml")) or "/" in text
