"""Unique ids: whatever was generated was never generated before.

- *repeated*: two operations that ended ok were answered one id.

(Jepsen's `unique-ids`.)
"""

from __future__ import annotations

from typing import Any

import msgspec

from bench.checkers.models.findings import Findings, ended_ok, keys_of
from bench.record.columns import value_key
from bench.record.models.operations import Operations


def check_unique_ids(o: Operations, findings: Findings) -> None:
    """What contradicts unique ids, key by key."""
    told = 0
    for key, rows in keys_of(o):
        seen: dict[Any, int] = {}
        for row in ended_ok(o, rows).tolist():
            value = o.value_of(row)
            if value is None:
                raise o.refused(row, "what was generated is not null")
            told += 1
            name = (
                msgspec.json.encode(value) if isinstance(value, list | dict) else value_key(value)
            )
            earlier = seen.setdefault(name, row)
            if earlier != row:
                of = f" of {key}" if key else ""
                findings.add("repeated", [earlier, row], f"{value!r}{of} was generated twice")
    findings.details["ids"] = told
