"""TLS as the mesh speaks it: 1.3 only, h2, certificates at both ends, nothing to resume, no key on disk.

A context is built once per certificate and never changed: handshakes under way keep the one that they began
with, the next one sees the new certificate. OpenSSL verifies the chain during the handshake; `peer` then asks
what OpenSSL does not (see `chain`).

The stdlib cannot choose the cipher suites of TLS 1.3 before Python 3.15. Until then a server prefers its own
order, which begins with AES-256-GCM, so ChaCha20 is spoken only with a peer that has nothing else.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Collection, Sequence
from datetime import datetime

from ztunnel.errors import TlsFailed
from ztunnel.identity.chain import TrustBundles, Usage, expect, verify
from ztunnel.model.identity import SpiffeId

_SUITES = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"  # ztunnel src/tls.rs
_DER = 2  # _ssl.ENCODING_DER


def server_context(key_pem: str, chain_pem: str, roots_pem: str) -> ssl.SSLContext:
    """What an HBONE server accepts connections with. Takes some 1.5 ms.

    Args:
        key_pem: the private key, PKCS#8.
        chain_pem: the leaf, then its intermediates.
        roots_pem: the roots that OpenSSL accepts clients by, one or more.

    Raises:
        ssl.SSLError: not PEM, or the key is not the leaf's.
        OSError: no file descriptor is left.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, key_pem, chain_pem, roots_pem)
    context.num_tickets = (
        0  # a resumed session would skip the verification of a changed trust (CVE-2022-21654)
    )
    return context


def client_context(key_pem: str, chain_pem: str, roots_pem: str) -> ssl.SSLContext:
    """What an HBONE client dials with; arguments and errors as of `server_context`.

    Wrap with `server_hostname=None`: the mesh sends no SNI, identities are not host names.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, key_pem, chain_pem, roots_pem)


def peer(
    tls: ssl.SSLObject | ssl.SSLSocket,
    bundles: TrustBundles,
    now: datetime,
    expected: Collection[SpiffeId] = (),
) -> SpiffeId:
    """Who is at the other end, after the handshake. Nothing may be sent or believed before this has returned.

    Args:
        expected: who may answer where we are the client; none means nobody. A server takes every identity of
            the bundles' trust domains, and policy decides.

    Raises:
        TlsFailed: the peer does not speak h2.
        IdentityMismatch: the peer's certificate is not an SVID of the mesh, or not an expected one.
    """
    usage = Usage.CLIENT if tls.server_side else Usage.SERVER
    if tls.selected_alpn_protocol() != "h2":
        failure = TlsFailed(f"the {usage} did not negotiate h2 by ALPN, so it does not speak HBONE")
        failure.side = usage.side
        raise failure
    identity = verify(peer_chain(tls), bundles, now, usage)
    if usage is Usage.SERVER:
        expect(identity, expected, usage)
    return identity


def peer_chain(tls: ssl.SSLObject | ssl.SSLSocket) -> Sequence[bytes]:
    """What the peer presented, DER, the leaf first; nothing if it presented nothing."""
    if sys.version_info >= (3, 13):
        return tls.get_unverified_chain()
    # 3.10 to 3.12 have it below the public surface only (bpo-18233).
    certificates = tls._sslobj.get_unverified_chain() or ()  # type: ignore[union-attr]
    return [certificate.public_bytes(_DER) for certificate in certificates]


def _context(role: int, key_pem: str, chain_pem: str, roots_pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(role)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if sys.version_info >= (3, 15):
        context.set_ciphersuites(_SUITES)
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=roots_pem)
    load_key(context, key_pem + chain_pem)
    return context


def load_key(context: ssl.SSLContext, key_and_chain_pem: str) -> None:
    """Through anonymous memory: the stdlib reads keys from files only, and a disk keeps what it once held."""
    memory = os.memfd_create("svid", os.MFD_CLOEXEC)
    with open(memory, "w", encoding="ascii") as file:
        file.write(key_and_chain_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{memory}")
