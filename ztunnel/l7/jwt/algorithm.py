"""Signatures of JSON Web Tokens (RFC 7518, RFC 8037): which key signs by which algorithm, and whether it did.

A key signs by the algorithms of its own type and curve and by no others, whatever a token says of itself:
so there is no `none`, and no public key is ever taken for a secret. HMAC is not supported: whoever can check
such a token can make one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
EDDSA: Final = ("EdDSA",)
ALGORITHMS: Final = frozenset((*RSA, "ES256", "ES384", "ES512", *EDDSA))


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve of ECDSA, its one algorithm, and the size of a coordinate in bytes."""

    curve: EllipticCurve
    algorithm: str
    size_bytes: int


CURVES: Final = {
    "P-256": Curve(SECP256R1(), "ES256", 32),
    "P-384": Curve(SECP384R1(), "ES384", 48),
    "P-521": Curve(SECP521R1(), "ES512", 66),
}
_HASHES: Final[dict[str, HashAlgorithm]] = {"256": SHA256(), "384": SHA384(), "512": SHA512()}
_COORDINATES: Final = {one.algorithm: one.size_bytes for one in CURVES.values()}


def has_signed(key: PublicKey, algorithm: str, untrusted: bytes, message: bytes) -> bool:
    """Whether `untrusted` is the signature of `message` by `key`. The algorithm is one of the key's."""
    try:
        if isinstance(key, RSAPublicKey):
            digest = _HASHES[algorithm[2:]]
            if algorithm.startswith("RS"):
                key.verify(untrusted, message, padding.PKCS1v15(), digest)
            else:
                salt = padding.PSS(padding.MGF1(digest), digest.digest_size)
                key.verify(untrusted, message, salt, digest)
        elif isinstance(key, EllipticCurvePublicKey):
            size = _COORDINATES[algorithm]
            if len(untrusted) != 2 * size:
                return False
            r, s = int.from_bytes(untrusted[:size], "big"), int.from_bytes(untrusted[size:], "big")
            key.verify(encode_dss_signature(r, s), message, ECDSA(_HASHES[algorithm[2:]]))
        else:
            key.verify(untrusted, message)
    except InvalidSignature:
        return False
    return True
