"""Exactly one URI, of Istio's form, and nothing else."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from cryptography import x509

from tests.identity.builders import ALICE, BOB, Authority, Leaf, uri
from ztunnel.errors import PeerError
from ztunnel.identity.san import sole_identity

REFUSED = {
    "two URIs": ([uri(ALICE), uri(BOB)], "one URI SAN and no other name"),
    "the same URI twice": ([uri(ALICE), uri(ALICE)], "one URI SAN and no other name"),
    "a URI and a DNS name": ([uri(ALICE), x509.DNSName("alice")], "DNSName 'alice'"),
    "a DNS name": ([x509.DNSName("alice.default")], "DNSName"),
    "a DNS name that looks like an identity": ([x509.DNSName(str(ALICE))], "DNSName"),
    "an e-mail address": ([x509.RFC822Name("alice@cluster.local")], "RFC822Name"),
    "an IP address": ([x509.IPAddress(ip_address("10.0.0.1"))], "IPAddress"),
    "six URIs": ([uri(ALICE)] * 6, r"\.\.\."),
    "another scheme": ([uri("https://cluster.local/ns/default/sa/alice")], "not a SPIFFE ID"),
    "a scheme in capitals": ([uri("SPIFFE://cluster.local/ns/default/sa/alice")], "not a SPIFFE ID"),
    "a trust domain in capitals": ([uri("spiffe://Cluster.local/ns/default/sa/alice")], "not a trust domain"),
    "percent-encoding": ([uri("spiffe://cluster.local/ns/default/sa/a%2Fb")], "not a path segment"),
    "a NUL": ([uri(f"{ALICE}\0.evil")], "not a path segment"),
    "a NUL in the trust domain": ([uri("spiffe://cluster.local\0.evil/ns/default/sa/alice")], "trust domain"),
    "a newline at the end": ([uri(f"{ALICE}\n")], "not a path segment"),
    "a trust domain alone": ([uri("spiffe://cluster.local")], "not of the form"),
    "a slash at the end": ([uri(f"{ALICE}/")], "not of the form"),
    "a query": ([uri(f"{ALICE}?x=1")], "not a path segment"),
    "a fragment": ([uri(f"{ALICE}#x")], "not a path segment"),
    "a port": ([uri("spiffe://cluster.local:443/ns/default/sa/alice")], "not a trust domain"),
    "a user": ([uri("spiffe://root@cluster.local/ns/default/sa/alice")], "not a trust domain"),
    "a dot segment": ([uri("spiffe://cluster.local/ns/../sa/alice")], "not a path segment"),
    "nothing in it": ([uri("")], "not a SPIFFE ID"),
    "more than 2048 bytes": ([uri(f"spiffe://cluster.local/ns/{'n' * 2048}/sa/a")], "not a SPIFFE ID"),
}


def test_the_one_uri_is_the_identity(root: Authority) -> None:
    assert sole_identity(Leaf().signed_by(root).extensions) == ALICE


def test_no_san_names_nobody(root: Authority) -> None:
    with pytest.raises(PeerError, match="names nobody"):
        sole_identity(Leaf().but(names=None).signed_by(root).extensions)


@pytest.mark.parametrize(("names", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_san_is_refused_with(root: Authority, names: list[x509.GeneralName], message: str) -> None:
    with pytest.raises(PeerError, match=message):
        sole_identity(Leaf().but(names=names).signed_by(root).extensions)


def test_what_a_stranger_wrote_is_shown_escaped_and_short(root: Authority) -> None:
    names = [uri("spiffe://x\n\x1b[31m" + "y" * 500), x509.DNSName("z")]
    with pytest.raises(PeerError) as refusal:
        sole_identity(Leaf().but(names=names).signed_by(root).extensions)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 250
