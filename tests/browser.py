"""Pages as headless Chromium sees them."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import patience

_AXE = """
<script>%s</script>
<script>
axe.run().then(found => {
  const note = document.createElement("pre");
  note.id = "probe";
  note.textContent = JSON.stringify({passes: found.passes.map(each => each.id),
    violations: found.violations.map(each => [each.id, each.help,
      each.nodes.slice(0, 3).map(node => node.html.slice(0, 200) + node.failureSummary)])});
  document.body.append(note);
});
</script>
"""


def dom(url: str, folder: Path, *options: str) -> str:
    """The page at ``url`` after its scripts, as HTML. ``folder``: for the browser's own files."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        pytest.skip("no chromium on PATH: the page is not looked at (apt install chromium)")
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", f"--user-data-dir={folder / 'profile'}"),
        *(*options, "--dump-dom", url),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=patience(120), check=True
    ).stdout


def probe(page: str, script: str, folder: Path, *options: str) -> dict[str, Any]:
    """What a script tells that is added to a copy of the page: JSON in an element ``probe``."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    copy = folder / "probed.html"
    copy.write_text(page.replace("</body>", script + "</body>"), encoding="utf-8")
    told = re.search(
        r'<pre id="probe">(.*?)</pre>', dom(copy.as_uri(), folder, *options), re.DOTALL
    )
    assert told is not None, "the script came to no end"
    seen: dict[str, Any] = json.loads(html.unescape(told[1]))
    return seen


def axe(page: str, folder: Path, *options: str) -> dict[str, Any]:
    """What axe-core objects to (``violations``) and what it found in order (``passes``): WCAG 2 A
    and AA (names, roles, contrast), and best practices."""
    source = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    return probe(page, _AXE % source, folder, "--virtual-time-budget=60000", *options)
