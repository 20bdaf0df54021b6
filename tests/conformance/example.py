"""The protocol of example_protocol.py, loaded as a user's file is."""

from __future__ import annotations

from pathlib import Path

from nodes.registry import PROTOCOLS, load_file

EXAMPLE_FILE = Path(__file__).with_name("example_protocol.py")

(EXAMPLE,) = load_file(EXAMPLE_FILE)
# Other tests count the registered protocols: this one is handed around by hand.
del PROTOCOLS[EXAMPLE.name]
