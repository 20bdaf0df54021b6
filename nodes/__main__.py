"""One live replica process: ``python -m nodes --settings node.json``.

Exit codes: 0 after SIGTERM or SIGINT; 2 for settings that cannot be used; 3 when the disk failed or
the log is damaged; 70 when the replica broke an invariant (a defect of the protocol).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import sys
from pathlib import Path

import structlog
import uvloop
from structlog.typing import EventDict

from nodes.registry import InvalidConfiguration
from nodes.runtime.driver import DiskFailed, Driver
from nodes.runtime.durable_log import CorruptLog
from nodes.runtime.settings import BadSettings, NodeSettings, read_settings

EXIT_BAD_SETTINGS = 2
EXIT_DISK = 3
EXIT_INVARIANT = 70


def main(arguments: list[str] | None = None) -> int:
    """Run one node. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nodes", description="One capbench node.")
    parser.add_argument("--settings", type=Path, required=True, help="the node's settings, JSON")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(options.settings)
    except BadSettings as error:
        print(f"capbench node: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    return run(settings)


def run(settings: NodeSettings) -> int:
    """Run the node that ``settings`` describe, until it is told to stop. Returns the exit code."""
    _configure_log(settings.node)
    # A full collection of a large heap stops the node for longer than a heartbeat; replicas make
    # few cycles, so it may be rare.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        uvloop.run(_serve(settings))
    except InvalidConfiguration as error:
        print(f"capbench node {settings.node}: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    except (CorruptLog, DiskFailed, OSError) as error:
        print(f"capbench node {settings.node}: {error}", file=sys.stderr)
        return EXIT_DISK
    except AssertionError:
        structlog.get_logger().exception("invariant broken: this is a defect of the protocol")
        return EXIT_INVARIANT
    return 0


async def _serve(settings: NodeSettings) -> None:
    driver = Driver(settings)
    task = asyncio.ensure_future(driver.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _configure_log(node: str) -> None:
    # Not by context variables: callbacks of the event loop do not all see them.
    def name_node(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {"node": node, **event}

    structlog.configure(
        processors=[
            name_node,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    sys.exit(main())
