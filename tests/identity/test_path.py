"""Paths with name constraints on URIs; and, by the same rules, those of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from cryptography import x509

from tests.identity.builders import ALICE, DER, NOW, Authority, Leaf, uri
from tests.identity.test_chain import BAD_PATHS, GOOD_PATHS, Pki
from ztunnel.errors import IdentityMismatch, PeerError
from ztunnel.identity.chain import Usage, verify
from ztunnel.identity.path import constrains_uris, find_path

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki(Authority.root(), Authority.root("other"))


def names(permitted: Sequence[str] = (), excluded: Sequence[str] = ()) -> x509.NameConstraints:
    return x509.NameConstraints(
        [uri(name) for name in permitted] or None, [uri(name) for name in excluded] or None
    )


def search(chain: list[bytes], root: Authority) -> list[x509.Certificate]:
    loaded = [x509.load_der_x509_certificate(der) for der in chain]
    return find_path(loaded, [root.certificate], ALICE, NOW, Usage.SERVER)


@pytest.mark.parametrize("chain", GOOD_PATHS.values(), ids=GOOD_PATHS.keys())
def test_what_the_library_finds_is_found(pki: Pki, chain: Callable[[Pki], list[bytes]]) -> None:
    presented = chain(pki)
    path = search(presented, pki.root)
    assert path[0].public_bytes(DER) == presented[0]
    assert path[-1] == pki.root.certificate


@pytest.mark.parametrize("name", [name for name, (_, why) in BAD_PATHS.items() if why == "no path"])
def test_what_the_library_refuses_is_refused(pki: Pki, name: str) -> None:
    with pytest.raises(PeerError, match="no path"):
        search(BAD_PATHS[name][0](pki), pki.root)


ALLOWING = {
    "its trust domain": names(["cluster.local"]),
    "its trust domain, in capitals": names(["Cluster.LOCAL"]),
    "all below another": names([".local"]),
    "one of two": names(["example.org", "cluster.local"]),
    "another is excluded": names([], ["example.org"]),
    "a host below it is excluded": names(["cluster.local"], [".cluster.local"]),
    "a name of another kind beside it": x509.NameConstraints(
        [uri("cluster.local"), x509.DNSName("example.org")], None
    ),
}
REFUSING = {
    "another trust domain": names(["example.org"]),
    "a part of its name": names(["local"]),
    "only what is below it": names([".cluster.local"]),
    "its trust domain is excluded": names([], ["cluster.local"]),
    "all below its parent is excluded": names(["cluster.local"], [".local"]),
    "subjects as well": x509.NameConstraints([uri("cluster.local"), x509.DirectoryName(x509.Name([]))], None),
}


@pytest.mark.parametrize("constraints", ALLOWING.values(), ids=ALLOWING.keys())
def test_a_ca_that_may_vouch_for_the_trust_domain_does(pki: Pki, constraints: x509.NameConstraints) -> None:
    child = pki.root.child(constraints=constraints)
    for presented in (pki.by(child), pki.by(child, child.child("second"))):
        for usage in Usage:
            assert verify(presented, pki.root.bundles(), NOW, usage) == ALICE


@pytest.mark.parametrize("constraints", REFUSING.values(), ids=REFUSING.keys())
def test_a_ca_that_may_not_vouch_for_the_trust_domain_does_not(
    pki: Pki, constraints: x509.NameConstraints
) -> None:
    child = pki.root.child(constraints=constraints)
    for presented in (pki.by(child), pki.by(child, child.child("second"))):
        with pytest.raises(IdentityMismatch, match=r"name constraints|not judged"):
            verify(presented, pki.root.bundles(), NOW, Usage.CLIENT)


def test_a_constraint_does_not_make_up_for_anything_else(pki: Pki) -> None:
    permitted = names(["cluster.local"])
    expired = pki.root.child(constraints=permitted, end=NOW - DAY)
    foreign = pki.other.child(constraints=permitted)
    short = pki.root.child(constraints=permitted, path_length=0)
    for presented in (pki.by(expired), pki.by(foreign), pki.by(short, short.child("second"))):
        with pytest.raises(IdentityMismatch, match="no path"):
            verify(presented, pki.root.bundles(), NOW, Usage.CLIENT)


def test_a_critical_extension_that_nobody_knows_is_refused(pki: Pki) -> None:
    child = pki.root.child(constraints=names(["cluster.local"]))
    with pytest.raises(IdentityMismatch, match="critical extension"):
        verify([child.svid(Leaf(unknown_critical=True)), child.der], pki.root.bundles(), NOW, Usage.CLIENT)


def test_certificates_that_cross_each_other_cost_little(pki: Pki) -> None:
    child = pki.root.child(constraints=names(["cluster.local"]))
    crossed = [child.crossed_by(child).der for _ in range(8)]
    with pytest.raises(IdentityMismatch, match="no path"):
        verify([pki.other.child("intermediate").svid(), *crossed], pki.other.bundles(), NOW, Usage.CLIENT)


def test_only_uris_are_looked_for(pki: Pki) -> None:
    dns = pki.root.child(constraints=x509.NameConstraints([x509.DNSName("x")], None))
    assert not constrains_uris([dns.certificate, pki.root.certificate])
    assert constrains_uris([dns.certificate, pki.root.child(constraints=names(["x"])).certificate])
