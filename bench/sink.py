"""A server that reads and throws away what comes.

python -m bench.sink PORT
"""

from __future__ import annotations

import socket
import sys
from concurrent.futures import ThreadPoolExecutor

_BUFFER_BYTES = 256 * 1024
_CONNECTIONS = 64


def swallow(connection: socket.socket) -> int:
    """Until the peer closes; how many bytes came."""
    buffer, total_bytes = bytearray(_BUFFER_BYTES), 0
    with connection:
        try:
            while count := connection.recv_into(buffer):
                total_bytes += count
        except ConnectionError:  # the peer may end as it likes
            return total_bytes
    return total_bytes


def main(port: str) -> None:
    """Until killed."""
    with (
        socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        ThreadPoolExecutor(_CONNECTIONS) as pool,
    ):
        while True:
            connection, _ = listener.accept()
            pool.submit(swallow, connection)


if __name__ == "__main__":
    main(*sys.argv[1:])
