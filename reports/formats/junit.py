"""JUnit XML for CI servers: one suite per run, one case per claim and objective.

kept: a case that passed. broken: a ``failure``. unknown: an ``error``, since CI must not take it
for a pass. not measured: ``skipped``. The format is that of Jenkins and pytest:
testsuites/testsuite/testcase with counts, times in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from bench.record.printable import escaped_lines
from reports.data.cases import Case, RunCases

_ELEMENTS = {"broken": "failure", "unknown": "error", "not measured": "skipped"}


def junit(runs: Sequence[RunCases]) -> str:
    """The document as text."""
    root = ET.Element(
        "testsuites", {"name": "capbench", **_counts([c for r in runs for c in r.cases])}
    )
    for run in runs:
        summary = run.summary
        suite = ET.SubElement(
            root,
            "testsuite",
            {
                "name": _text(run.name),
                **_counts(run.cases),
                "time": f"{run.seconds:.3f}",
                "timestamp": _text(run.started_utc[: len("2026-11-26T10:41:02")]),
            },
        )
        properties = ET.SubElement(suite, "properties")
        for name in ("experiment", "protocol", "target", "seed", "folder", "simulated"):
            value = _text(str(getattr(summary, name)))
            ET.SubElement(properties, "property", {"name": name, "value": value})
        for name, figure in run.figures.items():
            ET.SubElement(properties, "property", {"name": name, "value": _text(figure)})
        for case in run.cases:
            _case(suite, f"{summary.experiment}.{summary.protocol}", case)
        if summary.missing:
            ET.SubElement(suite, "system-out").text = _text("\n".join(summary.missing))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(suite: ET.Element, classname: str, case: Case) -> None:
    attributes = {"classname": _text(classname), "name": _text(case.name), "time": "0"}
    element = ET.SubElement(suite, "testcase", attributes)
    if case.ending == "kept":
        ET.SubElement(element, "system-out").text = _text(case.evidence)
        return
    message = {"message": _text(case.evidence)}
    kind = {} if case.ending == "not measured" else {"type": case.ending}
    ET.SubElement(element, _ELEMENTS[case.ending], message | kind).text = _text(case.evidence)


def _counts(cases: Sequence[Case]) -> dict[str, str]:
    endings = [case.ending for case in cases]
    return {
        "tests": str(len(endings)),
        "failures": str(endings.count("broken")),
        "errors": str(endings.count("unknown")),
        "skipped": str(endings.count("not measured")),
    }


def _text(text: str) -> str:
    """``text`` without characters that XML forbids or that could upset a terminal."""
    return escaped_lines(text)
