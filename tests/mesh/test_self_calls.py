"""Calls to the proxy's own ports, from everywhere and by every name: bounded, no loop, no admin page.

After the table of Istio's ztunnel (src/inpod tests, `self_call`): own address, loopback, other pods, service,
node; IPv4, IPv6 and mapped; from pods in the mesh, from pods outside of it, from nodes.
"""

from __future__ import annotations

import time

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh
from ztunnel.kernel.netns import IN_ADVANCE

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP + lab.pod("shop/near", "node-1") + lab.pod("shop/far", "node-2") + lab.pod("out/plain", "node-1")
)
PORTS = (15000, 15001, 15006, 15008, 15020, 15021)
CALLERS = ("shop/caller", "out/plain", "node-1", "node-2")
QUESTION = b"GET /config_dump HTTP/1.1\r\nHost: localhost\r\n\r\n"


def addresses(mesh: Mesh, caller: str) -> dict[str, str]:
    """How a caller can name a port of the proxy's: its own loopback and address, pods, a node."""
    found = {
        "loopback": "127.0.0.1",
        "loopback6": "::1",
        "mapped loopback": "::ffff:127.0.0.1",
        "unspecified": "0.0.0.0",
        "own": mesh.address(caller),
        "own6": mesh.address(caller, lab.IPv6Address),
        "mapped own": f"::ffff:{mesh.address(caller)}",
    }
    for name in ("shop/near", "shop/far", "out/plain"):
        found[name] = mesh.address(name)
        found[f"{name} 6"] = mesh.address(name, lab.IPv6Address)
        found[f"mapped {name}"] = f"::ffff:{mesh.address(name)}"
    return found


def is_ended(call: lab.Call, seconds: float = 3.0) -> bool:
    """Whether a question there is answered by nothing, and the connection over in time."""
    if call.error is not None:
        return True
    call.sock.settimeout(seconds)
    try:
        call.sock.sendall(QUESTION)
        answer = b""
        while part := call.sock.recv(1 << 16):
            answer += part
    except TimeoutError:
        return False
    except ConnectionError:
        answer = b""
    return b"HTTP/1.1 200" not in answer


@pytest.mark.parametrize("caller", ["shop/caller", "out/plain"])
def test_a_pod_gets_nothing_from_any_port_of_the_proxy_at_any_address(mesh: Mesh, caller: str) -> None:
    begun = time.monotonic()
    open_before = mesh.figures("node-1").total("process_open_fds")
    cases = {
        (name, port): mesh.call(caller, address, port)
        for name, address in addresses(mesh, caller).items()
        for port in PORTS
    }
    assert [case for case, call in cases.items() if not is_ended(call)] == []
    assert time.monotonic() - begun < 20
    for call in cases.values():
        lab.reset(call.sock)
    for node in ("node-1", "node-2"):
        opened = mesh.grown(node, "istio_tcp_connections_opened_total")
        assert opened <= 2 * len(cases), "connections that make connections"
    bound = open_before + 8 + 4 * IN_ADVANCE  # two pods, two families
    lab.wait_until(lambda: mesh.figures("node-1").total("process_open_fds") <= bound, "no descriptor is left")


@pytest.mark.parametrize("caller", ["node-1", "node-2"])
def test_a_node_gets_nothing_from_the_ports_in_its_pods(mesh: Mesh, caller: str) -> None:
    targets = {
        name: mesh.address(name, family) for name in ("shop/near", "shop/far") for family in lab.TCP_FAMILIES
    }
    cases = {
        (name, port): mesh.call(caller, address, port) for name, address in targets.items() for port in PORTS
    }
    assert [case for case, call in cases.items() if not is_ended(call)] == []


@pytest.mark.parametrize("caller", CALLERS)
def test_the_admin_page_is_the_nodes_own_alone(mesh: Mesh, caller: str) -> None:
    for node in ("node-1", "node-2"):
        for family in lab.TCP_FAMILIES:
            assert is_ended(mesh.call(caller, mesh.address(node, family), 15000))
    assert '"workloads"' in mesh.laboratory.node_get("node-1", "/config_dump")


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: ports, namespace: shop}
spec: {ports: [{port: 15008, targetPort: 15008}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ports-1, namespace: shop, labels: {kubernetes.io/service-name: ports}}
addressType: IPv4
endpoints: [{addresses: ["%s"]}]
ports: [{port: 15008}]
---
"""


def test_a_service_that_names_a_port_of_ours_leads_nowhere(mesh: Mesh) -> None:
    mesh.apply(SERVICE % mesh.address("shop/near"))
    for address in mesh.laboratory.service("shop/ports").addresses:
        for caller in ("shop/caller", "shop/far", "shop/near", "out/plain"):
            assert is_ended(mesh.call(caller, address, 15008)), caller


def test_metrics_and_readiness_of_a_node_can_be_read_from_a_pod(mesh: Mesh) -> None:
    call = mesh.call("shop/caller", mesh.address("node-1"), 15020)
    call.sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"istio_build" in lab.read_all(call.sock)


def test_the_proxies_serve_on_afterwards(mesh: Mesh) -> None:
    for where, to in [("shop/caller", "shop/near"), ("shop/caller", "shop/far"), ("out/plain", "shop/near")]:
        assert mesh.call(where, mesh.address(to), 8080).answers()
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
