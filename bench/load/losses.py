"""What a load did not do or did not record, in words: it is incomplete then."""

from __future__ import annotations

from collections.abc import Iterator

from bench.record.history import OperationRecord, read_history
from bench.record.run_folder import LoadSummary, RunFolder

LOG = "locust.log"
NOT_WHOLE = "the load is incomplete: "
"""The beginning of a log message that says so."""


def losses(folder: RunFolder) -> list[str]:
    """One line for each client process that was lost, stopped early, or did not record everything,
    and one for what Locust last reported about it. Empty: the load is complete. Raises BadRunFolder
    and BadHistory."""
    loads = folder.loads()
    begin_ns = min((load.started_ns for load in loads), default=None)
    return [
        *(_lost(folder, client, begin_ns) for client in folder.lost_clients()),
        *(line for load in loads if (line := _of(folder, load)) is not None),
        *_said(folder),
    ]


def _lost(folder: RunFolder, client: str, begin_ns: int | None) -> str:
    first_ns = last_ns = 0
    for record in _records(folder, client):
        first_ns = min(first_ns or record.invoked_ns, record.invoked_ns)
        last_ns = max(last_ns, record.completed_ns or record.invoked_ns)
    if not last_ns:
        return f"client process {client} was lost before it recorded anything"
    after_s = (last_ns - (first_ns if begin_ns is None else begin_ns)) / 1e9
    return (
        f"client process {client} was lost about {after_s:.1f} s after the start of the load: its "
        "latest and later operations are not in the history"
    )


def _of(folder: RunFolder, load: LoadSummary) -> str | None:
    if load.stopped_early:
        after_s = (load.ended_ns - load.started_ns) / 1e9
        return f"client process {load.client} was stopped before its end, after {after_s:.1f} s"
    recorded = sum(1 for _ in _records(folder, load.client))
    if recorded < load.invoked:
        return (
            f"client process {load.client} sent {load.invoked} operations and recorded {recorded}"
        )
    return None


def _said(folder: RunFolder) -> list[str]:
    path = folder.path / LOG
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [line.partition(NOT_WHOLE)[2] for line in lines if NOT_WHOLE in line][-1:]


def _records(folder: RunFolder, client: str) -> Iterator[OperationRecord]:
    paths = [path for path in folder.histories() if path.stem == client]
    return read_history(paths[0]) if paths else iter(())
