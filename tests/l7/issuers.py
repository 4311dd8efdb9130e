"""Whoever signs tokens: keys of every kind, tokens good and bad, written without the product's code."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

NOW = 1_700_000_000.0
ISSUER = "https://issuer.example"
CURVES = {
    "ES256": ("P-256", ec.SECP256R1()),
    "ES384": ("P-384", ec.SECP384R1()),
    "ES512": ("P-521", ec.SECP521R1()),
}
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


def b64(octets: bytes) -> bytes:
    return urlsafe_b64encode(octets).rstrip(b"=")


def number(value: int, size: int = 0) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big")).decode()


def part(value: Any) -> bytes:
    return b64(value if isinstance(value, bytes) else json.dumps(value).encode())


def key_of(algorithm: str, kid: str = "k1", bits: int = 2048) -> Any:
    """A private key; the same for the same question, as RSA's take long to be made."""
    return _key(algorithm if algorithm in CURVES or algorithm in ("EdDSA", "Ed448") else "RSA", kid, bits)


@cache
def _key(kind: str, kid: str, bits: int) -> Any:
    if kind == "RSA":
        return rsa.generate_private_key(65537, bits)
    if kind == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    return ec.generate_private_key(CURVES[kind][1])


def jwk(algorithm: str, kid: str = "k1", *, bits: int = 2048, **more: Any) -> dict[str, Any]:
    """The public half; `more` replaces members, None leaves one out."""
    public = key_of(algorithm, kid, bits).public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        made = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        name, curve = CURVES[algorithm]
        size, at = (curve.key_size + 7) // 8, public.public_numbers()
        made = {"kty": "EC", "crv": name, "x": number(at.x, size), "y": number(at.y, size)}
    else:
        crv = "Ed448" if algorithm == "Ed448" else "Ed25519"
        made = {"kty": "OKP", "crv": crv, "x": b64(public.public_bytes_raw()).decode()}
    made |= {"kid": kid, **more}
    return {name: value for name, value in made.items() if value is not None}


def jwks(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


def signature(algorithm: str, key: Any, message: bytes) -> bytes:
    if algorithm.startswith(("RS", "PS")):
        digest = HASHES[algorithm[2:]]
        scheme = (
            padding.PKCS1v15()
            if algorithm[0] == "R"
            else padding.PSS(padding.MGF1(digest), digest.digest_size)
        )
        return key.sign(message, scheme, digest)
    if algorithm in CURVES:
        size = (CURVES[algorithm][1].key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(HASHES[algorithm[2:]])))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return key.sign(message)


def claims(**more: Any) -> dict[str, Any]:
    """Good ones; None leaves one out."""
    found = {"iss": ISSUER, "sub": "alice", "iat": int(NOW) - 10, "exp": int(NOW) + 600} | more
    return {name: value for name, value in found.items() if value is not None}


def token(
    payload: dict[str, Any] | bytes | None = None,
    algorithm: str = "ES256",
    kid: str = "k1",
    *,
    header: dict[str, Any] | bytes | None = None,
    key: Any = None,
) -> bytes:
    """A signed one. `header` adds to the usual one (None leaves a member out), or is the whole of it."""
    if not isinstance(header, bytes):
        full = {"alg": algorithm, "kid": kid or None, "typ": "JWT"} | (header or {})
        header = json.dumps({name: value for name, value in full.items() if value is not None}).encode()
    message = part(header) + b"." + part(claims() if payload is None else payload)
    return message + b"." + b64(signature(algorithm, key or key_of(algorithm, kid or "k1"), message))
