"""A fault of a run, in words."""

from __future__ import annotations

import datetime
import time
from typing import Any

import msgspec

from bench.record.cluster_file import FaultOn
from bench.record.run_folder import FaultRecord


def named(record: FaultRecord) -> str:
    """Number, name, parameters, and the nodes and links that it affects."""
    own = {k: v for k, v in record.parameters.items() if k not in ("chosen_by", "seed")}
    words = [f"{record.number}: {record.fault}", *(f"{k}={_short(v)}" for k, v in own.items())]
    if record.groups:
        words.append("(" + " | ".join(" ".join(group) for group in record.groups) + ")")
    elif record.nodes:
        words.append("(" + " ".join(record.nodes) + ")")
    return " ".join(words)


def described(record: FaultRecord) -> str:
    """The same, and how long it is or was active."""
    if record.applied_ns is None:
        return named(record)
    end_ns = record.healed_ns or time.monotonic_ns()
    seconds = (end_ns - record.applied_ns) / 1e9
    return f"{named(record)} {'was on for' if record.healed_ns else 'on for'} {seconds:.1f} s"


def fault_on(record: FaultRecord) -> FaultOn:
    """The same with the time of day, for hosts with another monotonic clock."""
    now_ns = time.monotonic_ns()
    age = datetime.timedelta(seconds=(now_ns - (record.applied_ns or now_ns)) / 1e9)
    since = datetime.datetime.now(datetime.UTC) - age
    return FaultOn(what=named(record), since=f"{since:%H:%M:%S} UTC")


def _short(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
