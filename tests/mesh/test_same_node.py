"""Two pods of one node: judged, then direct and counted all the same; or over TLS where that is asked for."""

from __future__ import annotations

import fcntl
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Listener, Mesh, endpoint_of, read_all, read_exactly, wait_until
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import connections, cookie_of
from ztunnel.model.address import Endpoint
from ztunnel.outbound.call import UNANSWERED_SECONDS

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/tls", "node-1", annotations="ztunnel.io/same-node: mtls")
    + lab.pod("shop/far", "node-2")
    + lab.pod("out/plain", "node-1")
    + lab.service("shop/near", "near")
)
BOTH = {"source_workload": "caller", "destination_workload": "near"}
IDENTITIES = {
    "source_principal": lab.account("shop/caller"),
    "destination_principal": lab.account("shop/near"),
}
Apply = Callable[[str], None]


_SIOCGSKNS = 0x894C
"""The network namespace of a socket, as a descriptor (linux/sockios.h)."""


def is_direct(client: socket.socket, server: socket.socket) -> bool:
    """Whether both sockets are the two ends of one connection: nobody is in between. Their names tell the
    same in any case; the kernel's own list knows."""
    with NetworkNamespace(fcntl.ioctl(client, _SIOCGSKNS), "the client's") as pod:
        remotes = {each.cookie: each.remote for each in connections(pod)}
    if remotes[cookie_of(client)] != endpoint_of(server.getsockname()):
        return False
    return endpoint_of(client.getsockname()) == endpoint_of(server.getpeername())


def learn(mesh: Mesh, address: object, port: int = 8080, caller: str = "shop/caller") -> None:
    """Make the first call of a pair, by which the kernel learns the way, and end it."""
    call = mesh.call(caller, address, port)
    assert call.answers()
    lab.reset(call.sock)


def learn_by(mesh: Mesh, listener: Listener, address: object) -> None:
    """The same for a server of ours. Once a byte has passed, the kernel knows."""
    client, server = mesh.join("shop/caller", listener, address)
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    lab.reset(client)
    lab.reset(server)


def outcome(mesh: Mesh, name: str) -> float:
    return mesh.grown("node-1", "ztunnel_redirect_outcomes_total", outcome=name)


def join_directly(mesh: Mesh, listener: Listener, address: object) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection that the kernel made, after one that it learnt by."""
    learn_by(mesh, listener, address)
    client, server = mesh.join("shop/caller", listener, address)
    assert is_direct(client, server)
    return client, server


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_the_first_call_is_judged_and_the_next_one_is_nobodys_but_the_kernels(
    mesh: Mesh, family: Family
) -> None:
    listener, address = mesh.listen("shop/near"), mesh.address("shop/near", family)
    client, server = mesh.join("shop/caller", listener, address)
    assert not is_direct(client, server)
    assert endpoint_of(server.getpeername()).ip == endpoint_of(client.getsockname()).ip
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    again, accepted = mesh.join("shop/caller", listener, address)
    assert is_direct(again, accepted)
    assert endpoint_of(again.getpeername()) == Endpoint(lab.ip_address(address), listener.port)
    with NetworkNamespace.open(mesh.netns("shop/near")) as there:
        ends = {(each.local, each.remote) for each in connections(there)}
    assert (endpoint_of(accepted.getsockname()), endpoint_of(again.getsockname())) in ends


def test_a_direct_flow_is_counted_byte_for_byte_and_logged_at_both_ends(mesh: Mesh) -> None:
    listener = mesh.listen("shop/near")
    client, server = mesh.join("shop/caller", listener, mesh.address("shop/near"))
    client.close()
    server.close()
    for reporter in ("source", "destination"):
        mesh.expect("node-1", 1, "istio_tcp_connections_closed_total", reporter=reporter, **BOTH)
    client, server = mesh.join("shop/caller", listener, mesh.address("shop/near"))
    assert is_direct(client, server)
    own = endpoint_of(client.getsockname())
    for _ in range(100):
        client.sendall(b"x" * 12_345)
        assert read_exactly(server, 12_345) == b"x" * 12_345
    server.sendall(b"y" * 7654)
    assert read_exactly(client, 7654) == b"y" * 7654
    client.close()
    assert server.recv(1) == b""
    server.close()
    for direction, sent, received in (("outbound", "1234500", "7654"), ("inbound", "7654", "1234500")):
        line = mesh.line("node-1", src_addr=own, direction=direction)
        assert (line["bytes_sent"], line["bytes_recv"], line["level"]) == (sent, received, "info")
        assert line["dst.addr"] == str(endpoint_of(server_name(mesh, listener)))
        assert (line["src.workload"], line["dst.workload"]) == ("caller", "near")
        assert not {"error", "dst.hbone_addr", "src.identity"} & line.keys()
    for reporter in ("source", "destination"):
        labels = {"reporter": reporter, "connection_security_policy": "unknown", **BOTH, **IDENTITIES}
        mesh.expect("node-1", 2, "istio_tcp_connections_opened_total", **labels)
        mesh.expect("node-1", 2, "istio_tcp_connections_closed_total", response_flags="-", **labels)
        mesh.expect("node-1", 1_234_500, "istio_tcp_received_bytes_total", **labels)
        mesh.expect("node-1", 7654, "istio_tcp_sent_bytes_total", **labels)
    mesh.expect("node-1", 0, "istio_tcp_connections_opened_total", connection_security_policy="mutual_tls")


def server_name(mesh: Mesh, listener: Listener) -> tuple[str, int]:
    return mesh.address("shop/near"), listener.port


@pytest.mark.parametrize("called_as", ["vip4", "vip6", "mapped vip", "mapped"])
def test_a_service_and_a_mapped_address_are_direct_too_and_keep_their_looks(
    mesh: Mesh, called_as: str
) -> None:
    vip4, vip6 = mesh.laboratory.service("shop/near").addresses
    address, port = {
        "vip4": (str(vip4), 80),
        "vip6": (str(vip6), 80),
        "mapped vip": (lab.mapped(vip4), 80),
        "mapped": (f"::ffff:{mesh.address('shop/near')}", 8080),
    }[called_as]
    learn(mesh, address, port)
    before = outcome(mesh, "connect_direct")
    client = mesh.connect("shop/caller", address, port)
    assert client.getpeername()[:2] == (address, port)
    own = endpoint_of(client.getsockname())
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = read_all(client).decode()
    client.close()
    assert f'"caller": "{own}"' in answer
    wait_until(lambda: outcome(mesh, "connect_direct") > before, "a direct connect")
    line = mesh.line("node-1", src_addr=own, direction="outbound")
    assert line.get("dst.service") == ("near.shop.svc.cluster.local" if port == 80 else None)


def test_an_endpoint_that_leaves_its_service_is_picked_no_more(mesh: Mesh) -> None:
    """The kernel picks among endpoints by itself: what it was taught must not outlive them."""
    second = lab.pod("shop/second", "node-1").replace("app: second", "app: near")
    vip = mesh.laboratory.service("shop/near").addresses[0]

    def asked(count: int) -> set[str]:
        found = set()
        for _ in range(count):
            sock = mesh.connect("shop/caller", vip, 80)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            found.add(read_all(sock).decode().partition('"pod": "')[2].partition('"')[0])
            sock.close()
        return found

    mesh.apply(second)
    try:
        assert asked(60) == {"near", "second"}
        mesh.label("pod", "shop/second", {"app": "other"})
        assert asked(60) == {"near"}
        mesh.label("pod", "shop/second", {"app": "near"})
        assert asked(60) == {"near", "second"}
    finally:
        mesh.apply(second, delete=True)
    assert asked(60) == {"near"}


def test_half_close_and_reset_are_the_kernels(mesh: Mesh) -> None:
    listener = mesh.listen("shop/near")
    client, server = join_directly(mesh, listener, mesh.address("shop/near"))
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.sendall(b"late")
    assert read_exactly(client, 4) == b"late"
    lab.reset(server)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    wait_until(lambda: mesh.figures("node-1").total("ztunnel_direct_flows") == 0, "no flow is left")


def test_bytes_of_a_first_call_are_counted_as_those_of_a_direct_one(mesh: Mesh) -> None:
    mesh.label("pod", "shop/near", {"again": "1"})  # whatever was learnt is void
    client, server = mesh.join("shop/caller", mesh.listen("shop/near"), mesh.address("shop/near"))
    assert not is_direct(client, server)
    client.sendall(b"abc")
    client.shutdown(socket.SHUT_WR)
    assert read_all(server) == b"abc"
    server.sendall(b"defgh")
    server.close()
    assert read_all(client) == b"defgh"
    client.close()
    for reporter in ("source", "destination"):
        mesh.expect_flow("node-1", 3, 5, reporter=reporter, **BOTH, **IDENTITIES)


def assert_tls(mesh: Mesh, where: str) -> None:
    """Twice: the second call would be direct if the kernel had learnt it."""
    listener = mesh.listen(where)
    for _ in range(2):
        client, server = mesh.join("shop/caller", listener, mesh.address(where))
        assert not is_direct(client, server)
        own = endpoint_of(client.getsockname())
        assert endpoint_of(server.getpeername()).ip == own.ip
        client.sendall(b"hello world")
        assert read_exactly(server, 11) == b"hello world"
        client.close()
        server.close()
        line = mesh.line("node-1", src_addr=own, direction="outbound")
        assert line["dst.addr"] == f"{mesh.address(where)}:15008"
        assert line["src.identity"] == lab.account("shop/caller")
    labels = {"connection_security_policy": "mutual_tls", "destination_workload": where[5:]}
    for reporter in ("source", "destination"):
        mesh.expect("node-1", 2, "istio_tcp_connections_closed_total", reporter=reporter, **labels)
        mesh.expect("node-1", 22, "istio_tcp_received_bytes_total", reporter=reporter, **labels)
    assert outcome(mesh, "connect_direct") == 0


def test_a_pod_annotated_mtls_is_called_over_tls(mesh: Mesh) -> None:
    assert_tls(mesh, "shop/tls")


def test_a_namespace_annotated_mtls_calls_over_tls(mesh: Mesh) -> None:
    learn(mesh, mesh.address("shop/near"))
    mesh.apply(lab.namespace("shop", annotations="ztunnel.io/same-node: mtls"))
    mesh.begin()
    try:
        assert_tls(mesh, "shop/near")
    finally:
        mesh.apply(lab.namespace("shop"))
    learn(mesh, mesh.address("shop/near"))
    client, server = join_directly(mesh, mesh.listen("shop/near"), mesh.address("shop/near"))
    assert is_direct(client, server)


@pytest.mark.parametrize("where", ["shop/strict", "istio-system/strict"])
def test_strict_means_tls_on_one_node_too(mesh: Mesh, applied: Apply, where: str) -> None:
    learn(mesh, mesh.address("shop/near"))
    applied(lab.peer_authentication(where, "STRICT"))
    mesh.begin()
    assert_tls(mesh, "shop/near")


def test_strict_at_one_port_means_tls_at_that_port(mesh: Mesh, applied: Apply) -> None:
    strict, other = mesh.listen("shop/near"), mesh.listen("shop/near")
    applied(
        lab.peer_authentication("shop/ports", "PERMISSIVE", "app: near", f"{strict.port}: {{mode: STRICT}}")
    )
    address = mesh.address("shop/near")
    for listener, direct in ((strict, False), (other, True)):
        learn_by(mesh, listener, address)
        assert is_direct(*mesh.join("shop/caller", listener, address)) is direct


def test_pods_of_other_nodes_and_outside_the_mesh_are_never_direct(mesh: Mesh) -> None:
    far, near = mesh.listen("shop/far"), mesh.listen("shop/near")
    for _ in range(2):
        assert not is_direct(*mesh.join("shop/caller", far, mesh.address("shop/far")))
        assert not is_direct(*mesh.join("out/plain", near, mesh.address("shop/near")))
    assert outcome(mesh, "connect_direct") == 0


def test_a_local_port_that_refuses_refuses_the_first_call_and_the_next(mesh: Mesh) -> None:
    listener = mesh.listen("shop/near")
    address = mesh.address("shop/near")
    join_directly(mesh, listener, address)
    listener.sock.close()
    for _ in range(3):
        assert mesh.call("shop/caller", address, listener.port).refused
    again = mesh.listen("shop/near", port=listener.port)
    client, server = mesh.join("shop/caller", again, address)
    client.sendall(b"x")
    assert server.recv(1) == b"x"


def test_an_application_whose_backlog_was_full_is_called_directly_again(mesh: Mesh) -> None:
    """For its callers there is no quicker way."""
    listener, address = mesh.listen("shop/near"), mesh.address("shop/near")
    listener.sock.listen(4)
    mesh.label("pod", "shop/near", {"full": "1"})  # whatever was learnt is void
    calls = [mesh.socket("shop/caller") for _ in range(8)]
    for call in calls:
        call.setblocking(False)
        call.connect_ex((address, listener.port))
    select.select([], [], [], 1.5 * UNANSWERED_SECONDS)
    for _ in calls:
        listener.accept().sendall(b"!")
    for call in calls:
        call.settimeout(lab.SOCKET_SECONDS)
        assert call.recv(1) == b"!"
    join_directly(mesh, listener, address)


@contextmanager
def dropped(mesh: Mesh, where: str, port: int) -> Iterator[None]:
    """A network policy at a pod's interface that drops what is sent to a port."""
    rule = f'type filter hook input priority 0; iifname != "lo" tcp dport {port} drop;'
    with mesh.filtered(where, rule):
        yield


def test_where_the_direct_way_is_dropped_the_call_goes_by_hbone(mesh: Mesh) -> None:
    listener = mesh.listen("shop/near")
    address = mesh.address("shop/near")
    with dropped(mesh, "shop/near", listener.port):
        client, server = mesh.join("shop/caller", listener, address)
        client.sendall(b"through")
        assert read_exactly(server, 7) == b"through"
        own = endpoint_of(client.getsockname())
        client.close()
        server.close()
        line = mesh.line("node-1", src_addr=own, direction="outbound")
        assert line["dst.addr"] == f"{address}:15008"
        assert line["bytes_sent"] == "7"


def test_ten_thousand_bytes_each_way_on_a_hundred_direct_flows_add_up(mesh: Mesh) -> None:
    listener, address = mesh.listen("shop/near"), mesh.address("shop/near")
    pairs = [join_directly(mesh, listener, address)]
    pairs += [mesh.join("shop/caller", listener, address) for _ in range(99)]
    assert all(is_direct(*pair) for pair in pairs)
    wait_until(lambda: mesh.figures("node-1").total("ztunnel_direct_flows") == 100, "100 direct flows")
    for client, server in pairs:
        client.sendall(bytes(10_000))
        server.sendall(bytes(10_000))
        assert len(read_exactly(server, 10_000)) == len(read_exactly(client, 10_000)) == 10_000
        client.close()
        server.close()
    for reporter in ("source", "destination"):
        labels = {"reporter": reporter, **BOTH}
        mesh.expect("node-1", 101, "istio_tcp_connections_closed_total", **labels)
        mesh.expect("node-1", 1_000_001, "istio_tcp_received_bytes_total", **labels)
        mesh.expect("node-1", 1_000_000, "istio_tcp_sent_bytes_total", **labels)


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
