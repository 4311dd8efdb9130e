"""Real handshakes over memory: who may speak, what is spoken, and what is left behind (nothing)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from tests.identity.builders import ALICE, BOB, NOW, Authority, Leaf, key_usage
from ztunnel.errors import Flag, IdentityMismatch, Side, TlsFailed
from ztunnel.identity.chain import TrustBundles
from ztunnel.identity.secure import client_context, load_key, peer, peer_chain, server_context

DAY = timedelta(days=1)
Ends = tuple[ssl.SSLObject, ssl.SSLObject]


@pytest.fixture(scope="module")
def root() -> Authority:
    """A root that is valid by this machine's clock too: OpenSSL asks that one, not ours."""
    return Authority.root(end=NOW + 36500 * DAY)


def identity_of(root: Authority, identity: object, **changes: object) -> tuple[str, str, str]:
    """Key, chain and roots, valid whatever this machine's clock says."""
    lasting = {"begin": NOW - 10_000 * DAY, "end": NOW + 10_000 * DAY, **changes}
    key_pem, chain_pem = root.keyed(identity, **lasting)  # type: ignore[arg-type]
    return key_pem, chain_pem, root.pem


def shake(client: ssl.SSLContext, server: ssl.SSLContext, name: str | None = None) -> Ends:
    """A handshake in memory; both ends read once more after it, so that late alerts and tickets arrive."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(down, up, server_hostname=name), server.wrap_bio(up, down, server_side=True))
    for _ in range(4):
        for end in ends:
            step(end.do_handshake)
    for end in ends:
        end.do_handshake()
        step(lambda end=end: end.read(1))  # type: ignore[misc]
    return ends


def step(action: Callable[[], object]) -> None:
    with suppress(ssl.SSLWantReadError):
        action()


@pytest.fixture(scope="module")
def ends(root: Authority) -> Ends:
    """A client that is Alice and a server that is Bob."""
    return shake(client_context(*identity_of(root, ALICE)), server_context(*identity_of(root, BOB)))


def test_each_end_knows_who_the_other_is(root: Authority, ends: Ends) -> None:
    client, server = ends
    assert peer(server, root.bundles(), NOW) == ALICE
    assert peer(client, root.bundles(), NOW, (BOB,)) == BOB


def test_what_is_spoken_is_tls_1_3_with_aes_gcm_and_h2(ends: Ends) -> None:
    for end in ends:
        assert end.version() == "TLSv1.3"
        assert end.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
        assert end.selected_alpn_protocol() == "h2"
        assert end.compression() is None


def test_bytes_pass_both_ways(ends: Ends) -> None:
    client, server = ends
    client.write(b"up")
    assert server.read(9) == b"up"
    server.write(b"down")
    assert client.read(9) == b"down"


def test_a_server_gives_no_ticket_and_a_client_resumes_nothing(root: Authority, ends: Ends) -> None:
    client, _ = ends
    assert client.session is None or not client.session.has_ticket
    server = server_context(*identity_of(root, BOB))
    assert server.num_tickets == 0
    for end in shake(client_context(*identity_of(root, ALICE)), server):
        assert not end.session_reused


def test_a_client_asks_for_no_name(root: Authority) -> None:
    asked: list[str | None] = []
    server = server_context(*identity_of(root, BOB))
    server.sni_callback = lambda _, name, __: asked.append(name)
    shake(client_context(*identity_of(root, ALICE)), server)
    assert asked == [None]


def test_a_server_does_not_mind_a_name(root: Authority) -> None:
    client = client_context(*identity_of(root, ALICE))
    _, server_end = shake(client, server_context(*identity_of(root, BOB)), "bob.default.svc")
    assert peer(server_end, root.bundles(), NOW) == ALICE


def test_what_the_peer_presented_is_given_leaf_first(root: Authority) -> None:
    intermediate = root.child(end=NOW + 10_000 * DAY)
    key_pem, leaf_pem, _ = identity_of(intermediate, ALICE)
    presented = leaf_pem + intermediate.pem
    material = (key_pem, presented, root.pem)
    leaf = ssl.PEM_cert_to_DER_cert(leaf_pem)
    for end in shake(client_context(*material), server_context(*material)):
        assert list(peer_chain(end)) == [leaf, intermediate.der]
        assert peer(end, root.bundles(), NOW, (ALICE,)) == ALICE


def test_two_handshakes_with_contexts_of_different_age_both_stand(root: Authority) -> None:
    old, new = (server_context(*identity_of(root, BOB)) for _ in range(2))
    client = client_context(*identity_of(root, ALICE))
    serials = {bytes(peer_chain(shake(client, server)[0])[0]) for server in (old, new, old)}
    assert len(serials) == 2


# --- refusals in the handshake -----------------------------------------------------------


def plain_client(root: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=root.pem)
    context.set_alpn_protocols(["h2"])
    return context


def tls12_client(root: Authority) -> ssl.SSLContext:
    context = plain_client(root)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


REFUSED_CLIENTS: dict[str, Callable[[Authority], ssl.SSLContext]] = {
    "no certificate": plain_client,
    "TLS 1.2": tls12_client,
    "an expired certificate": lambda root: client_context(*identity_of(root, ALICE, end=NOW - 9000 * DAY)),
    "a certificate of another root": lambda root: client_context(
        *identity_of(Authority.root("other", end=NOW + 10_000 * DAY), ALICE)[:2], root.pem
    ),
}


@pytest.mark.parametrize("client", REFUSED_CLIENTS.values(), ids=REFUSED_CLIENTS.keys())
def test_a_handshake_fails_with(root: Authority, client: Callable[[Authority], ssl.SSLContext]) -> None:
    with pytest.raises(ssl.SSLError):
        shake(client(root), server_context(*identity_of(root, BOB)))


def test_a_client_refuses_a_server_of_another_root(root: Authority) -> None:
    other = Authority.root("other", end=NOW + 10_000 * DAY)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client_context(*identity_of(root, ALICE)), server_context(*identity_of(other, BOB)))


# --- refusals after it -------------------------------------------------------------------

PASSED_BY_OPENSSL: dict[str, tuple[dict[str, object], str]] = {
    "two identities": ({"names": Leaf().named(ALICE, BOB).names}, "one URI SAN"),
    "a NUL in the identity": ({"names": Leaf().named(f"{ALICE}\0").names}, "not a path segment"),
    "no identity": ({"names": None}, "names nobody"),
    "a certificate that may sign others": (
        {"usage": key_usage("digital_signature", "key_cert_sign")},
        "may sign certificates",
    ),
    "a CA's certificate": ({"ca": True}, "is a CA's"),
}


@pytest.mark.parametrize(("changes", "message"), PASSED_BY_OPENSSL.values(), ids=PASSED_BY_OPENSSL.keys())
def test_what_openssl_lets_pass_is_refused_by_us(
    root: Authority, changes: dict[str, object], message: str
) -> None:
    bad = identity_of(root, ALICE, **changes)
    client, server = shake(client_context(*bad), server_context(*identity_of(root, BOB)))
    with pytest.raises(IdentityMismatch, match=message) as refusal:
        peer(server, root.bundles(), NOW)
    assert refusal.value.side is Side.SOURCE
    client, server = shake(client_context(*identity_of(root, BOB)), server_context(*bad))
    with pytest.raises(IdentityMismatch, match=message) as refusal:
        peer(client, root.bundles(), NOW, (ALICE,))
    assert refusal.value.side is Side.DESTINATION


@pytest.mark.parametrize("expected", [(), (ALICE,), {ALICE}])
def test_a_server_that_was_not_expected_is_refused(root: Authority, ends: Ends, expected: tuple[()]) -> None:
    with pytest.raises(IdentityMismatch, match="did not present the expected SAN"):
        peer(ends[0], root.bundles(), NOW, expected)


def test_a_peer_whose_trust_domain_has_no_bundle_is_refused(root: Authority, ends: Ends) -> None:
    with pytest.raises(IdentityMismatch, match=r"expected trustdomain \(elsewhere.org\)"):
        peer(ends[1], TrustBundles({"elsewhere.org": root.pem}), NOW)


def test_a_peer_is_judged_by_the_given_clock(root: Authority, ends: Ends) -> None:
    with pytest.raises(IdentityMismatch, match="expired"):
        peer(ends[1], root.bundles(), NOW + 20_000 * DAY)


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
def test_a_peer_without_h2_is_refused(root: Authority, protocols: list[str]) -> None:
    client, server = client_context(*identity_of(root, ALICE)), server_context(*identity_of(root, BOB))
    if protocols:
        client.set_alpn_protocols(protocols)
    else:
        client = without_alpn(root)
    _, end = shake(client, server)
    with pytest.raises(TlsFailed, match="did not negotiate h2") as refusal:
        peer(end, root.bundles(), NOW)
    assert (refusal.value.side, refusal.value.flag) == (Side.SOURCE, Flag.TLS_FAILURE)


def without_alpn(root: Authority) -> ssl.SSLContext:
    key_pem, chain_pem, roots_pem = identity_of(root, ALICE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=roots_pem)
    load_key(context, key_pem + chain_pem)
    return context


def test_a_peer_that_presented_nothing_has_no_chain(root: Authority) -> None:
    server = server_context(*identity_of(root, BOB))
    server.verify_mode = ssl.CERT_NONE
    _, end = shake(plain_client(root), server)
    assert list(peer_chain(end)) == []
    with pytest.raises(IdentityMismatch, match="presented no certificate"):
        peer(end, root.bundles(), NOW)


# --- contexts ----------------------------------------------------------------------------


def test_a_key_that_is_not_the_leaf_s_is_refused(root: Authority) -> None:
    key_pem, _, _ = identity_of(root, ALICE)
    _, chain_pem, roots_pem = identity_of(root, ALICE)
    with pytest.raises(ssl.SSLError, match="key values mismatch"):
        server_context(key_pem, chain_pem, roots_pem)


def test_making_contexts_leaves_no_descriptor_open(root: Authority) -> None:
    material = identity_of(root, ALICE)
    before = sorted(os.listdir("/proc/self/fd"))
    server_context(*material)
    client_context(*material)
    with pytest.raises(ssl.SSLError):
        client_context("no key", material[1], material[2])
    assert sorted(os.listdir("/proc/self/fd")) == before


class Watching(ssl.SSLContext):
    """Notes where the key was read from."""

    def load_cert_chain(self, certfile: Any, *rest: Any, **named: Any) -> None:
        self.read_from = os.readlink(certfile)
        super().load_cert_chain(certfile, *rest, **named)


def test_the_key_is_read_from_memory_that_no_disk_knows(root: Authority) -> None:
    context = Watching(ssl.PROTOCOL_TLS_SERVER)
    load_key(context, "".join(identity_of(root, ALICE)[:2]))
    assert context.read_from == "/memfd:svid (deleted)"
