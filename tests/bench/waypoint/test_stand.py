"""Connections that ask once and stand."""

from __future__ import annotations

import socket
import threading

import pytest

from bench.waypoint.stand import stand


def serve(listener: socket.socket, answer: bytes, count: int) -> None:
    for _ in range(count):
        connection, _ = listener.accept()
        assert connection.recv(1 << 16).startswith(b"GET / HTTP/1.1\r\n")
        connection.sendall(answer)
        kept.append(connection)


kept: list[socket.socket] = []


@pytest.mark.parametrize(
    ("answer", "stands"), [(b"HTTP/1.1 200 OK\r\n\r\n", 3), (b"HTTP/1.1 503 No\r\n\r\n", 0)]
)
def test_only_what_is_answered_counts(answer: bytes, stands: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener, answer, stands or 1))
        server.start()
        try:
            if stands:
                connections = stand("127.0.0.1", listener.getsockname()[1], stands)
                assert len(connections) == stands
                for connection in connections:
                    connection.close()
            else:
                with pytest.raises(ConnectionAbortedError, match="not answered"):
                    stand("127.0.0.1", listener.getsockname()[1], 1)
        finally:
            server.join()
            while kept:
                kept.pop().close()
