"""Messages in any pieces of a stream."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.rpc.message import MessageReader, push_header
from ztunnel.rpc.status import Code, RpcError

pytestmark = pytest.mark.timeout(30)


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_any_pieces_give_the_same_messages(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(push_header(len(each)) + each for each in messages)
    reader, got, at = MessageReader(40), list[bytes](), 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        got += reader.feed(stream[at : at + step])
        at += step
    assert got == messages
    assert not reader.partial


@given(st.binary(max_size=64))
def test_garbage_gives_messages_or_an_error(untrusted: bytes) -> None:
    with suppress(RpcError):
        MessageReader(32).feed(untrusted)


@pytest.mark.parametrize(
    ("untrusted", "code"),
    [
        (b"\1\0\0\0\0", Code.UNIMPLEMENTED),
        (b"\2\0\0\0\0", Code.INTERNAL),
        (b"\0\0\0\0\x21", Code.RESOURCE_EXHAUSTED),
        (b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED),
    ],
)
def test_what_cannot_be_taken_is_refused_before_it_is_read(untrusted: bytes, code: Code) -> None:
    with pytest.raises(RpcError) as refused:
        MessageReader(32).feed(untrusted)
    assert refused.value.code is code


def test_the_largest_message_is_taken() -> None:
    reader = MessageReader(32)
    assert reader.feed(push_header(32) + bytes(31)) == []
    assert reader.partial
    assert reader.feed(b"\0") == [bytes(32)]
