"""Chains from good to forged: a proved identity or IdentityMismatch, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from tests.identity.builders import ALICE, BOB, DER, NOW, Authority, Leaf, key_usage, uri
from ztunnel.errors import Flag, IdentityMismatch, PeerError, Side
from ztunnel.identity.chain import TrustBundles, Usage, expect, parse_certificates, verify

DAY = timedelta(days=1)
ELSEWHERE = "spiffe://elsewhere.org/ns/default/sa/alice"

LEAVES = {
    "two URIs": (lambda: Leaf().named(ALICE, BOB), "one URI SAN"),
    "a URI and a DNS name": (lambda: Leaf().named(ALICE, x509.DNSName("a")), "one URI SAN"),
    "a DNS name": (lambda: Leaf().named(x509.DNSName("a")), "one URI SAN"),
    "another scheme": (lambda: Leaf().named("https://cluster.local/ns/default/sa/alice"), "not a SPIFFE ID"),
    "a trust domain in capitals": (lambda: Leaf().named("spiffe://Cluster.local/ns/a/sa/b"), "trust domain"),
    "an encoded slash": (lambda: Leaf().named("spiffe://cluster.local/ns/a/sa/b%2Fc"), "path segment"),
    "a NUL in the URI": (lambda: Leaf().named(f"{ALICE}\0"), "path segment"),
    "no SAN": (lambda: Leaf(names=None), "names nobody"),
    "CA": (lambda: Leaf(ca=True), "is a CA's"),
    "keyCertSign": (lambda: Leaf(usage=key_usage("digital_signature", "key_cert_sign")), "may sign"),
    "a SAN that is not critical, and no subject": (lambda: Leaf(san_critical=False), "must be critical"),
    "no EKU": (lambda: Leaf(purposes=None), "extended key usage"),
    "its time over": (lambda: Leaf(end=NOW - DAY, begin=NOW - 2 * DAY), "expired at"),
    "its time still to come": (lambda: Leaf(begin=NOW + DAY, end=NOW + 2 * DAY), "not valid before"),
    "an unknown critical extension": (lambda: Leaf(unknown_critical=True), "critical extensions"),
    "an RSA key of 1024 bits": (lambda: Leaf(key=rsa.generate_private_key(65537, 1024)), "weak key"),
    "a key on Bitcoin's curve": (lambda: Leaf(key=ec.generate_private_key(ec.SECP256K1())), "weak key"),
    "another trust domain": (lambda: Leaf().named(ELSEWHERE), "expected trustdomain"),
}


@pytest.mark.parametrize("usage", Usage)
@pytest.mark.parametrize(("leaf", "message"), LEAVES.values(), ids=LEAVES.keys())
def test_a_leaf_is_refused_with(
    root: Authority, leaf: Callable[[], Leaf], message: str, usage: Usage
) -> None:
    with pytest.raises(IdentityMismatch, match=f"^identity verification error: .*{message}"):
        verify([root.svid(leaf())], root.bundles(), NOW, usage)


@pytest.mark.parametrize("usage", Usage)
def test_a_good_leaf_is_who_it_says(root: Authority, usage: Usage) -> None:
    assert verify([root.svid()], root.bundles(), NOW, usage) == ALICE


@pytest.mark.parametrize(
    "key", [lambda: rsa.generate_private_key(65537, 2048), lambda: ec.generate_private_key(ec.SECP384R1())]
)
def test_a_leaf_with_another_kind_of_key_as_istio_s_gateways_have_is_accepted(
    root: Authority, key: Callable[[], Any]
) -> None:
    assert verify([root.svid(Leaf(key=key()))], root.bundles(), NOW, Usage.CLIENT) == ALICE


@dataclass(frozen=True)
class Pki:
    """What the chains below are made of."""

    root: Authority
    other: Authority

    def by(self, *authorities: Authority) -> list[bytes]:
        """A leaf signed by the last authority, presented with all of them, the last first."""
        return [authorities[-1].svid(), *(authority.der for authority in reversed(authorities))]


def chain_of(pki: Pki, depth: int) -> list[bytes]:
    authorities = [pki.root]
    for number in range(depth):
        authorities.append(authorities[-1].child(f"intermediate {number}"))
    return pki.by(*authorities[1:])


def constrained(pki: Pki, domain: str) -> list[bytes]:
    permitted = x509.NameConstraints([uri(domain)], None)
    return pki.by(pki.root.child(constraints=permitted))


def purposed(pki: Pki, purpose: x509.ObjectIdentifier) -> list[bytes]:
    return pki.by(pki.root.child(purposes=[purpose]))


GOOD_PATHS: dict[str, Callable[[Pki], list[bytes]]] = {
    "an intermediate": lambda pki: chain_of(pki, 1),
    "two intermediates": lambda pki: chain_of(pki, 2),
    "two intermediates in the wrong order": lambda pki: [chain := chain_of(pki, 2)][0][:1] + chain[:0:-1],
    "the root presented as well": lambda pki: [pki.root.svid(), pki.root.der],
    "an intermediate of another mesh beside its own": lambda pki: [*chain_of(pki, 1), pki.other.child().der],
    "a root that another root has crossed": lambda pki: [pki.root.svid(), pki.root.crossed_by(pki.other).der],
    "an intermediate for servers": lambda pki: purposed(pki, ExtendedKeyUsageOID.SERVER_AUTH),
}
BAD_PATHS: dict[str, tuple[Callable[[Pki], list[bytes]], str]] = {
    "nothing": (lambda _: [], "presented no certificate"),
    "something that is no certificate": (lambda _: [b"hello"], "malformed"),
    "an empty certificate": (lambda _: [b""], "malformed"),
    "a good leaf and garbage": (lambda pki: [pki.root.svid(), b"\x30\x03\x02\x01\x01"], "malformed"),
    "garbage after the DER": (lambda pki: [pki.root.svid() + b"\0"], "malformed"),
    "eleven certificates": (lambda pki: [pki.root.svid(), *[pki.other.der] * 10], "11 certificates"),
    "a signature by another root": (lambda pki: [pki.other.svid()], "no path"),
    "a root of the same name": (lambda _: [Authority.root().svid()], "no path"),
    "another root presented with it": (lambda pki: [pki.other.svid(), pki.other.der], "no path"),
    "a missing intermediate": (lambda pki: chain_of(pki, 1)[:1], "no path"),
    "a leaf as the signer of a leaf": (lambda pki: pki.by(leaf_that_signs(pki.root)), "no path"),
    "an expired intermediate": (lambda pki: pki.by(pki.root.child(end=NOW - DAY)), "no path"),
    "a path longer than an intermediate allows": (
        lambda pki: pki.by(short := pki.root.child(path_length=0), short.child("second")),
        "no path",
    ),
    "nine intermediates": (lambda pki: chain_of(pki, 9), "no path"),
    "name constraints for another trust domain": (lambda pki: constrained(pki, "elsewhere.org"), "no path"),
    "an intermediate for clients": (lambda pki: purposed(pki, ExtendedKeyUsageOID.CLIENT_AUTH), "no path"),
    "the root itself": (lambda pki: [pki.root.der], "names nobody"),
    "an intermediate itself": (lambda pki: [pki.root.child().der], "names nobody"),
}


def leaf_that_signs(root: Authority) -> Authority:
    leaf = Leaf()
    return Authority(leaf.key, leaf.signed_by(root))


@pytest.fixture(scope="module")
def pki(root: Authority) -> Pki:
    return Pki(root, Authority.root("other"))


@pytest.mark.parametrize("chain", GOOD_PATHS.values(), ids=GOOD_PATHS.keys())
def test_a_server_is_believed_with(pki: Pki, chain: Callable[[Pki], list[bytes]]) -> None:
    assert verify(chain(pki), pki.root.bundles(), NOW, Usage.SERVER) == ALICE


@pytest.mark.parametrize(("chain", "message"), BAD_PATHS.values(), ids=BAD_PATHS.keys())
def test_a_server_is_refused_with(pki: Pki, chain: Callable[[Pki], list[bytes]], message: str) -> None:
    with pytest.raises(IdentityMismatch, match=message):
        verify(chain(pki), pki.root.bundles(), NOW, Usage.SERVER)


def test_an_intermediate_for_servers_does_not_vouch_for_a_client(pki: Pki) -> None:
    with pytest.raises(IdentityMismatch, match="may not vouch for a client"):
        verify(purposed(pki, ExtendedKeyUsageOID.SERVER_AUTH), pki.root.bundles(), NOW, Usage.CLIENT)


def test_an_expired_root_vouches_for_nobody() -> None:
    root = Authority.root(end=NOW - DAY)
    with pytest.raises(IdentityMismatch, match="no path"):
        verify([root.svid()], root.bundles(), NOW, Usage.CLIENT)


def test_a_trust_domain_is_believed_by_its_own_roots_only(pki: Pki) -> None:
    both = TrustBundles({"cluster.local": pki.root.pem, "elsewhere.org": pki.other.pem})
    assert str(verify([pki.other.svid(Leaf().named(ELSEWHERE))], both, NOW, Usage.CLIENT)) == ELSEWHERE
    with pytest.raises(IdentityMismatch, match="no path"):
        verify([pki.root.svid(Leaf().named(ELSEWHERE))], both, NOW, Usage.CLIENT)
    with pytest.raises(IdentityMismatch, match="no path"):
        verify([pki.other.svid()], both, NOW, Usage.CLIENT)
    assert both.trust_domains == ("cluster.local", "elsewhere.org")


def test_while_roots_are_exchanged_both_vouch(pki: Pki) -> None:
    bundles = TrustBundles({"cluster.local": pki.root.pem + "# the next one\n" + pki.other.pem})
    for authority in (pki.root, pki.other):
        assert verify([authority.svid()], bundles, NOW, Usage.CLIENT) == ALICE


def test_an_unknown_trust_domain_is_told_in_ztunnel_s_words(root: Authority) -> None:
    with pytest.raises(IdentityMismatch) as refusal:
        verify([root.svid(Leaf().named(ELSEWHERE))], root.bundles(), NOW, Usage.CLIENT)
    assert str(refusal.value) == (
        "identity verification error: peer did not present the expected trustdomain (cluster.local), "
        f"got {ELSEWHERE}"
    )


def test_another_identity_than_expected_is_told_in_ztunnel_s_words() -> None:
    expect(ALICE, (BOB, ALICE), Usage.SERVER)
    with pytest.raises(IdentityMismatch) as refusal:
        expect(ALICE, (BOB,), Usage.SERVER)
    assert str(refusal.value) == (
        "identity verification error: peer did not present the expected SAN "
        "(spiffe://cluster.local/ns/default/sa/bob), got spiffe://cluster.local/ns/default/sa/alice"
    )


def test_nobody_expected_means_nobody_accepted() -> None:
    with pytest.raises(IdentityMismatch, match=r"expected SAN \(\)"):
        expect(ALICE, (), Usage.SERVER)


@pytest.mark.parametrize(("usage", "side"), [(Usage.CLIENT, Side.SOURCE), (Usage.SERVER, Side.DESTINATION)])
def test_a_refusal_says_whose_fault_it_is(root: Authority, usage: Usage, side: Side) -> None:
    with pytest.raises(IdentityMismatch) as refusal:
        verify([], root.bundles(), NOW, usage)
    assert (refusal.value.side, refusal.value.flag) == (side, Flag.IDENTITY_ERROR)


# --- what was proved before ------------------------------------------------------------


def test_what_was_proved_is_not_proved_again(root: Authority) -> None:
    bundles = CountingBundles({"cluster.local": root.pem})
    chain = [root.svid()]
    assert {verify(chain, bundles, NOW, Usage.CLIENT) for _ in range(3)} == {ALICE}
    assert bundles.proofs == 1


class CountingBundles(TrustBundles):
    """Counts how often a path had to be found."""

    proofs = 0

    def store_for(self, identity: Any) -> Any:
        self.proofs += 1
        return super().store_for(identity)


def test_what_was_proved_does_not_hold_past_its_window(root: Authority) -> None:
    bundles = root.bundles()
    chain = [root.svid(Leaf(end=NOW + DAY))]
    verify(chain, bundles, NOW, Usage.CLIENT)
    with pytest.raises(IdentityMismatch, match="expired"):
        verify(chain, bundles, NOW + 2 * DAY, Usage.CLIENT)
    with pytest.raises(IdentityMismatch, match="not valid before"):
        verify(chain, bundles, NOW - DAY, Usage.CLIENT)
    assert verify(chain, bundles, NOW, Usage.CLIENT) == ALICE


def test_what_was_proved_does_not_outlive_its_intermediate(root: Authority) -> None:
    bundles = root.bundles()
    intermediate = root.child(end=NOW + DAY)
    chain = [intermediate.svid(Leaf(end=NOW + 9 * DAY)), intermediate.der]
    verify(chain, bundles, NOW, Usage.CLIENT)
    with pytest.raises(IdentityMismatch, match="no path"):
        verify(chain, bundles, NOW + 2 * DAY, Usage.CLIENT)


def test_what_was_proved_for_one_role_says_nothing_of_the_other(root: Authority) -> None:
    bundles = root.bundles()
    chain = [root.svid(Leaf(purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]))]
    verify(chain, bundles, NOW, Usage.CLIENT)
    with pytest.raises(IdentityMismatch, match="not for a server"):
        verify(chain, bundles, NOW, Usage.SERVER)


def test_what_was_proved_with_an_intermediate_is_not_proved_without_it(root: Authority) -> None:
    bundles = root.bundles()
    intermediate = root.child()
    leaf = intermediate.svid()
    verify([leaf, intermediate.der], bundles, NOW, Usage.CLIENT)
    with pytest.raises(IdentityMismatch, match="no path"):
        verify([leaf], bundles, NOW, Usage.CLIENT)


def test_the_memory_is_bounded_and_drops_the_oldest(root: Authority) -> None:
    bundles = root.bundles()
    path = [root.certificate]
    for number in range(4097):
        bundles.remember(number.to_bytes(4, "big"), ALICE, path)
    assert bundles.recall((0).to_bytes(4, "big"), NOW) is None
    assert bundles.recall((1).to_bytes(4, "big"), NOW) == ALICE
    assert bundles.recall((4096).to_bytes(4, "big"), NOW) == ALICE


# --- strangers -------------------------------------------------------------------------

ROOT = Authority.root()
INTERMEDIATE = ROOT.child()
CHAIN = [INTERMEDIATE.svid(), INTERMEDIATE.der]
BUNDLES = ROOT.bundles()
PLACES = [st.tuples(st.just(which), st.integers(0, len(der) - 1)) for which, der in enumerate(CHAIN)]


@given(
    st.lists(st.tuples(st.one_of(PLACES), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from(Usage),
)
def test_a_mutated_chain_is_refused_or_still_the_same(edits: list[Any], usage: Usage) -> None:
    mutated = [bytearray(der) for der in CHAIN]
    for (which, place), value in edits:
        mutated[which][place] = value
    message = ""
    try:
        assert verify([bytes(der) for der in mutated], BUNDLES, NOW, usage) == ALICE
    except IdentityMismatch as refusal:
        message = str(refusal)
    assert not message or message.startswith("identity verification error: ")
    assert message.isprintable()


@given(st.sampled_from(CHAIN), st.integers(0, 700), st.binary(max_size=8), st.integers(0, 20))
def test_a_cut_or_grown_certificate_is_refused_or_still_the_same(
    der: bytes, at: int, new: bytes, drop: int
) -> None:
    changed = der[:at] + new + der[at + drop :]
    try:
        assert verify([changed, INTERMEDIATE.der], BUNDLES, NOW, Usage.CLIENT) == ALICE
        assert changed == CHAIN[0]
    except IdentityMismatch:
        assert changed != CHAIN[0]


@given(st.lists(st.binary(max_size=300), max_size=12))
def test_garbage_is_refused(garbage: list[bytes]) -> None:
    with pytest.raises(IdentityMismatch):
        verify(garbage, BUNDLES, NOW, Usage.CLIENT)


@given(st.text(st.characters(codec="utf-8", max_codepoint=127), max_size=60))
def test_any_uri_is_refused_or_comes_back_as_it_was(text: str) -> None:
    written = f"spiffe://cluster.local/ns/{text}"
    try:
        identity = verify([ROOT.svid(Leaf().named(written))], BUNDLES, NOW, Usage.CLIENT)
    except IdentityMismatch:
        return
    assert str(identity) == written


# --- bundles -----------------------------------------------------------------------------


def test_certificates_are_read_in_their_order(root: Authority) -> None:
    child = root.child()
    ders = [one.public_bytes(DER) for one in parse_certificates(root.pem + "some words\n" + child.pem)]
    assert ders == [root.der, child.der]


@pytest.mark.parametrize(
    "text", ["", "words", "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"]
)
def test_a_bundle_without_certificates_is_refused(text: str) -> None:
    with pytest.raises(PeerError, match="not a text of PEM certificates"):
        TrustBundles({"cluster.local": text})
