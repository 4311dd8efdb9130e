"""The certificates that our authority makes: a self-signed root, intermediates, and leafs that are SVIDs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ztunnel.errors import PeerError
from ztunnel.identity.csr import Asked

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

ROOT_LIFETIME = timedelta(days=3650)  # istiod: CITADEL_SELF_SIGNED_CA_CERT_TTL
_SKEW_SECONDS = 120.0  # istiod: ClockSkewGracePeriod, security/pkg/pki/util/generate_cert.go
_SKEW_SHARE = 0.1  # of the lifetime: half of a very short one must not lie in the past


class Issuer(NamedTuple):
    """What signs: a CA's key and certificate, and when its whole path to the root is valid."""

    key: SigningKey
    certificate: x509.Certificate
    not_before: datetime
    not_after: datetime


def root(key: SigningKey, now: datetime, lifetime: timedelta = ROOT_LIFETIME) -> x509.Certificate:
    """A self-signed root for `key`; its common name tells roots of one mesh apart."""
    name = _named("root", key)
    begin = now.replace(microsecond=0) - timedelta(seconds=_SKEW_SECONDS)
    builder = _authority(key, name, None).issuer_name(name)
    builder = builder.not_valid_before(begin).not_valid_after(begin + lifetime)
    return builder.sign(key, hashes.SHA256())


def intermediate(
    key: SigningKey,
    cluster: str,
    issuer: Issuer,
    validity: tuple[datetime, timedelta],
    trust_domain: str = "",
) -> x509.Certificate:
    """A CA certificate for `key` that signs leafs and no further CAs.

    Args:
        cluster: for its name.
        validity: the present and how long from then; cut at the issuer's own end.
        trust_domain: the only one whose identities it may vouch for, by a critical name constraint, which not
            every TLS library understands; empty for none.
    """
    now, lifetime = validity
    begin = now.replace(microsecond=0) - timedelta(seconds=_SKEW_SECONDS)
    builder = _authority(key, _named(f"intermediate {cluster}"[:47], key), 0)
    builder = builder.issuer_name(issuer.certificate.subject)
    builder = builder.not_valid_before(max(begin, issuer.not_before))
    builder = builder.not_valid_after(min(begin + lifetime, issuer.not_after))
    builder = builder.add_extension(_authority_id(issuer.certificate), critical=False)
    if trust_domain:
        names = [x509.UniformResourceIdentifier(trust_domain)]
        builder = builder.add_extension(x509.NameConstraints(names, None), critical=True)
    return builder.sign(issuer.key, hashes.SHA256())


def _named(what: str, key: SigningKey) -> x509.Name:
    """At most 64 characters (RFC 5280, ub-common-name); the end tells keys apart."""
    digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:16]
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ztunnel"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{what} {digest}"),
        ]
    )


def _authority(key: SigningKey, name: x509.Name, path_length: int | None) -> x509.CertificateBuilder:
    """What a root and an intermediate have in common."""
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = x509.CertificateBuilder().subject_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return builder.add_extension(key_id, critical=False)


def leaf(asked: Asked, ttl_seconds: float, issuer: Issuer, now: datetime) -> x509.Certificate:
    """The SVID that was asked for: P-256, one critical URI SAN, no subject, for both roles, no CA.

    Args:
        ttl_seconds: how long from `now`; cut at the issuer's own end. It begins a little before `now`,
            because clocks differ.

    Raises:
        PeerError: a lifetime that is not positive.
    """
    if not ttl_seconds > 0:
        raise PeerError(f"a lifetime of {ttl_seconds} seconds was asked for")
    now = now.replace(microsecond=0)
    skew = timedelta(seconds=min(_SKEW_SECONDS, ttl_seconds * _SKEW_SHARE))
    left_seconds = (issuer.not_after - now).total_seconds()
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(asked.identity))])
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(issuer.certificate.subject)
    builder = builder.public_key(asked.public_key).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(max(now - skew, issuer.not_before))
    builder = builder.not_valid_after(now + timedelta(seconds=min(ttl_seconds, left_seconds)))
    builder = builder.add_extension(name, critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(asked.public_key), critical=False
    )
    authority_id = _authority_id(issuer.certificate)
    return builder.add_extension(authority_id, critical=False).sign(issuer.key, hashes.SHA256())


def _authority_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The issuer's key identifier as it writes it itself; one that has none is identified by its key."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    """A root signs certificates and CRLs, a leaf signs handshakes; neither does anything else."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
