import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ztunnel.identity import csr
from ztunnel.identity.sign import open_authority
from ztunnel.model.identity import SpiffeId


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    identity = SpiffeId("cluster.local", "shop", "orders")
    request = csr.create(identity)
    now = datetime.now(UTC)
    chain = open_authority(tmp_path / "ca").sign(request.csr_pem, identity, 60.0, now)
    (tmp_path / "chain.pem").write_text("".join(chain))
    (tmp_path / "key.pem").write_text(request.key_pem)
    command = [sys.executable, "-S", "-m", "ztunnel.demo.claims.impostor", "0", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def read(impostor: subprocess.Popen[str]) -> str:
    assert impostor.stdout is not None
    return impostor.stdout.readline()


def test_it_counts_what_a_client_sends_after_the_handshake(impostor: subprocess.Popen[str]) -> None:
    port = int(read(impostor).removeprefix("listens on port "))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port)) as sock, context.wrap_socket(sock) as tls:
        assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", "h2")
        tls.sendall(b"CONNECT")
        assert json.loads(read(impostor)) == {"bytes": 7}
    with socket.create_connection(("127.0.0.1", port)) as sock, context.wrap_socket(sock):
        pass
    assert json.loads(read(impostor)) == {"bytes": 0}
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"no TLS at all")
    assert json.loads(read(impostor)) == {"bytes": 0}
