"""Services as kube-proxy has them: endpoints that terminate and still serve, and those of slices by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.mesh import lab
from tests.mesh.lab import TCP_FAMILIES, Family, Mesh, wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.namespace("data")
    + lab.namespace("out", ambient=False)
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/one", "node-1", labels="tier: back")
    + lab.pod("shop/two", "node-2", labels="tier: back")
    + lab.pod("data/store", "node-2")
    + lab.pod("data/near", "node-1")
    + lab.pod("out/plain", "node-2")
    + lab.service("shop/back", "none").replace("{app: none}", "{tier: back}")
)
Apply = Callable[[str], None]


def ending(where: str, node: str) -> str:
    """The pod as it is while it terminates."""
    text = lab.pod(where, node, labels="tier: back")
    return text.replace("annotations: {}", 'annotations: {}, deletionTimestamp: "2030-01-01T00:00:00Z"')


def answered(mesh: Mesh, service: str, family: Family, calls: int = 12) -> Counter[str]:
    """By whom calls of a service's address were, as the log of the caller's node names them."""
    vip = next(ip for ip in mesh.laboratory.service(service).addresses if isinstance(ip, family))
    before = len(mesh.find_lines("node-1", direction="outbound"))
    for _ in range(calls):
        call = mesh.call("shop/caller", str(vip), 80)
        assert call.answers()
        call.sock.close()
    lines = wait_until(
        lambda: (
            found if len(found := mesh.find_lines("node-1", direction="outbound")[before:]) == calls else None
        ),
        f"{calls} lines",
    )
    return Counter(line["dst.workload"] for line in lines)


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_endpoints_that_terminate_serve_where_no_other_does(mesh: Mesh, family: Family) -> None:
    """By the proxy's choice and, where the pod is on the node, the kernel's own."""
    assert answered(mesh, "shop/back", family).keys() == {"one", "two"}
    try:
        mesh.apply(ending("shop/one", "node-1"))
        assert answered(mesh, "shop/back", family).keys() == {"two"}
        mesh.apply(ending("shop/two", "node-2"))
        assert answered(mesh, "shop/back", family).keys() == {"one", "two"}
    finally:
        mesh.apply(
            lab.pod("shop/one", "node-1", labels="tier: back")
            + lab.pod("shop/two", "node-2", labels="tier: back")
        )
    assert answered(mesh, "shop/back", family).keys() == {"one", "two"}


def by_hand(mesh: Mesh, name: str, family: Family, *pods: str) -> str:
    """A service without a selector, and a slice with the addresses of these pods."""
    endpoints = ", ".join(f'{{addresses: ["{mesh.address(pod, family)}"]}}' for pod in pods)
    kind = "IPv4" if family is lab.IPv4Address else "IPv6"
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n"
        "spec: {ports: [{name: http, port: 80}]}\n---\n"
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        f"metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\n"
        f"addressType: {kind}\nports: [{{name: http, port: 8080}}]\nendpoints: [{endpoints}]\n---\n"
    )


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_a_slice_by_hand_that_names_a_pods_address_means_that_pod_with_its_identity(
    mesh: Mesh, applied: Apply, family: Family
) -> None:
    applied(by_hand(mesh, "hand", family, "data/store") + lab.peer_authentication("data/default", "STRICT"))
    assert answered(mesh, "shop/hand", family, 3) == {"store": 3}
    lines = wait_until(
        lambda: (
            found
            if len(found := mesh.find_lines("node-2", direction="inbound", dst_workload="store")) == 3
            else None
        ),
        "three lines",
    )
    assert {line["src.identity"] for line in lines} == {lab.account("shop/caller")}
    assert {line["dst.service"] for line in lines} == {"hand.shop.svc.cluster.local"}


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_a_pod_of_the_same_node_that_a_slice_names_is_called_directly(
    mesh: Mesh, applied: Apply, family: Family
) -> None:
    applied(by_hand(mesh, "close", family, "data/near"))
    assert answered(mesh, "shop/close", family, 4) == {"near": 4}
    wait_until(
        lambda: mesh.grown("node-1", "ztunnel_redirect_outcomes_total", outcome="connect_direct") >= 1,
        "the kernel makes such calls itself",
    )


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_an_address_that_is_no_pods_of_the_mesh_is_called_as_it_is(
    mesh: Mesh, applied: Apply, family: Family
) -> None:
    applied(by_hand(mesh, "plain", family, "out/plain"))
    assert answered(mesh, "shop/plain", family, 3) == {"plain": 3}
    mesh.expect("node-1", 3, "istio_tcp_connections_opened_total", destination_workload="plain")


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_an_external_address_is_the_services_at_its_port_and_the_hosts_at_others(
    mesh: Mesh, applied: Apply, family: Family
) -> None:
    """As kube-proxy has it for a pod, here with the address of a node."""
    external = mesh.address("node-2", family)
    service = lab.service("data/store", "store", extra=f", externalIPs: ['{external}']")
    applied(service + lab.peer_authentication("data/default", "STRICT"))
    call = mesh.call("shop/caller", external, 80)
    assert call.answers()
    call.sock.close()
    line = mesh.line("node-1", direction="outbound", dst_workload="store")
    assert line["dst.service"] == "store.data.svc.cluster.local"
    assert line["dst.identity"] == lab.account("data/store")
    client, server = mesh.join("shop/caller", mesh.listen("node-2"), external)
    client.sendall(b"x")
    assert server.recv(1) == b"x"


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
