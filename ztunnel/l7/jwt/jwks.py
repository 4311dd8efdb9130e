"""Sets of public keys that tokens are proved with (RFC 7517), of which every key that can be used is used.

A key that cannot be used costs only itself, and is remarked on: one of another purpose or type, of a size
that is none, or one that is no secret any more. Sizes are those of RFC 7518 section 3.3 and of what a check
may cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from ztunnel.l7.jwt.algorithm import CURVES, EDDSA, RSA, PublicKey
from ztunnel.l7.jwt.base64url import decode
from ztunnel.l7.jwt.strict_json import read_object

MAX_BYTES: Final = 512 * 1024
MAX_KEYS: Final = 64
RSA_BITS: Final = range(2048, 8193)
_EXPONENT: Final = range(3, 1 << 32, 2)
_SECRETS: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_MEMBERS: Final = ("kty", "kid", "alg", "use", "n", "e", "crv", "x", "y")
"""What is served of a key: what is public, and read here."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the algorithms that it may have signed by. `kid` may be empty."""

    kid: str
    algorithms: frozenset[str]
    public: PublicKey


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys of one issuer.

    Attributes:
        text: as they are served: only keys that can be used, only what is public, always spelled alike.
        digest: of that text.
        remarks: which keys are not used, and why.
    """

    keys: tuple[Key, ...]
    text: str
    digest: bytes
    remarks: tuple[str, ...] = ()


NO_KEYS: Final = KeySet((), "", b"")
"""Of an issuer whose keys are not known: no token is its."""


def parse_keys(untrusted: bytes) -> KeySet:
    """A JWKS.

    Raises:
        ValueError: it is none, or has no key that can be used.
    """
    if len(untrusted) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 1024} KiB")
    try:
        found = read_object(untrusted)
    except ValueError as error:
        raise ValueError(f"is no JSON object: {error}") from error
    if "keys" not in found:
        raise ValueError("has no [keys]")
    members = found["keys"]
    if not isinstance(members, list):
        raise ValueError("[keys] is no array")
    if len(members) > MAX_KEYS:
        raise ValueError(f"has more than {MAX_KEYS} keys")
    keys, served, remarks = list[Key](), list[dict[str, Any]](), list[str]()
    for number, member in enumerate(members):
        try:
            keys.append(_key(member))
        except ValueError as error:
            remarks.append(f"keys[{number}] is not used: {error}")
            continue
        served.append({name: member[name] for name in _MEMBERS if name in member})
    if not keys:
        reasons = "; ".join(remarks[:5])
        raise ValueError(f"has no public key that can be used{reasons and f': {reasons}'}")
    text = json.dumps({"keys": served}, sort_keys=True, separators=(",", ":"))
    return KeySet(tuple(keys), text, blake2b(text.encode(), digest_size=16).digest(), tuple(remarks))


def _key(member: Any) -> Key:
    if not isinstance(member, dict):
        raise ValueError("it is no object")
    if any(name in member for name in _SECRETS):
        raise ValueError("it is or holds a secret, which is none any more")
    if _optional(member, "use") not in ("", "sig"):
        raise ValueError("its [use] is not sig")
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("its [key_ops] do not say verify")
    public, algorithms = _public(member)
    alg = _optional(member, "alg")
    if alg:
        if alg not in algorithms:
            raise ValueError(f"its [alg] {alg[:32]!r} is none of {', '.join(algorithms)}")
        algorithms = (alg,)
    return Key(_optional(member, "kid"), frozenset(algorithms), public)


def _public(member: Mapping[str, Any]) -> tuple[PublicKey, tuple[str, ...]]:
    kty = _optional(member, "kty")
    try:
        if kty == "RSA":
            return _rsa(member), RSA
        if kty == "EC":
            return _ec(member)
        if kty == "OKP":
            return _okp(member), EDDSA
    except UnsupportedAlgorithm as error:
        raise ValueError(f"it is not supported here: {error}") from error
    raise ValueError(f"its [kty] {kty[:32]!r} is none of RSA, EC, OKP")


def _rsa(member: Mapping[str, Any]) -> PublicKey:
    n, e = _number(member, "n"), _number(member, "e")
    if n.bit_length() not in RSA_BITS:
        raise ValueError(f"RSA of {n.bit_length()} bits; {RSA_BITS[0]} to {RSA_BITS[-1]} are accepted")
    if e not in _EXPONENT or not n & 1:
        raise ValueError("its [n] and [e] are no RSA key")
    return RSAPublicNumbers(e, n).public_key()


def _ec(member: Mapping[str, Any]) -> tuple[PublicKey, tuple[str, ...]]:
    curve = CURVES.get(_optional(member, "crv"))
    if curve is None:
        raise ValueError(f"its [crv] is none of {', '.join(CURVES)}")
    x, y = _octets(member, "x"), _octets(member, "y")
    if len(x) != curve.size_bytes or len(y) != curve.size_bytes:
        raise ValueError(f"its [x] and [y] are not of {curve.size_bytes} bytes")
    point = EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve.curve)
    return point.public_key(), (curve.algorithm,)


def _okp(member: Mapping[str, Any]) -> PublicKey:
    crv, x = _optional(member, "crv"), _octets(member, "x")
    if crv == "Ed25519":
        return Ed25519PublicKey.from_public_bytes(x)
    if crv == "Ed448":
        return Ed448PublicKey.from_public_bytes(x)
    raise ValueError("its [crv] is none of Ed25519, Ed448")


def _optional(member: Mapping[str, Any], name: str) -> str:
    value = member.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"its [{name}] is no string")
    return value


def _octets(member: Mapping[str, Any], name: str) -> bytes:
    value = _optional(member, name)
    try:
        return decode(value.encode("ascii").rstrip(b"="))  # some issuers pad
    except ValueError as error:  # what is not ASCII, too
        raise ValueError(f"its [{name}] is no base64url") from error


def _number(member: Mapping[str, Any], name: str) -> int:
    return int.from_bytes(_octets(member, name), "big")
