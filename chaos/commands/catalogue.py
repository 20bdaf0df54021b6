"""Looking around: `capbench doctor`, `list`, `faults` and `schema`."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from typing import Any

import typer

from chaos import errors as exit_codes
from chaos.commands.options import DETECTOR_SWEEP
from chaos.console import Json, print_json

app = typer.Typer()

_DURATION = {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m)$", "examples": ["10s", "200ms"]}
_RATE = {"type": "string", "pattern": r"^\d+(\.\d+)?/s$", "examples": ["300/s"]}


@app.command()
def doctor(json: Json = False) -> None:
    """Check this machine: what is there, what is missing, how to get it. Example: capbench
    doctor"""
    from rich.console import Console

    from chaos.commands.doctor import examine, is_ready, table

    findings = examine()
    if json:
        print_json({"ready": is_ready(findings), "findings": findings})
    else:
        Console().print(table(findings))
    if not is_ready(findings):
        raise typer.Exit(exit_codes.INFRASTRUCTURE)


@app.command("list")
def list_everything(json: Json = False) -> None:
    """List protocols, systems, faults and experiments, a line each. Example: capbench list"""
    from chaos.clusters.capabilities import works_on
    from chaos.experiments.experiment import catalogue
    from chaos.systems.catalogue import SYSTEMS
    from chaos.targets.subjects import offered
    from nodes.faults.catalogue import FAULTS
    from nodes.registry import PROTOCOLS

    listed: tuple[list[dict[str, Any]], ...] = tuple(
        [
            {
                "name": p.name,
                "claim": p.claim,
                "operations": offered(p),
                "summary": p.summary,
            }
            for p in named.values()
        ]
        for named in (PROTOCOLS, SYSTEMS)
    )
    protocols, systems = listed
    for system in systems:
        system["versions"] = list(SYSTEMS[system["name"]].versions)
    faults = [
        {"name": name, "targets": works_on(fault.NEEDS), "summary": fault.summary()}
        for name, fault in FAULTS.items()
    ]
    experiments: list[dict[str, Any]] = [
        {
            "name": name,
            "title": experiment.title,
            "shows": experiment.shows.strip(),
            "protocols": list(experiment.protocols),
            "nodes": experiment.nodes,
            "duration_s": experiment.duration_s,
        }
        for name, experiment in catalogue().items()
    ]
    experiments.append(
        {
            "name": DETECTOR_SWEEP,
            "title": "Failure detectors under latency, jitter, loss and flapping links",
            "shows": "How fast two failure detectors notice a crash, and how often they suspect a"
            " healthy node. A simulated sweep; for `run` only.",
            "protocols": ["heartbeat"],
            "nodes": 5,
            "duration_s": None,
        }
    )
    if json:
        print_json(
            {
                "protocols": protocols,
                "systems": systems,
                "faults": faults,
                "experiments": experiments,
            }
        )
        return
    for title, named in (("protocols", protocols), ("systems (target lab)", systems)):
        _print_list(title, [(p["name"], f"{p['claim']}: {p['summary']}{_at(p)}") for p in named])
    _print_list("faults", [(f["name"], f["summary"]) for f in faults])
    _print_list(
        "experiments",
        [(e["name"], f"{e['title']} ({_length(e['duration_s'])})") for e in experiments],
    )


def _at(subject: dict[str, Any]) -> str:
    """The versions that can be named, in words."""
    versions = subject.get("versions")
    return f" (@{', @'.join(versions)})" if versions else ""


def _length(duration_s: float | None) -> str:
    return "simulated" if duration_s is None else f"{duration_s:.0f} s"


def _print_list(title: str, rows: Sequence[tuple[Any, Any]]) -> None:
    print(title)
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"  {name:<{width}}  {text}")


@app.command()
def faults(json: Json = False) -> None:
    """List the faults: what each does, where it works, its parameters. Example: capbench faults"""
    from nodes.faults.catalogue import FAULTS

    found = [_described(name, kind) for name, kind in sorted(FAULTS.items())]
    if json:
        print(json_format.dumps({"faults": found}, indent=2))
        return
    for fault in found:
        print(f"{fault['name']}  (on {', '.join(fault['targets'])})")
        for line in fault["description"].splitlines():
            print(f"  {line}".rstrip())
        for name, text in fault["parameters"].items():
            print(f"    {name}: {text}")
        print()


def _described(name: str, kind: Any) -> dict[str, Any]:
    """A fault as its class describes it. Parameters carry their units in their names."""
    from chaos.clusters.capabilities import works_on

    paragraphs = (kind.__doc__ or "").strip().split("\n\n")
    description = [" ".join(paragraph.split()) for paragraph in paragraphs]
    properties = kind.model_json_schema()["properties"]
    return {
        "name": name,
        "targets": works_on(kind.NEEDS),
        "summary": kind.summary(),
        "description": "\n".join(description).replace("``", "`"),
        "parameters": {
            field: "required" if info.is_required() else f"default {_shown(info.default)}"
            for field, info in kind.model_fields.items()
            if field != "fault"
        },
        "schema": {field: each for field, each in properties.items() if field != "fault"},
    }


def _shown(default: Any) -> str:
    return "none" if default is None else json_format.dumps(default)


@app.command()
def schema() -> None:
    """Print the JSON Schema of experiments, for editors. Example: capbench schema > schema.json"""
    print(json_format.dumps(experiment_schema(), indent=2))


def experiment_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment's YAML. It covers names and types; rules across fields (a
    fault must end before the load does) are checked by `capbench run`."""
    from chaos.experiments.experiment import Experiment
    from nodes.faults.catalogue import FAULTS

    found = Experiment.model_json_schema(by_alias=True, mode="validation")
    definitions = found["$defs"]
    entries = []
    for name, kind in sorted(FAULTS.items()):
        definition = definitions[kind.__name__]
        definition["properties"] = {
            "at": _DURATION,
            "for": _DURATION,
            "every": _DURATION,
            **definition["properties"],
        }
        definition["required"] = sorted({"at", "fault", *definition.get("required", [])})
        definition["title"] = name
        entries.append({"$ref": f"#/$defs/{kind.__name__}"})
    definitions["ScheduleEntry"] = {"title": "ScheduleEntry", "oneOf": entries}
    found["properties"]["duration"] = _DURATION
    definitions["Load"]["properties"]["timeout"] = _DURATION
    definitions["Arrival"]["properties"]["open_loop"] = _RATE
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
