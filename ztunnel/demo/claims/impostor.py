"""Listens on 15008 in a pod that is announced as one account, with a certificate of whichever account it was given.

    python -m ztunnel.demo.claims.impostor DIRECTORY

DIRECTORY holds `chain.pem` (the leaf, then the root) and `key.pem`, read anew for every connection. For each one that
completes a handshake a line says how many bytes of the tunnel came after it: `{"bytes": 0}` if the client left.
Standard library only.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from pathlib import Path

LISTENING = "listens on 15008"
_PORT = 15008
_PATIENCE_SECONDS = 2.0


def serve(directory: Path) -> None:
    """For ever, one connection after the other."""
    listener = socket.create_server(("::", _PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    print(LISTENING, flush=True)
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
    serve(Path(sys.argv[1]))
