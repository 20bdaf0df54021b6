"""Every check of `checks.py` on every registered protocol, and on one that a user adds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodes.registry import PROTOCOLS, Protocol
from tests.conformance.checks import CHECKS
from tests.conformance.example import EXAMPLE

EVERY = [*PROTOCOLS.values(), EXAMPLE]


@pytest.mark.parametrize("protocol", EVERY, ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_protocol(check: Callable[[Protocol], None], protocol: Protocol) -> None:
    check(protocol)
