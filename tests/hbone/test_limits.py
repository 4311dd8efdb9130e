"""The ledger says when there is no room for more streams."""

from __future__ import annotations

from ztunnel.hbone.limits import Ledger, Limits


def test_the_ledger_is_full_at_its_limit() -> None:
    ledger = Ledger(Limits(buffered_bytes=100))
    assert not ledger.full
    ledger.buffered_bytes = 100
    assert ledger.full


def test_the_numbers_on_the_wire_are_those_of_ztunnel_but_for_smaller_requests() -> None:
    limits = Limits()
    assert (limits.stream_window_bytes, limits.session_window_bytes, limits.frame_bytes) == (
        4 << 20,
        16 << 20,
        1 << 20,
    )
    assert (limits.open_streams, limits.accept_streams) == (100, 200)
    assert (limits.response_header_bytes, limits.request_header_bytes) == (16 << 10, 16 << 10)
