"""What is behind a pod: policy holds for it, and callers, logs and metrics tell the same."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv6Address

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, endpoint_of, wait_until
from ztunnel.kernel.netns import NetworkNamespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.namespace("out", ambient=False)
    + lab.pod("shop/host", "node-1")
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/far", "node-2")
    + lab.pod("out/x", "node-2")
    + lab.service("shop/far", "far")
)
HOST = "shop/host"
Apply = Callable[[str], None]
FORWARDED = "ztunnel_forwarded_total"

IN_POD = """
addr add 172.31.0.1/24 dev v0
addr add fd31::1/64 dev v0 nodad
link set v0 up
"""
BEHIND = """
link set lo up
addr add 172.31.0.2/24 dev inner
addr add fd31::2/64 dev inner nodad
link set inner up
route add default via 172.31.0.1
route add default via fd31::1
"""
NAT = """
table inet behind {
  chain pre { type nat hook prerouting priority -100;
    iifname eth0 tcp dport 9090 dnat ip to 172.31.0.2:8080
    iifname eth0 tcp dport 9090 dnat ip6 to [fd31::2]:8080
  }
  chain post { type nat hook postrouting priority 100;
    oifname eth0 ip saddr 172.31.0.0/24 masquerade
    oifname eth0 ip6 saddr fd31::/64 masquerade
  }
}
"""


def run(netns: str, *words: str, text: str = "") -> None:
    subprocess.run(["nsenter", f"--net={netns}", *words], input=text, text=True, check=True)


@pytest.fixture(scope="module")
def container(module_mesh: Mesh) -> Iterator[NetworkNamespace]:
    """Behind pod `host`, as docker has it: 9090 of the pod is its 8080, it leaves by the pod's address."""
    pod, name = module_mesh.netns(HOST), f"{module_mesh.laboratory.names.node('node-1')}-container"
    with ExitStack() as stack:
        subprocess.run(["ip", "netns", "add", name], check=True)
        stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
        run(pod, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "inner", "netns", name)
        stack.callback(run, pod, "ip", "link", "del", "v0")
        run(pod, "ip", "-batch", "-", text=IN_POD)
        run(f"/run/netns/{name}", "ip", "-batch", "-", text=BEHIND)
        run(pod, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        run(pod, "nft", "-f", "-", text=NAT)
        stack.callback(run, pod, "nft", "delete", "table", "inet", "behind")
        yield stack.enter_context(NetworkNamespace.open(f"/run/netns/{name}"))


@pytest.fixture
def app(mesh: Mesh, container: NetworkNamespace) -> socket.socket:
    """What listens behind the pod."""
    listener = mesh.keep(container.socket(socket.AF_INET6, socket.SOCK_STREAM))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", 8080))
    listener.listen(16)
    return listener


def called_from(mesh: Mesh, container: NetworkNamespace, address: str, port: int) -> OSError | None:
    """What a call out of the container comes to."""
    sock = mesh.keep(
        container.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    )
    try:
        sock.connect((address, port))
    except OSError as error:
        return error
    return None


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
@pytest.mark.parametrize("to", ["shop/near", "shop/far", "out/x"])
def test_outwards_nothing_leaves_in_plaintext(
    mesh: Mesh, container: NetworkNamespace, to: str, family: Family
) -> None:
    listener = mesh.listen(to)
    address = mesh.address(to, family)
    assert isinstance(called_from(mesh, container, address, listener.port), ConnectionRefusedError)
    assert listener.nobody()
    called = lab.Endpoint(lab.ip_address(address), listener.port)
    line = mesh.line("node-1", dst_addr=called)
    assert (line["direction"], line["src.workload"], line["dst.workload"]) == (
        "outbound",
        "host",
        to[-len(line["dst.workload"]) :],
    )
    assert "ztunnel.io/forwarding" in line["error"]
    mesh.expect("node-1", 1, FORWARDED, pod="host", direction="outbound", outcome="refused")


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_inwards_what_policy_allows_comes_through_and_a_change_ends_it(
    mesh: Mesh,
    container: NetworkNamespace,
    app: socket.socket,
    applied: Callable[[str], None],
    family: Family,
) -> None:
    address = mesh.address(HOST, family)
    call = mesh.call("out/x", address, 9090)
    assert call.error is None
    server = mesh.keep(app.accept()[0])
    assert endpoint_of(server.getpeername()) == call.own
    call.sock.sendall(b"up")
    assert server.recv(9) == b"up"
    # Where a test before has had it judged, the kernel lets it in by itself.
    outcome = {"outcome": "forward_admitted"}
    wait_until(lambda: mesh.grown("node-1", "ztunnel_redirect_outcomes_total", **outcome) > 0, "counted")
    applied(lab.policy("shop/nobody", "ALLOW", "[]"))
    server.sendall(b"late")
    with pytest.raises(ConnectionResetError):
        call.sock.recv(9)
    with pytest.raises(ConnectionResetError):
        server.recv(9)
    again = mesh.call("out/x", address, 9090)
    assert isinstance(again.error, ConnectionRefusedError)
    line = mesh.line("node-1", src_addr=again.own)
    assert (line["direction"], line["dst.addr"]) == (
        "inbound",
        str(lab.Endpoint(lab.ip_address(address), 9090)),
    )


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_strict_refuses_what_comes_in_by_the_pod(
    mesh: Mesh,
    container: NetworkNamespace,
    app: socket.socket,
    applied: Callable[[str], None],
    family: Family,
) -> None:
    applied(lab.peer_authentication("shop/default", "STRICT"))
    call = mesh.call("out/x", mesh.address(HOST, family), 9090)
    assert isinstance(call.error, ConnectionRefusedError)
    app.setblocking(False)
    with pytest.raises(BlockingIOError):
        app.accept()


def test_an_annotation_leaves_it_alone_while_it_is_there(
    mesh: Mesh, container: NetworkNamespace, app: socket.socket
) -> None:
    mesh.apply(lab.peer_authentication("shop/default", "STRICT"))
    mesh.apply(lab.namespace("shop", annotations="ztunnel.io/forwarding: allow"))
    listener = mesh.listen("out/x")
    wait_until(lambda: called_from(mesh, container, mesh.address("out/x"), listener.port) is None, "outwards")
    assert called_from(mesh, container, mesh.address("out/x", IPv6Address), listener.port) is None
    assert mesh.call("out/x", mesh.address(HOST), 9090).error is None
    assert mesh.grown("node-1", "ztunnel_redirect_outcomes_total", outcome="forward_left") > 0
    mesh.apply(lab.namespace("shop"))
    wait_until(lambda: called_from(mesh, container, mesh.address("out/x"), listener.port), "refused again")
    assert isinstance(mesh.call("out/x", mesh.address(HOST), 9090).error, ConnectionRefusedError)
    mesh.take_back([lab.peer_authentication("shop/default", "STRICT")])


def test_with_the_proxy_dead_nothing_new_passes_and_what_was_admitted_goes_on(
    mesh: Mesh, container: NetworkNamespace, app: socket.socket
) -> None:
    call = mesh.call("out/x", mesh.address(HOST), 9090)
    assert call.error is None
    server = mesh.keep(app.accept()[0])
    mesh.laboratory.kill_node("node-1")
    call.sock.sendall(b"on")
    assert server.recv(9) == b"on"
    listener = mesh.listen("out/x")
    for _ in range(2):  # before and after the lease has run out
        sock = mesh.keep(container.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.settimeout(1.5)
        with pytest.raises(TimeoutError):
            sock.connect((mesh.address("out/x"), listener.port))
    late = mesh.socket("out/x")
    late.settimeout(1.5)
    with pytest.raises(TimeoutError):
        late.connect((mesh.address(HOST), 9090))
    mesh.laboratory.start_node("node-1")
    call.sock.sendall(b"still")
    assert server.recv(9) == b"still"


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
