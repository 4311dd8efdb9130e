"""A client that asks once on each of many connections, and then lets them stand until it is killed.

python -m bench.waypoint.stand HOST PORT COUNT    prints how many stand
"""

from __future__ import annotations

import resource
import socket
import sys

_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"


def stand(host: str, port: int, count: int) -> list[socket.socket]:
    """The connections; each has been answered. Raises OSError."""
    standing = []
    for _ in range(count):
        connection = socket.create_connection((host, port), timeout=10.0)
        standing.append(connection)
        connection.sendall(_REQUEST)
        if not connection.recv(1 << 16).startswith(b"HTTP/1.1 200 "):
            for each in standing:
                each.close()
            raise ConnectionAbortedError("not answered with 200")
    return standing


def main(host: str, port: str, count: str) -> None:
    """Until standard input ends."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    print(len(stand(host, int(port), int(count))), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
