"""A connection to PostgreSQL, in its protocol (3.0, extended queries), and what its errors say of a
transaction."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from bench.record.cluster_file import Address
from chaos.systems.connection import Connection
from chaos.systems.system import NotApplied

Row: TypeAlias = tuple[str | None, ...]
VERSION = 3 << 16
UNCERTAIN = ("08", "40003", "57P", "58", "XX")
"""SQLSTATE classes of errors that say nothing certain: the connection, a completion that is not
known, the server going down, its system, its own defects. Any other ERROR has rolled back."""
IN_THE_WAY = ("40001", "40P01")
"""SQLSTATE of a serialization failure and of a deadlock: another transaction is the reason."""

STARTING = "57P03"
"""SQLSTATE of a server that takes no sessions yet, or no more."""


class PostgresError(OSError):
    """An error that PostgreSQL answered. ``state``: its SQLSTATE."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.state = fields.get("C", "")
        self.severity = fields.get("V", fields.get("S", ""))
        super().__init__(f"{self.severity} {self.state}: {fields.get('M', '')}")

    @property
    def has_rolled_back(self) -> bool:
        """Whether the transaction in which it was said is certainly not committed."""
        return self.severity == "ERROR" and not self.state.startswith(UNCERTAIN)


class Unreplicated(OSError):
    """The server stopped waiting for its standbys: committed here, and perhaps nowhere else."""


class PostgresConnection(Connection):
    """One session. ``parameters``: what the server said of itself when it began. ``settings`` hold
    for the session. Raises NotApplied if there is no connection, or no session: nothing was asked
    yet."""

    def __init__(
        self, address: Address, user: str, settings: Mapping[str, str], timeout_s: float
    ) -> None:
        self.parameters: dict[str, str] = {}
        super().__init__(address, timeout_s)
        try:
            words = {"user": user, "database": "postgres", **settings}
            pairs = b"".join(_text(word) for pair in words.items() for word in pair)
            body = struct.pack(">i", VERSION) + pairs + b"\0"
            self._socket.sendall(struct.pack(">i", len(body) + 4) + body)
            self._answer()
        except OSError as error:
            self.close()
            raise NotApplied(f"not sent: no session: {error}") from error

    @property
    def in_recovery(self) -> bool:
        """Whether it was a standby when the session began (since PostgreSQL 14)."""
        return self.parameters.get("in_hot_standby") == "on"

    def ask(self, statement: str, *values: str | None) -> list[Row]:
        """The rows of one statement, which is a transaction of its own unless one was begun. Its
        ``values`` are texts. Raises PostgresError, Unreplicated, OSError."""
        self._socket.sendall(_asked(statement, values))
        return self._answer()

    def _answer(self) -> list[Row]:
        """Until the server is ready for the next request. An error that ends the session is raised
        at once."""
        rows: list[Row] = []
        failed: OSError | None = None
        for kind, body in self._messages():
            match kind:
                case b"D":
                    rows.append(_row(body))
                case b"S":
                    name, value = body[:-1].decode().split("\0")
                    self.parameters[name] = value
                case b"N" if _fields(body).get("V") == "WARNING":
                    failed = failed or Unreplicated(_fields(body).get("M", ""))
                case b"E":
                    failed = PostgresError(_fields(body))
                    if failed.severity != "ERROR":
                        raise failed
                case b"R" if struct.unpack(">i", body[:4])[0]:
                    raise ConnectionError("the server wants a password")
                case b"Z":
                    break
        if failed is not None:
            raise failed
        return rows

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            head = self._answers.read(5)
            length = struct.unpack(">i", head[1:])[0] - 4 if len(head) == 5 else -1
            body = self._answers.read(length) if length > 0 else b""
            if length < 0 or len(body) < length:
                raise ConnectionError("the connection ended in an answer")
            yield head[:1], body


def _asked(statement: str, values: Sequence[str | None]) -> bytes:
    """Parse, bind, execute and sync, in one."""
    bound = b"".join(
        struct.pack(">i", -1)
        if value is None
        else struct.pack(">i", len(value.encode())) + value.encode()
        for value in values
    )
    return b"".join(
        (
            _message(b"P", b"\0" + _text(statement) + struct.pack(">h", 0)),
            _message(b"B", b"\0\0" + struct.pack(">hh", 0, len(values)) + bound + b"\0\0"),
            _message(b"E", b"\0" + struct.pack(">i", 0)),
            _message(b"S", b""),
        )
    )


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


def _text(word: str) -> bytes:
    return word.encode() + b"\0"


def _fields(body: bytes) -> dict[str, str]:
    """Of an error or a notice, by their letters."""
    parts = body.decode(errors="replace").split("\0")
    return {part[0]: part[1:] for part in parts if part}


def _row(body: bytes) -> Row:
    (count,) = struct.unpack_from(">h", body)
    found: list[str | None] = []
    at = 2
    for _ in range(count):
        (length,) = struct.unpack_from(">i", body, at)
        at += 4
        found.append(None if length < 0 else body[at : at + length].decode())
        at += max(length, 0)
    return tuple(found)
