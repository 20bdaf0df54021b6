"""The MQTT topics of a cluster. Every room that names a topic takes it from here."""

from __future__ import annotations


class Topics:
    """Topic names below ``capbench/<cluster>``. ``node``, ``src``, ``dst`` are node ids
    (``n1``)."""

    def __init__(self, cluster: str) -> None:
        self.root = f"capbench/{cluster}"

    def link(self, src: str, dst: str) -> str:
        """Protocol messages on the directed link from ``src`` to ``dst``."""
        return f"{self.root}/net/{src}/{dst}"

    def inbox(self, dst: str) -> str:
        """Filter for all links that end at ``dst``."""
        return f"{self.root}/net/+/{dst}"

    def request(self, node: str) -> str:
        """Requests of clients to ``node``."""
        return f"{self.root}/req/{node}"

    def request_from(self, node: str, group: str, client: str) -> str:
        """Requests of our own clients where the broker does not know MQTT 5, and so no Response
        Topic: the topic says who asks, and the reply goes to `reply`."""
        return f"{self.request(node)}/{group}/{client}"

    def reply(self, group: str, client: str) -> str:
        """Replies to one client process of a client group."""
        return f"{self.root}/rep/{group}/{client}"

    def control(self, node: str) -> str:
        """Commands of the runner to ``node``. Nobody else may publish here."""
        return f"{self.root}/ctl/{node}"

    def status(self, node: str) -> str:
        """What ``node`` tells of itself: status and events. ``+`` for all nodes."""
        return f"{self.root}/status/{node}"

    @property
    def faults(self) -> str:
        """The faults that are on, as the runner tells (retained)."""
        return f"{self.root}/faults"
