"""A CA's answer is taken only if every peer would take it too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.identity.builders import ALICE, BOB, NOW, PEM, Authority, Leaf
from ztunnel.errors import IdentityMismatch, PeerError
from ztunnel.identity import csr
from ztunnel.identity.chain import Usage, verify
from ztunnel.identity.issued import accept

DAY = timedelta(days=1)
REQUEST = csr.create(ALICE)
KEY = serialization.load_pem_private_key(REQUEST.key_pem.encode(), None)


def signed(authority: Authority, leaf: Leaf | None = None) -> str:
    ours = (leaf or Leaf()).but(key=KEY)
    return ours.signed_by(authority).public_bytes(PEM).decode()


def test_a_good_answer_is_taken(root: Authority) -> None:
    taken = accept([signed(root), root.pem], ALICE, REQUEST, NOW)
    leaf = x509.load_pem_x509_certificate(taken.chain_pem.encode())
    assert (taken.identity, taken.key_pem) == (ALICE, REQUEST.key_pem)
    assert (taken.serial, taken.not_after) == (leaf.serial_number, leaf.not_valid_after_utc)
    assert taken.not_before == leaf.not_valid_before_utc
    assert taken.roots_pem == root.pem
    assert verify([root.svid()], taken.bundles, NOW, Usage.CLIENT) == ALICE


def test_intermediates_stay_in_the_chain_and_roots_may_be_several(root: Authority) -> None:
    other, child = Authority.root("other"), root.child()
    taken = accept([signed(child), child.pem, other.pem + "\n" + root.pem], ALICE, REQUEST, NOW)
    assert len(x509.load_pem_x509_certificates(taken.chain_pem.encode())) == 2
    assert len(x509.load_pem_x509_certificates(taken.roots_pem.encode())) == 2


def test_roots_that_come_as_texts_of_their_own_are_all_trusted(root: Authority) -> None:
    other, child = Authority.root("other"), root.child()
    issued = accept([signed(child), child.pem, root.pem, other.pem], ALICE, REQUEST, NOW)
    assert issued.chain_pem.count("BEGIN CERTIFICATE") == 2
    assert issued.roots_pem == root.pem + other.pem
    issued = accept([signed(child), child.pem, root.pem, root.pem], ALICE, REQUEST, NOW)
    assert issued.roots_pem == root.pem


def test_the_key_is_not_shown(root: Authority) -> None:
    assert "PRIVATE" not in repr(accept([signed(root), root.pem], ALICE, REQUEST, NOW))


def test_words_beside_the_certificates_are_dropped(root: Authority) -> None:
    taken = accept(["# für Alice\n" + signed(root), "# Wurzel ä\n" + root.pem], ALICE, REQUEST, NOW)
    assert taken.chain_pem.isascii()
    assert taken.roots_pem.isascii()


REFUSED: dict[str, tuple[Callable[[Authority], list[str]], str]] = {
    "nothing": (lambda _: [], "with 0 texts"),
    "a leaf alone": (lambda root: [signed(root)], "with 1 texts"),
    "eleven texts": (lambda root: [signed(root)] * 11, "with 11 texts"),
    "an empty text": (lambda root: ["", root.pem], "not a text of PEM"),
    "empty roots": (lambda root: [signed(root), ""], "not a text of PEM"),
    "another identity": (
        lambda root: [signed(root, Leaf().named(BOB)), root.pem],
        r"expected SAN \(.*/alice\), got .*/bob",
    ),
    "another trust domain": (
        lambda root: [signed(root, Leaf().named("spiffe://elsewhere.org/ns/default/sa/alice")), root.pem],
        "expected trustdomain",
    ),
    "another key": (
        lambda root: [Leaf().signed_by(root).public_bytes(PEM).decode(), root.pem],
        "another key",
    ),
    "an expired leaf": (
        lambda root: [signed(root, Leaf(begin=NOW - 2 * DAY, end=NOW - DAY)), root.pem],
        "expired",
    ),
    "a leaf of tomorrow": (
        lambda root: [signed(root, Leaf(begin=NOW + DAY, end=NOW + 2 * DAY)), root.pem],
        "not valid before",
    ),
    "roots that did not sign it": (lambda root: [signed(root), Authority.root("other").pem], "no path"),
    "a missing intermediate": (lambda root: [signed(root.child()), root.pem], "no path"),
    "a leaf for clients only": (
        lambda root: [signed(root, Leaf(purposes=[x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])), root.pem],
        "not for a server",
    ),
    "a CA certificate": (lambda root: [signed(root, Leaf(ca=True)), root.pem], "is a CA's"),
}


@pytest.mark.parametrize(("answer", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_an_answer_is_refused_with(
    root: Authority, answer: Callable[[Authority], list[str]], message: str
) -> None:
    with pytest.raises((PeerError, IdentityMismatch), match=message):
        accept(answer(root), ALICE, REQUEST, NOW)
