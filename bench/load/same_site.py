"""Whether a request to a page of ours comes from the page itself.

A browser sends requests for any page that is open in it. A foreign one can post to 127.0.0.1 (the
request carries the foreign page as its Origin), and it can have its own name lead to 127.0.0.1 and
then read the answers, too (DNS rebinding; the request carries that name as its Host).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Protocol
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAMES_VARIABLE = "CAPBENCH_PAGE_NAMES"


class Headers(Protocol):
    """Those of a request, by name in any case."""

    def get(self, name: str, /) -> str | None:
        """The value; None: there is no such header."""


def more_names() -> list[str]:
    """Names of this machine by which pages may be asked for, from the environment."""
    return [name.strip() for name in os.environ.get(NAMES_VARIABLE, "").split(",") if name.strip()]


def refusal(method: str, headers: Headers, names: Collection[str] = LOOPBACK) -> str | None:
    """Why a request is refused; None: it is one of ours. A client that is no browser sends neither
    Origin nor Sec-Fetch-Site. ``names``: what the page may be asked by."""
    host = headers.get("Host") or ""
    if _name(host) not in names:
        return f"this page answers to {', '.join(names)} only"
    origin = headers.get("Origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return "a page of another origin asked"
    if (headers.get("Sec-Fetch-Site") or "none") not in ("none", "same-origin"):
        how = (method, headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest"))
        if how != ("GET", "navigate", "document"):  # A link may be followed from anywhere.
            return "a page of another site asked"
    return None


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname if "@" not in host else None
    except ValueError:
        return None
