"""`capbench inject` and `capbench heal`: faults by hand on a cluster started with `capbench up`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from bench.record.printable import quoted
from bench.record.quantities import Bounds
from chaos import errors as exit_codes
from chaos.commands.options import FAULT, Cluster, count, duration
from chaos.console import Json, print_json
from chaos.experiments.limits import AT_MOST_S

app = typer.Typer()


@app.command()
def inject(
    fault: Annotated[
        str, typer.Argument(**FAULT.typed, help="A fault listed by `capbench faults`.")
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(help="Its parameters, as in a schedule: groups=halves, nodes=[n1,n2]."),
    ] = None,
    for_: Annotated[
        float | None,
        typer.Option(
            "--for",
            parser=duration(Bounds(0, AT_MOST_S, excluded=True)),
            help="For how long: 10s [default: until `capbench heal`, an hour at most]",
        ),
    ] = None,
    name: Cluster = None,
    json: Json = False,
) -> None:
    """Inject a fault into the running cluster.

    Exit code 2: no such fault or parameter; 3: it could not be applied.
    Example: capbench inject partition groups=leader-alone --for 10s
    """
    from chaos.clusters.by_name import find, socket_path
    from chaos.experiments.experiment import InvalidExperiment, parse_fault
    from chaos.targets import by_hand

    fields = {"fault": fault, **_fields(parameters or [])}
    try:
        parse_fault(fields, source="inject")
    except InvalidExperiment as error:
        # A schedule has `nodes: [n1]`; here it is a word of the command line.
        text = re.sub(r"^(inject: (\w+): .*such as )(\[.*)$", r"\1\2=\3", str(error), flags=re.M)
        raise InvalidExperiment(text) from None
    answer = by_hand.ask(socket_path(find(name).name), by_hand.Inject(fields, for_))
    _show(answer, "", json=json)


@app.command()
def heal(
    number: Annotated[
        int | None,
        typer.Argument(parser=count(0), help="The number that `inject` gave [default: all]"),
    ] = None,
    name: Cluster = None,
    json: Json = False,
) -> None:
    """Heal the active faults, or one of them.

    Exit code 2: no such fault is on; 3: it could not be healed. Example: capbench heal
    """
    from chaos.clusters.by_name import find, socket_path
    from chaos.targets import by_hand

    answer = by_hand.ask(socket_path(find(name).name), by_hand.Heal(number))
    _show(answer, "no fault is on", json=json)


def _fields(parameters: list[str]) -> dict[str, Any]:
    """``field=value``, with values in YAML."""
    from chaos.experiments.yaml_reader import BadYaml, read_yaml

    fields: dict[str, Any] = {}
    for parameter in parameters:
        field, equals, text = parameter.partition("=")
        if not (field and equals):
            raise typer.BadParameter(f"{quoted(parameter)} is not a parameter; use field=value")
        if field == "fault" or field in fields:
            raise typer.BadParameter(f"{quoted(field)} is given twice")
        try:
            fields[field] = read_yaml(text, "safe")
        except BadYaml:
            raise typer.BadParameter(f"{quoted(parameter)}: the value is not YAML") from None
    return fields


def _show(answer: Any, none: str, *, json: bool) -> None:
    from bench.record.fault_words import described

    if json:
        print_json(answer)
    else:
        for record in answer.faults:
            if record.error is None:
                print(described(record))
        if not (answer.faults or answer.refused):
            print(none)
    for wrong, code in (
        (answer.refused, exit_codes.INPUT),
        (answer.failed, exit_codes.INFRASTRUCTURE),
    ):
        if wrong:
            for line in wrong.splitlines():
                typer.echo(f"capbench: {line}", err=True)
            raise typer.Exit(code)
