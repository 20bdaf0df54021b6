"""The core workloads of YCSB by name, for stores with whole values.

Source: Cooper et al., "Benchmarking Cloud Serving Systems with YCSB" (SoCC 2010), table 2, and the
core workloads that come with YCSB. Ours use 1,000 keys instead of millions: a run here takes
seconds and every read is checked. Values are written whole, so an update writes 1,000 characters
(the size of YCSB's records) instead of one field.
"""

from __future__ import annotations

from typing import Any

from bench.load.workload import BadWorkload

KEYS = 1000
RECORD_BYTES = 1000

_SHAPES: dict[str, tuple[str, str, dict[str, float]]] = {
    "a": ("update heavy", "zipfian", {"read": 50, "write": 50}),
    "b": ("read mostly", "zipfian", {"read": 95, "write": 5}),
    "c": ("read only", "zipfian", {"read": 100}),
    "d": ("read latest: a write is an insert", "latest", {"read": 95, "write": 5}),
    "f": ("read-modify-write", "zipfian", {"read": 50, "rmw": 50}),
}
NAMES = tuple(_SHAPES)


def summary(name: str) -> str:
    """A workload in a few words."""
    return _SHAPES[name][0]


def fields(name: str) -> dict[str, Any]:
    """The fields of `Workload` for the workload of that name (case-insensitive). Raises
    BadWorkload."""
    shape = _SHAPES.get(name.lower())
    if shape is None:
        why = "E scans ranges of keys, which no protocol here can; " if name in ("e", "E") else ""
        raise BadWorkload(f"no YCSB workload {name!r}: {why}use {', '.join(NAMES)}")
    _, distribution, mix = shape
    return {
        "keys": KEYS,
        "distribution": distribution,
        "mix": dict(mix),
        "value_bytes": RECORD_BYTES,
    }
