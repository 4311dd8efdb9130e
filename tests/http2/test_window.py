"""When the peer is told that it may send more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.http2.window import ReceiveWindow


def test_the_peer_is_told_at_half_of_the_window() -> None:
    window = ReceiveWindow(100)
    window.left_bytes -= 50
    assert window.take(49) == 0
    assert window.take(1) == 50
    assert window.left_bytes == 100


def test_the_peer_is_told_sooner_when_it_has_little_left() -> None:
    window = ReceiveWindow(100)
    window.left_bytes -= 90  # 80 of them stay with a slow reader
    assert window.take(9) == 0
    assert window.take(1) == 10
    assert window.left_bytes == 20
    window.left_bytes -= 20
    assert window.take(1) == 1


def test_a_window_that_shrinks_may_be_overdrawn() -> None:
    window = ReceiveWindow(100)
    window.left_bytes -= 60
    assert window.shrink(90) == 0
    assert (window.left_bytes, window.size_bytes) == (-50, 10)
    assert window.take(60) == 60
    assert window.left_bytes == 10
    window = ReceiveWindow(100)
    window.left_bytes -= 40
    assert window.take(40) == 0
    assert window.shrink(90) == 40
    assert window.left_bytes == 10


@given(st.lists(st.integers(0, 30)))
def test_the_peer_may_never_send_more_than_the_window(counts: list[int]) -> None:
    window, held = ReceiveWindow(100), 0
    for count in counts:
        sent = min(count, window.left_bytes)
        window.left_bytes -= sent
        held += sent
        assert window.left_bytes + window.taken_bytes + held == 100
        window.take(held)
        held = 0
    assert window.left_bytes > 50
