"""The MQTT broker of a local cluster: Mosquitto, or the embedded one where there is none.

It listens on loopback only and accepts anyone on this machine; the compose file's broker does not
(docs/ARCHITECTURE.md).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from bench.children import python
from bench.record.files import naming
from nodes.errors import InfrastructureFailed


class NoBroker(InfrastructureFailed):
    """Neither Mosquitto nor the embedded broker is installed. Says how to get one."""


def find_mosquitto() -> Path | None:
    """Mosquitto's server, on PATH or where Debian puts it (which a user's PATH often lacks)."""
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
    found = shutil.which("mosquitto", path=os.pathsep.join(places))
    return Path(found) if found else None


class BrokerCommand(NamedTuple):
    """How to start a broker. ``note``: what a report must say of it. ``mqtt_version``: the newest
    it knows, 5 or 4 (MQTT 3.1.1)."""

    argv: list[str]
    note: str | None
    mqtt_version: int


def broker_command(directory: Path, port: int) -> BrokerCommand:
    """A broker on 127.0.0.1:``port`` that keeps nothing on disk. Raises NoBroker."""
    mosquitto = find_mosquitto()
    if mosquitto is not None:
        configuration = directory / "mosquitto.conf"
        with naming(configuration):
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
        return BrokerCommand([str(mosquitto), "-c", str(configuration)], None, 5)
    if importlib.util.find_spec("amqtt") is not None:
        note = "the embedded broker was used: behaviour is shown, speed is not"
        argv = [*python("chaos.clusters.broker"), "--port", str(port)]
        return BrokerCommand(argv, note, 4)
    raise NoBroker(
        "no MQTT broker: install Mosquitto (Debian, Ubuntu: apt-get install mosquitto; macOS: brew "
        "install mosquitto), or run `make setup`, which installs the embedded one"
    )


def main() -> None:
    """Run the embedded broker until killed: ``python -m chaos.clusters.broker --port 1883``."""
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
