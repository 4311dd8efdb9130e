"""Where the keys of an issuer are had from: an address that is told, or discovery at the issuer itself
(OpenID Connect Discovery 1.0 section 4)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ztunnel.l7.jwt.strict_json import read_object
from ztunnel.model.jwt import JwtRule
from ztunnel.state.request_authentication import wrong_url

_CONFIGURATION: Final = "/.well-known/openid-configuration"


class KeySource(NamedTuple):
    """An address. `discovers`: there stands where the keys are, and not they themselves."""

    url: str
    discovers: bool = False


def source_of(rule: JwtRule) -> KeySource | None:
    """That of the keys of a rule; None where they stand in it."""
    if rule.keys:
        return None
    if rule.keys_url:
        return KeySource(rule.keys_url)
    return KeySource(rule.issuer.rstrip("/") + _CONFIGURATION, discovers=True)


def keys_url_of(untrusted: bytes) -> str:
    """`jwks_uri` of an issuer's configuration.

    Raises:
        ValueError: there is none that could be fetched.
    """
    found: Any = read_object(untrusted).get("jwks_uri")
    if not isinstance(found, str):
        raise ValueError("the configuration of the issuer has no jwks_uri")
    if reason := wrong_url(found):
        raise ValueError(f"jwks_uri of the configuration {reason}")
    return found
