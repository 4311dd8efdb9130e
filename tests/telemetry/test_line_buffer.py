"""Lines wait within a limit, and who waits for one is told of the first."""

from __future__ import annotations

from ztunnel.telemetry.line_buffer import URGENT_LINES, LineBuffer


def test_lines_wait_in_order_until_there_is_no_room() -> None:
    buffer = LineBuffer(2)
    assert [buffer.put(line) for line in "abc"] == [True, True, False]
    assert list(buffer.waiting) == ["a", "b"]
    buffer.waiting.popleft()
    assert buffer.put("d")
    assert list(buffer.waiting) == ["b", "d"]


def test_urgent_lines_have_places_of_their_own() -> None:
    buffer = LineBuffer(2)
    assert sum(buffer.put("x", urgent=True) for _ in range(2 * URGENT_LINES)) == 2 + URGENT_LINES
    assert not buffer.put("x")


def test_what_is_offered_and_dropped_is_counted() -> None:
    buffer = LineBuffer(1)
    for _ in range(4):
        buffer.offer("x")
    buffer.put("x")
    assert buffer.dropped == 3


def test_who_waits_is_told_once_of_a_line_that_was_taken() -> None:
    told: list[int] = []
    buffer = LineBuffer(2)
    buffer.on_line = lambda: told.append(len(buffer.waiting))
    buffer.put("a")
    buffer.put("b")
    assert told == [1]
    buffer.on_line = lambda: told.append(0)
    assert not buffer.put("c")
    assert told == [1]
