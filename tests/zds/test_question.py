"""Questions for addresses, and answers: read back by a resolver's rules."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zds.query import query, read_answer
from ztunnel.zds.question import Kind, parse_question, render_addresses

V4, V6 = ip_address("240.240.0.1"), ip_address("2001:2::f0f0:1")


@pytest.mark.parametrize("kind", list(Kind))
def test_a_question_is_read_and_answered_with_addresses_of_its_kind(kind: Kind) -> None:
    question = parse_question(query("API.Example.com", kind, number=4711))
    assert question is not None
    assert (question.name, question.kind, question.number) == ("api.example.com", kind, 4711)
    number, code, name, found = read_answer(render_addresses(question, [V4, V6]))
    # The name comes back as it was written (draft-vixie-dnsext-dns0x20).
    assert (number, code, name) == (4711, 0, "API.Example.com")
    assert found == [V4 if kind is Kind.A else V6]


def test_the_bytes_are_those_of_rfc_1035() -> None:
    asked = bytes.fromhex("beef 0100 0001 0000 0000 0000 03 777777 01 78 00 0001 0001".replace(" ", ""))
    question = parse_question(asked)
    assert question is not None
    answer = (
        "beef 8580 0001 0001 0000 0000 03 777777 01 78 00 0001 0001 c00c 0001 0001 0000001e 0004 c0000201"
    )
    assert render_addresses(question, [IPv4Address("192.0.2.1")]) == bytes.fromhex(answer.replace(" ", ""))


def test_a_query_with_edns_is_answered_without() -> None:
    option = bytes.fromhex("00 0029 1000 00000000 0000".replace(" ", ""))
    question = parse_question(query("a.b", Kind.A, extra=option))
    assert question is not None
    assert read_answer(render_addresses(question, [V4]))[3] == [V4]


def test_a_name_without_such_an_address_has_an_empty_answer() -> None:
    question = parse_question(query("a.b", Kind.AAAA))
    assert question is not None
    assert read_answer(render_addresses(question, [V4])) == (1, 0, "a.b", [])


def test_an_answer_has_as_many_addresses_as_everybody_takes() -> None:
    question = parse_question(query(".".join(["x" * 60] * 4), Kind.AAAA))
    assert question is not None
    rendered = render_addresses(question, [IPv6Address(n) for n in range(1, 100)])
    assert len(rendered) <= 512
    assert len(read_answer(rendered)[3]) == 8


@pytest.mark.parametrize(
    "untrusted",
    [
        b"",
        query("a.b", Kind.A)[:11],
        query("a.b", Kind.A)[:-1],
        query("a.b", Kind.A)[:14],
        query("a.b", 15),  # MX
        query("a.b", Kind.A, network=3),  # CHAOS
        query("a.b", Kind.A, flags=0x8100),  # a response
        query("a.b", Kind.A, flags=0x2800),  # UPDATE
        query("a.b", Kind.A, counts=(2, 0, 0, 0)),
        query("a.b", Kind.A, counts=(0, 0, 0, 0)),
        query("a.b", Kind.A, counts=(1, 1, 0, 0)),
        struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + b"\xc0\x0c" + struct.pack("!2H", 1, 1),  # points at itself
        struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + b"\x40" + b"x" * 64 + b"\0" + struct.pack("!2H", 1, 1),
        query(".".join(["x" * 63] * 4), Kind.A),  # 257 bytes
        query("\u00fc.b", Kind.A),
    ],
)
def test_anything_else_is_somebody_elses(untrusted: bytes) -> None:
    assert parse_question(untrusted) is None


@given(st.binary(max_size=600))
def test_garbage_is_a_question_or_none(untrusted: bytes) -> None:
    question = parse_question(untrusted)
    if question is not None:
        assert question.section == untrusted[12 : 12 + len(question.section)]


_LABELS = st.text(st.sampled_from("abcXYZ019-_"), min_size=1, max_size=63)
_ADDRESSES = st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), max_size=40)


@given(st.lists(_LABELS, min_size=1, max_size=3), st.sampled_from(Kind), _ADDRESSES, st.integers(0, 65535))
def test_what_is_answered_is_what_was_asked(
    labels: list[str], kind: Kind, addresses: list[IPv4Address | IPv6Address], number: int
) -> None:
    name = ".".join(labels)
    question = parse_question(query(name, kind, number=number))
    assert question is not None
    assert question.name == name.lower()
    rendered = render_addresses(question, addresses)
    assert len(rendered) <= 512
    answered, code, called, found = read_answer(rendered)
    assert (answered, code, called) == (number, 0, name)
    wanted = [ip for ip in addresses if ip.version == (4 if kind is Kind.A else 6)]
    assert found == wanted[: len(found)]
    assert found or not wanted
