from nodes.effects import Replica


class Raft(Replica): ...
