"""Limits of experiments; importing this costs nothing."""

from __future__ import annotations

AT_MOST_S = 3600.0
"""A fault injected by hand that nobody heals ends after this time, or with the cluster."""
MAX_NODES = 15
"""Of a cluster that we start: each node has a proxy to each other one."""


def is_path(text: str) -> bool:
    """Whether an experiment is given as the path of its file."""
    return text.endswith((".yaml", ".yml")) or "/" in text
