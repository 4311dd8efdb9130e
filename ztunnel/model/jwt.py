"""How a waypoint finds and proves JSON Web Tokens: the rules of a RequestAuthentication."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenHeader:
    """A header that may hold a token, its name in lower case, and what stands before the token in it."""

    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ClaimHeader:
    """A header, in lower case, that tells the application a claim; nested ones are written `a.b`."""

    header: str
    claim: str


@dataclass(frozen=True, slots=True)
class JwtRule:
    """One issuer (security.istio.io JWTRule).

    Attributes:
        issuer: that `iss` has to be; empty for any, then the keys are told.
        audiences: of which `aud` has to have one; none for any.
        keys: its JWKS, of public keys only; empty where there are none (yet): then nothing is proved.
        keys_url: where its keys are; empty with `keys` that were written down, and for discovery.
        headers, params, cookies: where its tokens are; where all are empty, in the usual places.
        payload_header: tells the application the payload, as it stands in the token; in lower case.
        claim_headers: tell it claims.
        forward: whether the application gets the token itself.
        timeout_seconds: for its keys to be fetched.
        space_delimited: claims that are lists with spaces, beside `scope` and `permission`.
    """

    issuer: str
    audiences: tuple[str, ...] = ()
    keys: str = ""
    keys_url: str = ""
    headers: tuple[TokenHeader, ...] = ()
    params: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    payload_header: str = ""
    claim_headers: tuple[ClaimHeader, ...] = ()
    forward: bool = False
    timeout_seconds: float = 5.0
    space_delimited: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JwtPolicy:
    """A RequestAuthentication, as waypoints have it."""

    name: str
    namespace: str
    rules: tuple[JwtRule, ...] = ()

    @property
    def key(self) -> str:
        """`namespace/name`: how services name it."""
        return f"{self.namespace}/{self.name}"
