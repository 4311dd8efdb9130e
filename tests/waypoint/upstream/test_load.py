"""What contexts of TLS are made of: files, read again when they have changed, and what is sent of Secrets."""

from __future__ import annotations

import os
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from tests.waypoint.tls_server import Authority, TlsServer
from ztunnel.errors import TlsFailed
from ztunnel.model.credential import Credential
from ztunnel.model.traffic import ClientTls, TlsMode
from ztunnel.waypoint.upstream.load import Contexts


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("load"))


def test_files_are_read_again_when_they_have_changed(authority, tmp_path):
    contexts = Contexts()
    path = tmp_path / "roots.pem"
    path.write_text(Path(authority.roots).read_text())
    policy = ClientTls(TlsMode.SIMPLE, roots=str(path))
    first = contexts.of(policy, "")
    assert contexts.of(policy, "") is first
    assert contexts.of(policy, "h2") is not first
    os.utime(path, ns=(1, 1))
    assert contexts.of(policy, "") is not first
    assert first.minimum_version is ssl.TLSVersion.TLSv1_2
    path.write_text("no certificate")
    with pytest.raises(TlsFailed, match="DestinationRule tls"):
        contexts.of(policy, "")


MUTUAL, SIMPLE = ClientTls(TlsMode.MUTUAL, credential="s"), ClientTls(TlsMode.SIMPLE, credential="s")


def text(path: str) -> str:
    return Path(path).read_text()


@pytest.fixture(scope="module")
def sent(authority) -> Credential:
    certificate, key = map(text, authority.issue("client", "c.example"))
    return Credential("s", "shop", certificate, key, text(authority.roots))


def shake(context: ssl.SSLContext, server: TlsServer) -> bool:
    """Whether the handshake is done with both sides content."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="a.example")
    for _ in range(5):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            incoming.write(server.take(outgoing.read()))
        else:
            server.take(outgoing.read())
            return True
    return False


@pytest.mark.parametrize("tls", [SIMPLE, MUTUAL])
def test_what_was_sent_of_a_secret_counts_and_touches_no_disk(authority, sent, tls, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    server = TlsServer(authority.issue("server", "a.example"))
    contexts = Contexts({"s": sent}.get)
    assert shake(contexts.of(tls, ""), server)
    assert list(tmp_path.iterdir()) == []


def test_a_secret_that_is_another_one_counts_from_the_next_connection_on(authority, sent):
    held = {"s": sent}
    contexts = Contexts(held.get)
    first = contexts.of(MUTUAL, "")
    assert contexts.of(MUTUAL, "") is first
    held["s"] = replace(sent, roots=sent.roots + sent.roots)
    second = contexts.of(MUTUAL, "")
    assert second is not first
    held.clear()
    with pytest.raises(TlsFailed, match="has sent no Secret of that name"):
        contexts.of(MUTUAL, "")


LACKING = [
    (SIMPLE, {"roots": ""}, "neither Secret shop/s nor shop/s-cacert has a ca.crt"),
    (MUTUAL, {"private_key": ""}, "Secret shop/s has no tls.crt and tls.key"),
    (MUTUAL, {"certificate": "", "problem": "there is no Secret shop/s"}, "there is no Secret shop/s"),
    (SIMPLE, {"roots": "no certificate"}, "Secret shop/s"),
    (MUTUAL, {"private_key": "no key"}, "Secret shop/s"),
    (SIMPLE, {"revoked": "no list"}, "Secret shop/s"),
]


@pytest.mark.parametrize(("tls", "more", "why"), LACKING)
def test_what_a_secret_lacks_refuses_and_says_why(sent, tls, more, why):
    with pytest.raises(TlsFailed) as failed:
        Contexts({"s": replace(sent, **more)}.get).of(tls, "")
    assert why in str(failed.value)
    assert "PRIVATE KEY" not in str(failed.value)


def test_a_key_of_another_certificate_or_one_with_a_password_is_refused(authority, sent):
    _, other = map(text, authority.issue("other", "o.example"))
    with pytest.raises(TlsFailed, match="Secret shop/s"):
        Contexts({"s": replace(sent, private_key=other)}.get).of(MUTUAL, "")
    locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----"
    with pytest.raises(TlsFailed, match="Secret shop/s"):
        Contexts({"s": replace(sent, private_key=locked)}.get).of(MUTUAL, "")


def test_a_server_that_is_not_verified_needs_no_authorities_and_a_revoked_one_is_refused(authority, sent):
    server = TlsServer(authority.issue("server-3", "a.example", serial=78))
    lax = replace(SIMPLE, skip_verify=True)
    assert shake(Contexts({"s": replace(sent, roots="")}.get).of(lax, ""), server)
    revoking = replace(sent, revoked=text(authority.revoke(78)))
    server = TlsServer(authority.issue("server-4", "a.example", serial=78))
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake(Contexts({"s": revoking}.get).of(SIMPLE, ""), server)
