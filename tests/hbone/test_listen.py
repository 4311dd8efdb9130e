"""Taking up connections on the HBONE port; how the handshake goes is `test_link`'s matter."""

from __future__ import annotations

import pytest
import trio

from tests.flow.driving import stream_pair
from tests.hbone.peers import Contexts
from ztunnel.errors import TlsFailed
from ztunnel.hbone.listen import welcome


async def test_a_failed_handshake_closes_the_socket(contexts: Contexts) -> None:
    near, far = stream_pair()
    far.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(TlsFailed):
        await welcome(near, contexts.server)
    assert near.fileno() < 0
    far.close()


async def test_silence_ends_with_the_callers_deadline_and_closes_the_socket(
    contexts: Contexts, autojump_clock: trio.testing.MockClock
) -> None:
    near, far = stream_pair()
    with pytest.raises(trio.TooSlowError), trio.fail_after(5):
        await welcome(near, contexts.server)
    assert near.fileno() < 0
    far.close()
