"""The MQTT broker of a local cluster: Mosquitto, or the embedded one where there is none.

It listens on loopback only and takes anybody who is on this machine; the compose file's broker does
not (docs/ARCHITECTURE.md).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import os
import shutil
import sys
from pathlib import Path


class NoBroker(Exception):
    """There is neither Mosquitto nor the embedded broker. Says how to get one."""


def find_mosquitto() -> Path | None:
    """Mosquitto's server, on PATH or where Debian puts it (which a user's PATH often lacks)."""
    path = (
        os.environ.get("PATH", os.defpath)
        + os.pathsep
        + "/usr/sbin"
        + os.pathsep
        + "/usr/local/sbin"
    )
    found = shutil.which("mosquitto", path=path)
    return Path(found) if found else None


def broker_command(directory: Path, port: int) -> tuple[list[str], str | None]:
    """The command line of a broker on 127.0.0.1:``port`` that keeps nothing on disk, and a note for
    the report if its speed says nothing. Raises NoBroker."""
    mosquitto = find_mosquitto()
    if mosquitto is not None:
        configuration = directory / "mosquitto.conf"
        configuration.write_text(
            f"listener {port} 127.0.0.1\n"
            "allow_anonymous true\n"
            "persistence false\n"
            # Without it small frames wait for the acknowledgement of the one before.
            "set_tcp_nodelay true\n"
            "log_dest stderr\n"
            "log_type error\nlog_type warning\nlog_type notice\n"
            "connection_messages false\n"
        )
        return [str(mosquitto), "-c", str(configuration)], None
    if importlib.util.find_spec("amqtt") is not None:
        note = "the embedded broker was used: what works is shown, how fast it would be is not"
        return [sys.executable, "-m", "chaos.broker", "--port", str(port)], note
    raise NoBroker(
        "no MQTT broker: install Mosquitto (Debian, Ubuntu: apt-get install mosquitto; macOS: brew "
        "install mosquitto), or run `make setup`, which installs the embedded one"
    )


def main() -> None:
    """Run the embedded broker until killed: ``python -m chaos.broker --port 1883``."""
    parser = argparse.ArgumentParser(description="The embedded MQTT broker, on loopback.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    logging.basicConfig(level=logging.WARNING)

    async def serve() -> None:
        from amqtt.broker import Broker

        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
                "plugins": {
                    "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
                },
            }
        )
        await broker.start()
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
