"""The MQTT topics of a cluster. Every room that names a topic takes it from here."""

from __future__ import annotations

from collections.abc import Collection

FREE_REPLIES = "reply"
"""First level of the reply topics of clients that are not ours."""
MAX_TOPIC = 1024


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

    def is_reply(self, topic: object, groups: Collection[str] = ()) -> bool:
        """Whether an answer may go to ``topic``: a `reply` of this cluster (to one of ``groups``,
        if there are any), or ``reply/...``, which is for clients of any kind. No other topic is
        one, lest whoever asks makes a node speak where only nodes may."""
        if not isinstance(topic, str) or len(topic) > MAX_TOPIC or set("+#\0") & set(topic):
            return False
        levels = topic.split("/")
        if "" in levels:
            return False
        if levels[0] == FREE_REPLIES:
            return len(levels) > 1
        if len(levels) < 2 or topic != self.reply(*levels[-2:]):
            return False
        return not groups or levels[-2] in groups

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
