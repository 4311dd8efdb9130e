"""Copies of a request hear what it hears."""

from __future__ import annotations

from ztunnel.waypoint.exchange.copies import Copies


class Written:
    """A copy that writes down."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def body(self, payload: memoryview) -> None:
        self.said.append(bytes(payload))

    def end(self, trailers: object) -> None:
        self.said.append(trailers)

    def give_up(self) -> None:
        self.said.append("given up")


def test_what_has_come_before_is_told_first() -> None:
    copies, one = Copies(), Written()
    copies.begin([one], [b"a", b"b"], ended=False, trailers=())
    copies.body(memoryview(b"c"))
    copies.end(((b"t", b"v"),))
    copies.leave(ended=True)
    copies.body(memoryview(b"d"))
    assert one.said == [b"a", b"b", b"c", ((b"t", b"v"),)]


def test_a_request_that_was_whole_before_is_whole() -> None:
    copies, one = Copies(), Written()
    copies.begin([one], [b"a"], ended=True, trailers=())
    assert one.said == [b"a", ()]
    copies, one = Copies(), Written()
    copies.begin([one], [], ended=True, trailers=())
    assert one.said == []  # it was begun so


def test_one_that_is_never_whole_is_given_up() -> None:
    copies, one = Copies(), Written()
    copies.begin([one], [], ended=False, trailers=())
    copies.leave(ended=False)
    assert one.said == ["given up"]
