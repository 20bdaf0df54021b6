"""verdict.json: the result of each checker, and whether the claim holds.

Each checker has its own type of `Check`, given by ``name`` in JSON; ``details`` are its figures.
Seconds end in ``_s``, milliseconds in ``_ms``; shares are 0..1.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from bench.record.history import OperationRecord
from bench.record.models.verdict import ModelCheck
from bench.record.models.verdict import VerdictValue as VerdictValue
from bench.record.transactions.verdict import Level, TransactionsCheck

VERDICT_VERSION = 4
"""The version of verdict.json. 2: availability, percentiles and *back in* are of the operations
wanted, as `bench.checkers.availability` defines them; before, operations in flight at the end of a
window were left out. 3: windows end with the load, and an incomplete run is never *valid*. 4: an
outage that was on when a fault began counts for its *back in*. Runs with an older verdict are
checked again."""
Model: TypeAlias = Literal["linearizable", "sequential", "causal", "eventual", "none", "unknown"]


Claim: TypeAlias = Model | Level
"""What may be claimed: a model, or of transactions their level."""


class WitnessLine(msgspec.Struct, kw_only=True):
    """One operation of a witness, and its role in words."""

    operation: OperationRecord
    role: str


class Check(msgspec.Struct, kw_only=True, frozen=True, tag_field="name"):
    """The result of one checker. ``seconds``: how long it took. ``summary``: one sentence.
    ``witness``: for *invalid*, the operations that cannot be ordered, as few as possible."""

    verdict: VerdictValue
    model: str
    algorithm: str
    operations: int
    seconds: float
    summary: str
    witness: list[WitnessLine] = []

    @property
    def name(self) -> str:
        """The name of the checker: ``linearizability``, ``availability`` ..."""
        return str(self.__struct_config__.tag)


# -- consistency -----------------------------------------------------------------------------------


class Linearizability(msgspec.Struct, kw_only=True, frozen=True):
    """``kind`` of the contradiction, None if there is none; ``why`` this algorithm was used;
    ``keys_searched``: those with values that are not unique; ``keys_undecided``: those whose search
    exceeded its budget; ``values_of_unknown_origin``: read, but written by nobody."""

    kind: str | None
    why: str
    keys: int
    keys_searched: int
    keys_undecided: int
    values_of_unknown_origin: int


class WeakerModel(msgspec.Struct, kw_only=True, frozen=True):
    """``keys_left_out``: those with values that are not unique. ``impossible``: the contradiction
    refutes every model."""

    keys_left_out: int
    impossible: bool


class Guarantee(msgspec.Struct, kw_only=True, frozen=True):
    """``violations``: reads that break the guarantee; None if it could not be checked.
    ``same_node``: those where both operations went to the same node, if counted."""

    violations: int | None = None
    same_node: int | UnsetType = UNSET


class Sessions(msgspec.Struct, kw_only=True, frozen=True):
    """The session guarantees, and how many keys were left out because their values are not
    unique."""

    read_your_writes: Guarantee
    monotonic_reads: Guarantee
    monotonic_writes: Guarantee
    writes_follow_reads: Guarantee
    keys_left_out: int


class Workload(msgspec.Struct, kw_only=True, frozen=True):
    """What is said of the operations of the workload's kind: of transactions, or of any other
    model. Both None: nothing could be said of them."""

    model: ModelCheck | None = None
    transactions: TransactionsCheck | None = None


class Quantiles(msgspec.Struct, kw_only=True, frozen=True):
    """Quantiles over the stale reads."""

    p50: float
    p90: float
    p99: float
    max: float


class Visibility(msgspec.Struct, kw_only=True, frozen=True):
    """The ``share`` of reads that were more than ``t_s`` seconds stale."""

    t_s: float
    share: float


class Staleness(msgspec.Struct, kw_only=True, frozen=True):
    """``share``: stale / ``reads``, None without reads. ``undecided``: reads that may or may not be
    stale. ``age_s``: how long a newer value had been acknowledged; ``k``: how many newer values;
    both None if no read was stale. ``worst``: the stalest read, in words."""

    reads: int
    stale: int
    share: float | None
    undecided: int
    age_s: Quantiles | None
    k: Quantiles | None
    t_visibility: list[Visibility]
    worst: str | None


class Convergence(msgspec.Struct, kw_only=True, frozen=True):
    """``converged``: None if there are no final reads, or a node did not answer them. ``keys``:
    with final reads; ``unanswered``: pairs of node and key; ``unread_keys``: written, but without a
    final read. ``lost_writes``: a lower bound on acknowledged writes that are gone;
    ``missing_writes``: no final value accounts for them. ``phantoms``: final values that nobody
    wrote. ``converged_within_s``: an upper bound, from the heal to the end of the final reads.
    ``last_stale_after_heal_s``: when the last stale read began; None if none did after the heal."""

    converged: bool | None
    keys: int
    diverged_keys: int
    unanswered: int
    unread_keys: int
    lost_writes: int
    missing_writes: int
    phantoms: int
    converged_within_s: float | None
    last_stale_after_heal_s: float | None


# -- availability (defined in `bench.checkers.availability`) ---------------------------------------


class Phases(msgspec.Struct, kw_only=True, frozen=True):
    """A figure before, during and after the faults; None if there was no such phase, or nothing was
    wanted in it. Without a fault everything is *before*."""

    before: float | None = None
    during: float | None = None
    after: float | None = None


class Shares(Phases, kw_only=True, frozen=True):
    """served / wanted. ``majority`` and ``minority``: the sides of a partition."""

    majority: float | None = None
    minority: float | None = None


class Latency(msgspec.Struct, kw_only=True, frozen=True):
    """Latency percentiles (ms) of all wanted operations. A percentile that falls on an operation
    not served is None: it exceeds ``bound_ms``, the service time. If nothing was wanted, all are
    None."""

    p50: float | None = None
    p99: float | None = None
    bound_ms: float | None = None

    def at(self, name: str) -> float | None:
        """A percentile as a number to compare: infinite if it exceeds the bound."""
        value: float | None = getattr(self, name)
        return math.inf if value is None and self.bound_ms is not None else value


class Latencies(msgspec.Struct, kw_only=True, frozen=True):
    """The latencies in each phase, and on the sides of a partition."""

    before: Latency
    during: Latency
    after: Latency
    majority: Latency
    minority: Latency


class Window(msgspec.Struct, kw_only=True, frozen=True):
    """The operations wanted in one window or on one side: how many were served, served within a
    second, and dropped by the load generator. ``seconds``: the length of the window. ``p10_ms``:
    the latency that a tenth of what was wanted did not exceed; None if less was served, or not
    known."""

    wanted: int
    served: int
    served_1s: int
    dropped: int
    seconds: float
    latency_ms: Latency
    p10_ms: float | None = None


class FaultFigures(msgspec.Struct, kw_only=True, frozen=True):
    """The cost of one fault. ``begin_s``: after the start of the load. ``wanted``, ``served``:
    while it was active; overlapping faults count the same operations. ``back_in_s``: from its
    beginning to the end of the first outage that began during it, else of one of no fault that was
    on already; 0: there was none, None: the outage outlasted the load. ``outages``: how many began
    during it."""

    number: int
    begin_s: float
    wanted: int
    served: int
    availability: float | None
    back_in_s: float | None
    outages: int
    longest_silence_s: float


class OutageFigures(msgspec.Struct, kw_only=True, frozen=True):
    """Seconds after the start of the load. ``end_s`` None: it outlasted the load. ``fault``: the
    number of the fault during which it began; None: it began without one."""

    begin_s: float
    end_s: float | None
    fault: int | None


class Outcomes(msgspec.Struct, kw_only=True, frozen=True):
    """How many operations of the load had which outcome."""

    ok: int = 0
    fail: int = 0
    info: int = 0


class Availability(msgspec.Struct, kw_only=True, frozen=True):
    """``availability`` and ``within_1s``: served, and served within a second, / wanted;
    ``throughput``: served operations per second. ``windows``: before, during, after, all; with a
    partition also majority, minority and none; empty without a load. ``recovery_s``: the longest
    *back in* of the faults; None if one outage is open, there was no fault, or *during* is cut
    short. ``service_s``: the time within which an operation must be served; ``assumed``: what the
    folder did not say about it. ``dropped_unplaced``: dropped at an unknown time;
    ``without_intended``: operations without an intended time. ``ended_s``: when the load ended;
    ``stopped_s``: when the first client stopped early, None if none did; ``cut_windows``: those
    that are not as planned."""

    availability: Shares
    within_1s: Shares
    latency_ms: Latencies
    throughput: Phases
    windows: dict[str, Window]
    faults: list[FaultFigures]
    outages: list[OutageFigures]
    recovery_s: float | None
    longest_silence_s: float | None
    service_s: float
    assumed: str | None
    operations: Outcomes
    dropped: int
    dropped_unplaced: int
    without_intended: int
    ended_s: float | None
    stopped_s: float | None
    cut_windows: list[str]


# -- one kind of check for each checker ------------------------------------------------------------


class LinearizabilityCheck(Check, kw_only=True, frozen=True, tag="linearizability"):
    """Of `bench.checkers.linearizability`."""

    details: Linearizability


class SequentialCheck(Check, kw_only=True, frozen=True, tag="sequential"):
    """Of `bench.checkers.sequential`."""

    details: WeakerModel


class CausalCheck(Check, kw_only=True, frozen=True, tag="causal"):
    """Of `bench.checkers.causal`."""

    details: WeakerModel


class SessionsCheck(Check, kw_only=True, frozen=True, tag="sessions"):
    """Of `bench.checkers.sessions`."""

    details: Sessions


class StalenessCheck(Check, kw_only=True, frozen=True, tag="staleness"):
    """Of `bench.checkers.staleness`."""

    details: Staleness


class ConvergenceCheck(Check, kw_only=True, frozen=True, tag="convergence"):
    """Of `bench.checkers.convergence`."""

    details: Convergence


class AvailabilityCheck(Check, kw_only=True, frozen=True, tag="availability"):
    """Of `bench.checkers.availability`."""

    details: Availability


class WorkloadCheck(Check, kw_only=True, frozen=True, tag="workload"):
    """Of `bench.checkers.models.run`: its witness is in the details."""

    details: Workload


WeakerCheck: TypeAlias = SequentialCheck | CausalCheck
AnyCheck: TypeAlias = (
    LinearizabilityCheck
    | SequentialCheck
    | CausalCheck
    | SessionsCheck
    | StalenessCheck
    | ConvergenceCheck
    | AvailabilityCheck
    | WorkloadCheck
)


class Verdict(msgspec.Struct, kw_only=True):
    """The verdict of a run. ``verdict``: whether the protocol's ``claim`` holds;
    ``measured_model``: the strongest model that the history does not refute (``none``: not even
    eventual)."""

    schema_version: int = VERDICT_VERSION
    claim: Claim
    verdict: VerdictValue
    measured_model: Claim
    reason: str
    converged: bool | None = None
    checks: list[AnyCheck] = []


class _Written(Verdict):
    """As written in the file."""

    checks: list[msgspec.Raw] = []  # type: ignore[assignment]


def decode_verdict(data: bytes) -> Verdict:
    """Decode verdict.json; from another version, without the checks that were defined otherwise
    then. Raises msgspec.DecodeError."""
    written = msgspec.json.decode(data, type=_Written)
    checks: list[AnyCheck] = []
    for check in written.checks:
        try:
            checks.append(msgspec.json.decode(check, type=AnyCheck))
        except msgspec.ValidationError:
            if written.schema_version == VERDICT_VERSION:
                raise
    return Verdict(**{**msgspec.structs.asdict(written), "checks": checks})
