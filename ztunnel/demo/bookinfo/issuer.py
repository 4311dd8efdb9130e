"""An issuer of tokens, made up for the walk: nobody else has its key."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

_COORDINATE_BYTES = 32


class Issuer:
    """Signs tokens by ES256 (RFC 7518 section 3.4)."""

    def __init__(self, name: str) -> None:
        """With a key of its own, which is gone with the process."""
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> str:
        """Its public key, as RFC 7517 writes it."""
        numbers = self._key.public_key().public_numbers()
        x, y = (_base64(number.to_bytes(_COORDINATE_BYTES, "big")) for number in (numbers.x, numbers.y))
        key = {"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "use": "sig", "x": x, "y": y}
        return json.dumps({"keys": [key]})

    def token(self, subject: str, expires_at: float) -> str:
        """One for somebody, until a time in seconds since the epoch."""
        head = {"alg": "ES256", "kid": "1", "typ": "JWT"}
        claims = {"iss": self.name, "sub": subject, "exp": int(expires_at)}
        said = ".".join(_base64(json.dumps(each).encode()) for each in (head, claims))
        numbers = decode_dss_signature(self._key.sign(said.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{said}.{_base64(b''.join(each.to_bytes(_COORDINATE_BYTES, 'big') for each in numbers))}"


def _base64(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()
