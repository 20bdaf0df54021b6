"""What the simulator varies of the failure detectors from seed to seed."""

from __future__ import annotations

from nodes.contract.knobs import DEFAULT, Knobs

KNOBS: Knobs = [
    [
        DEFAULT,
        {
            "heartbeat_every_s": 0.2,
            "check_every_s": 0.1,
            "counting": [{"timeout_s": 0.5}],
            "phi": [
                {"min_deviation_s": 0.02, "acceptable_pause_s": 0.3},
                # So few samples that each is forgotten soon.
                {"min_deviation_s": 0.02, "acceptable_pause_s": 0.3, "window": 4},
            ],
        },
    ],
]
