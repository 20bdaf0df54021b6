"""The registered protocols under random faults: no alarm. The harness is wrong first: when this
fails, read the transcript of the seed before the protocol."""

from __future__ import annotations

import pytest

from nodes.registry import PROTOCOLS
from nodes.simulator.simulate import simulate
from tests.simulator.judge import linearizable

pytestmark = pytest.mark.long

SEEDS = 200
DURATION_S = 1.5
"""Short, so that all protocols together stay below a minute or so; the nightly sweep runs
longer."""


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_registered_protocol_raises_no_alarm(name: str) -> None:
    protocol = PROTOCOLS[name]
    operations = ok = faults = 0
    for seed in range(1, SEEDS + 1):
        result = simulate(protocol, seed, duration_s=DURATION_S)
        alarms = result.alarms
        if protocol.claim == "linearizable":
            alarms = alarms + linearizable(result)
        assert alarms == [], f"{name}, seed {seed}: {alarms[0].check}: {alarms[0].message}"
        operations += result.counters["operations"]
        ok += result.counters["operations_ok"]
        faults += sum(count for key, count in result.counters.items() if key.startswith("fault "))
    assert ok > operations / 2 > SEEDS * 10
    assert faults > SEEDS
