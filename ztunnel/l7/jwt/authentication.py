"""Who a request speaks for: the rules of all RequestAuthentications that concern it, and what becomes of it.

As Istio sets Envoy's jwt_authn up: a request without a token passes, and speaks for nobody. One with a token
passes where all tokens in the places of one rule are that rule's; otherwise it is answered with 401, or 403
where only the audience is not the right one. A preflight request of CORS passes: browsers give it no token.

A pure function of the request, the time and what is known of tokens. Where a signature has to be checked
first, it says which, as that takes long: it is asked again when that is known.

```
judge ──> Check ──> proofs.check ──> judge ──> ... ──> Outcome
```
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any, Final, NamedTuple

from ztunnel.l7.jwt.claims import NOBODY, Claims, claims_of
from ztunnel.l7.jwt.credentials import Place, places_of, take_out, tokens_at
from ztunnel.l7.jwt.jwks import NO_KEYS, KeySet, parse_keys
from ztunnel.l7.jwt.proofs import Proofs
from ztunnel.l7.jwt.token import SKEW_SECONDS, BadToken, Token, Wrong
from ztunnel.l7.reply import NO_FLAG, Reply
from ztunnel.l7.request import Request
from ztunnel.model.jwt import JwtRule

_UNAUTHORIZED, _FORBIDDEN = 401, 403
_MOST_REALM: Final = 256

Parsed = dict[bytes, Token | Wrong]


class Check(NamedTuple):
    """A signature that has to be checked: `proofs.check(*check)`."""

    keys: KeySet
    token: Token


class Outcome(NamedTuple):
    """What becomes of a request.

    Attributes:
        claims: of its token; NOBODY where it passes without one.
        wrong: why it is refused; None where it passes.
        until: seconds since the epoch at which it would no longer pass.
        rule: that has let it pass, or that has refused it.
        token: that it has passed with.
        places: where that stood.
    """

    claims: Claims = NOBODY
    wrong: Wrong | None = None
    until: float = inf
    rule: Rule | None = None
    token: Token | None = None
    places: tuple[Place, ...] = ()


class Rule:
    """One rule, made ready; `policy` is the name of the one that it stands in."""

    __slots__ = ("_audiences", "keys", "places", "policy", "rule")

    def __init__(self, rule: JwtRule, policy: str = "") -> None:
        self.rule = rule
        self.policy = policy
        self.keys = _keys(rule.keys)
        self.places = places_of(rule)
        self._audiences = frozenset(map(_plain, rule.audiences))

    def prove(self, found: list[bytes], known: Proofs, parsed: Parsed, now: float) -> Token | Check:
        """The token, of those in its places; what has to be checked first. Raises BadToken."""
        good: Token | None = None
        for untrusted in found:
            token = known.find(self.keys, untrusted)
            checked = token is not None
            if token is None:
                token = _parsed(untrusted, parsed)
            if isinstance(token, Wrong):
                raise BadToken(token)
            if self.rule.issuer and token.issuer != self.rule.issuer:
                raise BadToken(Wrong.UNKNOWN_ISSUER)
            try:
                token.check_time(now)
            except BadToken:
                known.forget(self.keys, token)
                raise
            if self._audiences and self._audiences.isdisjoint(map(_plain, token.audiences)):
                raise BadToken(Wrong.AUDIENCE)
            if not checked:
                return Check(self.keys, token)
            good = good or token
        assert good is not None
        return good


class Authentication:
    """All rules that concern a request; none at all is one, too. `missing`: there are others, which are not
    known: nobody passes."""

    def __init__(self, rules: Iterable[Rule], *, missing: bool = False) -> None:
        self.rules = tuple(sorted(rules, key=_issuer))
        self._missing = missing
        told = {one.rule.payload_header for one in self.rules}
        told.update(each.header for one in self.rules for each in one.rule.claim_headers)
        self._told = frozenset(_alike(name.encode()) for name in told if name)

    @property
    def wants_nothing(self) -> bool:
        """Whether every request passes as it is."""
        return not self.rules and not self._missing

    def judge(self, request: Request, known: Proofs, now: float) -> Outcome | Check:
        """`now` are seconds since the epoch. The request stays as it is (`edit`)."""
        if self._missing:
            return Outcome(wrong=Wrong.NOT_RECEIVED)
        if not self.rules or _is_preflight(request):
            return Outcome()
        parsed: Parsed = {}
        worst: Wrong | None = None
        refused_by: Rule | None = None
        for rule in self.rules:
            at = [(place, each) for place in rule.places for each in tokens_at(request, place)]
            if not at:
                continue
            try:
                token = rule.prove([each for _, each in at], known, parsed, now)
            except BadToken as error:
                if worst is None or worst is Wrong.UNKNOWN_ISSUER:
                    worst, refused_by = error.wrong, rule
                continue
            if isinstance(token, Check):
                return token
            places = tuple(dict.fromkeys(place for place, _ in at))
            claims = claims_of(token.payload, rule.rule.space_delimited)
            return Outcome(claims, None, token.expires + SKEW_SECONDS, rule, token, places)
        return Outcome(wrong=worst, rule=refused_by)

    def edit(self, request: Request, outcome: Outcome) -> None:
        """Make of a request that passes the one that the application gets: without headers that only we may
        write, without the token, with what it is to be told."""
        if self._told:
            request.fields = [field for field in request.fields if _alike(field[0]) not in self._told]
        rule, token = outcome.rule, outcome.token
        if rule is None or token is None:
            return
        if not rule.rule.forward:
            for place in outcome.places:
                take_out(request, place)
        for place in {place for other in self.rules for place in other.places}.difference(outcome.places):
            if tokens_at(request, place):  # one that nobody has proved
                take_out(request, place)
        if rule.rule.payload_header:
            request.fields.append((rule.rule.payload_header.encode(), token.payload_text))
        for each in rule.rule.claim_headers:
            value = _told_value(token.payload, each.claim)
            if value:
                request.fields.append((each.header.encode(), value))


def refusal(request: Request, wrong: Wrong) -> Reply:
    """The reply to a request that does not pass (Envoy's jwt_authn filter, onComplete). The realm is what was
    asked for, without a query: a token may stand in it."""
    status = _FORBIDDEN if wrong is Wrong.AUDIENCE else _UNAUTHORIZED
    scheme = b"https" if request.get(b"x-forwarded-proto") == b"https" else b"http"
    path = request.path.partition(b"?")[0][:_MOST_REALM]
    realm = scheme + b"://" + request.authority + path
    quoted = realm.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    challenge = b'Bearer realm="' + quoted + b'", error="invalid_token"'
    details = "jwt_authn_access_denied{" + "_".join(wrong.value.split()) + "}"
    return Reply(status, NO_FLAG, details, wrong.value, fields=((b"www-authenticate", challenge),))


def _is_preflight(request: Request) -> bool:
    return (
        request.method == b"OPTIONS"
        and bool(request.get(b"origin"))
        and bool(request.get(b"access-control-request-method"))
    )


def _parsed(untrusted: bytes, parsed: Parsed) -> Token | Wrong:
    found = parsed.get(untrusted)
    if found is None:
        try:
            found = Token(untrusted)
        except BadToken as error:
            found = error.wrong
        parsed[untrusted] = found
    return found


def _keys(text: str) -> KeySet:
    """What a control plane sent; it has been parsed there before."""
    if not text:
        return NO_KEYS
    try:
        return parse_keys(text.encode())
    except ValueError:
        return NO_KEYS


def _issuer(rule: Rule) -> str:
    return rule.rule.issuer


def _plain(audience: str) -> str:
    """An audience without scheme and last slash (Envoy's jwt_verify_lib, sanitizeAudience)."""
    return audience.removeprefix("http://").removeprefix("https://").removesuffix("/")


def _alike(name: bytes) -> bytes:
    """Names that applications may take for the same: CGI and WSGI know no dash."""
    return name.replace(b"_", b"-")


def _told_value(payload: dict[str, Any], claim: str) -> bytes:
    """A claim as a header can have it: texts, numbers and booleans; empty for what cannot stand there."""
    found = _nested(payload, claim)
    if isinstance(found, bool):
        return b"true" if found else b"false"
    if isinstance(found, int | float):
        return str(found).encode()
    if not isinstance(found, str):
        return b""
    value = found.encode("utf-8", "replace").strip()
    return b"" if any(octet < 32 or octet == 127 for octet in value) else value


def _nested(payload: Any, claim: str) -> Any:
    """The claim of that name, in which a dot stands between one and what is in it, as with Envoy, or else in
    a name itself (`kubernetes.io.namespace`: google/jwt_verify_lib#104). None: there is none."""
    if not isinstance(payload, dict):
        return None
    at = claim.find(".")
    while at >= 0:
        begin = claim[:at]
        if begin in payload:
            found = _nested(payload[begin], claim[at + 1 :])
            if found is not None:
                return found
        at = claim.find(".", at + 1)
    return payload.get(claim)


NO_RULES: Final = Authentication(())
"""Whose requests speak for nobody, and pass."""
