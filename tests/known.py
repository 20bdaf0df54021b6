"""Histories whose figures are known by construction, each with the figures that it must give.

Nothing here computes a figure: the numbers follow from how a history is made, and stand beside it
with their derivation. Five nodes are asked in turn, in a load of 20 s with a time-out of 2 s.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.record.history import HistoryWriter, OperationRecord
from bench.record.run_folder import FaultRecord, LoadSummary, Manifest, RunFolder, write_json
from nodes.contract.replica import Outcome

T0 = 7_000_000_000_000
"""The clock when the load begins (ns)."""
NODES = [f"n{number}" for number in range(1, 6)]
END_US = 20_000_000
LATE = {"p50": None, "p99": None, "bound_ms": 2000.0}
"""The percentiles of what was not served."""
NONE: dict[str, float | None] = {"p50": None, "p99": None, "bound_ms": None}
"""The percentiles of what was not wanted."""

Answer = tuple[Outcome, int | None]
"""How an operation ended, and when (us after the load began; None: never)."""


def ns(at_us: int) -> int:
    """Microseconds after the load began, as a stamp."""
    return T0 + at_us * 1000


def latency(p50: float | None, p99: float | None) -> dict[str, float | None]:
    """Percentiles in ms of a window in which something was wanted."""
    return {"p50": p50, "p99": p99, "bound_ms": 2000.0}


@dataclass(frozen=True)
class Known:
    """A history. ``answer``: how the operation with this number that was wanted at this time (us),
    at this node, ended. ``windows``: wanted, served, served within 1 s, dropped, seconds.
    ``faults``: wanted, served, back in (s), outages, longest silence (s)."""

    name: str
    faults: list[FaultRecord]
    answer: Callable[[int, int, str], Answer]
    windows: dict[str, tuple[int, int, int, int, float]]
    latency_ms: dict[str, dict[str, float | None]]
    of_faults: list[tuple[int, int, float | None, int, float]]
    every_us: int = 10_000
    sent_us: dict[int, int] = field(default_factory=dict)
    """When operations were sent that were not sent 2 ms after they were wanted."""
    dropped: list[tuple[int, str]] = field(default_factory=list)

    @property
    def recovery_s(self) -> float | None:
        """The worst of the faults."""
        back = [fault[2] for fault in self.of_faults]
        known = [each for each in back if each is not None]
        return max(known) if len(known) == len(back) else None

    def share(self, window: str, quick: bool = False) -> float | None:
        """The availability, or what was served within 1 s."""
        found = self.windows.get(window)
        return found[2 if quick else 1] / found[0] if found else None

    def records(self) -> list[OperationRecord]:
        """The history."""
        found = []
        for number, at_us in enumerate(range(0, END_US, self.every_us)):
            node = NODES[number % 5]
            outcome, ended_us = self.answer(number, at_us, node)
            found.append(
                OperationRecord(
                    process=f"c{number}",
                    id=number,
                    op="write",
                    key=f"k{number % 20}",
                    value=number,
                    outcome=outcome,
                    node=node,
                    intended_ns=ns(at_us),
                    invoked_ns=ns(self.sent_us.get(number, at_us + 2000)),
                    completed_ns=None if ended_us is None else ns(ended_us),
                )
            )
        return found

    def loads(self) -> list[LoadSummary]:
        """What was dropped."""
        return [
            LoadSummary(
                client="load",
                started_ns=ns(0),
                ended_ns=ns(END_US),
                offered_per_s=1e6 / self.every_us,
                intended=END_US // self.every_us + len(self.dropped),
                invoked=END_US // self.every_us,
                dropped=len(self.dropped),
                dropped_intended_ns=[ns(at_us) for at_us, _ in self.dropped],
                dropped_nodes=[node for _, node in self.dropped],
            )
        ]

    def manifest(self, **changes: Any) -> Manifest:
        """Of a run with this history."""
        experiment = {
            "title": self.name,
            "workload": {"timeout": "2s"},
            "objectives": {
                "before": {"p99": "<= 10ms"},
                "during": {"availability": ">= 1", "p50": "<= 1s", "p99": "<= 1s"},
                "after": {"recovery": "<= 1s"},
            },
        }
        return Manifest(
            capbench_version="0.1.0",
            experiment_name=self.name,
            experiment=experiment,
            protocol="raft",
            claim="linearizable",
            nodes=list(NODES),
            target="local",
            seed=7,
            started_utc="2026-11-22T21:04:11Z",
            offered_per_s=1e6 / self.every_us,
            load_started_ns=ns(0),
            load_ended_ns=ns(END_US),
            complete=True,
            **changes,
        )

    def write(self, path: Path) -> RunFolder:
        """A run folder without its verdict."""
        folder = RunFolder.create(path, self.manifest())
        with HistoryWriter(folder.history_dir / "load.jsonl") as writer:
            for record in self.records():
                writer.append(record)
        write_json(folder.load_dir / "load.json", self.loads()[0])
        for fault in self.faults:
            folder.append_fault(fault)
        return folder

    def problems(self, details: dict[str, Any]) -> list[str]:
        """Where the details of the checker are not the known ones."""
        want: dict[str, Any] = {
            "windows": {
                name: dict(
                    zip(("wanted", "served", "served_1s", "dropped", "seconds"), row, strict=True)
                )
                for name, row in self.windows.items()
            },
            "faults": self.of_faults,
            "recovery_s": self.recovery_s,
            "latency_ms": self.latency_ms,
            "availability": {name: self.share(name) for name in self.latency_ms},
            "within_1s": {name: self.share(name, quick=True) for name in self.latency_ms},
        }
        got = {name: details[name] for name in want}
        got["windows"] = {
            name: {key: value for key, value in row.items() if key not in ("latency_ms", "p10_ms")}
            for name, row in details["windows"].items()
        }
        columns = ("wanted", "served", "back_in_s", "outages", "longest_silence_s")
        got["faults"] = [tuple(row[name] for name in columns) for row in details["faults"]]
        return [
            f"{self.name}: {name}: {json.dumps(got[name])}, known: {json.dumps(want[name])}"
            for name in want
            if got[name] != want[name]
        ]


def fault(
    number: int, begin_us: int, healed_us: int, *groups: list[str], name: str = "partition"
) -> FaultRecord:
    """Takes 10 ms to apply and to heal: it is on from the first moment to the last."""
    return FaultRecord(
        number=number,
        fault=name,
        groups=list(groups) or None,
        nodes=list(NODES),
        planned_ns=ns(begin_us),
        started_ns=ns(begin_us),
        applied_ns=ns(begin_us + 10_000),
        heal_started_ns=ns(healed_us - 10_000),
        healed_ns=ns(healed_us),
    )


def promptly(at_us: int) -> Answer:
    """Served in 10 ms."""
    return "ok", at_us + 10_000


def _partition(number: int, at_us: int, node: str) -> Answer:
    if number == 100:
        return "fail", at_us + 5000
    if number == 498:
        return "ok", 5_007_500  # sent 5 ms after the fault began, though it was wanted before
    if not 5_000_000 <= at_us < 13_000_000:
        return promptly(at_us)
    if node != "n1":
        return "ok", max(at_us, 6_200_000) + 10_000
    if at_us >= 11_000_000:
        return "ok", 13_050_000
    return "info", None if at_us % 100_000 else at_us + 2_002_000


PARTITION = Known(
    name="partition",
    faults=[fault(0, 5_000_000, 13_000_000, ["n1"], ["n2", "n3", "n4", "n5"])],
    answer=_partition,
    sent_us={498: 5_005_000},
    dropped=[(2_005_000, "n2"), (9_005_000, "n1"), (9_015_000, "n2"), (9_025_000, "n3")],
    windows={
        # 500 and one dropped; one failed.
        "before": (501, 499, 499, 1, 5.0),
        "during": (803, 679, 643, 3, 8.0),
        "after": (700, 700, 700, 0, 7.0),
        "all": (2004, 1878, 1842, 4, 20.0),
        # An election until 6.2 s, answers at 6.21 s: the 16 that were wanted from 5.01 to 5.19 s
        # waited for longer than 1 s, that of 5.21 s for just 1 s. Two were dropped.
        "majority": (642, 640, 624, 2, 8.0),
        # Answered at 13.05 s, after the heal: 39 wanted from 11.05 s (just 2 s) to 12.95 s in time,
        # that of 11.00 s too late; 19 from 12.05 s on within 1 s. One was dropped.
        "minority": (161, 39, 19, 1, 8.0),
    },
    latency_ms={
        "before": latency(10.0, 10.0),
        "during": latency(10.0, None),
        "after": latency(10.0, 10.0),
        # Rank 636 of 642, of which 640 served: the fifth longest wait, of that wanted at 5.06 s.
        "majority": latency(10.0, 1150.0),
        "minority": LATE,
    },
    # The last answer before the election is that of 5.0075 s, the next operation on the majority
    # side was wanted at 5.01 s, and answered at 6.21 s. The two that were dropped there at 9.015
    # and 9.025 s are more than 1% of their second: a second outage.
    of_faults=[(803, 679, 1.21, 2, 1.2)],
)


def _slow(number: int, at_us: int, node: str) -> Answer:
    if at_us == 9_000_000:
        return "info", at_us + 2_002_000
    return "ok", at_us + (200_000 if 5_000_000 <= at_us < 13_000_000 else 10_000)


SLOW_LINKS = Known(
    name="slow-links",
    faults=[fault(0, 5_000_000, 13_000_000, name="latency")],
    answer=_slow,
    windows={
        "before": (500, 500, 500, 0, 5.0),
        "during": (800, 799, 799, 0, 8.0),
        "after": (700, 700, 700, 0, 7.0),
        "all": (2000, 1999, 1999, 0, 20.0),
    },
    latency_ms={
        "before": latency(10.0, 10.0),
        "during": latency(200.0, 200.0),
        "after": latency(10.0, 10.0),
        "majority": NONE,
        "minority": NONE,
    },
    # An answer at 5.00 s, the next one at 5.20 s: a pause, and no silence. One of the hundred that
    # were wanted in a second was lost, which is no outage.
    of_faults=[(800, 799, 0.0, 0, 0.2)],
)


def _congested(number: int, at_us: int, node: str) -> Answer:
    if not 5_000_000 <= at_us < 13_000_000:
        return promptly(at_us)
    if (number - 400) % 40 < 21:
        return "ok", at_us + 1_500_000
    return "info", at_us + 2_002_000


CONGESTION = Known(
    name="congestion",
    every_us=12_500,  # 80/s, of which 21 of 40, 42/s, are served
    faults=[fault(0, 5_000_000, 13_000_000, name="bandwidth")],
    answer=_congested,
    windows={
        "before": (400, 400, 400, 0, 5.0),
        "during": (640, 336, 0, 0, 8.0),
        "after": (560, 560, 560, 0, 7.0),
        "all": (1600, 1296, 960, 0, 20.0),
    },
    latency_ms={
        "before": latency(10.0, 10.0),
        "during": latency(1500.0, None),
        "after": latency(10.0, 10.0),
        "majority": NONE,
        "minority": NONE,
    },
    # Nobody is answered from 5.0 to 6.5 s, and after that in bursts: the last pause of 0.25 s ends
    # at 13.0 s, after the last operation that was not served (12.9875 s).
    of_faults=[(640, 336, 8.0, 1, 1.5)],
)


def _paused(number: int, at_us: int, node: str) -> Answer:
    return "ok", max(at_us + 10_000, 7_500_000) if at_us >= 6_000_000 else at_us + 10_000


OVERLAPPING = Known(
    name="overlapping",
    faults=[
        fault(0, 4_000_000, 12_000_000, name="latency"),
        fault(1, 6_003_000, 10_000_000, name="pause"),
    ],
    answer=_paused,
    windows={
        "before": (400, 400, 400, 0, 4.0),
        # Those wanted from 6.00 to 6.49 s waited for longer than 1 s.
        "during": (800, 800, 750, 0, 8.0),
        "after": (800, 800, 800, 0, 8.0),
        "all": (2000, 2000, 1950, 0, 20.0),
    },
    latency_ms={
        "before": latency(10.0, 10.0),
        # Rank 792 of 800: the ninth longest wait, of that wanted at 6.08 s.
        "during": latency(10.0, 1420.0),
        "after": latency(10.0, 10.0),
        "majority": NONE,
        "minority": NONE,
    },
    # The last answer is that of 6.0 s: what was under way when the second fault struck is its own.
    of_faults=[(800, 800, 0.0, 0, 1.5), (399, 399, 1.497, 1, 1.497)],
)


def _cut_again(number: int, at_us: int, node: str) -> Answer:
    cuts = {4: ["n1"], 5: ["n1"], 9: ["n2"], 10: ["n2"], 14: ["n1", "n2"], 15: ["n1", "n2"]}
    if node in cuts.get(at_us // 1_000_000, []):
        return "info", at_us + 2_002_000
    if 9_000_000 <= at_us < 9_600_000:
        return "ok", 9_610_000
    return promptly(at_us)


REPEATED = Known(
    name="repeated-cuts",
    faults=[
        fault(0, 4_000_000, 6_000_000, ["n1"], ["n2", "n3", "n4", "n5"]),
        fault(1, 9_000_000, 11_000_000, ["n1", "n3", "n4", "n5"], ["n2"]),
        fault(2, 14_000_000, 16_000_000, ["n1", "n2"], ["n3", "n4", "n5"]),
    ],
    answer=_cut_again,
    windows={
        "before": (400, 400, 400, 0, 4.0),
        # 200 in each cut: one node of five is cut off, again one, then two.
        "during": (600, 440, 440, 0, 6.0),
        "after": (1000, 1000, 1000, 0, 10.0),
        "all": (2000, 1840, 1840, 0, 20.0),
        "majority": (440, 440, 440, 0, 6.0),
        "minority": (160, 0, 0, 0, 6.0),
    },
    latency_ms={
        "before": latency(10.0, 10.0),
        "during": latency(10.0, None),
        "after": latency(10.0, 10.0),
        # Rank 436 of 440: the fifth longest of the 48 waits, of that wanted at 9.05 s (those of
        # 9.00, 9.02, 9.03 and 9.04 s waited for longer, that of 9.01 s was cut off).
        "majority": latency(10.0, 560.0),
        "minority": LATE,
    },
    of_faults=[(200, 160, 0.0, 0, 0.01), (200, 160, 0.61, 1, 0.61), (200, 120, 0.0, 0, 0.01)],
)


def _until_the_end(number: int, at_us: int, node: str) -> Answer:
    return ("info", None) if 12_000_000 <= at_us < 19_500_000 else promptly(at_us)


NEVER_BACK = Known(
    name="never-back",
    faults=[fault(0, 12_000_000, 15_000_000, name="crash")],
    answer=_until_the_end,
    windows={
        "before": (1200, 1200, 1200, 0, 12.0),
        "during": (300, 0, 0, 0, 3.0),
        "after": (500, 50, 50, 0, 5.0),
        "all": (2000, 1250, 1250, 0, 20.0),
    },
    latency_ms={
        "before": latency(10.0, 10.0),
        "during": LATE,
        "after": LATE,
        "majority": NONE,
        "minority": NONE,
    },
    # Served again from 19.5 s on, which is less than the full second that it takes to say so.
    of_faults=[(300, 0, None, 1, 7.51)],
)

ALL = [PARTITION, SLOW_LINKS, CONGESTION, OVERLAPPING, REPEATED, NEVER_BACK]
