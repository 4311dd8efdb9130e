"""Resets as packets: whose word they are, at which byte, and that they are well-formed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.forward.segment import as_sent, resets
from ztunnel.model.address import Endpoint, parse_endpoint
from ztunnel.redirect.packet import ip_packet
from ztunnel.redirect.passages import Forwarded

A, B, INNER = (parse_endpoint(each) for each in ("10.77.0.2:40000", "10.77.0.3:9090", "172.31.0.2:8080"))
A6, B6, INNER6 = (parse_endpoint(each) for each in ("[fd77::2]:40000", "[fd77::3]:9090", "[fd31::2]:8080"))
RST, ACK = 4, 16


def ones_complement(octets: bytes) -> int:
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def parsed(packet: bytes) -> tuple[str, str, int, int, int]:
    """Source, destination, sequence, acknowledgement, flags; lengths and checksums are right."""
    if packet[0] >> 4 == 4:
        head, segment = packet[:20], packet[20:]
        assert (head[0], head[9], int.from_bytes(head[2:4], "big")) == (0x45, 6, len(packet))
        assert ones_complement(head) == 0xFFFF
        source, destination = head[12:16], head[16:20]
    else:
        head, segment = packet[:40], packet[40:]
        assert (head[0] >> 4, head[6], int.from_bytes(head[4:6], "big")) == (6, 6, len(segment))
        source, destination = head[8:24], head[24:40]
    pseudo = source + destination + struct.pack("!II", len(segment), 6)
    assert ones_complement(pseudo + segment) == 0xFFFF
    sport, dport, sequence, acknowledged, offset, flags, _, _, _ = struct.unpack("!HHIIBBHHH", segment)
    assert offset >> 4 == 5
    ends = (f"{source.hex()}:{sport}", f"{destination.hex()}:{dport}")
    return *ends, sequence, acknowledged, flags


def name(end: Endpoint) -> str:
    return f"{end.ip.packed.hex()}:{end.port}"


def seen(ends: tuple[Endpoint, Endpoint, Endpoint], **changes: object) -> Forwarded:
    opener, called, inner = ends
    told = Forwarded(1, 2, opener, called, opener, inner, 1000, 2000, False, True, False)
    return told._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("ends", [(A, B, INNER), (A6, B6, INNER6)])
@pytest.mark.parametrize("sequence", [0, 1000, 0xFFFFFFFF])
def test_an_opening_is_refused_as_by_the_one_who_was_called(ends, sequence) -> None:
    (only,) = resets(seen(ends, syn=True, sequence=sequence, acknowledged=0))
    assert only.to == ends[0]
    expected = (name(ends[1]), name(ends[0]), 0, (sequence + 1) % 2**32, RST | ACK)
    assert parsed(only.packet) == expected


@pytest.mark.parametrize("ends", [(A, B, INNER), (A6, B6, INNER6)])
def test_a_connection_is_reset_at_both_ends_at_the_byte_that_each_expects(ends) -> None:
    opener, called, inner = ends
    to_opener, to_inner = resets(seen(ends))
    assert (to_opener.to, to_inner.to) == (opener, inner)
    # The opener's packet tells what it expects by its acknowledgement, the other end expects this packet.
    assert parsed(to_opener.packet) == (name(called), name(opener), 2000, 0, RST)
    assert parsed(to_inner.packet) == (name(opener), name(inner), 1000, 0, RST)


@pytest.mark.parametrize("ends", [(A, B, INNER), (A6, B6, INNER6)])
def test_a_packet_on_the_way_back_tells_the_same_from_the_other_side(ends) -> None:
    opener, called, inner = ends
    to_opener, to_inner = resets(seen(ends, source=inner, destination=opener, reply=True))
    assert parsed(to_opener.packet) == (name(called), name(opener), 1000, 0, RST)
    assert parsed(to_inner.packet) == (name(opener), name(inner), 2000, 0, RST)


@given(
    st.sampled_from([(A, B, INNER), (A6, B6, INNER6)]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.booleans(),
)
def test_every_reset_is_well_formed(ends, sequence, acknowledged, syn, reply) -> None:
    told = seen(ends, sequence=sequence, acknowledged=acknowledged, syn=syn, reply=reply)
    for reset in resets(told):
        assert parsed(reset.packet)[4] & RST


def syn(source: Endpoint, destination: Endpoint, options: bytes, payload: bytes = b"") -> bytes:
    """As it stands at FORWARD, with checksums that hardware would compute."""
    words = 5 + len(options) // 4
    head = struct.pack("!HHIIBBHHH", source.port, destination.port, 7, 0, words << 4, 2, 64240, 0, 0)
    return ip_packet(source.ip.packed, destination.ip.packed, 6, head + options + payload)


OPTIONS = bytes.fromhex("020405b40402080a0102030400000000")


@pytest.mark.parametrize("ends", [(A, B, INNER), (A6, B6, INNER6)])
def test_a_syn_is_sent_on_as_its_opener_called_it(ends) -> None:
    opener, called, inner = ends
    packet = as_sent(seen(ends, syn=True, whole=syn(opener, inner, OPTIONS)))
    start = 20 if packet[0] >> 4 == 4 else 40
    assert struct.unpack("!HHI", packet[start : start + 8]) == (opener.port, called.port, 7)
    assert packet.endswith(OPTIONS)
    source, destination = (packet[12:16], packet[16:20]) if start == 20 else (packet[8:24], packet[24:40])
    assert (source, destination) == (opener.ip.packed, called.ip.packed)
    pseudo = source + destination + struct.pack("!II", len(packet) - start, 6)
    assert ones_complement(pseudo + packet[start:]) == 0xFFFF
    assert start == 40 or ones_complement(packet[:20]) == 0xFFFF


@pytest.mark.parametrize("ends", [(A, B, INNER), (A6, B6, INNER6)])
def test_what_is_not_known_whole_is_not_sent_on(ends) -> None:
    opener, _, inner = ends
    assert as_sent(seen(ends, syn=True)) == b""
    assert as_sent(seen(ends, syn=True, whole=syn(opener, inner, OPTIONS)[:-4])) == b""
    assert as_sent(seen(ends, syn=True, whole=syn(opener, inner, OPTIONS, b"early"))) == b""
