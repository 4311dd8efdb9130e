"""The certificate that a control plane shows to its clients: DNS names and addresses, no identity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from ztunnel.identity.authority import Authority

_PEM = serialization.Encoding.PEM
_SKEW = timedelta(minutes=2)  # as istiod's leafs


@dataclass(frozen=True, slots=True)
class Serving:
    """A key, the chain from its certificate up to before the root, and when that is valid."""

    key_pem: str = field(repr=False)
    chain_pem: str = field(repr=False)
    not_before: datetime
    not_after: datetime


def make_serving(authority: Authority, names: Iterable[str], lifetime: timedelta, now: datetime) -> Serving:
    """A new key and its certificate, signed by the mesh's authority, whose root clients have.

    Args:
        names: DNS names and IP addresses.
        lifetime: from `now`; cut at the authority's own end.

    Raises:
        ConfigError: the authority has expired.
    """
    authority.check_validity(now)
    issuer = authority.issuer
    key = ec.generate_private_key(ec.SECP256R1())
    begin = max(now.replace(microsecond=0) - min(_SKEW, lifetime / 10), issuer.not_before)
    end = min(now + lifetime, issuer.not_after)
    alternatives = x509.SubjectAlternativeName([_name(name) for name in names])
    builder = x509.CertificateBuilder().subject_name(x509.Name([]))
    builder = builder.issuer_name(issuer.certificate.subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    builder = builder.add_extension(alternatives, critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_authority_id(issuer.certificate), critical=False)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = builder.add_extension(purposes, critical=False)
    leaf = builder.sign(issuer.key, hashes.SHA256())
    chain = "".join(one.public_bytes(_PEM).decode() for one in (leaf, *authority.presented))
    private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Serving(private.decode(), chain, begin, end)


def _authority_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """As the issuer names its key; clients that follow RFC 5280 by the letter look for it."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        own = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
