from nodes.effects import Replica


class Gossip(Replica): ...
