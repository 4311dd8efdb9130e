"""Real certificates of every kind for tests: good SVIDs, and ones with exactly one thing wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ztunnel.identity.chain import TrustBundles
from ztunnel.model.identity import SpiffeId

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ALICE = SpiffeId("cluster.local", "default", "alice")
BOB = SpiffeId("cluster.local", "default", "bob")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
BOTH_ROLES = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: Key) -> str:
    private = serialization.PrivateFormat.PKCS8
    return key.private_bytes(PEM, private, serialization.NoEncryption()).decode()


def uri(text: object) -> x509.UniformResourceIdentifier:
    """A URI name; `_init_without_validation` lets through what a builder would refuse and a peer may send."""
    return x509.UniformResourceIdentifier._init_without_validation(str(text))


KEY_USAGES = [
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
]


def key_usage(*granted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in granted for name in KEY_USAGES})


@dataclass(frozen=True)
class Leaf:
    """An SVID for ALICE, good in every way until a method says otherwise. `None` leaves an extension out."""

    names: Sequence[x509.GeneralName] | None = (uri(ALICE),)
    san_critical: bool = True
    subject: x509.Name = field(default_factory=lambda: x509.Name([]))
    ca: bool | None = False
    usage: x509.KeyUsage | None = field(default_factory=lambda: key_usage("digital_signature"))
    usage_critical: bool = True
    purposes: Sequence[x509.ObjectIdentifier] | None = BOTH_ROLES
    begin: datetime = NOW - timedelta(minutes=2)
    end: datetime = NOW + timedelta(days=1)
    key: Key = field(default_factory=new_key)
    unknown_critical: bool = False

    def named(self, *names: object) -> Self:
        return replace(self, names=[n if isinstance(n, x509.GeneralName) else uri(n) for n in names])

    def but(self, **changes: object) -> Self:
        return replace(self, **changes)  # type: ignore[arg-type]

    def signed_by(self, authority: Authority) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer_name=authority.certificate.subject,
            subject_name=self.subject,
            public_key=self.key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=self.begin,
            not_valid_after=self.end,
        )
        for extension, critical in self._extensions():
            builder = builder.add_extension(extension, critical)
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
        return builder.add_extension(issuer_id, False).sign(authority.key, hashes.SHA256())

    def _extensions(self) -> list[tuple[x509.ExtensionType, bool]]:
        chosen: list[tuple[x509.ExtensionType, bool]] = []
        if self.names is not None:
            chosen.append((x509.SubjectAlternativeName(self.names), self.san_critical))
        if self.ca is not None:
            chosen.append((x509.BasicConstraints(self.ca, None), True))
        if self.usage is not None:
            chosen.append((self.usage, self.usage_critical))
        if self.purposes is not None:
            chosen.append((x509.ExtendedKeyUsage(self.purposes), False))
        if self.unknown_critical:
            chosen.append((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True))
        return chosen


@dataclass(frozen=True)
class Authority:
    """A CA of a test mesh: a root, or an intermediate made by `child`."""

    key: Key
    certificate: x509.Certificate

    @classmethod
    def root(cls, name: str = "root", end: datetime = NOW + timedelta(days=3650)) -> Self:
        key = new_key()
        return cls(key, _ca_certificate(name, key, None, end=end))

    def child(
        self,
        name: str = "intermediate",
        *,
        path_length: int | None = None,
        end: datetime = NOW + timedelta(days=365),
        purposes: Sequence[x509.ObjectIdentifier] | None = None,
        constraints: x509.NameConstraints | None = None,
    ) -> Authority:
        key = new_key()
        extra: list[x509.ExtensionType] = [x509.ExtendedKeyUsage(purposes)] if purposes else []
        extra += [constraints] if constraints else []
        certificate = _ca_certificate(name, key, self, end=end, path_length=path_length, extra=extra)
        return Authority(key, certificate)

    def crossed_by(self, other: Authority) -> Authority:
        """The same key and name, vouched for by another root."""
        name = self.certificate.subject.rfc4514_string().removeprefix("O=")
        return Authority(self.key, _ca_certificate(name, self.key, other))

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(PEM).decode()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(DER)

    def bundles(self, trust_domain: str = "cluster.local") -> TrustBundles:
        return TrustBundles({trust_domain: self.pem})

    def svid(self, leaf: Leaf | None = None) -> bytes:
        return (leaf or Leaf()).signed_by(self).public_bytes(DER)

    def keyed(self, identity: SpiffeId, **changes: object) -> tuple[str, str]:
        """A key and its SVID, both PEM."""
        leaf = Leaf().named(identity).but(**changes)
        return pem_of(leaf.key), leaf.signed_by(self).public_bytes(PEM).decode()


def _ca_certificate(
    name: str,
    key: Key,
    issuer: Authority | None,
    *,
    end: datetime = NOW + timedelta(days=365),
    path_length: int | None = None,
    extra: Sequence[x509.ExtensionType] = (),
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
    builder = x509.CertificateBuilder(
        issuer_name=issuer.certificate.subject if issuer else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=NOW - timedelta(days=10_000),
        not_valid_after=end,
    )
    builder = builder.add_extension(x509.BasicConstraints(True, path_length), True)
    builder = builder.add_extension(key_usage("key_cert_sign", "crl_sign"), True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    signer = issuer or Authority(key, None)  # type: ignore[arg-type]
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    builder = builder.add_extension(issuer_id, False)
    for extension in extra:
        builder = builder.add_extension(extension, isinstance(extension, x509.NameConstraints))
    return builder.sign(signer.key, hashes.SHA256())
