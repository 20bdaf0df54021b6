"""What the commands of `capbench` have in common: machine-readable results."""

from __future__ import annotations

import io
import os
import sys
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


class _Output(io.FileIO):
    """A stream of ours that may be closed at the other end, as by ``head``: what is still to be
    said goes nowhere, and the command ends as it would have, with its own exit code."""

    def write(self, data: Any) -> int:
        """See `io.FileIO`."""
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data) or 0


def prepare_output() -> None:
    """What a terminal cannot show, or nobody reads any more, does not end a command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue  # Somebody collects it.
        stream.flush()
        raw = _Output(stream.fileno(), "w", closefd=False)
        output = io.TextIOWrapper(
            # As Python does it: what is unbuffered (PYTHONUNBUFFERED) has none.
            raw if stream.write_through else io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, output)
