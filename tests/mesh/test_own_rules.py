"""Pods with netfilter rules of their own: firewalls and redirections, as init containers and VPN clients make
them."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, read_exactly

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/far", "node-2")
    + lab.pod("out/plain", "node-2")
    + lab.pod("out/other", "node-1")
)
FAMILIES = pytest.mark.parametrize("family", lab.TCP_FAMILIES)
WAYS = pytest.mark.parametrize(("where", "to"), [("shop/caller", "shop/near"), ("shop/caller", "shop/far")])
HTTP = 80


def words(family: Family) -> str:
    """How nftables calls a family."""
    return "ip" if family is IPv4Address else "ip6"


def answers(mesh: Mesh, where: str, to: str, family: Family, port: int) -> list[bool]:
    """Whether the echo server of a pod is reached at that port: first, and by what was learnt of the first.
    The connections have ended then: without its rule a translated one could not."""
    found = []
    for _ in range(2):
        call = mesh.call(where, mesh.address(to, family), port)
        found.append(call.answers())
        if found[-1]:
            call.sock.shutdown(socket.SHUT_WR)
            assert call.sock.recv(1) == b""
        call.sock.close()
    return found


@WAYS
@FAMILIES
def test_a_server_that_refuses_a_client_by_its_address_is_obeyed(
    mesh: Mesh, where: str, to: str, family: Family
) -> None:
    by = f"{words(family)} saddr {mesh.address(where, family)} tcp dport 8080 reject with tcp reset;"
    with mesh.filtered(to, f"type filter hook input priority 0; {by}"):
        for _ in range(2):
            error = mesh.call(where, mesh.address(to, family), 8080).error
            assert error is not None
            assert error.errno == errno.ECONNREFUSED
    assert answers(mesh, where, to, family, 8080) == [True, True]


@FAMILIES
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_firewall_that_knows_the_port_of_tunnels_is_in_nobodys_way(
    mesh: Mesh, family: Family, side: str
) -> None:
    """Stateful, with a policy of DROP."""
    hook, pod, device = {
        "client": ("output", "shop/caller", "oif"),
        "server": ("input", "shop/far", "iif"),
    }[side]
    always = "policy drop; ct state established,related accept; meta l4proto ipv6-icmp accept;"
    lets = f"{device} lo accept; tcp dport 15008 accept;"
    with mesh.filtered(pod, f"type filter hook {hook} priority 0; {always} {lets}"):
        assert answers(mesh, "shop/caller", "shop/far", family, 8080) == [True, True]


@pytest.mark.parametrize(("where", "to"), [("shop/caller", "shop/far"), ("out/other", "out/plain")])
@FAMILIES
def test_a_port_that_a_pod_redirects_to_another_needs_the_same_for_lo(
    mesh: Mesh, where: str, to: str, family: Family
) -> None:
    """What comes by a tunnel is called from within the pod."""
    rule, plain = f"tcp dport {HTTP} redirect to :8080;", to == "out/plain"
    inwards = f"type nat hook prerouting priority -100; {rule}"
    with mesh.filtered(to, inwards):
        assert answers(mesh, where, to, family, HTTP) == [plain, plain]
    with mesh.filtered(to, f"{inwards} }}; chain out {{ type nat hook output priority -100; oif lo {rule}"):
        assert answers(mesh, where, to, family, HTTP) == [True, True]


@WAYS
@FAMILIES
def test_rules_about_what_a_pod_calls_do_not_see_tunnels(
    mesh: Mesh, where: str, to: str, family: Family
) -> None:
    """A refusal, and a redirection to a proxy of the pod's own."""
    own, target = mesh.listen(where), mesh.address(to, family)
    called = f"{words(family)} daddr {target} tcp dport 8080"
    tunnelled = to == "shop/far"
    with mesh.filtered(where, f"type filter hook output priority 0; {called} reject with tcp reset;"):
        assert answers(mesh, where, to, family, 8080) == [tunnelled, tunnelled]
    with mesh.filtered(where, f"type nat hook output priority -100; {called} redirect to :{own.port};"):
        client = mesh.connect(where, target, 8080)
        if tunnelled:
            client.sendall(b"ping")
            assert read_exactly(client, 4) == b"ping"
        else:
            own.accept().close()
            assert client.recv(1) == b""
        client.close()
    assert own.nobody()
