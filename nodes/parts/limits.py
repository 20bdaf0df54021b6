"""How much of many keys goes into one message or one step, and what is remembered of clients."""

from __future__ import annotations

from nodes.contract.replica import Parameters

LOG_LIMITS = (
    *("batch_entries", "batch_bytes", "window_batches"),
    *("snapshot_entries", "client_entries", "client_replies", "remembered_refusals"),
)
"""The parameters of protocols that agree on a log that are at least 1."""
_FRAME_LIMITS = ("message_characters", "digest_keys", "page_bytes")
"""Those whose defaults are as much as fits a frame."""


class KeyLimits(Parameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The limits of protocols that hold each key on its own; every one is at least 1.

    A message with records ends after the one that exceeds ``message_characters`` (keys and values,
    so it fits a frame, however many bytes a character has); a `KeyDigest` tells the versions of
    ``digest_keys`` keys in a message, about, and hashes what changed when ``digest_touched`` keys
    have (so many take some 10 ms: no step shall take much longer). A page of a transfer ends after
    ``page_keys`` keys, or after the one that exceeds ``page_bytes``. Remembered are
    ``remembered_results`` results of each of the last ``remembered_clients`` clients that wrote, or
    of fewer, if these have more than ``remembered_in_all``: some 1 KB each."""

    message_characters: int = 250_000
    digest_keys: int = 2000
    digest_touched: int = 5000
    page_keys: int = 500
    page_bytes: int = 64 * 1024
    remembered_clients: int = 4096
    remembered_results: int = 1024
    remembered_in_all: int = 32 * 1024

    def check_limits(self) -> None:
        """Raises ValueError for a limit that nothing fits, or that does not fit a frame."""
        for name in KeyLimits.__struct_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
        for name in _FRAME_LIMITS:
            most = getattr(_DEFAULTS, name)
            if getattr(self, name) > most:
                raise ValueError(f"{name} is at most {most}, not {getattr(self, name)}")


_DEFAULTS = KeyLimits()
