"""What can be asked for: `capbench faults` and `capbench schema`."""

from __future__ import annotations

import json as json_format
from typing import Annotated, Any

import typer

app = typer.Typer()

_DURATION = {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m)$", "examples": ["10s", "200ms"]}
_RATE = {"type": "string", "pattern": r"^\d+(\.\d+)?/s$", "examples": ["300/s"]}


@app.command()
def faults(
    json: Annotated[
        bool, typer.Option("--json", help="Machine-readable result on standard output.")
    ] = False,
) -> None:
    """The catalogue of faults: what each does, where, its parameters. Example: capbench faults"""
    from chaos.faults import FAULTS

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
    """A fault as its class has it. Parameters have their units in their names."""
    paragraphs = (kind.__doc__ or "").strip().split("\n\n")
    description = [" ".join(paragraph.split()) for paragraph in paragraphs]
    properties = kind.model_json_schema()["properties"]
    return {
        "name": name,
        "targets": sorted(kind.TARGETS),
        "summary": kind.summary(),
        "description": "\n".join(description),
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
    """The JSON Schema of experiments, for editors. Example: capbench schema > schema.json"""
    print(json_format.dumps(experiment_schema(), indent=2))


def experiment_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment as YAML has it. It knows shapes and names; what depends on
    more than one field (a fault that ends after the load) only `capbench run` finds."""
    from chaos.experiment import Experiment
    from chaos.faults import FAULTS

    found = Experiment.model_json_schema(by_alias=True, mode="validation")
    definitions = found["$defs"]
    entries = []
    for name, kind in sorted(FAULTS.items()):
        definition = definitions[kind.__name__]
        definition["properties"] = {
            "at": _DURATION,
            "for": _DURATION,
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
