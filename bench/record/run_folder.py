"""The run folder: the files of one run.

    manifest.json     what ran, with which seed, on what; updated at the end of the run
    history/*.jsonl   operations, one file per client process (`bench.record.history`); final reads
                      are in history/final.jsonl
    model/*.jsonl     the operations of a workload of another kind than registers, by the same
                      clients (`bench.record.models.run`)
    load/*.json       one `LoadSummary` per client process; missing if the process was cut short
    load/*.started    one per client process, written when its load begins
    faults.jsonl      one `FaultRecord` per injected fault
    nodes/<id>.jsonl  one `NodeRecord` per line: status, and events such as elections
    verdict.json      one `Verdict`
    report.html

All timestamps are `time.monotonic_ns()` of one host. Files are written during the run: a run that
is cut short leaves what it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec

from bench.record.files import (
    NotReadable,
    listed,
    naming,
    open_regular,
    read_regular,
    shown,
    whole_lines,
    write_whole,
)
from bench.record.history import OperationRecord, Stamp, read_histories
from bench.record.models.run import Kind
from bench.record.verdict import Claim, Verdict, decode_verdict
from nodes.errors import InvalidInput

SCHEMA_VERSION = 1
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**62)]

T = TypeVar("T")

MOST_BYTES = 64 << 20
"""The largest size of a file that is one JSON object, and of faults.jsonl."""
MOST_LOAD_BYTES = 512 << 20
MOST_NODES_BYTES = 512 << 20
MOST_HISTORY_BYTES = 2 << 30
MOST_LINE_BYTES = 4 << 20


class BadRunFolder(InvalidInput):
    """A folder that is not a run, or a file in it that cannot be read: names it and says why."""


class Manifest(msgspec.Struct, kw_only=True):
    """What ran. ``experiment``: as validated. ``kind``: of the workload. ``found_by``: what finds
    the protocol or system in another run: its name, or the file that describes it. ``endpoints``:
    where a system was reached that ran elsewhere. ``load_started_ns`` and ``load_ended_ns``: when
    the workload wanted operations. ``complete``: the run reached its planned end; else
    ``cut_short_by`` is why it did not, if anybody was left to write it.
    ``notes``: what a reader must know (an embedded broker, a restarted Toxiproxy ...).
    ``clock_error_ns``: a bound on the difference between the clocks of two client hosts."""

    schema_version: int = SCHEMA_VERSION
    capbench_version: str
    commit: str | None = None
    experiment_name: str
    experiment: dict[str, Any]
    protocol: str
    found_by: str = ""
    endpoints: str = ""
    claim: Claim
    kind: Kind = "register"
    operations: list[str] = []
    parameters: dict[str, Any] = {}
    nodes: list[str]
    target: str
    simulated: bool = False
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    started_utc: str
    command: list[str] = []
    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    offered_per_s: float | None = None
    load_started_ns: Stamp | None = None
    load_ended_ns: Stamp | None = None
    clock_error_ns: Count = 0
    complete: bool = False
    cut_short_by: str = ""
    notes: list[str] = []


class LoadSummary(msgspec.Struct, kw_only=True):
    """What one client process did. ``dropped``: operations that the workload wanted but that were
    not sent, because the in-flight limit was reached or because the read before them did not end
    ok. They are not in the history, but count as unavailable. ``lateness_ms_p99``: how long after
    their intended time operations were sent. ``model_operations``: how many operations of the
    workload's kind it recorded, if that is not registers. ``asked_leader``: operations that went to
    the leader because the workload wants that. ``stopped_early``: it was stopped before the end of
    its plan, and wanted nothing after that."""

    client: str
    started_ns: Stamp
    ended_ns: Stamp
    offered_per_s: float | None
    intended: Count
    invoked: Count
    dropped: Count
    dropped_intended_ns: list[Stamp] = []
    dropped_nodes: list[str] = []
    lateness_ms_p50: float | None = None
    lateness_ms_p99: float | None = None
    stopped_early: bool = False
    model_operations: Count = 0
    asked_leader: Count = 0


class FaultRecord(msgspec.Struct, kw_only=True):
    """An injected fault. ``number`` counts the faults of a run from 0. A record is appended when
    the fault is applied and again when it is healed; the last record of a number counts.

    ``groups``: the node groups of a partition, as resolved at run time; ``nodes`` and ``links``
    (pairs src, dst): what the fault affects. ``error``: why it could not be applied or healed."""

    number: int
    fault: str
    parameters: dict[str, Any] = {}
    groups: list[list[str]] | None = None
    nodes: list[str] = []
    links: list[tuple[str, str]] = []
    planned_ns: Stamp
    planned_heal_ns: Stamp | None = None
    started_ns: Stamp | None = None
    applied_ns: Stamp | None = None
    heal_started_ns: Stamp | None = None
    healed_ns: Stamp | None = None
    error: str | None = None


class NodeRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a node reported. ``kind`` status: ``probe`` is `Replica.probe()`, ``counters`` are the
    driver's; ``sent`` and ``heard``: a live node's messages to and from each other node.
    ``kind`` event: ``name`` and ``details`` come from `Out.mark`, or from the runner (``started``,
    ``killed``, ``exited``)."""

    t_ns: Stamp
    node: str
    kind: Literal["status", "event"]
    name: str | None = None
    details: dict[str, Any] = {}
    probe: dict[str, Any] = {}
    counters: dict[str, int] = {}
    sent: dict[str, int] = {}
    heard: dict[str, int] = {}


class RunFolder:
    """Paths, readers and writers of one run. Readers raise BadRunFolder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest_path = path / "manifest.json"
        self.history_dir = path / "history"
        self.model_dir = path / "model"
        self.load_dir = path / "load"
        self.nodes_dir = path / "nodes"
        self.faults_path = path / "faults.jsonl"
        self.verdict_path = path / "verdict.json"
        self.report_path = path / "report.html"

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> RunFolder:
        """A new folder with its manifest. Raises FileExistsError if it already holds a run."""
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        if folder.manifest_path.exists():
            raise FileExistsError(f"{path} holds a run already")
        for directory in (folder.history_dir, folder.load_dir, folder.nodes_dir):
            directory.mkdir(exist_ok=True)
        folder.write_manifest(manifest)
        return folder

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest atomically."""
        write_json(self.manifest_path, manifest)

    def write_verdict(self, verdict: Verdict) -> None:
        """Replace the verdict atomically."""
        write_json(self.verdict_path, verdict)

    def append_fault(self, record: FaultRecord) -> None:
        """Append a line to faults.jsonl and flush it."""
        append_line(self.faults_path, record)

    def append_node(self, record: NodeRecord) -> None:
        """Append a line to the node's file."""
        append_line(self.nodes_dir / f"{record.node}.jsonl", record)

    def manifest(self) -> Manifest:
        """What ran."""
        hint = "is this a run folder?"
        try:
            return _read_json(self.manifest_path, Manifest, hint)
        except FileNotFoundError:
            # An empty variable of a shell ends up as ".", which tells nobody where it is.
            where = self.path if self.path.parts else self.path.absolute()
            raise BadRunFolder(f"{shown(where)}: no manifest.json in it; {hint}") from None

    def verdict(self) -> Verdict | None:
        """The verdict; None if the run was not checked."""
        try:
            return _read(self.verdict_path, decode_verdict, "run `capbench check` again")
        except FileNotFoundError:
            return None

    def operations(self) -> list[OperationRecord]:
        """All operations, final reads included, by invocation. Raises
        bench.record.history.BadHistory."""
        return read_histories(self.histories())

    def histories(self) -> list[Path]:
        """The history files, sorted by name."""
        return _listed(self.history_dir, ".jsonl", MOST_HISTORY_BYTES)

    def model_histories(self) -> list[Path]:
        """Those of the operations of the workload's kind; none if that is registers."""
        return _listed(self.model_dir, ".jsonl", MOST_HISTORY_BYTES)

    def loads(self) -> list[LoadSummary]:
        """The summaries of the client processes that finished."""
        return [
            _read_json(path, LoadSummary, "")
            for path in _listed(self.load_dir, ".json", MOST_LOAD_BYTES)
        ]

    def lost_clients(self) -> list[str]:
        """The client processes that started but left no summary: they were killed or crashed. Their
        open and latest operations are missing from the history."""
        began = {path.stem for path in self.histories()}
        began |= {path.stem for path in _listed(self.load_dir, ".started", MOST_LOAD_BYTES)}
        done = {path.stem for path in _listed(self.load_dir, ".json", MOST_LOAD_BYTES)}
        return sorted(began - done)

    def clients_cut_short(self) -> list[str]:
        """The client processes with missing operations: those that were lost, and those whose
        history has fewer operations than their summary, or a cut last line."""
        cut = set(self.lost_clients())
        histories = {path.stem: path for path in self.histories()}
        models = {path.stem: path for path in self.model_histories()}
        for summary in self.loads():
            path = histories.get(summary.client)
            lines, is_whole = (0, True) if path is None else _lines(path)
            if lines < summary.invoked or not is_whole:
                cut.add(summary.client)
            if summary.model_operations:
                path = models.get(summary.client)
                lines, is_whole = (0, True) if path is None else _lines(path)
                if lines < summary.model_operations or not is_whole:
                    cut.add(summary.client)
        return sorted(cut)

    def cut_short(self) -> bool:
        """Whether operations are missing from the history."""
        return bool(self.clients_cut_short())

    def faults(self) -> list[FaultRecord]:
        """The faults by number, each as last recorded."""
        last = {
            record.number: record
            for record in _read_lines(self.faults_path, FaultRecord, MOST_BYTES)
        }
        return [last[number] for number in sorted(last)]

    def gone(self) -> list[str]:
        """The nodes that a fault crashed for good."""
        return [
            node
            for fault in self.faults()
            if fault.fault == "crash" and fault.parameters.get("restart") is False
            for node in fault.nodes
        ]

    def node_records(self) -> list[NodeRecord]:
        """What all nodes reported, by time."""
        records: list[NodeRecord] = []
        for path in _listed(self.nodes_dir, ".jsonl", MOST_NODES_BYTES):
            records.extend(_read_lines(path, NodeRecord, MOST_NODES_BYTES))
        records.sort(key=lambda record: record.t_ns)
        return records


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically: a reader sees the old file or the new one."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def append_line(path: Path, value: Any) -> None:
    """Append ``value`` as one JSON line."""
    with naming(path), path.open("ab") as file:
        file.write(msgspec.json.encode(value) + b"\n")


def _lines(path: Path) -> tuple[int, bool]:
    """How many lines a file has, and whether the last one is complete."""
    count, last = 0, b"\n"
    try:
        with open_regular(path, MOST_HISTORY_BYTES) as file:
            while chunk := file.read(1 << 20):
                count, last = count + chunk.count(b"\n"), chunk[-1:]
    except NotReadable as error:
        raise BadRunFolder(str(error)) from None
    return count, last == b"\n"


def _listed(directory: Path, suffix: str, most_bytes: int) -> list[Path]:
    try:
        return listed(directory, suffix, most_bytes)
    except NotReadable as error:
        raise BadRunFolder(str(error)) from None


def _read_json(path: Path, kind: type[T], hint: str) -> T:
    """Raises FileNotFoundError, too."""
    return _read(path, msgspec.json.Decoder(kind).decode, hint)


def _read(path: Path, decode: Callable[[bytes], T], hint: str) -> T:
    try:
        return decode(read_regular(path, MOST_BYTES))
    except NotReadable as error:
        raise BadRunFolder(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRunFolder(f"{shown(path)}: {error}; {hint}".rstrip("; ")) from None


def _read_lines(path: Path, kind: type[T], most_bytes: int) -> Iterator[T]:
    decode = msgspec.json.Decoder(kind).decode
    try:
        with open_regular(path, most_bytes) as file:
            for number, line in enumerate(whole_lines(file, MOST_LINE_BYTES), 1):
                if len(line) > MOST_LINE_BYTES:
                    raise BadRunFolder(f"{shown(path)}:{number}: over {MOST_LINE_BYTES} bytes")
                try:
                    yield decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise BadRunFolder(f"{shown(path)}:{number}: {error}") from None
    except FileNotFoundError:
        return
    except NotReadable as error:
        raise BadRunFolder(str(error)) from None
