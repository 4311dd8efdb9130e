"""What is known of one flow that the kernel made."""

from __future__ import annotations

from ztunnel.errors import Denied
from ztunnel.model.address import parse_endpoint
from ztunnel.model.connection import Connection
from ztunnel.outbound.kernel_flow import KernelFlow
from ztunnel.redirect.records import RecordRole

ENDS = parse_endpoint("10.0.0.1:4000"), parse_endpoint("10.0.0.2:80")


def made(destroyed: list[KernelFlow] | None = None) -> KernelFlow:
    destroy = [] if destroyed is None else destroyed
    return KernelFlow(destroy.append, b"key", Connection(*ENDS, None), ("a", "b"))


def test_the_first_socket_named_for_an_end_is_its_own() -> None:
    flow = made()
    assert flow.ends == ENDS
    assert flow.belongs(RecordRole.CLIENT, 7)
    assert flow.belongs(RecordRole.SERVER, 8)
    assert flow.belongs(RecordRole.CLIENT, 7)
    assert not flow.belongs(RecordRole.CLIENT, 8)


def test_either_end_tells_what_went_both_ways_and_less_changes_nothing() -> None:
    flow = made()
    flow.measure(RecordRole.CLIENT, 10)
    flow.measure(RecordRole.SERVER, 2000, 5)
    assert (flow.counts.up, flow.counts.down) == (10, 2000)
    flow.measure(RecordRole.CLIENT, 9, 2001)
    assert (flow.counts.up, flow.counts.down) == (10, 2001)


def test_a_flow_that_is_refused_is_destroyed_and_remembers_why() -> None:
    destroyed: list[KernelFlow] = []
    flow, denied = made(destroyed), Denied("no")
    flow.abort(denied)
    assert destroyed == [flow]
    assert flow.condemned is denied
