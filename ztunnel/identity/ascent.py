"""From a CA certificate to a root that peers trust: who vouches for whom, and what is wrong on the way.

The same rules as peers have (RFC 5280 section 6.1, `chain`, `path`), for a certificate that is our own: here
every failure names the certificate and the extension, for the operator who has made it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ztunnel.identity.path import covers, is_strong
from ztunnel.identity.san import MALFORMED

_MAX_DEPTH = 8  # as of `path`
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class NoAscent(Exception):
    """There is no way up; `where` is the certificate that is at fault, None where one is missing."""

    def __init__(self, message: str, where: x509.Certificate | None) -> None:
        super().__init__(message)
        self.where = where


def ascend(
    certificate: x509.Certificate,
    others: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    trust_domain: str,
) -> list[x509.Certificate]:
    """The certificate, then who vouches for it, up to one of `roots`; dates are not looked at.

    Args:
        trust_domain: whose identities are to be signed.

    Raises:
        NoAscent: one on the way may not do what it is there for, or nobody vouches for it.
    """
    path = [certificate]
    while True:
        _check_authority(path[-1], len(path) - 1, trust_domain)
        if path[-1] in roots and path[-1].subject == path[-1].issuer:  # OpenSSL trusts no other kind
            return path
        above = _above(path[-1], [*roots, *others])
        if above in path or len(path) >= _MAX_DEPTH:
            raise NoAscent(f"{named(path[-1])} does not lead to a root: the chain goes round", None)
        path.append(above)


def named(certificate: x509.Certificate) -> str:
    """A certificate in a message."""
    return f"the certificate {certificate.subject.rfc4514_string()[:200]!r}"


def _above(certificate: x509.Certificate, candidates: Sequence[x509.Certificate]) -> x509.Certificate:
    """Who has signed it."""
    namesakes = [one for one in candidates if one.subject == certificate.issuer]
    for one in namesakes:
        try:
            certificate.verify_directly_issued_by(one)
        except (InvalidSignature, *MALFORMED):
            continue
        if not isinstance(certificate.signature_hash_algorithm, _HASHES):
            raise NoAscent(f"the signature of {named(certificate)} is weak (not SHA-2)", certificate)
        return one
    issuer = certificate.issuer.rfc4514_string()[:200]
    cause = (
        f"the one of that name there has another key and has not signed {named(certificate)}"
        if namesakes
        else f"its certificate, which vouches for {named(certificate)}, is not there"
    )
    raise NoAscent(f"it does not lead to a root: the next issuer is {issuer!r}: {cause}", None)


def _check_authority(authority: x509.Certificate, between: int, trust_domain: str) -> None:
    """Whether it may sign leafs of `trust_domain`, with `between` CAs in between."""
    who = named(authority)
    found = {extension.oid: extension.value for extension in authority.extensions}
    constraints = found.get(x509.BasicConstraints.oid)
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        raise NoAscent(f"{who} is not a CA's (basicConstraints CA:TRUE is missing)", authority)
    usage = found.get(x509.KeyUsage.oid)
    if isinstance(usage, x509.KeyUsage) and not usage.key_cert_sign:
        raise NoAscent(f"{who} is not a CA's that may sign certificates (keyUsage keyCertSign)", authority)
    length = constraints.path_length
    if length is not None and between > length:
        text = f"{who} allows {length} CAs below it (pathlen), and there are {between}"
        raise NoAscent(text, authority)
    names = found.get(x509.NameConstraints.oid)
    if isinstance(names, x509.NameConstraints) and not _permits(names, trust_domain):
        text = f"{who} may not vouch for the trust domain {trust_domain} (nameConstraints)"
        raise NoAscent(text, authority)
    key = authority.public_key()
    if not is_strong(key):
        size = key.key_size if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) else 0
        raise NoAscent(f"{who} has a weak key ({type(key).__name__}, {size} bits)", authority)


def _permits(names: x509.NameConstraints, trust_domain: str) -> bool:
    if any(covers(name, trust_domain) for name in names.excluded_subtrees or ()):
        return False
    uris = [
        name for name in names.permitted_subtrees or () if isinstance(name, x509.UniformResourceIdentifier)
    ]
    return not uris or any(covers(name, trust_domain) for name in uris)
