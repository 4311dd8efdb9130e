"""A body that waits, is sent, and is sent again; nothing of it is lost or doubled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.waypoint.exchange.kept import MOST_BYTES, KeptBody


def sent(body: KeptBody) -> tuple[bytes, int]:
    """All that waits, and how many bytes of it the client is to be told of."""
    parts, untold = [], 0
    while body.waits:
        part, more = body.next()
        parts.append(part)
        untold += more
    return b"".join(parts), untold


def test_what_waits_is_sent_once_where_it_is_not_kept() -> None:
    body = KeptBody()
    body.wait(memoryview(b"abc"))
    body.wait(memoryview(b"de"))
    assert body.untaken == 5
    assert sent(body) == (b"abcde", 5)
    assert not body.whole
    assert body.untaken == 0
    body.rewind()
    assert not body.waits


def test_what_is_kept_is_sent_again_and_told_once() -> None:
    body = KeptBody(keeps=True)
    body.wait(memoryview(b"abc"))
    assert sent(body) == (b"abc", 3)
    body.sent(memoryview(b"def"))
    body.rewind()
    body.wait(memoryview(b"ghi"))
    assert sent(body) == (b"abcdefghi", 3)
    assert body.whole
    body.rewind()
    assert sent(body) == (b"abcdefghi", 0)


def test_a_body_that_is_too_long_is_sent_once() -> None:
    body = KeptBody(keeps=True)
    body.sent(memoryview(bytes(MOST_BYTES)))
    assert body.whole
    body.sent(memoryview(b"x"))
    assert not body.whole
    body = KeptBody(keeps=True)
    body.wait(memoryview(bytes(MOST_BYTES + 1)))
    assert sent(body) == (bytes(MOST_BYTES + 1), MOST_BYTES + 1)
    assert not body.whole


def test_nothing_sent_is_nothing_lost() -> None:
    body = KeptBody()
    assert body.whole
    body.sent(memoryview(b"x"))
    assert not body.whole


def test_what_nobody_was_told_of_is_known_at_the_end() -> None:
    body = KeptBody(keeps=True)
    body.wait(memoryview(b"abc"))
    body.next()
    body.wait(memoryview(b"de"))
    assert body.waiting() == [b"de"]
    assert body.clear() == 2
    assert body.clear() == 0


actions = st.lists(st.sampled_from(["wait", "sent", "send", "rewind"]), max_size=30)


@given(actions, st.booleans())
def test_any_order_sends_the_whole_body_each_time(steps: list[str], keeps: bool) -> None:
    body, given, told, received = KeptBody(keeps), bytearray(), 0, bytearray()
    for number, step in enumerate(steps):
        octet = bytes((number,))
        if step == "sent" and not body.waits:
            body.sent(memoryview(octet))
            given += octet
            received += octet
            told += 1
        elif step == "wait":
            body.wait(memoryview(octet))
            given += octet
        elif step == "rewind" and body.whole:
            body.rewind()
            received.clear()
        elif step == "send":
            octets, untold = sent(body)
            received += octets
            told += untold
    octets, untold = sent(body)
    assert received + octets == given
    assert told + untold == len(given)


def test_what_is_told_while_it_waits_is_told_once() -> None:
    body = KeptBody(keeps=True)
    body.wait(memoryview(b"abc"))
    assert (body.tell(), body.tell(), body.untaken) == (3, 0, 0)
    body.wait(memoryview(b"de"))
    assert sent(body) == (b"abcde", 2)
    body.rewind()
    assert sent(body) == (b"abcde", 0)
    assert body.clear() == 0
