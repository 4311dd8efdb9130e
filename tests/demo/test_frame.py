import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.demo.frame import segment

ETHERNET = bytes(12)


def frame(source: str, destination: str, payload: bytes, flags: int = 0x18, padding: bytes = b"") -> bytes:
    tcp = struct.pack("!HHIIBBHHH", 1234, 15008, 1, 2, 6 << 4, flags, 100, 0, 0) + bytes(4) + payload
    a, b = ip_address(source).packed, ip_address(destination).packed
    if len(a) == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + a + b
        return ETHERNET + b"\x08\x00" + head + tcp + padding
    return ETHERNET + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + a + b + tcp + padding


@pytest.mark.parametrize(("source", "destination"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
@pytest.mark.parametrize("padding", [b"", bytes(8)])
def test_a_segment_is_read_without_the_padding_of_its_frame(
    source: str, destination: str, padding: bytes
) -> None:
    found = segment(frame(source, destination, b"hello", padding=padding))
    assert found is not None
    assert (found.source.ip, found.source.port) == (ip_address(source), 1234)
    assert (found.destination.ip, found.destination.port) == (ip_address(destination), 15008)
    assert (found.payload, found.flags) == (b"hello", 0x18)


@pytest.mark.parametrize(
    ("payload", "is_tls"),
    [(b"\x16\x03\x01\x00\x05", True), (b"\x17\x03\x03\x00\x05", True), (b"GET / HTTP", False)],
)
def test_a_tls_record_is_known_by_its_head(payload: bytes, is_tls: bool) -> None:
    found = segment(frame("10.0.0.1", "10.0.0.2", payload))
    assert found is not None
    assert found.is_tls is is_tls


def test_what_is_no_tcp_is_nothing() -> None:
    assert segment(b"") is None
    assert segment(ETHERNET + b"\x08\x06" + bytes(60)) is None
    assert segment(frame("10.0.0.1", "10.0.0.2", b"").replace(b"\x40\x06", b"\x40\x11")) is None


@given(st.binary(max_size=120), st.sampled_from([b"\x08\x00", b"\x86\xdd"]))
def test_garbage_is_a_segment_or_nothing(rest: bytes, kind: bytes) -> None:
    segment(ETHERNET + kind + rest)


@given(st.integers(0, 60))
def test_a_frame_that_was_cut_is_a_segment_or_nothing(length: int) -> None:
    segment(frame("fd00::1", "fd00::2", b"hello")[:length])
