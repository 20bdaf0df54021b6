"""Whether a request to one of our pages comes from the page itself.

A browser sends requests for any open page. A foreign page can post to 127.0.0.1 (its Origin is that
page), and it can resolve its own name to 127.0.0.1 and then also read the answers (DNS rebinding;
the Host is that name).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Protocol
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAMES_VARIABLE = "CAPBENCH_PAGE_NAMES"


class Headers(Protocol):
    """The headers of a request, by case-insensitive name."""

    def get(self, name: str, /) -> str | None:
        """The value; None if the header is missing."""


def more_names() -> list[str]:
    """Further names of this machine that pages answer to, from the environment."""
    return [name.strip() for name in os.environ.get(NAMES_VARIABLE, "").split(",") if name.strip()]


def refusal(method: str, headers: Headers, names: Collection[str] = LOOPBACK) -> str | None:
    """Why a request is refused; None: it is our own. Clients other than browsers send neither
    Origin nor Sec-Fetch-Site. ``names``: the host names that the page answers to."""
    host = headers.get("Host") or ""
    if _name(host) not in names:
        return f"this page answers to {', '.join(names)} only"
    origin = headers.get("Origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return "the request comes from a page of another origin"
    if (headers.get("Sec-Fetch-Site") or "none") not in ("none", "same-origin"):
        how = (method, headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest"))
        if how != ("GET", "navigate", "document"):  # Links may be followed from anywhere.
            return "the request comes from a page of another site"
    return None


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname if "@" not in host else None
    except ValueError:
        return None
