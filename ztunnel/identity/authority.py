"""A certificate authority of the mesh, read from PEM texts and checked before it signs anything.

What may be wrong with it is told here, when it is read, and not by peers that refuse what it has signed: each
check has its text, and last a certificate is signed and held against all that a node asks of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ztunnel.errors import ConfigError, Fault, IdentityMismatch, PeerError
from ztunnel.identity import csr, issued, template
from ztunnel.identity.ascent import NoAscent, ascend, named
from ztunnel.identity.chain import parse_certificates
from ztunnel.identity.plugged_in import Texts, read_key
from ztunnel.identity.san import MALFORMED
from ztunnel.identity.template import SigningKey
from ztunnel.model.identity import SpiffeId

_PEM = serialization.Encoding.PEM
_MAX_CERTIFICATES = 100  # in one text; a rotation needs two
_MAX_PRESENTED = 8  # intermediates; with the leaf and the roots it is what a node takes (`issued`)


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """Signs for the mesh. Made by `read_authority`; two of equal `shown` are the same to others.

    Attributes:
        certificate: the CA certificate that signs.
        presented: what goes between a leaf and the roots: the CA certificate and what vouches for it, without
            roots; empty where a root signs.
        roots: what peers are to trust, in the order of the text.
        path: the CA certificate up to the root that vouches for it.
    """

    key: SigningKey = field(repr=False)
    certificate: x509.Certificate
    presented: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    path: tuple[x509.Certificate, ...]
    name: str
    """Of the CA certificate, for messages: a path, or a Secret and its key."""

    @property
    def roots_pem(self) -> str:
        """The bundle of roots, one text."""
        return _render(self.roots)

    @property
    def not_before(self) -> datetime:
        """The latest of the path: before it, nothing that is signed is valid."""
        return max(one.not_valid_before_utc for one in self.path)

    @property
    def not_after(self) -> datetime:
        """The earliest of the path: then every leaf has expired."""
        return min(one.not_valid_after_utc for one in self.path)

    @property
    def shown(self) -> tuple[bytes, ...]:
        """All that others see of it."""
        return tuple(one.public_bytes(_PEM) for one in (self.certificate, *self.presented, *self.roots))

    def sign(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float, now: datetime) -> list[str]:
        """Sign a request for exactly `identity`, which the caller knows the requester may have.

        Takes 0.2 ms with an EC key, some ms with an RSA key.

        Returns:
            PEM texts as Istio's ztunnel takes them apart: the leaf, each intermediate, the bundle of roots.

        Raises:
            PeerError: the request is malformed, for somebody else, or does not prove possession of its key.
            ConfigError: a certificate on the path to the root has expired since it was read.
        """
        self.check_validity(now)
        asked = csr.parse(csr_pem)
        if asked.identity != identity:
            raise PeerError(f"the signing request is for {asked.identity}, the requester is {identity}")
        leaf = template.leaf(asked, ttl_seconds, self.issuer, now)
        intermediates = [one.public_bytes(_PEM).decode() for one in self.presented]
        return [leaf.public_bytes(_PEM).decode(), *intermediates, self.roots_pem]

    @property
    def issuer(self) -> template.Issuer:
        """What a certificate is signed with."""
        return template.Issuer(self.key, self.certificate, self.not_before, self.not_after)

    def check_validity(self, now: datetime) -> None:
        """Raises ConfigError if the path to the root is not valid `now`."""
        for one in self.path:
            begin, end = one.not_valid_before_utc, one.not_valid_after_utc
            what = "the root" if one is self.path[-1] else named(one)
            if now < begin:
                raise _fault(
                    self.name, f"{what} is not valid before {begin}; here it is {now}: set the clock"
                )
            if now >= end:
                raise _fault(self.name, f"{what} expired at {end}: put a new set of files in its place")


def read_authority(texts: Texts, trust_domain: str, now: datetime) -> Authority:
    """The authority that the texts make.

    Raises:
        ConfigError: what is wrong with them, every text's own faults at once; says which, why and the fix.
    """
    faults: list[Fault] = []
    key: SigningKey | None = None
    roots: list[x509.Certificate] = []
    others: list[x509.Certificate] = []
    certificates: list[x509.Certificate] = []
    try:
        key = read_key(texts.key, texts.fix)
    except ConfigError as error:
        faults.extend(error.faults)
    for text, found in ((texts.certificate, certificates), (texts.roots, roots), (texts.chain, others)):
        if text is None:
            continue
        try:
            found.extend(_read(text.content))
            if text is texts.roots:
                _check_roots(found)
        except PeerError as error:
            faults.append(Fault(text.name, 0, "", f"{error}: {texts.fix}"))
    if key is None or faults:
        raise ConfigError(*faults)
    return _join(texts, key, (certificates, others, roots), (trust_domain, now))


def _join(
    texts: Texts,
    key: SigningKey,
    found: tuple[list[x509.Certificate], list[x509.Certificate], list[x509.Certificate]],
    proof: tuple[str, datetime],
) -> Authority:
    certificates, others, roots = found
    certificate = _choose(texts, key, certificates or roots)
    name = (texts.certificate or texts.roots).name
    try:
        path = ascend(certificate, [*certificates[1:], *others], roots, proof[0])
    except NoAscent as error:
        place = name if error.where == certificate else (texts.chain or texts.roots).name
        raise _fault(place, f"{error}: {texts.fix}") from error
    presented = _presented(certificate, [*certificates[1:], *others], texts)
    authority = Authority(key, certificate, presented, tuple(roots), tuple(path), name)
    authority.check_validity(proof[1])
    _prove(authority, *proof)
    return authority


def _read(pem: bytes) -> list[x509.Certificate]:
    """The certificates in one text; each was looked into, as `cryptography` reads lazily."""
    if not pem.strip():
        return []
    found = parse_certificates(pem.decode("ascii", "replace"))
    if len(found) > _MAX_CERTIFICATES:
        raise PeerError(f"{len(found)} certificates; {_MAX_CERTIFICATES} are accepted")
    try:
        for one in found:
            _ = one.extensions, one.public_key(), one.not_valid_after_utc
    except MALFORMED as error:
        raise PeerError(f"a malformed certificate: {error}") from error
    return found


def _check_roots(roots: Iterable[x509.Certificate]) -> None:
    for one in roots:
        try:
            is_root = one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            is_root = False
        if not is_root:
            raise PeerError(f"{named(one)} is not a CA's (basicConstraints CA:TRUE is missing)")


def _choose(texts: Texts, key: SigningKey, found: Sequence[x509.Certificate]) -> x509.Certificate:
    """The certificate that the key belongs to: the first of a text of its own, else any of the roots."""
    first = texts.certificate
    if first is not None and found and found[0].public_key() != key.public_key():
        raise _fault(texts.key.name, f"not the key of the first certificate in {first.name}: {texts.fix}")
    for one in found:
        if one.public_key() == key.public_key():
            return one
    raise _fault(texts.key.name, f"not the key of a certificate in {texts.roots.name}: {texts.fix}")


def _presented(
    certificate: x509.Certificate, others: Iterable[x509.Certificate], texts: Texts
) -> tuple[x509.Certificate, ...]:
    """Istio's cert-chain.pem begins with the CA certificate and may end with the root, which peers have."""
    presented: list[x509.Certificate] = []
    for one in (certificate, *others):
        if one.subject != one.issuer and one not in presented:
            presented.append(one)
    if len(presented) > _MAX_PRESENTED:
        place = (texts.chain or texts.roots).name
        raise _fault(
            place, f"{len(presented)} intermediates, of which every leaf would carry all: leave at most "
            f"{_MAX_PRESENTED}, those from the CA certificate up to the root",
        )  # fmt: skip
    return tuple(presented)


def _prove(authority: Authority, trust_domain: str, now: datetime) -> None:
    """Sign a certificate that nobody gets, and take it as a node does."""
    identity = SpiffeId(trust_domain, "default", "default")
    request = csr.create(identity)
    try:
        answer = authority.sign(request.csr_pem, identity, 60.0, now)
        issued.accept(answer, identity, request, now)
    except (PeerError, IdentityMismatch) as error:
        raise _fault(
            authority.name, f"peers would refuse what it signs for the trust domain {trust_domain}: {error}"
        ) from error


def _render(certificates: Iterable[x509.Certificate]) -> str:
    return "".join(one.public_bytes(_PEM).decode() for one in certificates)


def _fault(name: str, message: str) -> ConfigError:
    return ConfigError(Fault(name, 0, "", message))
