"""RequestAuthentication read from manifests, strictly: which tokens waypoints believe.

Fields are those of security.istio.io/v1; what else is checked is what istiod's validation refuses
(istio/istio pkg/config/validation: ValidateRequestAuthentication), and what could not be enforced: keys of no
use, headers that a request cannot do without."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ztunnel import values
from ztunnel.l7.jwt.jwks import parse_keys
from ztunnel.model.jwt import ClaimHeader, JwtRule, TokenHeader
from ztunnel.state.field import Field
from ztunnel.state.istio import read_selector, read_targets
from ztunnel.state.meta import Meta, read_meta

_RULE: Final = (
    "audiences", "forwardOriginalToken", "fromCookies", "fromHeaders", "fromParams", "issuer", "jwks",
    "jwksUri", "jwks_uri", "outputClaimToHeaders", "outputPayloadToHeader", "spaceDelimitedClaims", "timeout",
)  # fmt: skip
_MAX_RULES: Final = 64
_MAX_URL: Final = 2048
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_COOKIE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_PREFIX = re.compile(r"[ -~]{0,128}")
_NOT_TOLD: Final = frozenset(
    (
        "host", "connection", "content-length", "content-type", "transfer-encoding", "upgrade", "te",
        "trailer", "keep-alive", "proxy-connection", "expect", "x-forwarded-for", "x-forwarded-proto",
        "x-request-id",
    )
)  # fmt: skip
"""Headers that are not a token's to say: they decide where a request begins and ends, and where it goes."""


@dataclass(frozen=True, slots=True)
class RequestAuthentication:
    """A RequestAuthentication. `targets` are for waypoints; an empty selector selects everything, as none
    does. `remarks`: which keys that stand in it are of no use, and why."""

    meta: Meta
    selector: Mapping[str, str]
    targets: tuple[str, ...]
    rules: tuple[JwtRule, ...]
    remarks: tuple[str, ...] = ()


def read_request_authentication(root: Field) -> RequestAuthentication:
    """security.istio.io RequestAuthentication."""
    meta, spec = read_meta(root), root.sub("spec")
    if spec is None:
        return RequestAuthentication(meta, {}, (), ())
    spec.only(["jwtRules", "selector", "targetRef", "targetRefs"])
    rules = spec.each("jwtRules")
    if len(rules) > _MAX_RULES:
        spec.fault(f"more than {_MAX_RULES} rules")
        rules = []
    remarks = list[str]()
    read = tuple(_rule(one, remarks) for one in rules)
    return RequestAuthentication(meta, read_selector(spec), read_targets(spec), read, tuple(remarks))


def _rule(place: Field, remarks: list[str]) -> JwtRule:
    place.only(_RULE)
    url = _url(place, "jwksUri") or _url(place, "jwks_uri")
    keys = _keys(place, remarks)
    if url and keys:
        place.fault("jwks and jwksUri exclude each other")
    return JwtRule(
        issuer=_issuer(place, told=any(place.sub(name) for name in ("jwks", "jwksUri", "jwks_uri"))),
        audiences=tuple(_texts(place, "audiences", bool, "must not be empty")),
        keys=keys,
        keys_url=url,
        headers=tuple(map(_token_header, place.each("fromHeaders"))),
        params=tuple(_texts(place, "fromParams", bool, "must not be empty")),
        cookies=tuple(_texts(place, "fromCookies", _is_cookie, "is no name of a cookie")),
        payload_header=_told(place, "outputPayloadToHeader", needed=False),
        claim_headers=tuple(map(_claim_header, place.each("outputClaimToHeaders"))),
        forward=place.flag("forwardOriginalToken"),
        timeout_seconds=_timeout(place),
        space_delimited=tuple(_texts(place, "spaceDelimitedClaims", bool, "must not be empty")),
    )


def _issuer(place: Field, *, told: bool) -> str:
    """Without keys that are told, it is by the issuer that they are found."""
    issuer = place.text("issuer")
    if not told and (reason := wrong_url(issuer)):
        below = place.sub("issuer")
        (below or place).fault(f"issuer {reason}; that is needed where neither jwks nor jwksUri is given")
    return issuer


def _url(place: Field, name: str) -> str:
    below = place.sub(name)
    text = below.as_text() if below is not None else ""
    if below is not None and (reason := wrong_url(text)):
        below.fault(reason)
        return ""
    return text


def wrong_url(text: str) -> str:
    """What is wrong with an address that keys are to be fetched from; empty where nothing is."""
    try:
        parts: SplitResult = urlsplit(text)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError as error:
        return f"is no URL: {error}"
    if len(text) > _MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        return f"is no URL of up to {_MAX_URL} printable ASCII characters"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must be http://host[:port]/path or https://host[:port]/path"
    if "@" in parts.netloc:
        return "must not hold a user or password"
    return ""


def _keys(place: Field, remarks: list[str]) -> str:
    below = place.sub("jwks")
    if below is None:
        return ""
    try:
        found = parse_keys(below.as_text("{}").encode("utf-8", "replace"))
    except ValueError as error:
        below.fault(str(error))
        return ""
    remarks += [f"{below.path}: {text}" for text in found.remarks]
    return found.text


def _token_header(place: Field) -> TokenHeader:
    place.only(["name", "prefix"])
    name, prefix = place.text("name"), place.text("prefix")
    if not _HEADER.fullmatch(name):
        place.fault("name must be the name of a header")
    if not _PREFIX.fullmatch(prefix):
        place.fault("prefix must be up to 128 printable ASCII characters")
    return TokenHeader(name.lower(), prefix)


def _claim_header(place: Field) -> ClaimHeader:
    place.only(["claim", "header"])
    claim = place.text("claim")
    if not claim:
        place.fault("claim is needed")
    return ClaimHeader(_told(place, "header", needed=True), claim)


def _told(place: Field, name: str, *, needed: bool) -> str:
    """The name of a header that tells the application something."""
    below = place.sub(name)
    if below is None:
        if needed:
            place.fault(f"{name} is needed")
        return ""
    text = below.as_text("x").lower()
    if not _HEADER.fullmatch(text):
        below.fault("must be the name of a header")
    elif text in _NOT_TOLD:
        below.fault(f"{text} is not for a token to say")
    return text


def _timeout(place: Field) -> float:
    below = place.sub("timeout")
    if below is None:
        return 5.0
    try:
        return values.positive_duration(below.as_text("5s"))
    except ValueError as error:
        below.fault(f"must be {error}")
        return 5.0


def _texts(parent: Field, name: str, is_right: Callable[[str], object], message: str) -> Iterator[str]:
    for place in parent.each(name):
        text = place.as_text("-")
        if not is_right(text):
            place.fault(message)
        yield text


def _is_cookie(text: str) -> bool:
    return _COOKIE.fullmatch(text) is not None
