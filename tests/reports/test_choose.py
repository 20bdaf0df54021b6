"""Which protocol to choose: by rules, from figures that are known here by construction."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bench.record.verdict import Latency
from reports.data import choose, compare, difference
from reports.data.cost import Cost
from reports.data.summary import RunSummary


def pick(summaries: list[RunSummary], protocol: str, experiment: str) -> RunSummary:
    return next(s for s in summaries if (s.protocol, s.experiment) == (protocol, experiment))


def changed(run: RunSummary, **fields: Any) -> RunSummary:
    return msgspec.structs.replace(run, **fields)


def words(runs: list[RunSummary]) -> list[str]:
    return [choice.words for choice in choose.choices(compare.matrix(runs))]


def test_each_protocol_is_chosen_for_what_it_did(summaries: list[RunSummary]) -> None:
    both, strong = words(summaries)
    assert both == (
        "Choose gossip if clients on both sides of a cut must be served: all of the minority's "
        "operations were served (next: raft, 0.000 at worst); the price: eventual consistency at "
        "worst."
    )
    assert strong == (
        "Choose raft if a read must see every write that was acknowledged before: linearizable in "
        "each of 3 judged experiments."
    )


def test_one_protocol_alone_is_no_choice(summaries: list[RunSummary]) -> None:
    assert words([run for run in summaries if run.protocol == "raft"]) == []


def test_a_refuted_protocol_is_never_chosen(summaries: list[RunSummary]) -> None:
    runs = [
        changed(run, verdict="invalid", measured_model="none")
        if (run.protocol, run.experiment) == ("gossip", "healthy")
        else run
        for run in summaries
    ]
    both, strong = words(runs)
    assert both.startswith("None of them if clients on both sides")
    assert strong.startswith("Choose raft if")
    broken = [changed(r, verdict="invalid") if r.protocol == "raft" else r for r in summaries]
    assert not [text for text in words(broken) if text.startswith("Choose raft")]


def losing(runs: list[RunSummary], lost: int, **where: str) -> list[RunSummary]:
    return [
        changed(run, lost_writes=lost)
        if all(getattr(run, name) == value for name, value in where.items())
        else run
        for run in runs
    ]


def test_who_lost_writes_is_named_in_every_choice_of_it(summaries: list[RunSummary]) -> None:
    """Though its claim was not refuted: the run that shows the loss may be an unknown one."""
    both, durable, strong = words(losing(summaries, 3, protocol="gossip", experiment="healthy"))
    lost = "gossip lost at least 3 acknowledged writes in healthy"
    assert both.startswith("Choose gossip if")
    assert both.endswith(f"; {lost}.")
    assert durable == f"Choose raft if no acknowledged write may be lost: {lost}."
    assert "gossip" not in strong
    gossip = compare.matrix(losing(summaries, 1, protocol="gossip")).row("gossip")
    said = compare.plain_line(gossip)
    where = "healthy, leader-partition, latency-50ms"
    assert f"; lost acknowledged writes in {where} (at least 1 in the worst)" in said


def test_who_was_not_judged_where_another_lost_writes_is_named(
    summaries: list[RunSummary],
) -> None:
    runs = losing(summaries, 3, protocol="gossip", experiment="healthy")
    runs = [run for run in runs if (run.protocol, run.experiment) != ("raft", "healthy")]
    durable = words(runs)[1]
    assert durable == (
        "Choose raft if no acknowledged write may be lost: gossip lost at least 3 acknowledged "
        "writes in healthy; raft was not judged in healthy."
    )


def test_the_price_is_what_was_measured_in_any_experiment(summaries: list[RunSummary]) -> None:
    runs = [
        changed(run, measured_model="causal" if run.experiment != "latency-50ms" else "eventual")
        if run.protocol == "gossip"
        else run
        for run in summaries
    ]
    assert words(runs)[0].endswith("the price: eventual consistency at worst.")


def test_who_lost_writes_is_not_named_as_the_strongest(summaries: list[RunSummary]) -> None:
    runs = losing(summaries, 1, protocol="raft", experiment="latency-50ms")
    assert not [text for text in words(runs) if text.startswith("Choose raft")]


def test_what_another_target_showed_is_said_of_the_same_protocol(
    summaries: list[RunSummary],
) -> None:
    simulated = [
        changed(run, simulated=True, verdict="invalid", lost_writes=2, target="sim")
        for run in summaries
        if (run.protocol, run.experiment) == ("gossip", "healthy")
    ]
    both = words(summaries + simulated)[0]
    assert both.startswith("Choose gossip if")
    assert "gossip lost at least 2 acknowledged writes in healthy (simulated)" in both
    assert "gossip broke its claim in healthy (simulated)" in both


def test_an_unknown_cell_counts_for_nothing_and_is_named(summaries: list[RunSummary]) -> None:
    def unknown(protocol: str, experiment: str) -> list[str]:
        return words(
            [
                changed(run, verdict="unknown", measured_model="unknown")
                if (run.protocol, run.experiment) == (protocol, experiment)
                else run
                for run in summaries
            ]
        )

    assert not [text for text in unknown("gossip", "leader-partition") if "Choose gossip" in text]
    assert "in each of 2 judged experiments; raft: 1 unknown" in unknown("raft", "healthy")[1]


def test_simulated_and_live_are_not_compared(summaries: list[RunSummary]) -> None:
    mixed = [changed(run, simulated=run.protocol == "gossip") for run in summaries]
    assert words(mixed) == []


def twins(summaries: list[RunSummary], messages: float, p99_ms: float) -> list[RunSummary]:
    """raft, and another that is linearizable, too."""
    own = [
        changed(run, cost=Cost(messages=10.0), latency_ms=Latency(p50=1.0, p99=20.0, bound_ms=2e3))
        for run in summaries
        if run.protocol == "raft"
    ]
    return own + [
        changed(
            run,
            protocol="twin",
            cost=Cost(messages=messages),
            latency_ms=Latency(p50=1.0, p99=p99_ms, bound_ms=2e3),
        )
        for run in own
    ]


def test_the_cheapest_and_the_fastest_are_named_with_their_figures(
    summaries: list[RunSummary],
) -> None:
    said = words(twins(summaries, 6.0, 40.0))
    cheap, fast = (text for text in said if "(in healthy)" in text)
    assert cheap == (
        "Choose twin if it must be linearizable and cost few messages (in healthy): "
        "twin 6, raft 10 per operation."
    )
    assert fast == (
        "Choose raft if it must be linearizable and answer fast (in healthy): raft 20 ms, twin "
        "40 ms at p99."
    )


def test_what_hardly_differs_is_not_called_different(summaries: list[RunSummary]) -> None:
    (cheap,) = (text for text in words(twins(summaries, 10.5, 40.0)) if "few messages" in text)
    assert cheap.startswith("Choose raft or twin if")
    assert cheap.endswith("no difference shown between raft and twin.")


def test_repeats_are_tested_and_not_eyed(summaries: list[RunSummary]) -> None:
    def four(spread: float) -> list[str]:
        runs = []
        for seed in range(4):
            for run in twins(summaries, 12.0, 20.0):
                assert run.cost is not None
                assert run.cost.messages is not None
                noise = spread * (seed - 1.5)
                runs.append(changed(run, seed=seed, cost=Cost(messages=run.cost.messages + noise)))
        return [text for text in words(runs) if "few messages" in text]

    assert four(0.1)[0].startswith("Choose raft if")
    assert four(3.0)[0].startswith("Choose raft or twin if")


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [
        ([1, 2, 3, 4], [5, 6, 7, 8], 2 / 70),
        ([1, 2, 3], [4, 5, 6], 0.1),
        ([1, 1, 1, 1], [1, 1, 1, 1], 1.0),
        ([1, 2], [], 1.0),
        # Ranks 1.5 1.5 4: a sum of 7. 6, 14 and 15 are as far from 10.5, of the 20 there can be.
        ([1, 1, 3], [2, 4, 5], 0.2),
    ],
)
def test_the_test_of_ranks(one: list[float], other: list[float], p: float) -> None:
    assert difference.p_value(one, other) == pytest.approx(p)
    assert difference.p_value(other, one) == pytest.approx(p)


def test_large_samples_are_tested_too() -> None:
    one = [float(n) for n in range(40)]
    assert difference.shown(one, [n + 20 for n in one])
    assert not difference.shown(one, [n + 1 for n in one])
    assert not difference.shown([1.0] * 40, [1.0] * 40)
