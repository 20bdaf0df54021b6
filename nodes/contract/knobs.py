"""Which parameters of a protocol vary from seed to seed (swarm testing).

Rare code runs often only if a knob makes it common: tiny snapshots, batches of one, election
timeouts so close together that votes split. Each entry is a list of alternatives, each a few
parameters that fit together; a seed takes one of each list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Knobs: TypeAlias = Sequence[Sequence[Mapping[str, Any]]]

DEFAULT: Mapping[str, Any] = {}
"""The alternative that changes nothing."""
