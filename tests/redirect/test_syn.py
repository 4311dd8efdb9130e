from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.redirect.syn import answer, ends_of, whole

V4 = bytes((10, 77, 0, 2)), bytes((10, 77, 0, 2))
V6 = bytes.fromhex("fd770000000000000000000000000002"), bytes.fromhex("fd770000000000000000000000000002")
OPTIONS = bytes.fromhex("020405b40402080a0102030400000000")


def syn(
    ends: tuple[bytes, bytes], sequence: int = 7, options: bytes = OPTIONS, ip_options: bytes = b""
) -> bytes:
    """As the kernel leaves it: the checksum is that of the pseudo header."""
    tcp = struct.pack("!HHIIBBHHH", 40000, 61500, sequence, 0, (20 + len(options)) // 4 << 4, 2, 64240, 0, 0)
    tcp += options
    if len(ends[0]) == 4:
        words = 5 + len(ip_options) // 4
        size = words * 4 + len(tcp)
        head = struct.pack("!BBHHHBBH", 0x40 | words, 0, size, 1, 0x4000, 64, 6, 0) + b"".join(ends)
        return head + ip_options + tcp
    return struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + b"".join(ends) + tcp


def folded(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def parts(packet: bytes) -> tuple[int, bytes, bytes, bytes]:
    """Protocol, source, destination and what is in it, whose checksum has been checked."""
    if packet[0] >> 4 == 4:
        start = (packet[0] & 15) * 4
        assert struct.unpack("!H", packet[2:4])[0] == len(packet)
        protocol, source, destination = packet[9], packet[12:16], packet[16:20]
    else:
        start = 40
        assert struct.unpack("!H", packet[4:6])[0] == len(packet) - 40
        protocol, source, destination = packet[6], packet[8:24], packet[24:40]
    body = packet[start:]
    pseudo = b"" if protocol == 1 else source + destination + struct.pack("!HH", protocol, len(body))
    assert folded(pseudo + body) == 0xFFFF
    return protocol, source, destination, body


FAMILIES = pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])


@FAMILIES
def test_a_syn_is_sent_on_as_it_was_with_its_checksum(ends: tuple[bytes, bytes]) -> None:
    captured = syn(ends)
    sent = whole(captured)
    _, source, destination, body = parts(sent)
    assert (source, destination) == ends
    assert body[:16] + body[18:] == captured[-36:-20] + captured[-18:]
    assert whole(sent) == sent


@FAMILIES
@given(noise=st.binary(min_size=20, max_size=20))
def test_of_a_syn_nothing_but_its_checksum_is_another_one(ends: tuple[bytes, bytes], noise: bytes) -> None:
    captured = syn(ends)
    at = len(captured) - len(OPTIONS) - 4
    captured = captured[:at] + noise[:2] + captured[at + 2 : -len(OPTIONS)] + noise[2:18]
    sent = whole(captured)
    assert sent[:at] + sent[at + 2 :] == captured[:at] + captured[at + 2 :]
    parts(sent)


def test_options_of_ip_are_kept() -> None:
    sent = whole(syn(V4, ip_options=b"\x01\x01\x01\x00"))
    assert sent[20:24] == b"\x01\x01\x01\x00"
    parts(sent)


@FAMILIES
@pytest.mark.parametrize("error", [errno.ECONNREFUSED, errno.ETIMEDOUT, 0])
def test_a_refusal_is_the_reset_that_the_far_end_would_send(ends: tuple[bytes, bytes], error: int) -> None:
    protocol, source, destination, body = parts(answer(syn(ends, sequence=0xFFFFFFFF), error))
    assert (protocol, destination, source) == (6, *ends)
    ports, sequence, acknowledged = struct.unpack("!III", body[:12])
    assert (ports >> 16, ports & 0xFFFF, sequence, acknowledged) == (61500, 40000, 0, 0)
    assert body[13] == 0x14


@pytest.mark.parametrize(
    ("ends", "error", "kind"),
    [
        (V4, errno.ENETUNREACH, (1, 3, 0)),
        (V4, errno.EHOSTUNREACH, (1, 3, 1)),
        (V6, errno.ENETUNREACH, (58, 1, 0)),
        (V6, errno.EHOSTUNREACH, (58, 1, 3)),
    ],
)
def test_what_has_no_way_is_told_by_an_icmp_error_about_the_syn(ends, error, kind) -> None:
    captured = syn(ends)
    protocol, source, destination, body = parts(answer(captured, error))
    assert (protocol, body[0], body[1]) == kind
    assert (source, destination) == ends
    assert body[8:] == captured[:64]


@given(st.binary(min_size=4, max_size=4), st.integers(0, 2**32 - 1), st.integers(0, 10))
def test_every_checksum_is_right(address: bytes, sequence: int, words: int) -> None:
    packet = syn((address, address), sequence, bytes(4 * words))
    for each in (whole(packet), answer(packet, 111), answer(packet, errno.EHOSTUNREACH)):
        parts(each)


@FAMILIES
def test_the_ends_of_a_packet_are_its_addresses_and_ports(ends: tuple[bytes, bytes]) -> None:
    ports = (40000).to_bytes(2, "big") + (61500).to_bytes(2, "big")
    assert ends_of(syn(ends)) == b"".join(ends) + ports
    assert ends_of(whole(syn(ends))) == b"".join(ends) + ports


def test_a_packet_that_is_not_plain_has_no_ends() -> None:
    v6 = syn(V6)
    odd = [b"", syn(V4)[:23], v6[:43], syn(V4, ip_options=b"\x01\x01\x01\x00"), v6[:6] + b"\x00" + v6[7:]]
    assert [ends_of(each) for each in odd] == [b""] * 5
