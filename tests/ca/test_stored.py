"""What stands in the Secrets of an authority, and what can be wrong with it."""

from __future__ import annotations

import base64

import pytest

from tests.identity.builders import NOW
from tests.identity.sets import one_step
from ztunnel.ca.stored import new_secret, read_secret, secret_of
from ztunnel.errors import ConfigError


def secret(files, name="cacerts"):
    data = {key: base64.b64encode(content).decode() for key, content in files.items()}
    return {"metadata": {"name": name, "namespace": "ztunnel-system"}, "data": data}


def read(value):
    return read_secret(value, "cluster.local", NOW)


def test_a_new_secret_holds_a_root_that_signs():
    made = new_secret("ztunnel-system", NOW)
    authority = read(made)
    assert authority.presented == ()
    assert authority.roots == (authority.certificate,)
    assert made["type"] == "istio.io/ca-root"
    assert made["metadata"]["name"] == "ztunnel-ca-secret"
    assert set(made["data"]) == {"ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"}


def test_two_are_two_roots():
    assert read(new_secret("x", NOW)).shown != read(new_secret("x", NOW)).shown


def test_a_plug_in_ca_is_read_beside_keys_that_are_not_ours():
    found = one_step()
    assert read(secret(found.files() | {"notes.txt": b"\xff"})).certificate == found.signer.certificate


def test_an_authority_that_is_written_is_the_same_when_it_is_read():
    for files in (one_step().files(), one_step().files(cert_chain=None)):
        authority = read(secret(files))
        again = read(secret_of(authority, "ztunnel-system"))
        assert again.shown == authority.shown


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            secret(one_step().files(ca_key=None)),
            "Secret ztunnel-system/cacerts: ca-key.pem: missing or empty",
        ),
        (secret({}), "Secret ztunnel-system/cacerts: tls.crt: missing"),
        (secret({}) | {"data": None}, "missing"),
        (secret(one_step().files()) | {"data": {"ca-cert.pem": "%"}}, "cacerts: ca-cert.pem: not base64"),
        (secret(one_step().files()) | {"data": {"ca-cert.pem": 7}}, "cacerts: ca-cert.pem: not base64"),
        (secret(one_step().files(root_cert="x")), "cacerts: root-cert.pem: not a text of PEM"),
    ],
)
def test_what_is_wrong_is_named_by_secret_and_key(value, message):
    with pytest.raises(ConfigError, match=message):
        read(value)
