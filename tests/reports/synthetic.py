"""Writes run folders that look like real ones, as inputs for the reports.

Nothing here is measured: a tiny model answers the operations, seeded, in the shape of what a
cluster of five nodes does. The verdicts are what the checkers say of that history.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.checkers.verdict import check_run
from bench.record.history import HistoryWriter, OperationRecord
from bench.record.run_folder import (
    FaultRecord,
    LoadSummary,
    Manifest,
    NodeRecord,
    RunFolder,
    write_json,
)

T0 = 5_000_000_000_000
"""The monotonic clock at the start of the load (ns)."""
NODES = ["n1", "n2", "n3", "n4", "n5"]
TIMEOUT_S = 2.0


def ns(seconds: float) -> int:
    """``seconds`` after the load began, as a stamp."""
    return T0 + round(seconds * 1e9)


@dataclass
class Shape:
    """What to write. ``cut_s``: (applied, heal started) of the fault, None for a healthy run."""

    protocol: str
    experiment: str
    cut_s: tuple[float, float] | None = None
    seed: int = 7
    rate_per_s: int = 60
    seconds: float = 20.0
    latency_s: float = 0.008
    extra_latency_s: float = 0.0
    keys: list[str] = field(default_factory=lambda: [f"k{i}" for i in range(20)])
    claim: str = ""
    simulated: bool = False
    dropped: int = 0
    election_s: float = 1.2


def leader_partition(path: Path, protocol: str, **options: Any) -> RunFolder:
    """The leader n1 alone, from 6 s to 14 s."""
    return write_run(path, Shape(protocol, "leader-partition", (6.0, 14.0), **options))


def healthy(path: Path, protocol: str, **options: Any) -> RunFolder:
    """No fault."""
    return write_run(path, Shape(protocol, "healthy", **options))


def latency(path: Path, protocol: str, **options: Any) -> RunFolder:
    """50 ms more on every link, from 6 s to 14 s."""
    extra = 0.0 if protocol == "gossip" else 0.16
    shape = Shape(protocol, "latency-50ms", (6.0, 14.0), extra_latency_s=extra, **options)
    return write_run(path, shape)


def write_run(path: Path, shape: Shape) -> RunFolder:
    """A complete run folder."""
    folder = RunFolder.create(path, manifest(shape))
    records, state = _operations(shape)
    with HistoryWriter(folder.history_dir / "load.jsonl") as writer:
        for record in sorted(records, key=lambda r: r.completed_ns or 0):
            writer.append(record)
    _final_reads(folder, shape, state)
    write_json(
        folder.load_dir / "load.json",
        LoadSummary(
            client="load",
            started_ns=ns(0),
            ended_ns=ns(shape.seconds),
            offered_per_s=shape.rate_per_s,
            intended=len(records) + shape.dropped,
            invoked=len(records),
            dropped=shape.dropped,
            dropped_intended_ns=[ns(7.0 + i / 1000) for i in range(shape.dropped)],
            lateness_ms_p50=0.2,
            lateness_ms_p99=1.9,
        ),
    )
    if shape.cut_s:
        folder.append_fault(_fault(shape))
    for node_record in _node_records(shape):
        folder.append_node(node_record)
    folder.write_verdict(check_run(folder))
    return folder


def _final_reads(folder: RunFolder, shape: Shape, state: dict[str, Any]) -> None:
    number = 0
    with HistoryWriter(folder.history_dir / "final.jsonl") as writer:
        for node in NODES:
            for key in shape.keys:
                number += 1
                writer.append(
                    OperationRecord(
                        process="final-1",
                        id=1_000_000 + number,
                        op="read",
                        key=key,
                        outcome="ok",
                        invoked_ns=ns(shape.seconds + 3 + number / 1000),
                        completed_ns=ns(shape.seconds + 3.0005 + number / 1000),
                        node=node,
                        value=state.get(key),
                    )
                )
    summary = LoadSummary(
        client="final",
        started_ns=ns(shape.seconds + 3),
        ended_ns=ns(shape.seconds + 4),
        offered_per_s=None,
        intended=number,
        invoked=number,
        dropped=0,
    )
    write_json(folder.load_dir / "final.json", summary)


def manifest(shape: Shape) -> Manifest:
    claim = shape.claim or ("eventual" if shape.protocol.startswith("gossip") else "linearizable")
    return Manifest(
        capbench_version="0.1.0",
        commit="0123abc",
        experiment_name=shape.experiment,
        experiment={"title": f"{shape.experiment} of a synthetic cluster", "nodes": 5},
        protocol=shape.protocol,
        claim=claim,  # type: ignore[arg-type]
        operations=["read", "write"],
        nodes=list(NODES),
        target="simulator" if shape.simulated else "local",
        simulated=shape.simulated,
        seed=shape.seed,
        started_utc="2026-11-22T21:04:11Z",
        command=["capbench", "run", shape.experiment, "--protocol", shape.protocol],
        versions={"python": "3.11.2", "broker": "mosquitto version 2.0.11", "toxiproxy": "2.12.0"},
        hardware={"cores": 2, "memory_gb": 7.8, "cpu": "synthetic"},
        offered_per_s=float(shape.rate_per_s),
        load_started_ns=ns(0),
        load_ended_ns=ns(shape.seconds),
        complete=True,
        notes=["synthetic: no cluster was measured"],
    )


def _fault(shape: Shape) -> FaultRecord:
    assert shape.cut_s
    start, end = shape.cut_s
    partition = shape.experiment == "leader-partition"
    return FaultRecord(
        number=0,
        fault="partition" if partition else "latency",
        parameters={"groups": "leader-alone"} if partition else {"latency_ms": 50},
        groups=[["n1"], NODES[1:]] if partition else None,
        nodes=list(NODES),
        planned_ns=ns(start),
        planned_heal_ns=ns(end),
        started_ns=ns(start + 0.002),
        applied_ns=ns(start + 0.01),
        heal_started_ns=ns(end),
        healed_ns=ns(end + 0.02),
    )


def _operations(shape: Shape) -> tuple[list[OperationRecord], dict[str, Any]]:
    """The load, and what every key holds in the end."""
    rng = random.Random(shape.seed)
    gossip = shape.protocol.startswith("gossip")
    partition = shape.experiment == "leader-partition"
    stores: list[dict[str, int]] = [{}, {}]
    records: list[OperationRecord] = []
    generation = dict.fromkeys(range(12), 0)
    start, end = shape.cut_s or (shape.seconds, shape.seconds)
    for number in range(int(shape.rate_per_s * shape.seconds)):
        intended_s = number / shape.rate_per_s
        invoked_s = intended_s + 0.0002
        client = number % 12
        node = rng.choice(NODES)
        key = rng.choice(shape.keys)
        kind = rng.choice(["read", "write"])
        side = 0 if node == "n1" else 1
        cut = start <= intended_s < end
        took_s = (0.001 if gossip else shape.latency_s) * rng.lognormvariate(0, 0.35)
        if cut and shape.extra_latency_s:
            took_s += shape.extra_latency_s
        outcome, error = "ok", None
        if partition and cut and not gossip:
            if side == 0:
                outcome, error, took_s = "info", "timeout", TIMEOUT_S
            elif intended_s < start + shape.election_s:
                took_s = start + shape.election_s - intended_s + took_s
        if partition and gossip and not cut:
            newest = {k: max(s.get(k, -1) for s in stores) for k in {**stores[0], **stores[1]}}
            stores = [newest, dict(newest)]
        store = stores[side] if partition and cut and gossip else stores[1]
        value = number if kind == "write" else store.get(key)
        if kind == "write" and outcome == "ok":
            store[key] = number
        records.append(
            OperationRecord(
                process=f"c{client}.{generation[client]}",
                id=number,
                op=kind,  # type: ignore[arg-type]
                key=key,
                outcome=outcome,  # type: ignore[arg-type]
                intended_ns=ns(intended_s),
                invoked_ns=ns(invoked_s),
                completed_ns=ns(invoked_s + took_s),
                value=value if kind == "write" or outcome == "ok" else None,
                node=node,
                error=error,
            )
        )
        if outcome == "info":
            generation[client] += 1
    return records, dict(stores[1])


def _node_records(shape: Shape) -> list[NodeRecord]:
    records = [NodeRecord(t_ns=ns(-3), node=n, kind="event", name="started") for n in NODES]
    moved = shape.experiment == "leader-partition"
    gossip = shape.protocol.startswith("gossip")
    if not gossip:
        records.append(_event(-2.5, "n1", "become_candidate", term=1))
        records.append(_event(-2.4, "n1", "become_leader", term=1))
        if moved:
            records.append(_event(7.0, "n3", "become_candidate", term=2))
            records.append(_event(7.2, "n3", "become_leader", term=2))
            records.append(_event(14.05, "n1", "become_follower", term=2))
    second = -2
    while second < shape.seconds:
        for node in NODES:
            if gossip:
                probe: dict[str, Any] = {"role": "replica", "leader": None, "ready": True}
            else:
                leader = "n3" if moved and second > 7 else "n1"
                if node == "n1" and second < 14:
                    leader = "n1"
                role = "leader" if leader == node else "follower"
                term = 2 if leader == "n3" else 1
                probe = {"role": role, "leader": leader, "term": term, "ready": True}
            records.append(NodeRecord(t_ns=ns(second), node=node, kind="status", probe=probe))
        second += 1
    return records


def _event(at_s: float, node: str, name: str, **details: Any) -> NodeRecord:
    return NodeRecord(t_ns=ns(at_s), node=node, kind="event", name=name, details=details)
