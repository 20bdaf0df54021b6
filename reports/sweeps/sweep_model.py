"""The predictions of the queueing model (`reports.sweeps.model`) for the points of a sweep."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import msgspec

from bench.record.sweep_file import Calibration, Point, Sweep, SweepRow
from reports.sweeps.model import (
    Costs,
    NotCalibrated,
    Observed,
    calibrate,
    predict,
    response_s,
    shape,
)

PREDICTED = [
    *("theory_messages", "theory_fsyncs"),
    *("model_per_s", "model_ms_mean", "model_publishes", "calibrates"),
]


def predictions(sweep: Sweep) -> list[dict[str, Any]]:
    """The columns in `PREDICTED` of `reports.sweeps.sweep.table`, for each row."""
    cores, calibration = sweep.hardware.get("cores"), sweep.calibration
    costs = {}
    if cores and calibration:
        for protocol in dict.fromkeys(row.point.protocol for row in sweep.rows):
            with contextlib.suppress(NotCalibrated):
                costs[protocol] = _costs(sweep, protocol, cores)
    rows = []
    for row in sweep.rows:
        point = row.point
        # A measured point knows its leader; else clients ask all nodes in turn.
        forwarded = (point.nodes - 1) / point.nodes if row.forwarded is None else row.forwarded
        of = shape(point.protocol, point.nodes, forwarded)
        found: dict[str, Any] = {"calibrates": False}
        if of is not None:
            found |= {"theory_messages": of.messages, "theory_fsyncs": of.fsyncs}
        if of is not None and point.protocol in costs and calibration and not point.proxied:
            predicted = predict(
                costs[point.protocol],
                of,
                nodes=point.nodes,
                clients=point.clients,
                value_bytes=point.value_bytes,
                think_s=point.think_s,
                cores=_left(cores or 1, row),
                fsync_s=(calibration.fsync_us if row.fsync_us is None else row.fsync_us) / 1e6,
                broker_per_s=_broker_per_s(calibration, point.value_bytes),
                coalesced=point.coalesced,
            )
            found |= {
                "model_per_s": predicted.per_s,
                "model_ms_mean": 1000 * predicted.response_s,
                "model_publishes": predicted.publishes,
                "calibrates": point in _calibrating(point.protocol),
            }
        rows.append(found)
    return rows


def _calibrating(protocol: str) -> tuple[Point, Point, Point]:
    """The points that give the model's costs: one client, the base point, large values."""
    base = Point(protocol=protocol)
    replace = msgspec.structs.replace
    return replace(base, clients=1), base, replace(base, value_bytes=16 * 1024)


def _costs(sweep: Sweep, protocol: str, cores: int) -> Costs:
    """The costs of a protocol. Raises NotCalibrated."""
    measured = {row.point: row for row in sweep.rows if row.missing is None}
    wanted = _calibrating(protocol)
    for point in wanted:
        if point not in measured:
            raise NotCalibrated(f"{point} was not measured")
    one, many, large = (_observed(measured[point]) for point in wanted)
    return calibrate(
        protocol,
        one,
        many,
        large,
        value_bytes=wanted[1].value_bytes,
        forwarded=measured[wanted[0]].forwarded or 0.0,
        cores=_left(cores, measured[wanted[0]]),
    )


def _left(cores: int, row: SweepRow) -> float:
    """The cores available to the cluster and the load generator."""
    return max(0.1, cores - (row.other_cores or 0.0))


def _observed(row: SweepRow) -> Observed:
    return Observed(
        nodes=row.point.nodes,
        clients=row.point.clients,
        cpu_s=sum(row.cpu_us.values()) / 1e6,
        publishes=row.publishes or 0.0,
        bytes=row.bytes or 0.0,
        response_s=response_s(row.point.clients, row.ok_per_s or math.inf, row.point.think_s),
        fsync_s=(row.fsync_us or 0.0) / 1e6,
    )


def _broker_per_s(calibration: Calibration, size: float) -> float:
    """How many messages of that size the broker can pass on: its time per message grows with the
    bytes."""
    sizes = sorted(calibration.broker_messages_per_s)
    times = [1 / calibration.broker_messages_per_s[each] for each in sizes]
    slope = (times[-1] - times[0]) / (sizes[-1] - sizes[0])
    return 1 / max(times[0], times[0] + slope * (size - sizes[0]))
