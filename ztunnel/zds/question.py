"""A question of DNS for addresses, and its answer (RFC 1035): just as much as a name of the mesh needs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv4Address
from struct import Struct
from typing import Final, NamedTuple

from ztunnel.model.address import IPAddress

TTL_SECONDS: Final = 30
"""As ztunnel's answers (src/dns/server.rs)."""

_HEADER, _TAIL, _RECORD = Struct("!6H"), Struct("!2H"), Struct("!HHHIH")
_NOT_A_QUERY, _RECURSION_DESIRED = 0xF800, 0x0100  # QR and OPCODE: a response, or another operation
_ANSWER: Final = 0x8480  # QR, AA, RA
_INTERNET: Final = 1
_NAME_HERE: Final = 0xC00C  # the name of the question
_LABEL_BYTES, _NAME_BYTES = 63, 255
_MESSAGE_BYTES: Final = 512
"""Of an answer: what everybody takes, with EDNS or without (RFC 1035 section 4.2.1)."""


class Kind(IntEnum):
    """TYPE of RFC 1035 and 3596."""

    A = 1
    AAAA = 28


class Question(NamedTuple):
    """What is asked. `name` is in small letters and without the last dot; `section` is the question as it was
    written."""

    number: int
    flags: int
    name: str
    kind: Kind
    section: bytes


def parse_question(untrusted: bytes) -> Question | None:
    """The question of a query for the addresses of one name; None for anything else, which is somebody
    else's to answer."""
    if len(untrusted) < _HEADER.size:
        return None
    number, flags, questions, answers, authorities, _ = _HEADER.unpack_from(untrusted)
    if flags & _NOT_A_QUERY or (questions, answers, authorities) != (1, 0, 0):
        return None
    labels, at = [], _HEADER.size
    while True:
        if at >= len(untrusted):
            return None
        size = untrusted[at]
        if size == 0:
            break
        label = untrusted[at + 1 : at + 1 + size]
        if size > _LABEL_BYTES or len(label) < size or at - _HEADER.size + size + 2 > _NAME_BYTES:
            return None
        labels.append(label)
        at += 1 + size
    if len(untrusted) < at + 1 + _TAIL.size or not all(label.isascii() for label in labels):
        return None
    kind, network = _TAIL.unpack_from(untrusted, at + 1)
    if network != _INTERNET or kind not in (Kind.A, Kind.AAAA):
        return None
    name = ".".join(label.decode("ascii").lower() for label in labels)
    return Question(number, flags, name, Kind(kind), untrusted[_HEADER.size : at + 1 + _TAIL.size])


def render_addresses(question: Question, addresses: Sequence[IPAddress]) -> bytes:
    """These, as far as they are of the kind that was asked for and there is room. There may be none: the name
    is known, and has none of that kind."""
    wanted = [ip for ip in addresses if isinstance(ip, IPv4Address) == (question.kind is Kind.A)]
    room = _MESSAGE_BYTES - _HEADER.size - len(question.section)
    records: list[bytes] = []
    for ip in wanted:
        record = _RECORD.pack(_NAME_HERE, question.kind, _INTERNET, TTL_SECONDS, len(ip.packed)) + ip.packed
        if len(record) > room:
            break
        room -= len(record)
        records.append(record)
    flags = _ANSWER | question.flags & _RECURSION_DESIRED
    header = _HEADER.pack(question.number, flags, 1, len(records), 0, 0)
    return b"".join([header, question.section, *records])
