"""What must not leave a machine is taken out; what is needed stays."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.analyze.redact import GONE, redact

EC = ec.generate_private_key(ec.SECP256R1())
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJhdWQiOlsiaXN0aW8tY2EiXX0.c2lnbmF0dXJlLW9mLWl0"


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: serialization.PrivateFormat) -> str:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


@pytest.mark.parametrize(
    "text",
    [
        pem(EC, serialization.PrivateFormat.PKCS8),
        pem(EC, serialization.PrivateFormat.TraditionalOpenSSL),
        base64.b64encode(pem(EC, serialization.PrivateFormat.PKCS8).encode()).decode(),
        JWT,
        "password: hunter2hunter2",
        '"DB_PASSWORD": "hunter2hunter2"',
        "AUTH_TOKEN=hunter2hunter2",
        "client_secret = 'hunter2hunter2'",
        "Authorization: Basic aHVudGVyMmh1bnRlcjI=",
        '"authorization": "Bearer hunter2hunter2"',
    ],
)
@given(st.text(alphabet="ab \n:=", max_size=20), st.text(alphabet="ab \n:=", max_size=20))
def test_a_secret_is_gone_wherever_it_stands(text: str, before: str, after: str) -> None:
    found = redact(f"{before}\n{text}\n{after}")
    assert GONE in found
    for part in ("hunter2hunter2", "aHVudGVyMmh1bnRlcjI", JWT.split(".")[2], *text.split("\n")[1:3]):
        assert len(part) < 20 or part not in found


def test_a_key_that_is_cut_off_is_gone_too() -> None:
    whole = pem(EC, serialization.PrivateFormat.PKCS8)
    assert redact(whole[: len(whole) // 2]) == f"-----BEGIN PRIVATE KEY----- {GONE}"


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "serviceAccount: web",
        "spiffe://cluster.local/ns/shop/sa/web",
        "secretName: web-tls",
        "2026-11-29T08:00:00Z info access connection complete src.addr=10.0.0.1:1",
        "passwordless login",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text
