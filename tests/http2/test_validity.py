"""Malformed fields (RFC 9113 sections 8.2, 8.3, 8.5), one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.http2.fields import USUAL, Fields
from ztunnel.http2.frame import Code
from ztunnel.http2.validity import check_request, check_response, check_trailers

CONNECT: Fields = ((b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80"))
GET: Fields = ((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"x"))
OK: Fields = ((b":status", b"200"),)

WRONG_FIELDS: dict[str, tuple[bytes, bytes]] = {
    "a capital letter": (b"X-Test", b"x"),
    "an empty name": (b"", b"x"),
    "a blank in the name": (b"x y", b"x"),
    "a colon in the name": (b"x:y", b"x"),
    "a control character in the name": (b"x\x01", b"x"),
    "DEL in the name": (b"x\x7f", b"x"),
    "NUL in the value": (b"x", b"a\0b"),
    "CR in the value": (b"x", b"a\rb"),
    "LF in the value": (b"x", b"a\nb"),
    "a blank before the value": (b"x", b" a"),
    "a tab behind the value": (b"x", b"a\t"),
    "a blank as the value": (b"x", b" "),
    "connection": (b"connection", b"keep-alive"),
    "proxy-connection": (b"proxy-connection", b"keep-alive"),
    "keep-alive": (b"keep-alive", b"timeout=5"),
    "transfer-encoding": (b"transfer-encoding", b"chunked"),
    "upgrade": (b"upgrade", b"h2c"),
    "te": (b"te", b"trailers, deflate;q=0.5"),
}


@pytest.mark.parametrize("field", WRONG_FIELDS.values(), ids=WRONG_FIELDS.keys())
def test_a_wrong_field_is_malformed_wherever_it_stands(field: tuple[bytes, bytes]) -> None:
    for check, fields in ((check_request, CONNECT), (check_response, OK), (check_trailers, ())):
        check(fields)
        with pytest.raises(PeerError) as error:
            check((*fields, field))
        assert error.value.reply == Code.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b""),
        (b"te", b"trailers"),
        (b"x", b"a b\tc"),
        (b"x", b"\xff\x80"),
        (b"x\xff", b"y"),
        (b"baggage", b"k=v"),
    ],
)
def test_what_only_looks_odd_is_not(field: tuple[bytes, bytes]) -> None:
    check_request((*CONNECT, field))


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b":method", b"CONNECT"),),
        (*CONNECT, (b":path", b"/")),
        (*CONNECT, (b":scheme", b"https")),
        (*CONNECT, (b":protocol", b"websocket")),
        (*CONNECT, (b":authority", b"x")),
        (*CONNECT, (b":status", b"200")),
        (CONNECT[0], (b"x", b"y"), CONNECT[1]),
        (*GET[:1], *GET[2:]),
        (*GET[:2], *GET[3:]),
        (*GET[:2], (b":path", b""), GET[3]),
        GET[1:],
    ],
)
def test_a_request_has_its_pseudo_header_fields_once_and_first(fields: Fields) -> None:
    with pytest.raises(PeerError):
        check_request(fields)


def test_a_request_that_is_not_a_connect_is_not_malformed() -> None:
    check_request(GET)
    check_request(GET[:3])


@pytest.mark.parametrize(
    "fields", [(), ((b":status", b"20"),), ((b":status", b"abc"),), (*OK, *OK), (*OK, CONNECT[0])]
)
def test_a_response_has_one_status(fields: Fields) -> None:
    with pytest.raises(PeerError):
        check_response(fields)


def test_trailers_have_no_pseudo_header_fields() -> None:
    with pytest.raises(PeerError):
        check_trailers(OK)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_what_passes_can_stand_in_a_line_of_text(name: bytes, value: bytes) -> None:
    try:
        check_trailers(((name, value),))
    except PeerError:
        return
    assert name
    assert not {*b"\0\r\n :"} & {*name}
    assert not {*b"\0\r\n"} & {*value}
    assert value == value.strip(b" \t")


@pytest.mark.parametrize("name", USUAL)
def test_usual_names_are_as_sound_as_any(name: bytes) -> None:
    assert not name.translate(None, b"abcdefghijklmnopqrstuvwxyz-")
    check_request((*CONNECT, (name, b"trailers")))
    for pseudo in (b":method", b":path"):  # behind it, as behind any other
        with pytest.raises(PeerError):
            check_request((CONNECT[1], (name, b"trailers"), (pseudo, b"CONNECT")))
    for value in (b" a", b"a\t", b"a\0b", b"a\rb", b"a\nb"):
        with pytest.raises(PeerError):
            check_request((*CONNECT, (name, value)))
