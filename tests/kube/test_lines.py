"""Lines are the same however their bytes are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.kube.lines import Lines


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=8).map(lambda part: part.replace(b"\n", b"n")), max_size=8), st.data())
def test_any_cut_gives_the_same_lines(parts, data):
    whole = b"\n".join([*parts, b"rest"])
    lines, found, at = Lines(), [], 0
    while at < len(whole):
        size = data.draw(st.integers(1, len(whole) - at))
        found += lines.feed(whole[at : at + size])
        at += size
    assert found == [part.strip() for part in parts if part.strip()]


def test_a_line_may_not_be_endless():
    lines = Lines(max_bytes=10)
    assert list(lines.feed(b"0123456789\n0123")) == [b"0123456789"]
    with pytest.raises(PeerError):
        list(lines.feed(b"4567890"))
