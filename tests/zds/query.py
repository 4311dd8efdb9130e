"""Queries of DNS, and what a resolver reads in an answer."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address


def query(
    name: str,
    kind: int,
    number: int = 1,
    flags: int = 0x0100,
    network: int = 1,
    counts: tuple[int, int, int, int] | None = None,
    extra: bytes = b"",
) -> bytes:
    labels = b"".join(bytes([len(each.encode())]) + each.encode() for each in name.split("."))
    header = struct.pack("!6H", number, flags, *(counts or (1, 0, 0, 1 if extra else 0)))
    return header + labels + b"\0" + struct.pack("!2H", kind, network) + extra


def read_answer(answer: bytes) -> tuple[int, int, str, list[IPv4Address | IPv6Address]]:
    """Number, response code, name and addresses; everything in it is accounted for."""
    number, flags, questions, answers, authorities, additional = struct.unpack_from("!6H", answer)
    assert flags & 0x8000
    assert (questions, authorities, additional) == (1, 0, 0)
    at, labels = 12, []
    while size := answer[at]:
        labels.append(answer[at + 1 : at + 1 + size].decode())
        at += 1 + size
    kind, network = struct.unpack_from("!2H", answer, at + 1)
    assert network == 1
    at += 5
    found = []
    for _ in range(answers):
        pointer, this, network, ttl, size = struct.unpack_from("!HHHIH", answer, at)
        assert (pointer, this, network, ttl) == (0xC00C, kind, 1, 30)
        found.append(ip_address(answer[at + 12 : at + 12 + size]))
        at += 12 + size
    assert at == len(answer)
    return number, flags & 0xF, ".".join(labels), found
