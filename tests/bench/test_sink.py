"""The server that throws away what comes."""

from __future__ import annotations

import socket
import struct

from bench.sink import swallow


def test_everything_is_read_until_the_peer_closes_or_resets() -> None:
    here, there = socket.socketpair()
    with here:
        here.sendall(b"x" * 1000)
        here.shutdown(socket.SHUT_WR)
        assert swallow(there) == 1000
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert swallow(accepted) == 0
