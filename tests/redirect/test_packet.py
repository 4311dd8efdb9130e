"""Packets are well-formed whatever is in them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.redirect.packet import TCP, checksum, header_bytes, ip_packet, readdressed, reset, sum_of

V4 = bytes((10, 77, 0, 2)), bytes((10, 77, 0, 3))
V6 = bytes.fromhex("fd770000000000000000000000000002"), bytes.fromhex("fd770000000000000000000000000003")
U32 = st.integers(0, 2**32 - 1)


def folded(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.binary(max_size=200).map(lambda data: data[: len(data) // 2 * 2]), st.integers(0, 1 << 20))
def test_with_its_checksum_everything_sums_up_to_ones(data, start):
    check = checksum(start, data)
    assert folded(data + check + struct.pack("!HH", start >> 16, start & 0xFFFF)) == 0xFFFF


@given(st.binary(max_size=200).map(lambda data: data[: len(data) // 2 * 2]))
def test_the_sum_is_that_of_the_words(data):
    assert (folded(data) - sum_of(data)) % 0xFFFF == 0


def test_the_sum_is_of_words_in_network_order():
    assert sum_of(bytes([1, 2, 3, 4])) == 0x0102 + 0x0304
    assert checksum(0, bytes.fromhex("0001f203f4f5f6f7")) == bytes.fromhex("220d")  # RFC 1071, 3


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
@given(body=st.binary(max_size=64))
def test_a_header_says_from_whom_to_whom_and_how_long(ends, body):
    packet = ip_packet(*ends, 58, body)
    assert packet.endswith(body)
    if len(ends[0]) == 4:
        assert (packet[0], packet[9], packet[12:16], packet[16:20]) == (0x45, 58, *ends)
        assert (folded(packet[:20]), struct.unpack("!H", packet[2:4])[0]) == (0xFFFF, len(packet))
    else:
        assert (packet[0] >> 4, packet[6], packet[8:24], packet[24:40]) == (6, 58, *ends)
        assert struct.unpack("!H", packet[4:6])[0] == len(body)


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
@given(ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535)), sequence=U32, after=st.none() | U32)
def test_a_reset_is_at_its_byte_and_acknowledges_what_it_answers(ends, ports, sequence, after):
    packet = reset(*ends, ports, sequence, after)
    segment = packet[-20:]
    told = struct.unpack("!HHIIBBHHH", segment)
    assert told[:4] == (*ports, sequence, after or 0)
    assert told[5] == (0x04 if after is None else 0x14)
    assert folded(b"".join(ends) + struct.pack("!HH", TCP, len(segment)) + segment) == 0xFFFF


@pytest.mark.parametrize(("ends", "others"), [(V4, V4[::-1]), (V6, V6[::-1])], ids=["v4", "v6"])
@given(words=st.lists(st.binary(min_size=4, max_size=4), min_size=5, max_size=15))
def test_a_packet_between_other_addresses_is_as_if_it_had_been_made_for_them(ends, others, words):
    segment = b"".join(words)
    packet = readdressed(ip_packet(*ends, TCP, segment), *others, segment)
    start = header_bytes(packet)
    body = packet[start:]
    assert packet[:start] == ip_packet(*others, TCP, segment)[:start]
    assert body[:16] + body[18:] == segment[:16] + segment[18:]
    assert folded(b"".join(others) + struct.pack("!HH", TCP, len(body)) + body) == 0xFFFF
