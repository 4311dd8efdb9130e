"""Certificate signing requests as Istio's certificate service takes them, made and read.

One fresh P-256 key per request, SHA-256, an empty subject, one critical URI SAN (ztunnel src/tls/csr.rs).
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ztunnel.errors import PeerError
from ztunnel.identity.san import MALFORMED, sole_identity
from ztunnel.model.identity import SpiffeId

_MAX_CHARACTERS = 16_384  # ours has some 500


class Request(NamedTuple):
    """A private key (PKCS#8 PEM, secret) and the request (PEM) that asks for a certificate over it."""

    key_pem: str
    csr_pem: str


class Asked(NamedTuple):
    """What a request asks for, its possession of the private key proved."""

    identity: SpiffeId
    public_key: ec.EllipticCurvePublicKey


def create(identity: SpiffeId) -> Request:
    """A new key, and the request for a certificate over it. Takes some 0.2 ms."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(name, critical=True).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Request(key_pem.decode(), request.public_bytes(serialization.Encoding.PEM).decode())


def parse(untrusted_pem: str) -> Asked:
    """Read a request. Its subject and whatever else it asks for beside the identity is not looked at.

    Raises:
        PeerError: not a request, another key than P-256, a signature that is not by that key, or a SAN that
            is not exactly one SPIFFE ID.
    """
    if len(untrusted_pem) > _MAX_CHARACTERS:
        raise PeerError(
            f"a signing request of {len(untrusted_pem)} characters; {_MAX_CHARACTERS} are accepted"
        )
    try:
        request = x509.load_pem_x509_csr(untrusted_pem.encode())
        key = request.public_key()
        proved = request.is_signature_valid
        extensions = request.extensions
    except MALFORMED as error:
        raise PeerError(f"not a signing request: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise PeerError("the request's key is not an EC key on P-256, the only kind that is signed here")
    if not proved:
        raise PeerError(
            "the request is not signed by its own key: possession of the private key is not proved"
        )
    return Asked(sole_identity(extensions), key)
