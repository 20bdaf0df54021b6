"""What the commands of `capbench` have in common: machine-readable results."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

Json = Annotated[
    bool, typer.Option("--json", help="Machine-readable result on standard output, nothing else.")
]


def print_json(value: Any) -> None:
    """``value`` as indented JSON."""
    print(json_text(value), end="")


def json_text(value: Any) -> str:
    """``value`` as indented JSON with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
