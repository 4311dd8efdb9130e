"""The limits, and the ledger of what all sessions hold."""

from __future__ import annotations

from ztunnel.hbone.limits import Ledger, Limits


def test_a_ledger_holds_as_many_bytes_as_its_limits_say() -> None:
    ledger = Ledger(Limits(buffered_bytes=0))
    assert ledger.held.refuses("pod", "source")
    assert not Ledger().held.refuses("pod", "source")
    assert ledger.buffered_bytes == 0


def test_the_numbers_on_the_wire_are_those_of_ztunnel_but_for_smaller_requests() -> None:
    limits = Limits()
    assert (limits.stream_window_bytes, limits.session_window_bytes, limits.frame_bytes) == (
        4 << 20,
        16 << 20,
        1 << 20,
    )
    assert (limits.open_streams, limits.accept_streams) == (100, 200)
    assert (limits.response_header_bytes, limits.request_header_bytes) == (16 << 10, 16 << 10)
