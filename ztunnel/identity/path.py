"""The path from a leaf to a root, where a CA on it may only vouch for some URIs (RFC 5280 section 4.2.1.10).

`cryptography` refuses every path with name constraints on URIs, and those are what an intermediate of one
trust domain has. So such paths are looked for here, by the same rules, and by fewer: what is not known is
refused. Paths without them stay the library's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ztunnel.errors import PeerError
from ztunnel.identity.svid import Usage
from ztunnel.model.identity import SpiffeId

_MAX_DEPTH = 8  # cryptography's
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS = range(2048, 8193)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_UNDERSTOOD = frozenset(
    (
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.NameConstraints.oid,
        x509.SubjectAlternativeName.oid,
    )
)


def constrains_uris(certificates: Iterable[x509.Certificate]) -> bool:
    """Whether one of these may only vouch for some URIs."""
    return any(
        isinstance(name, x509.UniformResourceIdentifier)
        for certificate in certificates
        for name in _constrained(certificate)
    )


def find_path(
    chain: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    identity: SpiffeId,
    now: datetime,
    usage: Usage,
) -> list[x509.Certificate]:
    """The leaf, then who vouches for whom, up to one of `roots`.

    Args:
        chain: the leaf, which `check_leaf` has passed as `identity`'s, then others in any order.

    Raises:
        PeerError: there is none.
    """
    leaf, *intermediates = chain
    search = _Search(intermediates, roots, identity, now, usage)
    if not _is_understood(leaf):
        raise PeerError("no path: the peer's certificate has a critical extension that nobody knows")
    path = search.from_here([leaf])
    if path is None:
        raise PeerError(f"no path from the peer's certificate to a root of its trust domain: {search.why}")
    return path


class _Search:
    """Depth first, and not deep; `why` is what was wrong with the last candidate."""

    def __init__(
        self,
        intermediates: Sequence[x509.Certificate],
        roots: Sequence[x509.Certificate],
        identity: SpiffeId,
        now: datetime,
        usage: Usage,
    ) -> None:
        self._intermediates = intermediates
        self._roots = roots
        self._identity = identity
        self._now = now
        self._usage = usage
        self._left = 100
        self.why = "nobody vouches for it"

    def from_here(self, path: list[x509.Certificate]) -> list[x509.Certificate] | None:
        """`path` and the rest of it, up to a root."""
        for candidates in (self._roots, self._intermediates):
            for candidate in candidates:
                if candidate in path or not self._vouches(candidate, path):
                    continue
                if candidates is self._roots:
                    return [*path, candidate]
                if len(path) > _MAX_DEPTH:
                    self.why = "it is too long"
                    continue
                found = self.from_here([*path, candidate])
                if found is not None:
                    return found
        return None

    def _vouches(self, authority: x509.Certificate, path: list[x509.Certificate]) -> bool:
        """Whether `authority` has signed the path's last certificate, and may."""
        below = path[-1]
        if authority.subject != below.issuer:
            return False
        self._left -= 1  # each costs a signature: certificates of one name and key could cross each other
        if self._left < 0:
            raise PeerError("no path: too many certificates of one name")
        try:
            self._check(authority, below, len(path) - 1)
        except (PeerError, x509.ExtensionNotFound) as error:
            self.why = str(error)
            return False
        return True

    def _check(self, authority: x509.Certificate, below: x509.Certificate, between: int) -> None:
        """As `vouches`, raising why not; `between` is the number of CAs below it."""
        extensions = authority.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        length = constraints.value.path_length
        if not constraints.value.ca or not constraints.critical or not usage.value.key_cert_sign:
            raise PeerError("a certificate on it is no CA's")
        if length is not None and between > length:
            raise PeerError("a CA on it does not allow so long a path")
        if not authority.not_valid_before_utc <= self._now <= authority.not_valid_after_utc:
            raise PeerError("a CA on it is not valid now")
        if not _is_understood(authority):
            raise PeerError("a CA on it has a critical extension that nobody knows")
        for extension in extensions:
            value = extension.value
            if isinstance(value, x509.ExtendedKeyUsage) and self._usage.purpose not in value:
                raise PeerError(f"a CA on the path may not vouch for a {self._usage}")
            if isinstance(value, x509.NameConstraints):
                _check_name(self._identity, value)
        _check_signature(authority, below)


def _check_name(identity: SpiffeId, constraints: x509.NameConstraints) -> None:
    """Hold the identity against what a CA may vouch for. An SVID has no names but its URI and its subject,
    which is not judged."""
    names = [*(constraints.permitted_subtrees or ()), *(constraints.excluded_subtrees or ())]
    if any(isinstance(name, x509.DirectoryName) for name in names):
        raise PeerError("a CA on it is constrained to subjects, which is not judged here")
    if any(covers(name, identity.trust_domain) for name in constraints.excluded_subtrees or ()):
        raise PeerError(f"a CA on it may not vouch for {identity.trust_domain} (name constraints)")
    permitted = [
        name
        for name in constraints.permitted_subtrees or ()
        if isinstance(name, x509.UniformResourceIdentifier)
    ]
    if permitted and not any(covers(name, identity.trust_domain) for name in permitted):
        raise PeerError(f"a CA on it may not vouch for {identity.trust_domain} (name constraints)")


def covers(name: x509.GeneralName, trust_domain: str) -> bool:
    """A host covers itself, one with a dot in front all below it (RFC 5280 section 4.2.1.10). The host of a
    SPIFFE ID is its trust domain."""
    if not isinstance(name, x509.UniformResourceIdentifier):
        return False
    host, domain = name.value.lower(), trust_domain.lower()
    return domain.endswith(host) if host.startswith(".") else domain == host


def is_strong(key: object) -> bool:
    """Whether a CA's key is one whose signatures are believed: EC on a NIST curve, RSA of 2048 bits."""
    return (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS
    )


def _check_signature(authority: x509.Certificate, below: x509.Certificate) -> None:
    if not is_strong(authority.public_key()) or not isinstance(below.signature_hash_algorithm, _HASHES):
        raise PeerError("a signature on it is weak")
    try:
        below.verify_directly_issued_by(authority)
    except InvalidSignature as error:
        raise PeerError("a signature on it is wrong") from error


def _is_understood(certificate: x509.Certificate) -> bool:
    return all(not each.critical or each.oid in _UNDERSTOOD for each in certificate.extensions)


def _constrained(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        value = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return []
    return [*(value.permitted_subtrees or ()), *(value.excluded_subtrees or ())]
