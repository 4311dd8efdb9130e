"""Messages: the same whatever pieces they come in, and what h11 reads out of them."""

from __future__ import annotations

import itertools
from contextlib import suppress

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.http1.framing import Framing
from ztunnel.http1.reader import RequestReader, ResponseReader, State


class Events:
    """What was read; payload that came in pieces is put together again."""

    def __init__(self) -> None:
        self.all: list[tuple] = []

    def on_head(self, untrusted, frame) -> None:
        self.all.append(("head", untrusted, frame.framing))

    def on_body(self, payload) -> None:
        if self.all[-1][0] == "body":
            self.all[-1] = ("body", self.all[-1][1] + bytes(payload))
        else:
            self.all.append(("body", bytes(payload)))

    def on_end(self, trailers) -> None:
        self.all.append(("end", trailers))


def read(reader, events, octets: bytes) -> None:
    """All of it, message by message."""
    view = memoryview(octets)
    for _ in range(10_000):
        if not view:
            return
        view = view[reader.read(view) :]
        if reader.state is State.END:
            reader.next()
    raise AssertionError("it does not come to an end")


BODIES = st.binary(max_size=40)
TRAILERS = st.lists(st.tuples(st.sampled_from([b"a", b"b-c"]), st.sampled_from([b"1", b"x y"])), max_size=2)


def chunked(parts: list[bytes], trailers) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
    return chunks + b"0\r\n" + b"".join(b"%b: %b\r\n" % each for each in trailers) + b"\r\n"


@st.composite
def messages(draw) -> bytes:
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    first = b"POST /x HTTP/1.1\r\nHost: a\r\n"
    if kind == "none":
        return first + b"\r\n"
    if kind == "length":
        body = draw(BODIES)
        return first + b"Content-Length: %d\r\n\r\n" % len(body) + body
    return (
        first
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + chunked(draw(st.lists(BODIES, max_size=3)), draw(TRAILERS))
    )


def by_h11(octets: bytes) -> list[tuple[bytes, list, list]]:
    """Bodies and trailers of the messages, as h11 has them."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(octets)
    found: list[tuple[bytes, list, list]] = []
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            found.append((event.method, [], []))
        elif isinstance(event, h11.Data):
            found[-1][1].append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            found[-1][2].extend((bytes(name), bytes(value)) for name, value in event.headers)
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
        else:
            return found


@given(st.lists(messages(), min_size=1, max_size=3))
def test_messages_are_what_another_reader_makes_of_them(all_of_them) -> None:
    events = Events()
    octets = b"".join(all_of_them)
    read(RequestReader(events), events, octets)
    bodies, trailers = [], []
    for event in events.all:
        if event[0] == "head":
            bodies.append(b"")
        elif event[0] == "body":
            bodies[-1] += event[1]
        else:
            trailers.append(list(event[1]))
    theirs = by_h11(octets)
    assert bodies == [b"".join(parts) for _, parts, _ in theirs]
    assert trailers == [found for _, _, found in theirs]


@given(st.lists(messages(), min_size=1, max_size=3), st.data())
def test_any_split_gives_the_same_events(all_of_them, data) -> None:
    octets = b"".join(all_of_them)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=10)))
    whole, parts = Events(), Events()
    read(RequestReader(whole), whole, octets)
    reader = RequestReader(parts)
    for start, stop in itertools.pairwise([0, *cuts, len(octets)]):
        read(reader, parts, octets[start:stop])
    assert parts.all == whole.all


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for(garbage) -> None:
    for reader in (RequestReader(Events()), ResponseReader(Events())):
        with suppress(PeerError):
            read(reader, None, garbage)
            reader.ended()


def test_one_empty_line_before_a_message_is_passed_over() -> None:
    events = Events()
    read(RequestReader(events), events, b"\r\nGET / HTTP/1.1\r\n\r\n")
    assert events.all[0][0] == "head"
    with pytest.raises(PeerError):
        read(RequestReader(Events()), None, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n")


def test_a_body_until_the_end_of_the_connection_ends_with_it() -> None:
    events = Events()
    reader = ResponseReader(events)
    read(reader, events, b"HTTP/1.1 200 OK\r\n\r\nabc")
    read(reader, events, b"def")
    assert events.all[0][2] is Framing.CLOSE
    reader.ended()
    assert events.all[1:] == [("body", b"abcdef"), ("end", ())]


@pytest.mark.parametrize("begun", [b"GET", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc"])
def test_an_end_in_the_middle_is_an_error(begun) -> None:
    reader = RequestReader(Events())
    reader.read(memoryview(begun))
    assert reader.begun
    with pytest.raises(PeerError):
        reader.ended()


def test_an_end_between_messages_is_none() -> None:
    RequestReader(Events()).ended()


@pytest.mark.parametrize("end", [b" \r\n", b"  \t \r\n", b" ;a=b\r\n", b" " * 16 + b"\r\n"])
@pytest.mark.parametrize("cut", [False, True])
def test_servers_may_pad_the_sizes_of_chunks(end: bytes, cut: bool) -> None:
    """As some do; the many that a long response has are no extensions without end."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    count = 5 if b";" in end else 5000
    octets = head + (b"3" + end + b"abc\r\n") * count + b"0" + end + b"\r\n"
    events = Events()
    reader = ResponseReader(events)
    for part in (octets[: len(head) + 3], octets[len(head) + 3 :]) if cut else (octets,):
        read(reader, events, part)
    assert events.all[1:] == [("body", b"abc" * count), ("end", ())]


@pytest.mark.parametrize("size", [b" 3\r\n", b"3 0\r\n", b"3 \x0b\r\n", b"3" + b" " * 17 + b"\r\n", b" \r\n"])
def test_what_else_stands_beside_a_size_is_refused(size: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with pytest.raises(PeerError):
        read(ResponseReader(Events()), None, head + size + b"abc\r\n")


def test_chunks_of_one_byte_cost_another_turn() -> None:
    events = Events()
    reader = RequestReader(events)
    octets = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked([b"a"] * 1000, [])
    taken = reader.read(memoryview(octets))
    assert taken < len(octets) // 10
    read(reader, events, octets[taken:])
    assert events.all[1] == ("body", b"a" * 1000)


def test_a_response_to_head_has_no_body() -> None:
    events = Events()
    reader = ResponseReader(events)
    reader.asked = b"HEAD"
    octets = memoryview(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert reader.read(octets) == len(octets)
    assert reader.state is State.END


def test_the_same_head_again_is_the_same_object_and_frames_what_its_request_says() -> None:
    events = Events()
    reader = ResponseReader(events)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    other = b"HTTP/1.1 204 No Content\r\n\r\n"
    heads: list[object] = []
    for asked, octets, body in (
        (b"GET", head + b"abc", b"abc"), (b"GET", head + b"def", b"def"), (b"HEAD", head, b""),
        (b"GET", head + b"ghi", b"ghi"), (b"GET", other, b""), (b"GET", head + b"jkl", b"jkl"),
    ):  # fmt: skip
        events.all.clear()
        reader.asked = asked
        read(reader, events, octets)
        assert [each[1] for each in events.all if each[0] == "body"] == ([body] if body else [])
        heads.append(events.all[0][1])
    assert heads[0] is heads[1]
    assert heads[0] == heads[2] == heads[3] == heads[5] != heads[4]


def test_after_stop_nothing_is_read() -> None:
    reader = RequestReader(Events())
    reader.read(memoryview(b"GET / HT"))
    reader.stop()
    assert reader.read(memoryview(b"TP/1.1\r\n\r\n")) == 0
    assert not reader.begun
