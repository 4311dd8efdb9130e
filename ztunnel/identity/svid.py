"""The rules of SPIFFE X509-SVID on a leaf certificate by itself, which no TLS library enforces."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ztunnel.errors import PeerError, Side
from ztunnel.identity.san import MALFORMED, sole_identity
from ztunnel.model.identity import SpiffeId

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS = range(2048, 8193)  # below is broken, above only costs us time


class Usage(StrEnum):
    """The role in which the peer presents its certificate."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def purpose(self) -> x509.ObjectIdentifier:
        """The extended key usage that the role needs."""
        return ExtendedKeyUsageOID.CLIENT_AUTH if self is Usage.CLIENT else ExtendedKeyUsageOID.SERVER_AUTH

    @property
    def side(self) -> Side:
        """Where the operator looks when the peer's certificate is wrong."""
        return Side.SOURCE if self is Usage.CLIENT else Side.DESTINATION


def check_leaf(untrusted: x509.Certificate, now: datetime, usage: Usage) -> SpiffeId:
    """Whom the leaf names, by SPIFFE X509-SVID, sections 2 to 4. Says nothing of who signed it.

    Stricter than SPIFFE in one point: the extended key usage must be there. Every issuer of a mesh sets it.

    Raises:
        PeerError: the leaf is no SVID, not one for this role, or not valid now.
    """
    try:
        extensions = untrusted.extensions
        identity = sole_identity(extensions)
        _check_extensions(extensions, identity, usage)
        _check_key(untrusted, identity)
        if not len(untrusted.subject) and not _critical_san(extensions):
            raise PeerError(f"the certificate of {identity} has no subject, so its SAN must be critical")
        if untrusted.serial_number <= 0:
            raise PeerError(f"the certificate of {identity} has no positive serial number")
        begin, end = untrusted.not_valid_before_utc, untrusted.not_valid_after_utc
    except MALFORMED as error:
        raise PeerError(f"the peer presented a malformed certificate: {error}") from error
    if now < begin:
        raise PeerError(f"the certificate of {identity} is not valid before {begin}; here it is {now}")
    if now > end:
        raise PeerError(f"the certificate of {identity} expired at {end}; here it is {now}")
    return identity


def _check_extensions(extensions: x509.Extensions, identity: SpiffeId, usage: Usage) -> None:
    found = {extension.oid: extension for extension in extensions}
    constraints = found.get(x509.BasicConstraints.oid)
    if constraints is not None and constraints.value.ca:
        raise PeerError(f"the certificate of {identity} is a CA's, not a workload's")
    key_usage = found.get(x509.KeyUsage.oid)
    if key_usage is None or not key_usage.critical or not key_usage.value.digital_signature:
        raise PeerError(f"the certificate of {identity} lacks the critical key usage digitalSignature")
    # keyEncipherment passes: SPIFFE allows it and istiod sets it (security/pkg/pki/util/generate_cert.go).
    if key_usage.value.key_cert_sign or key_usage.value.crl_sign:
        raise PeerError(f"the certificate of {identity} may sign certificates or CRLs; a workload's may not")
    purposes = found.get(x509.ExtendedKeyUsage.oid)
    if purposes is None or usage.purpose not in purposes.value:
        raise PeerError(f"the certificate of {identity} is not for a {usage} (extended key usage)")


def _check_key(leaf: x509.Certificate, identity: SpiffeId) -> None:
    """`x509.verification` looks at the keys of those who sign, not at the leaf's (tried: cryptography 50)."""
    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        return
    raise PeerError(
        f"the certificate of {identity} has a weak key, neither EC on a NIST curve nor RSA of 2048 bits"
    )


def _critical_san(extensions: x509.Extensions) -> bool:
    """RFC 5280, 4.2.1.6: with an empty subject the SAN is critical."""
    return extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
