"""Failure detectors, measured: heartbeats and nothing else.

Begin with `nodes.protocols.detector.replica`."""

from __future__ import annotations

from nodes.protocols.detector.invariants import SuspicionFallsSlowly
from nodes.protocols.detector.knobs import KNOBS
from nodes.protocols.detector.pace import pace
from nodes.protocols.detector.parameters import DetectorParameters, labels
from nodes.protocols.detector.replica import Detector

__all__ = ["KNOBS", "Detector", "DetectorParameters", "SuspicionFallsSlowly", "labels", "pace"]
