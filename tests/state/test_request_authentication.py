"""RequestAuthentication is read strictly: every wrong thing is found, at its field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.l7.issuers import jwk, jwks
from ztunnel.l7.jwt.jwks import parse_keys
from ztunnel.model.jwt import ClaimHeader, JwtRule, TokenHeader
from ztunnel.state.manifest import Notes, compose
from ztunnel.state.request_authentication import read_request_authentication

KEYS = jwks(jwk("ES256"))
SERVED = parse_keys(KEYS.encode()).text


def read(spec: Any) -> tuple[Any, list[tuple[str, str]]]:
    notes = Notes()
    text = json.dumps({"metadata": {"name": "a", "namespace": "n"}, "spec": spec})
    found = read_request_authentication(compose(text, notes))
    return found, [(fault.field, fault.message) for fault in notes.faults]


def test_everything_is_read() -> None:
    found, faults = read(
        {
            "targetRefs": [{"kind": "Service", "name": "web", "group": ""}],
            "jwtRules": [
                {"issuer": "https://i", "jwks": KEYS},
                {
                    "issuer": "me",
                    "audiences": ["a", "b"],
                    "jwksUri": "https://k:8443/keys?x=y",
                    "fromHeaders": [{"name": "X-Jwt", "prefix": "JWT "}, {"name": "x-b"}],
                    "fromParams": ["t"],
                    "fromCookies": ["session"],
                    "outputPayloadToHeader": "X-Payload",
                    "outputClaimToHeaders": [{"header": "X-User", "claim": "a.b"}],
                    "forwardOriginalToken": True,
                    "timeout": "2.5s",
                    "spaceDelimitedClaims": ["roles"],
                },
            ],
        }
    )
    assert faults == []
    assert (found.meta.name, found.selector, found.targets) == ("a", {}, ("Service web",))
    assert found.rules == (
        JwtRule("https://i", keys=SERVED),
        JwtRule(
            "me",
            ("a", "b"),
            "",
            "https://k:8443/keys?x=y",
            (TokenHeader("x-jwt", "JWT "), TokenHeader("x-b")),
            ("t",),
            ("session",),
            "x-payload",
            (ClaimHeader("x-user", "a.b"),),
            True,
            2.5,
            ("roles",),
        ),
    )


def test_nothing_is_a_request_authentication_too() -> None:
    for spec in ({}, {"jwtRules": []}):
        found, faults = read(spec)
        assert (found.rules, found.targets, found.selector, faults) == ((), (), {}, [])


def test_a_selector_and_an_issuer_without_keys() -> None:
    found, faults = read({"selector": {"matchLabels": {"app": "a"}}, "jwtRules": [{"issuer": "https://i/"}]})
    assert (found.selector, found.rules, faults) == ({"app": "a"}, (JwtRule("https://i/"),), [])


def test_keys_of_no_use_are_remarked_on() -> None:
    found, faults = read(
        {"jwtRules": [{"issuer": "i", "jwks": jwks(jwk("ES256"), {"kty": "oct", "k": "AA"})}]}
    )
    assert faults == []
    assert found.remarks == (
        "spec.jwtRules[0].jwks: keys[1] is not used: it is or holds a secret, which is none any more",
    )


URL = "must be http://host[:port]/path or https://host[:port]/path"


@pytest.mark.parametrize(
    ("rule", "field", "message"),
    [
        ({}, "", f"issuer {URL}; that is needed where neither jwks nor jwksUri is given"),
        ({"issuer": "i"}, ".issuer", f"issuer {URL}; that is needed where neither jwks nor jwksUri is given"),
        ({"issuer": "me@example.com"}, ".issuer", None),
        ({"issuer": 7, "jwks": KEYS}, ".issuer", "must be a string, is a number; write it in quotes"),
        ({"issuer": "i", "jwks": KEYS, "jwksUri": "https://k/"}, "", "jwks and jwksUri exclude each other"),
        ({"issuer": "i", "jwks": "{}"}, ".jwks", "has no [keys]"),
        ({"issuer": "i", "jwks": "{"}, ".jwks", None),
        ({"issuer": "i", "jwks": jwks({"kty": "oct", "k": "AA"})}, ".jwks", None),
        ({"issuer": "i", "jwksUri": "ftp://k/"}, ".jwksUri", URL),
        ({"issuer": "i", "jwksUri": "file:///etc/passwd"}, ".jwksUri", URL),
        ({"issuer": "i", "jwksUri": "k/keys"}, ".jwksUri", URL),
        ({"issuer": "i", "jwksUri": ""}, ".jwksUri", URL),
        ({"issuer": "i", "jwksUri": "http:///keys"}, ".jwksUri", URL),
        ({"issuer": "i", "jwksUri": "http://k:x/"}, ".jwksUri", None),
        ({"issuer": "i", "jwksUri": "http://k:99999/"}, ".jwksUri", None),
        ({"issuer": "i", "jwksUri": "http://[::1/"}, ".jwksUri", None),
        ({"issuer": "i", "jwksUri": "http://u:p@k/"}, ".jwksUri", "must not hold a user or password"),
        ({"issuer": "i", "jwksUri": "http://k/ x"}, ".jwksUri", None),
        ({"issuer": "i", "jwksUri": "http://k/\r\nx: y"}, ".jwksUri", None),
        ({"issuer": "i", "jwksUri": "http://k/" + "x" * 3000}, ".jwksUri", None),
        ({"issuer": "i", "jwks_uri": "x"}, ".jwks_uri", URL),
        ({"issuer": "i", "jwks": KEYS, "audience": ["a"]}, ".audience",
         "unknown field; did you mean audiences?"),
        ({"issuer": "i", "jwks": KEYS, "audiences": [""]}, ".audiences[0]", "must not be empty"),
        ({"issuer": "i", "jwks": KEYS, "audiences": "a"}, ".audiences", "must be a list, is a string"),
        ({"issuer": "i", "jwks": KEYS, "fromHeaders": [{}]}, ".fromHeaders[0]",
         "name must be the name of a header"),
        ({"issuer": "i", "jwks": KEYS, "fromHeaders": [{"name": "a b"}]}, ".fromHeaders[0]", None),
        ({"issuer": "i", "jwks": KEYS, "fromHeaders": [{"name": ":path"}]}, ".fromHeaders[0]", None),
        ({"issuer": "i", "jwks": KEYS, "fromHeaders": [{"name": "a", "prefix": "\n"}]}, ".fromHeaders[0]",
         None),
        ({"issuer": "i", "jwks": KEYS, "fromHeaders": [{"name": "a", "value": "b"}]},
         ".fromHeaders[0].value", None),
        ({"issuer": "i", "jwks": KEYS, "fromParams": [""]}, ".fromParams[0]", "must not be empty"),
        ({"issuer": "i", "jwks": KEYS, "fromCookies": ["a;b"]}, ".fromCookies[0]", "is no name of a cookie"),
        ({"issuer": "i", "jwks": KEYS, "outputPayloadToHeader": "a:b"}, ".outputPayloadToHeader", None),
        ({"issuer": "i", "jwks": KEYS, "outputPayloadToHeader": "Host"}, ".outputPayloadToHeader",
         "host is not for a token to say"),
        ({"issuer": "i", "jwks": KEYS, "outputClaimToHeaders": [{"claim": "a"}]}, ".outputClaimToHeaders[0]",
         "header is needed"),
        ({"issuer": "i", "jwks": KEYS, "outputClaimToHeaders": [{"header": "a"}]}, ".outputClaimToHeaders[0]",
         "claim is needed"),
        ({"issuer": "i", "jwks": KEYS, "outputClaimToHeaders": [{"header": "Content-Length", "claim": "a"}]},
         ".outputClaimToHeaders[0].header", "content-length is not for a token to say"),
        ({"issuer": "i", "jwks": KEYS, "forwardOriginalToken": "yes"}, ".forwardOriginalToken", None),
        ({"issuer": "i", "jwks": KEYS, "timeout": "soon"}, ".timeout", None),
        ({"issuer": "i", "jwks": KEYS, "timeout": "0s"}, ".timeout", None),
        ({"issuer": "i", "jwks": KEYS, "timeout": 5}, ".timeout", None),
        ({"issuer": "i", "jwks": KEYS, "spaceDelimitedClaims": [""]}, ".spaceDelimitedClaims[0]", None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_where_it_is(rule: dict[str, Any], field: str, message: str | None) -> None:
    _, faults = read({"jwtRules": [rule]})
    assert [where for where, _ in faults] == [f"spec.jwtRules[0]{field}"]
    assert message is None or faults[0][1] == message


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"jwtRule": []}, "spec.jwtRule"),
        ({"jwtRules": {}}, "spec.jwtRules"),
        ({"jwtRules": [{"issuer": "https://i"}] * 65}, "spec"),
        ({"selector": {"app": "a"}}, "spec.selector.app"),
        ({"selector": {}, "targetRefs": [{"kind": "Service", "name": "a"}]}, "spec"),
        ({"targetRef": {"kind": "Service"}}, "spec.targetRef"),
    ],
)
def test_what_is_wrong_around_the_rules(spec: dict[str, Any], field: str) -> None:
    assert field in [where for where, _ in read(spec)[1]]
