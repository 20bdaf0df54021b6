"""The directed links of a cluster: their names, and the ports where addresses are fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

GROUP = "load"
"""The one client group of a run."""

Link: TypeAlias = tuple[str, str]

FIRST_PORT = 20_000
"""Of the proxies of links, where nobody looks for free ports: in containers."""


def link_names(nodes: Sequence[str], groups: Sequence[str]) -> dict[Link, str]:
    """Every directed link of a cluster, and the name of its proxy. Raises ValueError."""
    if set(nodes) & set(groups):
        raise ValueError(f"a client group is named like a node: {sorted(set(nodes) & set(groups))}")
    names = {(src, dst): f"link_{src}_{dst}" for src in nodes for dst in nodes if src != dst}
    for group in groups:
        for node in nodes:
            names[(group, node)] = f"req_{group}_{node}"
            names[(node, group)] = f"rep_{group}_{node}"
    return names


def link_ports(nodes: Sequence[str], groups: Sequence[str]) -> dict[Link, int]:
    """The fixed port of each link's proxy. ``nodes``: all that the installation has, also those
    that a run leaves out."""
    return {link: FIRST_PORT + i for i, link in enumerate(link_names(nodes, groups))}
