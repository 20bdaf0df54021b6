"""What makes runs repeats of each other: everything planned except the seed.

Runs with the same name can come from different files, machines or code. Their figures then measure
different things, and their mean means nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from bench.record.run_folder import Manifest

_WORDS = frozenset(("title", "shows", "protocols", "parameters", "seed"))
"""Fields of an experiment that do not affect a run, or are elsewhere in a manifest."""
_NO_PART = frozenset(("load_average_before", "pandas"))
"""Fields that differ from run to run, or that only the report uses."""
_AS_EVER = {"ask": "any"}
"""Fields of a workload that older runs lack, and what these did."""
SYSTEM = "system"
"""The name of a system's own version among those of all parts."""
MOST_DIFFERENCES = 4


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Flat mappings such as ``{"workload.keys.count": "50"}``. ``experiment``: as validated;
    ``setting``: target, machine and versions; ``protocol``: its claim and parameters."""

    experiment: dict[str, str] = {}
    setting: dict[str, str] = {}
    protocol: dict[str, str] = {}

    def of_any_version(self) -> Plan:
        """What is equal for all versions of capbench, of the parts and of a system: all that was
        planned, on one target and machine."""
        setting = {
            name: value
            for name, value in self.setting.items()
            if name == "target" or name.startswith("machine.")
        }
        own = {name: value for name, value in self.protocol.items() if name != SYSTEM}
        return Plan(experiment=self.experiment, setting=setting, protocol=own)

    def digest(self) -> str:
        """Equal for equal plans."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]


def plan_of(manifest: Manifest) -> Plan:
    """The plan of a run."""
    experiment = {name: v for name, v in manifest.experiment.items() if name not in _WORDS}
    workload = experiment.get("workload")
    if isinstance(workload, dict):
        experiment["workload"] = {
            name: v
            for name, v in workload.items()
            if name != "seed" and not (name in _AS_EVER and _AS_EVER[name] == v)
        }
    experiment["nodes"] = len(manifest.nodes)
    setting = {
        "target": manifest.target,
        "capbench": manifest.capbench_version,
        "commit": manifest.commit,
        **manifest.versions,
        "machine": manifest.hardware,
    }
    own = {"claim": manifest.claim, **manifest.parameters}
    if SYSTEM in manifest.versions:  # It is what is looked at, and not what it ran on.
        own[SYSTEM] = setting.pop(SYSTEM)
    return Plan(
        experiment=dict(_flat(experiment)), setting=dict(_flat(setting)), protocol=dict(_flat(own))
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, each in value.items():
        if name in _NO_PART or each is None:
            continue
        if isinstance(each, list):
            each = {str(number): one for number, one in enumerate(each, 1)}
        if isinstance(each, dict):
            yield from _flat(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", each if isinstance(each, str) else _text(each)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else msgspec.json.encode(value).decode()


def differences(plans: Sequence[Mapping[str, str]]) -> list[str]:
    """How the plans differ, in words, for each plan."""
    names = dict.fromkeys(name for plan in plans for name in plan)
    differing = [name for name in names if len({plan.get(name) for plan in plans}) > 1]
    more = len(differing) - MOST_DIFFERENCES
    return [
        ", ".join(
            f"{name} {plan[name][:40]}" if name in plan else f"no {name}"
            for name in differing[:MOST_DIFFERENCES]
        )
        + (f" and {more} more" if more > 0 else "")
        for plan in plans
    ]
