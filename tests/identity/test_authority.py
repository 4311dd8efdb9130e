"""A plug-in CA signs as its peers expect; each way that it can be wrong has its words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.identity.builders import ALICE, BOB, NOW, PEM, Authority, Leaf, key_usage, new_key, pem_of, uri
from tests.identity.sets import Set, one_step
from ztunnel.errors import ConfigError, PeerError
from ztunnel.identity import csr
from ztunnel.identity.authority import read_authority
from ztunnel.identity.chain import parse_certificates
from ztunnel.identity.issued import accept
from ztunnel.identity.plugged_in import CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT, assemble

DAY = timedelta(days=1)


def read(files: dict[str, bytes], trust_domain: str = "cluster.local") -> Any:
    return read_authority(assemble(files, str), trust_domain, NOW)


def taken(authority: Any, seconds: float = 3600) -> tuple[list[str], Any]:
    """What is answered to a node, and what the node makes of it."""
    request = csr.create(ALICE)
    answer = authority.sign(request.csr_pem, ALICE, seconds, NOW)
    return answer, accept(answer, ALICE, request, NOW)


def two_steps() -> Set:
    root = Authority.root()
    upper = root.child("upper")
    return Set(root, (upper, upper.child("lower")))


def test_the_answer_is_leaf_intermediates_and_the_roots() -> None:
    found = one_step()
    answer, node = taken(read(found.files()))
    leaf = parse_certificates(answer[0])[0]
    leaf.verify_directly_issued_by(found.signer.certificate)
    assert answer[1:] == [found.signer.pem, found.root.pem]
    assert parse_certificates(node.chain_pem)[1:] == [found.signer.certificate]
    assert node.roots_pem == found.root.pem


def test_of_a_longer_chain_each_intermediate_is_a_text_of_its_own() -> None:
    found = two_steps()
    answer, _ = taken(read(found.files()))
    assert answer[1:] == [found.steps[1].pem, found.steps[0].pem, found.root.pem]


CHAINS: dict[str, Callable[[Set], str | None]] = {
    "from the CA certificate to the root": lambda them: them.steps[1].pem + them.steps[0].pem + them.root.pem,
    "without the root": lambda them: them.steps[1].pem + them.steps[0].pem,
    "without the CA certificate": lambda them: them.steps[0].pem,
    "in another order": lambda them: them.root.pem + them.steps[0].pem + them.steps[1].pem,
    "twice": lambda them: (them.steps[1].pem + them.steps[0].pem) * 2,
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
def test_a_chain_may_be_written(chain: Callable[[Set], str | None]) -> None:
    found = two_steps()
    answer, _ = taken(read(found.files(cert_chain=chain(found))))
    assert set(answer[1:-1]) == {one.pem for one in found.steps}
    assert answer[-1] == found.root.pem


@pytest.mark.parametrize("chain", [None, ""])
def test_under_a_root_no_chain_is_needed(chain: str | None) -> None:
    found = one_step()
    answer, _ = taken(read(found.files(cert_chain=chain)))
    assert answer[1:] == [found.signer.pem, found.root.pem]


def test_a_root_may_sign_by_itself() -> None:
    found = Set(Authority.root(), ())
    answer, _ = taken(read(found.files()))
    assert answer[1:] == [found.root.pem]


def test_a_root_that_another_one_vouches_for_is_presented_with_that() -> None:
    """Peers that know only the old root believe what the new one signs."""
    old, new = Authority.root("old"), Authority.root("new")
    crossed = new.crossed_by(old)
    authority = read(Set(new, ()).files(cert_chain=crossed.pem, root_cert=old.pem + new.pem))
    request = csr.create(ALICE)
    leaf, between, _ = authority.sign(request.csr_pem, ALICE, 60, NOW)
    assert accept([leaf, between, old.pem], ALICE, request, NOW)
    assert accept([leaf, between, new.pem], ALICE, request, NOW)


def test_several_roots_are_trusted_while_one_signs() -> None:
    found, other = one_step(), Authority.root("other")
    _, node = taken(read(found.files(root_cert=other.pem + found.root.pem)))
    assert parse_certificates(node.roots_pem) == [other.certificate, found.root.certificate]


def test_a_root_beside_it_may_have_expired() -> None:
    found, old = one_step(), Authority.root("old", end=NOW - DAY)
    _, node = taken(read(found.files(root_cert=old.pem + found.root.pem)))
    assert len(parse_certificates(node.roots_pem)) == 2


@pytest.mark.parametrize(
    "make", [lambda: rsa.generate_private_key(65537, 2048), lambda: ec.generate_private_key(ec.SECP384R1())]
)
def test_a_key_of_another_strong_kind_signs(make: Callable[[], Any]) -> None:
    root, key = Authority.root(), make()
    signer = Authority(key, ca(root, key))
    taken(read(Set(root, (signer,)).files()))


def test_a_leaf_ends_no_later_than_what_vouches_for_it() -> None:
    root = Authority.root(end=NOW + 2 * DAY)
    found = Set(root, (root.child(end=NOW + 300 * DAY),))
    authority = read(found.files())
    _, node = taken(authority, 90 * DAY.total_seconds())
    assert node.not_after == authority.not_after == NOW + 2 * DAY


def test_what_others_see_tells_authorities_apart() -> None:
    found, again = one_step(), one_step()
    assert read(found.files()).shown == read(found.files()).shown
    assert read(found.files()).shown != read(again.files()).shown
    assert read(found.files()).shown != read(found.files(root_cert=found.root.pem + again.root.pem)).shown


def test_neither_the_key_nor_a_text_of_it_is_shown() -> None:
    files = one_step().files()
    texts = assemble(files, str)
    assert "PRIVATE" not in repr(read(files)) + repr(texts)


def test_a_root_that_is_no_longer_valid_signs_nothing() -> None:
    found = one_step(Authority.root(end=NOW + DAY))
    authority = read(found.files())
    with pytest.raises(ConfigError, match="the root expired at"):
        authority.sign(csr.create(ALICE).csr_pem, ALICE, 60, NOW + 2 * DAY)
    with pytest.raises(ConfigError, match=r"is not valid before .* set the clock"):
        authority.sign(csr.create(ALICE).csr_pem, ALICE, 60, NOW - 20_000 * DAY)


def test_another_identity_than_the_requester_s_is_not_signed() -> None:
    with pytest.raises(PeerError, match=r"for .*/bob, the requester is .*/alice"):
        read(one_step().files()).sign(csr.create(BOB).csr_pem, ALICE, 60, NOW)


def permitted(*names: str) -> x509.NameConstraints:
    return x509.NameConstraints([uri(name) for name in names], None)


@pytest.mark.parametrize(
    "constraints",
    [
        permitted("cluster.local"),
        permitted("other.example", "cluster.local"),
        permitted(".local"),
        x509.NameConstraints(None, [uri("other.example")]),
    ],
)
def test_an_authority_of_this_trust_domain_alone_signs(constraints: x509.NameConstraints) -> None:
    taken(read(one_step(constraints=constraints).files()))


# --- what can be wrong --------------------------------------------------------------------


def ca(root: Authority, key: Any, **changes: Any) -> x509.Certificate:
    """A CA certificate over any key, with other extensions than a good one has."""
    constraints = changes.get("constraints", x509.BasicConstraints(True, None))
    usage = changes.get("usage", key_usage("key_cert_sign", "crl_sign"))
    subject = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "made by hand")])
    builder = x509.CertificateBuilder(
        root.certificate.subject, subject, key.public_key(), x509.random_serial_number(), NOW - DAY, NOW + DAY
    )
    if constraints is not None:
        builder = builder.add_extension(constraints, True)
    builder = builder.add_extension(usage, True)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key())
    digest = changes.get("digest", hashes.SHA256())
    return builder.add_extension(issuer, False).sign(root.key, digest)


def by_hand(**changes: Any) -> dict[str, bytes]:
    root, key = Authority.root(), changes.pop("key", None) or new_key()
    return Set(root, (Authority(key, ca(root, key, **changes)),)).files()


def leaf_as_authority() -> dict[str, bytes]:
    root, leaf = Authority.root(), Leaf()
    return Set(root, (Authority(leaf.key, leaf.signed_by(root)),)).files()


def too_deep() -> dict[str, bytes]:
    root = Authority.root()
    upper = root.child("upper", path_length=0)
    return Set(root, (upper, upper.child("lower"))).files()


def same_name_other_key() -> dict[str, bytes]:
    return one_step().files(root_cert=Authority.root().pem, cert_chain=None)


def expired() -> dict[str, bytes]:
    return one_step(end=NOW - DAY).files()


def without_middle() -> dict[str, bytes]:
    found = two_steps()
    return found.files(cert_chain=found.steps[1].pem + found.root.pem)


def partial_root() -> dict[str, bytes]:
    """OpenSSL takes no intermediate for a root, so peers would refuse."""
    found = two_steps()
    return found.files(root_cert=found.steps[0].pem, cert_chain=found.steps[1].pem)


def many() -> dict[str, bytes]:
    found = one_step()
    others = "".join(found.root.child(f"other {number}").pem for number in range(8))
    return found.files(cert_chain=found.signer.pem + others)


SPOILT: dict[str, tuple[Callable[[], dict[str, bytes]], str, str]] = {
    "a key of another certificate": (
        lambda: one_step().files(ca_key=pem_of(new_key())),
        CA_KEY,
        "not the key of the first certificate in ca-cert.pem",
    ),
    "no key": (lambda: one_step().files(ca_key=None), CA_KEY, "missing or empty"),
    "an empty root": (lambda: one_step().files(root_cert="\n"), ROOT_CERT, "missing or empty"),
    "a key that is none": (lambda: one_step().files(ca_key="hello"), CA_KEY, "not a private key in PEM"),
    "a weak RSA key": (
        lambda: by_hand(key=rsa.generate_private_key(65537, 1024)),
        CA_KEY,
        "a weak key of 1024 bits",
    ),
    "a key on a curve that is not believed": (
        lambda: by_hand(key=ec.generate_private_key(ec.SECP256K1())),
        CA_KEY,
        "a weak key of 256 bits",
    ),
    "a key of another kind": (
        lambda: by_hand(key=ed25519.Ed25519PrivateKey.generate()),
        CA_KEY,
        "neither an EC nor an RSA key",
    ),
    "a leaf": (leaf_as_authority, CA_CERT, "is not a CA's .basicConstraints"),
    "a CA that says nothing of it": (
        lambda: by_hand(constraints=None),
        CA_CERT,
        "is not a CA's .basicConstraints",
    ),
    "a CA that may not sign": (
        lambda: by_hand(usage=key_usage("digital_signature")),
        CA_CERT,
        "keyUsage keyCertSign",
    ),
    "a certificate that has expired": (expired, CA_CERT, "the certificate 'O=intermediate' expired at"),
    "a root that has expired": (
        lambda: one_step(Authority.root(end=NOW - DAY)).files(),
        CA_CERT,
        "the root expired at",
    ),
    "a path that is too long": (
        too_deep,
        CERT_CHAIN,
        "'O=upper' allows 0 CAs below it .pathlen., and there are 1",
    ),
    "another trust domain": (
        lambda: one_step(constraints=permitted("other.example")).files(),
        CA_CERT,
        "may not vouch for the trust domain cluster.local .nameConstraints",
    ),
    "a trust domain that is left out": (
        lambda: one_step(constraints=x509.NameConstraints(None, [uri("cluster.local")])).files(),
        CA_CERT,
        "may not vouch for the trust domain cluster.local .nameConstraints",
    ),
    "a root of the same name": (same_name_other_key, ROOT_CERT, "has another key and has not signed"),
    "another root": (
        lambda: one_step().files(root_cert=Authority.root("other").pem, cert_chain=""),
        CERT_CHAIN,
        "the next issuer is 'O=root': its certificate.*is not there",
    ),
    "a gap in the chain": (without_middle, CERT_CHAIN, "the next issuer is 'O=upper'"),
    "an intermediate for a root": (partial_root, CERT_CHAIN, "the next issuer is 'O=root'"),
    "a torn root": (
        lambda: one_step().files(root_cert=Authority.root().pem[:-60]),
        ROOT_CERT,
        "not a text of PEM certificates",
    ),
    "too many intermediates": (many, CERT_CHAIN, "9 intermediates"),
    "a CA for servers only": (
        lambda: one_step(purposes=[ExtendedKeyUsageOID.SERVER_AUTH]).files(),
        CA_CERT,
        "peers would refuse what it signs for the trust domain cluster.local: .* may not vouch for a client",
    ),
}


@pytest.mark.parametrize(("make", "name", "message"), SPOILT.values(), ids=SPOILT.keys())
def test_the_operator_is_told_of(make: Callable[[], dict[str, bytes]], name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        read(make())
    assert [fault.file for fault in refusal.value.faults] == [name]


def test_faults_of_all_texts_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as refusal:
        read(one_step().files(ca_cert="x", ca_key="x", cert_chain="x", root_cert="x"))
    assert {fault.file for fault in refusal.value.faults} == {CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT}


def test_no_message_quotes_a_key() -> None:
    torn = pem_of(new_key())[:-90]
    with pytest.raises(ConfigError) as refusal:
        read(one_step().files(ca_key=torn))
    assert torn[40:80] not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_certificate_that_cannot_be_read_is_told() -> None:
    found = one_step()
    der = bytearray(found.signer.certificate.public_bytes(PEM))
    der[300] = ord("A") if der[300] != ord("A") else ord("B")
    with pytest.raises(ConfigError):
        read(found.files(ca_cert=der.decode()))
