"""The branches that no seed of the simulator has to reach, and why."""

from __future__ import annotations

_REASONS: dict[str, tuple[str, ...]] = {
    "a client leaves thousands of answers unacknowledged: tests/protocols/test_raft.py": (
        "parts/replicated_map.py: ReplicatedMap.apply:"
        " len(session.replies) > 2 * self._client_replies",
    ),
    "no cluster is configured without a node": ("parts/quorum.py: majority: n < 1",),
    "no cluster is configured with times below 0: tests/nodes/test_failure_detector.py": (
        "parts/failure_detector.py: _positive: not (math.isfinite(value) and value > 0)",
    ),
    "a seed has three nodes or more: tests/protocols/test_paxos.py": (
        "paxos/replica.py: Paxos._ask_around: len(self._silent) >= self.majority",
        "paxos/replica.py: Paxos.end_step: not self._progress",
    ),
    "a seed has three nodes or more: tests/protocols/test_gossip.py": (
        "gossip/replica.py: Gossip.__init__: not: config.peers",
        "gossip/replica.py: Gossip._heat: not self.config.peers",
    ),
    "a seed has three nodes or more: tests/protocols/test_quorum_register.py": (
        "quorum_register/replica.py: QuorumRegister.__init__: not: config.peers",
    ),
    "no client asks for what is not offered: tests/protocols/test_gossip.py": (
        "gossip/replica.py: Gossip.on_request: kind not in ('read', 'write', 'delete')",
    ),
    "no client asks for what is not offered: tests/protocols/test_quorum_register.py": (
        "quorum_register/replica.py: QuorumRegister.on_request:"
        " request.operation.op not in ('read', 'write', 'delete')",
    ),
    "no client asks for what is not offered: tests/nodes/test_failure_detector.py": (
        "detector/replica.py: Detector.on_request",
    ),
    "where few hold a key no client asks twice: tests/protocols/test_recovery_gossip.py": (
        "gossip/replica.py: Gossip._forward: name in self._forwarding",
    ),
    "no client makes up the version that it has read: tests/protocols/test_nonsense.py": (
        "gossip/replica.py: Gossip._write: except ValueError",
        "gossip/replica.py: Gossip._past: not isinstance(context, dict) or not"
        " all((node in self._members and 0 <= counter <= max(highest, clock.get(node, 0))"
        " for node, counter in context.items()))",
        "gossip/replica.py: Gossip._past: context.get(self.id, 0) > clock.get(self.id, 0)",
        "gossip/replica.py: _parse_stamp: not: type(version) is list and len(version) == 3",
        "gossip/replica.py: _parse_stamp: not: type(milliseconds) is int and"
        " type(logical) is int and (type(node) is str) and"
        " (0 <= milliseconds < 1 << 46) and (0 <= logical < 1 << _LOGICAL_BITS)",
    ),
    "no node makes up what it sends: tests/protocols/test_nonsense.py": (
        "parts/key_digest.py: portions: record is None",
        "gossip/policies.py: KeepSiblings.problem: s.past.get(s.node, 0) >= s.counter",
        "gossip/policies.py: KeepSiblings.problem:"
        " (before.node, before.counter) >= (s.node, s.counter)",
        "gossip/policies.py: KeepSiblings.problem:"
        " len(siblings) > 1 and any((_is_seen(s, pasts) for s in siblings))",
        "gossip/replica.py: Gossip._absorb: except BadMessage",
        "quorum_register/replica.py: _tag: not: type(counter) is int and"
        " type(node) is str and (type(sequence) is int)",
    ),
    "nothing is lost in a merge, and no dot names two versions: tests/protocols/test_gossip.py": (
        "gossip/policies.py: KeepSiblings.missing: not _is_seen(s, present)",
        "gossip/policies.py: KeepSiblings.missing: s not in present and (not _is_seen(s, present))",
        "gossip/policies.py: LastWriteWins.missing:"
        " s not in present and (not any((cls.supersedes(t, s) for t in present)))",
    ),
    "what merges are held against: tests/protocols/test_gossip.py": (
        "gossip/policies.py: KeepSiblings.supersedes",
    ),
    "what clocks are held against: tests/protocols/test_vector_clock.py": (
        "parts/vector_clock.py: compare",
        "parts/vector_clock.py: compare: less",
        "parts/vector_clock.py: compare: not: less",
    ),
    "all nodes have the same parameters: tests/protocols/test_gossip.py": (
        "gossip/replica.py: Gossip.on_digest: except ValueError",
    ),
    "all nodes have the same parameters: tests/protocols/test_quorum_register.py": (
        "quorum_register/replica.py: QuorumRegister.on_digest: except ValueError",
    ),
    "all nodes have the same parameters: tests/protocols/test_recovery.py": (
        "parts/placement.py: Placements.on_placement_numbers:"
        " len(msg.numbers) != self.ranges or len(msg.complete) != self.ranges",
    ),
    "nobody watches a node that is none: tests/nodes/test_failure_detector.py": (
        "parts/failure_detector.py: FailureDetector.heartbeat: node not in self._suspected",
    ),
    "for strategies of others: tests/protocols/test_recovery.py": (
        "parts/recovery.py: register_recovery_strategy",
        "parts/recovery.py: register_recovery_strategy: failure_type not in _STRATEGIES",
        "parts/recovery.py: register_recovery_strategy: not: failure_type not in _STRATEGIES",
    ),
}
"""Reason -> names of branches (`chaos.seeds.branches.Branch`)."""

UNREACHED: dict[str, str] = {name: why for why, names in _REASONS.items() for name in names}
