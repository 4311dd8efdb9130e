"""A waypoint whose world and certificate come over the network, from a control plane of their own."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address

import pytest

from tests.mesh.lab import TCP_FAMILIES, Mesh, wait_until
from tests.mesh.test_waypoint import MANIFESTS, answers, head_of, server, vip

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
NETWORK = True
__all__ = ["MANIFESTS"]


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_requests_pass_through_it(mesh: Mesh, family) -> None:
    wait_until(partial(answers, mesh, family), "the waypoint is known")
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", family), 80)
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    there = listener.accept()
    assert b"x-istio-source: waypoint\r\n" in head_of(there)
    there.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert head_of(client).startswith(b"HTTP/1.1 204 ")


def test_it_serves_on_while_the_control_plane_is_away(mesh: Mesh) -> None:
    wait_until(partial(answers, mesh, IPv4Address), "the waypoint is known")
    mesh.laboratory.kill_control()
    try:
        test_requests_pass_through_it(mesh, IPv4Address)
    finally:
        mesh.laboratory.start_control()
