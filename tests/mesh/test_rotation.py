"""Certificates that live for seconds, under load: replaced before they expire, and no connection notices."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

import pytest
from cryptography import x509

from tests.mesh import lab
from tests.mesh.lab import Load, Mesh, account, read_exactly
from tests.mesh.peers import authority, issue

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

TTL_SECONDS = 4.0
ENVIRONMENT = {"SECRET_TTL": f"{TTL_SECONDS:.0f}s"}
MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("out/peer", "node-1")
)


def presented(mesh: Mesh) -> x509.Certificate:
    """What the called pod's proxy shows to a new session."""
    paper = issue(authority(mesh), account("shop/caller"))
    sock = mesh.connect("out/peer", mesh.address("shop/called"), 15008)
    with paper.context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(sock) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def test_no_call_fails_over_three_generations_and_an_old_tunnel_lives_on(mesh: Mesh) -> None:
    first = presented(mesh)
    client, server = mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    serials = {first.serial_number}
    with Load(mesh, [("shop/caller", "shop/called"), ("shop/caller", "shop/near")]) as load:
        begun = time.monotonic()
        while len(serials) < 4:
            client.sendall(b"still here")
            assert read_exactly(server, 10) == b"still here"
            serials.add(presented(mesh).serial_number)
            assert time.monotonic() - begun < 5 * TTL_SECONDS, serials
    assert load.failed() == []
    assert load.answered > 50
    for node in ("node-1", "node-2"):
        assert mesh.grown(node, "ztunnel_certificates_fetched_total") >= 2
        assert mesh.grown(node, "ztunnel_certificates_failed_total") == 0
        assert mesh.figures(node).total("ztunnel_certificate_expiry_seconds") > 0
    assert not [line for line in mesh.lines("node-1") + mesh.lines("node-2") if line["level"] == "error"]


def test_a_certificate_is_valid_a_little_before_and_as_long_as_was_asked_for(mesh: Mesh) -> None:
    found = presented(mesh)
    left = (found.not_valid_after_utc - found.not_valid_before_utc).total_seconds()
    assert TTL_SECONDS <= left <= TTL_SECONDS * 1.2 + 2
    [name] = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert name.value == account("shop/called")


def test_sessions_of_replaced_certificates_do_not_pile_up(mesh: Mesh) -> None:
    for _ in range(3):
        assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
        wait_for_another(mesh, lambda: presented(mesh).serial_number)
    lab.wait_until(lambda: mesh.figures("node-1").total("ztunnel_hbone_sessions") <= 3, "old sessions end")


def wait_for_another(mesh: Mesh, value: Callable[[], int]) -> None:
    before = value()
    lab.wait_until(lambda: value() != before, "a new certificate")


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
