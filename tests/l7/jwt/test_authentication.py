"""What becomes of requests with tokens: a table of outcomes, attacks that are known, and what is sent on."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest

from tests.l7.issuers import (
    ALGORITHMS,
    ISSUER,
    NOW,
    b64,
    claims,
    jwk,
    jwks,
    key_of,
    number,
    part,
    signature,
    token,
)
from ztunnel.l7.jwt.authentication import Authentication, Check, Outcome, Rule, refusal
from ztunnel.l7.jwt.claims import NOBODY
from ztunnel.l7.jwt.jwks import parse_keys
from ztunnel.l7.jwt.proofs import Proofs
from ztunnel.l7.jwt.token import SKEW_SECONDS, Wrong
from ztunnel.l7.reply import render
from ztunnel.l7.request import Request
from ztunnel.model.jwt import ClaimHeader, JwtRule, TokenHeader

KEYS = parse_keys(jwks(*(jwk(each, each) for each in ALGORITHMS), jwk("ES256")).encode()).text
OTHER = "https://other.example"
OTHER_KEYS = parse_keys(jwks(jwk("ES256", "other")).encode()).text


def authenticated(rules: list[JwtRule]) -> Authentication:
    return Authentication(map(Rule, rules))


def rule(issuer: str = ISSUER, keys: str = KEYS, **more: Any) -> JwtRule:
    return JwtRule(issuer, keys=keys, **more)


def request(*fields: tuple[bytes, bytes], path: bytes = b"/a", method: bytes = b"GET") -> Request:
    return Request(method, b"web:80", path, list(fields))


def bearer(text: bytes, *fields: tuple[bytes, bytes]) -> Request:
    return request((b"authorization", b"Bearer " + text), *fields)


def judge(it: Authentication, asked: Request, now: float = NOW, known: Proofs | None = None) -> Outcome:
    """The outcome, with every signature checked that has to be."""
    known = Proofs() if known is None else known
    while isinstance(found := it.judge(asked, known, now), Check):
        known.check(*found)
    return found


ONE = authenticated([rule()])
FOR_US = authenticated([rule(audiences=("https://us.example/", "us"))])
ANY = authenticated([rule("")])
TWO = authenticated([rule(OTHER, OTHER_KEYS), rule()])
KEYLESS = authenticated([rule(keys="")])


def others(**more: Any) -> bytes:
    return token(claims(iss=OTHER, **more), kid="other")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_says_who_it_is(algorithm: str) -> None:
    found = judge(ONE, bearer(token(algorithm=algorithm, kid=algorithm)))
    assert (found.wrong, found.claims["sub"], found.until) == (
        None,
        "alice",
        NOW + 600 + SKEW_SECONDS,
    )


def test_without_a_token_a_request_passes_as_nobody() -> None:
    for it in (authenticated([]), ONE, TWO, KEYLESS):
        for asked in (request(), request((b"authorization", b"Basic YTpi"))):
            assert judge(it, asked) == Outcome(NOBODY, None, inf)


@pytest.mark.parametrize(
    ("it", "text", "wrong"),
    [
        (ONE, token(claims(exp=NOW - SKEW_SECONDS - 1)), Wrong.EXPIRED),
        (ONE, token(claims(exp=NOW - SKEW_SECONDS)), None),
        (ONE, token(claims(nbf=NOW + SKEW_SECONDS + 1)), Wrong.NOT_YET),
        (ONE, token(claims(exp=None)), None),
        (ONE, token(claims(iss=OTHER)), Wrong.UNKNOWN_ISSUER),
        (ONE, token(claims(iss=None)), Wrong.UNKNOWN_ISSUER),
        (ONE, token(claims(iss=ISSUER + "/")), Wrong.UNKNOWN_ISSUER),
        (ONE, token(claims(iss="")), Wrong.UNKNOWN_ISSUER),
        (ONE, token(claims(aud="whoever")), None),
        (ONE, b"garbage", Wrong.BAD_FORMAT),
        (ONE, token(kid="?"), Wrong.NO_KEY),
        (ONE, token(key=key_of("ES256", "stranger")), Wrong.UNPROVED),
        (KEYLESS, token(), Wrong.NO_KEYS),
        (FOR_US, token(claims(aud="us")), None),
        (FOR_US, token(claims(aud="http://us.example")), None),
        (FOR_US, token(claims(aud=["them", "us/"])), None),
        (FOR_US, token(claims(aud="US")), Wrong.AUDIENCE),
        (FOR_US, token(claims(aud=["them"])), Wrong.AUDIENCE),
        (FOR_US, token(claims(aud=[])), Wrong.AUDIENCE),
        (FOR_US, token(claims()), Wrong.AUDIENCE),
        (FOR_US, token(claims(aud="them", exp=1)), Wrong.EXPIRED),
        (FOR_US, token(claims(aud="them"), key=key_of("ES256", "stranger")), Wrong.AUDIENCE),
        (ANY, token(claims(iss=OTHER)), None),
        (ANY, token(claims(iss=None)), None),
        (TWO, token(), None),
        (TWO, others(), None),
        (TWO, token(claims(iss=OTHER)), Wrong.NO_KEY),
        (TWO, token(kid="other"), Wrong.NO_KEY),
        (TWO, others(exp=1), Wrong.EXPIRED),
        (TWO, token(claims(exp=1)), Wrong.EXPIRED),
        (TWO, token(claims(iss="x")), Wrong.UNKNOWN_ISSUER),
    ],
)
def test_the_outcome_of_a_token(it: Authentication, text: bytes, wrong: Wrong | None) -> None:
    found = judge(it, bearer(text))
    assert found.wrong is wrong
    assert bool(found.claims) is (wrong is None)


RSA_KEY = key_of("RS256", "RS256").public_key()


def hmac_with(secret: bytes, algorithm: str = "HS256") -> bytes:
    from cryptography.hazmat.primitives import hashes, hmac

    message = part({"alg": algorithm, "kid": "RS256"}) + b"." + part(claims())
    made = hmac.HMAC(secret, hashes.SHA256())
    made.update(message)
    return message + b"." + b64(made.finalize())


def pem() -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return RSA_KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


STRANGER = key_of("ES256", "stranger")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("alg none", part({"alg": "none"}) + b"." + part(claims()) + b"."),
        ("alg none, signed", token(header={"alg": "none"})),
        ("alg nOnE", token(header={"alg": "nOnE"})),
        ("no signature", token().rpartition(b".")[0] + b"."),
        ("signature left out", token().rpartition(b".")[0]),
        ("HMAC by the public key as PEM", hmac_with(pem())),
        ("HMAC by the public key as JWK", hmac_with(json.dumps(jwk("RS256", "RS256")).encode())),
        ("HMAC by nothing", hmac_with(b"")),
        ("HMAC by the modulus", hmac_with(number(RSA_KEY.public_numbers().n).encode())),
        ("its own key, jwk", token(key=STRANGER, header={"jwk": jwk("ES256", "stranger")})),
        ("its own key, jku", token(key=STRANGER, header={"jku": "https://evil.example/keys"})),
        ("its own key, x5u", token(key=STRANGER, header={"x5u": "https://evil.example/cert"})),
        ("its own key, x5c", token(key=STRANGER, header={"x5c": ["MIIB"]})),
        ("kid is a path", token(key=STRANGER, kid="../../dev/null")),
        ("kid is SQL", token(key=STRANGER, kid="x' UNION SELECT 'k1")),
        ("kid has a NUL", token(key=STRANGER, kid="k1\0")),
        ("kid of another key", token(key=STRANGER, kid="RS256")),
        ("no kid", token(key=STRANGER, header={"kid": None})),
        ("empty kid", token(key=STRANGER, header={"kid": ""})),
        ("r = s = 0", token().rpartition(b".")[0] + b"." + b64(b"\0" * 64)),
        ("alg of another type", token(header={"alg": "RS256"})),
        ("alg of another size", token(algorithm="ES256", kid="ES384", header={"alg": "ES384"})),
        ("crit", token(header={"crit": ["x"], "x": 1})),
        ("unencoded payload", token(header={"b64": False, "crit": ["b64"]})),
        (
            "payload changed",
            b".".join([token().split(b".")[0], part(claims(sub="root")), token().split(b".")[2]]),
        ),
        ("two subjects", token(json.dumps(claims()).encode()[:-1] + b',"sub":"root"}')),
        ("exp twice", token(b'{"exp":1,' + json.dumps(claims()).encode()[1:])),
        ("encrypted", token() + b".x.y"),
        ("JSON serialization", json.dumps({"payload": "e30", "signatures": []}).encode()),
        ("padded", token() + b"=="),
        ("padded with a line", token() + b"\n"),
        ("two in one header", token() + b"," + token()),
        ("too large", token(claims(x="x" * 20_000))),
        (
            "deeply nested",
            token(b'{"iss":"' + ISSUER.encode() + b'","x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        ),
    ],
)
def test_known_attacks_do_not_pass(name: str, text: bytes) -> None:
    for it in (ONE, ANY, TWO):
        assert judge(it, bearer(text)).wrong is not None, name


def test_the_same_token_from_another_rule_with_the_same_issuer() -> None:
    """Of two RequestAuthentications for one issuer with different keys both count."""
    it = authenticated([rule(keys=OTHER_KEYS), rule()])
    assert judge(it, bearer(token())).wrong is None
    assert judge(it, bearer(token(kid="other"))).wrong is None
    assert judge(it, bearer(token(kid="third"))).wrong is Wrong.NO_KEY


PLACES = authenticated(
    [
        rule(headers=(TokenHeader("x-jwt"), TokenHeader("x-b", "B "))),
        rule(OTHER, OTHER_KEYS, params=("t",), cookies=("session",)),
    ]
)
GOOD, EXPIRED, THEIRS = token(), token(claims(exp=1)), others()


@pytest.mark.parametrize(
    ("asked", "outcome"),
    [
        (request((b"x-jwt", GOOD)), "alice"),
        (request((b"x-b", b"B " + GOOD)), "alice"),
        (request((b"x-b", GOOD)), ""),
        (request(path=b"/?t=" + THEIRS), "alice"),
        (request((b"cookie", b"a=b; session=" + THEIRS)), "alice"),
        (request(path=b"/?t=" + GOOD), Wrong.UNKNOWN_ISSUER),
        (request((b"x-jwt", THEIRS)), Wrong.UNKNOWN_ISSUER),
        (bearer(EXPIRED), ""),
        (request(path=b"/?access_token=" + EXPIRED), ""),
        (request((b"x-jwt", GOOD), (b"x-jwt", GOOD)), "alice"),
        (request((b"x-jwt", GOOD), (b"x-jwt", EXPIRED)), Wrong.EXPIRED),
        (request((b"x-jwt", EXPIRED), (b"x-jwt", GOOD)), Wrong.EXPIRED),
        (request((b"x-jwt", GOOD), (b"x-b", b"B " + EXPIRED)), Wrong.EXPIRED),
        (request((b"x-jwt", b"")), Wrong.BAD_FORMAT),
        (request(path=b"/?t=" + THEIRS + b"&t=x"), Wrong.BAD_FORMAT),
        (request((b"cookie", b"session=" + THEIRS + b"; session=x")), Wrong.BAD_FORMAT),
        (request((b"x-jwt", EXPIRED), path=b"/?t=" + THEIRS), "alice"),
        (request((b"x-jwt", EXPIRED), path=b"/?t=x"), Wrong.EXPIRED),
    ],
)
def test_tokens_in_several_places(asked: Request, outcome: str | Wrong) -> None:
    found = judge(PLACES, asked)
    if isinstance(outcome, Wrong):
        assert found.wrong is outcome
    else:
        assert (found.wrong, found.claims.get("sub", "")) == (None, outcome)


@pytest.mark.parametrize(
    ("method", "fields", "passes"),
    [
        (b"OPTIONS", ((b"origin", b"https://a"), (b"access-control-request-method", b"GET")), True),
        (b"OPTIONS", ((b"origin", b"https://a"),), False),
        (b"OPTIONS", ((b"access-control-request-method", b"GET"),), False),
        (b"OPTIONS", ((b"origin", b""), (b"access-control-request-method", b"GET")), False),
        (b"GET", ((b"origin", b"https://a"), (b"access-control-request-method", b"GET")), False),
    ],
)
def test_only_a_preflight_request_needs_no_token(method: bytes, fields: Any, passes: bool) -> None:
    asked = request((b"authorization", b"Bearer x"), *fields, method=method)
    found = judge(ONE, asked)
    assert (found.wrong is None) is passes
    assert not found.claims


def test_a_signature_is_checked_once_and_its_time_always() -> None:
    known, asked = Proofs(), bearer(token())
    assert judge(ONE, asked, NOW, known).wrong is None
    assert judge(ONE, asked, NOW + 600, known).wrong is None
    assert (known.proved, known.remembered) == (1, 2)
    assert judge(ONE, asked, NOW + 700, known).wrong is Wrong.EXPIRED
    assert len(known) == 0


def test_a_signature_is_not_checked_where_the_token_says_enough() -> None:
    for asked in (bearer(EXPIRED), bearer(token(claims(iss="x"))), bearer(b"x.y.z"), request()):
        assert isinstance(ONE.judge(asked, Proofs(), NOW), Outcome)


def test_keys_that_have_changed_prove_anew() -> None:
    known, asked = Proofs(), bearer(token())
    assert judge(ONE, asked, NOW, known).wrong is None
    assert judge(authenticated([rule(keys=OTHER_KEYS)]), asked, NOW, known).wrong is Wrong.NO_KEY
    assert judge(ONE, asked, NOW, known).wrong is None


def test_keys_that_make_no_sense_prove_nothing() -> None:
    assert judge(authenticated([rule(keys="{")]), bearer(token())).wrong is Wrong.NO_KEYS


# What is sent on.

TELLS = rule(
    payload_header="x-payload",
    claim_headers=(
        ClaimHeader("x-user", "sub"),
        ClaimHeader("x-n", "n"),
        ClaimHeader("x-yes", "yes"),
        ClaimHeader("x-deep", "a.b"),
        ClaimHeader("x-list", "list"),
        ClaimHeader("x-evil", "evil"),
        ClaimHeader("x-none", "none"),
    ),
)
CLAIMS = claims(n=7, yes=True, a={"b": "c"}, list=["a"], evil="a\r\nx-admin: true")


def sent_on(it: Authentication, asked: Request) -> Request:
    found = judge(it, asked)
    assert found.wrong is None
    it.edit(asked, found)
    return asked


def test_an_application_is_told_claims_and_not_the_token() -> None:
    asked = sent_on(authenticated([TELLS]), bearer(token(CLAIMS), (b"accept", b"*/*")))
    assert asked.fields == [
        (b"accept", b"*/*"),
        (b"x-payload", part(CLAIMS)),
        (b"x-user", b"alice"),
        (b"x-n", b"7"),
        (b"x-yes", b"true"),
        (b"x-deep", b"c"),
    ]


@pytest.mark.parametrize(
    ("claim", "said", "told"),
    [
        ("kubernetes.io.namespace", {"kubernetes.io": {"namespace": "v"}}, b"v"),
        ("kubernetes.io", {"kubernetes.io": "v"}, b"v"),
        ("https://a.example/role", {"https://a.example/role": "v"}, b"v"),
        ("a.b.c.d", {"a": {"b": 1}, "a.b": {"c.d": "v"}}, b"v"),
        ("a.b", {"a": {"b": "v"}, "a.b": "w"}, b"v"),
        ("a.b.c", {"a.b": {"d": "w"}, "a": "w"}, b""),
        ("a.", {"a": {"": "v"}}, b"v"),
    ],
)
def test_a_dot_is_between_claims_or_in_the_name_of_one(claim: str, said: dict[str, Any], told: bytes) -> None:
    """Kubernetes' own tokens have `kubernetes.io` (google/jwt_verify_lib#104)."""
    it = authenticated([rule(claim_headers=(ClaimHeader("x-told", claim),))])
    assert sent_on(it, bearer(token(claims(**said)))).get(b"x-told") == told


@pytest.mark.parametrize("name", [b"x-user", b"x-payload", b"x_user", b"x-evil", b"x-other"])
def test_nobody_else_writes_what_a_token_says(name: bytes) -> None:
    """With a token, without one, in a preflight request, and where another rule has let it pass."""
    it = authenticated([TELLS, rule(OTHER, OTHER_KEYS, claim_headers=(ClaimHeader("x-other", "sub"),))])
    preflight = (b"origin", b"a"), (b"access-control-request-method", b"GET")
    for asked in (
        request((name, b"root")),
        bearer(others(), (name, b"root")),
        bearer(token(), (name, b"root")),
        request(*preflight, (name, b"root"), method=b"OPTIONS"),
    ):
        assert b"root" not in [value for _, value in sent_on(it, asked).fields]


def test_a_token_is_passed_on_where_the_rule_says_so() -> None:
    text = token()
    assert (
        sent_on(authenticated([rule(forward=True)]), bearer(text)).get(b"authorization") == b"Bearer " + text
    )
    assert sent_on(ONE, bearer(text)).get(b"authorization") == b""


def test_a_token_leaves_every_place_it_stood_in() -> None:
    asked = bearer(GOOD, (b"authorization", b"Basic YTpi"))
    asked.path = b"/a?access_token=" + GOOD + b"&b=1"
    sent = sent_on(ONE, asked)
    assert (sent.path, sent.fields) == (b"/a?b=1", [])


def test_a_token_that_was_not_proved_is_not_sent_on() -> None:
    """One rule has let the request pass; what stands in the places of the others was not looked at."""
    asked = request((b"x-jwt", EXPIRED), (b"x-b", b"C " + EXPIRED), path=b"/?t=" + THEIRS)
    sent = sent_on(PLACES, asked)
    assert (sent.path, sent.fields) == (b"/", [(b"x-b", b"C " + EXPIRED)])


def test_a_request_without_a_token_stays_as_it_is() -> None:
    asked = request((b"authorization", b"Basic YTpi"), path=b"/?x=1")
    assert sent_on(ONE, asked).fields == [(b"authorization", b"Basic YTpi")]


# What is answered.


def test_a_refusal_is_envoys() -> None:
    reply = refusal(request(path=b"/a?access_token=secret"), Wrong.EXPIRED)
    fields, body = render(reply, grpc=False)
    assert (reply.status, reply.flag, body) == (401, "-", b"Jwt is expired")
    assert reply.details == "jwt_authn_access_denied{Jwt_is_expired}"
    challenge = b'Bearer realm="http://web:80/a", error="invalid_token"'
    assert dict(fields)[b"www-authenticate"] == challenge


def test_a_wrong_audience_is_forbidden() -> None:
    assert refusal(request(), Wrong.AUDIENCE).status == 403


def test_a_client_of_grpc_is_told_in_its_way() -> None:
    fields, body = render(refusal(request(), Wrong.UNKNOWN_ISSUER), grpc=True)
    found = dict(fields)
    assert (found[b":status"], found[b"grpc-status"], body) == (b"200", b"16", b"")
    assert found[b"grpc-message"] == b"Jwt issuer is not configured"


def test_a_realm_cannot_be_broken_out_of() -> None:
    asked = request((b"x-forwarded-proto", b'https", x="'), path=b'/"\\' + b"x" * 500)
    challenge = refusal(asked, Wrong.EXPIRED).fields[0][1]
    assert challenge.startswith(b'Bearer realm="http://web:80/\\"\\\\xxx')
    assert len(challenge) < 350


def test_tokens_of_pss_with_the_kid_of_another_algorithm() -> None:
    """One RSA key serves RS256 and PS256 where it does not say which."""
    message = part({"alg": "PS256", "kid": "RS256"}) + b"." + part(claims())
    made = message + b"." + b64(signature("PS256", key_of("RS256", "RS256"), message))
    assert judge(ONE, bearer(made)).wrong is None


def test_nobody_passes_while_a_policy_is_not_there() -> None:
    it = Authentication(map(Rule, [rule()]), missing=True)
    for asked in (request(), bearer(token())):
        assert judge(it, asked).wrong is Wrong.NOT_RECEIVED
