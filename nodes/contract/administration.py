"""What an administrator may ask of a protocol while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec


class Administration(msgspec.Struct, frozen=True):
    """``messages``: of each action, such as ``add``, ``remove`` or ``transfer``, the message about
    a node that asks for it; any node takes it, as if it came from itself. ``moments``: the marks
    (`Out.mark`) at which something that was asked has just begun. A protocol that changes its
    members says whom it has in ``members`` of its log's entries and of its snapshots."""

    messages: Mapping[str, Callable[[str], Any]] = {}
    moments: tuple[str, ...] = ()
