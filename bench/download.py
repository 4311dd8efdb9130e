"""A client that downloads `/bulk` over one connection, again and again, and says how fast it came.

python -m bench.download HOST PORT SECONDS
"""

from __future__ import annotations

import json
import socket
import sys
import time

BUFFER_BYTES = 256 * 1024


def download(host: str, port: int, seconds: float) -> tuple[int, float]:
    """Bytes of bodies that arrived, and the seconds that it took."""
    buffer = bytearray(BUFFER_BYTES)
    view = memoryview(buffer)
    total_bytes, started = 0, time.monotonic()
    with socket.create_connection((host, port), timeout=10.0) as connection:
        while time.monotonic() < started + seconds:
            connection.sendall(b"GET /bulk HTTP/1.1\r\nHost: bench\r\n\r\n")
            left_bytes = begin_body(connection)
            while left_bytes:
                count = connection.recv_into(view[: min(left_bytes, BUFFER_BYTES)])
                if not count:
                    raise EOFError("the server closed in the middle of the body")
                left_bytes -= count
                total_bytes += count
                if time.monotonic() > started + seconds:
                    return total_bytes, time.monotonic() - started
    return total_bytes, time.monotonic() - started


def begin_body(connection: socket.socket) -> int:
    """Reads the head of an answer, byte for byte; the length of its body."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise EOFError("the server closed before the body")
        head += byte
    fields = dict(line.lower().split(b": ", 1) for line in bytes(head).split(b"\r\n")[1:-2])
    return int(fields[b"content-length"])


def main(host: str, port: str, seconds: str) -> None:
    """Prints one line of JSON."""
    count, took = download(host, int(port), float(seconds))
    print(json.dumps({"bytes": count, "seconds": took}))


if __name__ == "__main__":
    main(*sys.argv[1:])
