"""A JSON Web Token (RFC 7519, signed as RFC 7515 section 7.1 has it), read and not believed, and what may be
wrong with one: in the words of Envoy (jwt_verify_lib), which clients know."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import inf
from typing import Any, Final

from ztunnel.l7.jwt.algorithm import ALGORITHMS
from ztunnel.l7.jwt.base64url import decode
from ztunnel.l7.jwt.claims import texts_of
from ztunnel.l7.jwt.strict_json import read_object

MAX_BYTES: Final = 16 * 1024
SKEW_SECONDS: Final = 60.0
"""How far clocks may be apart (Envoy's clock_skew_seconds)."""


class Wrong(StrEnum):
    """Why a token is refused: the body of the reply."""

    BAD_FORMAT = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
    TOO_LARGE = "Jwt is larger than 16384 bytes"
    HEADER_BASE64 = "Jwt header is an invalid Base64url encoded"
    HEADER_JSON = "Jwt header is an invalid JSON"
    HEADER_ALG = "Jwt header [alg] field is required and must be a string"
    HEADER_ALG_UNKNOWN = "Jwt header [alg] is not supported"
    HEADER_KID = "Jwt header [kid] field is not a string"
    HEADER_CRIT = "Jwt header [crit] is not supported"
    PAYLOAD_BASE64 = "Jwt payload is an invalid Base64url encoded"
    PAYLOAD_JSON = "Jwt payload is an invalid JSON"
    ISS = "Jwt payload [iss] field is not a string"
    SUB = "Jwt payload [sub] field is not a string"
    IAT = "Jwt payload [iat] field is not an integer"
    IAT_RANGE = "Jwt payload [iat] field is not a positive 64 bit integer"
    NBF = "Jwt payload [nbf] field is not an integer"
    NBF_RANGE = "Jwt payload [nbf] field is not a positive 64 bit integer"
    EXP = "Jwt payload [exp] field is not an integer"
    EXP_RANGE = "Jwt payload [exp] field is not a positive 64 bit integer"
    JTI = "Jwt payload [jti] field is not a string"
    AUD = "Jwt payload [aud] field is not a string or string list"
    SIGNATURE_BASE64 = "Jwt signature is an invalid Base64url encoded"
    UNKNOWN_ISSUER = "Jwt issuer is not configured"
    NOT_YET = "Jwt not yet valid"
    EXPIRED = "Jwt is expired"
    AUDIENCE = "Audiences in Jwt are not allowed"
    NO_KEY = "Jwks doesn't have key to match kid or alg from Jwt"
    NO_KEYS = "Jwks doesn't have any valid public key"
    UNPROVED = "Jwt verification fails"
    NOT_RECEIVED = "RequestAuthentication is not known here yet"


class BadToken(Exception):
    """It is refused."""

    def __init__(self, wrong: Wrong) -> None:
        super().__init__(wrong.value)
        self.wrong = wrong


class Token:
    """One token.

    Attributes:
        text: as it stands in the request.
        algorithm, kid: as its header says; `kid` may be empty.
        payload: its claims; not to be believed before the signature is proved.
        payload_text: as it stands in the token.
        signed, signature: the bytes that are signed, and how.
        issuer, audiences: of the payload; empty where it says none.
        not_before, expires: seconds since the epoch; 0 and infinity where it does not say.
    """

    __slots__ = (
        "algorithm", "audiences", "expires", "issuer", "kid", "not_before", "payload", "payload_text",
        "signature", "signed", "text",
    )  # fmt: skip

    def __init__(self, untrusted: bytes) -> None:
        """Read `untrusted`, in Envoy's order.

        Raises:
            BadToken: it is none.
        """
        if len(untrusted) > MAX_BYTES:
            raise BadToken(Wrong.TOO_LARGE)
        parts = untrusted.split(b".")
        if len(parts) != 3 or not all(parts):
            raise BadToken(Wrong.BAD_FORMAT)
        self.text = untrusted
        header = _object(_decoded(parts[0], Wrong.HEADER_BASE64), Wrong.HEADER_JSON)
        self.algorithm, self.kid = _header(header)
        self.payload_text = parts[1]
        payload = self.payload = _object(_decoded(parts[1], Wrong.PAYLOAD_BASE64), Wrong.PAYLOAD_JSON)
        self.issuer = _string(payload, "iss", Wrong.ISS)
        _string(payload, "sub", Wrong.SUB)
        _seconds(payload.get("iat", 0), Wrong.IAT, Wrong.IAT_RANGE)
        self.not_before = _seconds(payload.get("nbf", 0), Wrong.NBF, Wrong.NBF_RANGE)
        self.expires = _seconds(payload["exp"], Wrong.EXP, Wrong.EXP_RANGE) if "exp" in payload else inf
        _string(payload, "jti", Wrong.JTI)
        self.audiences = _audiences(payload)
        self.signature = _decoded(parts[2], Wrong.SIGNATURE_BASE64)
        self.signed = untrusted[: len(parts[0]) + 1 + len(parts[1])]

    def check_time(self, now: float) -> None:
        """`now` are seconds since the epoch. Raises BadToken where it is not, or no longer, valid."""
        if now + SKEW_SECONDS < self.not_before:
            raise BadToken(Wrong.NOT_YET)
        if now > self.expires + SKEW_SECONDS:
            raise BadToken(Wrong.EXPIRED)


def _decoded(untrusted: bytes, wrong: Wrong) -> bytes:
    try:
        return decode(untrusted)
    except ValueError as error:
        raise BadToken(wrong) from error


def _object(untrusted: bytes, wrong: Wrong) -> dict[str, Any]:
    try:
        return read_object(untrusted)
    except ValueError as error:
        raise BadToken(wrong) from error


def _header(header: Mapping[str, Any]) -> tuple[str, str]:
    """The algorithm and `kid`. Keys, and addresses of keys, that a token brings itself (`jwk`, `jku`, `x5c`,
    `x5u`) are nobody's."""
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str):
        raise BadToken(Wrong.HEADER_ALG)
    if algorithm not in ALGORITHMS:
        raise BadToken(Wrong.HEADER_ALG_UNKNOWN)
    if not isinstance(kid, str):
        raise BadToken(Wrong.HEADER_KID)
    if "crit" in header:  # nothing that could stand there is understood (RFC 7515 section 4.1.11)
        raise BadToken(Wrong.HEADER_CRIT)
    return algorithm, kid


def _string(payload: Mapping[str, Any], name: str, wrong: Wrong) -> str:
    value = payload.get(name, "")
    if not isinstance(value, str):
        raise BadToken(wrong)
    return value


def _seconds(value: Any, wrong: Wrong, out_of_range: Wrong) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadToken(wrong)
    if not 0 <= value < 1 << 63:
        raise BadToken(out_of_range)
    return float(value)


def _audiences(payload: Mapping[str, Any]) -> tuple[str, ...]:
    value = payload.get("aud", [])
    found = texts_of(value)
    if not isinstance(value, str | list) or (isinstance(value, list) and len(found) != len(value)):
        raise BadToken(Wrong.AUD)
    return found
