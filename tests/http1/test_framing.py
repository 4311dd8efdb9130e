"""Where bodies end: one way to say it, said once."""

from __future__ import annotations

import pytest

from ztunnel.errors import PeerError
from ztunnel.http1.framing import (
    Frame,
    Framing,
    connection_options,
    frame_request,
    frame_response,
    push_chunk,
    push_last_chunk,
)

GET = (b":method", b"GET")
LENGTH, CHUNKED = (b"content-length", b"5"), (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), Frame(Framing.NONE)),
        (((b"content-length", b"0"),), Frame(Framing.NONE)),
        ((LENGTH,), Frame(Framing.LENGTH, 5)),
        ((CHUNKED,), Frame(Framing.CHUNKED)),
        (((b"transfer-encoding", b"Chunked"),), Frame(Framing.CHUNKED)),
        (((b"connection", b"Keep-Alive, Close"),), Frame(Framing.NONE, close=True)),
        (
            ((b"connection", b"Upgrade"), (b"upgrade", b"WebSocket")),
            Frame(Framing.NONE, upgrade=b"websocket"),
        ),
        (((b"upgrade", b"websocket"),), Frame(Framing.NONE)),
        ((LENGTH, (b"expect", b"100-Continue")), Frame(Framing.LENGTH, 5, expects=True)),
    ],
)
def test_a_request_is_framed_as_it_says(fields, expected) -> None:
    found = frame_request((GET, *fields))
    assert found == expected
    assert found.has_body == (expected.framing is not Framing.NONE)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((LENGTH, LENGTH), 400),
        (((b"content-length", b"5, 5"),), 400),
        (((b"content-length", b"+5"),), 400),
        (((b"content-length", b"-1"),), 400),
        (((b"content-length", b"0x5"),), 400),
        (((b"content-length", b"5_0"),), 400),
        (((b"content-length", b""),), 400),
        (((b"content-length", b"9" * 19),), 400),
        ((LENGTH, CHUNKED), 400),
        ((CHUNKED, CHUNKED), 400),
        (((b"transfer-encoding", b"identity, chunked"),), 400),
        (((b"transfer-encoding", b"chunked, identity"),), 400),
        (((b"transfer-encoding", b"xchunked"),), 400),
        (((b"transfer-encoding", b"\x0bchunked"),), 400),
        (((b"transfer-encoding", b"gzip"),), 501),
        (((b"transfer-encoding", b""),), 501),
        (((b"expect", b"the-unexpected"),), 417),
    ],
)
def test_what_is_said_twice_or_otherwise_is_refused(fields, status) -> None:
    with pytest.raises(PeerError) as refused:
        frame_request((GET, *fields))
    assert refused.value.reply == status


@pytest.mark.parametrize(
    ("status", "method", "fields", "old", "expected"),
    [
        (b"200", b"GET", (), False, Frame(Framing.CLOSE, close=True)),
        (b"200", b"GET", (LENGTH,), False, Frame(Framing.LENGTH, 5)),
        (b"200", b"GET", (LENGTH,), True, Frame(Framing.LENGTH, 5, close=True)),
        (b"200", b"GET", (LENGTH, (b"connection", b"keep-alive")), True, Frame(Framing.LENGTH, 5)),
        (b"200", b"GET", (CHUNKED,), False, Frame(Framing.CHUNKED)),
        (b"200", b"GET", ((b"content-length", b"0"),), False, Frame(Framing.NONE)),
        (b"200", b"HEAD", (LENGTH,), False, Frame(Framing.NONE)),
        (b"200", b"HEAD", (CHUNKED,), False, Frame(Framing.NONE)),
        (b"204", b"GET", (), False, Frame(Framing.NONE)),
        (b"304", b"GET", (LENGTH,), False, Frame(Framing.NONE)),
        (b"103", b"GET", (), False, Frame(Framing.NONE)),
        (b"101", b"GET", ((b"upgrade", b"WebSocket"),), False, Frame(Framing.NONE, upgrade=b"websocket")),
    ],
)
def test_a_response_is_framed_by_its_status_and_what_was_asked(status, method, fields, old, expected) -> None:
    assert frame_response(((b":status", status), *fields), method, old) == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 5),
        (b"timeout=0", 0),
        (b"max=100, Timeout=65", 65),
        (b"timeout=5, max=100", 5),
        (b"300", -1),
        (b"xtimeout=5", -1),
        (b"timeout=", -1),
        (b"timeout=-1", -1),
        (b"timeout=12345678", -1),
    ],
)
def test_a_server_says_for_how_long_it_keeps_a_connection(value: bytes, seconds: int) -> None:
    fields = ((b":status", b"200"), LENGTH, (b"keep-alive", value))
    assert frame_response(fields, b"GET", False).kept_seconds == seconds
    assert frame_response(fields, b"HEAD", False).kept_seconds == seconds


@pytest.mark.parametrize("fields", [(LENGTH, CHUNKED), (LENGTH, LENGTH), ((b"transfer-encoding", b"gzip"),)])
def test_a_response_that_two_could_read_otherwise_is_refused(fields) -> None:
    with pytest.raises(PeerError):
        frame_response(((b":status", b"200"), *fields), b"GET", False)


def test_chunks_are_not_of_http_1_0() -> None:
    with pytest.raises(PeerError):
        frame_response(((b":status", b"200"), CHUNKED), b"GET", True)


def test_options_of_a_connection_are_a_list() -> None:
    assert connection_options(b" Close ,, TE,\tx-A ") == {b"close", b"te", b"x-a"}


@pytest.mark.parametrize("size", [1, 4095, 4096, 70_000])
def test_a_chunk_is_its_size_and_its_bytes_and_large_ones_are_not_copied(size: int) -> None:
    payload = memoryview(bytes(size))
    parts = push_chunk(payload)
    assert b"".join(parts) == b"%x\r\n%b\r\n" % (size, bytes(size))
    assert any(part is payload for part in parts) == (size >= 4096)


def test_the_last_chunk_has_the_trailers() -> None:
    assert push_last_chunk(()) == b"0\r\n\r\n"
    assert push_last_chunk(((b"a", b"b"),)) == b"0\r\na: b\r\n\r\n"
