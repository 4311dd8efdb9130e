"""How much is read at once: what leaves, encrypted, is whole pieces of the kernel's."""

from __future__ import annotations

import pytest

from tests.hbone.peers import Contexts, link_pair
from ztunnel.hbone.bulk import MOST_BYTES, bulk_bytes
from ztunnel.hbone.relay import SLICE_BYTES
from ztunnel.http2.frame import HEADER_BYTES

# TCP segments of paths of 576, 1280, 1450, 1500 and 9001 bytes, with timestamps; v6; loopback.
SEGMENTS = {524: 64_976, 1228: 65_084, 1398: 64_308, 1428: 64_260, 1448: 65_160, 8949: 62_643, 65_483: 65_483}


@pytest.mark.parametrize("segment_bytes", SEGMENTS)
def test_one_read_fills_two_pieces_and_begins_no_third(contexts: Contexts, segment_bytes: int) -> None:
    client, server = link_pair(contexts)
    client.sock.close()
    server.sock.close()
    frame = bytes(HEADER_BYTES + bulk_bytes(segment_bytes))
    for start in range(0, len(frame), SLICE_BYTES):
        client.tls.write(frame[start : start + SLICE_BYTES])
    assert len(client.outgoing.read()) == 2 * SEGMENTS[segment_bytes]


@pytest.mark.parametrize("segment_bytes", range(0, 1 << 16, 97))
def test_a_read_is_never_nothing_and_never_small(segment_bytes: int) -> None:
    assert 65_000 < bulk_bytes(segment_bytes) <= MOST_BYTES
