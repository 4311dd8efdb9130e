"""Services and pods behind a waypoint that somebody else runs: a server of tunnels in a pod that no proxy of
ours serves, which answers for what is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.mesh import lab
from tests.mesh.lab import TCP_FAMILIES, Family, Mesh, account
from tests.mesh.peers import authority, issue
from tests.mesh.test_impostor import tunnels_at

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

USE = "labels: {istio.io/use-waypoint: wp}"


def gateway(kind: str = "ztunnel-waypoint", traffic: str = "all") -> str:
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n"
        f"metadata: {{name: wp, namespace: shop, labels: {{istio.io/waypoint-for: {traffic}}}}}\n"
        f"spec: {{gatewayClassName: {kind}, "
        "addresses: [{type: Hostname, value: wp.shop.svc.cluster.local}], "
        "listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n---\n"
    )


def behind(text: str) -> str:
    """A service or pod of the waypoint."""
    name = "labels: {" if "labels: {" in text else "namespace: shop"
    label = "istio.io/use-waypoint: wp"
    change = f"{name}{label}, " if name.startswith("labels") else f"{name}, labels: {{{label}}}"
    return text.replace(name, change, 1)


WEB = lab.service("shop/web", "web")
MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/web", "node-1")
    + lab.pod("shop/wp", "node-2", labels="istio.io/dataplane-mode: none, networking.istio.io/tunnel: http")
    + "apiVersion: v1\nkind: Service\nmetadata: {name: wp, namespace: shop}\n"
    "spec: {ports: [{name: mesh, port: 15008}]}\n---\n"
    + gateway()
    + behind(WEB)
    + behind(lab.pod("shop/alone", "node-1"))
    + lab.pod("shop/front", "node-1", labels='ztunnel.io/ingress: "true"')
)


@pytest.fixture(scope="module", autouse=True)
def _served(module_mesh: Mesh) -> None:
    """Its endpoints by hand: a selector would have the laboratory's own server take the port."""
    for kind, family in (("IPv4", lab.IPv4Address), ("IPv6", lab.IPv6Address)):
        module_mesh.apply(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
            f"metadata: {{name: wp-{kind.lower()}, namespace: shop, "
            "labels: {kubernetes.io/service-name: wp}}\n"
            f"addressType: {kind}\nports: [{{name: mesh, port: 15008}}]\n"
            f'endpoints: [{{addresses: ["{module_mesh.address("shop/wp", family)}"]}}]\n---\n'
        )


@contextmanager
def waypoint(mesh: Mesh, got: list[bytes], identity: str = "shop/wp") -> Iterator[None]:
    """Serves tunnels there, one connection after the other, and echoes what comes through them."""
    try:
        with tunnels_at(mesh, "shop/wp", issue(authority(mesh), account(identity)), got):
            yield
    finally:
        lab.wait_until(lambda: mesh.grown("node-1", "ztunnel_hbone_sessions") <= 0, "no session")


def vip(mesh: Mesh, family: Family) -> str:
    return next(str(ip) for ip in mesh.laboratory.service("shop/web").addresses if isinstance(ip, family))


def through(mesh: Mesh, address: str, port: int) -> lab.Line:
    """A call that the waypoint has answered, as the log has it."""
    call = mesh.call("shop/caller", address, port)
    assert call.answers(b"through the waypoint")
    lab.reset(call.sock)
    return mesh.line("node-1", src_addr=call.own, direction="outbound")


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_a_service_is_called_through_its_waypoint_which_proves_itself(mesh: Mesh, family: Family) -> None:
    got: list[bytes] = []
    with waypoint(mesh, got):
        line = through(mesh, vip(mesh, family), 80)
    assert any(b"through the waypoint" in octets for octets in got)
    assert line["dst.identity"] == account("shop/wp")
    assert line["dst.workload"] == "wp"
    assert line["dst.service"] == "web.shop.svc.cluster.local"
    mesh.expect_flow(
        "node-1", 20, 20, reporter="source", connection_security_policy="mutual_tls",
        destination_principal=account("shop/wp"), destination_service="web.shop.svc.cluster.local",
    )  # fmt: skip


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_so_is_a_pod_by_its_own_address(mesh: Mesh, family: Family) -> None:
    got: list[bytes] = []
    with waypoint(mesh, got):
        line = through(mesh, mesh.address("shop/alone", family), 8080)
    assert line["dst.identity"] == account("shop/wp")


def test_one_that_is_not_there_or_proves_another_account_lets_nothing_through(mesh: Mesh) -> None:
    assert mesh.call("shop/caller", vip(mesh, lab.IPv4Address), 80).refused
    got: list[bytes] = []
    with waypoint(mesh, got, "shop/web"):
        assert not mesh.call("shop/caller", vip(mesh, lab.IPv4Address), 80).answers(b"secret")
    assert not any(b"secret" in octets for octets in got)


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_what_stands_behind_it_follows_labels_and_gateways_live(
    mesh: Mesh, applied: Callable[[str], None], family: Family
) -> None:
    address = vip(mesh, family)
    mesh.apply(WEB)
    try:
        assert mesh.call("shop/caller", address, 80).answers()  # the pod's own server, and no waypoint
    finally:
        mesh.apply(behind(WEB))
    assert mesh.call("shop/caller", address, 80).refused
    mesh.apply(gateway(traffic="workload"))
    try:
        assert mesh.call("shop/caller", address, 80).answers()
        assert mesh.call("shop/caller", mesh.address("shop/alone", family), 8080).refused
    finally:
        mesh.apply(gateway())
    assert mesh.call("shop/caller", address, 80).refused


LATE = (
    "apiVersion: v1\nkind: Service\nmetadata: {name: late, namespace: shop}\n"
    "spec: {ports: [{name: mesh, port: 15008}]}\n---\n"
)
ONLY_LATE = (
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: late, namespace: shop}\n"
    'spec: {targetRefs: [{kind: Service, group: "", name: web}], rules: [{}]}\n---\n'
)


def test_until_a_waypoint_was_ready_once_calls_go_as_before_and_then_by_it_or_nowhere(mesh: Mesh) -> None:
    """But where there are policies that only it enforces: those are refused from the beginning."""
    late = gateway().replace("wp", "late")
    waits = behind(WEB).replace("use-waypoint: wp", "use-waypoint: late")

    def answered() -> list[bool]:
        calls = [mesh.call("shop/caller", vip(mesh, family), 80) for family in TCP_FAMILIES]
        return [call.answers() for call in calls]

    mesh.apply(late + waits)
    try:
        assert answered() == [True, True]
        mesh.apply(ONLY_LATE)
        assert answered() == [False, False]
        mesh.apply(ONLY_LATE, delete=True)
        assert answered() == [True, True]
        mesh.apply(LATE)  # it is there, and nobody answers for it
        assert answered() == [False, False]
        mesh.apply(LATE, delete=True)
        mesh.apply(late, delete=True)
        assert answered() == [False, False]
        mesh.apply(WEB)
        assert answered() == [True, True]
    finally:
        mesh.apply(behind(WEB))


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_a_gateway_passes_it_also_where_it_chooses_the_endpoint_itself(mesh: Mesh, family: Family) -> None:
    """As ingress controllers do (istio/istio#51214): the label is for them, and for nobody else."""
    got: list[bytes] = []
    address, front = mesh.address("shop/web", family), "shop/front"
    mesh.apply(behind(WEB).replace("labels: {", 'labels: {istio.io/ingress-use-waypoint: "true", ', 1))
    try:
        with waypoint(mesh, got):
            call = mesh.call(front, address, 8080)
            assert call.answers(b"through the waypoint")
            lab.reset(call.sock)
            line = mesh.line("node-1", src_addr=call.own, direction="outbound")
            assert line["dst.service"] == "web.shop.svc.cluster.local"
            assert mesh.call("shop/caller", address, 8080).answers()
    finally:
        mesh.apply(behind(WEB))
    assert any(b"through the waypoint" in octets for octets in got)
