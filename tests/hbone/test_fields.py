"""Header fields, against the hpack library in both directions."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.hbone.fields import FieldReader, pull_literals, push_fields
from ztunnel.hbone.frame import Code

NAMES = st.sampled_from(
    [b":method", b":authority", b":status", b":path", b"baggage", b"x" * 200, b"forwarded"]
)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=8)


@given(FIELDS)
def test_what_we_send_is_what_hpack_reads(fields: list[tuple[bytes, bytes]]) -> None:
    assert hpack.Decoder().decode(push_fields(fields), raw=True) == fields


@given(FIELDS)
def test_what_we_send_needs_no_table(fields: list[tuple[bytes, bytes]]) -> None:
    assert pull_literals(push_fields(fields)) == fields


def test_a_200_takes_one_byte() -> None:
    assert push_fields([(b":status", b"200")]) == b"\x88"


@given(st.lists(FIELDS, max_size=4), st.booleans())
def test_what_hpack_sends_is_read_with_its_table(
    blocks: list[list[tuple[bytes, bytes]]], huffman: bool
) -> None:
    encoder, reader = hpack.Encoder(), FieldReader(64 * 1024)
    for fields in blocks:
        block = encoder.encode(fields, huffman=huffman)
        assert reader.read(block) == tuple(fields)
        assert reader.read(push_fields(fields)) == tuple(fields)


@given(st.binary(max_size=200))
def test_garbage_is_a_peer_error_or_fields(untrusted: bytes) -> None:
    reader = FieldReader(1024)
    try:
        fields = reader.read(untrusted)
    except PeerError as error:
        fields = ()
        code = error.reply
    else:
        code = Code.COMPRESSION_ERROR
    assert code in (Code.COMPRESSION_ERROR, Code.ENHANCE_YOUR_CALM)
    assert all(isinstance(name, bytes) and isinstance(value, bytes) for name, value in fields)


@given(st.binary(max_size=60))
def test_the_short_way_reads_nothing_that_hpack_reads_otherwise(untrusted: bytes) -> None:
    fields = pull_literals(untrusted)
    if fields is not None:
        assert hpack.Decoder().decode(untrusted, raw=True) == fields


@pytest.mark.parametrize(
    "block", [b"\x00", b"\x01\x7f\x80\x80\x80\x80\x80\x01", b"\x01\x05ab", b"\x00\x7f", b"\xff"]
)
def test_the_short_way_gives_up_on_what_is_cut_off(block: bytes) -> None:
    assert pull_literals(block) is None


def test_a_list_above_the_limit_is_refused_in_either_form() -> None:
    fields = [(b"baggage", b"v" * 100)] * 10
    for block in (push_fields(fields), hpack.Encoder().encode(fields)):
        with pytest.raises(PeerError):
            FieldReader(1000).read(block)


def test_a_bomb_of_references_to_the_table_is_refused() -> None:
    encoder = hpack.Encoder()
    reader = FieldReader(64 * 1024)
    bomb = encoder.encode([(b"x-big", b"v" * 4000)]) + b"\xbe" * 12_000
    with pytest.raises(PeerError):
        reader.read(bomb)
