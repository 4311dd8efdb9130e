"""One call's state."""

from __future__ import annotations

import pytest

from ztunnel.rpc.status import Code, RpcError
from ztunnel.rpc.stream import Stream


@pytest.mark.parametrize("length", [0, 1, (16 << 10) - 1, 16 << 10, (16 << 10) + 1, 100_000])
def test_a_message_waits_with_its_header(length: int) -> None:
    stream = Stream(1, 10)
    message = bytes(range(251)) * (length // 251 + 1)
    stream.put(message[:length])
    whole = b"".join(stream.outgoing)
    assert whole == b"\0" + length.to_bytes(4, "big") + message[:length]
    assert len(stream.outgoing) <= 2


def test_the_first_reason_counts() -> None:
    stream, calls = Stream(1, 10), list[int]()
    stream.changed = lambda: calls.append(1)
    stream.fail(RpcError(Code.CANCELLED, "first"))
    stream.fail(RpcError(Code.INTERNAL, "second"))
    assert stream.error is not None
    assert stream.error.message == "first"
    assert len(calls) == 2
