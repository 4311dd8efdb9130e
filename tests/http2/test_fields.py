"""Header fields that we send, read by the hpack library."""

from __future__ import annotations

import hpack
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.http2.fields import push_fields

NAMES = st.sampled_from(
    [b":method", b":authority", b":status", b":path", b"baggage", b"x" * 200, b"forwarded"]
)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=8)


@given(FIELDS)
def test_what_we_send_is_what_hpack_reads(fields: list[tuple[bytes, bytes]]) -> None:
    assert hpack.Decoder().decode(push_fields(fields), raw=True) == fields


def test_a_200_takes_one_byte() -> None:
    assert push_fields([(b":status", b"200")]) == b"\x88"
