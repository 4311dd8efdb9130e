"""Last bytes that nobody takes."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.flow.driving import Clock, drive
from ztunnel.flow.engine import Engine

Pair = Callable[[], tuple[socket.socket, socket.socket]]


def test_what_moves_is_not_given_up_and_what_stands_still_is(
    engine: Engine, clock: Clock, pair: Pair
) -> None:
    sock, moved, given_up = pair()[0], [0], []

    def give_up() -> None:
        given_up.append(1)
        engine.let_go(sock)

    engine.last_words.watch(sock, lambda: moved[0], give_up)
    engine.last_words.watch(sock, lambda: moved[0], give_up)
    for _ in range(30):
        moved[0] += 1
        clock.move(5)
        drive(engine)
    assert given_up == []
    for _ in range(12):
        assert given_up == []
        clock.move(5)
        drive(engine)
    assert given_up == [1]
    clock.move(5)
    drive(engine)
    assert len(engine.last_words) == 0
    assert engine.next_timer == float("inf")


def test_what_is_over_is_not_given_up(engine: Engine, clock: Clock, pair: Pair) -> None:
    sock, given_up = pair()[0], []
    engine.last_words.watch(sock, lambda: 0, lambda: given_up.append(1))
    engine.let_go(sock)
    engine.let_go(None)
    clock.move(5)
    drive(engine)
    assert (given_up, engine.next_timer) == ([], float("inf"))
