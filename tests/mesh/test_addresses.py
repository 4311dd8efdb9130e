"""Addresses that applications chose, or that pods have not: second ones, link-local ones, no IPv6 at all."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, account, endpoint_of, read_exactly

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("out/plain", "node-2")
    + lab.service("out/plain", "plain")
)
SOCKETS = {lab.IPv4Address: socket.AF_INET, lab.IPv6Address: socket.AF_INET6}
SECOND = {lab.IPv4Address: "10.244.1.200", lab.IPv6Address: "fd00:244:1::200"}
SWITCH = "for each in all lo eth0; do echo {} > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done"


def do(mesh: Mesh, where: str, command: str) -> str:
    return subprocess.run(
        ["ip", "netns", "exec", Path(mesh.netns(where)).name, "sh", "-ec", command],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def knows(mesh: Mesh, node: str, *addresses: str) -> bool:
    dump = mesh.laboratory.node_get(node, "/config_dump")
    return all(f'"{address}"' in dump for address in addresses)


@pytest.fixture
def second(mesh: Mesh) -> Iterator[None]:
    """The caller has other addresses as well, which nobody has told the mesh."""
    change = "; ".join(
        f"ip addr {{}} {ip}/{32 if '.' in ip else 128} dev eth0 {{}}" for ip in SECOND.values()
    )
    do(mesh, "shop/caller", change.format("add", "", "add", "nodad"))
    lab.wait_until(lambda: knows(mesh, "node-1", *SECOND.values()), "seen")
    yield
    do(mesh, "shop/caller", change.format("del", "", "del", ""))


def seen_from(mesh: Mesh, to: lab.Listener, address: str, port: int, family: Family) -> str:
    """Which address a peer sees, of a socket that is bound to the caller's second one."""
    sock = mesh.socket("shop/caller", SOCKETS[family])
    sock.bind((SECOND[family], 0))
    sock.connect((address, port))
    server = to.accept()
    sock.sendall(b"ping")
    assert read_exactly(server, 4) == b"ping"
    seen = str(endpoint_of(server.getpeername()).ip)
    lab.reset(sock)
    return seen


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
@pytest.mark.parametrize("where", ["shop/near", "shop/called", "out/plain", "node-2"])
def test_a_chosen_source_address_is_seen_by_everybody_each_time(
    mesh: Mesh, second: None, where: str, family: Family
) -> None:
    to = mesh.listen(where)
    address = mesh.address(where, family)
    seen = [seen_from(mesh, to, address, to.port, family) for _ in range(3)]
    assert seen == [SECOND[family]] * 3
    if where.startswith("shop"):
        lines = lab.wait_until(lambda: mesh.find_lines("node-1", direction="outbound")[2:], "three lines")
        assert {line.get("error") for line in lines} == {None}


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_a_verdict_is_not_about_calls_from_another_address(mesh: Mesh, second: None, family: Family) -> None:
    """The kernel knows the pod's own calls to be allowed; those from another address are looked at by it."""
    to = mesh.listen("shop/near")
    address = mesh.address("shop/near", family)
    for _ in range(2):
        client, server = mesh.join("shop/caller", to, address)
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        lab.reset(client)
    rules = f'[{{from: [{{source: {{ipBlocks: ["{SECOND[family]}"]}}}}]}}]'
    mesh.apply(lab.policy("shop/second", "DENY", rules))
    try:
        sock = mesh.socket("shop/caller", SOCKETS[family])
        sock.bind((SECOND[family], 0))
        assert sock.connect_ex((address, to.port)) or lab.is_refused(sock)
        client, server = mesh.join("shop/caller", to, address)
        client.sendall(b"x")
        assert server.recv(1) == b"x"
    finally:
        mesh.apply(lab.policy("shop/second", "DENY", rules), delete=True)


def test_a_service_of_plain_pods_sees_a_chosen_source_address(mesh: Mesh, second: None) -> None:
    vip = mesh.laboratory.service("out/plain").addresses[0]
    sock = mesh.socket("shop/caller")
    sock.bind((SECOND[lab.IPv4Address], 0))
    sock.connect((str(vip), 80))
    sock.sendall(b"ping")
    assert read_exactly(sock, 4) == b"ping"
    sock.close()
    assert mesh.line("node-1", **{"dst.service": "plain.out.svc.cluster.local"})["src.addr"].startswith(
        SECOND[lab.IPv4Address]
    )


def test_a_pod_without_ipv6_is_served_and_protected_by_what_it_has_and_by_ipv6_once_it_has_it(
    mesh: Mesh,
) -> None:
    v4, v6 = mesh.address("shop/called"), mesh.address("shop/called", lab.IPv6Address)
    mesh.label("pod", "shop/called", {"istio.io/dataplane-mode": "none"})
    gateway = do(mesh, "shop/called", "ip -6 route show default").split()[2]
    routes = f"ip route add {gateway} dev eth0; ip route add default via {gateway} src {v6}"
    do(mesh, "shop/called", SWITCH.format(1))
    mesh.label("pod", "shop/called", {"istio.io/dataplane-mode": None})
    strict = lab.peer_authentication("shop/default", "STRICT")
    mesh.apply(strict)
    try:
        call = mesh.call("shop/caller", v4, 8080)
        assert call.answers()
        call.sock.close()
        assert mesh.call("shop/called", mesh.address("shop/caller"), 8080).answers()
        assert mesh.line("node-2", src_identity=account("shop/caller"))["direction"] == "inbound"
        assert not mesh.call("out/plain", v4, 8080).answers()
        do(mesh, "shop/called", f"{SWITCH.format(0)}; ip addr add {v6}/128 dev eth0 nodad; {routes}")
        lab.wait_until(lambda: mesh.call("shop/caller", v6, 8080).answers(), "IPv6 is served")
        assert not mesh.call("out/plain", v6, 8080).answers()
    finally:
        mesh.apply(strict, delete=True)


def link_local(mesh: Mesh, where: str) -> str:
    shown = do(mesh, where, "ip -6 -o addr show dev eth0 scope link")
    return shown.split()[3].partition("/")[0]


def call_by_link(mesh: Mesh, where: str, device: str, address: str) -> tuple[socket.socket, int]:
    """An attempt, and its errno."""
    index = int(do(mesh, where, f"cat /sys/class/net/{device}/ifindex"))
    sock = mesh.socket(where, socket.AF_INET6)
    return sock, sock.connect_ex((address, 8080, 0, index))


@pytest.mark.parametrize(("where", "device"), [("shop/caller", "eth0"), ("node-1", "pods0")])
def test_a_link_local_call_reaches_its_neighbour_and_is_judged_as_plaintext_there(
    mesh: Mesh, where: str, device: str
) -> None:
    """The way out is left alone, because the hooks lose the scope; the way in is under policy like any
    other."""
    address = link_local(mesh, "shop/near")
    sock, code = call_by_link(mesh, where, device, address)
    assert code == 0
    sock.sendall(b"ping")
    assert read_exactly(sock, 4) == b"ping"
    own = str(endpoint_of(sock.getsockname()[:2]).ip).partition("%")[0]
    sock.close()
    line = mesh.line("node-1", direction="inbound", dst_addr=f"[{address}]:8080")
    assert line["src.addr"].startswith(f"[{own}]")
    assert "src.identity" not in line
    strict = lab.peer_authentication("shop/default", "STRICT")
    mesh.apply(strict)
    try:
        sock, code = call_by_link(mesh, where, device, address)
        assert code or lab.is_refused(sock)
        refused = mesh.line("node-1", direction="inbound", level="error", dst_addr=f"[{address}]:8080")
        assert "policy rejection" in refused["error"]
    finally:
        mesh.apply(strict, delete=True)


def test_a_pod_reaches_itself_by_its_link_local_address(mesh: Mesh) -> None:
    address = link_local(mesh, "shop/near")
    sock, code = call_by_link(mesh, "shop/near", "eth0", address)
    assert code == 0
    sock.sendall(b"ping")
    assert read_exactly(sock, 4) == b"ping"
    assert not mesh.find_lines("node-1", direction="inbound")
