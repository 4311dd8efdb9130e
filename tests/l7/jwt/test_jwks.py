"""Which keys of a JWKS are used, and what is served of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.l7.issuers import ALGORITHMS, jwk, jwks
from ztunnel.l7.jwt.jwks import MAX_BYTES, MAX_KEYS, parse_keys

RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def reasons(*keys: object) -> list[str]:
    """Why these keys are not used, beside one that is."""
    found = parse_keys(json.dumps({"keys": [*keys, jwk("ES256", "good")]}).encode())
    assert [key.kid for key in found.keys][-1] == "good"
    return [text.partition(": ")[2] for text in found.remarks]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "Ed448"])
def test_every_kind_is_read_and_bound_to_its_algorithms(algorithm: str) -> None:
    (key,) = parse_keys(jwks(jwk(algorithm)).encode()).keys
    expected = RSA if algorithm in RSA else {"EdDSA"} if algorithm.startswith("Ed") else {algorithm}
    assert (key.kid, key.algorithms) == ("k1", expected)


def test_a_key_that_names_its_algorithm_has_no_other() -> None:
    (key,) = parse_keys(jwks(jwk("RS256", alg="PS384")).encode()).keys
    assert key.algorithms == {"PS384"}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (jwk("RS256", d="AQAB"), "it is or holds a secret, which is none any more"),
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "x"}, "it is or holds a secret, which is none any more"),
        (jwk("RS256", use="enc"), "its [use] is not sig"),
        (jwk("RS256", key_ops=["encrypt"]), "its [key_ops] do not say verify"),
        (jwk("RS256", key_ops="verify"), "its [key_ops] do not say verify"),
        (jwk("RS256", alg="HS256"), "its [alg] 'HS256' is none of RS256, RS384, RS512, PS256, PS384, PS512"),
        (jwk("ES256", alg="ES384"), "its [alg] 'ES384' is none of ES256"),
        (jwk("RS256", alg="none"), "its [alg] 'none' is none of RS256, RS384, RS512, PS256, PS384, PS512"),
        (jwk("RS256", alg=7), "its [alg] is no string"),
        (jwk("RS256", kid=7), "its [kid] is no string"),
        (jwk("RS256", kty="XX"), "its [kty] 'XX' is none of RSA, EC, OKP"),
        (jwk("RS256", kty="AKP", alg="ML-DSA-44"), "its [kty] 'AKP' is none of RSA, EC, OKP"),
        (jwk("RS256", kty=None), "its [kty] '' is none of RSA, EC, OKP"),
        (jwk("RS256", "small", bits=1024), "RSA of 1024 bits; 2048 to 8192 are accepted"),
        (jwk("RS256", n="AQ" * 2000), "RSA of 23993 bits; 2048 to 8192 are accepted"),
        (jwk("RS256", e="AQ"), "its [n] and [e] are no RSA key"),
        (jwk("RS256", e="AAAAAAAB"), "its [n] and [e] are no RSA key"),
        (jwk("RS256", e="AQAAAAAB"), "its [n] and [e] are no RSA key"),
        (jwk("RS256", e="Ag"), "its [n] and [e] are no RSA key"),
        (jwk("RS256", n=None), "RSA of 0 bits; 2048 to 8192 are accepted"),
        (jwk("RS256", n="+/"), "its [n] is no base64url"),
        (jwk("RS256", n="\u00e9"), "its [n] is no base64url"),
        (jwk("RS256", n=5), "its [n] is no string"),
        (jwk("ES256", crv="secp256k1"), "its [crv] is none of P-256, P-384, P-521"),
        (jwk("ES256", crv=None), "its [crv] is none of P-256, P-384, P-521"),
        (jwk("ES256", crv="P-384"), "its [x] and [y] are not of 48 bytes"),
        (jwk("ES256", x="AQ"), "its [x] and [y] are not of 32 bytes"),
        (jwk("ES256", x="A" * 43, y="A" * 43), None),
        (jwk("EdDSA", crv="X25519"), "its [crv] is none of Ed25519, Ed448"),
        (jwk("EdDSA", x="AQ"), None),
        ("a string", "it is no object"),
        (None, "it is no object"),
    ],
)
def test_a_key_of_no_use_costs_only_itself_and_says_why(key: object, reason: str | None) -> None:
    (found,) = reasons(key)
    assert found if reason is None else found == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no JSON object"),
        ("[]", "is no JSON object"),
        ("{}", "has no [keys]"),
        ('{"keys": {}}', "[keys] is no array"),
        ('{"keys": []}', "has no public key that can be used"),
        ('{"keys": [{"kty": "oct", "k": "AA"}]}', "keys[0] is not used"),
        ('{"keys": [], "keys": []}', "a name stands twice"),
        (json.dumps({"keys": [{}] * (MAX_KEYS + 1)}), f"more than {MAX_KEYS} keys"),
        (" " * (MAX_BYTES + 1), "larger than 512 KiB"),
    ],
)
def test_what_is_no_set_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (its text is compared below)
        parse_keys(text.encode())
    assert reason in str(caught.value)


def test_only_what_is_public_and_used_is_served() -> None:
    """istio CVE-2026-31837: a private key in what proxies got."""
    found = parse_keys(jwks(jwk("RS256", d="c2VjcmV0"), jwk("ES256", x5c=["MIIB"], note="mine")).encode())
    assert json.loads(found.text) == {"keys": [jwk("ES256")]}
    again = parse_keys(found.text.encode())
    assert (again.text, again.digest, again.remarks) == (found.text, found.digest, ())


def test_the_same_keys_have_the_same_digest_however_they_are_written() -> None:
    written = json.dumps({"more": 1, "keys": [dict(reversed(jwk("ES256").items()))]}, indent=3)
    assert parse_keys(written.encode()).digest == parse_keys(jwks(jwk("ES256")).encode()).digest


def test_padding_of_numbers_is_passed_over() -> None:
    padded = jwk("ES256") | {name: jwk("ES256")[name] + "=" for name in "xy"}
    assert len(parse_keys(jwks(padded).encode()).keys) == 1


@given(
    st.dictionaries(
        st.sampled_from(["kty", "kid", "alg", "use", "n", "e", "crv", "x", "y", "key_ops", "d"]),
        st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "", 1, None, [], "A" * 43]),
    )
)
def test_no_key_raises_anything_else(member: dict[str, object]) -> None:
    assert len(reasons(member)) <= 1
