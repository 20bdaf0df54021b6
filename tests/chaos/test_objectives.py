from __future__ import annotations

from typing import Any

import pytest

from reports.data.objectives import BadObjective, evaluate, parse_objective

SUMMARY: dict[str, Any] = {
    "claim": "linearizable",
    "verdict": "valid",
    "measured_model": "linearizable",
    "throughput": {"before": 299.0, "during": 201.0, "after": 298.0},
    "availability": {
        "before": 1.0,
        "during": 0.71,
        "after": 0.99,
        "majority": 0.88,
        "minority": 0.0,
    },
    "window_latency_ms": {
        "before": {"p50": 2.0, "p99": 9.0, "bound_ms": 2000.0},
        "during": {"p50": 3.0, "p99": 120.0, "bound_ms": 2000.0},
        "after": {"p50": None, "p99": None, "bound_ms": None},
        "majority": {"p50": 3.0, "p99": 400.0, "bound_ms": 2000.0},
        "minority": {"p50": None, "p99": None, "bound_ms": 2000.0},
    },
    "recovery_s": 1.4,
}


@pytest.mark.parametrize(
    ("phase", "metric", "text", "met"),
    [
        ("before", "availability", ">= 1", True),
        ("before", "availability", "> 1", False),
        ("during", "availability", ">= 0.71", True),
        ("during", "availability", ">= 0.72", False),
        ("during", "availability.majority", ">= 0.8", True),
        ("during", "availability.minority", "<= 0", True),
        ("during", "availability.minority", "< 0", False),
        ("after", "throughput", ">= 298/s", True),
        ("after", "throughput", ">= 299", False),
        ("during", "p99", "<= 120ms", True),
        ("during", "p99", "<= 0.1s", False),
        ("during", "p50", "<= 3ms", True),
        ("after", "recovery", "<= 1400ms", True),
        ("after", "recovery", "<= 1300ms", False),
        ("after", "recovery", "<= 1s", False),
        ("always", "consistency", "claimed", True),
        ("always", "consistency", "causal", True),
        ("before", "p99", "<= 9ms", True),
        ("during", "p50.majority", "<= 3ms", True),
        # Longer than the time-out: longer than any bound, and never as long as one.
        ("during", "p99.majority", "<= 0.4s", True),
        ("during", "p99.minority", "<= 1s", False),
        ("during", "p99.minority", "<= 2s", False),
        ("during", "p50.minority", "<= 3600s", False),
        ("during", "p50.minority", "> 1s", True),
        # Nothing was wanted.
        ("after", "p99", "<= 500ms", None),
    ],
)
def test_a_figure_is_compared(phase: Any, metric: str, text: str, met: bool | None) -> None:
    objective = parse_objective(phase, metric, text)
    [(judged, result, words)] = evaluate([objective], SUMMARY)
    assert judged is objective
    assert result is met
    assert words.startswith(f"{phase} {metric} {text}: ")
    assert {True: ": met, ", False: ": missed, ", None: ": not measured"}[met] in words


@pytest.mark.parametrize(
    ("verdict", "measured", "wanted", "met"),
    [
        ("invalid", "eventual", "claimed", False),
        ("unknown", "unknown", "claimed", None),
        ("unknown", "unknown", "eventual", None),
        ("valid", "eventual", "linearizable", False),
        ("valid", "eventual", "eventual", True),
        ("valid", "causal", "sequential", False),
        ("invalid", "none", "eventual", False),
    ],
)
def test_unknown_consistency_is_never_met(
    verdict: str, measured: str, wanted: str, met: bool | None
) -> None:
    objective = parse_objective("always", "consistency", wanted)
    summary = {**SUMMARY, "verdict": verdict, "measured_model": measured}
    assert evaluate([objective], summary)[0][1] is met


def test_what_was_not_measured_is_not_met() -> None:
    asked = [
        parse_objective("during", "availability.majority", ">= 0"),
        parse_objective("after", "recovery", "<= 9s"),
        parse_objective("before", "p99", "<= 9s"),
    ]
    nothing = {"availability": {"majority": None}, "recovery_s": None}
    assert [met for _, met, _ in evaluate(asked, nothing)] == [None, None, None]
    healthy = {"window_latency_ms": {"before": {"p99": 5.0, "bound_ms": 2000.0}}}
    assert evaluate(asked[2:], healthy)[0][1] is True


def test_what_was_not_served_is_said_to_be_longer_than_the_time_out() -> None:
    objective = parse_objective("during", "p99.minority", "<= 1s")
    [(_, _, words)] = evaluate([objective], SUMMARY)
    assert words == "during p99.minority <= 1s: missed, > 2000 ms"


@pytest.mark.parametrize(
    ("phase", "metric", "text", "said"),
    [
        ("before", "recovery", "<= 5s", "before has: availability, throughput, p50, p99$"),
        ("before", "availability.majority", ">= 1", "unknown metric"),
        ("after", "p99.majority", "<= 1s", "after has: availability, throughput, p50, p99"),
        ("after", "recovery", "<= 5", "not a comparison"),
        ("after", "recovery", "5s", "not a comparison"),
        ("before", "availability", ">= 99%", "not a comparison"),
        ("before", "availability", "== 1", "not a comparison"),
        ("before", "p99", "<= 5/s", "not a comparison"),
        ("always", "availability", ">= 1", "always has: consistency"),
        ("always", "consistency", "strong", "use claimed, linearizable"),
    ],
)
def test_what_cannot_be_asked_is_said(phase: Any, metric: str, text: str, said: str) -> None:
    with pytest.raises(BadObjective, match=said):
        parse_objective(phase, metric, text)
