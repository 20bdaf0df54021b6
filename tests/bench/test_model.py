"""The queueing model against values computed by hand."""

from __future__ import annotations

import math

import pytest

from reports.sweeps import model
from reports.sweeps.model import (
    Costs,
    NotCalibrated,
    Observed,
    Predicted,
    Shape,
    calibrate,
    predict,
    shape,
)


def test_messages_of_an_operation() -> None:
    """Counted by hand: request, reply, and per other node what the papers' figures show."""
    for protocol in ("raft", "paxos"):
        at_leader, elsewhere = shape(protocol, 3), shape(protocol, 3, forwarded=1.0)
        assert at_leader is not None
        assert elsewhere is not None
        assert (at_leader.messages, elsewhere.messages) == (6, 8)
        assert (at_leader.copies, elsewhere.copies) == (3, 4)
        assert (at_leader.fsyncs, at_leader.rounds) == (3, 1)
        # Three requests, three replies, two forwarded there and back, two followers and back.
        assert at_leader.round_messages == 6 + 4 + 4
    quorum = shape("quorum", 5)
    assert quorum is not None
    assert (quorum.messages, quorum.fsyncs, quorum.rounds) == (18, 5, 2)
    # At each of five nodes a request, a reply, and one message to each other one and back.
    assert quorum.round_messages == 5 * 10
    gossip = shape("gossip", 7)
    assert gossip is not None
    # Seven nodes tell two peers three times, and the request.
    assert (gossip.messages, gossip.fsyncs, gossip.copies) == (2, 1, 43)
    assert shape("heartbeat", 3) is None


def test_waiting_of_a_queue() -> None:
    # Half busy, 10 ms each: M/M/1 waits rho s / (1 - rho) = 10 ms, M/D/1 half of that.
    assert model.waiting_s(50, 0.010, variation=1) == pytest.approx(0.010)
    assert model.waiting_s(50, 0.010) == pytest.approx(0.005)
    assert model.waiting_s(90, 0.010) == pytest.approx(0.9 * 0.010 / (2 * 0.1))
    assert model.waiting_s(100, 0.010) == math.inf
    assert model.waiting_s(0, 0.010) == 0


def test_interactive_response_time_law() -> None:
    # Lazowska, section 3.4: 64 users, 2 interactions/s, 30 s of thinking.
    assert model.response_s(64, 2.0, 30.0) == pytest.approx(2.0)


def test_bounds_and_mean_value_analysis() -> None:
    demands, think_s = (0.4, 0.2), 1.0
    # By hand, n = 1: R = 0.4 + 0.2, X = 1 / 1.6; queues 0.25, 0.125.
    assert model.mva_per_s(1, demands, think_s) == pytest.approx(0.625)
    # n = 2: R = 0.4 * 1.25 + 0.2 * 1.125 = 0.725, X = 2 / 1.725.
    assert model.mva_per_s(2, demands, think_s) == pytest.approx(2 / 1.725)
    assert model.most_per_s(1, demands, think_s) == pytest.approx(0.625)
    assert model.most_per_s(100, demands, think_s) == pytest.approx(2.5)
    rates = [model.mva_per_s(n, demands, think_s) for n in (1, 2, 4, 8, 64)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(2.5, rel=1e-3)
    for n, rate in zip((1, 2, 4, 8, 64), rates, strict=True):
        assert rate <= model.most_per_s(n, demands, think_s) + 1e-12


def test_rounds_of_a_server_that_takes_all_who_wait() -> None:
    # One client: a round of its own after each thought.
    per_s, batch = model.rounds_per_s(1, 0.004, 0.001, 0.005)
    assert per_s == pytest.approx(100.0)
    assert batch == 1.0
    # 100 clients that do not think: 1.5 T = N / X and B = X T, so B = 100 / 1.5, whatever T is.
    per_s, batch = model.rounds_per_s(100, 0.010, 0.0, 0.0)
    assert batch == pytest.approx(100 / 1.5)
    assert per_s == pytest.approx(100 / 0.015)
    # Marginal cost 0.1 ms: T = 10 + 6.667 ms.
    per_s, batch = model.rounds_per_s(100, 0.010, 0.0001, 0.0)
    assert batch == pytest.approx(100 / 1.5)
    assert per_s == pytest.approx(batch / 0.0166667, rel=1e-4)
    # With thinking, both equations of the head of the module hold.
    per_s, batch = model.rounds_per_s(128, 0.002, 0.00005, 0.001)
    round_s = 0.002 + 0.00005 * batch
    assert batch == pytest.approx(per_s * round_s)
    assert per_s * (0.001 + 1.5 * round_s) == pytest.approx(128)
    # Two rounds each: X (Z + 2.5 T) = N.
    per_s, batch = model.rounds_per_s(128, 0.002, 0.00005, 0.001, rounds=2)
    round_s = 0.002 + 0.00005 * batch
    assert batch == pytest.approx(per_s * round_s)
    assert per_s * (0.001 + 2.5 * round_s) == pytest.approx(128)
    per_s, batch = model.rounds_per_s(1, 0.004, 0.001, 0.0, rounds=2)
    assert per_s == pytest.approx(1 / 0.009)
    assert batch == 1.0
    # More clients never come close to more than 1 / each.
    assert model.rounds_per_s(100_000, 0.002, 0.00005, 0.001)[0] < 20_000


TRUE = Costs(
    frame_s=50e-6,
    operation_s=10e-6,
    byte_s=1e-9,
    parallel=1.5,
    head_bytes=150.0,
)


def observed(clients: int, publishes: float, value_bytes: int, response_s: float) -> Observed:
    size = 3 * value_bytes + TRUE.head_bytes
    cpu_s = publishes * TRUE.frame_s + 3 * TRUE.operation_s + size * TRUE.byte_s
    return Observed(
        nodes=3,
        clients=clients,
        cpu_s=cpu_s,
        publishes=publishes,
        bytes=size,
        response_s=response_s,
        fsync_s=200e-6,
    )


def test_calibration_finds_the_costs_that_made_the_points() -> None:
    # One client at the leader: 6 PUBLISHes of 50 us, 1.5 at once; 200 us of fsync; 30 us for
    # three nodes and 0.45 us for the bytes, on two cores.
    one = observed(1, 6.0, 100, 6 * 50e-6 / 1.5 + 200e-6 + 30.45e-6 / 2)
    found = calibrate(
        "raft",
        one,
        observed(128, 0.2, 100, 0.0),
        observed(128, 0.3, 65536, 0.0),
        value_bytes=100,
        forwarded=0.0,
        cores=2,
    )
    for name in Costs.__struct_fields__:
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=1e-6), name
    with pytest.raises(NotCalibrated, match="alike"):
        calibrate("raft", one, one, one, value_bytes=1, forwarded=0, cores=2)


def test_predictions() -> None:
    at_leader = shape("raft", 3)
    assert at_leader is not None

    def at(
        clients: int, value_bytes: int = 100, coalesced: bool = True, of: Shape = at_leader
    ) -> Predicted:
        return predict(
            TRUE,
            of,
            nodes=3,
            clients=clients,
            value_bytes=value_bytes,
            think_s=0.001 if clients > 1 else 0.0,
            cores=2,
            fsync_s=200e-6,
            broker_per_s=50_000,
            coalesced=coalesced,
        )

    # One client, by hand: 200 us of PUBLISHes, 200 us of fsync, 15 us and 0.2 us of bytes.
    assert at(1).response_s == pytest.approx(415.2e-6, rel=1e-3)
    assert at(1).publishes == 6
    # Many share a round's 14 PUBLISHes: 200 + 14 * 50 / 1.5 us, and 15.225 us for each of 60.
    many = at(128)
    batch = 14 / many.publishes
    round_s = 666.67e-6 + 15.225e-6 * batch
    assert batch == pytest.approx(60, abs=0.1)
    assert many.per_s == pytest.approx(batch / round_s, rel=1e-3)
    assert many.response_s == pytest.approx(1.5 * round_s, rel=1e-3)
    # Two do not fill a round.
    assert at(2).publishes == 6
    # Without coalescing the cores are what there is too little of: 2 / (6 * 50 + 30) us.
    single = at(128, coalesced=False)
    assert single.publishes == 6
    assert single.per_s == pytest.approx(2 / 330.45e-6, rel=0.01)
    # Bytes cost, and a slow broker bounds all.
    assert at(128, 65536).per_s < many.per_s / 3
    assert single.per_s * 6 <= 50_000
