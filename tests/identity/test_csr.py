"""Requests that prove possession of a P-256 key and ask for one identity."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.identity.builders import ALICE, BOB, DER, PEM, uri
from ztunnel.errors import PeerError
from ztunnel.identity import csr


def request_with(key: object, *names: x509.GeneralName) -> str:
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), True)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(PEM).decode()  # type: ignore[arg-type]


def test_a_request_is_read_back_as_it_was_made() -> None:
    request = csr.create(ALICE)
    asked = csr.parse(request.csr_pem)
    assert asked.identity == ALICE
    key = serialization.load_pem_private_key(request.key_pem.encode(), None)
    assert asked.public_key == key.public_key()


def test_a_request_has_the_form_that_istio_s_ztunnel_sends() -> None:
    request = csr.create(ALICE)
    read = x509.load_pem_x509_csr(request.csr_pem.encode())
    assert request.key_pem.startswith("-----BEGIN PRIVATE KEY-----")
    assert not len(read.subject)
    assert isinstance(read.signature_hash_algorithm, hashes.SHA256)
    (san,) = read.extensions
    assert san.critical
    assert san.value == x509.SubjectAlternativeName([uri(ALICE)])


def test_each_request_has_a_key_of_its_own() -> None:
    assert csr.create(ALICE).key_pem != csr.create(ALICE).key_pem


def test_a_request_whose_signature_is_by_another_key_is_refused() -> None:
    ours, alien = (x509.load_pem_x509_csr(csr.create(ALICE).csr_pem.encode()) for _ in range(2))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    ours_key, alien_key = (request.public_key().public_bytes(DER, form) for request in (ours, alien))
    swapped = (
        x509.load_der_x509_csr(ours.public_bytes(DER).replace(ours_key, alien_key)).public_bytes(PEM).decode()
    )
    with pytest.raises(PeerError, match="possession"):
        csr.parse(swapped)


REFUSED = {
    "no SAN": (lambda: request_with(ec.generate_private_key(ec.SECP256R1())), "names nobody"),
    "two identities": (
        lambda: request_with(ec.generate_private_key(ec.SECP256R1()), uri(ALICE), uri(BOB)),
        "one URI SAN",
    ),
    "a P-384 key": (lambda: request_with(ec.generate_private_key(ec.SECP384R1()), uri(ALICE)), "P-256"),
    "an RSA key": (lambda: request_with(rsa.generate_private_key(65537, 2048), uri(ALICE)), "P-256"),
    "an Ed25519 key": (lambda: request_with(ed25519.Ed25519PrivateKey.generate(), uri(ALICE)), "P-256"),
    "no PEM": (lambda: "hello", "not a signing request"),
    "nothing": (lambda: "", "not a signing request"),
    "another PEM": (lambda: csr.create(ALICE).key_pem, "not a signing request"),
    "a surrogate": (lambda: "\ud800", "not a signing request"),
    "too much of it": (lambda: csr.create(ALICE).csr_pem + " " * 20_000, "characters"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_request_is_refused_with(text: Callable[[], str], message: str) -> None:
    with pytest.raises(PeerError, match=message):
        csr.parse(text())


def test_a_subject_is_not_believed() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])
    builder = x509.CertificateSigningRequestBuilder(name)
    builder = builder.add_extension(x509.SubjectAlternativeName([uri(ALICE)]), False)
    text = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(PEM).decode()
    assert csr.parse(text).identity == ALICE


GOOD_DER = x509.load_pem_x509_csr(csr.create(ALICE).csr_pem.encode()).public_bytes(DER)


@given(st.lists(st.tuples(st.integers(0, len(GOOD_DER) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_mutated_request_is_refused_or_still_the_same(edits: list[tuple[int, int]]) -> None:
    mutated = bytearray(GOOD_DER)
    for place, value in edits:
        mutated[place] = value
    text = base64.encodebytes(mutated).decode()
    try:
        asked = csr.parse(f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n")
    except PeerError:
        return
    assert asked.identity == ALICE


@given(st.text(max_size=200))
def test_garbage_is_refused(garbage: str) -> None:
    with pytest.raises(PeerError):
        csr.parse(garbage)
