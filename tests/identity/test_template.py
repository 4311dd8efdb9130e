"""What our authority signs, extension by extension."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.identity.builders import ALICE, NOW, Authority, key_usage, new_key, uri
from ztunnel.errors import PeerError
from ztunnel.identity import csr, template
from ztunnel.identity.template import SigningKey

DAY_SECONDS = 86_400.0


def issuer(key: SigningKey, certificate: x509.Certificate) -> template.Issuer:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return template.Issuer(key, certificate, begin, end)


def leaf(root: Authority, ttl_seconds: float = DAY_SECONDS) -> x509.Certificate:
    asked = csr.parse(csr.create(ALICE).csr_pem)
    return template.leaf(asked, ttl_seconds, issuer(root.key, root.certificate), NOW)


def value_of(
    certificate: x509.Certificate, kind: type[x509.ExtensionType]
) -> tuple[x509.ExtensionType, bool]:
    extension = certificate.extensions.get_extension_for_class(kind)
    return extension.value, extension.critical


def test_a_leaf_is_an_svid_and_nothing_more(root: Authority) -> None:
    made = leaf(root)
    assert not len(made.subject)
    assert value_of(made, x509.SubjectAlternativeName) == (x509.SubjectAlternativeName([uri(ALICE)]), True)
    assert value_of(made, x509.BasicConstraints) == (x509.BasicConstraints(False, None), True)
    assert value_of(made, x509.KeyUsage) == (key_usage("digital_signature"), True)
    purposes, _ = value_of(made, x509.ExtendedKeyUsage)
    assert set(purposes) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}  # type: ignore[call-overload]
    assert len(made.extensions) == 6


def test_a_leaf_names_its_key_and_its_issuer_s(root: Authority) -> None:
    made = leaf(root)
    own = x509.SubjectKeyIdentifier.from_public_key(made.public_key())
    assert value_of(made, x509.SubjectKeyIdentifier)[0] == own
    issuer = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    named = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer)
    assert value_of(made, x509.AuthorityKeyIdentifier)[0] == named
    made.verify_directly_issued_by(root.certificate)


@pytest.mark.parametrize(("ttl_seconds", "skew_seconds"), [(DAY_SECONDS, 120), (1200, 120), (60, 6), (10, 1)])
def test_a_leaf_begins_a_little_in_the_past_but_lives_mostly_in_the_future(
    root: Authority, ttl_seconds: float, skew_seconds: float
) -> None:
    made = leaf(root, ttl_seconds)
    assert made.not_valid_before_utc == NOW - timedelta(seconds=skew_seconds)
    assert made.not_valid_after_utc == NOW + timedelta(seconds=ttl_seconds)


@pytest.mark.parametrize("ttl_seconds", [365 * DAY_SECONDS, 2.0**63, float("inf")])
def test_a_leaf_does_not_outlive_its_root(ttl_seconds: float) -> None:
    root = Authority.root(end=NOW + timedelta(hours=1))
    assert leaf(root, ttl_seconds).not_valid_after_utc == NOW + timedelta(hours=1)


def test_a_leaf_does_not_begin_before_its_root() -> None:
    key = new_key()
    root = template.root(key, NOW + timedelta(minutes=1))
    asked = csr.parse(csr.create(ALICE).csr_pem)
    assert (
        template.leaf(asked, DAY_SECONDS, issuer(key, root), NOW).not_valid_before_utc
        == root.not_valid_before_utc
    )


@pytest.mark.parametrize("ttl_seconds", [0, -1, float("nan"), float("-inf")])
def test_a_lifetime_that_is_none_is_refused(root: Authority, ttl_seconds: float) -> None:
    with pytest.raises(PeerError, match="lifetime"):
        leaf(root, ttl_seconds)


def test_each_leaf_has_a_serial_number_of_its_own(root: Authority) -> None:
    assert leaf(root).serial_number != leaf(root).serial_number


@pytest.mark.parametrize(
    "key", [new_key(), ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)]
)
def test_a_root_signs_certificates_and_nothing_else(key: template.SigningKey) -> None:
    root = template.root(key, NOW)
    assert root.subject == root.issuer
    assert value_of(root, x509.BasicConstraints) == (x509.BasicConstraints(True, None), True)
    assert value_of(root, x509.KeyUsage) == (key_usage("key_cert_sign", "crl_sign"), True)
    assert root.not_valid_after_utc - root.not_valid_before_utc == timedelta(days=3650)
    assert root.not_valid_before_utc < NOW


def test_a_root_without_a_key_identifier_is_named_by_its_key() -> None:
    key = new_key()
    name = x509.Name([])
    bare = x509.CertificateBuilder(name, name, key.public_key(), 7, NOW, NOW + timedelta(days=1))
    bare = bare.add_extension(x509.BasicConstraints(True, None), True)
    root = bare.sign(key, hashes.SHA256())
    made = template.leaf(csr.parse(csr.create(ALICE).csr_pem), 60, issuer(key, root), NOW)
    by_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    assert value_of(made, x509.AuthorityKeyIdentifier)[0] == by_key
