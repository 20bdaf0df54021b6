"""Requests on their way to a leader, and the cutting of messages; see also the tests of Raft."""

from __future__ import annotations

import msgspec

from nodes.contract.disk import Disk
from nodes.contract.replica import Operation, Out, Request
from nodes.parts.forwarding import Forward, Requests, batches


class Limits(msgspec.Struct, frozen=True):
    retry_s: float = 0.5
    request_timeout_s: float = 0.5
    remembered_refusals: int = 5
    batch_entries: int = 3
    batch_bytes: int = 100


def write(sequence: int, client: str = "c") -> Request:
    return Request(client, sequence, Operation("write", "k", sequence))


def new(disk: Disk | None = None) -> tuple[Requests, Out]:
    disk = disk or Disk()
    out = Out(disk)
    return Requests("n1", disk, out, Limits()), out


def test_batches_are_bounded_in_number_and_bytes_and_never_empty() -> None:
    def cut(sizes: list[int]) -> list[list[int]]:
        return [list(batch) for batch in batches(sizes, lambda size: size, Limits())]

    assert cut([]) == []
    assert cut([1] * 7) == [[1, 1, 1], [1, 1, 1], [1]]
    assert cut([60, 40, 1, 60]) == [[60, 40], [1, 60]]
    assert cut([500, 1, 500]) == [[500], [1], [500]]


def test_a_leader_that_is_one_no_more_forwards_its_own_clients_only() -> None:
    """Others hand theirs on themselves; it may not wait for what it cannot answer."""
    requests, out = new()
    requests.take(write(1))
    requests.take_forwarded("n2", [write(7, "other")])
    requests.forward("n3")
    assert [(send.dst, send.msg) for send in out.sends] == [("n3", Forward((write(1),)))]
    assert requests.arrived == []


def test_a_refused_request_stays_refused_and_the_oldest_are_forgotten() -> None:
    disk = Disk()
    requests, out = new(disk)
    most = Limits().remembered_refusals
    for sequence in range(most + 1):
        requests.take(write(sequence))
    requests.forward(None)
    requests.on_timer()
    assert {reply.outcome for _, reply in out.replies} == {"fail"}
    assert all(position > reply.sequence for position, reply in out.replies), "durable before"
    for again, told in ((requests, out), new(Disk.replay(disk.take()))):
        told.replies.clear()
        for sequence in (0, 1, most):
            again.take(write(sequence))
        assert [reply.sequence for _, reply in told.replies] == [1, most]
        assert list(again.waiting) == [("c", 0)]


def test_a_read_that_is_refused_costs_no_write() -> None:
    disk = Disk()
    requests, out = new(disk)
    requests.take(Request("c", 1, Operation("read", "k")))
    requests.forward(None)
    requests.on_timer()
    assert [reply.outcome for _, reply in out.replies] == ["fail"]
    assert disk.position == 0
