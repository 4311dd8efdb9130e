"""A client that moves as much as it can over one or more connections, and says how fast that went.

python -m bench.bulk down HOST PORT SECONDS STREAMS    `/bulk`, again and again
python -m bench.bulk up HOST PORT SECONDS STREAMS      to a server that throws it away

What is moved while the buffers on the way fill does not count.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

BUFFER_BYTES = 256 * 1024
FILL_SECONDS = 0.2
_TIMEOUT_SECONDS = 10.0


@dataclass(slots=True)
class Meter:
    """Bytes that went between two moments of time.monotonic()."""

    begins: float
    ends: float
    total_bytes: int = 0

    def add(self, count: int) -> bool:
        """So many more went just now; whether it goes on."""
        now = time.monotonic()
        if self.begins <= now <= self.ends:
            self.total_bytes += count
        return now < self.ends


def download(host: str, port: int, meter: Meter) -> None:
    """Bodies, one after the other, until the meter says that it is enough. Raises OSError, EOFError."""
    buffer = bytearray(BUFFER_BYTES)
    view = memoryview(buffer)
    with socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS) as connection:
        while True:
            connection.sendall(b"GET /bulk HTTP/1.1\r\nHost: bench\r\n\r\n")
            left_bytes = begin_body(connection)
            while left_bytes:
                count = connection.recv_into(view[: min(left_bytes, BUFFER_BYTES)])
                if not count:
                    raise EOFError("the server closed in the middle of the body")
                left_bytes -= count
                if not meter.add(count):
                    return


def upload(host: str, port: int, meter: Meter) -> None:
    """Zeros, until the meter says that it is enough. Raises OSError."""
    octets = bytes(BUFFER_BYTES)
    with socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS) as connection:
        while meter.add(connection.send(octets)):
            pass


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


def move(one: Callable[[Meter], None], seconds: float, streams: int) -> tuple[int, float]:
    """So many at once; the bytes of all, and in which time."""
    begins = time.monotonic() + FILL_SECONDS
    meters = [Meter(begins, begins + seconds) for _ in range(streams)]
    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(one, meters))
    return sum(each.total_bytes for each in meters), seconds


def main(direction: str, host: str, port: str, seconds: str, streams: str) -> None:
    """Prints one line of JSON."""
    way = {"down": download, "up": upload}[direction]
    count, took = move(lambda meter: way(host, int(port), meter), float(seconds), int(streams))
    print(json.dumps({"bytes": count, "seconds": took}))


if __name__ == "__main__":
    main(*sys.argv[1:])
