"""The protocols of the guide, loaded as a user's file is."""

from __future__ import annotations

from pathlib import Path

from nodes.registry import PROTOCOLS, load_file

EXAMPLE_FILE = Path(__file__).with_name("example_protocol.py")
PRIMARY_FILE = Path(__file__).with_name("example_primary.py")

(EXAMPLE,) = load_file(EXAMPLE_FILE)
(PRIMARY,) = load_file(PRIMARY_FILE)
# Other tests count the registered protocols: these are handed around by hand.
del PROTOCOLS[EXAMPLE.name], PROTOCOLS[PRIMARY.name]
