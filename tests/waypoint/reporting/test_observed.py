"""What is noted of an exchange."""

from __future__ import annotations

from ztunnel.l7.reply import TERMINATED
from ztunnel.l7.request import Request
from ztunnel.waypoint.reporting.observed import Observed

GRPC = [(b"content-type", b"application/grpc")]


def test_bytes_messages_and_ends_are_noted() -> None:
    one = Observed(Request(b"POST", b"a", b"/", GRPC), 5.0)
    one.note_received(memoryview(b"\0\0\0\0\1x"))
    one.note_sent(memoryview(b"\0\0\0\0\1x\0\0\0\0\0"))
    assert (one.received_bytes, one.sent_bytes) == (6, 11)
    assert one.received_messages is not None
    assert one.sent_messages is not None
    assert (one.received_messages.count, one.sent_messages.count) == (1, 2)
    one.note_grpc(((b"grpc-status", b"13"),))
    assert one.grpc_status == "13"
    one.note_end(TERMINATED, ["URX", "DI"])
    assert (one.flag, one.details) == ("URX,DI,UC", TERMINATED.details)


def test_interim_responses_have_a_limit() -> None:
    one = Observed(Request(b"GET", b"a", b"/", []), 0.0)
    assert one.received_messages is None
    assert all(one.note_interim() for _ in range(100))
    assert not one.note_interim()
