"""What nodes of the quorum register make of each other's anti-entropy, judged as it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from nodes.contract.replica import InvariantBroken, Send
from nodes.parts.key_digest import ExchangesAreExact, PartnersAreRandom
from nodes.protocols.quorum_register.messages import NOTHING, Difference, Digest, Pull, Push


class RegisterPartners(PartnersAreRandom):
    """See `PartnersAreRandom`."""

    hears: ClassVar = {Digest: "on_begin"}


class RegisterExchanges(ExchangesAreExact):
    """See `ExchangesAreExact`."""

    judges: ClassVar = {Digest: "on_digest", Difference: "on_difference", Pull: "on_pull"}
    pull = Pull
    push = Push

    def characters(self, record: Any) -> int:
        """See `ExchangesAreExact`."""
        return 100 + len(str(record.value))

    def on_digest(self, replica: Any, src: str, msg: Digest, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        if not self.is_due():
            return
        buckets = {b for s in sends if type(s.msg) is Difference for b in s.msg.buckets}
        if buckets:
            held = self.held(replica.disk, buckets, replica.parameters.buckets)
            right = {key: record.version for key, record in held.items()}
            self.compare(replica.id, "tells of", self.told(sends, Difference, "versions"), right)
            self.check_differences(replica.id, sends, Difference, "versions")
        if buckets and replica.recovery is None:
            hashes = zip(replica._digest.hashes, msg.hashes, strict=True)
            differing = {number for number, (a, b) in enumerate(hashes) if a != b}
            if buckets != differing:
                raise InvariantBroken(f"{replica.id} tells of {buckets}, and {differing} differ")

    def on_difference(self, replica: Any, src: str, msg: Difference, sends: Sequence[Send]) -> None:
        """Raises InvariantBroken."""
        if not self.is_due():
            return
        theirs, disk = msg.versions, replica.disk
        held = self.held(disk, set(msg.buckets), replica.parameters.buckets)
        push = {k: r for k, r in held.items() if r.version > theirs.get(k, NOTHING)}
        self.compare_pushes(replica.id, sends, push)
        pull = set()
        for key, version in theirs.items():
            record = disk.get("k/" + key)
            if version > (NOTHING if record is None else record.version):
                pull.add(key)
        asked = self.pulled(sends)
        self.compare(replica.id, "pulls", dict.fromkeys(asked), dict.fromkeys(pull))
