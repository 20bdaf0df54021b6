"""The console command `capbench`.

Exit codes: 0 all objectives met; 1 an objective missed; 2 invalid input; 3 infrastructure or a
fault failed; 4 a consistency claim violated; 5 a verdict is unknown; 130 and 143 interrupted
(`chaos.interrupted`).
"""

from __future__ import annotations

import gc
import os
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer

from bench.record.printable import printable
from chaos import errors as exit_codes
from chaos.commands.bugs import app as bugs_app
from chaos.commands.catalogue import app as catalogue_app
from chaos.commands.check import app as check_app
from chaos.commands.findings.reproduce import app as reproduce_app
from chaos.commands.gate import app as gate_app
from chaos.commands.hand import app as hand_app
from chaos.commands.load import app as load_app
from chaos.commands.options import NODES, PORT, Cluster, Metrics, NewCluster, Subject
from chaos.commands.options import Name as KnownName
from chaos.commands.report import app as report_app
from chaos.commands.run import app as run_app
from chaos.commands.simulate import app as simulate_app
from chaos.commands.status import app as status_app
from chaos.commands.sweep import app as sweep_app
from chaos.console import Json, prepare_output, print_json
from chaos.errors import BadOption
from chaos.interrupted import Interrupted, signals_as_exit, was_ended

if TYPE_CHECKING:
    from chaos.clusters.by_name import Keeper

LINE = 1500
"""The most characters of an error line: long enough for lists of names, not for megabytes of
input."""

app = typer.Typer(
    name="capbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Benchmarks and chaos tests for replication protocols: throughput, availability and "
    "measured consistency, side by side. Example: capbench compare --preset quick",
)


def main() -> NoReturn:
    """Run the command line. A user's mistake ends in one line and exit code 2."""
    from chaos.commands.failures import said

    prepare_output()
    # Most of a short command is imports, which make few cycles.
    gc.set_threshold(50_000, 20, 100)
    # No Python that we start, directly or not, may import from the working folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        with signals_as_exit():
            if not ({"--help", "--version"} & set(sys.argv) or "_CAPBENCH_COMPLETE" in os.environ):
                from chaos.clusters.leftovers import clean_up

                for line in clean_up():
                    print(f"capbench: {line}", file=sys.stderr)
            code = app(standalone_mode=False)
            if code == Interrupted.exit_code:  # Who tells more raises Interrupted.
                raise KeyboardInterrupt
    except (KeyboardInterrupt, SystemExit) as end:
        if not was_ended(end):
            raise
        told = Interrupted()
        _stop(str(told), told.exit_code)
    except Exception as error:
        if len(sys.argv) == 1:  # no command was given: the error is the help
            print(error.message, file=sys.stderr)  # type: ignore[attr-defined]
            sys.exit(exit_codes.INPUT)
        message, known = said(error)
        if known is None:
            raise
        _stop(message, known)
    sys.exit(code or 0)


def _stop(message: str, code: int) -> NoReturn:
    for line in message.splitlines():
        print(f"capbench: {printable(line, LINE)}", file=sys.stderr)
    sys.exit(code)


# --- the commands of other files ---

app.add_typer(run_app)
app.add_typer(reproduce_app)
app.add_typer(report_app)
app.add_typer(catalogue_app)
app.add_typer(check_app)
app.add_typer(simulate_app)
app.add_typer(bugs_app)
app.add_typer(gate_app)
app.add_typer(sweep_app)
app.add_typer(load_app)


# --- a cluster that stays ---

app.add_typer(hand_app)
app.add_typer(status_app)

CHANGE = KnownName("change", lambda: ("add", "remove"))


@app.command()
def up(
    protocol: Subject = "raft",
    nodes: Annotated[int, typer.Option(parser=NODES, help="Number of nodes.")] = 3,
    name: NewCluster = "demo",
    broker_port: Annotated[
        int | None,
        typer.Option(parser=PORT, help="The broker's port [default: 1883 if it is free]"),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A parameter of the protocol, such as replication_factor=3. Repeatable."
        ),
    ] = None,
    metrics: Metrics = None,
    json: Json = False,
) -> None:
    """Start a cluster and keep it running. Example: capbench up --protocol raft --nodes 3"""
    from chaos.systems.system import System
    from chaos.targets import lab
    from chaos.targets import up as keeper_room
    from chaos.targets.subjects import find
    from nodes import registry

    parameters = _parameters(parameter or [])
    ids = registry.node_ids(nodes)
    subject = find(protocol)
    subject.configure(ids[0], ids, parameters)
    if isinstance(subject, System):
        if metrics is not None:
            raise BadOption("--metrics: a system of others tells no metrics; take its own")
        lab.refuse()
        subject.programs()  # Getting them may take longer than a start.
    keeper = keeper_room.start(name, protocol, nodes, parameters, broker_port, metrics)
    if json:
        print_json(keeper)
        return
    _print_up(keeper)


def _print_up(keeper: Keeper) -> None:
    """How to try it."""
    name = "" if keeper.name == "demo" else f" --name {keeper.name}"
    if keeper.broker is None:
        print(f"cluster {keeper.name}: {keeper.protocol}, {keeper.nodes} nodes in a lab")
        print(f"try: capbench load --run-time 20s{name}")
    else:
        port = keeper.broker.rpartition(":")[2]
        login = "" if port == "1883" else f"-p {port} "
        what = f"{keeper.protocol}, {keeper.nodes} nodes, broker {keeper.broker}"
        print(f"cluster {keeper.name}: {what}")
        print(
            f"try: mosquitto_rr -V 5 {login}-t capbench/{keeper.name}/req/n1 -e reply/me -m "
            + shlex.quote('{"op":"write","key":"k","value":1}')
        )
    print(f"stop it with: capbench down{name}")


def _parameters(settings: list[str]) -> dict[str, Any]:
    """``name=value``; a value is JSON if it can be, else a string."""
    parameters: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"--set: {setting!r} is not a parameter; use name=value")
        try:
            parameters[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            parameters[name] = text
    return parameters


@app.command()
def down(name: Cluster = None) -> None:
    """Stop the cluster that `capbench up` started, and remove its folder.

    This also removes what a killed cluster left behind (without --name, only if none is running).
    Exit code 0 even if there is no cluster; 2: none has that name. Example: capbench down
    """
    from chaos.clusters import by_name as clusters
    from chaos.targets import up as keeper_room

    if name is not None:
        clusters.require_known(name)
        names = [name]
    elif clusters.all_running():
        names = [clusters.find(None).name]
    else:
        names = clusters.all_dead()
    if not names:
        print(clusters.why_none())
    for each in names:
        ran = keeper_room.stop(each)
        print(f"cluster {each}: {'stopped' if ran else 'was not running; leftovers removed'}")


@app.command("transfer-leadership")
def transfer_leadership(
    node: Annotated[str, typer.Argument(help="The node that is to lead.")],
    name: Cluster = None,
) -> None:
    """Make a node of the running cluster its leader. Example: capbench transfer-leadership n2"""
    from chaos.clusters import administration

    _administer(name, lambda m, cluster: administration.transfer_leadership(m, cluster, node))


@app.command()
def members(
    change: Annotated[str, typer.Argument(**CHANGE.typed, help="add or remove")],
    node: Annotated[str, typer.Argument(help="A node that the cluster was started with.")],
    name: Cluster = None,
) -> None:
    """Add or remove a member of the running cluster. Example: capbench members remove n3"""
    from chaos.clusters import administration

    kind: Any = change
    _administer(name, lambda m, cluster: administration.change_members(m, cluster, kind, node))


def _administer(name: str | None, what: Any) -> None:
    from chaos.clusters.by_name import read
    from chaos.clusters.monitor import Monitor

    cluster = read(name)
    with Monitor(cluster) as monitor:
        print(what(monitor, cluster))


if __name__ == "__main__":
    main()
