"""What is outside of the cluster: services of ServiceEntries in plaintext, workloads that speak HBONE by
themselves; and that no namespace takes another one's addresses so.

The machine outside is the second node, on which nothing is that Kubernetes knows at its own address."""

from __future__ import annotations

import socket

import pytest

from tests.mesh import lab
from tests.mesh.lab import TCP_FAMILIES, Family, Mesh, account, endpoint_of, read_all
from tests.mesh.peers import authority, issue
from tests.mesh.test_impostor import tunnels_at

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MACHINE = "node-2"
ADDRESSES = {lab.IPv4Address: "10.10.0.12", lab.IPv6Address: "fd00:10::12"}
LEDGER = {lab.IPv4Address: "198.51.100.7", lab.IPv6Address: "2001:db8::7"}
VM = {lab.IPv4Address: "198.51.100.8", lab.IPv6Address: "2001:db8::8"}


def entry(where: str, host: str, addresses: dict[Family, str], more: str, created: str = "2026-01-01") -> str:
    namespace, _, name = where.partition("/")
    virtual = ", ".join(f'"{ip}"' for ip in addresses.values())
    return (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
        f"metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{created}T00:00:00Z'}}\n"
        f"spec:\n  hosts: [{host}]\n  addresses: [{virtual}]\n"
        f"  ports: [{{number: 443, name: tls, protocol: TCP, targetPort: 8443}}]\n  {more}\n---\n"
    )


def at_machine() -> str:
    endpoints = ", ".join(f'{{address: "{ip}"}}' for ip in ADDRESSES.values())
    return f"resolution: STATIC\n  endpoints: [{endpoints}]"


def workload(name: str, address: str, port: int) -> str:
    labels = "{app: vm, networking.istio.io/tunnel: http}"
    return (
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n"
        f"metadata: {{name: {name}, namespace: shop, labels: {labels}}}\n"
        f'spec: {{address: "{address}", serviceAccount: vm, ports: {{tls: {port}}}}}\n---\n'
    )


MANIFESTS = (
    lab.SHOP
    + lab.namespace("third")
    + lab.pod("third/caller", "node-1")
    + lab.pod("shop/back", "node-1")
    + lab.service("shop/back", "back", 443)
    + entry("shop/ledger", "ledger.example.com", LEDGER, at_machine())
    + entry("shop/vm", "vm.example.com", VM, "resolution: STATIC\n  workloadSelector: {labels: {app: vm}}")
    + workload("vm4", ADDRESSES[lab.IPv4Address], 9443)
    + workload("vm6", ADDRESSES[lab.IPv6Address], 9443)
)


def talk(client: socket.socket, server: socket.socket) -> None:
    """11 bytes up, 22 down."""
    client.sendall(b"hello world")
    client.shutdown(socket.SHUT_WR)
    assert read_all(server) == b"hello world"
    server.sendall(b"hello world, and again")
    server.close()
    assert read_all(client) == b"hello world, and again"
    client.close()


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_an_external_service_is_called_in_plaintext_at_its_endpoints(mesh: Mesh, family: Family) -> None:
    listener = mesh.listen(MACHINE, port=8443)
    client, server = mesh.join_by("shop/caller", listener, LEDGER[family], 443)
    own = endpoint_of(client.getsockname())
    assert str(endpoint_of(client.getpeername())) == f"{bracketed(LEDGER[family])}:443"
    assert str(endpoint_of(server.getpeername()).ip) == mesh.address("shop/caller", family)
    talk(client, server)
    line = mesh.line("node-1", src_addr=own)
    assert line["dst.addr"] == f"{bracketed(ADDRESSES[family])}:8443"
    assert (line["dst.service"], line["dst.workload"]) == ("ledger.example.com", "ledger")
    assert (line["bytes_sent"], line["bytes_recv"]) == ("11", "22")
    assert not {"src.identity", "dst.identity", "dst.hbone_addr", "error"} & line.keys()
    mesh.expect_flow(
        "node-1", 11, 22, reporter="source", connection_security_policy="unknown",
        destination_service="ledger.example.com", destination_service_name="ledger",
        destination_service_namespace="shop", destination_workload="ledger",
    )  # fmt: skip


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_at_other_ports_its_address_is_left_alone(mesh: Mesh, family: Family) -> None:
    call = mesh.call("shop/caller", LEDGER[family], 22)
    assert call.error is not None  # nobody is there
    assert not mesh.find_lines("node-1", dst_service="ledger.example.com")


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_a_workload_that_speaks_hbone_is_called_by_a_tunnel(mesh: Mesh, family: Family) -> None:
    got: list[bytes] = []
    with tunnels_at(mesh, MACHINE, issue(authority(mesh), account("shop/vm")), got):
        call = mesh.call("shop/caller", VM[family], 443)
        assert call.answers(b"for the account of the machine")
        lab.reset(call.sock)
        line = mesh.line("node-1", src_addr=call.own)
    assert line["dst.identity"] == account("shop/vm")
    assert line["dst.hbone_addr"] == f"{bracketed(ADDRESSES[family])}:9443"
    assert line["dst.service"] == "vm.example.com"
    mesh.expect_flow(
        "node-1", 30, 30, reporter="source", connection_security_policy="mutual_tls",
        destination_principal=account("shop/vm"), destination_service="vm.example.com",
    )  # fmt: skip
    lab.wait_until(lambda: mesh.grown("node-1", "ztunnel_hbone_sessions") <= 0, "no session")


def test_whoever_proves_another_account_there_gets_nothing(mesh: Mesh) -> None:
    got: list[bytes] = []
    with tunnels_at(mesh, MACHINE, issue(authority(mesh), account("third/vm")), got):
        call = mesh.call("shop/caller", VM[lab.IPv4Address], 443)
        assert not call.answers(b"secret")
    assert not any(b"secret" in octets for octets in got)


@pytest.mark.parametrize("family", TCP_FAMILIES)
@pytest.mark.parametrize("caller", ["shop/caller", "third/caller"])
def test_no_entry_takes_a_services_or_a_pods_address(
    mesh: Mesh, applied: lab.Callable[[str], None], caller: str, family: Family
) -> None:
    service = next(str(ip) for ip in mesh.laboratory.service("shop/back").addresses if isinstance(ip, family))
    pod = mesh.address("shop/back", family)
    applied(
        lab.namespace("aaa")
        + entry("aaa/one", "one.example", {family: service}, at_machine())
        + entry("aaa/two", "two.example", {family: pod}, at_machine())
        + entry("aaa/three", "back.shop.svc.cluster.local", LEDGER, at_machine())
    )
    thief = mesh.listen(MACHINE, port=8443)
    for address, port in ((service, 443), (pod, 8080)):
        assert mesh.call(caller, address, port).answers()  # the pod's own server
    assert thief.nobody()


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_of_two_with_one_address_each_has_its_own_clients_and_the_older_all_others(
    mesh: Mesh, applied: lab.Callable[[str], None], family: Family
) -> None:
    elsewhere = at_machine().replace("endpoints", "workloadSelector: {labels: {no: body}}\n  #")
    applied(
        lab.namespace("aaa")
        + lab.pod("aaa/caller", "node-1")
        + entry("aaa/ledger", "mine.example", LEDGER, elsewhere, created="2026-02-01")
    )
    listener = mesh.listen(MACHINE, port=8443)
    for caller in ("shop/caller", "third/caller"):
        talk(*mesh.join_by(caller, listener, LEDGER[family], 443))
    refused = mesh.call("aaa/caller", LEDGER[family], 443)
    assert refused.refused
    assert listener.nobody()


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_resolution_none_leaves_a_call_where_it_wants_to_go_and_names_it(
    mesh: Mesh, applied: lab.Callable[[str], None], family: Family
) -> None:
    there = mesh.address("node-1", family)  # at that of the other node is a workload of the shop's
    applied(entry("third/direct", "direct.example", {family: there}, "resolution: NONE"))
    listener = mesh.listen("node-1", port=443)
    client, server = mesh.join_by("third/caller", listener, there, 443)
    own = endpoint_of(client.getsockname())
    talk(client, server)
    line = mesh.line("node-1", src_addr=own)
    assert (line["dst.service"], line["dst.addr"]) == (
        "direct.example",
        f"{bracketed(there)}:443",
    )


def test_an_endpoint_that_is_a_name_is_resolved_by_the_node(
    mesh: Mesh, applied: lab.Callable[[str], None]
) -> None:
    """By its libc, to which 10.10.11 is a name that means 10.10.0.11 without anybody being asked."""
    virtual = {lab.IPv4Address: "198.51.100.10"}
    by_name = 'resolution: DNS\n  endpoints: [{address: "10.10.11"}]'
    applied(entry("shop/named", "named.example", virtual, by_name))
    listener = mesh.listen("node-1", port=8443)
    lab.wait_until(lambda: "10.10.11" in mesh.laboratory.node_get("node-1", "/config_dump"), "it is known")
    lab.wait_until(lambda: connects(mesh, virtual[lab.IPv4Address]), "it is resolved")
    lab.reset(listener.accept())
    client, server = mesh.join_by("shop/caller", listener, virtual[lab.IPv4Address], 443)
    own = endpoint_of(client.getsockname())
    talk(client, server)
    assert mesh.line("node-1", src_addr=own)["dst.addr"] == "10.10.0.11:8443"


def connects(mesh: Mesh, address: str) -> bool:
    """Whether it does now; of those that do not, nothing comes to the listener."""
    call = mesh.call("shop/caller", address, 443)
    lab.reset(call.sock)
    return call.error is None


def test_an_entry_that_goes_takes_its_service_along(mesh: Mesh, applied: lab.Callable[[str], None]) -> None:
    gone = {lab.IPv4Address: "198.51.100.9"}
    text = entry("shop/gone", "gone.example", gone, at_machine())
    listener = mesh.listen(MACHINE, port=8443)
    applied(text)
    talk(*mesh.join_by("shop/caller", listener, "198.51.100.9", 443))
    mesh.apply(text, delete=True)
    assert mesh.call("shop/caller", "198.51.100.9", 443).error is not None
    mesh.apply(text)
    talk(*mesh.join_by("shop/caller", listener, "198.51.100.9", 443))
