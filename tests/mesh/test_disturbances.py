"""What others do to a pod or a node, and the mesh goes on: the commands of network managers, CNI plugins and
firewalls."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh, wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("out/plain", "node-2")
    + lab.peer_authentication("shop/default", "PERMISSIVE")
)
POD = "shop/called"


def do(mesh: Mesh, where: str, command: str) -> str:
    words = ["nsenter", f"--net={mesh.netns(where)}", "sh", "-ec", command]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def works(mesh: Mesh, where: str = POD) -> bool:
    """Calls to the pod by tunnel, on its node and in plaintext, and calls of it, in both families."""
    return all(
        mesh.call(caller, mesh.address(called, family), 8080).answers()
        for caller, called in (("shop/caller", where), ("out/plain", where), (where, "shop/caller"))
        for family in lab.TCP_FAMILIES
    )


def is_refused_in_plaintext(mesh: Mesh) -> bool:
    strict = lab.peer_authentication("shop/default", "STRICT")
    mesh.apply(strict)
    try:
        call = mesh.call("out/plain", mesh.address(POD), 8080)
        return bool(call.error) or not call.answers()
    finally:
        mesh.apply(lab.peer_authentication("shop/default", "PERMISSIVE"))


DISTURBANCES = {
    # systemd-networkd removes rules that are not its own.
    "foreign rules are removed": "ip rule flush; ip rule add from all lookup main pref 32766; "
    "ip -6 rule flush; ip -6 rule add from all lookup main pref 32766",
    "all tables are flushed": "ip route flush table 100; ip -6 route flush table 100",
    # systemd-sysctl sets it so in every namespace that is made later.
    "strict reverse paths": "for each in all default eth0 lo; do "
    "echo 1 > /proc/sys/net/ipv4/conf/$each/rp_filter; done",
    "sysctls are reset": "cd /proc/sys/net/ipv4; echo 0 > tcp_fwmark_accept; echo 0 > tcp_migrate_req; "
    "echo 0 > fwmark_reflect; echo 0 > ../ipv6/fwmark_reflect; echo '' > ip_local_reserved_ports",
    # firewalld and iptables-restore load everything anew.
    "the ruleset is flushed": "nft flush ruleset",
    # A CNI plugin or NetworkManager takes addresses away for a moment.
    "lo goes down and up": "ip link set lo down; ip link set lo up",
    # ss -K, or tcpkill: sockets are destroyed.
    "sockets are destroyed": "ss -K state listening sport = :15008 >/dev/null || true",
}


@pytest.mark.parametrize("what", DISTURBANCES)
def test_a_pod_works_again_and_is_protected(mesh: Mesh, what: str) -> None:
    assert works(mesh)
    do(mesh, POD, DISTURBANCES[what])
    wait_until(lambda: works(mesh), what, seconds=20)
    assert is_refused_in_plaintext(mesh)


def test_addresses_that_go_and_come_again_are_captured_again(mesh: Mesh) -> None:
    """As where a CNI plugin configures the interface anew."""
    routes = do(mesh, POD, "ip route show; ip -6 route show dev eth0")
    v4, v6 = mesh.address(POD), mesh.address(POD, lab.IPv6Address)
    gateway = routes.split("default via ")[1].split()[0]
    gateway_v6 = do(mesh, POD, "ip -6 route show default").split()[2]
    do(mesh, POD, "ip addr flush dev eth0 scope global")
    do(
        mesh,
        POD,
        f"ip addr add {v4}/32 dev eth0; ip addr add {v6}/128 dev eth0 nodad; "
        f"ip route replace {gateway} dev eth0 scope link; ip route replace default via {gateway} src {v4}; "
        f"ip -6 route replace {gateway_v6} dev eth0; ip -6 route replace default via {gateway_v6} src {v6}",
    )
    wait_until(lambda: works(mesh), "it works again", seconds=20)
    assert is_refused_in_plaintext(mesh)


def test_an_mtu_that_shrinks_on_the_way_stops_no_bytes(mesh: Mesh) -> None:
    """Bulk both ways by tunnel where the nodes' link takes less than the pods' do. Both nodes know: where one
    does not, what is too long is lost between them without a word, as it is without a mesh."""
    for node in ("node-1", "node-2"):
        do(mesh, node, "ip link set eth0 mtu 1300")
    try:
        to = mesh.listen(POD)
        for family in lab.TCP_FAMILIES:
            client, server = mesh.join("shop/caller", to, mesh.address(POD, family))
            for one, other in ((client, server), (server, client)):
                one.sendall(bytes(200_000))
                assert lab.read_exactly(other, 200_000) == bytes(200_000)
            lab.reset(client)
    finally:
        for node in ("node-1", "node-2"):
            do(mesh, node, "ip link set eth0 mtu 1500")


def test_the_firewall_of_a_node_is_loaded_anew(mesh: Mesh) -> None:
    """Nothing of the mesh stands in the node's own rules."""
    rules = do(mesh, "node-1", "nft list ruleset")
    do(mesh, "node-1", "nft flush ruleset")
    try:
        assert works(mesh)
        assert is_refused_in_plaintext(mesh)
    finally:
        place = Path("/tmp") / lab.unique()
        place.write_text(rules)
        do(mesh, "node-1", f"nft -f {place}")
        place.unlink()
