"""Every system by name, and how a file of your own joins them."""

from __future__ import annotations

from chaos.systems.etcd import ETCD, ETCD_SERIALIZABLE
from chaos.systems.redis_sentinel import REDIS_MIN_REPLICAS, REDIS_SENTINEL, REDIS_WAIT
from chaos.systems.system import System
from nodes.contract.names import did_you_mean
from nodes.registry import InvalidConfiguration

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (ETCD, ETCD_SERIALIZABLE, REDIS_SENTINEL, REDIS_MIN_REPLICAS, REDIS_WAIT)
}


def get(name: str) -> System:
    """The system of that name. Raises InvalidConfiguration."""
    try:
        return SYSTEMS[name]
    except KeyError:
        raise InvalidConfiguration(
            f"unknown system {did_you_mean(name, sorted(SYSTEMS))}"
        ) from None
