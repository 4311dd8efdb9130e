"""Where keys are had from."""

from __future__ import annotations

import pytest

from ztunnel.control.keys.key_source import KeySource, keys_url_of, source_of
from ztunnel.model.jwt import JwtRule


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (JwtRule("https://i", keys='{"keys":[]}'), None),
        (JwtRule("https://i", keys_url="http://k/jwks"), KeySource("http://k/jwks")),
        (JwtRule("", keys_url="http://k/jwks"), KeySource("http://k/jwks")),
        (JwtRule("https://i"), KeySource("https://i/.well-known/openid-configuration", discovers=True)),
        (JwtRule("https://i/a/"), KeySource("https://i/a/.well-known/openid-configuration", discovers=True)),
    ],
)
def test_the_source_of_a_rule(rule: JwtRule, source: KeySource | None) -> None:
    assert source_of(rule) == source


def test_a_configuration_says_where_the_keys_are() -> None:
    assert keys_url_of(b'{"issuer": "https://i", "jwks_uri": "https://i/keys"}') == "https://i/keys"


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"jwks_uri": 1}', b'{"jwks_uri": ""}', b'{"jwks_uri": "file:///etc/passwd"}',
     b'{"jwks_uri": "gopher://a/"}', b'{"jwks_uri": "https://user:pw@a/"}'],
)  # fmt: skip
def test_a_configuration_that_does_not_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever it says)
        keys_url_of(text)
