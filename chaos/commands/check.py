"""`capbench check`: the verdict on a run folder, or on a history recorded elsewhere."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
import typer

from bench.record.files import shown
from bench.record.history import STANDARD_INPUT, BadHistory
from bench.record.printable import printable
from bench.record.run_folder import BadRunFolder, RunFolder
from bench.record.verdict import VERDICT_VERSION, VerdictValue
from chaos import errors as exit_codes
from chaos.commands.options import Name, duration, size
from chaos.console import Json, print_json
from chaos.errors import BadOption
from nodes.contract.replica import Value

app = typer.Typer()

EXIT_CODES: dict[VerdictValue, int] = {
    "valid": 0,
    "invalid": exit_codes.VIOLATED,
    "unknown": exit_codes.UNKNOWN,
}
MODEL = Name("model", lambda: ("auto", *_models()))
LEVEL = Name("level", lambda: _levels())
NIL_READS = Name("meaning", lambda: ("unknown", "null"))


def _models() -> Iterable[str]:
    from bench.record.models.choose import MODELS

    return MODELS


def _levels() -> Iterable[str]:
    from bench.record.transactions.verdict import Level

    return get_args(Level)


ClockError = Annotated[
    float | None,
    typer.Option(
        parser=duration(),
        help="How far apart the clocks of the clients' hosts may be, such as 5ms: operations "
        "no further apart count as concurrent. A run folder remembers it.",
        show_default=False,
    ),
]
NilReads = Annotated[
    str | None,
    typer.Option(
        **NIL_READS.typed,
        help="What a read of an EDN history saw that was answered nil: null (the key was "
        "missing), or unknown (nobody was told), as for Jepsen's own models.",
        show_default="unknown",
    ),
]


@app.command("check")
def check_command(
    path: Annotated[
        Path,
        typer.Argument(
            help="A run folder, or a history: JSON lines, or EDN as Jepsen writes it; - for "
            "standard input."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            **MODEL.typed, help="What the operations are of; auto: what they show themselves."
        ),
    ] = "auto",
    initial: Annotated[
        str | None, typer.Option(help="The initial value of every key of a history, as JSON.")
    ] = None,
    budget: Annotated[
        float,
        typer.Option(parser=duration(), help="Time limit once the history is read, such as 60s."),
    ] = 60.0,
    memory: Annotated[
        int, typer.Option(parser=size(), help="Memory limit, the history counted in, such as 4G.")
    ] = 4 << 30,
    clock_error: ClockError = None,
    nil_reads: NilReads = None,
    level: Annotated[
        str | None,
        typer.Option(
            **LEVEL.typed,
            help="The isolation level that the verdict on transactions is about.",
            show_default="strict-serializable",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Judge a run folder, or any history.

    Exit code: 0 valid, 4 invalid, 5 unknown, 2 bad input. Example: capbench check history.edn
    """
    error_ns = None if clock_error is None else round(clock_error * 1e9)
    if _is_folder(path):
        if (model, initial, nil_reads, level) != ("auto", None, None, None):
            raise BadOption(
                "--model, --initial, --nil-reads and --level are for histories; a run folder has "
                "its own"
            )
        folder = RunFolder(path)
        if error_ns is not None:
            manifest = msgspec.structs.replace(folder.manifest(), clock_error_ns=error_ns)
            folder.write_manifest(manifest)
        verdict = _check_folder(folder, json)
    else:
        first: Value = None if initial is None else _initial(initial)
        from chaos.commands.histories.judge import Asked, judge

        meaning: Any = nil_reads
        isolation: Any = level
        asked = Asked(path, model, first, meaning, isolation, error_ns or 0, json)
        verdict = judge(asked, budget, memory)
    raise typer.Exit(EXIT_CODES[verdict])


def _is_folder(path: Path) -> bool:
    if path == STANDARD_INPUT:
        return False
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        raise BadHistory(f"{shown(path)}: there is no such file or run folder") from None
    except OSError as error:
        raise BadHistory(f"{shown(path)}: {error.strerror}") from None


def _check_folder(folder: RunFolder, json: bool) -> VerdictValue:
    """Judge a run again, and write the verdict into its folder."""
    from bench.checkers import check_run
    from chaos.commands.histories.show import print_checks

    folder.manifest()
    earlier = _earlier_version(folder)
    verdict = check_run(folder)
    folder.write_verdict(verdict)
    linearizability = next((c for c in verdict.checks if c.name == "linearizability"), None)
    if json:
        body = {
            "verdict": verdict.verdict,
            "model": verdict.claim,
            "algorithm": linearizability.algorithm if linearizability else None,
            "strongest": verdict.measured_model,
            "operations": linearizability.operations if linearizability else 0,
            "seconds": sum(check.seconds for check in verdict.checks),
            "witness": linearizability.witness if linearizability else [],
            "reason": verdict.reason,
            "checks": verdict.checks,
        }
        print_json(body)
        return verdict.verdict
    name = printable(str(folder.path), 200)
    print(f"{name}: claim {verdict.claim}: {verdict.verdict} ({verdict.reason})")
    if earlier is not None:
        print(
            f"  judged again by the current definitions (version {verdict.schema_version}); "
            f"verdict.json was of version {earlier}"
        )
    print(f"  measured: {verdict.measured_model}")
    print_checks(verdict.checks)
    return verdict.verdict


def _earlier_version(folder: RunFolder) -> int | None:
    """The version of a verdict made under other definitions; None if there is none."""
    try:
        verdict = folder.verdict()
    except BadRunFolder:
        return None
    if verdict is None or verdict.schema_version >= VERDICT_VERSION:
        return None
    return verdict.schema_version


def _initial(text: str) -> Value:
    try:
        value: Value = msgspec.json.decode(text, type=Value)
    except msgspec.ValidationError as error:
        why = printable(str(error), 80)
        raise BadOption(f"--initial: a value is null, a bool, number or string ({why})") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        short = printable(text, 40)
        raise BadOption(f"--initial: {short!r} is not JSON; write 0, null or '\"text\"'") from None
    return value
