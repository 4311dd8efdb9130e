"""Listens where a pod of one account should, on 15008, with a certificate of whichever account it was given.

    python -m ztunnel.demo.claims.impostor PORT DIRECTORY

DIRECTORY holds `chain.pem` (the leaf, then the root) and `key.pem`, read anew for every connection. For each
one a line says how many bytes of a tunnel came after the handshake: `{"bytes": 0}` where the client left, or
refused earlier. Standard library only.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from pathlib import Path

LISTENING = "listens on port"
_PATIENCE_SECONDS = 2.0


def serve(port: int, directory: Path) -> None:
    """For ever, one connection after the other."""
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    print(LISTENING, listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        sock.settimeout(_PATIENCE_SECONDS)
        try:
            print(json.dumps({"bytes": _bytes_after_handshake(sock, directory)}), flush=True)
        except OSError:  # ssl.SSLError is one: the client refused during the handshake
            print(json.dumps({"bytes": 0}), flush=True)


def _bytes_after_handshake(sock: socket.socket, directory: Path) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(directory / "chain.pem", directory / "key.pem")
    with context.wrap_socket(sock, server_side=True) as tls:
        return len(tls.recv(1 << 14))


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
