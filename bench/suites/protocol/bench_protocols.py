"""Every protocol in the simulator without faults: the CPU time of an operation in the code of the
protocol and the simulator, with all invariants checked.

Without broker, codec and disk, only changes of the protocols show here. The rates are of the code,
not of a service.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.measure.measuring import measure, scaled
from nodes.registry import PROTOCOLS
from nodes.simulator.load import WorkloadMix
from nodes.simulator.network import Quality
from nodes.simulator.simulate import Setup, SimulationResult, simulate

SECONDS = scaled(20)
SEED = 1
CLIENTS = 10
STORES = sorted(name for name, protocol in PROTOCOLS.items() if protocol.operations)


def _run(protocol: str, nodes: int) -> SimulationResult:
    result = simulate(
        protocol,
        SEED,
        nodes=nodes,
        duration_s=SECONDS,
        tape=[],
        setup=Setup(
            mix=WorkloadMix(clients=CLIENTS, keys=5, think_s=0.01, reads=0.5), quality=Quality()
        ),
        finish=False,
    )
    assert not result.alarms, result.alarms
    return result


@pytest.mark.benchmark(group="protocol")
@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("protocol", STORES)
def bench_operations(benchmark: Any, protocol: str, nodes: int) -> None:
    result = _run(protocol, nodes)
    operations = sum(record.outcome == "ok" for record in result.history)
    assert operations > 0
    benchmark.extra_info.update(
        simulated=True,
        protocol=protocol,
        nodes=nodes,
        operations=operations,
        events_per_operation=result.events / operations,
    )
    measure(
        benchmark,
        f"protocol: {protocol}, {nodes} nodes, simulated",
        lambda: _run(protocol, nodes),
        operations=operations,
        rounds=5,
        compared_with=None if nodes == 3 else f"protocol: {protocol}, 3 nodes, simulated",
    )
