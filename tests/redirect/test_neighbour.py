"""A program of somebody else's is before ours and shares its hook unless it is said otherwise."""

from __future__ import annotations

from ztunnel.redirect.neighbour import Placed


def test_what_is_not_said_is_harmless() -> None:
    one = Placed("connect4", "/", "cil_sock4", "7 (cil_sock4, loaded by uid 0)")
    assert (one.after, one.exclusive) == (False, False)
