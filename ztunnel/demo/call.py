"""HTTP requests from inside a network namespace, to the ports that a node proxy keeps for itself."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.kernel.netns import NetworkNamespace

_PATIENCE_SECONDS = 5.0


def get(netns: Path, port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body of `http://localhost:<port><path>` as asked inside `netns`.

    Raises:
        LaboratoryFailed: nobody listens there, or no answer came within five seconds.
    """
    try:
        with NetworkNamespace.open(netns) as namespace:
            sock = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        with sock:
            sock.settimeout(_PATIENCE_SECONDS)
            sock.connect(("127.0.0.1", port))
            return ask(sock, port, path, method)
    except (OSError, http.client.HTTPException) as error:
        raise LaboratoryFailed(f"http://localhost:{port}{path} in {netns.name}: {error}") from error


def ask(sock: socket.socket, port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body over a connected socket, which is closed. Raises OSError, HTTPException."""
    connection = http.client.HTTPConnection("localhost", port)
    connection.sock = sock
    connection.request(method, path, headers={"Connection": "close"})
    with connection.getresponse() as response:
        return response.status, response.read().decode(errors="replace")
