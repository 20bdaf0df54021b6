"""After the load: read every key at every node, the way any client would."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from bench.load.client import Client
from bench.load.kinds.final import final_model_reads, final_transactions
from bench.load.transport import Transport, make_transport
from bench.load.workload import PlannedOperation
from bench.record.cluster_file import ClusterFile, SystemFile
from bench.record.history import HistoryWriter, read_histories
from bench.record.models.run import Kind, ModelRecord, by_transactions
from bench.record.run_folder import LoadSummary, RunFolder, write_json
from nodes.contract.replica import Reply

NAME = "final"
AT_ONCE = 200
"""Reads of one node that are open at once: with more, the last ones' time would be up first."""
FIRST_ID = 1 << 40
"""Ids of final reads start here, above those of any workload."""


def final_reads(
    cluster: ClusterFile | SystemFile,
    nodes: Sequence[str],
    keys: Sequence[str],
    folder: RunFolder,
    *,
    kind: Kind = "register",
    timeout_s: float = 3.0,
) -> None:
    """Read ``keys`` at ``nodes``, many at once, and record it in history/final.jsonl. ``kind``: of
    the workload.

    A read that gets no answer in ``timeout_s`` is recorded as ``info``.
    Raises bench.load.mqtt_client.BrokerUnreachable.
    """
    name = f"{NAME}-{uuid.uuid4().hex[:8]}"
    client = Client(name, timeout_s=timeout_s, label=NAME)
    replies: list[Reply] = []
    whole = by_transactions(kind, cluster.operations)
    transport = make_transport(cluster, name, replies.append, timeout_s=timeout_s, final=True)
    started_ns = time.monotonic_ns()
    reads = _transactions(kind, nodes, keys) if whole else planned_reads(nodes, keys)
    try:
        transport.connect()
        with HistoryWriter(folder.history_dir / f"{NAME}.jsonl") as history:
            for node in nodes:
                of_node = [read for read in reads if read.node == node]
                for first in range(0, len(of_node), AT_ONCE):
                    requests = []
                    for planned in of_node[first : first + AT_ONCE]:
                        request = client.invoke(planned, time.monotonic_ns())
                        assert request is not None, "no limit was set on open operations"
                        requests.append(request)
                    if not transport.publish(node, requests):
                        for request in requests:
                            history.append(client.not_sent(request, time.monotonic_ns()))
                    _wait(transport, client, replies, history)
    finally:
        transport.close()
    ended_ns = time.monotonic_ns()
    if whole:
        done = [record for _, records in client.tasks.ended for record in records]
    else:
        done = of_kind(folder, kind, keys)
    summarise(folder, done, len(reads), started_ns, ended_ns)


def _wait(
    transport: Transport, client: Client, replies: list[Reply], history: HistoryWriter
) -> None:
    """Until nothing is open."""
    while client.open_count:
        transport.poll(0.02)
        now_ns = time.monotonic_ns()
        ended = [client.on_reply(reply, now_ns) for reply in replies]
        replies.clear()
        for record in [*ended, *client.expire(now_ns)]:
            if record is not None:
                history.append(record)


def planned_reads(nodes: Sequence[str], keys: Sequence[str]) -> list[PlannedOperation]:
    """Every key at every node."""
    pairs = [(node, key) for node in nodes for key in keys]
    return [
        PlannedOperation(FIRST_ID + number, None, node, "read", key, None)
        for number, (node, key) in enumerate(pairs)
    ]


def _transactions(kind: Kind, nodes: Sequence[str], keys: Sequence[str]) -> list[PlannedOperation]:
    """Every list, or all accounts, at every node."""
    return [
        PlannedOperation(task.id, None, task.nodes[0], "read", task.keys[0], None, task=task)
        for task in final_transactions(kind, FIRST_ID, nodes, keys)
    ]


def of_kind(folder: RunFolder, kind: Kind, keys: Sequence[str]) -> list[ModelRecord]:
    """The recorded reads, as those of the workload's kind."""
    told = read_histories([folder.history_dir / f"{NAME}.jsonl"])
    return list(final_model_reads(kind, told, keys))


def summarise(
    folder: RunFolder, reads: Sequence[ModelRecord], count: int, started_ns: int, ended_ns: int
) -> None:
    """Write the reads of the workload's kind, and the summary that marks their history as complete.
    ``count``: how many reads were sent."""
    if reads:
        with HistoryWriter(folder.model_dir / f"{NAME}.jsonl") as model:
            for read in reads:
                model.append_model(read)
    summary = LoadSummary(
        client=NAME,
        started_ns=started_ns,
        ended_ns=ended_ns,
        offered_per_s=None,
        intended=count,
        invoked=count,
        dropped=0,
        model_operations=len(reads),
    )
    write_json(folder.load_dir / f"{NAME}.json", summary)
