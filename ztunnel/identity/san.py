"""The one name in a certificate or a request for one: a single URI SAN with a SPIFFE ID."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ztunnel.errors import PeerError
from ztunnel.model.identity import SpiffeId, parse_spiffe_id

MALFORMED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    UserWarning,
)
"""What `cryptography` raises on DER from a stranger. The warning is its announcement that it will refuse such
DER later (a serial number of zero, for one): where warnings are errors, that is a refusal now."""


def sole_identity(extensions: x509.Extensions) -> SpiffeId:
    """The SPIFFE ID in the extensions of a certificate or request.

    SPIFFE X509-SVID, section 2: exactly one URI SAN. Other kinds of names (DNS, IP, e-mail) would be names
    that nobody here has checked, so they are refused as well, as CVE-2022-21656 teaches.

    Raises:
        PeerError: no SAN, another number or kind of names, or no SPIFFE ID of Istio's form.
    """
    try:
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound as error:
        raise PeerError("the certificate names nobody: it has no SAN") from error
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        raise PeerError(f"an SVID has one URI SAN and no other name, got {_shown(names)}")
    return parse_spiffe_id(names[0].value)


def _shown(names: list[x509.GeneralName]) -> str:
    """At most four names, each cut to 80 characters: they come from a stranger and go into the log."""
    shown = [f"{type(name).__name__} {str(name.value)[:80]!r}" for name in names[:4]]
    return ", ".join(shown + ["..."] * (len(names) > 4)) or "none"
