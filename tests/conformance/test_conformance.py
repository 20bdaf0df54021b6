"""Every check of `checks.py` on every registered protocol, and on the examples of one that a
user adds. With ``CAPBENCH_PROTOCOL=path/to/my.py`` it is yours instead of the examples."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from nodes.registry import PROTOCOLS, Protocol, load_file
from tests.conformance.checks import CHECKS
from tests.conformance.example import EXAMPLE, PRIMARY

pytestmark = pytest.mark.long

OWN = os.environ.get("CAPBENCH_PROTOCOL")
EVERY = [*PROTOCOLS.values(), *(load_file(OWN) if OWN else [EXAMPLE, PRIMARY])]


@pytest.mark.parametrize("protocol", EVERY, ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_protocol(check: Callable[[Protocol], None], protocol: Protocol) -> None:
    check(protocol)
