"""The matrix of what TLS libraries accept and SPIFFE does not, on the leaf alone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.identity.builders import ALICE, NOW, Authority, Leaf, key_usage, uri
from ztunnel.errors import PeerError, Side
from ztunnel.identity.svid import Usage, check_leaf

CLIENT_ONLY = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER_ONLY = (ExtendedKeyUsageOID.SERVER_AUTH,)
NAMED = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
MINUTE = timedelta(minutes=1)

ACCEPTED = {
    "of the plain kind": Leaf(),
    "without basic constraints": Leaf(ca=None),
    "with keyEncipherment, as istiod makes them": Leaf(
        usage=key_usage("digital_signature", "key_encipherment")
    ),
    "with a subject and a SAN that is not critical": Leaf(subject=NAMED, san_critical=False),
    "in its first second": Leaf(begin=NOW),
    "in its last second": Leaf(end=NOW),
}
REFUSED = {
    "no SAN": (Leaf(names=None), "names nobody"),
    "two URIs": (Leaf().named(ALICE, "spiffe://cluster.local/ns/a/sa/b"), "one URI SAN"),
    "a URI and a DNS name": (Leaf().named(ALICE, x509.DNSName("alice")), "one URI SAN"),
    "a NUL in the URI": (Leaf().named(f"{ALICE}\0"), "not a path segment"),
    "a SAN that is not critical, and no subject": (Leaf(san_critical=False), "SAN must be critical"),
    "CA": (Leaf(ca=True), "is a CA's"),
    "keyCertSign": (Leaf(usage=key_usage("digital_signature", "key_cert_sign")), "may sign certificates"),
    "cRLSign": (Leaf(usage=key_usage("digital_signature", "crl_sign")), "may sign certificates or CRLs"),
    "no digitalSignature": (Leaf(usage=key_usage("key_encipherment")), "digitalSignature"),
    "no key usage": (Leaf(usage=None), "digitalSignature"),
    "a key usage that is not critical": (Leaf(usage_critical=False), "critical key usage"),
    "no extended key usage": (Leaf(purposes=None), "extended key usage"),
    "another purpose": (Leaf(purposes=[ExtendedKeyUsageOID.CODE_SIGNING]), "extended key usage"),
    "any purpose": (Leaf(purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), "extended key usage"),
    "an RSA key of 1024 bits": (Leaf(key=rsa.generate_private_key(65537, 1024)), "weak key"),
    "a key on Bitcoin's curve": (Leaf(key=ec.generate_private_key(ec.SECP256K1())), "weak key"),
    "its time over": (Leaf(end=NOW - MINUTE), "expired at 2026-06-01 11:59:00"),
    "its time still to come": (Leaf(begin=NOW + MINUTE), "not valid before 2026-06-01 12:01:00"),
}


@pytest.mark.parametrize("usage", Usage)
@pytest.mark.parametrize("leaf", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_leaf_is_accepted(root: Authority, leaf: Leaf, usage: Usage) -> None:
    assert check_leaf(leaf.signed_by(root), NOW, usage) == ALICE


@pytest.mark.parametrize("usage", Usage)
@pytest.mark.parametrize(("leaf", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_leaf_is_refused_with(root: Authority, leaf: Leaf, message: str, usage: Usage) -> None:
    with pytest.raises(PeerError, match=message):
        check_leaf(leaf.signed_by(root), NOW, usage)


@pytest.mark.parametrize(
    ("usage", "right", "wrong"), [("client", CLIENT_ONLY, SERVER_ONLY), ("server", SERVER_ONLY, CLIENT_ONLY)]
)
def test_a_leaf_for_one_role_is_good_for_that_one(
    root: Authority, usage: str, right: tuple[x509.ObjectIdentifier], wrong: tuple[x509.ObjectIdentifier]
) -> None:
    assert check_leaf(Leaf(purposes=right).signed_by(root), NOW, Usage(usage)) == ALICE
    with pytest.raises(PeerError, match=f"not for a {usage}"):
        check_leaf(Leaf(purposes=wrong).signed_by(root), NOW, Usage(usage))


def test_an_hour_that_the_clock_jumps_tells_what_time_it_is_here(root: Authority) -> None:
    with pytest.raises(PeerError, match=r"not valid before .*; here it is 2026-06-01 11:00:00"):
        check_leaf(Leaf().signed_by(root), NOW - timedelta(hours=1), Usage.CLIENT)


def test_the_operator_is_sent_to_the_side_that_presented() -> None:
    assert Usage.CLIENT.side is Side.SOURCE
    assert Usage.SERVER.side is Side.DESTINATION


def test_every_byte_in_a_trust_domain_and_a_path_is_decided_by_the_specification(root: Authority) -> None:
    domain_bytes: set[str] = set()
    path_bytes: set[str] = set()
    for code in range(128):
        for place, accepted in (("x{}y/ns/n/sa/a", domain_bytes), ("x/ns/n{}m/sa/a", path_bytes)):
            leaf = Leaf().named(uri("spiffe://" + place.format(chr(code))))
            try:
                check_leaf(leaf.signed_by(root), NOW, Usage.CLIENT)
            except PeerError:
                continue
            accepted.add(chr(code))
    assert "".join(sorted(domain_bytes)) == "-.0123456789_abcdefghijklmnopqrstuvwxyz"
    assert path_bytes - domain_bytes == set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
