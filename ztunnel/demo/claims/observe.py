"""Looks at who serves port 15008 of a pod, as any machine on the network may: by a TLS handshake."""

from __future__ import annotations

import socket
import ssl
import tempfile
from pathlib import Path

from cryptography import x509

from ztunnel.demo.claims.certify import CHAIN_FILE, KEY_FILE, certify
from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.model.identity import SpiffeId
from ztunnel.state.lookup import HBONE_PORT

_PATIENCE_SECONDS = 3.0


def served_serial(shop: Shop, pod: str, identity: SpiffeId, source: str = "client") -> int:
    """The serial of the certificate that a pod's 15008 shows to somebody in `source` who proves `identity`.

    Raises:
        LaboratoryFailed: no handshake.
    """
    address = (str(shop.pod(pod).ip), HBONE_PORT)
    try:
        with tempfile.TemporaryDirectory() as directory, shop.network_of(source) as network:
            certify(shop, Path(directory), identity)
            context = _context(Path(directory))
            with network.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.settimeout(_PATIENCE_SECONDS)
                sock.connect(address)
                with context.wrap_socket(sock) as tls:
                    leaf = tls.getpeercert(binary_form=True)
    except OSError as error:
        raise LaboratoryFailed(f"no TLS handshake with {address}: {error}") from error
    if leaf is None:
        raise LaboratoryFailed(f"{address} shows no certificate")
    return x509.load_der_x509_certificate(leaf).serial_number


def _context(directory: Path) -> ssl.SSLContext:
    """What the peer proves is looked at, not judged."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(directory / CHAIN_FILE, directory / KEY_FILE)
    return context
