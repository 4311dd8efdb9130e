"""What is remembered of header blocks that come again."""

from __future__ import annotations

from ztunnel.http2.fields import Fields
from ztunnel.http2.repeats import Repeats


def fields(value: bytes) -> Fields:
    return ((b"x", value),)


def test_it_is_known_by_the_object_and_not_by_what_that_says() -> None:
    repeats: Repeats[int] = Repeats()
    one, same = fields(b"1"), (*fields(b"1"),)
    assert repeats.get(one) is None
    assert repeats.keep(one, 7) == repeats.get(one) == 7
    assert one == same
    assert repeats.get(same) is None


def test_it_does_not_pile_up_and_nobody_gets_what_was_worked_out_of_others() -> None:
    repeats: Repeats[int] = Repeats()
    for number in range(1000):
        each = fields(b"%d" % number)
        assert repeats.get(each) is None
        repeats.keep(each, number)
        assert repeats.get(each) == number
        assert len(repeats._kept) <= 16
