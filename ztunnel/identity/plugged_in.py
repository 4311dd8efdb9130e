"""The PEM texts of an authority, by the names that Istio's `cacerts` and Kubernetes' TLS Secrets give them.

| `cacerts` (Istio) | `kubernetes.io/tls` (cert-manager) | holds |
|---|---|---|
| `ca-cert.pem` | `tls.crt` | the CA certificate that signs, first |
| `ca-key.pem` | `tls.key` | its private key |
| `cert-chain.pem` | `tls.crt` | what vouches for it; may begin with it and end with the root |
| `root-cert.pem` | `ca.crt` | the roots that the mesh trusts, one or several |
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ztunnel.errors import ConfigError, Fault
from ztunnel.identity.san import MALFORMED
from ztunnel.identity.template import SigningKey

CA_CERT: Final = "ca-cert.pem"
CA_KEY: Final = "ca-key.pem"
CERT_CHAIN: Final = "cert-chain.pem"
ROOT_CERT: Final = "root-cert.pem"

_ISTIO = (CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT)
_TLS = ("tls.crt", "tls.key", "tls.crt", "ca.crt")
NAMES: Final = frozenset(_ISTIO + _TLS)

_FIX = "put the four files of one intermediate in place together (`ztunnel ca cluster` makes such a set)"
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS = range(2048, 8193)


class Text(NamedTuple):
    """One text and its name for messages: a path, or a Secret and its key."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one authority. Without `certificate`, the key's own is among the roots. `fix` is what
    every message ends with."""

    key: Text = field(repr=False)
    roots: Text
    certificate: Text | None = None
    chain: Text | None = None
    fix: str = _FIX


def is_plugged_in(names: Collection[str]) -> bool:
    """Whether a folder or Secret of these names is meant to hold an authority of the operator's."""
    return any(name in names for name in (CA_CERT, CA_KEY, "tls.crt", "tls.key"))


def assemble(found: Mapping[str, bytes], place: Callable[[str], str]) -> Texts:
    """Take the texts of `cacerts`, or of a TLS Secret where those of Istio are not there.

    Args:
        place: the name of one of `NAMES` in messages.

    Raises:
        ConfigError: one of them is missing.
    """
    certificate, key, chain, roots = _ISTIO if found.keys() & {CA_CERT, CA_KEY} else _TLS
    missing = [name for name in (certificate, key, roots) if not found.get(name, b"").strip()]
    if missing:
        raise ConfigError(*(Fault(place(name), 0, "", f"missing or empty: {_FIX}") for name in missing))

    def text(name: str) -> Text:
        return Text(place(name), found[name])

    return Texts(text(key), text(roots), text(certificate), text(chain) if chain in found else None)


def read_key(text: Text, fix: str) -> SigningKey:
    """The private key in a text.

    Raises:
        ConfigError: none, one with a password, of another kind or too weak for peers to believe.
    """
    try:
        key = serialization.load_pem_private_key(text.content, None)
    except MALFORMED as error:
        message = f"not a private key in PEM without a password ({error}): {fix}"
        raise ConfigError(Fault(text.name, 0, "", message)) from None  # the cause may quote the text
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size in _RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        message = f"a weak key of {key.key_size} bits: an EC key on a NIST curve or RSA of 2048 to 8192 bits"
        raise ConfigError(Fault(text.name, 0, "", f"{message} is believed by peers: {fix}"))
    raise ConfigError(Fault(text.name, 0, "", f"neither an EC nor an RSA key: {fix}"))
