"""Latencies as HdrHistogram logs, for the tools that read and merge those.

One log per run (``<run>.hlog``, format 1.2): an interval for each second and phase, tagged before,
during or after; nanoseconds, from when an operation was wanted. As in all figures, what was not
served within its time-out, or never sent, took longer than that: it is recorded just above.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record.files import write_whole
from bench.record.run_folder import Manifest
from reports.data.metrics import RunTables
from reports.formats.export import file_name

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 3
HIGHEST_NS = 3600 * 10**9


def write_hdr(runs: Sequence[tuple[str, RunTables]], folder: Path) -> list[Path]:
    """Write a log per run. Returns the files. Raises ImportError without the library (the extra
    ``capbench[hdr]``)."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, run in runs:
        path = folder / f"{file_name(name)}.hlog"
        write_whole(path, _log(name, run).encode())
        written.append(path)
    return written


def _log(name: str, run: RunTables) -> str:
    from hdrh.log import HistogramLogWriter

    text = io.StringIO()
    writer = HistogramLogWriter(text)
    summary = run.summary
    what = f"{file_name(name)}: {summary.protocol} in {summary.experiment}, seed {summary.seed}"
    writer.output_comment(f"[capbench, {what}; nanoseconds]")
    writer.output_log_format_version()
    started = _started_s(run.manifest)
    text.write(f"#[StartTime: {started:.3f} (seconds since epoch), {run.manifest.started_utc}]\n")
    writer.output_legend()
    latencies = _latencies(run)
    for second, of_second in latencies.groupby("second"):
        for phase, values in of_second.groupby("phase"):
            text.write(f"Tag={phase},")
            writer.output_interval_histogram(_histogram(int(str(second)), [*values["latency_ns"]]))
    return text.getvalue()


def _started_s(manifest: Manifest) -> float:
    return datetime.fromisoformat(manifest.started_utc).timestamp()


def _latencies(run: RunTables) -> pd.DataFrame:
    """second, phase, latency_ns of all that was wanted."""
    import pandas as pd

    beyond = round(run.summary.service_s * 1e9) + 1
    sent = run.operations[["intended_s", "phase"]].assign(
        latency_ns=(run.operations["latency_ms"] * 1e6).where(run.operations["served"], beyond)
    )
    never = run.dropped[["intended_s", "phase"]].assign(latency_ns=beyond)
    found = pd.concat([each.astype({"phase": object}) for each in (sent, never) if len(each)])
    found["phase"] = found["phase"].fillna("unknown")
    found["second"] = found["intended_s"].clip(lower=0).astype(int)
    found["latency_ns"] = found["latency_ns"].clip(1, HIGHEST_NS).round().astype("int64")
    return found


def _histogram(second: int, values: Sequence[int]) -> Any:
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(1, HIGHEST_NS, DIGITS)
    for value in values:
        histogram.record_value(value)
    histogram.set_start_time_stamp(second * 1000)
    histogram.set_end_time_stamp((second + 1) * 1000)
    return histogram
