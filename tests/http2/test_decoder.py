"""Header blocks of peers, against the hpack library."""

from __future__ import annotations

import time

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.http2.decoder import FIELD_OVERHEAD_BYTES, MAX_FIELDS, FieldReader
from ztunnel.http2.fields import push_fields
from ztunnel.http2.frame import Code

NAMES = st.sampled_from(
    [b":method", b":authority", b":status", b":path", b"baggage", b"x" * 200, b"forwarded", b"y" * 3000]
)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=8)
LIMIT_BYTES = 64 * 1024


@given(st.lists(FIELDS, max_size=4), st.booleans())
def test_what_hpack_sends_is_read_with_its_table(
    blocks: list[list[tuple[bytes, bytes]]], huffman: bool
) -> None:
    encoder, reader = hpack.Encoder(), FieldReader(LIMIT_BYTES)
    for fields in blocks:
        block = encoder.encode(fields, huffman=huffman)
        assert reader.read(block) == tuple(fields)
        assert reader.read(push_fields(fields)) == tuple(fields)


@given(st.lists(st.tuples(FIELDS, st.integers(0, 4096)), max_size=4))
def test_a_table_that_changes_its_size_is_followed(
    blocks: list[tuple[list[tuple[bytes, bytes]], int]],
) -> None:
    encoder, reader = hpack.Encoder(), FieldReader(LIMIT_BYTES)
    for fields, size in blocks:
        encoder.header_table_size = size
        assert reader.read(encoder.encode(fields)) == tuple(fields)


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_it_reads_what_hpack_reads_and_refuses_what_hpack_refuses(untrusted: list[bytes]) -> None:
    reference, reader = hpack.Decoder(), FieldReader(LIMIT_BYTES)
    reference.max_allowed_table_size = 4096
    for block in untrusted:
        try:
            expected = tuple((bytes(name), bytes(value)) for name, value in reference.decode(block, raw=True))
        except hpack.HPACKError:
            with pytest.raises(PeerError) as error:
                reader.read(block)
            assert error.value.reply == Code.COMPRESSION_ERROR
            return
        try:
            assert reader.read(block) == expected
        except PeerError as stricter:
            assert "number without end" in str(stricter) or "resized behind" in str(stricter)  # noqa: PT017
            return


@pytest.mark.parametrize(
    "block",
    [
        b"\x00",
        b"\x01\x7f\x80\x80\x80\x80\x80\x01",
        b"\x01\x05ab",
        b"\x00\x7f",
        b"\xff",
        b"\x80",
        b"\xbe",
        b"\x3f\xe2\x1f",
        b"\x82\x20",
        b"\x01\x81\x00",
        b"\x01\x81\xfe",
        b"\x01\x84\xff\xff\xff\xff",
    ],
)
def test_what_is_not_hpack_is_refused(block: bytes) -> None:
    with pytest.raises(PeerError) as error:
        FieldReader(LIMIT_BYTES).read(block)
    assert error.value.reply == Code.COMPRESSION_ERROR


def test_a_list_above_the_limit_is_refused_in_either_form() -> None:
    fields = [(b"baggage", b"v" * 100)] * 10
    for block in (push_fields(fields), hpack.Encoder().encode(fields)):
        with pytest.raises(PeerError) as error:
            FieldReader(1000).read(block)
        assert error.value.reply == Code.ENHANCE_YOUR_CALM


def test_fields_are_counted_and_not_only_their_bytes() -> None:
    fields = [(b"x", b"y")] * MAX_FIELDS
    assert len(FieldReader(LIMIT_BYTES).read(push_fields(fields))) == MAX_FIELDS
    with pytest.raises(PeerError) as error:
        FieldReader(LIMIT_BYTES).read(push_fields([*fields, (b"x", b"y")]))
    assert error.value.reply == Code.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("value", [b"", b"v" * 4000])
def test_a_bomb_of_references_to_the_table_costs_little(value: bytes) -> None:
    entry = hpack.Encoder().encode([(b"x-big", value)])
    begun = time.thread_time()
    with pytest.raises(PeerError) as error:
        FieldReader(LIMIT_BYTES).read(entry + b"\xbe" * 12_000)
    assert error.value.reply == Code.ENHANCE_YOUR_CALM
    assert time.thread_time() - begun < 0.005


def size_of(fields: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + FIELD_OVERHEAD_BYTES for name, value in fields)


VALUES = st.one_of(
    st.binary(max_size=300),
    st.integers(0, 8000).map(lambda count: b"a" * count),  # 5 bits each
    st.integers(0, 5000).map(lambda count: b"\xff" * count),  # 26 bits each
)
LARGE = st.lists(st.tuples(NAMES, VALUES), max_size=4)


@given(st.lists(LARGE, max_size=4), st.booleans())
def test_what_is_stepped_over_leaves_the_table_as_it_has_to_be(
    blocks: list[list[tuple[bytes, bytes]]], huffman: bool
) -> None:
    encoder, reader, limit = hpack.Encoder(), FieldReader(10_000, skips=True), 10_000
    for fields in blocks:
        block = encoder.encode(fields, huffman=huffman)
        try:
            got = reader.read(block)
        except PeerError as error:
            assert error.reply == Code.ENHANCE_YOUR_CALM  # noqa: PT017 (it need not refuse)
            assert len(block) > limit
            return
        assert got == tuple(fields)[: len(got)]
        assert reader.oversized == (len(got) < len(fields))
        assert reader.oversized or size_of(fields) <= limit
        # A string whose code is longer than what is left is too long, whatever it says.
        assert not reader.oversized or size_of(fields) + len(block) > limit


def test_a_block_that_is_too_large_for_its_number_of_fields_is_told_so() -> None:
    reader = FieldReader(LIMIT_BYTES, skips=True)
    fields = [(b"x%d" % number, b"y") for number in range(1000)]
    encoder = hpack.Encoder()
    assert reader.read(encoder.encode(fields)) == tuple(fields[:MAX_FIELDS])
    assert reader.oversized
    assert reader.read(encoder.encode(fields[-10:])) == tuple(fields[-10:])
    assert not reader.oversized


@pytest.mark.parametrize(
    "block",
    [
        hpack.Encoder().encode([(b"x", b"")]) + b"\xbe" * 30_000,
        hpack.Encoder().encode([(b"x-big", b"v" * 4000)]) + b"\xbe" * 30_000,
        # Entries of the table, each with another value of as much Huffman code as may still fit.
        b"".join(hpack.Encoder().encode([(b"%d" % number, b"\xff" * 1000)]) for number in range(70)),
        push_fields([(b"x", b"v" * 1000)] * 200),
        b"\x00\x01x\x00" * 40_000,
    ],
    ids=["references", "large references", "Huffman", "literals", "fields"],
)
def test_stepping_over_has_its_price_and_its_end(block: bytes) -> None:
    reader = FieldReader(LIMIT_BYTES, skips=True)
    begun = time.thread_time()
    try:
        reader.read(block)
        assert reader.oversized
    except PeerError as error:
        assert error.reply == Code.ENHANCE_YOUR_CALM  # noqa: PT017 (it need not refuse)
    assert time.thread_time() - begun < 0.05


def test_a_string_that_is_cut_off_is_no_large_one() -> None:
    with pytest.raises(PeerError) as error:
        FieldReader(100, skips=True).read(b"\x00\x01x\x7f\xff\xff\x03" + b"y" * 500)
    assert error.value.reply == Code.COMPRESSION_ERROR


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40), st.integers(0, 400))
def test_blocks_that_come_again_mean_what_the_table_says_now(
    turns: list[tuple[int, bool]], size: int
) -> None:
    """The same bytes mean other fields once an entry has been added, or the table has been resized."""
    encoder, reader = hpack.Encoder(), FieldReader(LIMIT_BYTES)
    for which, resize in turns:
        if resize:
            encoder.header_table_size = 4096 - encoder.header_table_size + size
        fields = [(b":method", b"GET"), (b"x-which", b"%d" % which), (b"same", b"s" * 40)]
        assert reader.read(encoder.encode(fields)) == tuple(fields)


def test_what_is_remembered_is_little_and_is_not_what_a_peer_likes() -> None:
    reader = FieldReader(LIMIT_BYTES)
    for number in range(1000):
        fields = [(b"number", b"%d" % number), (b"x", b"y" * (number % 700))]
        assert reader.read(push_fields(fields)) == tuple(fields)
        assert not reader._known
        assert len(reader._literal) <= 16
        assert all(len(block) <= 512 for block in reader._literal)


def test_who_says_nothing_twice_costs_less_to_remember_until_one_comes_again() -> None:
    reader = FieldReader(LIMIT_BYTES)
    blocks = [push_fields([(b"number", b"%d" % number)]) for number in range(1000)]

    def remembered(some: list[bytes]) -> int:
        return sum(bool(reader.read(each)) and each in reader._literal for each in some)

    assert remembered(blocks[:64]) == 64
    assert remembered(blocks[64:164]) == 12
    again = next(each for each in blocks[:164] if each in reader._literal)
    reader.read(again)
    assert reader.repeated
    assert remembered(blocks[164:228]) == 64


def test_many_references_to_a_long_entry_are_not_remembered() -> None:
    encoder, reader = hpack.Encoder(), FieldReader(LIMIT_BYTES)
    long = (b"x", b"v" * 1000)
    reader.read(encoder.encode([long]))
    block = encoder.encode([long, long, long])
    assert len(block) == 3
    assert reader.read(block) == (long, long, long)
    assert not reader._known


def test_a_block_that_is_oversized_is_so_again() -> None:
    reader = FieldReader(100, skips=True)
    block = push_fields([(b"a", b"b" * 80)])
    small = push_fields([(b"a", b"b")])
    assert [reader.read(one) and reader.oversized for one in (small, small)] == [False, False]
    for _ in range(2):
        reader.read(block)
        assert reader.oversized
    reader.read(small)
    assert not reader.oversized


def entering(*fields: tuple[bytes, bytes]) -> bytes:
    """Literals that enter the table, none of them by a reference, as nginx writes them."""
    return b"".join(b"@" + b"".join(bytes((len(text),)) + text for text in field) for field in fields)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_literals_that_come_again_enter_the_table_again(turns: list[int]) -> None:
    """Between them come references: to what was entered last, and before that."""
    reference, reader = hpack.Decoder(), FieldReader(LIMIT_BYTES)
    texts = [(b"n%d" % number, b"v" * (number * 40)) for number in range(4)]
    entered = 0
    for turn in turns:
        if turn < 4:
            block = entering(texts[turn], texts[0])
            entered += 2
        elif entered >= turn:
            block = bytes((0x80 | 61 + turn - 3, 0x80 | 61 + 1))
        else:
            continue
        expected = tuple((bytes(name), bytes(value)) for name, value in reference.decode(block, raw=True))
        assert reader.read(block) == expected
    size = sum(len(name) + len(value) + FIELD_OVERHEAD_BYTES for name, value in reader._table)
    assert (reader._table_bytes, size <= 4096) == (size, True)


def test_a_block_that_resizes_the_table_does_so_each_time() -> None:
    reader = FieldReader(LIMIT_BYTES)
    block = b"\x20" + entering((b"a", b"b"))
    for _ in range(2):
        assert reader.read(entering((b"c", b"d"))) == ((b"c", b"d"),)
        assert reader.read(block) == ((b"a", b"b"),)
        assert not reader._table
        assert reader.read(b"\x3f\xe1\x1f") == ()
    assert block not in reader._literal


@given(st.lists(FIELDS, max_size=4), st.booleans())
def test_what_is_repeated_is_the_very_same_object(
    blocks: list[list[tuple[bytes, bytes]]], indexed: bool
) -> None:
    encoder, reader = hpack.Encoder(), FieldReader(LIMIT_BYTES)
    seen: list[object] = []
    for fields in blocks * 3:
        found = reader.read(encoder.encode(fields) if indexed else push_fields(fields))
        assert reader.repeated is any(found is each for each in seen)
        seen.append(found)


def test_what_says_the_same_again_is_repeated() -> None:
    encoder, reader = hpack.Encoder(), FieldReader(LIMIT_BYTES)
    fields = [(b":method", b"GET"), (b"x-user", b"a")]
    assert [reader.read(encoder.encode(fields)) and reader.repeated for _ in range(4)] == [
        False, False, True, True
    ]  # fmt: skip
