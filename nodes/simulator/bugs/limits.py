"""Limits that are passed, or that end a message too soon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from nodes.protocols.gossip import Gossip, Record
from nodes.protocols.quorum_register import Difference, Digest, QuorumRegister
from nodes.simulator.bugs import Bug


class TwoMessagesInOne(Gossip):
    """Records of two messages go in one, however large they are."""

    def _portions(self, keys: Sequence[str]) -> Iterator[dict[str, Record]]:
        portions = super()._portions(keys)
        for records in portions:
            yield {**records, **next(portions, {})}


class TwiceTheKeys(QuorumRegister):
    """A message tells the versions of twice as many keys as it may."""

    def on_digest(self, src: str, msg: Digest) -> None:
        self._digest._keys_per_message = 2 * self.parameters.digest_keys + 1
        super().on_digest(src, msg)


class NothingMore(QuorumRegister):
    """When all differences are told a message follows that tells nothing."""

    def on_digest(self, src: str, msg: Digest) -> None:
        before = len(self.out.sends)
        super().on_digest(src, msg)
        if len(self.out.sends) > before + 1:
            self.out.send(src, Difference((), {}))


class PagesAreOneKeyTooLong(QuorumRegister):
    """A page of a transfer has a key more than it may."""

    def range_page(self, key_range: int, after: str) -> tuple[str | None, tuple[bytes, ...]]:
        limits = self.limits
        self.limits = replace(limits, page_keys=limits.page_keys + 1)
        try:
            return super().range_page(key_range, after)
        finally:
            self.limits = limits


_TRANSFER = "Lamport, Malkhi, Zhou 2009, section 2: state transfer"
_EXCHANGE = "Demers et al. 1987, section 1.3: what an exchange costs"
BUGS = (
    Bug(
        name="gossip-two-messages-in-one",
        protocol="gossip",
        replica=TwoMessagesInOne,
        source=_EXCHANGE,
    ),
    Bug(
        name="quorum-tells-of-twice-the-keys",
        protocol="quorum",
        replica=TwiceTheKeys,
        source=_EXCHANGE,
    ),
    Bug(
        name="quorum-tells-of-nothing-more",
        protocol="quorum",
        replica=NothingMore,
        source=_EXCHANGE,
    ),
    Bug(
        name="recovery-pages-are-too-long",
        protocol="quorum-placed",
        replica=PagesAreOneKeyTooLong,
        source=_TRANSFER,
    ),
)
